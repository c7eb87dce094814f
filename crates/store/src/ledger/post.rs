//! One posting into the database: pages, days and the mark in one transaction.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::LazyLock;

use sqlx::{AnyConnection, AssertSqlSafe};
use tenantry_types::{BootId, NodeId, TenantId};

use super::log::Mark;
use super::page::Page;
use super::posting::{Day, DayKey, Posting, SUMS, signed};
use crate::{Store, WriteError};

/// From where to where the mark of a start moves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) boot: BootId,
    pub(super) from: Mark,
    pub(super) to: Mark,
    /// Whether nothing of the start comes after it.
    pub(super) done: bool,
}

/// Up to where a start is in the books.
#[derive(Debug, Clone, Copy)]
pub(super) enum StoredMark {
    /// Whole.
    Done,
    /// Up to here; the beginning where the books know nothing of it.
    Here(Mark),
}

impl StoredMark {
    pub(super) fn mark(self) -> Mark {
        match self {
            Self::Here(mark) => mark,
            Self::Done => Mark { file: u32::MAX, bytes: u64::MAX },
        }
    }
}

pub(super) async fn mark(store: &Store, node: NodeId, boot: BootId) -> Result<StoredMark, WriteError> {
    let mut snapshot = store.inner.database.read().await?;
    let row: Option<(i64, i64, i64)> =
        sqlx::query_as("SELECT file, position, done FROM usage_boots WHERE node = $1 AND boot = $2")
            .bind(node.to_string())
            .bind(boot.to_string())
            .fetch_optional(&mut *snapshot)
            .await?;
    Ok(match row {
        Some((_, _, 1..)) => StoredMark::Done,
        Some((file, position, _)) => {
            StoredMark::Here(Mark { file: u32::try_from(file).unwrap_or(0), bytes: position.unsigned_abs() })
        }
        None => StoredMark::Here(Mark::default()),
    })
}

pub(super) async fn post(
    store: &Store,
    node: NodeId,
    numbers: &mut HashMap<TenantId, i64>,
    step: Move,
    posting: &Posting,
) -> Result<(), WriteError> {
    let mut transaction = store.inner.database.append().await?;
    let boot = move_mark(&mut transaction, node, step, posting).await?;
    let mut next = 1 + pages_of(&mut transaction, boot).await?;
    // In the order in which they were begun: of one tenant, what ended later comes later.
    let mut pages: Vec<(TenantId, &Page)> =
        posting.pages.iter().flat_map(|(tenant, pages)| pages.iter().map(move |page| (*tenant, page))).collect();
    pages.sort_by_key(|(_, page)| page.order);
    let mut met = BTreeMap::new();
    for (tenant, page) in pages {
        let number = match numbers.get(&tenant).or_else(|| met.get(&tenant)) {
            Some(number) => *number,
            None => number_of(&mut transaction, tenant).await?,
        };
        met.insert(tenant, number);
        add_page(&mut transaction, boot, next, number, page).await?;
        next += 1;
    }
    for (key, day) in &posting.days {
        add_to_day(&mut transaction, key, day).await?;
    }
    transaction.commit().await?;
    numbers.extend(met);
    Ok(())
}

