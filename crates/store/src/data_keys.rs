//! The tenants' data keys: made, wrapped, kept in SQL, unwrapped once and remembered while the server runs.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use sqlx::{AnyConnection, Row as _};
use tenantry_types::TenantId;
use tokio::sync::RwLock;

use crate::database::is_taken;
use crate::limits::{MAX_CACHED_DATA_KEYS, MAX_KEY_GENERATIONS};
use crate::master::{MasterKey, MasterKeyError, SecretKey, WrappedKey};
use crate::rows::Row;
use crate::{BackendError, ReadError, Store, Thing, UploadError, WriteError};

/// How files are encrypted.
#[derive(Debug, Clone)]
pub struct Encryption {
    /// What wraps the tenants' keys.
    pub master_key: Arc<dyn MasterKey>,
    /// Whether files are encrypted from now on. Those that are stay readable either way.
    pub is_on: bool,
}

/// A tenant's key of one generation.
pub(crate) struct DataKey {
    pub(crate) generation: u32,
    pub(crate) secret: SecretKey,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A generation of a tenant's keys, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyGeneration {
    /// Counted from 1; the newest seals what is written.
    pub generation: u32,
    /// Which master key wrapped it.
    pub master_key: String,
    /// When it was made, milliseconds since the Unix epoch.
    pub created_ms: i64,
}

/// What a store knows of keys while it is open.
#[derive(Debug)]
pub(crate) struct DataKeys {
    pub(crate) encryption: Encryption,
    /// Unwrapped ones.
    known: Mutex<HashMap<(TenantId, u32), Arc<DataKey>>>,
    /// Held shared from wrapping a key to its row, and alone by whoever lets old master keys go: no key is kept that was
    /// wrapped by one that is gone.
    pub(crate) wrapping: RwLock<()>,
}

impl DataKeys {
    pub(crate) fn new(encryption: Encryption) -> Self {
        Self { encryption, known: Mutex::default(), wrapping: RwLock::new(()) }
    }

    fn remember(&self, owner: TenantId, key: DataKey) -> Arc<DataKey> {
        let mut known = self.known.lock();
        if known.len() >= MAX_CACHED_DATA_KEYS {
            // Whoever uses one holds it; the others are unwrapped again when they are needed.
            known.clear();
        }
        Arc::clone(known.entry((owner, key.generation)).or_insert_with(|| Arc::new(key)))
    }

    /// Forgets a tenant's keys.
    pub(crate) fn forget(&self, owner: TenantId) {
        self.known.lock().retain(|(of, _), _| *of != owner);
    }

    /// Forgets one, unless something is written or read with it.
    fn forget_unused(&self, owner: TenantId, generation: u32) -> bool {
        let mut known = self.known.lock();
        let is_used = known.get(&(owner, generation)).is_some_and(|key| Arc::strong_count(key) > 1);
        if !is_used {
            known.remove(&(owner, generation));
        }
        !is_used
    }
}

/// What a wrapped key is bound to.
fn context(owner: TenantId, generation: u32) -> Vec<u8> {
    format!("tenantry data key\0{owner}\0{generation}").into_bytes()
}

impl From<MasterKeyError> for ReadError {
    fn from(error: MasterKeyError) -> Self {
        Self::Unavailable(BackendError::MasterKey(error))
    }
}

impl From<MasterKeyError> for WriteError {
    fn from(error: MasterKeyError) -> Self {
        Self::Unavailable(BackendError::MasterKey(error))
    }
}

impl From<MasterKeyError> for UploadError {
    fn from(error: MasterKeyError) -> Self {
        Self::Unavailable(BackendError::MasterKey(error))
    }
}

impl Store {
    pub(crate) fn data_keys(&self) -> Result<&DataKeys, MasterKeyError> {
        self.inner.data_keys.as_ref().ok_or(MasterKeyError::NotConfigured)
    }

    /// Whether what is written now is sealed.
    pub(crate) fn seals(&self) -> bool {
        self.inner.data_keys.as_ref().is_some_and(|keys| keys.encryption.is_on)
    }

