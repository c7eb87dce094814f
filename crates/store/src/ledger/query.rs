//! What the books say: by day, one by one, and whether they add up to the machine.

use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{Attempted, DeviceTime, Outcome, SlotTime, UsageKey, UsageKind, Used};
use tenantry_types::{BootId, DeploymentId, NodeId, TenantId};

use super::books::SUMS;
use super::frame::Entry;
use crate::limits::MAX_USAGE_PAGE;
use crate::rows::Row;
use crate::{ReadError, Store, Thing};

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

    /// Records one by one, those of a start together in the order of their numbers, from after one on; at most
    /// [`MAX_USAGE_PAGE`].
    pub async fn usage_records(
        &self,
        tenant: Option<TenantId>,
        after: Option<UsageKey>,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, ReadError> {
        let limit = if limit == 0 { MAX_USAGE_PAGE } else { limit.min(MAX_USAGE_PAGE) };
        let mut snapshot = self.inner.database.read().await?;
        let (boot, sequence) = match after {
            None => (0, 0),
            Some(key) => {
                let boot = sqlx::query_scalar("SELECT id FROM usage_boots WHERE node = $1 AND boot = $2")
                    .bind(key.node.to_string())
                    .bind(key.boot.to_string())
                    .fetch_optional(&mut *snapshot)
                    .await?;
                let boot: i64 = boot.ok_or(ReadError::NotFound(Thing::Usage))?;
                (boot, i64::try_from(key.sequence).unwrap_or(i64::MAX))
            }
        };
        let after = "(r.boot_id > $1 OR (r.boot_id = $1 AND r.sequence > $2))";
        let of_tenant = match tenant {
            Some(_) => "AND r.tenant_number = (SELECT number FROM usage_tenants WHERE tenant_id = $4)",
            None => "",
        };
        let statement = format!(
            "SELECT b.node AS node, b.boot AS boot, r.sequence AS sequence, r.record AS record
             FROM usage_records r JOIN usage_boots b ON b.id = r.boot_id
             WHERE {after} {of_tenant} ORDER BY r.boot_id, r.sequence LIMIT $3"
        );
        // Nothing in it but names of ours.
        let mut sql = sqlx::query(AssertSqlSafe(statement)).bind(boot).bind(sequence).bind(i64::from(limit));
        if let Some(tenant) = tenant {
            sql = sql.bind(tenant.to_string());
        }
        let rows = sql.fetch_all(&mut *snapshot).await?;
        rows.iter().map(usage_record).collect()
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
    })
}

fn usage_record(row: &AnyRow) -> Result<UsageRecord, ReadError> {
    let row = Row::new(row, Thing::Usage);
    let record: Vec<u8> = row.get("record")?;
    let (attempted, used, ended_ms) = Entry::decode(&record).ok_or_else(|| row.damaged("record"))?;
    let key = UsageKey { node: row.parsed("node")?, boot: row.parsed("boot")?, sequence: row.unsigned("sequence")? };
    Ok(UsageRecord { key, attempted, used, ended_ms })
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
