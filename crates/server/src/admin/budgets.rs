//! Budgets: what a tenant may use in an hour, a day or a month.
//!
//! A platform admin sets any limit. A tenant's admin sets limits of its own tenant beside those: what the platform set, only the
//! platform changes, and there is one limit for each scope, meter and period.

use std::sync::Arc;

use tenantry_bill::budget::DEFAULT_THRESHOLDS;
use tenantry_bill::period::BudgetPeriod;
use tenantry_bill::{BudgetLimit, BudgetMeter, BudgetScope, Currency, Enforcement, LimitKey, Remaining};
use tenantry_store::Store;
use tenantry_types::{Action, DeploymentId, ErrorCode, KeyId, ModelRef, ServiceError, TenantId, TenantName};

use super::shares;
use crate::audit::Deed;
use crate::routing::{RoutedTenant, Routing};
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, auth};

/// Whose use is limited, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BudgetPlace {
    /// All of the tenant.
    Tenant,
    /// What it sends to one deployment, of its own or of a model that is shared with it.
    Deployment(ModelRef),
    /// What comes with one of its keys.
    Key(KeyId),
}

/// A limit that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetChange {
    /// Whose use.
    pub place: BudgetPlace,
    /// Of what.
    pub meter: BudgetMeter,
    /// In which time.
    pub period: BudgetPeriod,
    /// How much: requests, nanoseconds, tokens, or nanos of a currency.
    pub amount: u64,
    /// What is done where it is met.
    pub enforcement: Enforcement,
    /// Of money: in which currency, if the caller says it.
    pub currency: Option<Currency>,
    /// When to tell, percent; none: at 50, 80 and 100.
    pub thresholds_percent: Option<Vec<u16>>,
}

/// A limit and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetInfo {
    /// The limit.
    pub limit: BudgetLimit,
    /// What is used, held and left of it.
    pub left: Remaining,
    /// The model, where it is a deployment's that the tenant can still name.
    pub model: Option<ModelRef>,
}

impl Server {
    /// A tenant's limits and what is left of each.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant.
    pub fn budgets(&self, principal: &Principal, tenant: &TenantName) -> Result<Vec<BudgetInfo>, ServiceError> {
        let routing = self.routing.load();
        let tenant = auth::tenant(&routing, principal, tenant, Action::BillingRead)?;
        let all = self.budgets.of(tenant.id).map(|budget| budget.all(unix_ms())).unwrap_or_default();
        Ok(all.into_iter().map(|(limit, left)| info(&routing, tenant, limit, left)).collect())
    }

    /// Sets one limit. In force for requests that arrive after this returns.
    ///
    /// # Errors
    /// 403 for a role that may not or a limit that the platform set, 404 for another tenant, and for a model or key there is not,
    /// 400 for what cannot be, 501 where usage is not recorded.
    pub async fn set_budget(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: &TenantName,
        change: BudgetChange,
    ) -> Result<BudgetInfo, ServiceError> {
        let by_platform = principal.is_platform_admin();
        let (id, key, deed) = {
            let routing = self.routing.load();
            let tenant = budgeted(&routing, principal, tenant)?;
            let scope = scope(&routing, principal, tenant, &change.place)?;
            let key = LimitKey { scope, meter: change.meter, period: change.period };
            (tenant.id, key, Deed::of(tenant, "budget.set", key).with(told(&change)))
        };
        self.needs_ledger()?;
        let BudgetChange { amount, enforcement, currency, thresholds_percent, .. } = change;
        let thresholds_percent = thresholds_percent.unwrap_or_else(|| DEFAULT_THRESHOLDS.to_vec());
        let currency = self.currency(id, key.meter, currency).await?;
        let limit = BudgetLimit { key, amount, enforcement, currency, thresholds_percent, platform: by_platform };
        let with = move |limits: &mut Vec<BudgetLimit>| {
            limits.retain(|known| known.key != key);
            limits.push(limit);
        };
        self.change_budget(principal, id, key, deed, with).await?;
        let routing = self.routing.load();
        let all = self.budgets.of(id).map(|budget| budget.all(unix_ms())).unwrap_or_default();
        let set = all.into_iter().find(|(limit, _)| limit.key == key);
        // Somebody else may have taken it away again, or its tenant.
        let (Some((limit, left)), Some(tenant)) = (set, routing.tenants.get(&id)) else {
            return Err(unknown());
        };
        Ok(info(&routing, tenant, limit, left))
    }

