//! Reading usage. Whoever asks sees what was recorded until then.

use tenantry_store::{BootAccount, UsageGroup, UsageQuery, UsageRecord, UsageRow};
use tenantry_types::usage::UsageKey;
use tenantry_types::{Action, ErrorCode, ServiceError, TenantId, TenantName};

use crate::server::storage;
use crate::{Principal, Server, auth};

/// Which usage, and divided by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageAsk {
    /// Days since the Unix epoch, UTC, both ends included.
    pub days: (i64, i64),
    /// Divided by these; empty: one sum.
    pub groups: Vec<UsageGroup>,
}

/// A sum, with its tenant's name: a tenant that is gone leaves its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageInfo {
    /// Whose, where it is divided by tenants.
    pub tenant: Option<String>,
    /// The rest.
    pub row: UsageRow,
}

/// One record, with its tenant's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecordInfo {
    /// Who pays.
    pub tenant: String,
    /// The record.
    pub record: UsageRecord,
}

impl Server {
    /// What a tenant used. For everybody of the tenant.
    ///
    /// # Errors
    /// 404 for another tenant, 501 where usage is not recorded.
    pub async fn usage(
        &self,
        principal: &Principal,
        tenant: &TenantName,
        ask: UsageAsk,
    ) -> Result<Vec<UsageInfo>, ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, tenant, Action::UsageRead)?.id;
        self.usage_of(Some(tenant), ask).await
    }

    /// What everybody used. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 501 where usage is not recorded.
    pub async fn usage_of_all(&self, principal: &Principal, ask: UsageAsk) -> Result<Vec<UsageInfo>, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        self.usage_of(None, ask).await
    }

    /// A tenant's records one by one, from after one on. For its admins.
    ///
    /// # Errors
    /// 403 for other roles, 404 for another tenant, 501 where usage is not recorded.
    pub async fn usage_records(
        &self,
        principal: &Principal,
        tenant: &TenantName,
        after: Option<UsageKey>,
        limit: Option<u32>,
    ) -> Result<Vec<UsageRecordInfo>, ServiceError> {
        let tenant = auth::tenant(&self.routing.load(), principal, tenant, Action::UsageExport)?.id;
        self.records_of(Some(tenant), after, limit).await
    }

    /// Everybody's records. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 501 where usage is not recorded.
    pub async fn usage_records_of_all(
        &self,
        principal: &Principal,
        after: Option<UsageKey>,
        limit: Option<u32>,
    ) -> Result<Vec<UsageRecordInfo>, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        self.records_of(None, after, limit).await
    }

    /// What the slots did in each start of each node, beside what its records add up to; the latest first. For platform
    /// admins.
    ///
    /// # Errors
    /// 403 for other roles, 501 where usage is not recorded.
    pub async fn usage_accounts(&self, principal: &Principal) -> Result<Vec<BootAccount>, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        self.up_to_date().await?;
        self.store.usage_accounts().await.map_err(storage)
    }

    async fn usage_of(&self, tenant: Option<TenantId>, ask: UsageAsk) -> Result<Vec<UsageInfo>, ServiceError> {
        let UsageAsk { days, groups } = ask;
        if days.0 > days.1 {
            return Err(ServiceError::invalid("the first day is after the last one"));
        }
        self.up_to_date().await?;
        let rows = self.store.usage(&UsageQuery { tenant, days, groups }).await.map_err(storage)?;
        let info = |row: UsageRow| UsageInfo { tenant: row.tenant.map(|tenant| self.name_of(tenant)), row };
        Ok(rows.into_iter().map(info).collect())
    }

    async fn records_of(
        &self,
        tenant: Option<TenantId>,
        after: Option<UsageKey>,
        limit: Option<u32>,
    ) -> Result<Vec<UsageRecordInfo>, ServiceError> {
        self.up_to_date().await?;
        let records = self.store.usage_records(tenant, after, limit.unwrap_or(0)).await.map_err(storage)?;
        let info = |record: UsageRecord| UsageRecordInfo { tenant: self.name_of(record.attempted.tenant), record };
        Ok(records.into_iter().map(info).collect())
    }

    /// Waits until the books have what was recorded so far.
    ///
    /// # Errors
    /// 501 where usage is not recorded.
    pub(super) async fn up_to_date(&self) -> Result<(), ServiceError> {
        if self.ledger.is_none() {
            let text = "this server does not record usage; its operator can set `ledger.enabled`";
            return Err(ServiceError::new(ErrorCode::Unimplemented, text));
        }
        self.sync_ledger(false).await;
        Ok(())
    }

    pub(super) fn name_of(&self, tenant: TenantId) -> String {
        match self.routing.load().tenants.get(&tenant) {
            Some(tenant) => tenant.name.to_string(),
            None => tenant.to_string(),
        }
    }
}
