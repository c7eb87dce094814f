//! The audit trail: who did what, and what happened to whom. Records are added and never changed; they go only when they are
//! older than is kept, or too many.
//!
//! A write that is to leave a record does so in its own transaction ([`Store::audited`]): either both are there or neither is.

use sqlx::AnyConnection;
use tenantry_types::error::sanitise;
use tenantry_types::{KeyId, TenantId};

use crate::limits::{MAX_AUDIT_DETAIL_CHARS, MAX_AUDIT_PAGE, MAX_AUDIT_WORD_CHARS};
use crate::records::Role;
use crate::{ReadError, Store, WriteError, rows};

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditActor {
    /// The server itself.
    Server,
    /// The holder of a key.
    Key {
        /// Whose key it was.
        tenant: TenantId,
        /// The key.
        key: KeyId,
        /// What it allowed then.
        role: Role,
    },
}

/// Something that was done or happened. Texts are cut to the store's bounds and cleaned of control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who did it.
    pub actor: AuditActor,
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
            insert(&mut transaction, entry).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Records, the newest first.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditRecord>, ReadError> {
        let limit = if query.limit == 0 { MAX_AUDIT_PAGE } else { query.limit.min(MAX_AUDIT_PAGE) };
        let before = query.before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let since_ms = query.since_ms.unwrap_or(i64::MIN);
        let mut snapshot = self.inner.database.read().await?;
        let rows = match query.tenant {
            Some(tenant) => sqlx::query(
                "SELECT * FROM audit WHERE tenant_id = $1 AND sequence < $2 AND at_ms >= $3 ORDER BY sequence DESC LIMIT $4",
            )
            .bind(tenant.to_string()),
            None => {
                sqlx::query("SELECT * FROM audit WHERE sequence < $1 AND at_ms >= $2 ORDER BY sequence DESC LIMIT $3")
            }
        };
        let rows = rows.bind(before).bind(since_ms).bind(i64::from(limit)).fetch_all(&mut *snapshot).await?;
        rows.iter().map(rows::audit).collect()
    }

    /// Removes records from before `oldest_ms`, and the oldest beyond the `most` newest. Answers how many went.
    pub async fn prune_audit(&self, oldest_ms: i64, most: u64) -> Result<u64, WriteError> {
        let mut transaction = self.inner.database.append().await?;
        let gone = sqlx::query(
            "DELETE FROM audit WHERE at_ms < $1
                 OR sequence <= (SELECT value FROM store_numbers WHERE name = 'audit') - $2",
        )
        .bind(oldest_ms)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(gone.rows_affected())
    }
}

/// Adds one record to the transaction.
pub(crate) async fn insert(connection: &mut AnyConnection, entry: &AuditEntry) -> Result<(), sqlx::Error> {
    // The row is locked by whoever adds, so that numbers are committed in their order.
    sqlx::query("UPDATE store_numbers SET value = value + 1 WHERE name = 'audit'").execute(&mut *connection).await?;
    let (actor_tenant, actor_key, actor_role) = match entry.actor {
        AuditActor::Server => (None, None, None),
        AuditActor::Key { tenant, key, role } => (Some(tenant.to_string()), Some(key.to_string()), Some(role.as_str())),
    };
    sqlx::query(
        "INSERT INTO audit (sequence, at_ms, actor_tenant, actor_key, actor_role, tenant_id, action, object, outcome, detail)
         VALUES ((SELECT value FROM store_numbers WHERE name = 'audit'), $1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(entry.at_ms)
    .bind(actor_tenant)
    .bind(actor_key)
    .bind(actor_role)
    .bind(entry.tenant.map(|tenant| tenant.to_string()))
    .bind(sanitise(&entry.action, MAX_AUDIT_WORD_CHARS))
    .bind(sanitise(&entry.object, MAX_AUDIT_WORD_CHARS))
    .bind(sanitise(&entry.outcome, MAX_AUDIT_WORD_CHARS))
    .bind(sanitise(&entry.detail, MAX_AUDIT_DETAIL_CHARS))
    .execute(connection)
    .await?;
    Ok(())
}
