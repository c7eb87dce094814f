//! The scheduler: events in, decisions out, no clock and no IO.
