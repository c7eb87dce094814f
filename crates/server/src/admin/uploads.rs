//! Uploads: bytes on their way to an artefact, and archives on their way to files.

use std::io::Read;

use bytes::Bytes;
use tenantry_store::{AuditEntry, Store, StoredFile, UploadError};
use tenantry_types::limits::MAX_ARCHIVE_FILES;
use tenantry_types::{Action, Digest, ErrorCode, ServiceError, TenantId, TenantName};

use super::ArtefactInfo;
use crate::archive::{self, ArchiveError, ArchiveLimits};
use crate::audit::Deed;
use crate::limits::UploadPermit;
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, auth};

/// How much of an archive's file is handed on at a time, bytes.
const CHUNK_BYTES: usize = 256 << 10;
/// What a single model file is called when the client names none.
const DEFAULT_FILE_NAME: &str = "model.onnx";

/// An upload in progress. Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    inner: tenantry_store::Upload,
    store: Store,
    /// What the audit will say of it.
    entry: AuditEntry,
    _permit: UploadPermit,
}

impl Upload {
    /// Adds bytes at the end, in chunks of any size. After an error the upload is of no use.
    ///
    /// # Errors
    /// 413 beyond the limit; 503 when the disk refuses.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), ServiceError> {
        self.inner.write(chunk).await.map_err(storage)
    }

    /// Makes the artefact visible to its owner, whole, and leaves a record of who brought it.
    ///
    /// # Errors
    /// 404 when its tenant was deleted meanwhile; 503 when the disk refuses.
    pub async fn finish(self) -> Result<ArtefactInfo, ServiceError> {
        let Self { inner, store, mut entry, _permit } = self;
        let artefact = inner.finish().await.map_err(storage)?;
        entry.at_ms = unix_ms();
        entry.object = artefact.digest.to_string();
        entry.detail = format!("{} bytes", artefact.bytes);
        // One that is not recorded is refused: nothing refers to its bytes, and they are swept.
        store.append_audit(&[entry]).await.map_err(storage)?;
        Ok(ArtefactInfo { digest: artefact.digest, bytes: artefact.bytes })
    }
}

impl Server {
    /// Begins an upload. `content_length`: as announced, if it was.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant, 413 for an announced length beyond the limit, 429 beyond the
    /// tenant's uploads at one time.
    pub async fn begin_upload(
        &self,
        principal: &Principal,
        owner: &TenantName,
        content_length: Option<u64>,
    ) -> Result<Upload, ServiceError> {
        let (tenant, permit, entry) = {
            let routing = self.routing.load();
            let tenant = auth::tenant(&routing, principal, owner, Action::VersionWrite)?;
            if content_length.is_some_and(|length| length > self.limits.max_model_bytes) {
                return Err(ServiceError::new(
                    ErrorCode::TooLarge,
                    format!("the upload is larger than the limit of {} bytes", self.limits.max_model_bytes),
                ));
            }
            let entry = Deed::of(tenant, "artefact.upload", "").by(principal, "ok");
            (tenant.id, tenant.gate.begin_upload()?, entry)
        };
        let inner = self.store.begin_upload(tenant, self.limits.max_model_bytes).await.map_err(storage)?;
        Ok(Upload { inner, store: self.store.clone(), entry, _permit: permit })
    }

    /// The files an artefact stands for: itself, or what the archive holds, the model first.
    pub(super) async fn files_of(
        &self,
        tenant: TenantId,
        artefact: Digest,
        filename: &str,
        permit: UploadPermit,
    ) -> Result<Vec<StoredFile>, ServiceError> {
        let bytes = self.store.artefact(tenant, artefact).await.map_err(storage)?.ok_or_else(|| {
            ServiceError::new(ErrorCode::NotFound, format!("artefact {artefact} was not uploaded by this tenant"))
        })?;
        if !archive::is_archive(filename) {
            let name = if filename.is_empty() { Some(DEFAULT_FILE_NAME) } else { archive::plain_name(filename) };
            let name = name.ok_or_else(|| ServiceError::invalid("`filename` is no name for a file"))?;
            return Ok(vec![StoredFile { name: name.to_owned(), digest: artefact, bytes }]);
        }
        let file = self.store.read_artefact(tenant, artefact).await.map_err(storage)?;
        let store = self.store.clone();
        let limits = ArchiveLimits { max_files: MAX_ARCHIVE_FILES, max_bytes: self.limits.max_model_bytes };
        let runtime = tokio::runtime::Handle::current();
        // Reading and decompressing would hold up a thread of the runtime. A later issue moves it into a worker.
        let unpacking = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            unpack(file, limits, |content| runtime.block_on(keep(&store, tenant, limits.max_bytes, content)))
        });
        unpacking.await.map_err(|error| {
            tracing::error!(%error, "an archive could not be read");
            ServiceError::internal()
        })?
    }
}

fn unpack(
    file: impl Read,
    limits: ArchiveLimits,
    keep: impl Fn(&mut dyn Read) -> Result<tenantry_store::Artefact, UploadError>,
) -> Result<Vec<StoredFile>, ServiceError> {
    let reader = std::io::BufReader::with_capacity(CHUNK_BYTES, file);
    let files = archive::read(reader, limits, |_, _, content| keep(content)).map_err(|error| match error {
        ArchiveError::Sink(error) => storage(error),
        refused => ServiceError::invalid(refused.to_string()),
    })?;
    let stored = |(name, artefact): (String, tenantry_store::Artefact)| StoredFile {
        name,
        digest: artefact.digest,
        bytes: artefact.bytes,
    };
    Ok(files.into_iter().map(stored).collect())
}

async fn keep(
    store: &Store,
    tenant: TenantId,
    limit_bytes: u64,
    content: &mut dyn Read,
) -> Result<tenantry_store::Artefact, UploadError> {
    let mut upload = store.begin_upload(tenant, limit_bytes).await?;
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let filled = content.read(&mut chunk)?;
        if filled == 0 {
            return upload.finish().await;
        }
        chunk.truncate(filled);
        upload.write(chunk.into()).await?;
    }
}
