//! The scheduler against golden scripts, naive references and the properties it promises.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what is wrong by panicking"
)]

mod fair;
mod golden;
mod ledger;
mod naive;
mod priority;
mod promised;
mod random;
mod reference;
mod stage;
mod storms;
