//! Writing files anew under a tenant's newest key, and what there is to say of how files are encrypted.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _};
use tenantry_types::TenantId;

use crate::artefacts::{FilePath, Form, Writer, blocking};
use crate::open::{ARTEFACTS, OPTIMISED};
use crate::seal::format::content_bytes;
use crate::seal::{SealError, Sealed};
use crate::{BackendError, ReadError, Store, Thing, UploadError, WriteError};

/// How the whole store is encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EncryptionSummary {
    /// Whether what is written now is encrypted.
    pub is_on: bool,
    /// What keeps the master key; none without one.
    pub kind: Option<&'static str>,
    /// The master key that wraps now; none if there is none yet.
    pub master_key: Option<String>,
    /// Keys of tenants.
    pub data_keys: u64,
    /// Those of them that another master key wrapped.
    pub behind: u64,
    /// Tenants with keys of more than one generation.
    pub tenants_behind: u64,
    /// Decrypted files in memory.
    pub clear_files: u64,
    /// Their bytes.
    pub clear_bytes: u64,
}

/// How a tenant's files are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SealedFiles {
    /// All.
    pub files: u64,
    /// The length of their contents, bytes.
    pub bytes: u64,
    /// Those that are not encrypted.
    pub plain: u64,
    /// Those that an older generation sealed.
    pub behind: u64,
}

/// What a rekey did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rekeyed {
    /// Files that were written anew.
    pub files: u64,
    /// The length of their contents, bytes.
    pub bytes: u64,
    /// Files that could not be, because they are damaged. They stay as they are, and so do their keys.
    pub damaged: u64,
    /// Old generations that went.
    pub generations_gone: u32,
    /// Old generations that stay, because something is still sealed by them, or just being written.
    pub generations_left: u32,
}

/// A file at its address.
struct Found {
    address: FilePath,
    form: Form,
    bytes: u64,
}

impl Found {
    fn of(meta: &ObjectMeta) -> Option<Self> {
        let (address, form) = FilePath::found(&meta.location);
        // What is no address is not ours.
        address.digest()?;
        let bytes = match form {
            Form::Plain => meta.size,
            Form::Sealed => content_bytes(meta.size).unwrap_or(meta.size),
        };
        Some(Self { address, form, bytes })
    }
}