    /// A tenant's key of one generation.
    pub(crate) async fn data_key(&self, owner: TenantId, generation: u32) -> Result<Arc<DataKey>, ReadError> {
        let keys = self.data_keys()?;
        if let Some(key) = keys.known.lock().get(&(owner, generation)) {
            return Ok(Arc::clone(key));
        }
        let mut snapshot = self.inner.database.read().await?;
        let row = sqlx::query("SELECT master_key, wrapped FROM data_keys WHERE tenant_id = $1 AND generation = $2")
            .bind(owner.to_string())
            .bind(i64::from(generation))
            .fetch_optional(&mut *snapshot)
            .await?;
        drop(snapshot);
        let row = row.ok_or(ReadError::NotFound(Thing::DataKey))?;
        let row = Row::new(&row, Thing::DataKey);
        let wrapped = WrappedKey { master_key: row.text("master_key")?, text: row.text("wrapped")? };
        let secret = keys.encryption.master_key.unwrap(&wrapped, &context(owner, generation)).await?;
        Ok(keys.remember(owner, DataKey { generation, secret }))
    }

    /// A tenant's newest key; its first one is made here.
    pub(crate) async fn current_data_key(&self, owner: TenantId) -> Result<Arc<DataKey>, UploadError> {
        let newest = self.newest_generation(owner).await.map_err(upload_error)?;
        let generation = match newest {
            Some(generation) => generation,
            None => self.first_data_key(owner).await?,
        };
        self.data_key(owner, generation).await.map_err(upload_error)
    }

    pub(crate) async fn newest_generation(&self, owner: TenantId) -> Result<Option<u32>, ReadError> {
        newest(&mut *self.inner.database.read().await?, owner).await
    }

    /// Makes the first key of a tenant, unless somebody else just did.
    async fn first_data_key(&self, owner: TenantId) -> Result<u32, UploadError> {
        match self.tenant(owner).await {
            Ok(_) => {}
            Err(ReadError::NotFound(_)) => return Err(UploadError::OwnerGone),
            Err(error) => return Err(upload_error(error)),
        }
        let keys = self.data_keys()?;
        let _wrapping = keys.wrapping.read().await;
        let secret = SecretKey::random()?;
        let wrapped = keys.encryption.master_key.wrap(&secret, &context(owner, 1)).await?;
        let mut append = self.inner.database.append().await.map_err(database)?;
        match insert(&mut append, owner, 1, &wrapped, crate::open::unix_ms()).await {
            Ok(()) => {
                append.commit().await.map_err(database)?;
                keys.remember(owner, DataKey { generation: 1, secret });
                Ok(1)
            }
            Err(error) if is_taken(&error) => Ok(1),
            Err(error) => Err(database(error)),
        }
    }

    /// Makes a new generation of a tenant's keys: what is written from now on is sealed by it. What was written before stays
    /// readable, and is sealed by it after [`Store::rekey`].
    ///
    /// # Errors
    /// [`WriteError::LimitReached`] at the bound on generations, [`WriteError::Conflict`] if somebody else did the same
    /// meanwhile.
    pub async fn rotate_data_key(&self, owner: TenantId, now_ms: i64) -> Result<u32, WriteError> {
        let keys = self.data_keys()?;
        let before = self.newest_generation(owner).await?;
        let generation = before.unwrap_or(0).checked_add(1).ok_or(WriteError::LimitReached {
            things: "generations of the tenant's data keys",
            limit: MAX_KEY_GENERATIONS,
        })?;
        let _wrapping = keys.wrapping.read().await;
        let secret = SecretKey::random()?;
        let wrapped = keys.encryption.master_key.wrap(&secret, &context(owner, generation)).await?;
        let mut write = self.write().await?;
        let connection = write.connection();
        let found = sqlx::query("SELECT id FROM tenants WHERE id = $1").bind(owner.to_string());
        if found.fetch_optional(&mut *connection).await?.is_none() {
            return Err(WriteError::NotFound(Thing::Tenant));
        }
        if newest(&mut *connection, owner).await? != before {
            let generation = u64::from(before.unwrap_or(0)) + 1;
            return Err(WriteError::Conflict { thing: Thing::DataKey, generation });
        }
        let query = "SELECT COUNT(*) FROM data_keys WHERE tenant_id = $1";
        if crate::database::count(&mut *connection, query, &owner.to_string()).await? >= MAX_KEY_GENERATIONS {
            return Err(WriteError::LimitReached {
                things: "generations of the tenant's data keys, which a rekey removes,",
                limit: MAX_KEY_GENERATIONS,
            });
        }
        insert(&mut *connection, owner, generation, &wrapped, now_ms).await?;
        write.tell(|entry| entry.detail = format!("generation {generation}"));
        write.commit().await?;
        keys.remember(owner, DataKey { generation, secret });
        Ok(generation)
    }