    /// Takes a limit away. `name`: as [`LimitKey`] is written.
    ///
    /// # Errors
    /// 403 for a role that may not or a limit that the platform set, 404 for another tenant or a limit there is not.
    pub async fn remove_budget(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: &TenantName,
        name: &str,
    ) -> Result<(), ServiceError> {
        let (id, key, deed) = {
            let routing = self.routing.load();
            let tenant = budgeted(&routing, principal, tenant)?;
            let key: LimitKey = name.parse().map_err(|_| unknown())?;
            (tenant.id, key, Deed::of(tenant, "budget.remove", key))
        };
        let is_known = self.store.budget(id).await.map_err(storage)?.limits.iter().any(|known| known.key == key);
        if !is_known {
            return Err(unknown());
        }
        let without = move |limits: &mut Vec<BudgetLimit>| limits.retain(|known| known.key != key);
        self.change_budget(principal, id, key, deed, without).await
    }

    /// Reads a tenant's limits, changes them, writes them, and brings them into force.
    async fn change_budget(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: TenantId,
        key: LimitKey,
        deed: Deed,
        change: impl FnOnce(&mut Vec<BudgetLimit>) + Send + 'static,
    ) -> Result<(), ServiceError> {
        let server = Arc::clone(self);
        let by_platform = principal.is_platform_admin();
        let write = async move |store: Store| {
            let _alone = server.budgets.changing.lock().await;
            let before = store.budget(tenant).await.map_err(storage)?;
            if !by_platform && before.limits.iter().any(|known| known.key == key && known.platform) {
                let text = "the platform set this budget, and only a platform admin changes it; set one of another period, or of a \
                            deployment or key";
                return Err(ServiceError::new(ErrorCode::PermissionDenied, text));
            }
            let mut limits = before.limits;
            change(&mut limits);
            let record = store.set_budget(tenant, Some(before.generation), limits).await.map_err(storage)?;
            // What was used before is in the books.
            server.sync_ledger(false).await;
            server.apply_budget(record).await.map_err(storage)
        };
        self.write_audited(principal, deed, write).await
    }

    fn needs_ledger(&self) -> Result<(), ServiceError> {
        if self.ledger.is_some() {
            return Ok(());
        }
        let text = "this server does not record usage, and budgets are counted by its records; its operator can set `ledger.enabled`";
        Err(ServiceError::new(ErrorCode::Unimplemented, text))
    }

    /// The currency of a limit: of money the price plan's, of everything else none.
    async fn currency(
        &self,
        tenant: TenantId,
        meter: BudgetMeter,
        said: Option<Currency>,
    ) -> Result<Option<Currency>, ServiceError> {
        if meter != BudgetMeter::Money {
            return Ok(said);
        }
        let prices = self.store.price_book(tenant).await.map_err(storage)?;
        let Some(plan) = prices.in_force(unix_ms()) else {
            let text =
                "no price plan is in force for this tenant, so nothing costs money; a platform admin adds one first";
            return Err(ServiceError::invalid(text));
        };
        match said {
            Some(said) if said != plan.currency() => Err(ServiceError::invalid(format!(
                "the tenant's price plan is in {}, and a budget in money is in the same currency",
                plan.currency()
            ))),
            _ => Ok(Some(plan.currency())),
        }
    }
}

/// The tenant whose budget a change is about.
fn budgeted<'a>(
    routing: &'a Routing,
    principal: &Principal,
    tenant: &TenantName,
) -> Result<&'a Arc<RoutedTenant>, ServiceError> {
    auth::tenant(routing, principal, tenant, Action::BudgetWrite)
}

fn scope(
    routing: &Routing,
    principal: &Principal,
    tenant: &RoutedTenant,
    place: &BudgetPlace,
) -> Result<BudgetScope, ServiceError> {
    Ok(match place {
        BudgetPlace::Tenant => BudgetScope::Tenant,
        BudgetPlace::Deployment(model) => {
            BudgetScope::Deployment(shares::called(routing, principal, tenant, model)?.deployment.id)
        }
        BudgetPlace::Key(key) => {
            shares::known_key(routing, tenant, *key)?;
            BudgetScope::Key(*key)
        }
    })
}

fn info(routing: &Routing, tenant: &RoutedTenant, limit: BudgetLimit, left: Remaining) -> BudgetInfo {
    let named = |deployment: DeploymentId| {
        let mut models = routing.models().filter(|model| model.is_visible_to(tenant.id));
        models.find(|model| model.deployment.id == deployment).map(|model| model.name_for(tenant.id))
    };
    let model = match limit.key.scope {
        BudgetScope::Deployment(deployment) => named(deployment),
        BudgetScope::Tenant | BudgetScope::Key(_) => None,
    };
    BudgetInfo { limit, left, model }
}

/// What a limit is, for the audit.
fn told(change: &BudgetChange) -> String {
    let how = match change.enforcement {
        Enforcement::Hard => "hard",
        Enforcement::Soft => "soft",
        Enforcement::Watch => "watched only",
    };
    format!("{}, {how}", change.amount)
}

fn unknown() -> ServiceError {
    ServiceError::new(ErrorCode::NotFound, "the tenant has no such budget")
}
