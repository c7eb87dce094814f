//! What the books say: by day, one by one, and whether they add up to the machine.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe};
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{Attempted, DeviceTime, Outcome, SlotTime, UsageKey, UsageKind, Used};
use tenantry_types::{BootId, DeploymentId, NodeId, TenantId};

use super::frame::Closed;
use super::page;
use super::posting::{SUMS, signed};
use crate::limits::MAX_USAGE_PAGE;
use crate::rows::Row;
use crate::{ReadError, Store, Thing};

/// Pages that are read in one go: at first, and at most.
const PAGES_AT_FIRST: i64 = 8;
const MOST_PAGES: i64 = 512;

/// What usage is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UsageGroup {
    /// Days, UTC.
    Day,
    /// Who pays.
    Tenant,
    /// Deployments, with their models' names.
    Deployment,
    /// Versions of models.
    Version,
    /// What was promised.
    Tier,
    /// What the attempts were about.
    Kind,
    /// How they ended.
    Outcome,
}

/// Which usage, and divided by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageQuery {
    /// Of this tenant only; none: of all.
    pub tenant: Option<TenantId>,
    /// Days since the Unix epoch, both ends included.
    pub days: (i64, i64),
    /// Divided by these; empty: one sum.
    pub groups: Vec<UsageGroup>,
}

/// A sum. What it is not divided by is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The day, counted from the Unix epoch.
    pub day: Option<i64>,
    /// Who pays.
    pub tenant: Option<TenantId>,
    /// The deployment; also absent for what was for none.
    pub deployment: Option<DeploymentId>,
    /// The model, `owner/name`.
    pub model: Option<String>,
    /// The version's number.
    pub version: Option<u32>,
    /// The tier's word.
    pub tier: Option<ShareTier>,
    /// What it was about.
    pub kind: Option<UsageKind>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// How many attempts.
    pub attempts: u64,
    /// What they used; `outcome` says nothing here.
    pub used: Used,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Its name.
    pub key: UsageKey,
    /// Who attempted what.
    pub attempted: Attempted,
    /// What came of it.
    pub used: Used,
    /// When it ended, milliseconds since the Unix epoch.
    pub ended_ms: i64,
}

/// What the slots of one start did, and what the records of it add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootAccount {
    /// Whose.
    pub node: NodeId,
    /// Which start.
    pub boot: BootId,
    /// When it was last heard of.
    pub at_ms: i64,
    /// Whether its log is in the books whole.
    pub done: bool,
    /// Whether it ended in order: then everything must add up.
    pub ended: bool,
    /// What the node measured; no slots: it ended before it said anything.
    pub slots: SlotTime,
    /// Device time of all records.
    pub charged_ns: u64,
    /// Records.
    pub records: u64,
    /// Of them, interrupted ones.
    pub interrupted: u64,
}

impl BootAccount {
    /// Slot time that ended batches used and nobody's record has: negative where records have more than there was.
    pub fn unaccounted_ns(&self) -> i128 {
        i128::from(self.slots.busy_ns) - i128::from(self.slots.system_ns) - i128::from(self.charged_ns)
    }

    /// Slot time that nothing used.
    pub fn idle_ns(&self) -> u64 {
        self.slots.capacity_ns().saturating_sub(self.slots.busy_ns)
    }
}

impl UsageGroup {
    /// Of the table of days.
    const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Day => &["day"],
            Self::Tenant => &["tenant_id"],
            Self::Deployment => &["deployment_id", "model"],
            Self::Version => &["model", "version"],
            Self::Tier => &["tier"],
            Self::Kind => &["kind"],
            Self::Outcome => &["outcome"],
        }
    }
}

