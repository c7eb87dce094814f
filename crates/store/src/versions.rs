//! Versions: immutable once created, but for what registration finds out about them.

use sqlx::AnyConnection;
use tenantry_types::error::sanitise;
use tenantry_types::limits::MAX_ENGINE_MESSAGE_CHARS;
use tenantry_types::model::Registration;
use tenantry_types::{ModelId, TenantId, VersionId};

use crate::artefacts::FilePath;
use crate::database::count;
use crate::limits::MAX_VERSIONS_PER_MODEL;
use crate::open::id_parts;
use crate::records::{NewVersion, Optimised, Version, VersionState};
use crate::{ReadError, Store, Thing, WriteError, check, deployments, models, rows};

impl Store {
    /// Creates the next version of a model in the state [`VersionState::Registering`].
    ///
    /// # Errors
    /// [`WriteError::Invalid`] if a file was not uploaded for the model's owner, or has another length.
    pub async fn create_version(&self, model: ModelId, new: NewVersion, now_ms: i64) -> Result<Version, WriteError> {
        check::version(&new)?;
        let (time, random) = id_parts(now_ms)?;
        let _shared = self.inner.removal.read().await;
        let mut write = self.write().await?;
        let connection = write.connection();
        let owner = models::find(connection, model).await?.owner;
        for file in &new.files {
            if self.artefact(owner, file.digest).await? != Some(file.bytes) {
                return Err(WriteError::Invalid(format!("the file `{}` was not uploaded; upload it again", file.name)));
            }
        }
        let there = count(connection, "SELECT COUNT(*) FROM versions WHERE model_id = $1", &model.to_string()).await?;
        if there >= MAX_VERSIONS_PER_MODEL {
            return Err(WriteError::LimitReached { things: "versions", limit: MAX_VERSIONS_PER_MODEL });
        }
        let version = Version {
            id: VersionId::from_parts(time, random),
            model,
            number: take_number(connection, model).await?,
            digest: check::file_list_digest(&new.files),
            files: new.files,
            description: new.description,
            tags: new.tags,
            quality: new.quality,
            settings: new.settings,
            deploy: new.deploy,
            state: VersionState::Registering,
            registration: None,
            optimised: None,
            created_ms: now_ms,
        };
        insert(connection, &version).await?;
        write.tell(|entry| entry.object = format!("{}:{}", entry.object, version.number));
        write.commit().await?;
        Ok(version)
    }

    /// A version by its id.
    pub async fn version(&self, id: VersionId) -> Result<Version, ReadError> {
        find(&mut *self.inner.database.read().await?, id).await
    }

