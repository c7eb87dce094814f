//! The database: two pools, their sessions, and the writing transaction.
//!
//! This file is the only one that knows which database it is. The difference is confined to how a session is set up;
//! after that both speak one dialect: `$1` placeholders, TEXT and BIGINT.

use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::Migrator;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Transaction};

use crate::audit::AuditEntry;
use crate::{OpenError, audit};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Connections that read. WAL and Postgres let them read beside the writer.
const READERS: u32 = 3;
/// How long a call waits for a connection before it reports the database unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    fn of(url: &str) -> Result<Self, OpenError> {
        match url.split_once(':') {
            Some(("sqlite", _)) => Ok(Self::Sqlite),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres),
            _ => Err(OpenError::Scheme),
        }
    }

    /// What every session begins with. Waiting for a lock ends before [`ACQUIRE_TIMEOUT`] does.
    const fn session(self) -> &'static [&'static str] {
        match self {
            Self::Sqlite => &[
                "PRAGMA busy_timeout = 10000",
                // Readers see their snapshot while the writer commits.
                "PRAGMA journal_mode = WAL",
                // A commit is on the disk when it is acknowledged; in WAL mode the weaker NORMAL would not say so.
                "PRAGMA synchronous = FULL",
                "PRAGMA foreign_keys = ON",
                // What is deleted is overwritten: a tenant's wrapped keys are to be gone with their row.
                "PRAGMA secure_delete = ON",
                // 1 MiB a connection instead of 2: the catalogue is read whole and rarely.
                "PRAGMA cache_size = -1024",
            ],
            Self::Postgres => {
                &["SET lock_timeout = '10s'", "SET statement_timeout = '30s'", "SET synchronous_commit = on"]
            }
        }
    }

    /// What the session has besides that brings the tables to what this program knows: that may take long.
    const fn migrating_session(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            Self::Postgres => Some("SET statement_timeout = 0"),
        }
    }

    /// What a reading session has besides: no writes, and one snapshot a transaction (in SQLite's WAL that is so anyway).
    const fn reading_session(self) -> &'static str {
        match self {
            Self::Sqlite => "PRAGMA query_only = ON",
            Self::Postgres => "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Database {
    kind: Kind,
    reader: AnyPool,
    /// INVARIANT: at most one connection, so that writers of this process queue here, first come, first served, and not
    /// on the database's lock.
    writer: AnyPool,
}

impl Database {
    /// Connects and migrates.
    pub(crate) async fn open(url: &str) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let kind = Kind::of(url)?;
        let options: AnyConnectOptions = url.parse()?;
        let pool = |connections: u32, extra: Option<&'static str>| {
            AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT).after_connect(
                move |connection, _| {
                    Box::pin(async move {
                        for statement in kind.session().iter().copied().chain(extra) {
                            connection.execute(statement).await?;
                        }
                        Ok(())
                    })
                },
            )
        };
        let migrating = pool(1, kind.migrating_session()).connect_with(options.clone()).await?;
        MIGRATIONS.run(&migrating).await?;
        migrating.close().await;
        let writer = pool(1, None).connect_with(options.clone()).await?;
        let reader = pool(READERS, Some(kind.reading_session())).connect_with(options).await?;
        Ok(Self { kind, reader, writer })
    }

    /// One snapshot of everything.
    pub(crate) async fn read(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.reader.begin().await
    }

    /// A transaction that nothing else writes beside.
    pub(crate) async fn write(&self) -> Result<Write, sqlx::Error> {
        let mut transaction = self.writer.begin().await?;
        // INVARIANT: the first statement. It takes SQLite's write lock before anything is read, so the transaction never
        // has to upgrade a stale snapshot, and on Postgres it makes writers of several servers wait for each other.
        sqlx::query("UPDATE store_numbers SET value = value + 1 WHERE name = 'revision'")
            .execute(&mut *transaction)
            .await?;
        Ok(Write { transaction, audit: None })
    }

    /// A transaction that only adds to, or takes from, what no revision counts. Its first statement must write.
    pub(crate) async fn append(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.writer.begin().await
    }

    /// Sees to it that what was deleted is not in the database's files any more, as far as that is in our hands: SQLite keeps
    /// earlier pages in its log until that is folded into the file. Postgres does the same at its own time (VACUUM).
    pub(crate) async fn forget_deleted(&self) {
        if self.kind == Kind::Sqlite
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await
        {
            // A reader that is busy keeps it; the next one does it.
            tracing::debug!(%error, "the database's log was not folded into its file");
        }
    }

    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// A writing transaction; dropped without [`Write::commit`] it leaves nothing, not even a new revision.
