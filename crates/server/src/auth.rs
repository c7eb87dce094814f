//! Who is calling, and what he may do: the one place every call goes by. One 401 text for everything that can be wrong with
//! a credential.
//!
//! What a role allows is decided by the policies (crate `policy`), once for each set of roles; see [`access`].

mod access;
mod present;

use std::net::IpAddr;
use std::sync::Arc;

use tenantry_policy::{Grants, Relation};
use tenantry_store::{KeySecret, Role};
use tenantry_types::{
    Action, ActionSet, ErrorCode, KeyId, ModelName, ModelRef, Scope, ServiceError, TenantId, TenantName,
};

pub(crate) use access::Access;
pub use present::Presented;

use crate::identity::Subject;
use crate::routing::{RoutedKey, RoutedModel, RoutedTenant, Routing, unknown_model};

/// An authenticated caller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Principal {
    /// The tenant he belongs to.
    pub tenant: TenantId,
    /// Its name.
    pub tenant_name: Arc<TenantName>,
    /// The key; for somebody whom an issuer knows, an id of his own.
    pub key: KeyId,
    /// What he is to his tenant.
    pub roles: Arc<[Role]>,
    /// Where the call came from, if that is known.
    pub source: Option<IpAddr>,
    /// Who an issuer says he is, where he has no key of ours.
    pub(crate) subject: Option<Arc<str>>,
    /// What his roles allow.
    grants: Arc<Grants>,
    /// The actions that his key or token is confined to.
    actions: ActionSet,
    scope: Arc<Scope>,
    routed: Arc<RoutedTenant>,
}

impl Principal {
    /// The holder of a key.
    pub(crate) fn of_key(routed: &RoutedKey) -> Self {
        let RoutedKey { key, tenant, roles, grants, actions, scope, .. } = routed;
        Self {
            tenant: tenant.id,
            tenant_name: Arc::clone(&tenant.name),
            key: key.id,
            roles: Arc::clone(roles),
            source: None,
            subject: None,
            grants: Arc::clone(grants),
            actions: *actions,
            scope: Arc::clone(scope),
            routed: Arc::clone(tenant),
        }
    }

    /// Somebody whom an issuer knows, in his tenant.
    pub(crate) fn of_subject(subject: &Subject, tenant: &Arc<RoutedTenant>, grants: Arc<Grants>) -> Self {
        Self {
            tenant: tenant.id,
            tenant_name: Arc::clone(&tenant.name),
            key: subject.id,
            roles: Arc::clone(&subject.roles),
            source: None,
            subject: Some(Arc::clone(&subject.name)),
            grants,
            actions: ActionSet::ALL,
            scope: Arc::default(),
            routed: Arc::clone(tenant),
        }
    }

    /// The same, within these actions.
    pub(crate) fn within(self, actions: ActionSet) -> Self {
        Self { actions: self.actions.and(actions), ..self }
    }

    /// The key, where it is one that can have settings in the share tree.
    pub(crate) fn share_key(&self) -> Option<KeyId> {
        self.subject.is_none().then_some(self.key)
    }

