//! Deployments, the desired state of models, and aliases, the movable names of versions.

use sqlx::AnyConnection;
use tenantry_types::{ModelId, ModelName};

use crate::database::count;
use crate::limits::MAX_ALIASES_PER_MODEL;
use crate::records::{Alias, Deployment, DeploymentChange, VersionState};
use crate::{ReadError, Store, Thing, WriteError, check, models, rows, versions};

impl Store {
    /// The deployment of a model.
    pub async fn deployment(&self, model: ModelId) -> Result<Deployment, ReadError> {
        find(&mut *self.inner.database.read().await?, model).await
    }

    /// Changes a deployment if it still is at `expected_generation`, and raises its generation.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if it changed meanwhile; [`WriteError::WrongState`] if the version is not ready.
    pub async fn set_deployment(
        &self,
        model: ModelId,
        expected_generation: u64,
        change: DeploymentChange,
    ) -> Result<Deployment, WriteError> {
        check::deployment(&change)?;
        let mut write = self.write().await?;
        let connection = write.connection();
        let mut deployment = find(connection, model).await?;
        if deployment.generation != expected_generation {
            return Err(WriteError::Conflict { thing: Thing::Deployment, generation: deployment.generation });
        }
        if let Some(number) = change.version {
            let version = versions::find_by_number(connection, model, number).await?;
            if version.state != VersionState::Ready {
                return Err(WriteError::WrongState(format!("version {number} is not ready, so it cannot be deployed")));
            }
        }
        if change.version != deployment.version {
            deployment.previous = deployment.version.or(deployment.previous);
        }
        deployment.version = change.version;
        deployment.min_replicas = change.min_replicas;
        deployment.max_replicas = change.max_replicas;
        deployment.idle_after_ms = change.idle_after_ms;
        deployment.default_timeout_ms = change.default_timeout_ms;
        deployment.cache_ttl_ms = change.cache_ttl_ms;
        update(connection, &mut deployment).await?;
        write.commit().await?;
        Ok(deployment)
    }

    /// The aliases of a model by name.
    pub async fn aliases(&self, model: ModelId) -> Result<Vec<Alias>, ReadError> {
        list_aliases(&mut *self.inner.database.read().await?, model).await
    }

    /// Makes `name` an alias of a version, whatever it named before.
    ///
    /// # Errors
    /// [`WriteError::Invalid`] for a name of digits only; [`WriteError::NotFound`] if the model has no such version.
    pub async fn set_alias(&self, model: ModelId, name: &ModelName, version: u32) -> Result<Alias, WriteError> {
        check::alias(name)?;
        let mut write = self.write().await?;
        let connection = write.connection();
        models::find(connection, model).await?;
        versions::find_by_number(connection, model, version).await?;
        let there = count(connection, "SELECT COUNT(*) FROM aliases WHERE model_id = $1", &model.to_string()).await?;
        let moved = sqlx::query("UPDATE aliases SET version = $1 WHERE model_id = $2 AND name = $3")
            .bind(i64::from(version))
            .bind(model.to_string())
            .bind(name.as_str())
            .execute(&mut *connection)
            .await?;
        if moved.rows_affected() == 0 {
            if there >= MAX_ALIASES_PER_MODEL {
                return Err(WriteError::LimitReached { things: "aliases", limit: MAX_ALIASES_PER_MODEL });
            }
            sqlx::query("INSERT INTO aliases (model_id, name, version) VALUES ($1, $2, $3)")
                .bind(model.to_string())
                .bind(name.as_str())
                .bind(i64::from(version))
                .execute(&mut *connection)
                .await?;
        }
        write.commit().await?;
        Ok(Alias { model, name: name.clone(), version })
    }

    /// Removes an alias; the version stays.
    pub async fn delete_alias(&self, model: ModelId, name: &ModelName) -> Result<(), WriteError> {
        let mut write = self.write().await?;
        let deleted = sqlx::query("DELETE FROM aliases WHERE model_id = $1 AND name = $2")
            .bind(model.to_string())
            .bind(name.as_str())
            .execute(write.connection())
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(WriteError::NotFound(Thing::Alias));
        }
        Ok(write.commit().await?)
    }
}

async fn find(connection: &mut AnyConnection, model: ModelId) -> Result<Deployment, ReadError> {
    let row =
        sqlx::query("SELECT * FROM deployments WHERE model_id = $1").bind(model.to_string()).fetch_optional(connection);
    rows::deployment(&row.await?.ok_or(ReadError::NotFound(Thing::Model))?)
}

async fn update(connection: &mut AnyConnection, deployment: &mut Deployment) -> Result<(), WriteError> {
    let damaged = |column| WriteError::Damaged { thing: Thing::Deployment, column };
    deployment.generation = deployment.generation.checked_add(1).ok_or(damaged("generation"))?;
    let idle_after_ms =
        deployment.idle_after_ms.map(i64::try_from).transpose().map_err(|_| damaged("idle_after_ms"))?;
    let default_timeout_ms =
        deployment.default_timeout_ms.map(i64::try_from).transpose().map_err(|_| damaged("default_timeout_ms"))?;
    let cache_ttl_ms = deployment.cache_ttl_ms.map(i64::try_from).transpose().map_err(|_| damaged("cache_ttl_ms"))?;
    sqlx::query(
        "UPDATE deployments SET generation = $1, version = $2, previous = $3, min_replicas = $4, max_replicas = $5,
             idle_after_ms = $6, default_timeout_ms = $7, cache_ttl_ms = $8
         WHERE id = $9",
    )
    .bind(i64::try_from(deployment.generation).map_err(|_| damaged("generation"))?)
    .bind(deployment.version.map(i64::from))
    .bind(deployment.previous.map(i64::from))
    .bind(i64::from(deployment.min_replicas))
    .bind(i64::from(deployment.max_replicas))
    .bind(idle_after_ms)
    .bind(default_timeout_ms)
    .bind(cache_ttl_ms)
    .bind(deployment.id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets a newly registered version serve, unless a newer one does already.
pub(crate) async fn advance(connection: &mut AnyConnection, model: ModelId, number: u32) -> Result<(), WriteError> {
    let mut deployment = find(connection, model).await?;
    if deployment.version.is_some_and(|serving| serving >= number) {
        return Ok(());
    }
    deployment.previous = deployment.version.or(deployment.previous);
    deployment.version = Some(number);
    update(connection, &mut deployment).await
}

/// Refuses if the deployment or an alias names the version; forgets it as the way back.
pub(crate) async fn check_unused(
    connection: &mut AnyConnection,
    model: ModelId,
    number: u32,
) -> Result<(), WriteError> {
    let mut deployment = find(connection, model).await?;
    if deployment.version == Some(number) {
        return Err(WriteError::WrongState(format!("version {number} is deployed; deploy another one first")));
    }
    if let Some(alias) = list_aliases(connection, model).await?.into_iter().find(|alias| alias.version == number) {
        return Err(WriteError::WrongState(format!(
            "version {number} is named by the alias `{}`; move or delete that first",
            alias.name
        )));
    }
    if deployment.previous == Some(number) {
        deployment.previous = None;
        update(connection, &mut deployment).await?;
    }
    Ok(())
}

async fn list_aliases(connection: &mut AnyConnection, model: ModelId) -> Result<Vec<Alias>, ReadError> {
    let rows =
        sqlx::query("SELECT * FROM aliases WHERE model_id = $1").bind(model.to_string()).fetch_all(connection).await?;
    let mut aliases = rows.iter().map(rows::alias).collect::<Result<Vec<_>, _>>()?;
    // Not by the database, whose order of names depends on its locale.
    aliases.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(aliases)
}
