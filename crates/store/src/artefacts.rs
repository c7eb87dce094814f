//! Artefacts: uploaded files and optimised forms, immutable, kept by owner and digest and never shared between owners.
//!
//! `artefacts/OWNER/DIGEST` and `optimised/OWNER/DIGEST OF KEY/DIGEST`. An upload is written under `staging`, hashed on the
//! way, synced, and then renamed to its address: at an address there is all of a file or none of it. The object store is
//! told to sync files and folders, so an acknowledged upload survives a power cut as far as the disk keeps its word.

use std::fs::File;
use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use object_store::path::Path;
use object_store::{GetResultPayload, MultipartUpload, ObjectStore as _, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use tenantry_types::{Digest, TenantId};
use tokio::sync::OwnedSemaphorePermit;

use crate::limits::UPLOAD_PART_BYTES;
use crate::open::{ARTEFACTS, OPTIMISED, STAGING, random};
use crate::records::{Artefact, Optimised, Version};
use crate::{BackendError, ReadError, Store, Thing, UploadError};

/// The address of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FilePath(pub(crate) Path);

impl FilePath {
    pub(crate) fn artefact(owner: TenantId, digest: Digest) -> Self {
        Self(Path::from_iter([ARTEFACTS, &owner.to_string(), &digest.to_string()]))
    }

    /// The content's digest is part of the address: a key made twice may give other bytes, and who loads the first must
    /// not find the second.
    pub(crate) fn optimised(owner: TenantId, key: &str, digest: Digest) -> Self {
        let key = Digest::of(key.as_bytes());
        Self(Path::from_iter([OPTIMISED, &owner.to_string(), &key.to_string(), &digest.to_string()]))
    }

    pub(crate) fn of_version(owner: TenantId, version: &Version) -> Vec<Self> {
        let files = version.files.iter().map(|file| Self::artefact(owner, file.digest));
        let optimised = version.optimised.iter().map(|form| Self::optimised(owner, &form.key, form.digest));
        files.chain(optimised).collect()
    }
}

impl Store {
    /// Begins an upload of at most `limit_bytes`.
    ///
    /// # Errors
    /// [`UploadError::Busy`] at the bound on uploads at one time.
    pub async fn begin_upload(&self, owner: TenantId, limit_bytes: u64) -> Result<Upload, UploadError> {
        let permit = self.inner.uploads.clone().try_acquire_owned().map_err(|_| UploadError::Busy)?;
        Ok(Upload { writer: Writer::begin(self, owner, limit_bytes).await?, _permit: permit })
    }

    /// The length of an owner's artefact in bytes, if it is there.
    pub async fn artefact(&self, owner: TenantId, digest: Digest) -> Result<Option<u64>, ReadError> {
        self.file_bytes(&FilePath::artefact(owner, digest)).await
    }

    /// Whether an optimised form of an owner is there, whole.
    pub(crate) async fn has_optimised(&self, owner: TenantId, form: &Optimised) -> Result<bool, ReadError> {
        let path = FilePath::optimised(owner, &form.key, form.digest);
        Ok(self.file_bytes(&path).await? == Some(form.bytes))
    }

    async fn file_bytes(&self, path: &FilePath) -> Result<Option<u64>, ReadError> {
        match self.inner.artefacts.head(&path.0).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(ReadError::Unavailable(error.into())),
        }
    }

    /// Opens an owner's artefact for reading only. Its bytes stay readable through the file even if it is deleted.
    pub async fn open_artefact(&self, owner: TenantId, digest: Digest) -> Result<File, ReadError> {
        self.open_file(&FilePath::artefact(owner, digest)).await
    }

    /// Opens an optimised form of an owner for reading only, as [`Store::open_artefact`] does.
    pub async fn open_optimised(&self, owner: TenantId, optimised: &Optimised) -> Result<File, ReadError> {
        self.open_file(&FilePath::optimised(owner, &optimised.key, optimised.digest)).await
    }

    async fn open_file(&self, path: &FilePath) -> Result<File, ReadError> {
        match self.inner.artefacts.get(&path.0).await.map(|result| result.payload) {
            Ok(GetResultPayload::File(file, _)) => Ok(file),
            // Only a remote store answers with a stream, and this one is local.
            Ok(GetResultPayload::Stream(_)) => {
                Err(ReadError::Unavailable(io::Error::from(io::ErrorKind::Unsupported).into()))
            }
            Err(object_store::Error::NotFound { .. }) => Err(ReadError::NotFound(Thing::Artefact)),
            Err(error) => Err(ReadError::Unavailable(error.into())),
        }
    }

    /// Keeps the optimised form a worker made, read to its end from `source`, of at most `limit_bytes`.
    ///
    /// `key` says what it was made from and for. Nothing refers to it before [`Store::finish_version`] does.
    pub async fn put_optimised(
        &self,
        owner: TenantId,
        key: &str,
        mut source: impl Read + Send + 'static,
        limit_bytes: u64,
    ) -> Result<Optimised, UploadError> {
        let mut writer = Writer::begin(self, owner, limit_bytes).await?;
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut part = Vec::with_capacity(UPLOAD_PART_BYTES);
                let part_bytes = UPLOAD_PART_BYTES as u64;
                source.by_ref().take(part_bytes).read_to_end(&mut part).map(|_| (part, source))
            });
            let (part, rest) = read.await.map_err(io::Error::other)??;
            source = rest;
            if part.is_empty() {
                break;
            }
            writer.write(part.into()).await?;
        }
        let artefact = writer.finish(|digest| FilePath::optimised(owner, key, digest)).await?;
        Ok(Optimised { digest: artefact.digest, bytes: artefact.bytes, key: key.to_owned() })
    }

    /// Renames to the address. What is there already is the same bytes; it is replaced, so that it counts as new.
    async fn publish(&self, owner: TenantId, aside: &Path, address: &Path) -> Result<(), UploadError> {
        let _shared = self.inner.removal.read().await;
        match self.tenant(owner).await {
            Ok(_) => {}
            Err(ReadError::Unavailable(source)) => return Err(UploadError::Unavailable(source)),
            Err(_) => return Err(UploadError::OwnerGone),
        }
        Ok(self.inner.artefacts.rename(aside, address).await?)
    }

    /// Removes all files of an owner who is gone. The caller holds the removal lock alone.
    pub(crate) async fn remove_files_of(&self, owner: TenantId) -> Result<(), object_store::Error> {
        let owner = owner.to_string();
        for kind in [ARTEFACTS, OPTIMISED] {
            let files = self.inner.artefacts.list(Some(&Path::from_iter([kind, &owner])));
            self.remove(files.map_ok(|file| file.location).try_collect().await?).await?;
        }
        Ok(())
    }

    /// Removes files; one that is gone already is fine.
    pub(crate) async fn remove(&self, files: Vec<Path>) -> Result<(), object_store::Error> {
        let mut removed = self.inner.artefacts.delete_stream(stream::iter(files.into_iter().map(Ok)).boxed());
        while let Some(result) = removed.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Bytes on their way to an address. Dropped before [`Upload::finish`], it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    writer: Writer,
    _permit: OwnedSemaphorePermit,
}

