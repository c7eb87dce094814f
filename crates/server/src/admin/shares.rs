//! Settings of the share tree: who may see and change them, and whether they can all be kept.
//!
//! A platform admin sets everything. A tenant's admin divides what the tenant has among its deployments and keys: weights,
//! and bounds within the tenant's.

use std::sync::Arc;

use tenantry_store::{ShareRecord, Store};
use tenantry_types::{Action, ErrorCode, KeyId, ModelRef, ServiceError, ShareSettings, ShareSubject, TenantName};

use super::organisations;
use super::{ShareChange, ShareInfo, SharePlace};
use crate::audit::Deed;
use crate::routing::{RoutedModel, RoutedShare, RoutedTenant, Routing, unknown_model};
use crate::server::storage;
use crate::shares::{self, SlotGroups};
use crate::{Principal, Server, auth};

/// A node of the share tree, found.
struct Found {
    place: SharePlace,
    subject: ShareSubject,
    record: Option<ShareRecord>,
    /// The tenant it is or belongs to; none for an organisation.
    tenant: Option<Arc<RoutedTenant>>,
}

impl Found {
    /// The change of its settings, for the audit.
    fn deed(&self, settings: &ShareSettings) -> Deed {
        // Plain values, which always have a text.
        let told = serde_json::to_string(settings).unwrap_or_default();
        let deed = match &self.tenant {
            Some(tenant) => Deed::of(tenant, "share.set", self.subject),
            None => Deed::of_platform("share.set", self.subject),
        };
        deed.with(told)
    }
}

impl Server {
    /// The settings of a node of the share tree and what holds in the end.
    ///
    /// # Errors
    /// 404 for what there is not or is not the caller's, 403 for an organisation unless he is a platform admin.
    pub fn share(&self, principal: &Principal, place: &SharePlace) -> Result<ShareInfo, ServiceError> {
        let routing = self.routing.load();
        let found = self.found(&routing, principal, place)?;
        Ok(self.share_info(&routing, found))
    }

    /// The settings of a tenant, then of its deployments and keys that have some.
    ///
    /// # Errors
    /// 404 for another tenant.
    pub fn shares(&self, principal: &Principal, tenant: &TenantName) -> Result<Vec<ShareInfo>, ServiceError> {
        let routing = self.routing.load();
        let routed = auth::tenant(&routing, principal, tenant, Action::TenantRead)?;
        let own = self.found(&routing, principal, &SharePlace::Tenant(tenant.clone()))?;
        let found = |place, share: &RoutedShare| Found {
            place,
            subject: share.record.subject,
            record: Some(share.record.clone()),
            tenant: Some(Arc::clone(routed)),
        };
        // A walk over all models, for an administrator's eyes: settings know a deployment by its id only.
        let mut deployments: Vec<(ModelRef, &RoutedShare)> = routing
            .models()
            // One that is private again is its owner's alone; what was set for it still counts, and a platform admin sees it.
            .filter(|model| model.is_visible_to(routed.id) || principal.is_platform_admin())
            .filter_map(|model| Some((model.reference.clone(), routed.deployments.get(&model.deployment.id)?)))
            .collect();
        deployments.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let deployments = deployments
            .into_iter()
            .map(|(model, share)| found(SharePlace::Deployment { tenant: tenant.clone(), model }, share));
        let keys =
            routed.keys.iter().map(|(key, share)| found(SharePlace::Key { tenant: tenant.clone(), key: *key }, share));
        let all = std::iter::once(own).chain(deployments).chain(keys);
        Ok(all.map(|found| self.share_info(&routing, found)).collect())
    }