    /// A version by its number.
    pub async fn version_by_number(&self, model: ModelId, number: u32) -> Result<Version, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let id = id_of(&mut snapshot, model, number).await?;
        find(&mut snapshot, id).await
    }

    /// The versions of a model by number.
    pub async fn versions(&self, model: ModelId) -> Result<Vec<Version>, ReadError> {
        list(&mut *self.inner.database.read().await?, model).await
    }

    /// Makes a registering version ready and, if it was created to be deployed, the one that serves, in one transaction.
    ///
    /// A deployment never goes back by itself: a version whose registration took longer than that of a newer, already
    /// deployed one is ready but not deployed.
    ///
    /// The engine may write other bytes for the same key each time. So that versions made from the same file share one
    /// form on the disk and its pages in memory, a version gets the form of its key that another version of the owner
    /// has, if there is one; `made` is then removed again. What it got is in the answer.
    ///
    /// # Errors
    /// [`WriteError::WrongState`] if the version is not registering (any more); [`WriteError::NotFound`] if `made` is
    /// not there (any more).
    pub async fn finish_version(
        &self,
        id: VersionId,
        registration: &Registration,
        made: Option<&Optimised>,
    ) -> Result<Version, WriteError> {
        let shared = self.inner.removal.read().await;
        let mut write = self.write().await?;
        let connection = write.connection();
        let mut version = find_registering(connection, id).await?;
        let owner = models::find(connection, version.model).await?.owner;
        version.state = VersionState::Ready;
        version.registration = Some(registration.clone());
        version.optimised = match made {
            Some(made) => Some(self.form_to_refer_to(connection, owner, made).await?),
            None => None,
        };
        let optimised = version.optimised.as_ref();
        let bytes = optimised.map(|optimised| i64::try_from(optimised.bytes).unwrap_or(i64::MAX));
        sqlx::query(
            "UPDATE versions SET state = 'ready', registration = $1, optimised_key = $2, optimised_digest = $3,
                 optimised_bytes = $4, search_text = $5
             WHERE id = $6",
        )
        .bind(json(registration)?)
        .bind(optimised.map(|optimised| optimised.key.clone()))
        .bind(optimised.map(|optimised| optimised.digest.to_string()))
        .bind(bytes)
        .bind(search_text(&version))
        .bind(id.to_string())
        .execute(&mut *connection)
        .await?;
        if version.deploy {
            deployments::advance(connection, version.model, version.number).await?;
        }
        write.commit().await?;
        drop(shared);
        if let Some(made) = made.filter(|made| version.optimised.as_ref() != Some(made)) {
            self.remove_unused_form(owner, made).await;
        }
        Ok(version)
    }

    /// The form of the same key that a version of the owner refers to already, or else the one just made. The caller
    /// holds the removal lock, so that what is there now is there when the row names it.
    async fn form_to_refer_to(
        &self,
        connection: &mut AnyConnection,
        owner: TenantId,
        made: &Optimised,
    ) -> Result<Optimised, WriteError> {
        for form in forms(connection, owner, &made.key).await?.into_iter().chain([made.clone()]) {
            if self.has_optimised(owner, &form).await? {
                return Ok(form);
            }
        }
        Err(WriteError::NotFound(Thing::Artefact))
    }

    /// Best effort: what stays here is removed by a later sweep, as after a kill.
    async fn remove_unused_form(&self, owner: TenantId, form: &Optimised) {
        let _alone = self.inner.removal.write().await;
        let file = FilePath::optimised(owner, &form.key, form.digest);
        if let Err(error) = self.remove_unreferenced(owner, vec![file]).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "an optimised form of no use was not removed");
        }
    }

    /// Marks a registering version as one the engine would not have. The reason is capped and made fit to show.
    ///
    /// # Errors
    /// [`WriteError::WrongState`] if the version is not registering (any more).
    pub async fn refuse_version(&self, id: VersionId, reason: &str) -> Result<Version, WriteError> {
        let mut write = self.write().await?;
        let connection = write.connection();
        let mut version = find_registering(connection, id).await?;
        let reason = sanitise(reason, MAX_ENGINE_MESSAGE_CHARS);
        sqlx::query("UPDATE versions SET state = 'refused', refusal = $1 WHERE id = $2")
            .bind(reason.as_str())
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        version.state = VersionState::Refused { reason };
        write.commit().await?;
        Ok(version)
    }

    /// Deletes a version and the files nothing else of its owner refers to.
    ///
    /// # Errors
    /// [`WriteError::WrongState`] while the deployment or an alias names it.
    pub async fn delete_version(&self, id: VersionId) -> Result<(), WriteError> {
        let _alone = self.inner.removal.write().await;
        let mut write = self.write().await?;
        let connection = write.connection();
        let version = find(connection, id).await?;
        let owner = models::find(connection, version.model).await?.owner;
        deployments::check_unused(connection, version.model, version.number).await?;
        sqlx::query("DELETE FROM versions WHERE id = $1").bind(id.to_string()).execute(&mut *connection).await?;
        write.commit().await?;
        Ok(self.remove_unreferenced(owner, FilePath::of_version(owner, &version)).await?)
    }
}

/// The optimised forms of a key that an owner's versions refer to. More than one only where files were lost.
async fn forms(connection: &mut AnyConnection, owner: TenantId, key: &str) -> Result<Vec<Optimised>, ReadError> {
    let found: Vec<(String, i64)> = sqlx::query_as(
        "SELECT DISTINCT v.optimised_digest, v.optimised_bytes FROM versions v JOIN models m ON m.id = v.model_id
         WHERE m.owner_id = $1 AND v.optimised_key = $2",
    )
    .bind(owner.to_string())
    .bind(key)
    .fetch_all(connection)
    .await?;
    let damaged = |column| ReadError::Damaged { thing: Thing::Version, column };
    let form = |(digest, bytes): (String, i64)| {
        Ok(Optimised {
            digest: digest.parse().map_err(|_| damaged("optimised_digest"))?,
            bytes: u64::try_from(bytes).map_err(|_| damaged("optimised_bytes"))?,
            key: key.to_owned(),
        })
    };
    found.into_iter().map(form).collect()
}

/// The next number of a model, which is then never given again.
async fn take_number(connection: &mut AnyConnection, model: ModelId) -> Result<u32, WriteError> {
    let number: i64 = sqlx::query_scalar("SELECT next_version FROM models WHERE id = $1")
        .bind(model.to_string())
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query("UPDATE models SET next_version = next_version + 1 WHERE id = $1")
        .bind(model.to_string())
        .execute(connection)
        .await?;
    u32::try_from(number).map_err(|_| WriteError::Damaged { thing: Thing::Model, column: "next_version" })
}

