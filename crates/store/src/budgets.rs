//! Budgets: the limits of tenants, which thresholds of them were told, and what the ledger says was used.

use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use tenantry_bill::budget::LimitKey;
use tenantry_bill::period::{DAY_MS, Period, Window};
use tenantry_bill::{Amounts, BudgetLimit, BudgetScope, Budgets, Crossed, DaySum, PriceBook, Quantities};
use tenantry_types::TenantId;
use tenantry_types::share::ShareTier;
use tenantry_types::usage::UsageKind;

use crate::ledger::{Closed, UsageGroup, UsageQuery, UsageRow, closed_of};
use crate::limits::MAX_SUMMED_RECORDS;
use crate::prices::{book, ensure_tenant};
use crate::rows::Row;
use crate::{ReadError, Store, Thing, WriteError};

/// How much later than a page of a tenant and start the one before it may have ended: clocks are set.
const DISORDER_MS: i64 = 60_000;
/// How long marks of past periods are kept: longer than a month, in which something may still run that began in the one before.
const MARKS_KEPT_MS: i64 = 62 * DAY_MS;

/// The limits of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRecord {
    /// Whose.
    pub tenant: TenantId,
    /// How often they changed. A change may name the generation it was made from.
    pub generation: u64,
    /// What they are, in order.
    pub limits: Vec<BudgetLimit>,
}

/// The highest threshold of a limit that was told in one period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetMark {
    /// Of which limit.
    pub key: LimitKey,
    /// When the period began, milliseconds since the Unix epoch.
    pub window_ms: i64,
    /// The threshold, percent.
    pub percent: u16,
}

/// What the ledger says was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedIn {
    /// How much. Money is by the plans of each day, rounded as an invoice's line items are where whole days are summed, and by the
    /// record else.
    pub amounts: Amounts,
    /// Whether that is all. Where records have to be added up one by one, [`MAX_SUMMED_RECORDS`] are, the latest.
    pub is_complete: bool,
}

impl Store {
    /// Gives a tenant these limits, and no others, if they still are at the generation the caller read (absent: whatever they are
    /// at).
    ///
    /// # Errors
    /// [`WriteError::Invalid`] if they cannot be, [`WriteError::Conflict`] if they changed meanwhile, [`WriteError::NotFound`] if there
    /// is no such tenant.
    pub async fn set_budget(
        &self,
        tenant: TenantId,
        expected_generation: Option<u64>,
        limits: Vec<BudgetLimit>,
    ) -> Result<BudgetRecord, WriteError> {
        let mut checked = Budgets::new();
        checked.set_limits(limits).map_err(|error| WriteError::Invalid(error.to_string()))?;
        let limits: Vec<BudgetLimit> = checked.limits().cloned().collect();
        let mut write = self.write().await?;
        let connection = write.connection();
        ensure_tenant(connection, Some(tenant)).await?;
        let known = budget(connection, tenant).await?.generation;
        if expected_generation.is_some_and(|expected| expected != known) {
            return Err(WriteError::Conflict { thing: Thing::Budget, generation: known });
        }
        let damaged = |column| WriteError::Damaged { thing: Thing::Budget, column };
        let generation = known.checked_add(1).ok_or(damaged("generation"))?;
        sqlx::query(
            "INSERT INTO budgets (tenant_id, generation, limits) VALUES ($1, $2, $3)
             ON CONFLICT (tenant_id) DO UPDATE SET generation = excluded.generation, limits = excluded.limits",
        )
        .bind(tenant.to_string())
        .bind(i64::try_from(generation).map_err(|_| damaged("generation"))?)
        .bind(serde_json::to_string(&limits).map_err(|_| damaged("limits"))?)
        .execute(connection)
        .await?;
        write.commit().await?;
        Ok(BudgetRecord { tenant, generation, limits })
    }