    /// The generations of a tenant's keys, oldest first.
    pub async fn key_generations(&self, owner: TenantId) -> Result<Vec<KeyGeneration>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query(
            "SELECT generation, master_key, created_ms FROM data_keys WHERE tenant_id = $1 ORDER BY generation",
        )
        .bind(owner.to_string())
        .fetch_all(&mut *snapshot)
        .await?;
        let generation = |row| {
            let row = Row::new(row, Thing::DataKey);
            Ok(KeyGeneration {
                generation: row.unsigned("generation")?,
                master_key: row.text("master_key")?,
                created_ms: row.number("created_ms")?,
            })
        };
        rows.iter().map(generation).collect()
    }

    /// Removes a tenant's generations before `current` but those in `in_use` and those that something is written with. The
    /// caller holds the removal lock alone, so that no file is published meanwhile. Answers how many went and how many stay.
    pub(crate) async fn drop_generations(
        &self,
        owner: TenantId,
        current: u32,
        in_use: &std::collections::BTreeSet<u32>,
    ) -> Result<(u32, u32), WriteError> {
        let keys = self.data_keys()?;
        let (mut gone, mut left) = (0, 0);
        for KeyGeneration { generation, .. } in self.key_generations(owner).await? {
            if generation >= current {
                continue;
            }
            if in_use.contains(&generation) || !keys.forget_unused(owner, generation) {
                left += 1;
                continue;
            }
            let mut append = self.inner.database.append().await?;
            sqlx::query("DELETE FROM data_keys WHERE tenant_id = $1 AND generation = $2")
                .bind(owner.to_string())
                .bind(i64::from(generation))
                .execute(&mut *append)
                .await?;
            append.commit().await?;
            gone += 1;
        }
        if gone > 0 {
            self.inner.database.forget_deleted().await;
        }
        Ok((gone, left))
    }

    /// Checks, for each master key that wrapped something, that the configured one unwraps it.
    pub(crate) async fn check_master_key(&self) -> Result<(), ReadError> {
        let Some(keys) = &self.inner.data_keys else { return Ok(()) };
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query(
            "SELECT k.tenant_id, k.generation, k.master_key, k.wrapped FROM data_keys k
             JOIN (SELECT master_key, MIN(tenant_id) AS tenant_id FROM data_keys GROUP BY master_key) one
               ON one.master_key = k.master_key AND one.tenant_id = k.tenant_id
             ORDER BY k.master_key, k.generation",
        )
        .fetch_all(&mut *snapshot)
        .await?;
        drop(snapshot);
        for row in &rows {
            let (owner, generation, wrapped) = wrapped_row(&Row::new(row, Thing::DataKey))?;
            keys.encryption.master_key.unwrap(&wrapped, &context(owner, generation)).await?;
        }
        Ok(())
    }

    /// Has the master key wrap anew what older ones wrapped, and then lets those go. `progress` is told how many were and how
    /// many there are to do.
    pub async fn rewrap(&self, mut progress: impl FnMut(u64, u64) + Send) -> Result<u64, WriteError> {
        let keys = self.data_keys()?;
        let master_key = &keys.encryption.master_key;
        let Some(current) = master_key.current().await? else { return Ok(0) };
        let mut done = 0;
        loop {
            let mut snapshot = self.inner.database.read().await?;
            let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM data_keys WHERE master_key <> $1")
                .bind(&current)
                .fetch_one(&mut *snapshot)
                .await?;
            let rows = sqlx::query(
                "SELECT tenant_id, generation, master_key, wrapped FROM data_keys WHERE master_key <> $1
                 ORDER BY tenant_id, generation LIMIT $2",
            )
            .bind(&current)
            .bind(REWRAP_ROWS)
            .fetch_all(&mut *snapshot)
            .await?;
            drop(snapshot);
            progress(done, done + left.unsigned_abs());
            if rows.is_empty() {
                break;
            }
            let _wrapping = keys.wrapping.read().await;
            let mut rewrapped = Vec::with_capacity(rows.len());
            for row in &rows {
                let (owner, generation, wrapped) = wrapped_row(&Row::new(row, Thing::DataKey))?;
                let context = context(owner, generation);
                let secret = master_key.unwrap(&wrapped, &context).await?;
                rewrapped.push((owner, generation, wrapped, master_key.wrap(&secret, &context).await?));
            }
            let mut append = self.inner.database.append().await?;
            for (owner, generation, old, new) in &rewrapped {
                // One that changed or went meanwhile is not ours any more.
                sqlx::query(
                    "UPDATE data_keys SET master_key = $1, wrapped = $2
                     WHERE tenant_id = $3 AND generation = $4 AND wrapped = $5",
                )
                .bind(&new.master_key)
                .bind(&new.text)
                .bind(owner.to_string())
                .bind(i64::from(*generation))
                .bind(&old.text)
                .execute(&mut *append)
                .await?;
            }
            append.commit().await?;
            done += rewrapped.len() as u64;
            if rewrapped.iter().any(|(.., new)| new.master_key != current) {
                // It was rotated again meanwhile; whoever did that goes on.
                return Ok(done);
            }
        }
        let _alone = keys.wrapping.write().await;
        let mut snapshot = self.inner.database.read().await?;
        let left: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM data_keys WHERE master_key <> $1")
            .bind(&current)
            .fetch_one(&mut *snapshot)
            .await?;
        drop(snapshot);
        if left == 0 && master_key.current().await?.as_deref() == Some(current.as_str()) {
            master_key.forget_older().await?;
        }
        self.inner.database.forget_deleted().await;
        Ok(done)
    }

    /// Has the master key rotate: from now on it wraps with a new one, where it can make one. [`Store::rewrap`] does the rest.
    pub async fn rotate_master_key(&self) -> Result<Option<String>, WriteError> {
        let keys = self.data_keys()?;
        keys.encryption.master_key.rotate().await?;
        Ok(keys.encryption.master_key.current().await?)
    }
}

