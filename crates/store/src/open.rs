//! Opening a store: the folder and its lock, the database, the artefacts, and what a kill left over.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use object_store::local::LocalFileSystem;
use tokio::sync::{RwLock, Semaphore};

use crate::artefacts::ClearFiles;
use crate::audit::AuditEntry;
use crate::data_keys::{DataKeys, Encryption};
use crate::database::{Database, Write};
use crate::{BackendError, OpenError, ReadError, WriteError, audit, limits};

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "store-identity";
const DATABASE_FILE: &str = "tenantry.sqlite";
pub(crate) const ARTEFACTS: &str = "artefacts";
pub(crate) const OPTIMISED: &str = "optimised";
pub(crate) const STAGING: &str = "staging";

/// Where a store lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `postgres://...` or `sqlite://...`; absent: an SQLite file in the data folder.
    pub database_url: Option<String>,
    /// The folder of the artefacts, made with access for its owner only if it does not exist. One process at a time
    /// has it open.
    pub data_dir: PathBuf,
}

/// The durable truth of one server. Cheap to clone; the folder is let go when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
    /// What each committed write of this one leaves in the audit trail.
    pub(crate) audit: Option<Arc<AuditEntry>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) database: Database,
    pub(crate) artefacts: LocalFileSystem,
    /// Held shared by whoever makes a file visible or refers to one, and alone by whoever removes files, so that a file
    /// is never removed between the check that it exists and the row that names it.
    pub(crate) removal: RwLock<()>,
    pub(crate) uploads: Arc<Semaphore>,
    /// Absent in a store that was opened without a master key.
    pub(crate) data_keys: Option<DataKeys>,
    pub(crate) clear: ClearFiles,
    /// Locked for as long as this lives; the system lets go of it even when the process is killed.
    _lock: File,
}

impl Store {
    /// Opens the store without a master key: files are written as they are, and those that are encrypted cannot be read.
    ///
    /// # Errors
    /// As [`Store::open_encrypted`].
    pub async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        Self::open_with(config, None).await
    }

    /// Opens the store, creating or migrating what is missing, and removes what an earlier process left unfinished.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing was changed if the folder is in use, belongs to another database, or the master key is not
    /// the one that wrapped the tenants' keys.
    pub async fn open_encrypted(config: &StoreConfig, encryption: Encryption) -> Result<Self, OpenError> {
        Self::open_with(config, Some(encryption)).await
    }

    async fn open_with(config: &StoreConfig, encryption: Option<Encryption>) -> Result<Self, OpenError> {
        let folder = config.data_dir.clone();
        let (folder, lock) = blocking(move || prepare_folder(&folder)).await?;
        let url = match &config.database_url {
            Some(url) => url.clone(),
            None => sqlite_url(&folder.join(DATABASE_FILE)),
        };
        let database = Database::open(&url).await?;
        bind(&database, &folder).await?;
        audit::complete(&database).await?;
        let artefacts = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true).with_automatic_cleanup(true);
        let inner = Inner {
            database,
            artefacts,
            removal: RwLock::new(()),
            uploads: Arc::new(Semaphore::new(limits::MAX_UPLOADS)),
            data_keys: encryption.map(DataKeys::new),
            clear: ClearFiles::default(),
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner), audit: None };
        match store.check_master_key().await {
            Err(ReadError::Unavailable(BackendError::MasterKey(error))) => return Err(error.into()),
            other => other?,
        }
        let swept = store.sweep(unix_ms()).await?;
        if swept.files > 0 {
            tracing::info!(files = swept.files, bytes = swept.bytes, "removed artefacts nothing refers to");
        }
        Ok(store)
    }

    /// A transaction that nothing else writes beside; it leaves the record this store is to leave.
    pub(crate) async fn write(&self) -> Result<Write, sqlx::Error> {
        Ok(self.inner.database.write().await?.telling(self.audit.as_deref().cloned()))
    }

    /// Ends the connections in order, so that SQLite folds its log into the database file. Later calls fail. Not needed
    /// for safety: a store that is merely dropped, or killed, loses nothing.
    pub async fn close(&self) {
        self.inner.database.close().await;
    }
}

/// Runs what would block a thread of the runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OpenError> + Send + 'static,
) -> Result<T, OpenError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed("work")(io::Error::other(error))))
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::DataFolder { action, source }
}

/// Makes and locks the folder and clears the staging area, which only the holder of the lock may do.
fn prepare_folder(folder: &Path) -> Result<(PathBuf, File), OpenError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed("create files"))?;
    let folder = folder.canonicalize().map_err(failed("find itself"))?;
    let lock = File::create(folder.join(LOCK_FILE)).map_err(failed("create files"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
        Err(TryLockError::Error(source)) => return Err(failed("lock a file")(source)),
    }
    match std::fs::remove_dir_all(folder.join(STAGING)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove unfinished uploads")(error)),
        _ => Ok((folder, lock)),
    }
}

