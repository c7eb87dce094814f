//! The books: from the log's files into the database, each record once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use sqlx::{AnyConnection, AssertSqlSafe};
use tenantry_types::usage::{Attempted, Outcome, SlotTime, Used};
use tenantry_types::{BootId, DeploymentId, NodeId, TenantId};

use super::frame::{Entry, FORMAT, Frame, Frames, MAX_FRAME_BYTES};
use super::log::{Ledger, file_name, parse_file_name};
use crate::{Store, WriteError};

/// Records carried over in one transaction, at most.
const MAX_CARRIED: usize = 2_000;
/// Records in one statement: two sizes, so that each is prepared once. More at once cost more each: SQLite looks for every
/// parameter's name from the first one on.
const ROWS: [usize; 2] = [16, 1];
/// What is added up for a day, in the order of [`sums`].
pub(super) const SUMS: [&str; 11] = [
    "attempts",
    "duration_ns",
    "queue_ns",
    "compute_ns",
    "padding_ns",
    "load_ns",
    "aborted_ns",
    "cpu_ns",
    "bytes_in",
    "bytes_out",
    "tokens",
];
/// What a damaged file's name ends with instead.
const DAMAGED: &str = "damaged";
pub(super) const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Carries the log of one node into the database. There is one; it is not shared.
#[derive(Debug)]
pub struct Bookkeeper {
    ledger: Arc<Ledger>,
    store: Store,
    boots: BTreeMap<BootId, Reading>,
}

/// What one call of [`Bookkeeper::carry`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// Closed records that came into the books.
    pub closed: u64,
    /// Records of earlier starts that were never closed and came as interrupted.
    pub interrupted: u64,
    /// Files that hold something behind their last whole record: a power failure, or damage.
    pub torn: u64,
    /// Those of them that hold more there than one record can be: damage in their middle. They are kept, renamed.
    pub damaged: u64,
}

/// How far one start's files have been read.
#[derive(Debug)]
struct Reading {
    /// Where the books are: file and offset in it. What lies before is in them.
    mark: (u32, u64),
    /// Where reading goes on. It begins at the beginning, to find what was opened.
    at: (u32, u64),
    node: NodeId,
    /// When it was last heard of.
    last_ms: i64,
    /// What was opened and not closed by now, with the file it is in.
    opened: HashMap<u64, (u32, Attempted)>,
    slots: Option<SlotTime>,
    /// Whether it has said its last word.
    ended: bool,
    /// Files with damage in their middle, which are kept aside.
    damaged: BTreeSet<u32>,
}

/// What came of reading on.
struct Read {
    /// Closed records that are not in the books.
    rows: Vec<Row>,
    /// Whether there may be more.
    more: bool,
    /// Files that hold something behind their last whole record.
    torn: u64,
}

/// A closed record on its way.
struct Row {
    sequence: u64,
    attempted: Attempted,
    used: Used,
    ended_ms: i64,
}

/// Which line of the days a record belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct DayKey {
    day: i64,
    tenant: TenantId,
    deployment: Option<DeploymentId>,
    model: Arc<str>,
    version: i64,
    tier: &'static str,
    kind: &'static str,
    outcome: &'static str,
}

impl Reading {
    /// Reading begins with this file, the books are at this mark.
    fn new(node: NodeId, mark: (u32, u64), first: u32) -> Self {
        Self {
            mark,
            at: (first, 0),
            node,
            last_ms: 0,
            opened: HashMap::new(),
            slots: None,
            ended: false,
            damaged: BTreeSet::new(),
        }
    }
}

impl Bookkeeper {
    /// Keeps the books of this log in this store.
    pub fn new(ledger: Arc<Ledger>, store: Store) -> Self {
        Self { ledger, store, boots: BTreeMap::new() }
    }