impl Store {
    /// How the whole store is encrypted.
    pub async fn encryption(&self) -> Result<EncryptionSummary, ReadError> {
        let (clear_bytes, clear_files) = self.clear_bytes();
        let Some(keys) = &self.inner.data_keys else {
            return Ok(EncryptionSummary { clear_files, clear_bytes, ..EncryptionSummary::default() });
        };
        let master_key = keys.encryption.master_key.current().await?;
        let mut snapshot = self.inner.database.read().await?;
        let data_keys: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM data_keys").fetch_one(&mut *snapshot).await?;
        let behind: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM data_keys WHERE master_key <> $1")
            .bind(master_key.clone().unwrap_or_default())
            .fetch_one(&mut *snapshot)
            .await?;
        let tenants_behind: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM (SELECT tenant_id FROM data_keys GROUP BY tenant_id HAVING COUNT(*) > 1) several",
        )
        .fetch_one(&mut *snapshot)
        .await?;
        Ok(EncryptionSummary {
            is_on: keys.encryption.is_on,
            kind: Some(keys.encryption.master_key.kind()),
            master_key,
            data_keys: data_keys.unsigned_abs(),
            behind: behind.unsigned_abs(),
            tenants_behind: tenants_behind.unsigned_abs(),
            clear_files,
            clear_bytes,
        })
    }

    /// How a tenant's files are encrypted.
    pub async fn sealed_files(&self, owner: TenantId) -> Result<SealedFiles, ReadError> {
        let current = self.newest_generation(owner).await?;
        let mut counted = SealedFiles::default();
        for found in self.found(owner).await? {
            counted.files += 1;
            counted.bytes += found.bytes;
            match found.form {
                Form::Plain => counted.plain += 1,
                Form::Sealed => {
                    let is_behind = match self.generation_of(&found.address).await {
                        Ok(generation) => generation != current,
                        // It went meanwhile, or is damaged, which whoever opens it is told.
                        Err(_) => false,
                    };
                    counted.behind += u64::from(is_behind);
                }
            }
        }
        Ok(counted)
    }

    /// Writes every file of a tenant anew that is not sealed by the tenant's newest key, and then removes the older ones.
    /// `progress` is told of how many files and bytes of them all it is through, and of how many there are. It can be stopped
    /// at any time and done again; files can be read and written meanwhile.
    ///
    /// # Errors
    /// [`WriteError::WrongState`] where files are not encrypted; else when keys, database or disk do not do.
    pub async fn rekey(
        &self,
        owner: TenantId,
        mut progress: impl FnMut(SealedFiles, SealedFiles) + Send,
    ) -> Result<Rekeyed, WriteError> {
        if !self.seals() {
            return Err(WriteError::WrongState("files are not encrypted; set `encryption.enabled`".to_owned()));
        }
        let all = self.found(owner).await?;
        let total = SealedFiles {
            files: all.len() as u64,
            bytes: all.iter().map(|found| found.bytes).sum(),
            ..SealedFiles::default()
        };
        let (mut through, mut rekeyed) = (SealedFiles::default(), Rekeyed::default());
        if all.is_empty() && self.newest_generation(owner).await?.is_none() {
            return Ok(rekeyed);
        }
        let current = self.current_data_key(owner).await.map_err(write_error)?.generation;
        for found in &all {
            progress(through, total);
            match self.rekey_file(owner, found, current).await {
                Ok(true) => {
                    rekeyed.files += 1;
                    rekeyed.bytes += found.bytes;
                }
                Ok(false) => {}
                Err(NotRekeyed::Damaged(error)) => {
                    tracing::error!(tenant = %owner, error = &error as &dyn std::error::Error, "a file cannot be rekeyed");
                    rekeyed.damaged += 1;
                }
                Err(NotRekeyed::Failed(error)) => return Err(error),
            }
            through.files += 1;
            through.bytes += found.bytes;
        }
        progress(through, total);
        // Nothing is published meanwhile: what is there now is all there is.
        let _alone = self.inner.removal.write().await;
        let mut in_use = BTreeSet::new();
        for found in self.found(owner).await? {
            match self.generation_of(&found.address).await {
                Ok(generation) => in_use.extend(generation),
                // No key opens it.
                Err(ReadError::Sealed(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let dropped = self.drop_generations(owner, current, &in_use).await?;
        (rekeyed.generations_gone, rekeyed.generations_left) = dropped;
        Ok(rekeyed)
    }

    /// Writes one file anew, if that is needed and it is still there.
    async fn rekey_file(&self, owner: TenantId, found: &Found, current: u32) -> Result<bool, NotRekeyed> {
        let address = &found.address;
        let (file, form) = match self.open_at(address).await {
            Ok(opened) => opened,
            Err(ReadError::NotFound(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut writer = match form {
            Form::Sealed if self.generation_of(address).await? == Some(current) => {
                // What was there before there was encryption may still lie beside it, if a server was killed.
                self.remove(vec![address.at(Form::Plain)]).await.map_err(|error| NotRekeyed::Failed(error.into()))?;
                return Ok(false);
            }
            _ => Writer::begin(self, owner, u64::MAX).await?,
        };
        let taken = match form {
            Form::Plain => writer.take(file).await,
            Form::Sealed => {
                let (reader, _) = self.reader(owner, address, file).await?;
                writer.take(reader).await
            }
        };
        taken?;
        Ok(self.replace(owner, writer, address).await?)
    }

    /// The generation of the key that sealed a file; none if it is not there, sealed.
    async fn generation_of(&self, address: &FilePath) -> Result<Option<u32>, ReadError> {
        match self.open_at(address).await {
            Ok((file, Form::Sealed)) => Ok(Some(blocking(move || Sealed::read(file)).await?.generation)),
            Ok((_, Form::Plain)) | Err(ReadError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The files of a tenant, each address once.
    async fn found(&self, owner: TenantId) -> Result<Vec<Found>, ReadError> {
        let owner = owner.to_string();
        let mut all: Vec<Found> = Vec::new();
        for kind in [ARTEFACTS, OPTIMISED] {
            let files = self.inner.artefacts.list(Some(&Path::from_iter([kind, &owner])));
            let files: Vec<ObjectMeta> =
                files.try_collect().await.map_err(|error| ReadError::Unavailable(error.into()))?;
            all.extend(files.iter().filter_map(Found::of));
        }
        // The sealed one counts where both are there.
        all.sort_unstable_by(|a, b| (&a.address, a.form == Form::Plain).cmp(&(&b.address, b.form == Form::Plain)));
        all.dedup_by(|a, b| a.address == b.address);
        Ok(all)
    }

    /// Whether a generation of a tenant's keys is there.
    pub(crate) async fn key_is_kept(&self, owner: TenantId, generation: u32) -> Result<bool, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let row = sqlx::query("SELECT generation FROM data_keys WHERE tenant_id = $1 AND generation = $2")
            .bind(owner.to_string())
            .bind(i64::from(generation))
            .fetch_optional(&mut *snapshot)
            .await?;
        Ok(row.is_some())
    }
}

/// Why a file was not written anew.
enum NotRekeyed {
    /// It cannot be read, and never will.
    Damaged(ReadError),
    /// Something else does not do now.
    Failed(WriteError),
}

impl From<ReadError> for NotRekeyed {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Sealed(_) | ReadError::NotFound(Thing::DataKey) => Self::Damaged(error),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<UploadError> for NotRekeyed {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Unavailable(BackendError::System(error)) => match error.downcast::<SealError>() {
                Ok(error) => Self::Damaged(error.into()),
                Err(error) => Self::Failed(WriteError::Unavailable(error.into())),
            },
            error => Self::Failed(write_error(error)),
        }
    }
}

fn write_error(error: UploadError) -> WriteError {
    match error {
        UploadError::Unavailable(source) => WriteError::Unavailable(source),
        UploadError::OwnerGone => WriteError::NotFound(Thing::Tenant),
        error => WriteError::WrongState(error.to_string()),
    }
}
