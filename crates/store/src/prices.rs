//! Price plans. They are added and never changed: what was priced by one stays priced by it. One that is not in force yet can be
//! taken back, and one without an end can be given one.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use tenantry_bill::{PriceBook, PricePlan};
use tenantry_types::TenantId;

use crate::database::{count, is_taken};
use crate::limits::MAX_PLANS_PER_TENANT;
use crate::rows::Row;
use crate::{ReadError, Store, Thing, WriteError};

/// A price plan and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRecord {
    /// The tenant it is for; none: everybody without one of their own.
    pub tenant: Option<TenantId>,
    /// The prices, by meter, tier and pool.
    pub plan: PricePlan,
    /// When it was added.
    pub created_ms: i64,
}

impl Store {
    /// Adds a price plan, for one tenant or for everybody.
    ///
    /// It may begin in the past only where there was none: otherwise it would change what days cost that have a price.
    ///
    /// # Errors
    /// [`WriteError::AlreadyExists`] if one begins at that instant, [`WriteError::WrongState`] if it would reach back behind another,
    /// [`WriteError::NotFound`] if there is no such tenant.
    pub async fn add_price_plan(
        &self,
        tenant: Option<TenantId>,
        plan: &PricePlan,
        now_ms: i64,
    ) -> Result<PlanRecord, WriteError> {
        let mut write = self.write().await?;
        let connection = write.connection();
        ensure_tenant(connection, tenant).await?;
        let known = plans_of(connection, tenant).await?;
        if known.len() >= MAX_PLANS_PER_TENANT {
            return Err(WriteError::LimitReached { things: "price plans", limit: MAX_PLANS_PER_TENANT });
        }
        if known.iter().any(|record| record.plan.valid_from_ms() == plan.valid_from_ms()) {
            return Err(WriteError::AlreadyExists(Thing::PricePlan));
        }
        let begun = known.iter().rfind(|record| record.plan.valid_from_ms() <= now_ms);
        if let Some(begun) = begun.filter(|_| plan.valid_from_ms() < now_ms) {
            return Err(WriteError::WrongState(format!(
                "the plan `{}` has begun already; another can only begin in the future",
                begun.plan.name()
            )));
        }
        let record = PlanRecord { tenant, plan: plan.clone(), created_ms: now_ms };
        sqlx::query("INSERT INTO price_plans (tenant_id, valid_from_ms, plan, created_ms) VALUES ($1, $2, $3, $4)")
            .bind(scope(tenant))
            .bind(plan.valid_from_ms())
            .bind(text(plan)?)
            .bind(now_ms)
            .execute(connection)
            .await
            .map_err(
                |error| if is_taken(&error) { WriteError::AlreadyExists(Thing::PricePlan) } else { error.into() },
            )?;
        write.commit().await?;
        Ok(record)
    }

    /// Lets a price plan end, so that a tenant has everybody's prices again.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is none that begins then, [`WriteError::WrongState`] if it has an end or would end in the
    /// past, [`WriteError::Invalid`] if it would end before it begins.
    pub async fn end_price_plan(
        &self,
        tenant: Option<TenantId>,
        valid_from_ms: i64,
        valid_until_ms: i64,
        now_ms: i64,
    ) -> Result<PlanRecord, WriteError> {
        let mut write = self.write().await?;
        let connection = write.connection();
        let known = plan_at(connection, tenant, valid_from_ms).await?;
        if known.plan.valid_until_ms().is_some() {
            return Err(WriteError::WrongState("the price plan has an end already".to_owned()));
        }
        if valid_until_ms < now_ms {
            return Err(WriteError::WrongState("a price plan can only end in the future".to_owned()));
        }
        let PlanRecord { plan, created_ms, .. } = known;
        let prices = plan.prices().to_vec();
        let plan = PricePlan::new(plan.name(), plan.currency(), valid_from_ms, Some(valid_until_ms), prices)
            .map_err(|error| WriteError::Invalid(error.to_string()))?;
        sqlx::query("UPDATE price_plans SET plan = $1 WHERE tenant_id = $2 AND valid_from_ms = $3")
            .bind(text(&plan)?)
            .bind(scope(tenant))
            .bind(valid_from_ms)
            .execute(connection)
            .await?;
        write.commit().await?;
        Ok(PlanRecord { tenant, plan, created_ms })
    }