    /// The limits of a tenant: none, at generation 0, if it never had any.
    pub async fn budget(&self, tenant: TenantId) -> Result<BudgetRecord, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        budget(&mut snapshot, tenant).await
    }

    /// The limits of all tenants that ever had some.
    pub async fn budgets(&self) -> Result<Vec<BudgetRecord>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query("SELECT * FROM budgets ORDER BY tenant_id").fetch_all(&mut *snapshot).await?;
        rows.iter().map(record).collect()
    }

    /// Notes that a threshold is told. Answers whether it is news: whoever is told so tells it, and nobody else does, on whatever
    /// node. A threshold below one that was told is no news.
    pub async fn mark_threshold(&self, tenant: TenantId, crossed: &Crossed) -> Result<bool, WriteError> {
        let key = key_text(&crossed.key).ok_or(WriteError::Damaged { thing: Thing::Budget, column: "limit_key" })?;
        let mut transaction = self.inner.database.append().await?;
        let marked = sqlx::query(
            "INSERT INTO budget_marks (tenant_id, limit_key, window_ms, percent)
             SELECT id, $2, CAST($3 AS BIGINT), CAST($4 AS BIGINT) FROM tenants WHERE id = $1
             ON CONFLICT (tenant_id, limit_key, window_ms) DO UPDATE SET percent = excluded.percent
             WHERE budget_marks.percent < excluded.percent",
        )
        .bind(tenant.to_string())
        .bind(key.as_str())
        .bind(crossed.window_ms)
        .bind(i64::from(crossed.percent))
        .execute(&mut *transaction)
        .await?;
        sqlx::query("DELETE FROM budget_marks WHERE tenant_id = $1 AND limit_key = $2 AND window_ms < $3")
            .bind(tenant.to_string())
            .bind(key)
            .bind(crossed.window_ms.saturating_sub(MARKS_KEPT_MS))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(marked.rows_affected() > 0)
    }

    /// The thresholds that were told of a tenant's limits, the latest periods of each.
    pub async fn budget_marks(&self, tenant: TenantId) -> Result<Vec<BudgetMark>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query("SELECT * FROM budget_marks WHERE tenant_id = $1 ORDER BY limit_key, window_ms")
            .bind(tenant.to_string())
            .fetch_all(&mut *snapshot)
            .await?;
        rows.iter().map(mark).collect()
    }

    /// What a tenant used on each day of a period, as an invoice takes it.
    pub async fn day_sums(&self, tenant: TenantId, period: Period) -> Result<Vec<DaySum>, ReadError> {
        let query = UsageQuery {
            tenant: Some(tenant),
            days: (period.first_day(), period.last_day()),
            groups: vec![
                UsageGroup::Day,
                UsageGroup::Deployment,
                UsageGroup::Version,
                UsageGroup::Tier,
                UsageGroup::Kind,
                UsageGroup::Outcome,
            ],
        };
        let damaged = ReadError::Damaged { thing: Thing::Usage, column: "usage_days" };
        let sums: Option<Vec<DaySum>> = self.usage(&query).await?.into_iter().map(day_sum).collect();
        sums.ok_or(damaged)
    }

    /// What was used in a period within a scope, as budgets count it: for [`Budgets::restore`].
    ///
    /// Whole days of a tenant or a deployment come from the sums of days, at a cost that does not grow with the number of records.
    /// Hours, and what came with one key, are added up record by record, from the latest back. Days have what ended in them and
    /// records are taken by when they came, as budgets charge them; what was running at a midnight may be in the other day.
    pub async fn used_in(&self, tenant: TenantId, scope: BudgetScope, window: Window) -> Result<UsedIn, ReadError> {
        let is_days = window.start_ms.rem_euclid(DAY_MS) == 0 && window.end_ms.rem_euclid(DAY_MS) == 0;
        let period = Period::days(window.start_ms.div_euclid(DAY_MS), window.end_ms.div_euclid(DAY_MS) - 1).ok();
        match (scope, period.filter(|_| is_days)) {
            (BudgetScope::Tenant | BudgetScope::Deployment(_), Some(period)) => {
                let sums = self.day_sums(tenant, period).await?;
                let prices = self.price_book(tenant).await?;
                let in_scope = |sum: &&DaySum| match scope {
                    BudgetScope::Deployment(deployment) => sum.deployment == Some(deployment),
                    _ => true,
                };
                let each = sums.iter().filter(in_scope);
                let amounts = each.fold(Amounts::ZERO, |sum, day| {
                    // Memory is on the bill, and in no budget: nothing that is refused makes less of it.
                    let quantities = Quantities { resident_byte_seconds: 0, ..day.quantities };
                    add(sum, &quantities, &prices, day.day, day.tier)
                });
                Ok(UsedIn { amounts, is_complete: true })
            }
            _ => self.used_by_records(tenant, scope, window).await,
        }
    }

    async fn used_by_records(&self, tenant: TenantId, scope: BudgetScope, window: Window) -> Result<UsedIn, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let prices = book(&mut snapshot, tenant).await?;
        let number: Option<i64> = sqlx::query_scalar("SELECT number FROM usage_tenants WHERE tenant_id = $1")
            .bind(tenant.to_string())
            .fetch_optional(&mut *snapshot)
            .await?;
        let mut used = UsedIn { amounts: Amounts::ZERO, is_complete: true };
        let Some(number) = number else { return Ok(used) };
        let boots: Vec<i64> = sqlx::query_scalar("SELECT id FROM usage_boots WHERE at_ms >= $1 ORDER BY id DESC")
            .bind(window.start_ms)
            .fetch_all(&mut *snapshot)
            .await?;
        let mut left = MAX_SUMMED_RECORDS;
        for boot in boots {
            let mut below = i64::MAX;
            'boot: loop {
                let pages = pages_below(&mut snapshot, number, boot, below).await?;
                if pages.is_empty() {
                    break;
                }
                for page in &pages {
                    let page = Row::new(page, Thing::Usage);
                    below = page.number("page")?;
                    let records = closed_of(&page)?;
                    // What all came before the window has nothing after it that did not.
                    let earliest_ms = window.start_ms.saturating_sub(DISORDER_MS);
                    if records.iter().all(|record| record.ended_ms < earliest_ms) {
                        break 'boot;
                    }
                    if left == 0 {
                        used.is_complete = false;
                        return Ok(used);
                    }
                    left = left.saturating_sub(records.len());
                    let counted = records.into_iter().filter(|record| is_counted(record, scope, window));
                    for Closed { attempted, used: came_to, .. } in counted {
                        let quantities = Quantities::of(attempted.kind, came_to.outcome, 1, &came_to);
                        let day = attempted.admitted_ms.div_euclid(DAY_MS);
                        used.amounts = add(used.amounts, &quantities, &prices, day, attempted.tier);
                    }
                }
            }
        }
        Ok(used)
    }
}

