//! The audit trail: who did what, and what happened to whom. Records are added and never changed; they go only when they are
//! older than is kept, or too many.
//!
//! A write that is to leave a record does so in its own transaction ([`Store::audited`]): either both are there or neither is.
//!
//! The records are a chain (module `chain`): each holds the hash of the one before it and its own, and the two ends are kept
//! apart from them. [`Store::verify_audit`] finds a record that was changed, taken out or put in.

mod chain;
mod verify;

use std::net::IpAddr;

use sqlx::{AnyConnection, Row as _};
use tenantry_types::error::sanitise;
use tenantry_types::{KeyId, TenantId};

use crate::limits::{MAX_AUDIT_DETAIL_CHARS, MAX_AUDIT_PAGE, MAX_AUDIT_WORD_CHARS};
use crate::{ReadError, Store, WriteError, rows};

pub(crate) use chain::complete;
pub use verify::{AuditFault, AuditFaultKind, AuditVerification};

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditActor {
    /// The server itself.
    Server,
    /// The holder of a key.
    Key {
        /// Whose key it was.
        tenant: TenantId,
        /// The key.
        key: KeyId,
        /// What it was to its tenant then: its role, or its roles with a `+` between them.
        role: Box<str>,
    },
    /// Somebody who could not prove who he is.
    Unknown {
        /// The key he named, if he named one. It need not exist.
        key: Option<KeyId>,
    },
}

/// What the column of the role says of [`AuditActor::Unknown`].
pub(crate) const UNKNOWN: &str = "unknown";

/// Something that was done or happened. Texts are cut to the store's bounds and cleaned of control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who did it.
    pub actor: AuditActor,
    /// From where: the address the connection came from; none for what the server did.
    pub source: Option<IpAddr>,
    /// Whom it concerns; none: the platform only.
    pub tenant: Option<TenantId>,
    /// What was done, a word with a dot such as `key.revoke`.
    pub action: String,
    /// To what.
    pub object: String,
    /// What came of it: `ok`, or the code of the error.
    pub outcome: String,
    /// What else there is to say.
    pub detail: String,
}

/// An entry with its place in the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Grows by one with each record of the store.
    pub sequence: u64,
    /// What it says.
    pub entry: AuditEntry,
    /// The store's revision that the write made; none for what was no write, or failed.
    pub generation: Option<u64>,
    /// The hash of the record before it.
    pub previous: String,
    /// Its own: SHA-256 over all the rest, as hexadecimal digits.
    pub hash: String,
}

/// Which records to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Those that concern this tenant; none: all.
    pub tenant: Option<TenantId>,
    /// Not those from before, milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
    /// Only those before this one, to go on where an earlier answer ended.
    pub before: Option<u64>,
    /// Only those after this one, and the oldest first.
    pub after: Option<u64>,
    /// The most records of one answer; zero and more than [`MAX_AUDIT_PAGE`] mean that many.
    pub limit: u32,
}

impl Store {
    /// The same store, but each write that is committed through it leaves this record, in the same transaction. A write whose
    /// record cannot be written fails.
    #[must_use]
    pub fn audited(&self, entry: AuditEntry) -> Self {
        Self { inner: self.inner.clone(), audit: Some(entry.into()) }
    }

