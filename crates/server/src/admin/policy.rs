//! How it is chosen what runs next.

use tenantry_types::{Action, ServiceError};

use crate::audit::Deed;
use crate::{Policy, Principal, Server, auth};

impl Server {
    /// The scheduler's policy. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles.
    pub fn policy(&self, principal: &Principal) -> Result<Policy, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        Ok(self.node.policy())
    }

    /// Switches the scheduler's policy until the server ends; the configuration says with which it starts.
    ///
    /// # Errors
    /// 403 for other roles than platform admin, 503 when the audit cannot be written.
    pub async fn set_policy(&self, principal: &Principal, policy: Policy) -> Result<Policy, ServiceError> {
        auth::platform(principal, Action::PlatformWrite)?;
        self.audit_first(principal, Deed::of_platform("policy.set", policy.as_str())).await?;
        tracing::info!(policy = policy.as_str(), "the policy of the scheduler is switched");
        self.node.set_policy(policy);
        Ok(self.node.policy())
    }
}
