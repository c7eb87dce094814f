//! Organisations: tenants under one share. For platform admins.

use std::sync::Arc;

use tenantry_store::Store;
use tenantry_types::{Action, ErrorCode, OrganisationId, OrganisationName, ServiceError};

use super::OrganisationInfo;
use crate::audit::Deed;
use crate::routing::{RoutedOrganisation, Routing};
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, auth};

impl Server {
    /// Creates an organisation.
    ///
    /// # Errors
    /// 403 for other roles than platform admin, 409 if the name is taken.
    pub async fn create_organisation(
        self: &Arc<Self>,
        principal: &Principal,
        name: &OrganisationName,
    ) -> Result<OrganisationInfo, ServiceError> {
        auth::platform(principal, Action::PlatformWrite)?;
        let (name, deed) = (name.clone(), Deed::of_platform("organisation.create", name));
        let create = async move |store: Store| store.create_organisation(&name, unix_ms()).await.map_err(storage);
        let made = self.write_audited(principal, deed, create).await?;
        Ok(OrganisationInfo { id: made.id, name: made.name, tenants: Vec::new(), created_ms: made.created_ms })
    }

    /// All organisations, by name.
    ///
    /// # Errors
    /// 403 for other roles than platform admin.
    pub fn organisations(&self, principal: &Principal) -> Result<Vec<OrganisationInfo>, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        let routing = self.routing.load();
        let mut organisations: Vec<OrganisationInfo> =
            routing.organisations.values().map(|organisation| info(organisation, &routing)).collect();
        organisations.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(organisations)
    }

    /// Deletes an organisation.
    ///
    /// # Errors
    /// 403 for other roles than platform admin, 404 for one there is not, 409 while tenants belong to it.
    pub async fn delete_organisation(
        self: &Arc<Self>,
        principal: &Principal,
        name: &OrganisationName,
    ) -> Result<(), ServiceError> {
        auth::platform(principal, Action::PlatformWrite)?;
        let id = find(&self.routing.load(), name)?.organisation.id;
        let deed = Deed::of_platform("organisation.delete", name);
        let delete = async move |store: Store| store.delete_organisation(id).await.map_err(storage);
        self.write_audited(principal, deed, delete).await
    }
}

/// An organisation by its name.
pub(super) fn find<'a>(routing: &'a Routing, name: &OrganisationName) -> Result<&'a RoutedOrganisation, ServiceError> {
    let mut all = routing.organisations.values();
    all.find(|known| known.organisation.name == *name)
        .ok_or_else(|| ServiceError::new(ErrorCode::NotFound, format!("organisation `{name}` does not exist")))
}

/// An organisation's name by its id.
pub(super) fn name_of(routing: &Routing, id: OrganisationId) -> Option<OrganisationName> {
    routing.organisations.get(&id).map(|known| known.organisation.name.clone())
}

fn info(routed: &RoutedOrganisation, routing: &Routing) -> OrganisationInfo {
    let organisation = &routed.organisation;
    let members = routing.tenants.values().filter(|tenant| {
        tenant.share.as_ref().is_some_and(|share| share.settings.organisation == Some(organisation.id))
    });
    let mut tenants: Vec<_> = members.map(|tenant| (*tenant.name).clone()).collect();
    tenants.sort_unstable();
    OrganisationInfo {
        id: organisation.id,
        name: organisation.name.clone(),
        tenants,
        created_ms: organisation.created_ms,
    }
}