impl Store {
    /// What was used, from the table of days: as fast with ten million records as with ten.
    pub async fn usage(&self, query: &UsageQuery) -> Result<Vec<UsageRow>, ReadError> {
        let mut columns: Vec<&'static str> = Vec::new();
        for column in query.groups.iter().flat_map(|group| group.columns()) {
            if !columns.contains(column) {
                columns.push(column);
            }
        }
        let sums: Vec<String> =
            SUMS.iter().map(|column| format!("CAST(COALESCE(SUM({column}), 0) AS BIGINT) AS {column}")).collect();
        let selected: Vec<&str> = columns.iter().copied().chain(sums.iter().map(String::as_str)).collect();
        let of_tenant = if query.tenant.is_some() { " AND tenant_id = $3" } else { "" };
        let grouped =
            if columns.is_empty() { String::new() } else { format!(" GROUP BY {0} ORDER BY {0}", columns.join(", ")) };
        // Nothing in it but names of columns.
        let statement =
            format!("SELECT {} FROM usage_days WHERE day >= $1 AND day <= $2{of_tenant}{grouped}", selected.join(", "));
        let mut sql = sqlx::query(AssertSqlSafe(statement)).bind(query.days.0).bind(query.days.1);
        if let Some(tenant) = query.tenant {
            sql = sql.bind(tenant.to_string());
        }
        let mut snapshot = self.inner.database.read().await?;
        let rows = sql.fetch_all(&mut *snapshot).await?;
        rows.iter().map(|row| usage_row(row, &columns)).collect()
    }

    /// Records one by one, those of a start together in the order in which they came into the books, from after one on; at most
    /// [`MAX_USAGE_PAGE`]. Of one start, whoever goes on after the last one misses none, whenever it began.
    pub async fn usage_records(
        &self,
        tenant: Option<TenantId>,
        after: Option<UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, ReadError> {
        let limit = if limit == 0 { MAX_USAGE_PAGE } else { limit.min(MAX_USAGE_PAGE) } as usize;
        let mut snapshot = self.inner.database.read().await?;
        let mut place = match after {
            None => Place { boot: 0, page: 0, records: 0 },
            Some(key) => place_after(&mut snapshot, tenant, key).await?,
        };
        let of_tenant = of_tenant(tenant, "$4");
        let statement = format!(
            "SELECT b.node AS node, b.boot AS boot, p.boot_id AS boot_id, p.page AS page, p.first_sequence AS first_sequence,
                 p.data AS data
             FROM usage_pages p JOIN usage_boots b ON b.id = p.boot_id
             WHERE (p.boot_id, p.page) >= ($1, $2) {of_tenant} ORDER BY p.boot_id, p.page LIMIT $3"
        );
        let (mut records, mut pages_at_a_time) = (Vec::new(), PAGES_AT_FIRST);
        loop {
            // Nothing in it but names of ours.
            let mut sql =
                sqlx::query(AssertSqlSafe(statement.clone())).bind(place.boot).bind(place.page).bind(pages_at_a_time);
            if let Some(tenant) = tenant {
                sql = sql.bind(tenant.to_string());
            }
            let pages = sql.fetch_all(&mut *snapshot).await?;
            for page in &pages {
                let page = Row::new(page, Thing::Usage);
                let at = (page.number("boot_id")?, page.number("page")?);
                let passed = if at == (place.boot, place.page) { place.records } else { 0 };
                let (node, boot) = (page.parsed("node")?, page.parsed("boot")?);
                let left = limit - records.len();
                records.extend(closed_of(&page)?.into_iter().skip(passed).take(left).map(|closed| {
                    let Closed { sequence, attempted, used, ended_ms } = closed;
                    UsageRecord { key: UsageKey { node, boot, sequence }, attempted, used, ended_ms }
                }));
                place = Place { boot: at.0, page: at.1 + 1, records: 0 };
            }
            if records.len() >= limit || (pages.len() as i64) < pages_at_a_time {
                return Ok(records);
            }
            // They are small: there may be many of one record.
            pages_at_a_time = MOST_PAGES.min(pages_at_a_time * 4);
        }
    }

    /// Each start of each node: what its slots did, and what its records add up to. The latest first.
    pub async fn usage_accounts(&self) -> Result<Vec<BootAccount>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query("SELECT * FROM usage_boots ORDER BY id DESC").fetch_all(&mut *snapshot).await?;
        rows.iter().map(account).collect()
    }
}

fn usage_row(row: &AnyRow, columns: &[&str]) -> Result<UsageRow, ReadError> {
    let has = |column: &str| columns.contains(&column);
    let row = Row::new(row, Thing::Usage);
    let deployment = match has("deployment_id").then(|| row.text("deployment_id")).transpose()? {
        None => None,
        Some(text) if text.is_empty() => None,
        Some(_) => Some(row.parsed("deployment_id")?),
    };
    Ok(UsageRow {
        day: has("day").then(|| row.number("day")).transpose()?,
        tenant: has("tenant_id").then(|| row.parsed("tenant_id")).transpose()?,
        deployment,
        model: has("model").then(|| row.text("model")).transpose()?,
        version: has("version").then(|| row.unsigned("version")).transpose()?,
        tier: has("tier").then(|| row.parsed("tier")).transpose()?,
        kind: has("kind").then(|| row.parsed("kind")).transpose()?,
        outcome: has("outcome").then(|| row.parsed("outcome")).transpose()?,
        attempts: row.unsigned("attempts")?,
        used: used(&row)?,
    })
}

