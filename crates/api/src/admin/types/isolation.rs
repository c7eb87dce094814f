//! The JSON of how well workers are kept apart: what is in force, and what is demanded.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How well workers are kept apart, in one word. As a minimum, `none` demands nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum IsolationLevel {
    /// Processes of their own, and no more.
    #[default]
    None,
    /// No privilege, no file, few system calls; the namespaces are the server's.
    Confined,
    /// The same, in namespaces and a root of their own.
    Isolated,
    /// The same, in a control group that bounds what they use.
    Full,
}

impl IsolationLevel {
    /// The level as text, the same as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Confined => "confined",
            Self::Isolated => "isolated",
            Self::Full => "full",
        }
    }
}

/// How well a tenant's workers are kept apart, and must be. What would run below the minimum is refused with the code
/// `isolation_below_minimum`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantIsolation {
    /// What the barriers around workers amount to.
    pub in_force: IsolationLevel,
    /// The least at which anything of it is run: the highest of the configuration's, the platform's and its own minimum.
    pub minimum: IsolationLevel,
    /// The platform's minimum for it.
    pub platform_minimum: IsolationLevel,
    /// Its own.
    pub own_minimum: IsolationLevel,
}

/// What a tenant is to become; absent fields stay.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantChange {
    /// The tenant's own minimum; counts where it is higher than the platform's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_isolation: Option<IsolationLevel>,
    /// The platform's minimum for it, which it cannot lower. Platform administrators only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform_min_isolation: Option<IsolationLevel>,
}

/// How well workers are kept apart from everything else: what was tried when the server started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Isolation {
    /// What the barriers amount to.
    #[schema(example = "isolated")]
    pub level: IsolationLevel,
    /// The least at which the configuration lets workers be started.
    pub minimum: IsolationLevel,
    /// Models that are not run because they or their owners demand more than is in force.
    pub models_below_minimum: u64,
    /// The barriers around every worker.
    pub in_force: Vec<String>,
    /// The barriers that are missing.
    pub not_in_force: Vec<MissingBarrier>,
}

/// A barrier that is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingBarrier {
    /// Its name.
    #[schema(example = "cgroup")]
    pub barrier: String,
    /// What the kernel said, or the settings.
    pub why: String,
}
