//! Price plans: everybody's, and tenants' own. The platform sets them; a tenant reads what it is billed by.

use std::sync::Arc;

use tenantry_bill::{Currency, Price, PricePlan};
use tenantry_store::{PlanRecord, Store};
use tenantry_types::{Action, ServiceError, TenantId, TenantName};

use crate::audit::Deed;
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, auth};

/// A plan that is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPlan {
    /// Its name.
    pub name: String,
    /// Of its prices.
    pub currency: Currency,
    /// From when on, milliseconds since the Unix epoch; none: from now on.
    pub valid_from_ms: Option<i64>,
    /// Until when, if that is known.
    pub valid_until_ms: Option<i64>,
    /// What things cost.
    pub prices: Vec<Price>,
}

/// What a tenant is billed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPlans {
    /// Its own plans, in the order they come into force.
    pub plans: Vec<PricePlan>,
    /// The one in force now, its own or everybody's.
    pub in_force: Option<PricePlan>,
}

impl Server {
    /// The plans for everybody without one of their own, in the order they come into force. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles.
    pub async fn price_plans(&self, principal: &Principal) -> Result<Vec<PricePlan>, ServiceError> {
        auth::platform(principal, Action::BillingManage)?;
        self.plans_of(None).await
    }

    /// A tenant's own plans, and the one that is in force.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant.
    pub async fn tenant_price_plans(
        &self,
        principal: &Principal,
        tenant: &TenantName,
    ) -> Result<TenantPlans, ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, tenant, Action::BillingRead)?.id;
        let plans = self.plans_of(Some(tenant)).await?;
        let book = self.store.price_book(tenant).await.map_err(storage)?;
        Ok(TenantPlans { plans, in_force: book.in_force(unix_ms()).cloned() })
    }

    async fn plans_of(&self, tenant: Option<TenantId>) -> Result<Vec<PricePlan>, ServiceError> {
        let records = self.store.price_plans().await.map_err(storage)?;
        Ok(records.into_iter().filter(|record| record.tenant == tenant).map(|record| record.plan).collect())
    }

    /// Adds a plan, for a tenant or for everybody. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 404 for a tenant there is not, 400 for what is no plan, 409 for one that would change what days
    /// cost that have a price.
    pub async fn add_price_plan(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: Option<&TenantName>,
        new: NewPlan,
    ) -> Result<PricePlan, ServiceError> {
        let (tenant, deed) = self.priced(principal, tenant, "price.add", &new.name)?;
        let now_ms = unix_ms();
        let NewPlan { name, currency, valid_from_ms, valid_until_ms, prices } = new;
        let plan = PricePlan::new(&name, currency, valid_from_ms.unwrap_or(now_ms), valid_until_ms, prices)
            .map_err(|error| ServiceError::invalid(error.to_string()))?;
        let told = format!("{} prices in {currency} from {} ms", plan.prices().len(), plan.valid_from_ms());
        let add = async move |store: Store| store.add_price_plan(tenant, &plan, now_ms).await.map_err(storage);
        self.write_prices(principal, deed.with(told), add).await.map(|PlanRecord { plan, .. }| plan)
    }

    /// Takes back a plan that has not begun, and lets one that has end now. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 404 for a tenant or plan there is not, 409 for one that has an end.
    pub async fn remove_price_plan(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: Option<&TenantName>,
        valid_from_ms: i64,
    ) -> Result<(), ServiceError> {
        let (tenant, deed) = self.priced(principal, tenant, "price.remove", valid_from_ms)?;
        let now_ms = unix_ms();
        let remove = async move |store: Store| {
            if valid_from_ms > now_ms {
                return store.withdraw_price_plan(tenant, valid_from_ms, now_ms).await.map_err(storage);
            }
            // Not before it began, whatever the clock has done since.
            let end_ms = now_ms.max(valid_from_ms.saturating_add(1));
            store.end_price_plan(tenant, valid_from_ms, end_ms, now_ms).await.map(drop).map_err(storage)
        };
        self.write_prices(principal, deed, remove).await
    }

    /// Whose prices a change is about, if the caller may make it.
    fn priced(
        &self,
        principal: &Principal,
        tenant: Option<&TenantName>,
        action: &'static str,
        object: impl ToString,
    ) -> Result<(Option<TenantId>, Deed), ServiceError> {
        let Some(tenant) = tenant else {
            auth::platform(principal, Action::BillingManage)?;
            return Ok((None, Deed::of_platform(action, object)));
        };
        let routing = self.routing.load();
        let tenant = auth::tenant(&routing, principal, tenant, Action::BillingManage)?;
        Ok((Some(tenant.id), Deed::of(tenant, action, object)))
    }

    /// A change of prices that budgets in money know of when its caller hears of it.
    async fn write_prices<T, F>(
        self: &Arc<Self>,
        principal: &Principal,
        deed: Deed,
        write: impl FnOnce(Store) -> F + Send + 'static,
    ) -> Result<T, ServiceError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ServiceError>> + Send + 'static,
    {
        let server = Arc::clone(self);
        let priced = async move |store: Store| {
            let _alone = server.budgets.changing.lock().await;
            let written = write(store).await?;
            server.reprice_budgets().await.map_err(storage)?;
            Ok(written)
        };
        self.write_audited(principal, deed, priced).await
    }
}