async fn insert(connection: &mut AnyConnection, version: &Version) -> Result<(), WriteError> {
    sqlx::query(
        "INSERT INTO versions (id, model_id, number, digest, description, tags, quality, settings, deploy, state,
             search_text, created_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'registering', $10, $11)",
    )
    .bind(version.id.to_string())
    .bind(version.model.to_string())
    .bind(i64::from(version.number))
    .bind(version.digest.to_string())
    .bind(version.description.as_str())
    .bind(json(&version.tags)?)
    .bind(json(&version.quality)?)
    .bind(json(&version.settings)?)
    .bind(i64::from(version.deploy))
    .bind(search_text(version))
    .bind(version.created_ms)
    .execute(&mut *connection)
    .await?;
    for (position, file) in (0_i64..).zip(&version.files) {
        let bytes = i64::try_from(file.bytes).map_err(|_| WriteError::Invalid("a file is too large".to_owned()))?;
        sqlx::query(
            "INSERT INTO version_files (version_id, position, name, digest, bytes) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(version.id.to_string())
        .bind(position)
        .bind(file.name.as_str())
        .bind(file.digest.to_string())
        .bind(bytes)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn find(connection: &mut AnyConnection, id: VersionId) -> Result<Version, ReadError> {
    let row = sqlx::query("SELECT * FROM versions WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(ReadError::NotFound(Thing::Version))?;
    let files = sqlx::query("SELECT * FROM version_files WHERE version_id = $1 ORDER BY position")
        .bind(id.to_string())
        .fetch_all(&mut *connection)
        .await?;
    rows::version(&row, &mut rows::files(&files)?)
}

async fn find_registering(connection: &mut AnyConnection, id: VersionId) -> Result<Version, WriteError> {
    let version = find(connection, id).await?;
    match version.state {
        VersionState::Registering => Ok(version),
        VersionState::Ready => Err(WriteError::WrongState("the version is registered already".to_owned())),
        VersionState::Refused { .. } => Err(WriteError::WrongState("the version was refused already".to_owned())),
    }
}

async fn id_of(connection: &mut AnyConnection, model: ModelId, number: u32) -> Result<VersionId, ReadError> {
    let id: Option<String> = sqlx::query_scalar("SELECT id FROM versions WHERE model_id = $1 AND number = $2")
        .bind(model.to_string())
        .bind(i64::from(number))
        .fetch_optional(connection)
        .await?;
    let id = id.ok_or(ReadError::NotFound(Thing::Version))?;
    id.parse().map_err(|_| ReadError::Damaged { thing: Thing::Version, column: "id" })
}

/// A version by its number, for other modules' checks inside their transaction.
pub(crate) async fn find_by_number(
    connection: &mut AnyConnection,
    model: ModelId,
    number: u32,
) -> Result<Version, ReadError> {
    let id = id_of(connection, model, number).await?;
    find(connection, id).await
}

/// The versions of a model by number.
pub(crate) async fn list(connection: &mut AnyConnection, model: ModelId) -> Result<Vec<Version>, ReadError> {
    let rows = sqlx::query("SELECT * FROM versions WHERE model_id = $1 ORDER BY number")
        .bind(model.to_string())
        .fetch_all(&mut *connection)
        .await?;
    let files = sqlx::query(
        "SELECT f.* FROM version_files f JOIN versions v ON v.id = f.version_id WHERE v.model_id = $1
         ORDER BY f.version_id, f.position",
    )
    .bind(model.to_string())
    .fetch_all(&mut *connection)
    .await?;
    let mut files = rows::files(&files)?;
    rows.iter().map(|row| rows::version(row, &mut files)).collect()
}

/// A value as the text of a column.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Result<String, WriteError> {
    serde_json::to_string(value).map_err(|error| WriteError::Invalid(format!("a value cannot be kept: {error}")))
}

fn search_text(version: &Version) -> String {
    let pairs = version.tags.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let files = version.files.iter().map(|file| file.name.as_str());
    let quality = version.quality.keys().map(String::as_str);
    let signature = version.registration.iter().flat_map(|registration| {
        let signature = &registration.signature;
        signature.inputs.iter().chain(signature.outputs.iter()).map(|tensor| &*tensor.name)
    });
    // The owner's own words first, so that a file's many names cannot push them over the cap.
    check::search_text(pairs.chain(quality).chain([version.description.as_str()]).chain(signature).chain(files))
}
