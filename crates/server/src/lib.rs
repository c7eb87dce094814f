//! The service every edge calls: it authenticates, authorises, resolves names, runs the admin operations, reconciles
//! desired with observed state, meters and reports. It knows no HTTP: edges convert and call [`Server`].
//!
//! The path of a request: [`Server::authenticate`] and [`Server::admit`] from headers alone, then [`Server::infer`]
//! (module `infer`), which looks into one immutable routing table, checks the inputs and hands them to the node. No lock is
//! held across an `await` there, and no database is asked.
//!
//! The path of a change: an admin operation (module `admin`) writes to the store, and the routing table is read anew and
//! swapped whole (`Server::refresh`). From there the registrar and the reconciler, two tasks that each wait for a change
//! and compare what is with what should be, do the rest. Neither keeps a queue: what is left to do is in the store.

#![forbid(unsafe_code)]

pub mod admin;
mod archive;
mod audit;
mod auth;
mod bootstrap;
mod budget;
mod cache;
pub mod config;
mod describe;
mod identity;
mod infer;
mod inputs;
mod limits;
mod meter;
mod metrics;
mod minimum;
mod reconciler;
mod registration;
mod repository;
mod residency;
mod routing;
mod run;
mod sequences;
mod server;
mod shares;
mod statistics;
#[cfg(test)]
mod testing;

pub use auth::{Presented, Principal};
pub use bootstrap::{ADMIN_KEY_FILE, BootstrapError, OPERATOR_TENANT};
pub use budget::{BudgetState, BudgetView, BudgetsLeft};
pub use cache::CacheUse;
pub use describe::{ModelConfig, ModelStatus, Resolved, VersionState, VersionStatus};
pub use identity::{IssuedToken, TokenKeyError};
pub use infer::{Explanation, Inferred, ModelMetadata, ModelReadiness, ModelSummary};
pub use limits::{Permit, RateState};
pub use meter::Bill;
pub use repository::RepositoryEntry;
pub use server::{Server, ServerConfig, StartError};
pub use statistics::{BatchStatistics, DurationStatistic, ModelStatistics};
pub use tenantry_node::Timing;
pub use tenantry_sched::Policy;
pub use tenantry_store::{Role, Sharing};
pub use tenantry_types::model::Task;
