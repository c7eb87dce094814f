//! Trust domains: who may share a worker process.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::TenantId;

/// Whose requests a worker may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DataOwner {
    /// Requests of this tenant only.
    Tenant(TenantId),
    /// Requests of any tenant: for models the operator publishes.
    Any,
}

/// One trust domain a worker: the owner of the model and the owner of the data.
///
/// A model shared between two tenants runs for each caller in a worker of that pair. Only the operator's own
/// published models run with [`DataOwner::Any`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TrustDomain {
    /// Whose model files the worker reads.
    pub model_owner: TenantId,
    /// Whose requests it computes.
    pub data_owner: DataOwner,
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.data_owner {
            DataOwner::Tenant(tenant) => write!(f, "{}/{}", self.model_owner, tenant),
            DataOwner::Any => write!(f, "{}/any", self.model_owner),
        }
    }
}