/// How many keys are wrapped anew in one transaction.
const REWRAP_ROWS: i64 = 128;

fn wrapped_row(row: &Row<'_>) -> Result<(TenantId, u32, WrappedKey), ReadError> {
    let wrapped = WrappedKey { master_key: row.text("master_key")?, text: row.text("wrapped")? };
    Ok((row.parsed("tenant_id")?, row.unsigned("generation")?, wrapped))
}

async fn newest(connection: &mut AnyConnection, owner: TenantId) -> Result<Option<u32>, ReadError> {
    let row = sqlx::query("SELECT MAX(generation) AS newest FROM data_keys WHERE tenant_id = $1")
        .bind(owner.to_string())
        .fetch_one(connection)
        .await?;
    let newest: Option<i64> = row.try_get("newest")?;
    let damaged = |_| ReadError::Damaged { thing: Thing::DataKey, column: "generation" };
    newest.map(|newest| u32::try_from(newest).map_err(damaged)).transpose()
}

async fn insert(
    connection: &mut AnyConnection,
    owner: TenantId,
    generation: u32,
    wrapped: &WrappedKey,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO data_keys (tenant_id, generation, master_key, wrapped, created_ms) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(owner.to_string())
    .bind(i64::from(generation))
    .bind(&wrapped.master_key)
    .bind(&wrapped.text)
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(())
}

fn database(error: sqlx::Error) -> UploadError {
    UploadError::Unavailable(error.into())
}

/// What went wrong with a key, for who writes a file.
fn upload_error(error: ReadError) -> UploadError {
    match error {
        ReadError::Unavailable(source) => UploadError::Unavailable(source),
        error => UploadError::Unavailable(BackendError::System(std::io::Error::other(error))),
    }
}