pub(crate) struct Write {
    transaction: Transaction<'static, Any>,
    audit: Option<AuditEntry>,
}

impl Write {
    pub(crate) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// The same, which leaves this record when it is committed.
    pub(crate) fn telling(self, audit: Option<AuditEntry>) -> Self {
        Self { audit, ..self }
    }

    /// Completes the record by what is known only now.
    pub(crate) fn tell(&mut self, complete: impl FnOnce(&mut AuditEntry)) {
        if let Some(entry) = &mut self.audit {
            complete(entry);
        }
    }

    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        if let Some(entry) = &self.audit {
            let revision = revision(&mut self.transaction).await?;
            audit::insert(&mut self.transaction, entry, i64::try_from(revision).ok()).await?;
        }
        self.transaction.commit().await
    }
}

/// Whether the database refused a row because its key is taken.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// The current revision.
pub(crate) async fn revision(connection: &mut AnyConnection) -> Result<u64, sqlx::Error> {
    let value: i64 =
        sqlx::query_scalar("SELECT value FROM store_numbers WHERE name = 'revision'").fetch_one(connection).await?;
    Ok(value.unsigned_abs())
}

/// How many rows a counting query finds; `query` takes one text.
pub(crate) async fn count(
    connection: &mut AnyConnection,
    query: &'static str,
    argument: &str,
) -> Result<usize, sqlx::Error> {
    let rows: i64 = sqlx::query_scalar(query).bind(argument).fetch_one(connection).await?;
    Ok(usize::try_from(rows).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_databases_are_spoken() {
        assert_eq!(Kind::of("sqlite:///x").ok(), Some(Kind::Sqlite));
        assert_eq!(Kind::of("postgres://h/x").ok(), Some(Kind::Postgres));
        assert_eq!(Kind::of("postgresql://h/x").ok(), Some(Kind::Postgres));
        for bad in ["", "mysql://h/x", "/tmp/x.sqlite", "Postgres"] {
            assert!(matches!(Kind::of(bad), Err(OpenError::Scheme)), "{bad}");
        }
    }

    #[tokio::test]
    async fn sqlite_sessions_are_durable_checked_and_readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", folder.path().join("x.sqlite").display());
        let database = Database::open(&url).await.unwrap();
        for pool in [&database.writer, &database.reader] {
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(pool).await.unwrap();
            assert_eq!(mode, "wal");
            // 2 is FULL.
            for (pragma, expected) in [("PRAGMA synchronous", 2_i64), ("PRAGMA foreign_keys", 1)] {
                let value: i64 = sqlx::query_scalar(pragma).fetch_one(pool).await.unwrap();
                assert_eq!(value, expected, "{pragma}");
            }
        }
        let statement = "INSERT INTO store_numbers (name, value) VALUES ('x', 1)";
        assert!(sqlx::query(statement).execute(&database.reader).await.is_err());
        let orphan = "INSERT INTO model_tags (model_id, name, value) VALUES ('nobody', 'a', 'b')";
        assert!(sqlx::query(orphan).execute(&database.writer).await.is_err());
    }

    #[tokio::test]
    async fn a_dropped_write_leaves_nothing_and_lets_the_next_one_in() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}?mode=rwc", folder.path().join("x.sqlite").display());
        let database = Database::open(&url).await.unwrap();
        drop(database.write().await.unwrap());
        database.write().await.unwrap().commit().await.unwrap();
        assert_eq!(revision(&mut database.read().await.unwrap()).await.unwrap(), 1);
    }
}