/// A sum says nothing of how its attempts ended.
fn used(row: &Row<'_>) -> Result<Used, ReadError> {
    Ok(Used {
        outcome: Outcome::Ok,
        duration_ns: row.unsigned("duration_ns")?,
        queue_ns: row.unsigned("queue_ns")?,
        device: DeviceTime {
            compute_ns: row.unsigned("compute_ns")?,
            padding_ns: row.unsigned("padding_ns")?,
            load_ns: row.unsigned("load_ns")?,
            aborted_ns: row.unsigned("aborted_ns")?,
        },
        cpu_ns: row.unsigned("cpu_ns")?,
        bytes_in: row.unsigned("bytes_in")?,
        bytes_out: row.unsigned("bytes_out")?,
        tokens: row.unsigned("tokens")?,
        resident_byte_seconds: row.unsigned("resident_byte_seconds")?,
    })
}

/// Where reading goes on: in a page, after so many of its records.
#[derive(Debug, Clone, Copy)]
struct Place {
    boot: i64,
    page: i64,
    records: usize,
}

/// The place after a record. Pages of several tenants, or one with a record that took long, may hold numbers around it.
async fn place_after(
    connection: &mut AnyConnection,
    tenant: Option<TenantId>,
    after: UsageKey,
) -> Result<Place, ReadError> {
    let of_tenant = of_tenant(tenant, "$5");
    let statement = format!(
        "SELECT p.boot_id AS boot_id, p.page AS page, p.first_sequence AS first_sequence, p.data AS data
         FROM usage_pages p JOIN usage_boots b ON b.id = p.boot_id
         WHERE b.node = $1 AND b.boot = $2 AND p.first_sequence <= $3 AND p.last_sequence >= $3 {of_tenant}
         ORDER BY p.first_sequence DESC LIMIT 1 OFFSET $4"
    );
    // From the nearest back: as a rule it is among the first ones.
    for passed in 0_i64.. {
        // Nothing in it but names of ours.
        let mut sql = sqlx::query(AssertSqlSafe(statement.clone()))
            .bind(after.node.to_string())
            .bind(after.boot.to_string())
            .bind(signed(after.sequence))
            .bind(passed);
        if let Some(tenant) = tenant {
            sql = sql.bind(tenant.to_string());
        }
        let Some(page) = sql.fetch_optional(&mut *connection).await? else { break };
        let page = Row::new(&page, Thing::Usage);
        let position = closed_of(&page)?.iter().position(|closed| closed.sequence == after.sequence);
        if let Some(position) = position {
            return Ok(Place { boot: page.number("boot_id")?, page: page.number("page")?, records: position + 1 });
        }
    }
    Err(ReadError::NotFound(Thing::Usage))
}

fn of_tenant(tenant: Option<TenantId>, place: &str) -> String {
    let number = format!("AND p.tenant_number = (SELECT number FROM usage_tenants WHERE tenant_id = {place})");
    tenant.map_or_else(String::new, |_| number)
}

/// The records of a row of `usage_pages`.
pub(crate) fn closed_of(page: &Row<'_>) -> Result<Vec<Closed>, ReadError> {
    let data: Vec<u8> = page.get("data")?;
    page::read(&data, page.unsigned("first_sequence")?).ok_or_else(|| page.damaged("data"))
}

fn account(row: &AnyRow) -> Result<BootAccount, ReadError> {
    let row = Row::new(row, Thing::Usage);
    Ok(BootAccount {
        node: row.parsed("node")?,
        boot: row.parsed("boot")?,
        at_ms: row.number("at_ms")?,
        done: row.number("done")? != 0,
        ended: row.number("ended")? != 0,
        slots: SlotTime {
            wall_ns: row.unsigned("wall_ns")?,
            slots: row.unsigned("slots")?,
            busy_ns: row.unsigned("busy_ns")?,
            system_ns: row.unsigned("system_ns")?,
        },
        charged_ns: row.unsigned("charged_ns")?,
        records: row.unsigned("records")?,
        interrupted: row.unsigned("interrupted")?,
    })
}
