//! The service every edge calls: it authenticates, authorises, resolves names, runs the admin operations, reconciles
//! desired with observed state, meters and reports. It knows no HTTP: edges convert and call [`Server`].

#![forbid(unsafe_code)]

pub mod admin;
mod auth;
pub mod config;
mod infer;
mod limits;
mod metrics;
mod server;

pub use auth::{Principal, Role, Sharing};
pub use infer::{Inferred, ModelMetadata, ModelReadiness, ModelSummary, Timing};
pub use limits::Permit;
pub use server::Server;