    /// Gives a node of the share tree these settings as a whole. In force for requests that arrive after this returns.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for what there is not, 400 for values that cannot be or that raise what a tenant's
    /// admin was given, 409 if it changed meanwhile or the reservations do not fit the slots; the text has the arithmetic.
    pub async fn set_share(
        self: &Arc<Self>,
        principal: &Principal,
        place: &SharePlace,
        change: ShareChange,
    ) -> Result<ShareInfo, ServiceError> {
        let groups = SlotGroups::new(&self.limits.slot_groups);
        let (subject, settings, before, generation, deed) = {
            let routing = self.routing.load();
            let found = self.found(&routing, principal, place)?;
            // First, so that nobody learns from a refusal what there is beyond his own.
            check_role(&routing, principal, &found, &change)?;
            let organisation = match &change.organisation {
                Some(name) => Some(organisations::find(&routing, name)?.organisation.id),
                None => None,
            };
            let settings = ShareSettings { organisation, ..change.settings };
            self.check_settings(&settings, &groups)?;
            self.check_rights(principal, &found, &settings, &groups)?;
            // What a tenant's admin may ask for depends on what there is: if that changes meanwhile, he has to ask again.
            let seen = found.record.as_ref().map_or(0, |record| record.generation);
            let generation = if principal.is_platform_admin() { None } else { Some(seen) };
            let deed = found.deed(&settings);
            (found.subject, settings, found.record, change.generation.or(generation), deed)
        };
        let slots = self.node.slot_groups();
        let set = async move |store: Store| {
            let check = |all: &[ShareRecord]| shares::check_change(all, subject, before.as_ref(), &groups, &slots);
            set(&store, subject, generation, settings, check).await
        };
        self.write_audited(principal, deed, set).await?;
        self.share(principal, place)
    }

    /// What can be said of settings without knowing the others'.
    fn check_settings(&self, settings: &ShareSettings, groups: &SlotGroups) -> Result<(), ServiceError> {
        if let Some(name) = &settings.slot_group
            && !groups.contains(name)
        {
            let shown = tenantry_types::error::sanitise(name, 64);
            let known: Vec<&str> = groups.names().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(ServiceError::invalid(format!(
                "there is no slot group `{shown}`; configured under [[workers.group]]: {known}"
            )));
        }
        if settings.max_body_bytes.is_some_and(|bytes| bytes > self.limits.max_body_bytes) {
            return Err(ServiceError::invalid(format!(
                "`max_body_bytes` is at most {}, the server's `http.max_body`",
                self.limits.max_body_bytes
            )));
        }
        Ok(())
    }

    fn check_rights(
        &self,
        principal: &Principal,
        found: &Found,
        settings: &ShareSettings,
        groups: &SlotGroups,
    ) -> Result<(), ServiceError> {
        let Some(tenant) = found.tenant.as_ref().filter(|_| !principal.is_platform_admin()) else { return Ok(()) };
        let outer = shares::of_tenant(&tenant.settings(), &self.limits, groups);
        let stored = found.record.as_ref().map(|record| record.settings.clone()).unwrap_or_default();
        match shares::raise(settings, &stored, &outer) {
            None => Ok(()),
            Some("reservation") => Err(ServiceError::new(
                ErrorCode::PermissionDenied,
                "`reservation` is kept besides the tenant's own and can be raised by a platform admin only",
            )),
            Some(field) => Err(ServiceError::new(
                ErrorCode::PermissionDenied,
                format!("`{field}` is more than the tenant has; only a platform admin gives more"),
            )),
        }
    }