    /// Adds records of what was no write of the store.
    pub async fn append_audit(&self, entries: &[AuditEntry]) -> Result<(), WriteError> {
        let mut transaction = self.inner.database.append().await?;
        for entry in entries {
            insert(&mut transaction, entry, None).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Records, the newest first; the oldest first where the query says after which.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRecord>, ReadError> {
        let limit = if query.limit == 0 { MAX_AUDIT_PAGE } else { query.limit.min(MAX_AUDIT_PAGE) };
        let bound = |sequence: u64| i64::try_from(sequence).unwrap_or(i64::MAX);
        let before = query.before.map_or(i64::MAX, bound);
        let since_ms = query.since_ms.unwrap_or(i64::MIN);
        let mut snapshot = self.inner.database.read().await?;
        let statement = match (query.tenant, query.after) {
            (Some(_), None) => {
                "SELECT * FROM audit WHERE sequence > $1 AND sequence < $2 AND at_ms >= $3 AND tenant_id = $5
                     ORDER BY sequence DESC LIMIT $4"
            }
            (None, None) => {
                "SELECT * FROM audit WHERE sequence > $1 AND sequence < $2 AND at_ms >= $3 ORDER BY sequence DESC LIMIT $4"
            }
            (Some(_), Some(_)) => {
                "SELECT * FROM audit WHERE sequence > $1 AND sequence < $2 AND at_ms >= $3 AND tenant_id = $5
                     ORDER BY sequence LIMIT $4"
            }
            (None, Some(_)) => {
                "SELECT * FROM audit WHERE sequence > $1 AND sequence < $2 AND at_ms >= $3 ORDER BY sequence LIMIT $4"
            }
        };
        let mut rows = sqlx::query(statement)
            .bind(query.after.map_or(i64::MIN, bound))
            .bind(before)
            .bind(since_ms)
            .bind(i64::from(limit));
        if let Some(tenant) = query.tenant {
            rows = rows.bind(tenant.to_string());
        }
        rows.fetch_all(&mut *snapshot).await?.iter().map(rows::audit).collect()
    }

    /// Removes the oldest records: those from before `oldest_ms`, up to the first that is not, and those beyond the `most`
    /// newest. What is left is still a chain, whose beginning is known. Answers how many went.
    pub async fn prune_audit(&self, oldest_ms: i64, most: u64) -> Result<u64, WriteError> {
        let mut transaction = self.inner.database.append().await?;
        // Locks the row, as whoever adds a record does.
        let head = sqlx::query("UPDATE audit_ends SET sequence = sequence WHERE name = 'head' RETURNING sequence")
            .fetch_one(&mut *transaction)
            .await?;
        let head: i64 = head.try_get("sequence")?;
        let too_many = head.saturating_sub(i64::try_from(most).unwrap_or(i64::MAX));
        let first_kept: Option<i64> =
            sqlx::query_scalar("SELECT sequence FROM audit WHERE at_ms >= $1 ORDER BY sequence LIMIT 1")
                .bind(oldest_ms)
                .fetch_optional(&mut *transaction)
                .await?;
        let last_gone = too_many.max(first_kept.map_or(head, |first| first.saturating_sub(1)));
        let anchor =
            sqlx::query("SELECT sequence, hash FROM audit WHERE sequence <= $1 ORDER BY sequence DESC LIMIT 1")
                .bind(last_gone)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(anchor) = anchor else { return Ok(0) };
        let (sequence, hash): (i64, String) = (anchor.try_get("sequence")?, anchor.try_get("hash")?);
        sqlx::query("UPDATE audit_ends SET sequence = $1, hash = $2 WHERE name = 'anchor'")
            .bind(sequence)
            .bind(hash)
            .execute(&mut *transaction)
            .await?;
        let gone =
            sqlx::query("DELETE FROM audit WHERE sequence <= $1").bind(sequence).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(gone.rows_affected())
    }
}

/// Adds one record to the transaction; `generation` is the revision that the transaction makes.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    entry: &AuditEntry,
    generation: Option<i64>,
) -> Result<(), sqlx::Error> {
    // The row is locked by whoever adds, so that numbers are committed in their order.
    let head =
        sqlx::query("UPDATE audit_ends SET sequence = sequence + 1 WHERE name = 'head' RETURNING sequence, hash")
            .fetch_one(&mut *connection)
            .await?;
    let (actor_tenant, actor_key, actor_role) = match &entry.actor {
        AuditActor::Server => (None, None, None),
        AuditActor::Key { tenant, key, role } => (Some(tenant.to_string()), Some(key.to_string()), Some(role.as_ref())),
        AuditActor::Unknown { key } => (None, key.map(|key| key.to_string()), Some(UNKNOWN)),
    };
    let record = chain::Columns {
        sequence: head.try_get("sequence")?,
        at_ms: entry.at_ms,
        actor_tenant,
        actor_key,
        actor_role: actor_role.map(str::to_owned),
        tenant_id: entry.tenant.map(|tenant| tenant.to_string()),
        action: sanitise(&entry.action, MAX_AUDIT_WORD_CHARS),
        object: sanitise(&entry.object, MAX_AUDIT_WORD_CHARS),
        outcome: sanitise(&entry.outcome, MAX_AUDIT_WORD_CHARS),
        detail: sanitise(&entry.detail, MAX_AUDIT_DETAIL_CHARS),
        source: entry.source.map(|source| source.to_string()).unwrap_or_default(),
        generation,
        previous: head.try_get("hash")?,
    };
    record.insert(connection).await
}
