//! The scheduler against golden scripts, a naive reference and the properties it promises.
#![forbid(unsafe_code)]

mod golden;
mod ledger;
mod random;
mod reference;