impl Upload {
    /// Takes the next bytes, in chunks of any size. After an error the upload is of no use.
    pub async fn write(&mut self, data: Bytes) -> Result<(), UploadError> {
        self.writer.write(data).await
    }

    /// How many bytes were taken so far.
    pub const fn taken_bytes(&self) -> u64 {
        self.writer.taken_bytes
    }

    /// Makes the bytes visible under their digest. When this returns, they are on the disk.
    ///
    /// # Errors
    /// [`UploadError::OwnerGone`] if the tenant was deleted meanwhile.
    pub async fn finish(self) -> Result<Artefact, UploadError> {
        let owner = self.writer.owner;
        self.writer.finish(|digest| FilePath::artefact(owner, digest)).await
    }
}

/// What uploads and optimised forms have in common: write aside, hash, sync, rename.
#[derive(Debug)]
struct Writer {
    store: Store,
    owner: TenantId,
    limit_bytes: u64,
    taken_bytes: u64,
    /// Gathered until there is a part; never longer than one.
    gathered: BytesMut,
    /// Absent while a part is being hashed, and for good if that was interrupted: then bytes may be missing.
    hasher: Option<Sha256>,
    aside: Path,
    target: Box<dyn MultipartUpload>,
}

impl Writer {
    async fn begin(store: &Store, owner: TenantId, limit_bytes: u64) -> Result<Self, UploadError> {
        let name = u128::from_be_bytes(random()?);
        let aside = Path::from_iter([STAGING, &format!("{name:032x}")]);
        let target = store.inner.artefacts.put_multipart(&aside).await?;
        Ok(Self {
            store: store.clone(),
            owner,
            limit_bytes,
            taken_bytes: 0,
            gathered: BytesMut::new(),
            hasher: Some(Sha256::new()),
            aside,
            target,
        })
    }

    async fn write(&mut self, mut data: Bytes) -> Result<(), UploadError> {
        let taken_bytes = self.taken_bytes.saturating_add(data.len() as u64);
        if taken_bytes > self.limit_bytes {
            return Err(UploadError::TooLarge { limit_bytes: self.limit_bytes });
        }
        self.taken_bytes = taken_bytes;
        while !data.is_empty() {
            let room = UPLOAD_PART_BYTES - self.gathered.len();
            self.gathered.extend_from_slice(&data.split_to(room.min(data.len())));
            if self.gathered.len() == UPLOAD_PART_BYTES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Hashes and writes what was gathered, at the same time and off the runtime's threads.
    async fn flush(&mut self) -> Result<(), UploadError> {
        let mut hasher = self.hasher.take().ok_or_else(interrupted)?;
        let part = self.gathered.split().freeze();
        let writing = self.target.put_part(part.clone().into());
        let hashing = tokio::task::spawn_blocking(move || {
            hasher.update(&part);
            hasher
        });
        let (written, hashed) = future::join(writing, hashing).await;
        written?;
        self.hasher = Some(hashed.map_err(io::Error::other)?);
        Ok(())
    }

    async fn finish(mut self, address: impl FnOnce(Digest) -> FilePath) -> Result<Artefact, UploadError> {
        if !self.gathered.is_empty() {
            self.flush().await?;
        }
        let hasher = self.hasher.take().ok_or_else(interrupted)?;
        let digest = Digest::from_bytes(hasher.finalize().into());
        self.target.complete().await?;
        let published = self.store.publish(self.owner, &self.aside, &address(digest).0).await;
        if published.is_err() {
            // A failure here leaves a file nothing knows of; opening the store clears the staging area.
            let _ = self.store.inner.artefacts.delete(&self.aside).await;
        }
        published.map(|()| Artefact { digest, bytes: self.taken_bytes })
    }
}

fn interrupted() -> UploadError {
    UploadError::Unavailable(BackendError::System(io::Error::other("an earlier part of the upload failed")))
}