    /// The same, calling from there.
    pub(crate) fn at(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// The tenant, as the routing table had it when the key was looked up.
    pub(crate) fn routed(&self) -> &Arc<RoutedTenant> {
        &self.routed
    }

    /// His roles as one text.
    pub(crate) fn role_text(&self) -> Box<str> {
        let words: Vec<&str> = self.roles.iter().map(Role::as_str).collect();
        words.join("+").into()
    }

    /// Whether he administers the platform.
    pub fn is_platform_admin(&self) -> bool {
        self.allows(Action::PlatformWrite, Relation::Own)
    }

    fn allows(&self, action: Action, relation: Relation) -> bool {
        self.actions.contains(action) && self.grants.allows(action, relation)
    }

    fn allows_model(&self, action: Action, relation: Relation, model: &ModelName) -> bool {
        self.actions.contains(action) && self.grants.allows_model(action, relation, model)
    }

    /// What a tenant is to his.
    fn relation_to(&self, tenant: TenantId) -> Relation {
        if tenant == self.tenant { Relation::Own } else { Relation::Other }
    }

    /// What a model is to his tenant.
    fn relation_to_model(&self, model: &RoutedModel) -> Relation {
        match self.relation_to(model.owner.id) {
            Relation::Other if model.is_visible_to(self.tenant) => Relation::Shared,
            relation => relation,
        }
    }

    /// Whether he may do this with a model.
    pub(crate) fn may(&self, action: Action, model: &RoutedModel) -> bool {
        self.holds(&model.owner.name, &model.reference.name)
            && self.allows_model(action, self.relation_to_model(model), &model.reference.name)
    }

    /// Whether a model is within what his key is confined to.
    fn holds(&self, owner: &TenantName, model: &ModelName) -> bool {
        self.scope.holds_model(&self.tenant_name, owner, model)
    }

    /// Whether he may do everything that these roles and this scope allow: nobody gives what he has not.
    pub(crate) fn covers(&self, grants: &Grants, scope: &Scope) -> bool {
        self.grants.within(self.actions).covers(&grants.within(scope.action_set()))
            && (self.scope.models.is_none() || scope.is_within(&self.scope))
    }
}

/// Who presents this `Authorization` header at `now_ms`.
///
/// The secret carries 256 random bits, so one SHA-256 of it is enough, and it is compared in constant time. A key that
/// was revoked is not in the table any more.
pub(crate) fn authenticate(
    routing: &Routing,
    authorization: Option<&str>,
    now_ms: i64,
) -> Result<Principal, ServiceError> {
    let found = authorization.and_then(bearer).and_then(KeySecret::parse).and_then(|(id, presented)| {
        let routed = routing.keys.get(&id)?;
        (routed.key.matches(&presented) && routed.key.is_live(now_ms)).then(|| {
            routed.note_used(now_ms);
            Principal::of_key(routed)
        })
    });
    found.ok_or_else(unauthenticated)
}

/// The one text for everything that is wrong with a credential.
pub(crate) fn unauthenticated() -> ServiceError {
    ServiceError::new(
        ErrorCode::Unauthenticated,
        "missing or invalid key; send `Authorization: Bearer KEY` with a key that is neither revoked nor expired",
    )
}

/// The key that a header which was not accepted names, if it looks like one.
pub(crate) fn named_key(authorization: Option<&str>) -> Option<KeyId> {
    authorization.and_then(bearer).and_then(KeySecret::parse).map(|(id, _)| id)
}

/// The token of a bearer header (RFC 6750, section 2.1); the scheme's case does not matter.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// The tenant an operation is about, if the caller may do this to it.
///
/// # Errors
/// 404 for a tenant that does not exist or is not the caller's, 403 where his role does not suffice in his own.
pub(crate) fn tenant<'a>(
    routing: &'a Routing,
    principal: &Principal,
    tenant: &TenantName,
    action: Action,
) -> Result<&'a Arc<RoutedTenant>, ServiceError> {
    let found = routing.tenant(tenant).ok_or_else(|| unknown_tenant(tenant))?;
    match principal.relation_to(found.id) {
        relation if principal.allows(action, relation) => Ok(found),
        Relation::Own => Err(denied(action)),
        Relation::Shared | Relation::Other => Err(unknown_tenant(tenant)),
    }
}

/// The tenant whose model of this name an operation is about, if the caller may do this to such a model; whether there is one
/// of that name is another question.
///
/// # Errors
/// As [`tenant`].
pub(crate) fn owner<'a>(
    routing: &'a Routing,
    principal: &Principal,
    owner: &TenantName,
    model: &ModelName,
    action: Action,
) -> Result<&'a Arc<RoutedTenant>, ServiceError> {
    let found = routing.tenant(owner).ok_or_else(|| unknown_tenant(owner))?;
    match principal.relation_to(found.id) {
        Relation::Own if !principal.holds(owner, model) => {
            Err(unknown_model(&ModelRef { owner: Some(owner.clone()), name: model.clone() }))
        }
        relation if principal.allows_model(action, relation, model) => Ok(found),
        Relation::Own => Err(denied(action)),
        Relation::Shared | Relation::Other => Err(unknown_tenant(owner)),
    }
}

/// The model a caller means, by the name that works for him, if he may do this with it.
///
/// # Errors
/// 404 with one text, whether it does not exist or may not be known to exist; 403 for what he may not do with a model that he
/// may know of.
pub(crate) fn model<'a>(
    routing: &'a Routing,
    principal: &Principal,
    model: &ModelRef,
    action: Action,
) -> Result<&'a Arc<RoutedModel>, ServiceError> {
    let found = routing.model(principal.tenant, &principal.tenant_name, model)?;
    if principal.may(action, found) {
        Ok(found)
    } else if principal.holds(&found.owner.name, &found.reference.name) {
        Err(denied(action))
    } else {
        Err(unknown_model(model))
    }
}

/// Something that concerns the server as a whole, or its settings for some tenant.
///
/// # Errors
/// 403 for everybody but a platform admin.
pub(crate) fn platform(principal: &Principal, action: Action) -> Result<(), ServiceError> {
    if principal.allows(action, Relation::Own) { Ok(()) } else { Err(denied(action)) }
}

/// The one text for a tenant that does not exist and for one that is not the caller's.
pub(crate) fn unknown_tenant(tenant: &TenantName) -> ServiceError {
    ServiceError::new(ErrorCode::NotFound, format!("tenant `{tenant}` does not exist or you may not manage it"))
}

pub(crate) fn denied(action: Action) -> ServiceError {
    let who =
        if action.is_the_platforms() { "only a platform admin has it" } else { "ask an admin of your tenant for it" };
    ServiceError::new(ErrorCode::PermissionDenied, format!("your key does not allow `{action}`; {who}"))
}

#[cfg(test)]
mod tests;