/// Whether a record is of a scope and came in a window. Memory is in no budget.
fn is_counted(record: &Closed, scope: BudgetScope, window: Window) -> bool {
    let attempted = &record.attempted;
    let is_in_scope = match scope {
        BudgetScope::Tenant => true,
        BudgetScope::Deployment(deployment) => attempted.deployment == Some(deployment),
        BudgetScope::Key(key) => attempted.key == Some(key),
    };
    let is_in_window = (window.start_ms..window.end_ms).contains(&attempted.admitted_ms);
    is_in_scope && is_in_window && attempted.kind != UsageKind::Residency
}

/// The last pages of a tenant and start below one, the last first.
async fn pages_below(
    connection: &mut AnyConnection,
    tenant: i64,
    boot: i64,
    below: i64,
) -> Result<Vec<AnyRow>, sqlx::Error> {
    sqlx::query(
        "SELECT page, first_sequence, data FROM usage_pages
         WHERE tenant_number = $1 AND boot_id = $2 AND page < $3 ORDER BY page DESC LIMIT 64",
    )
    .bind(tenant)
    .bind(boot)
    .bind(below)
    .fetch_all(connection)
    .await
}

fn add(sum: Amounts, used: &Quantities, prices: &PriceBook, day: i64, tier: ShareTier) -> Amounts {
    let plan = prices.in_force(day.saturating_mul(DAY_MS));
    let money_nano = plan.map_or(0, |plan| plan.rates(tier, None).money_nano(used));
    Amounts {
        requests: sum.requests.saturating_add(used.requests),
        device_ns: sum.device_ns.saturating_add(used.device_ns()),
        tokens: sum.tokens.saturating_add(used.tokens()),
        money_nano: sum.money_nano.saturating_add(money_nano),
    }
}

fn day_sum(row: UsageRow) -> Option<DaySum> {
    Some(DaySum {
        day: row.day?,
        deployment: row.deployment,
        model: row.model?,
        version: row.version?,
        tier: row.tier?,
        // The ledger does not say yet.
        pool: None,
        quantities: Quantities::of(row.kind?, row.outcome?, row.attempts, &row.used),
    })
}

async fn budget(connection: &mut AnyConnection, tenant: TenantId) -> Result<BudgetRecord, ReadError> {
    let row = sqlx::query("SELECT * FROM budgets WHERE tenant_id = $1").bind(tenant.to_string());
    match row.fetch_optional(connection).await? {
        Some(row) => record(&row),
        None => Ok(BudgetRecord { tenant, generation: 0, limits: Vec::new() }),
    }
}

fn record(row: &AnyRow) -> Result<BudgetRecord, ReadError> {
    let row = Row::new(row, Thing::Budget);
    Ok(BudgetRecord {
        tenant: row.parsed("tenant_id")?,
        generation: row.unsigned("generation")?,
        limits: row.json("limits")?,
    })
}

fn mark(row: &AnyRow) -> Result<BudgetMark, ReadError> {
    let row = Row::new(row, Thing::Budget);
    Ok(BudgetMark {
        key: row.json("limit_key")?,
        window_ms: row.number("window_ms")?,
        percent: row.unsigned("percent")?,
    })
}

fn key_text(key: &LimitKey) -> Option<String> {
    serde_json::to_string(key).ok()
}
