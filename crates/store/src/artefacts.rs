//! Artefacts: uploaded files and optimised forms, immutable, kept by owner and digest and never shared between owners.
//!
//! `artefacts/OWNER/DIGEST` and `optimised/OWNER/DIGEST OF KEY/DIGEST`, and behind that `.sealed` where the file is encrypted
//! (module `seal`). The digest is that of the content, encrypted or not. An upload is written under `staging`, hashed and sealed
//! on the way, synced, and then renamed to its address: at an address there is all of a file or none of it. The object store is
//! told to sync files and folders, so an acknowledged upload survives a power cut as far as the disk keeps its word.

use std::io::{self, Read};
use std::sync::{Arc, Weak};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use object_store::path::Path;
use object_store::{GetResultPayload, MultipartUpload, ObjectStore as _, ObjectStoreExt as _, PutPayload, UploadPart};
use sha2::{Digest as _, Sha256};
use tenantry_types::{Digest, TenantId};
use tokio::sync::OwnedSemaphorePermit;

use crate::limits::UPLOAD_PART_BYTES;
use crate::open::{ARTEFACTS, OPTIMISED, STAGING, random};
use crate::records::{Artefact, Optimised, Version};
use crate::seal::format::{SALT_BYTES, TAG_BYTES, content_bytes};
use crate::seal::memory::{self, OpenFile};
use crate::seal::{Reader, SealError, Sealed, Sealer};
use crate::{BackendError, ReadError, Store, Thing, UploadError};

/// What a sealed file's name ends with. No digest does, so no tenant's bytes are ever mistaken for sealed ones.
const SEALED: &str = ".sealed";

/// The address of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FilePath(pub(crate) Path);

/// How a file lies at its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it was uploaded.
    Plain,
    /// Encrypted.
    Sealed,
}

impl FilePath {
    /// Where the file is in this form.
    pub(crate) fn at(&self, form: Form) -> Path {
        match form {
            Form::Plain => self.0.clone(),
            Form::Sealed => Path::from(format!("{}{SEALED}", self.0)),
        }
    }

    /// The address of what was found at a place, and in which form it is there.
    pub(crate) fn found(place: &Path) -> (Self, Form) {
        match place.as_ref().strip_suffix(SEALED) {
            Some(address) => (Self(Path::from(address)), Form::Sealed),
            None => (Self(place.clone()), Form::Plain),
        }
    }