    /// Carries over all there is, and removes files that are of no use any more. What an earlier start left open is closed.
    ///
    /// # Errors
    /// [`WriteError`]; what was carried before it stays, and the next call goes on from there.
    pub async fn carry(&mut self) -> Result<Carried, WriteError> {
        let mut carried = Carried::default();
        let mut failed = None;
        for (boot, numbers) in self.files().await? {
            // What one start left and cannot be read holds up nobody else's.
            if let Err(error) = self.carry_files(boot, numbers, &mut carried).await {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(carried), Err)
    }

    async fn carry_files(
        &mut self,
        boot: BootId,
        numbers: BTreeSet<u32>,
        carried: &mut Carried,
    ) -> Result<(), WriteError> {
        let first = numbers.first().copied().unwrap_or(1);
        // Out of its place meanwhile: after an error it is read again from the beginning.
        let reading = match self.boots.remove(&boot) {
            Some(reading) => Some(reading),
            None => self.begin(boot, first).await?,
        };
        let Some(mut reading) = reading else {
            // In the books whole; its files outlived a kill.
            return self.remove(boot, numbers, BTreeSet::new()).await;
        };
        let is_current = boot == self.ledger.boot();
        self.carry_boot(boot, &mut reading, numbers.last().copied().unwrap_or(1), carried).await?;
        let spent: BTreeSet<u32> = if is_current {
            let oldest_open = reading.opened.values().map(|(file, _)| *file).min().unwrap_or(u32::MAX);
            let kept = reading.mark.0.min(oldest_open);
            numbers.into_iter().filter(|number| *number < kept).collect()
        } else {
            numbers
        };
        let damaged: BTreeSet<u32> = reading.damaged.intersection(&spent).copied().collect();
        carried.damaged += damaged.len() as u64;
        if is_current {
            reading.damaged.retain(|number| !damaged.contains(number));
            self.boots.insert(boot, reading);
        }
        self.remove(boot, spent, damaged).await
    }

    async fn carry_boot(
        &self,
        boot: BootId,
        reading: &mut Reading,
        last: u32,
        carried: &mut Carried,
    ) -> Result<(), WriteError> {
        loop {
            let folder = self.ledger.folder().to_owned();
            let is_over = boot != self.ledger.boot();
            let Read { mut rows, more, torn } = read(folder, boot, reading, last, is_over).await?;
            let done = !more && is_over;
            carried.torn += torn;
            carried.closed += rows.len() as u64;
            if done {
                let interrupted = interrupted(reading);
                carried.interrupted += interrupted.len() as u64;
                rows.extend(interrupted);
            }
            if !rows.is_empty() || done || reading.slots.is_some() {
                commit(&self.store, boot, reading, &rows, done).await?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// The files there are, by start.
    async fn files(&self) -> Result<BTreeMap<BootId, BTreeSet<u32>>, WriteError> {
        let folder = self.ledger.folder().to_owned();
        let list = move || {
            let mut files: BTreeMap<BootId, BTreeSet<u32>> = BTreeMap::new();
            for entry in std::fs::read_dir(folder)? {
                if let Some((boot, number)) = entry?.file_name().to_str().and_then(parse_file_name) {
                    files.entry(boot).or_default().insert(number);
                }
            }
            Ok(files)
        };
        blocking(list).await
    }

    /// Removes files that are in the books; those with damage in their middle are renamed, for somebody to look at.
    async fn remove(&self, boot: BootId, numbers: BTreeSet<u32>, damaged: BTreeSet<u32>) -> Result<(), WriteError> {
        let folder = self.ledger.folder().to_owned();
        blocking(move || {
            numbers.into_iter().try_for_each(|number| {
                let path = folder.join(file_name(boot, number));
                if damaged.contains(&number) {
                    return std::fs::rename(&path, path.with_extension(DAMAGED));
                }
                std::fs::remove_file(path)
            })
        })
        .await
    }

    /// Where the books of a start are; nothing where they are closed.
    async fn begin(&self, boot: BootId, first: u32) -> Result<Option<Reading>, WriteError> {
        let mut snapshot = self.store.inner.database.read().await?;
        let row: Option<(i64, i64, i64)> =
            sqlx::query_as("SELECT file, position, done FROM usage_boots WHERE node = $1 AND boot = $2")
                .bind(self.ledger.node().to_string())
                .bind(boot.to_string())
                .fetch_optional(&mut *snapshot)
                .await?;
        let mark = match row {
            Some((_, _, 1..)) => return Ok(None),
            Some((file, position, _)) => (u32::try_from(file).unwrap_or(0), position.unsigned_abs()),
            None => (0, 0),
        };
        Ok(Some(Reading::new(self.ledger.node(), mark, first)))
    }
}

/// Reads on, up to [`MAX_CARRIED`] records that are not in the books.
async fn read(
    folder: PathBuf,
    boot: BootId,
    reading: &mut Reading,
    last: u32,
    is_over: bool,
) -> Result<Read, WriteError> {
    // Some thousands of records: milliseconds, and the state goes along.
    let mut moved = std::mem::replace(reading, Reading::new(reading.node, (0, 0), 0));
    let (moved, outcome) = tokio::task::spawn_blocking(move || {
        let outcome = read_files(&folder, boot, &mut moved, last, is_over);
        (moved, outcome)
    })
    .await
    .map_err(|error| WriteError::Unavailable(io::Error::other(error).into()))?;
    *reading = moved;
    outcome.map_err(|error| WriteError::Unavailable(error.into()))
}

fn read_files(folder: &Path, boot: BootId, reading: &mut Reading, last: u32, is_over: bool) -> io::Result<Read> {
    let (mut rows, mut torn) = (Vec::new(), 0);
    loop {
        let (number, offset) = reading.at;
        let path = folder.join(file_name(boot, number));
        let mut frames = Frames::open(&path, offset)?;
        while let Some(frame) = frames.next()? {
            reading.at = (number, frames.offset());
            let is_new = reading.at > reading.mark;
            match frame {
                Frame::Begin { format, node, started_ms, .. } => {
                    if format != FORMAT {
                        return Err(io::Error::other("a file of the usage ledger is of another version"));
                    }
                    reading.node = node;
                    reading.last_ms = reading.last_ms.max(started_ms);
                }
                Frame::Opened { sequence, attempted } => {
                    reading.opened.insert(sequence, (number, attempted));
                }
                Frame::Closed { sequence, attempted, used, ended_ms } => {
                    reading.opened.remove(&sequence);
                    reading.last_ms = reading.last_ms.max(ended_ms);
                    if is_new {
                        rows.push(Row { sequence, attempted, used, ended_ms });
                    }
                }
                Frame::Slots { at_ms, time, last } => {
                    reading.ended |= last;
                    reading.last_ms = reading.last_ms.max(at_ms);
                    reading.slots = is_new.then_some(time).or(reading.slots);
                }
            }
            if rows.len() >= MAX_CARRIED {
                return Ok(Read { rows, more: true, torn });
            }
        }
        let is_final = number < last || is_over;
        let rest_bytes = std::fs::metadata(&path)?.len().saturating_sub(frames.offset());
        if is_final && rest_bytes > 0 {
            torn += 1;
            // The end of a file may be a part of one record. More than that was behind something unreadable.
            if rest_bytes > MAX_FRAME_BYTES {
                reading.damaged.insert(number);
            }
        }
        if number >= last {
            return Ok(Read { rows, more: false, torn });
        }
        // The next file was there before this one was read to its end, so nothing comes into this one any more.
        reading.at = (number + 1, 0);
    }
}

/// What a start that is over left open, as closed records.
fn interrupted(reading: &mut Reading) -> Vec<Row> {
    let ended_ms = reading.last_ms;
    let mut left: Vec<Row> = reading
        .opened
        .drain()
        .map(|(sequence, (_, attempted))| {
            let ended_ms = ended_ms.max(attempted.admitted_ms);
            Row { sequence, attempted, used: Used::nothing(Outcome::Interrupted), ended_ms }
        })
        .collect();
    left.sort_unstable_by_key(|row| row.sequence);
    left
}

/// Rows, days and mark in one transaction.
async fn commit(
    store: &Store,
    boot: BootId,
    reading: &mut Reading,
    rows: &[Row],
    done: bool,
) -> Result<(), WriteError> {
    let mut transaction = store.inner.database.append().await?;
    let boot_id = move_mark(&mut transaction, boot, reading, rows, done).await?;
    let tenants: BTreeSet<TenantId> = rows.iter().map(|row| row.attempted.tenant).collect();
    let mut numbers = HashMap::with_capacity(tenants.len());
    for tenant in tenants {
        numbers.insert(tenant, number_of(&mut transaction, tenant).await?);
    }
    let mut left = rows;
    while !left.is_empty() {
        let size = ROWS.into_iter().find(|size| *size <= left.len()).unwrap_or(1);
        let (now, later) = left.split_at(size);
        insert(&mut transaction, boot_id, &numbers, now).await?;
        left = later;
    }
    let mut days: HashMap<DayKey, [i64; SUMS.len()]> = HashMap::new();
    for row in rows {
        let day = days.entry(DayKey::of(row)).or_default();
        day.iter_mut().zip(sums(row)).for_each(|(sum, value)| *sum = sum.saturating_add(value));
    }
    for (key, sums) in &days {
        add_to_day(&mut transaction, key, sums).await?;
    }
    transaction.commit().await?;
    reading.mark = reading.at.max(reading.mark);
    reading.slots = None;
    Ok(())
}

/// Moves the mark of a start, and answers the start's number in the books.
async fn move_mark(
    connection: &mut AnyConnection,
    boot: BootId,
    reading: &Reading,
    rows: &[Row],
    done: bool,
) -> Result<i64, WriteError> {
    let (file, position) = reading.at.max(reading.mark);
    let time = reading.slots.unwrap_or_default();
    let charged_ns = rows.iter().map(|row| row.used.device.total_ns()).fold(0, u64::saturating_add);
    let interrupted = rows.iter().filter(|row| row.used.outcome == Outcome::Interrupted).count();
    let moved: Option<i64> = sqlx::query_scalar(
        "INSERT INTO usage_boots (id, node, boot, file, position, done, at_ms, wall_ns, slots, busy_ns, system_ns, ended, records,
             interrupted, charged_ns)
         VALUES ((SELECT COALESCE(MAX(id), 0) + 1 FROM usage_boots), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
         ON CONFLICT (node, boot) DO UPDATE SET file = excluded.file, position = excluded.position, done = excluded.done,
             at_ms = excluded.at_ms, ended = excluded.ended, records = usage_boots.records + excluded.records,
             interrupted = usage_boots.interrupted + excluded.interrupted,
             charged_ns = usage_boots.charged_ns + excluded.charged_ns,
             wall_ns = CASE WHEN excluded.slots = 0 THEN usage_boots.wall_ns ELSE excluded.wall_ns END,
             busy_ns = CASE WHEN excluded.slots = 0 THEN usage_boots.busy_ns ELSE excluded.busy_ns END,
             system_ns = CASE WHEN excluded.slots = 0 THEN usage_boots.system_ns ELSE excluded.system_ns END,
             slots = CASE WHEN excluded.slots = 0 THEN usage_boots.slots ELSE excluded.slots END
         WHERE usage_boots.file = $15 AND usage_boots.position = $16
         RETURNING id",
    )
    .bind(reading.node.to_string())
    .bind(boot.to_string())
    .bind(i64::from(file))
    .bind(signed(position))
    .bind(i64::from(done))
    .bind(reading.last_ms)
    .bind(signed(time.wall_ns))
    .bind(i64::from(time.slots))
    .bind(signed(time.busy_ns))
    .bind(signed(time.system_ns))
    .bind(i64::from(reading.ended))
    .bind(signed(rows.len() as u64))
    .bind(signed(interrupted as u64))
    .bind(signed(charged_ns))
    .bind(i64::from(reading.mark.0))
    .bind(signed(reading.mark.1))
    .fetch_optional(connection)
    .await?;
    // Two programs keep the same books; adding these rows would count them twice.
    let doubled = "the books of the usage ledger were written by another program";
    moved.ok_or_else(|| WriteError::Unavailable(io::Error::other(doubled).into()))
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

async fn insert(
    connection: &mut AnyConnection,
    boot_id: i64,
    numbers: &HashMap<TenantId, i64>,
    rows: &[Row],
) -> Result<(), WriteError> {
    static STATEMENTS: LazyLock<BTreeMap<usize, String>> =
        LazyLock::new(|| ROWS.into_iter().map(|rows| (rows, insert_statement(rows))).collect());
    let statement = STATEMENTS.get(&rows.len()).cloned().unwrap_or_else(|| insert_statement(rows.len()));
    // Nothing in it but names and numbers of ours.
    let mut query = sqlx::query(AssertSqlSafe(statement));
    for row in rows {
        let record = Entry { attempted: &row.attempted, used: row.used, ended_ms: row.ended_ms }.encode();
        query = query
            .bind(boot_id)
            .bind(signed(row.sequence))
            .bind(numbers.get(&row.attempted.tenant).copied().unwrap_or(0))
            .bind(record.map_err(|error| WriteError::Unavailable(io::Error::other(error).into()))?);
    }
    query.execute(connection).await?;
    Ok(())
}

fn insert_statement(rows: usize) -> String {
    let places = |row: usize| {
        let [a, b, c, d] = [1, 2, 3, 4].map(|column| row * 4 + column);
        format!("(${a}, ${b}, ${c}, ${d})")
    };
    let all: Vec<String> = (0..rows).map(places).collect();
    format!("INSERT INTO usage_records (boot_id, sequence, tenant_number, record) VALUES {}", all.join(", "))
}

async fn add_to_day(connection: &mut AnyConnection, key: &DayKey, sums: &[i64]) -> Result<(), sqlx::Error> {
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
        .bind(key.model.as_ref())
        .bind(key.version)
        .bind(key.tier)
        .bind(key.kind)
        .bind(key.outcome);
    for sum in sums {
        query = query.bind(*sum);
    }
    query.execute(connection).await?;
    Ok(())
}

impl DayKey {
    fn of(row: &Row) -> Self {
        let Attempted { tenant, deployment, model, version_number, tier, kind, .. } = &row.attempted;
        Self {
            day: row.ended_ms.div_euclid(DAY_MS),
            tenant: *tenant,
            deployment: *deployment,
            model: Arc::clone(model),
            version: i64::from(*version_number),
            tier: tier.as_str(),
            kind: kind.as_str(),
            outcome: row.used.outcome.as_str(),
        }
    }
}

/// In the order of [`SUMS`].
fn sums(row: &Row) -> [i64; SUMS.len()] {
    let Used { duration_ns, queue_ns, device, cpu_ns, bytes_in, bytes_out, tokens, .. } = row.used;
    [
        1,
        duration_ns,
        queue_ns,
        device.compute_ns,
        device.padding_ns,
        device.load_ns,
        device.aborted_ns,
        cpu_ns,
        bytes_in,
        bytes_out,
        tokens,
    ]
    .map(signed)
}

/// For a column: 2^63 nanoseconds are 292 years.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, WriteError> {
    let outcome = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)));
    outcome.map_err(|error| WriteError::Unavailable(error.into()))
}
