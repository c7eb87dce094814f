//! Who may do what: the words for roles, actions and scopes. The rules are policies, in the crate `policy`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{ModelName, NameError, RoleName, TenantName};

/// What a principal is to its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Role {
    /// Everything, in every tenant, but the use of what a tenant keeps to itself. Only the operator's tenant has such principals.
    PlatformAdmin,
    /// Everything inside its tenant.
    Admin,
    /// Uploads, deploys and uses models of its tenant.
    Deployer,
    /// Uses models.
    Invoker,
    /// Looks at models and settings, and uses nothing.
    Viewer,
    /// Reads what was done and what was used.
    Auditor,
    /// A role that a tenant made for itself.
    Custom(RoleName),
}

impl Role {
    /// The roles there are everywhere.
    pub const BUILT_IN: [Self; 6] =
        [Self::PlatformAdmin, Self::Admin, Self::Deployer, Self::Invoker, Self::Viewer, Self::Auditor];

    /// Its word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::PlatformAdmin => "platform_admin",
            Self::Admin => "admin",
            Self::Deployer => "deployer",
            Self::Invoker => "invoker",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Custom(name) => name.as_str(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = NameError;
    /// A word of a built-in role, or the name of a custom one; whether there is one of that name is another question.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match Self::BUILT_IN.into_iter().find(|role| role.as_str() == text) {
            Some(role) => Ok(role),
            None => text.parse().map(Self::Custom),
        }
    }
}

impl TryFrom<String> for Role {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.as_str().to_owned()
    }
}

/// A word that names no action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no action")]
pub struct UnknownAction(String);

macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        /// Something that can be done, and permitted or not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Action {
            $($(#[$doc])* $variant,)+
        }

        impl Action {
            /// All of them, in the order in which they are declared.
            pub const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];

            /// Its word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

actions! {
    /// Ask a model, load it for oneself, keep a sequence.
    ModelInfer = "model.infer",
    /// See a model, its versions, its deployment and its statistics.
    ModelRead = "model.read",
    /// Make, change and delete models, and unload them.
    ModelWrite = "model.write",
    /// Let other tenants use a model.
    ModelShare = "model.share",
    /// Upload, make and delete versions; move aliases.
    VersionWrite = "version.write",
    /// Say which version serves, and how many replicas.
    DeploymentWrite = "deployment.write",
    /// See a tenant and what it is promised.
    TenantRead = "tenant.read",
    /// Change a tenant's own settings.
    TenantWrite = "tenant.write",
    /// Make and delete tenants, and change what the platform sets for one.
    TenantManage = "tenant.manage",
    /// See the keys of a tenant, without their secrets.
    KeyRead = "key.read",
    /// Make, rotate and revoke keys.
    KeyWrite = "key.write",
    /// See the custom roles of a tenant.
    RoleRead = "role.read",
    /// Make and delete custom roles.
    RoleWrite = "role.write",
    /// Divide what a tenant has among its deployments and keys.
    ShareWrite = "share.write",
    /// Read sums of usage.
    UsageRead = "usage.read",
    /// Read usage record by record.
    UsageExport = "usage.export",
    /// Read the audit trail.
    AuditRead = "audit.read",
    /// Read prices, invoices and budgets.
    BillingRead = "billing.read",
    /// Set budgets within those of the platform.
    BudgetWrite = "budget.write",
    /// Set prices, and the platform's budgets for a tenant.
    BillingManage = "billing.manage",
    /// See how a tenant's files are encrypted.
    EncryptionRead = "encryption.read",
    /// Give a tenant's files new keys.
    EncryptionWrite = "encryption.write",
    /// See the server as a whole: its state, metrics, organisations, everybody's usage and audit.
    PlatformRead = "platform.read",
    /// Change the server as a whole.
    PlatformWrite = "platform.write",
}

impl Action {
    /// Whether it is about a model.
    pub const fn is_of_models(self) -> bool {
        matches!(
            self,
            Self::ModelInfer
                | Self::ModelRead
                | Self::ModelWrite
                | Self::ModelShare
                | Self::VersionWrite
                | Self::DeploymentWrite
        )
    }

    /// Whether only the platform may ever do it: no role of a tenant's can have it.
    pub const fn is_the_platforms(self) -> bool {
        matches!(self, Self::TenantManage | Self::BillingManage | Self::PlatformRead | Self::PlatformWrite)
    }

    /// Its bit in an [`ActionSet`].
    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;
    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|action| action.as_str() == text);
        found.ok_or_else(|| UnknownAction(crate::error::sanitise(text, crate::name::MAX_NAME_BYTES)))
    }
}