    /// The digest the content must have; none for what is no address.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.0.filename()?.parse().ok()
    }

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
        for form in [Form::Sealed, Form::Plain] {
            match self.inner.artefacts.head(&path.at(form)).await {
                Ok(meta) if form == Form::Sealed => return Ok(content_bytes(meta.size)),
                Ok(meta) => return Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(ReadError::Unavailable(error.into())),
            }
        }
        Ok(None)
    }

    /// Opens an owner's artefact for reading only. Its bytes stay readable through the file even if it is deleted.
    ///
    /// Where files are encrypted it lies in memory, decrypted and checked, once for all who have it open.
    pub async fn open_artefact(&self, owner: TenantId, digest: Digest) -> Result<OpenFile, ReadError> {
        self.open_file(owner, &FilePath::artefact(owner, digest), digest).await
    }

    /// Opens an optimised form of an owner for reading only, as [`Store::open_artefact`] does.
    pub async fn open_optimised(&self, owner: TenantId, optimised: &Optimised) -> Result<OpenFile, ReadError> {
        let path = FilePath::optimised(owner, &optimised.key, optimised.digest);
        self.open_file(owner, &path, optimised.digest).await
    }

    async fn open_file(&self, owner: TenantId, path: &FilePath, digest: Digest) -> Result<OpenFile, ReadError> {
        let (file, form) = self.open_at(path).await?;
        if form == Form::Plain && !self.seals() {
            return Ok(OpenFile::new(Arc::new(file)));
        }
        // Opened before this, so that a file that is gone is not found although somebody still has it in memory.
        let place = self.inner.clear.place(path);
        let mut shared = place.lock().await;
        if let Some(clear) = shared.upgrade() {
            return Ok(OpenFile::new(clear));
        }
        let clear = match form {
            Form::Plain => blocking(move || memory::copy(&file, digest)).await?,
            Form::Sealed => {
                let (reader, bytes) = self.reader(owner, path, file).await?;
                blocking(move || memory::decrypt(reader, bytes, digest)).await?
            }
        };
        let clear = Arc::new(clear);
        *shared = Arc::downgrade(&clear);
        Ok(OpenFile::new(clear))
    }

    /// Opens what is at an address, in whichever form.
    pub(crate) async fn open_at(&self, path: &FilePath) -> Result<(std::fs::File, Form), ReadError> {
        for form in [Form::Sealed, Form::Plain] {
            match self.inner.artefacts.get(&path.at(form)).await.map(|result| result.payload) {
                Ok(GetResultPayload::File(file, _)) => return Ok((file, form)),
                // Only a remote store answers with a stream, and this one is local.
                Ok(GetResultPayload::Stream(_)) => {
                    return Err(ReadError::Unavailable(io::Error::from(io::ErrorKind::Unsupported).into()));
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(ReadError::Unavailable(error.into())),
            }
        }
        Err(ReadError::NotFound(Thing::Artefact))
    }

    /// The content of a sealed file, and its length.
    pub(crate) async fn reader(
        &self,
        owner: TenantId,
        path: &FilePath,
        file: std::fs::File,
    ) -> Result<(Reader, u64), ReadError> {
        let sealed = blocking(move || Sealed::read(file)).await?;
        let bytes = sealed.content_bytes;
        let key = self.data_key(owner, sealed.generation).await?;
        let path = path.clone();
        Ok((blocking(move || sealed.reader(&key, owner, path.0.as_ref())).await?, bytes))
    }

    /// Reads an owner's artefact once, from its beginning to its end, without holding all of it in memory. Of an encrypted one
    /// nothing is given out that was not checked, chunk by chunk; one that was changed further on fails there.
    pub async fn read_artefact(&self, owner: TenantId, digest: Digest) -> Result<Box<dyn Read + Send>, ReadError> {
        let path = FilePath::artefact(owner, digest);
        match self.open_at(&path).await? {
            (file, Form::Sealed) => Ok(Box::new(self.reader(owner, &path, file).await?.0)),
            // From before: whatever lies there is checked before any of it is believed.
            (_, Form::Plain) => Ok(Box::new(self.open_file(owner, &path, digest).await?)),
        }
    }

    /// How many bytes of decrypted files are held in memory, by whomever, and how many files that are.
    pub fn clear_bytes(&self) -> (u64, u64) {
        self.inner.clear.held()
    }

    /// Keeps the optimised form a worker made, read to its end from `source`, of at most `limit_bytes`.
    ///
    /// `key` says what it was made from and for. Nothing refers to it before [`Store::finish_version`] does.
    pub async fn put_optimised(
        &self,
        owner: TenantId,
        key: &str,
        source: impl Read + Send + 'static,
        limit_bytes: u64,
    ) -> Result<Optimised, UploadError> {
        let mut writer = Writer::begin(self, owner, limit_bytes).await?;
        writer.take(source).await?;
        let artefact = writer.finish(|digest| FilePath::optimised(owner, key, digest)).await?;
        Ok(Optimised { digest: artefact.digest, bytes: artefact.bytes, key: key.to_owned() })
    }

    /// Renames to the address. What is there already is the same bytes; it is replaced, so that it counts as new.
    /// `generation`: that of the key it is sealed with, if it is sealed.
    async fn publish(
        &self,
        owner: TenantId,
        aside: &Path,
        address: &FilePath,
        generation: Option<u32>,
    ) -> Result<(), UploadError> {
        let _shared = self.inner.removal.read().await;
        self.rename(owner, aside, address, generation).await
    }

    /// The caller holds the removal lock.
    async fn rename(
        &self,
        owner: TenantId,
        aside: &Path,
        address: &FilePath,
        generation: Option<u32>,
    ) -> Result<(), UploadError> {
        match self.tenant(owner).await {
            Ok(_) => {}
            Err(ReadError::Unavailable(source)) => return Err(UploadError::Unavailable(source)),
            Err(_) => return Err(UploadError::OwnerGone),
        }
        let Some(generation) = generation else {
            return Ok(self.inner.artefacts.rename(aside, &address.at(Form::Plain)).await?);
        };
        // Keys are removed under the lock, alone: what is published now keeps its key.
        match self.key_is_kept(owner, generation).await {
            Ok(true) => {}
            Ok(false) => {
                let gone = io::Error::other("the key it was sealed with went meanwhile");
                return Err(UploadError::Unavailable(BackendError::System(gone)));
            }
            Err(ReadError::Unavailable(source)) => return Err(UploadError::Unavailable(source)),
            Err(error) => return Err(UploadError::Unavailable(io::Error::other(error).into())),
        }
        self.inner.artefacts.rename(aside, &address.at(Form::Sealed)).await?;
        match self.inner.artefacts.delete(&address.at(Form::Plain)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a file that was written anew in the place of what is at its address, unless that went meanwhile. Answers whether
    /// it did so.
    pub(crate) async fn replace(
        &self,
        owner: TenantId,
        writer: Writer,
        address: &FilePath,
    ) -> Result<bool, UploadError> {
        let Finished { artefact, aside, address, generation } = writer.seal(|_| address.clone()).await?;
        // Who deletes holds the lock alone, so that nothing comes back that was deleted.
        let _shared = self.inner.removal.read().await;
        let outcome = match self.file_bytes(&address).await {
            Ok(Some(_)) if Some(artefact.digest) == address.digest() => {
                self.rename(owner, &aside, &address, generation).await.map(|()| true)
            }
            Ok(Some(_)) => Err(SealError::Digest.into()),
            Ok(None) => Ok(false),
            Err(error) => Err(UploadError::Unavailable(io::Error::other(error).into())),
        };
        if !matches!(outcome, Ok(true)) {
            // A failure here leaves a file nothing knows of; opening the store clears the staging area.
            let _ = self.inner.artefacts.delete(&aside).await;
        }
        outcome
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

/// What uploads and optimised forms have in common: write aside, hash, seal, sync, rename.
pub(crate) struct Writer {
    store: Store,
    owner: TenantId,
    limit_bytes: u64,
    taken_bytes: u64,
    /// Gathered until there is a part; never longer than one.
    gathered: BytesMut,
    /// Absent while a part is being worked on, and for good if that was interrupted: then bytes may be missing.
    making: Option<Making>,
    aside: Path,
    target: Box<dyn MultipartUpload>,
    /// The write of the part before, which may run beside the work on the next one.
    writing: Option<UploadPart>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("owner", &self.owner)
            .field("taken_bytes", &self.taken_bytes)
            .finish_non_exhaustive()
    }
}

/// What becomes of a file's bytes on their way to the disk.
#[derive(Debug)]
struct Making {
    hasher: Sha256,
    /// Absent where files are not encrypted.
    sealer: Option<Sealer>,
}

/// A file that is written, aside, and waits for its address.
#[derive(Debug)]
struct Finished {
    artefact: Artefact,
    aside: Path,
    address: FilePath,
    generation: Option<u32>,
}

impl Finished {
    async fn publish(self, store: &Store, owner: TenantId) -> Result<Artefact, UploadError> {
        let published = store.publish(owner, &self.aside, &self.address, self.generation).await;
        if published.is_err() {
            // A failure here leaves a file nothing knows of; opening the store clears the staging area.
            let _ = store.inner.artefacts.delete(&self.aside).await;
        }
        published.map(|()| self.artefact)
    }
}

impl Writer {
    pub(crate) async fn begin(store: &Store, owner: TenantId, limit_bytes: u64) -> Result<Self, UploadError> {
        let sealer = match store.seals() {
            true => Some(Sealer::new(store.current_data_key(owner).await?, owner, random::<SALT_BYTES>()?)?),
            false => None,
        };
        let name = u128::from_be_bytes(random()?);
        let aside = Path::from_iter([STAGING, &format!("{name:032x}")]);
        let mut target = store.inner.artefacts.put_multipart(&aside).await?;
        let writing = sealer.as_ref().map(|sealer| target.put_part(PutPayload::from(sealer.header().to_vec())));
        Ok(Self {
            store: store.clone(),
            owner,
            limit_bytes,
            taken_bytes: 0,
            gathered: BytesMut::new(),
            making: Some(Making { hasher: Sha256::new(), sealer }),
            aside,
            target,
            writing,
        })
    }

    /// Takes everything that is left in `source`.
    pub(crate) async fn take(&mut self, mut source: impl Read + Send + 'static) -> Result<(), UploadError> {
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let mut part = Vec::with_capacity(UPLOAD_PART_BYTES);
                let part_bytes = UPLOAD_PART_BYTES as u64;
                source.by_ref().take(part_bytes).read_to_end(&mut part).map(|_| (part, source))
            });
            let (part, rest) = read.await.map_err(io::Error::other)??;
            source = rest;
            if part.is_empty() {
                return Ok(());
            }
            self.write(part.into()).await?;
        }
    }

    async fn write(&mut self, mut data: Bytes) -> Result<(), UploadError> {
        let taken_bytes = self.taken_bytes.saturating_add(data.len() as u64);
        if taken_bytes > self.limit_bytes {
            return Err(UploadError::TooLarge { limit_bytes: self.limit_bytes });
        }
        self.taken_bytes = taken_bytes;
        while !data.is_empty() {
            // A full part waits until it is known whether another follows: the last one is sealed as such.
            if self.gathered.len() == UPLOAD_PART_BYTES {
                self.flush(false).await?;
            }
            let next = data.split_to((UPLOAD_PART_BYTES - self.gathered.len()).min(data.len()));
            if self.gathered.len() + next.len() > SMALL_PART_BYTES {
                // All of it at once, its tag included, so that nothing is copied again.
                self.gathered.reserve(UPLOAD_PART_BYTES + TAG_BYTES - self.gathered.len());
            }
            self.gathered.extend_from_slice(&next);
        }
        Ok(())
    }

    /// Hashes and seals what was gathered, off the runtime's threads and beside the write of the part before.
    async fn flush(&mut self, is_last: bool) -> Result<(), UploadError> {
        let mut making = self.making.take().ok_or_else(interrupted)?;
        let mut part = std::mem::take(&mut self.gathered);
        let working = tokio::task::spawn_blocking(move || {
            making.hasher.update(&part);
            let sealed = match &mut making.sealer {
                Some(sealer) => sealer.chunk(&mut part, is_last),
                None => Ok(()),
            };
            sealed.map(|()| (making, part))
        });
        let (written, worked) = future::join(self.written(), working).await;
        written?;
        let (making, part) = worked.map_err(io::Error::other)??;
        self.writing = Some(self.target.put_part(part.freeze().into()));
        self.making = Some(making);
        Ok(())
    }

    /// Waits until what was given to the disk is there.
    fn written(&mut self) -> impl Future<Output = Result<(), object_store::Error>> + use<> {
        let writing = self.writing.take();
        async move {
            match writing {
                Some(writing) => writing.await,
                None => Ok(()),
            }
        }
    }

    /// Writes the rest and ends the file, under the address its digest gives it.
    async fn seal(mut self, address: impl FnOnce(Digest) -> FilePath) -> Result<Finished, UploadError> {
        // An empty file has one chunk as well, or it could be cut to nothing.
        let is_sealed = self.making.as_ref().is_some_and(|making| making.sealer.is_some());
        if is_sealed || !self.gathered.is_empty() {
            self.flush(true).await?;
        }
        let Making { hasher, sealer } = self.making.take().ok_or_else(interrupted)?;
        let digest = Digest::from_bytes(hasher.finalize().into());
        let address = address(digest);
        self.written().await?;
        let generation = sealer.as_ref().map(Sealer::generation);
        if let Some(sealer) = sealer {
            let end = sealer.end(address.0.as_ref(), self.taken_bytes)?;
            self.target.put_part(PutPayload::from(end.to_vec())).await?;
        }
        self.target.complete().await?;
        let artefact = Artefact { digest, bytes: self.taken_bytes };
        Ok(Finished { artefact, aside: self.aside.clone(), address, generation })
    }

    async fn finish(self, address: impl FnOnce(Digest) -> FilePath) -> Result<Artefact, UploadError> {
        let (store, owner) = (self.store.clone(), self.owner);
        self.seal(address).await?.publish(&store, owner).await
    }
}

