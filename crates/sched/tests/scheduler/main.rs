//! The scheduler against golden scripts, a naive reference and the properties it promises.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by panicking"
)]

mod golden;
mod ledger;
mod random;
mod reference;
