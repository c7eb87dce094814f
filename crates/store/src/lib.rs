//! Durable truth: metadata in SQL, artefacts in an object store.
//!
//! One [`Store`] owns one data folder and one database. The database is SQLite in that folder unless a Postgres URL is
//! given; both run the same migrations and the same queries and pass the same suite (`tests/conformance.rs`).
//!
//! - **One writer at a time.** Every writing transaction begins by raising the store's revision, a single row. So writers
//!   queue on both databases, revisions are commits in order, and a check made inside a transaction still holds when it
//!   commits. Writes here are an administrator's, not a request's; queueing costs nobody anything.
//! - **Readers see one moment.** [`Store::catalogue`] reads everything in one snapshot.
//! - **`kill -9` at any moment** loses nothing acknowledged and shows nothing half. Rows change in transactions that reach
//!   the disk before they are acknowledged. A file is written aside, synced, and renamed to its address, which is its
//!   owner and digest; a row that names it is written only afterwards. What a kill leaves over is unreferenced and swept.
//! - **Nothing of a tenant's files is on the disk in the clear** where the store has a master key ([`Encryption`]): they are
//!   sealed while they arrive, under keys of their owner's own, and decrypted into sealed memory only (module `seal`).
//! - **No clock in the writes.** `now_ms` is an argument wherever a time is kept.
#![forbid(unsafe_code)]

mod artefacts;
mod audit;
mod budgets;
mod catalogue;
mod check;
mod data_keys;
mod database;
mod deployments;
mod error;
mod keys;
mod ledger;
pub mod limits;
pub mod master;
mod models;
mod open;
pub mod outgoing;
mod prices;
mod records;
mod rekey;
mod roles;
mod rows;
mod seal;
mod secret;
mod shares;
mod sweep;
mod tenants;
mod versions;

pub use artefacts::Upload;
pub use audit::{AuditActor, AuditEntry, AuditFault, AuditFaultKind, AuditQuery, AuditRecord, AuditVerification};
pub use budgets::{BudgetMark, BudgetRecord, UsedIn};
pub use data_keys::{Encryption, KeyGeneration};
pub use error::{BackendError, OpenError, ReadError, Thing, UploadError, WriteError};
pub use ledger::{
    Bookkeeper, BootAccount, Carried, Ledger, LedgerError, Opened, UsageGroup, UsageQuery, UsageRecord, UsageRow,
};
pub use open::{Store, StoreConfig};
pub use prices::PlanRecord;
pub use records::{
    Alias, Artefact, Catalogue, Deployment, DeploymentChange, Key, Model, ModelSearch, ModelUpdate, NewKey, NewModel,
    NewVersion, Optimised, Organisation, ShareRecord, Sharing, StoredFile, Swept, Tenant, TenantMinimum,
    TenantMinimumChange, Version, VersionState,
};
pub use rekey::{EncryptionSummary, Rekeyed, SealedFiles};
pub use seal::SealError;
pub use seal::memory::OpenFile;
pub use secret::KeySecret;
pub use tenantry_types::Role;
