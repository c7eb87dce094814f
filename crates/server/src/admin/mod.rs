//! The admin operations: one file a noun. Each takes the principal and checks its role first; another tenant's thing is
//! not found, whoever asks. Every change is one call of `Server::write`: in force when its operation returns, and also when
//! nobody waits for that any more.

mod aliases;
mod audit;
mod budgets;
mod deployments;
mod encryption;
mod info;
mod invoices;
mod keys;
mod models;
mod organisations;
mod policy;
mod prices;
mod roles;
mod shares;
mod status;
mod tenants;
mod uploads;
mod usage;
mod versions;

pub use budgets::{BudgetChange, BudgetInfo, BudgetPlace};
pub use encryption::{EncryptionInfo, EncryptionJob, EncryptionJobKind, EncryptionJobState, TenantEncryption};
pub use info::{
    AliasInfo, ArtefactInfo, AuditActorInfo, AuditIds, AuditInfo, AuditQuery, CreatedKey, DeploymentChange,
    DeploymentInfo, FileInfo, KeyInfo, ModelChange, ModelInfo, ModelQuery, NewKey, NewVersion, OrganisationInfo,
    Residency, ServerStatus, ShareChange, ShareInfo, SharePlace, TenantChange, TenantInfo, TenantIsolation,
    VersionInfo, VersionState, WorkerInfo,
};
pub use prices::{NewPlan, TenantPlans};
pub use tenantry_store::{AuditFault, AuditFaultKind, AuditVerification};
pub use tenantry_store::{BootAccount, KeyGeneration, UsageGroup};
pub use uploads::Upload;
pub use usage::{UsageAsk, UsageInfo, UsageRecordInfo};

use std::sync::Arc;

use tenantry_types::{Action, ModelName, ModelRef, ServiceError, TenantName};

use crate::routing::{RoutedModel, Routing, unknown_model};
use crate::{Principal, Server, auth};

impl Server {
    /// A model with which the caller may do what is more than to use it or to look at it.
    pub(crate) fn managed_model(
        &self,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        action: Action,
    ) -> Result<Arc<RoutedModel>, ServiceError> {
        let routing = self.routing.load();
        auth::owner(&routing, principal, owner, model, action)?;
        find(&routing, owner, model).ok_or_else(|| unknown(owner, model))
    }

    /// A model the caller may look at: of his own tenant, shared with him, or any for a platform admin.
    pub(crate) fn readable_model(
        &self,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
    ) -> Result<Arc<RoutedModel>, ServiceError> {
        let routing = self.routing.load();
        find(&routing, owner, model)
            .filter(|found| principal.may(Action::ModelRead, found))
            .ok_or_else(|| unknown(owner, model))
    }
}

fn find(routing: &Routing, owner: &TenantName, model: &ModelName) -> Option<Arc<RoutedModel>> {
    let owner = routing.tenant(owner)?;
    let reference = ModelRef { owner: None, name: model.clone() };
    routing.model(owner.id, &owner.name, &reference).ok().cloned()
}

fn unknown(owner: &TenantName, model: &ModelName) -> ServiceError {
    unknown_model(&ModelRef { owner: Some(owner.clone()), name: model.clone() })
}
