//! Models.

use std::collections::BTreeSet;
use std::sync::Arc;

use tenantry_store::{Model, ModelSearch, ModelUpdate, Store};
use tenantry_types::{Action, ModelName, ServiceError, TenantName};

use super::{AliasInfo, ModelChange, ModelInfo, ModelQuery};
use crate::audit::Deed;
use crate::routing::RoutedModel;
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, Sharing, auth};

impl Server {
    /// One model.
    ///
    /// # Errors
    /// 404 for what does not exist or is not visible to the caller.
    pub async fn model(
        &self,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
    ) -> Result<ModelInfo, ServiceError> {
        let routed = self.readable_model(principal, owner, model)?;
        let stored = self.store.model(routed.id).await.map_err(storage)?;
        Ok(self.model_info(principal, &routed, stored))
    }

    /// A tenant's models that fit a query and are visible to the caller, by name.
    ///
    /// # Errors
    /// 404 for another tenant that shares nothing with the caller, as for one that does not exist; 400 for a query of too
    /// many words.
    pub async fn search_models(
        &self,
        principal: &Principal,
        owner: &TenantName,
        query: ModelQuery,
    ) -> Result<Vec<ModelInfo>, ServiceError> {
        let routing = self.routing.load_full();
        let sees_all = auth::tenant(&routing, principal, owner, Action::TenantRead).is_ok();
        let visible =
            |model: &&Arc<RoutedModel>| *model.owner.name == *owner && principal.may(Action::ModelRead, model);
        let visible: std::collections::HashMap<_, _> =
            routing.models().filter(visible).map(|model| (model.id, model)).collect();
        let tenant = routing
            .tenant(owner)
            .filter(|_| sees_all || !visible.is_empty())
            .ok_or_else(|| auth::unknown_tenant(owner))?;
        let mut search = ModelSearch { text: query.text.unwrap_or_default(), tag: query.tag, after: None, limit: 0 };
        let mut models = Vec::new();
        loop {
            let page = self.store.search_models(tenant.id, &search).await.map_err(storage)?;
            let last = page.last().map(|model| model.id);
            let found =
                page.into_iter().filter_map(|model| Some(self.model_info(principal, visible.get(&model.id)?, model)));
            models.extend(found);
            // Ends: each page begins after the one before, and a tenant's models are bounded.
            match last {
                Some(last) => search.after = Some(last),
                None => break,
            }
        }
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(models)
    }

    /// Changes a model's own fields.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for what there is not, 400 for text that is not accepted.
    pub async fn update_model(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
        change: ModelChange,
    ) -> Result<ModelInfo, ServiceError> {
        let routed = self.managed_model(principal, owner, model, Action::ModelWrite)?;
        if change.shared.is_some() {
            self.managed_model(principal, owner, model, Action::ModelShare)?;
        }
        let update = ModelUpdate {
            description: change.description,
            framework: change.framework,
            tags: change.tags,
            dependencies: change.dependencies,
            shared: change.shared,
            min_isolation: change.min_isolation,
        };
        let (id, deed) = (routed.id, Deed::of_model(&routed, "model.update", "").with(told(&update)));
        let set = async move |store: Store| store.update_model(id, update, unix_ms()).await.map_err(storage);
        let stored = self.write_audited(principal, deed, set).await?;
        Ok(self.model_info(
            principal,
            &self.managed_model(principal, owner, model, Action::ModelWrite).unwrap_or(routed),
            stored,
        ))
    }

    /// Deletes a model with its versions, aliases and the files nothing else refers to.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for what there is not.
    pub async fn delete_model(
        self: &Arc<Self>,
        principal: &Principal,
        owner: &TenantName,
        model: &ModelName,
    ) -> Result<(), ServiceError> {
        let routed = self.managed_model(principal, owner, model, Action::ModelWrite)?;
        let deed = Deed::of_model(&routed, "model.delete", "");
        let delete = async move |store: Store| store.delete_model(routed.id).await.map_err(storage);
        self.write_audited(principal, deed, delete).await
    }
}

impl Server {
    fn model_info(&self, principal: &Principal, routed: &RoutedModel, model: Model) -> ModelInfo {
        let alias = |(name, version): &(ModelName, u32)| AliasInfo { name: name.clone(), version: *version };
        ModelInfo {
            id: model.id,
            owner: (*routed.owner.name).clone(),
            name: model.name,
            description: model.description,
            framework: model.framework,
            tags: model.tags,
            dependencies: model.dependencies,
            shared: match model.shared {
                // With whom else it is shared is its owner's to know.
                Sharing::Tenants(_) if !principal.may(Action::ModelShare, routed) => Sharing::Tenants(BTreeSet::new()),
                shared => shared,
            },
            min_isolation: model.min_isolation,
            effective_min_isolation: self.effective_minimum(routed.demanded_by(&self.routing.load(), principal)),
            created_ms: model.created_ms,
            updated_ms: model.updated_ms,
            deployment: (&routed.deployment).into(),
            aliases: routed.aliases.iter().map(alias).collect(),
            versions: routed.versions.keys().copied().collect(),
        }
    }
}

/// What a change is about: its values where they matter to who may do what, only their names where they are free text.
fn told(update: &ModelUpdate) -> String {
    let ModelUpdate { description, framework, tags, dependencies, shared, min_isolation } = update;
    let named = [
        description.as_ref().map(|_| "description".to_owned()),
        framework.as_ref().map(|_| "framework".to_owned()),
        tags.as_ref().map(|_| "tags".to_owned()),
        dependencies.as_ref().map(|_| "dependencies".to_owned()),
        shared.as_ref().map(|shared| match shared {
            Sharing::Tenants(names) => {
                format!("shared {}", names.iter().map(TenantName::as_str).collect::<Vec<_>>().join(" "))
            }
            Sharing::Private | Sharing::Everyone => format!("shared {}", shared.as_str()),
        }),
        min_isolation.map(|level| format!("min_isolation {level}")),
    ];
    named.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

impl ModelInfo {
    /// Whether every tenant may use it.
    pub fn is_shared(&self) -> bool {
        self.shared == Sharing::Everyone
    }
}