/// An URL for a path: every byte that could mean something in one is escaped.
fn sqlite_url(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;

    let mut url = String::from("sqlite://");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
            url.push(char::from(*byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    url.push_str("?mode=rwc");
    url
}

/// Makes sure that folder and database belong together: a sweep with the wrong database would remove every artefact.
///
/// Both hold one random number. Where one of them has none yet, it is given the other's only if the folder has no
/// artefacts. The database comes first, because several servers may meet there for the first time.
async fn bind(database: &Database, folder: &Path) -> Result<(), OpenError> {
    let in_folder = read_identity(folder)?;
    let in_database = match identity_of(database).await? {
        Some(identity) => identity,
        None if has_artefacts(folder)? => return Err(OpenError::Mismatch),
        None => claim(database, in_folder.map_or_else(new_identity, Ok)?).await?,
    };
    match in_folder {
        Some(in_folder) if in_folder == in_database => Ok(()),
        Some(_) => Err(OpenError::Mismatch),
        None if has_artefacts(folder)? => Err(OpenError::Mismatch),
        None => write_identity(folder, in_database).map_err(failed("create files")),
    }
}

async fn identity_of(database: &Database) -> Result<Option<i64>, OpenError> {
    let mut snapshot = database.read().await?;
    let identity = sqlx::query_scalar("SELECT value FROM store_numbers WHERE name = 'identity'");
    Ok(identity.fetch_optional(&mut *snapshot).await?)
}

/// Gives the database its number, unless another server was faster, and returns the one it has then.
async fn claim(database: &Database, identity: i64) -> Result<i64, OpenError> {
    let mut write = database.write().await?;
    // The transaction has queued behind every other writer, so what it sees is what it leaves.
    let there: Option<i64> = sqlx::query_scalar("SELECT value FROM store_numbers WHERE name = 'identity'")
        .fetch_optional(write.connection())
        .await?;
    if let Some(there) = there {
        return Ok(there);
    }
    sqlx::query("INSERT INTO store_numbers (name, value) VALUES ('identity', $1)")
        .bind(identity)
        .execute(write.connection())
        .await?;
    write.commit().await?;
    Ok(identity)
}

fn read_identity(folder: &Path) -> Result<Option<i64>, OpenError> {
    match std::fs::read_to_string(folder.join(IDENTITY_FILE)) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| OpenError::Mismatch),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read files")(error)),
    }
}

/// Writes aside and renames, so that a kill leaves either no number or all of it.
fn write_identity(folder: &Path, identity: i64) -> io::Result<()> {
    let aside = folder.join(format!("{IDENTITY_FILE}.new"));
    let mut file = File::create(&aside)?;
    writeln!(file, "{identity}")?;
    file.sync_all()?;
    std::fs::rename(aside, folder.join(IDENTITY_FILE))?;
    sync_folder(folder)
}

/// Brings to the disk which files there are.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn has_artefacts(folder: &Path) -> Result<bool, OpenError> {
    match std::fs::read_dir(folder.join(ARTEFACTS)) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("list files")(error)),
    }
}

fn new_identity() -> Result<i64, OpenError> {
    let random = random::<8>().map_err(failed("draw random numbers"))?;
    // A positive number reads better in a file.
    Ok(i64::from_be_bytes(random) & i64::MAX)
}

/// Bytes nobody can guess.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The time part and the random part of a new id.
pub(crate) fn id_parts(now_ms: i64) -> Result<(u64, [u8; 10]), WriteError> {
    let random = random().map_err(|error| WriteError::Unavailable(error.into()))?;
    Ok((u64::try_from(now_ms).unwrap_or(0), random))
}

/// The wall clock. Only opening reads it, to tell how old a left-over file is, and who makes a tenant's first data key.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_url_without_surprises() {
        assert_eq!(sqlite_url(Path::new("/data/t.sqlite")), "sqlite:///data/t.sqlite?mode=rwc");
        assert_eq!(sqlite_url(Path::new("/a b/ü?#%/t")), "sqlite:///a%20b/%C3%BC%3F%23%25/t?mode=rwc");
    }

    #[test]
    fn the_identity_survives_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_identity(folder.path()).unwrap(), None);
        write_identity(folder.path(), 42).unwrap();
        assert_eq!(read_identity(folder.path()).unwrap(), Some(42));
        std::fs::write(folder.path().join(IDENTITY_FILE), "not a number").unwrap();
        assert!(matches!(read_identity(folder.path()), Err(OpenError::Mismatch)));
    }
}
