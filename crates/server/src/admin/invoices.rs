//! Invoices, from the books and the price plans. Whoever asks sees what was recorded until then.

use tenantry_bill::period::Period;
use tenantry_bill::{Billed, Invoice, focus_csv};
use tenantry_store::{UsageGroup, UsageQuery};
use tenantry_types::{Action, ServiceError, TenantId, TenantName};

use super::organisations;
use crate::server::storage;
use crate::{Principal, Server, auth};

/// The most days of an invoice: a leap year's.
const MAX_DAYS: i64 = 366;

impl Server {
    /// A tenant's invoice for some days. For those of the tenant who may see what it pays.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant, 400 for more than a year or for days with two currencies, 501 where
    /// usage is not recorded.
    pub async fn invoice(
        &self,
        principal: &Principal,
        tenant: &TenantName,
        period: Period,
    ) -> Result<Invoice, ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, tenant, Action::BillingRead)?.id;
        self.begin(period).await?;
        self.invoice_of(tenant, period).await
    }

    /// The same for the tools of finance people: FOCUS as CSV.
    ///
    /// # Errors
    /// As [`Server::invoice`].
    pub async fn focus(
        &self,
        principal: &Principal,
        tenant: &TenantName,
        period: Period,
    ) -> Result<String, ServiceError> {
        Ok(focus_csv(&self.parties, &[self.invoice(principal, tenant, period).await?]))
    }

    /// Everybody's, also of tenants that have gone since. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, and as [`Server::invoice`].
    pub async fn focus_of_all(&self, principal: &Principal, period: Period) -> Result<String, ServiceError> {
        auth::platform(principal, Action::BillingManage)?;
        self.begin(period).await?;
        let days = (period.first_day(), period.last_day());
        let query = UsageQuery { tenant: None, days, groups: vec![UsageGroup::Tenant] };
        let rows = self.store.usage(&query).await.map_err(storage)?;
        let mut invoices = Vec::with_capacity(rows.len());
        for tenant in rows.into_iter().filter_map(|row| row.tenant) {
            let named = |error: ServiceError| {
                let message = format!("tenant `{}`: {}", self.name_of(tenant), error.message);
                ServiceError { message, ..error }
            };
            invoices.push(self.invoice_of(tenant, period).await.map_err(named)?);
        }
        Ok(focus_csv(&self.parties, &invoices))
    }

    async fn begin(&self, period: Period) -> Result<(), ServiceError> {
        if period.last_day() - period.first_day() >= MAX_DAYS {
            return Err(ServiceError::invalid("an invoice is for a year at most; ask for each year"));
        }
        self.up_to_date().await
    }

    async fn invoice_of(&self, tenant: TenantId, period: Period) -> Result<Invoice, ServiceError> {
        let days = self.store.day_sums(tenant, period).await.map_err(storage)?;
        let prices = self.store.price_book(tenant).await.map_err(storage)?;
        Invoice::new(self.billed(tenant), period, &prices, &days)
            .map_err(|error| ServiceError::invalid(error.to_string()))
    }

    fn billed(&self, tenant: TenantId) -> Billed {
        let routing = self.routing.load();
        let routed = routing.tenants.get(&tenant);
        let organisation =
            routed.and_then(|routed| routed.share.as_ref()).and_then(|share| share.settings.organisation);
        let organisation_name = organisation.and_then(|organisation| organisations::name_of(&routing, organisation));
        Billed {
            tenant,
            tenant_name: self.name_of(tenant),
            organisation,
            organisation_name: organisation_name.map(|name| name.to_string()),
        }
    }
}