    fn found(&self, routing: &Routing, principal: &Principal, place: &SharePlace) -> Result<Found, ServiceError> {
        let place_of = place.clone();
        let (subject, record, tenant) = match place {
            SharePlace::Organisation(name) => {
                auth::platform(principal, Action::PlatformRead)?;
                let found = organisations::find(routing, name)?;
                (ShareSubject::Organisation(found.organisation.id), found.share.clone(), None)
            }
            SharePlace::Tenant(name) => {
                let tenant = auth::tenant(routing, principal, name, Action::TenantRead)?;
                (ShareSubject::Tenant(tenant.id), tenant.share.clone(), Some(Arc::clone(tenant)))
            }
            SharePlace::Deployment { tenant, model } => {
                let tenant = auth::tenant(routing, principal, tenant, Action::TenantRead)?;
                let model = called(routing, principal, tenant, model)?;
                let share = tenant.deployments.get(&model.deployment.id).map(|share| share.record.clone());
                (ShareSubject::Deployment(tenant.id, model.deployment.id), share, Some(Arc::clone(tenant)))
            }
            SharePlace::Key { tenant, key } => {
                let tenant = auth::tenant(routing, principal, tenant, Action::TenantRead)?;
                let share = tenant.keys.get(key).map(|share| share.record.clone());
                known_key(routing, tenant, *key)?;
                (ShareSubject::Key(tenant.id, *key), share, Some(Arc::clone(tenant)))
            }
        };
        Ok(Found { place: place_of, subject, record, tenant })
    }

    fn share_info(&self, routing: &Routing, found: Found) -> ShareInfo {
        let groups = SlotGroups::new(&self.limits.slot_groups);
        let (generation, settings) =
            found.record.map_or_else(Default::default, |record| (record.generation, record.settings));
        let effective = match (&found.subject, &found.tenant) {
            (ShareSubject::Tenant(_), _) => shares::of_tenant(&settings, &self.limits, &groups),
            (_, Some(tenant)) => {
                shares::within(&settings, &shares::of_tenant(&tenant.settings(), &self.limits, &groups))
            }
            (_, None) => shares::within(&settings, &ShareSettings::default()),
        };
        let organisation = settings.organisation.and_then(|id| organisations::name_of(routing, id));
        ShareInfo { place: found.place, generation, organisation, settings, effective }
    }
}

/// Who may set anything here at all.
fn check_role(
    routing: &Routing,
    principal: &Principal,
    found: &Found,
    change: &ShareChange,
) -> Result<(), ServiceError> {
    if principal.is_platform_admin() {
        return Ok(());
    }
    let Some(tenant) = &found.tenant else { return Err(auth::denied(Action::PlatformWrite)) };
    if matches!(found.subject, ShareSubject::Tenant(_) | ShareSubject::Organisation(_)) {
        return Err(auth::denied(Action::TenantManage));
    }
    auth::tenant(routing, principal, &tenant.name, Action::ShareWrite)?;
    if change.organisation.is_some() || change.settings.slot_group.is_some() {
        let text = "`organisation` and `slot_group` are a tenant's, and set by a platform admin";
        return Err(ServiceError::new(ErrorCode::PermissionDenied, text));
    }
    Ok(())
}

async fn set(
    store: &Store,
    subject: ShareSubject,
    generation: Option<u64>,
    settings: ShareSettings,
    check: impl FnOnce(&[ShareRecord]) -> Result<(), String> + Send,
) -> Result<(), ServiceError> {
    store.set_share(subject, generation, settings, check).await.map(drop).map_err(storage)
}

/// The model a tenant calls by this name; its own need no owner. For a platform admin also one that it called once and has
/// settings for.
pub(super) fn called<'a>(
    routing: &'a Routing,
    principal: &Principal,
    tenant: &RoutedTenant,
    model: &ModelRef,
) -> Result<&'a Arc<RoutedModel>, ServiceError> {
    let had = || {
        let of_name = routing.models().find(|known| known.reference == *model)?;
        let is_known = tenant.deployments.contains_key(&of_name.deployment.id);
        (is_known && principal.is_platform_admin()).then_some(of_name)
    };
    routing.model(tenant.id, &tenant.name, model).ok().or_else(had).ok_or_else(|| unknown_model(model))
}

pub(super) fn known_key(routing: &Routing, tenant: &RoutedTenant, key: KeyId) -> Result<(), ServiceError> {
    let is_there = routing.keys.get(&key).is_some_and(|known| known.tenant.id == tenant.id);
    if is_there {
        return Ok(());
    }
    Err(ServiceError::new(ErrorCode::NotFound, "the key does not exist, is revoked, or belongs to another tenant"))
}