/// Decrypted files that somebody holds, by address. Those that nobody does are not in memory any more.
#[derive(Debug, Default)]
pub(crate) struct ClearFiles {
    places: parking_lot::Mutex<std::collections::HashMap<Path, Arc<Place>>>,
}

/// Held by whoever decrypts the file, so that others wait for it and do not do the same.
type Place = tokio::sync::Mutex<Weak<std::fs::File>>;

impl ClearFiles {
    fn place(&self, path: &FilePath) -> Arc<Place> {
        let mut places = self.places.lock();
        if !places.contains_key(&path.0) {
            places.retain(|_, place| {
                Arc::strong_count(place) > 1 || place.try_lock().is_ok_and(|file| file.strong_count() > 0)
            });
        }
        Arc::clone(places.entry(path.0.clone()).or_default())
    }

    fn held(&self) -> (u64, u64) {
        let places: Vec<Arc<Place>> = self.places.lock().values().cloned().collect();
        let files = places.iter().filter_map(|place| place.try_lock().ok()?.upgrade());
        let lengths = files.filter_map(|file| file.metadata().ok().map(|metadata| metadata.len()));
        lengths.fold((0, 0), |(bytes, files), length| (bytes + length, files + 1))
    }
}

/// A part that grows beyond this gets the memory of a whole one.
const SMALL_PART_BYTES: usize = 64 << 10;

/// Works with a file off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SealError> + Send + 'static,
) -> Result<T, ReadError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.unwrap_or_else(|error| Err(SealError::Io(io::Error::other(error))))?)
}

fn interrupted() -> UploadError {
    UploadError::Unavailable(BackendError::System(io::Error::other("an earlier part of the upload failed")))
}
