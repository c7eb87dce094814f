//! Removing files nothing refers to: what kills, abandoned uploads and deletions leave over.

use std::collections::HashSet;

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore as _};
use sqlx::AnyConnection;
use tenantry_types::{Digest, TenantId};

use crate::artefacts::{FilePath, Form};
use crate::limits::UNREFERENCED_MS;
use crate::open::{ARTEFACTS, OPTIMISED};
use crate::records::Swept;
use crate::seal::format::content_bytes;
use crate::{BackendError, ReadError, Store, Thing};

impl Store {
    /// Removes artefacts and optimised forms that no version refers to and that are more than a day old at `now_ms`, and
    /// everything of tenants that are gone. Runs when a store is opened; safe to run at any time.
    pub async fn sweep(&self, now_ms: i64) -> Result<Swept, ReadError> {
        let mut swept = Swept::default();
        for kind in [ARTEFACTS, OPTIMISED] {
            let folders =
                self.inner.artefacts.list_with_delimiter(Some(&Path::from(kind))).await.map_err(unavailable)?;
            for folder in folders.common_prefixes {
                // A folder that no tenant's id names is not ours to remove.
                let Some(owner) = folder.filename().and_then(|name| name.parse::<TenantId>().ok()) else { continue };
                self.sweep_folder(&folder, owner, now_ms, &mut swept).await?;
            }
        }
        Ok(swept)
    }

    async fn sweep_folder(
        &self,
        folder: &Path,
        owner: TenantId,
        now_ms: i64,
        swept: &mut Swept,
    ) -> Result<(), ReadError> {
        let _alone = self.inner.removal.write().await;
        let files: Vec<ObjectMeta> =
            self.inner.artefacts.list(Some(folder)).try_collect().await.map_err(unavailable)?;
        let mut snapshot = self.inner.database.read().await?;
        let is_gone = sqlx::query("SELECT id FROM tenants WHERE id = $1")
            .bind(owner.to_string())
            .fetch_optional(&mut *snapshot)
            .await?
            .is_none();
        let referenced = referenced(&mut snapshot, owner).await?;
        drop(snapshot);
        let is_left_over = |file: &ObjectMeta| {
            let is_old = now_ms.saturating_sub(file.last_modified.timestamp_millis()) > UNREFERENCED_MS;
            is_gone || (is_old && !referenced.contains(&FilePath::found(&file.location).0))
        };
        let left_over: Vec<ObjectMeta> = files.into_iter().filter(is_left_over).collect();
        swept.files += left_over.len() as u64;
        swept.bytes += left_over.iter().map(bytes).sum::<u64>();
        self.remove(left_over.into_iter().map(|file| file.location).collect()).await.map_err(unavailable)
    }

    /// Removes those of `files` that no version of their owner refers to any more, whatever their age: who deletes a
    /// model wants its bytes gone. The caller holds the removal lock alone and has committed.
    pub(crate) async fn remove_unreferenced(&self, owner: TenantId, files: Vec<FilePath>) -> Result<(), ReadError> {
        let referenced = referenced(&mut *self.inner.database.read().await?, owner).await?;
        let unreferenced: HashSet<FilePath> = files.into_iter().filter(|file| !referenced.contains(file)).collect();
        let places = unreferenced.iter().flat_map(|file| [file.at(Form::Sealed), file.at(Form::Plain)]);
        self.remove(places.collect()).await.map_err(unavailable)
    }
}

/// The addresses of all files an owner's versions refer to.
async fn referenced(connection: &mut AnyConnection, owner: TenantId) -> Result<HashSet<FilePath>, ReadError> {
    let damaged = |column| move |_| ReadError::Damaged { thing: Thing::Version, column };
    let mut addresses = HashSet::new();
    let digests: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT f.digest FROM version_files f JOIN versions v ON v.id = f.version_id
         JOIN models m ON m.id = v.model_id WHERE m.owner_id = $1",
    )
    .bind(owner.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for digest in digests {
        let digest: Digest = digest.parse().map_err(damaged("digest"))?;
        addresses.insert(FilePath::artefact(owner, digest));
    }
    let forms: Vec<(String, String)> = sqlx::query_as(
        "SELECT v.optimised_key, v.optimised_digest FROM versions v JOIN models m ON m.id = v.model_id
         WHERE m.owner_id = $1 AND v.optimised_digest IS NOT NULL",
    )
    .bind(owner.to_string())
    .fetch_all(&mut *connection)
    .await?;
    for (key, digest) in forms {
        let digest: Digest = digest.parse().map_err(damaged("optimised_digest"))?;
        addresses.insert(FilePath::optimised(owner, &key, digest));
    }
    Ok(addresses)
}

/// The length of a file's content.
fn bytes(file: &ObjectMeta) -> u64 {
    match FilePath::found(&file.location).1 {
        Form::Sealed => content_bytes(file.size).unwrap_or(file.size),
        Form::Plain => file.size,
    }
}

fn unavailable(error: object_store::Error) -> ReadError {
    ReadError::Unavailable(BackendError::Artefacts(error))
}
