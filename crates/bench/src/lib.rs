//! Paired measurements against named baselines.
