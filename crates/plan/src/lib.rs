//! Desired state and observed state in, the next steps out.