    /// Takes back a price plan that is not in force yet.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] if there is none that begins then, [`WriteError::WrongState`] if it has begun.
    pub async fn withdraw_price_plan(
        &self,
        tenant: Option<TenantId>,
        valid_from_ms: i64,
        now_ms: i64,
    ) -> Result<(), WriteError> {
        let mut write = self.write().await?;
        let connection = write.connection();
        let known = plan_at(connection, tenant, valid_from_ms).await?;
        if valid_from_ms <= now_ms {
            return Err(WriteError::WrongState(format!(
                "the plan `{}` has begun; let it end, or let another one begin",
                known.plan.name()
            )));
        }
        sqlx::query("DELETE FROM price_plans WHERE tenant_id = $1 AND valid_from_ms = $2")
            .bind(scope(tenant))
            .bind(valid_from_ms)
            .execute(connection)
            .await?;
        Ok(write.commit().await?)
    }

    /// All plans: everybody's first, then by tenant, each in the order they come into force.
    pub async fn price_plans(&self) -> Result<Vec<PlanRecord>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query("SELECT * FROM price_plans ORDER BY tenant_id, valid_from_ms");
        rows.fetch_all(&mut *snapshot).await?.iter().map(record).collect()
    }

    /// The plans a tenant is billed by, also one that has gone.
    pub async fn price_book(&self, tenant: TenantId) -> Result<PriceBook, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        book(&mut snapshot, tenant).await
    }
}

/// The plans a tenant is billed by.
pub(crate) async fn book(connection: &mut AnyConnection, tenant: TenantId) -> Result<PriceBook, ReadError> {
    let own = plans_of(connection, Some(tenant)).await?;
    let list = plans_of(connection, None).await?;
    let plans = |records: Vec<PlanRecord>| records.into_iter().map(|record| record.plan).collect();
    PriceBook::new(plans(own), plans(list))
        .map_err(|_| ReadError::Damaged { thing: Thing::PricePlan, column: "valid_from_ms" })
}

/// In the order they come into force.
async fn plans_of(connection: &mut AnyConnection, tenant: Option<TenantId>) -> Result<Vec<PlanRecord>, ReadError> {
    let rows = sqlx::query("SELECT * FROM price_plans WHERE tenant_id = $1 ORDER BY valid_from_ms").bind(scope(tenant));
    rows.fetch_all(connection).await?.iter().map(record).collect()
}

async fn plan_at(
    connection: &mut AnyConnection,
    tenant: Option<TenantId>,
    valid_from_ms: i64,
) -> Result<PlanRecord, ReadError> {
    let row = sqlx::query("SELECT * FROM price_plans WHERE tenant_id = $1 AND valid_from_ms = $2")
        .bind(scope(tenant))
        .bind(valid_from_ms)
        .fetch_optional(connection);
    record(&row.await?.ok_or(ReadError::NotFound(Thing::PricePlan))?)
}

pub(crate) async fn ensure_tenant(connection: &mut AnyConnection, tenant: Option<TenantId>) -> Result<(), WriteError> {
    let Some(tenant) = tenant.map(|tenant| tenant.to_string()) else { return Ok(()) };
    match count(connection, "SELECT COUNT(*) FROM tenants WHERE id = $1", &tenant).await? {
        0 => Err(WriteError::NotFound(Thing::Tenant)),
        _ => Ok(()),
    }
}

fn record(row: &AnyRow) -> Result<PlanRecord, ReadError> {
    let row = Row::new(row, Thing::PricePlan);
    let tenant = match row.text("tenant_id")?.as_str() {
        "" => None,
        _ => Some(row.parsed("tenant_id")?),
    };
    let plan: PricePlan = row.json("plan")?;
    // Bills go by the plan, queries by the column.
    if plan.valid_from_ms() != row.number("valid_from_ms")? {
        return Err(row.damaged("valid_from_ms"));
    }
    Ok(PlanRecord { tenant, plan, created_ms: row.number("created_ms")? })
}

fn scope(tenant: Option<TenantId>) -> String {
    tenant.map(|tenant| tenant.to_string()).unwrap_or_default()
}

fn text(plan: &PricePlan) -> Result<String, WriteError> {
    serde_json::to_string(plan).map_err(|_| WriteError::Damaged { thing: Thing::PricePlan, column: "plan" })
}