impl TryFrom<String> for Action {
    type Error = UnknownAction;
    fn try_from(text: String) -> Result<Self, UnknownAction> {
        text.parse()
    }
}

impl From<Action> for String {
    fn from(action: Action) -> Self {
        action.as_str().to_owned()
    }
}

// One bit each.
const _: () = assert!(Action::ALL.len() <= u64::BITS as usize);

/// A set of actions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ActionSet(u64);

impl ActionSet {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether an action is in it.
    pub const fn contains(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Whether all of another set are in it.
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// Those of its actions that are about models.
    #[must_use]
    pub fn of_models(self) -> Self {
        self.iter().filter(|action| action.is_of_models()).collect()
    }

    /// The actions that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The actions that are in it.
    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |action| self.contains(*action))
    }
}

impl FromIterator<Action> for ActionSet {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        Self(actions.into_iter().fold(0, |bits, action| bits | action.bit()))
    }
}

/// What a key is confined to, besides what its role allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The models it may see and use, `name` for its tenant's own, `owner/name` for others'; none: all that its role allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeSet<String>>,
    /// The actions; none: all that its role allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actions: Option<BTreeSet<Action>>,
}

impl Scope {
    /// Whether it confines nothing.
    pub const fn is_everything(&self) -> bool {
        self.models.is_none() && self.actions.is_none()
    }

    /// The actions.
    pub fn action_set(&self) -> ActionSet {
        self.actions.as_ref().map_or(ActionSet::ALL, |actions| actions.iter().copied().collect())
    }

    /// Whether it holds a model of this owner, for a principal of tenant `own`.
    pub fn holds_model(&self, own: &TenantName, owner: &TenantName, name: &ModelName) -> bool {
        let Some(models) = &self.models else { return true };
        let is_named = |model: &String| match model.split_once('/') {
            Some((of, named)) => of == owner.as_str() && named == name.as_str(),
            None => own == owner && model == name.as_str(),
        };
        models.iter().any(is_named)
    }

    /// Whether everything this scope holds is held by another one, too.
    pub fn is_within(&self, outer: &Self) -> bool {
        fn within<T: Ord>(inner: Option<&BTreeSet<T>>, outer: Option<&BTreeSet<T>>) -> bool {
            match (inner, outer) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(inner), Some(outer)) => inner.is_subset(outer),
            }
        }
        within(self.models.as_ref(), outer.models.as_ref()) && within(self.actions.as_ref(), outer.actions.as_ref())
    }
}

/// A role that a tenant made for itself: some actions, on all of its models or on some.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CustomRole {
    /// What it is called.
    pub name: RoleName,
    /// What it allows.
    pub actions: BTreeSet<Action>,
    /// On which of the tenant's own models, where an action is about a model; none: on all, and on what others share with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<BTreeSet<ModelName>>,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_roles_and_actions_both_ways() {
        for role in Role::BUILT_IN {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert_eq!("on-call".parse::<Role>().unwrap().as_str(), "on-call");
        assert!("Admin".parse::<Role>().is_err());
        for action in Action::ALL {
            assert_eq!(action.as_str().parse::<Action>().unwrap(), action);
        }
        assert!("model.*".parse::<Action>().is_err());
        // Nobody can call his own role what the platform may come to call one.
        assert!("platform_root".parse::<RoleName>().is_err());
        assert!("admin".parse::<RoleName>().is_err());
    }

    #[test]
    fn a_set_holds_what_was_put_in() {
        let set: ActionSet = [Action::ModelInfer, Action::PlatformWrite].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Action::ModelInfer, Action::PlatformWrite]);
        assert!(!set.contains(Action::ModelRead));
        assert_eq!(set.and([Action::ModelInfer].into_iter().collect()).iter().count(), 1);
        assert_eq!(ActionSet::ALL.iter().count(), Action::ALL.len());
    }

    #[test]
    fn a_scope_names_own_models_and_others() {
        let (acme, globex): (TenantName, TenantName) = ("acme".parse().unwrap(), "globex".parse().unwrap());
        let scope =
            Scope { models: Some(["m".to_owned(), "globex/shared".to_owned()].into_iter().collect()), actions: None };
        let holds = |owner, name: &str| scope.holds_model(&acme, owner, &name.parse().unwrap());
        assert!(holds(&acme, "m") && holds(&globex, "shared"));
        assert!(!holds(&globex, "m") && !holds(&acme, "shared") && !holds(&acme, "n"));
        assert!(Scope::default().holds_model(&acme, &globex, &"x".parse().unwrap()));
        assert!(scope.is_within(&Scope::default()) && !Scope::default().is_within(&scope) && scope.is_within(&scope));
    }
}