/// Moves the mark of a start, and answers the start's number in the books.
async fn move_mark(
    connection: &mut AnyConnection,
    node: NodeId,
    step: Move,
    posting: &Posting,
) -> Result<i64, WriteError> {
    let Move { boot, from, to, done } = step;
    let time = posting.slots.unwrap_or_default();
    let moved: Option<i64> = sqlx::query_scalar(
        "INSERT INTO usage_boots (id, node, boot, file, position, done, at_ms, wall_ns, slots, busy_ns, system_ns, ended, records,
             interrupted, charged_ns)
         VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM usage_boots), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         ON CONFLICT (node, boot) DO UPDATE SET file = excluded.file, position = excluded.position, done = excluded.done,
             at_ms = CASE WHEN excluded.at_ms < usage_boots.at_ms THEN usage_boots.at_ms ELSE excluded.at_ms END,
             ended = CASE WHEN excluded.ended < usage_boots.ended THEN usage_boots.ended ELSE excluded.ended END,
             records = usage_boots.records + excluded.records,
             interrupted = usage_boots.interrupted + excluded.interrupted,
             charged_ns = usage_boots.charged_ns + excluded.charged_ns,
             wall_ns = CASE WHEN excluded.slots = 0 THEN usage_boots.wall_ns ELSE excluded.wall_ns END,
             busy_ns = CASE WHEN excluded.slots = 0 THEN usage_boots.busy_ns ELSE excluded.busy_ns END,
             system_ns = CASE WHEN excluded.slots = 0 THEN usage_boots.system_ns ELSE excluded.system_ns END,
             slots = CASE WHEN excluded.slots = 0 THEN usage_boots.slots ELSE excluded.slots END
         WHERE usage_boots.file = $15 AND usage_boots.position = $16
         RETURNING id",
    )
    .bind(node.to_string())
    .bind(boot.to_string())
    .bind(i64::from(to.file))
    .bind(signed(to.bytes))
    .bind(i64::from(done))
    .bind(posting.last_ms)
    .bind(signed(time.wall_ns))
    .bind(i64::from(time.slots))
    .bind(signed(time.busy_ns))
    .bind(signed(time.system_ns))
    .bind(i64::from(posting.ended))
    .bind(signed(posting.records))
    .bind(signed(posting.interrupted))
    .bind(signed(posting.charged_ns))
    .bind(i64::from(from.file))
    .bind(signed(from.bytes))
    .fetch_optional(connection)
    .await?;
    // Two programs keep the same books; adding these rows would count them twice.
    let doubled = "the books of the usage ledger were written by another program";
    moved.ok_or_else(|| WriteError::Unavailable(io::Error::other(doubled).into()))
}

/// The number of a start's last page.
async fn pages_of(connection: &mut AnyConnection, boot: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT COALESCE(MAX(page), 0) FROM usage_pages WHERE boot_id = $1")
        .bind(boot)
        .fetch_one(connection)
        .await
}

/// The ledger's number of a tenant, made when it is first met.
async fn number_of(connection: &mut AnyConnection, tenant: TenantId) -> Result<i64, sqlx::Error> {
    let tenant = tenant.to_string();
    let known = sqlx::query_scalar("SELECT number FROM usage_tenants WHERE tenant_id = $1").bind(tenant.as_str());
    if let Some(number) = known.fetch_optional(&mut *connection).await? {
        return Ok(number);
    }
    // Another node may be faster, in a database they share: then its number stands.
    sqlx::query(
        "INSERT INTO usage_tenants (number, tenant_id) VALUES ((SELECT COALESCE(MAX(number), 0) + 1 FROM usage_tenants), $1)
         ON CONFLICT (tenant_id) DO NOTHING",
    )
    .bind(tenant.as_str())
    .execute(&mut *connection)
    .await?;
    sqlx::query_scalar("SELECT number FROM usage_tenants WHERE tenant_id = $1").bind(tenant).fetch_one(connection).await
}

async fn add_page(
    connection: &mut AnyConnection,
    boot: i64,
    number: i64,
    tenant: i64,
    page: &Page,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO usage_pages (boot_id, page, tenant_number, first_sequence, last_sequence, records, data)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(boot)
    .bind(number)
    .bind(tenant)
    .bind(signed(page.first))
    .bind(signed(page.last))
    .bind(signed(page.records))
    .bind(page.data.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_to_day(connection: &mut AnyConnection, key: &DayKey, day: &Day) -> Result<(), sqlx::Error> {
    static STATEMENT: LazyLock<String> = LazyLock::new(|| {
        let places: Vec<String> = (1..=8 + SUMS.len()).map(|place| format!("${place}")).collect();
        let adds: Vec<String> =
            SUMS.iter().map(|column| format!("{column} = usage_days.{column} + excluded.{column}")).collect();
        format!(
            "INSERT INTO usage_days (day, tenant_id, deployment_id, model, version, tier, kind, outcome, {}) VALUES ({})
             ON CONFLICT (day, tenant_id, deployment_id, model, version, tier, kind, outcome) DO UPDATE SET {}",
            SUMS.join(", "),
            places.join(", "),
            adds.join(", ")
        )
    });
    let mut query = sqlx::query(AssertSqlSafe(STATEMENT.clone()))
        .bind(key.day)
        .bind(key.tenant.to_string())
        .bind(key.deployment.map(|deployment| deployment.to_string()).unwrap_or_default())
        .bind(day.model.as_ref())
        .bind(i64::from(day.version_number))
        .bind(key.tier.as_str())
        .bind(key.kind.as_str())
        .bind(key.outcome.as_str());
    for sum in day.sums {
        query = query.bind(sum);
    }
    query.execute(connection).await?;
    Ok(())
}
