//! Models: names with versions, tags and a deployment.

use std::collections::BTreeMap;

use sqlx::AnyConnection;
use tenantry_types::{DeploymentId, ModelId, ModelName, TenantId};

use crate::artefacts::FilePath;
use crate::check;
use crate::database::count;
use crate::limits::{
    DEFAULT_IDLE_AFTER_MS, MAX_MODELS_PER_TENANT, MAX_NAMED, MAX_SEARCH_RESULTS, MAX_SEARCH_WORDS, MAX_WORD_BYTES,
};
use crate::open::id_parts;
use crate::records::{Model, ModelSearch, ModelUpdate, NewModel, Sharing};
use crate::{ReadError, Store, Thing, WriteError, rows, versions};

impl Store {
    /// The model of that name, created with its deployment if there is none. One that exists is returned as it is.
    pub async fn create_model(
        &self,
        owner: TenantId,
        name: &ModelName,
        new: NewModel,
        now_ms: i64,
    ) -> Result<Model, WriteError> {
        check_fields(&new.description, &new.framework, &new.tags, &new.dependencies)?;
        let (time, random) = id_parts(now_ms)?;
        let (_, deployment_random) = id_parts(now_ms)?;
        let mut write = self.write().await?;
        let connection = write.connection();
        if count(connection, "SELECT COUNT(*) FROM tenants WHERE id = $1", &owner.to_string()).await? == 0 {
            return Err(WriteError::NotFound(Thing::Tenant));
        }
        if let Some(model) = find_by_name(connection, owner, name).await? {
            return Ok(model);
        }
        let there = count(connection, "SELECT COUNT(*) FROM models WHERE owner_id = $1", &owner.to_string()).await?;
        if there >= MAX_MODELS_PER_TENANT {
            return Err(WriteError::LimitReached { things: "models", limit: MAX_MODELS_PER_TENANT });
        }
        let model = Model {
            id: ModelId::from_parts(time, random),
            owner,
            name: name.clone(),
            description: new.description,
            framework: new.framework,
            tags: new.tags,
            dependencies: new.dependencies,
            shared: new.shared,
            min_isolation: new.min_isolation,
            created_ms: now_ms,
            updated_ms: now_ms,
            next_version: 1,
        };
        sqlx::query(
            "INSERT INTO models (id, owner_id, name, description, framework, dependencies, sharing, next_version,
                 search_text, created_ms, updated_ms, min_isolation)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9, $9, $10)",
        )
        .bind(model.id.to_string())
        .bind(owner.to_string())
        .bind(name.as_str())
        .bind(model.description.as_str())
        .bind(model.framework.as_str())
        .bind(versions::json(&model.dependencies)?)
        .bind(model.shared.as_str())
        .bind(search_text(&model))
        .bind(now_ms)
        .bind(model.min_isolation.name())
        .execute(&mut *connection)
        .await?;
        insert_tags(connection, &model).await?;
        share_with(connection, &model).await?;
        sqlx::query(
            "INSERT INTO deployments (id, model_id, generation, version, previous, min_replicas, max_replicas,
                 idle_after_ms)
             VALUES ($1, $2, 0, NULL, NULL, 0, 1, $3)",
        )
        .bind(DeploymentId::from_parts(time, deployment_random).to_string())
        .bind(model.id.to_string())
        .bind(i64::try_from(DEFAULT_IDLE_AFTER_MS).unwrap_or(i64::MAX))
        .execute(&mut *connection)
        .await?;
        write.commit().await?;
        Ok(model)
    }

    /// Changes a model's own fields.
    pub async fn update_model(&self, id: ModelId, update: ModelUpdate, now_ms: i64) -> Result<Model, WriteError> {
        let mut write = self.write().await?;
        let connection = write.connection();
        let mut model = find(connection, id).await?;
        model.description = update.description.unwrap_or(model.description);
        model.framework = update.framework.unwrap_or(model.framework);
        model.tags = update.tags.unwrap_or(model.tags);
        model.dependencies = update.dependencies.unwrap_or(model.dependencies);
        model.shared = update.shared.unwrap_or(model.shared);
        model.min_isolation = update.min_isolation.unwrap_or(model.min_isolation);
        model.updated_ms = now_ms;
        check_fields(&model.description, &model.framework, &model.tags, &model.dependencies)?;
        sqlx::query(
            "UPDATE models SET description = $1, framework = $2, dependencies = $3, sharing = $4, search_text = $5,
                 updated_ms = $6, min_isolation = $7
             WHERE id = $8",
        )
        .bind(model.description.as_str())
        .bind(model.framework.as_str())
        .bind(versions::json(&model.dependencies)?)
        .bind(model.shared.as_str())
        .bind(search_text(&model))
        .bind(now_ms)
        .bind(model.min_isolation.name())
        .bind(id.to_string())
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM model_tags WHERE model_id = $1")
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        insert_tags(connection, &model).await?;
        share_with(connection, &model).await?;
        write.commit().await?;
        Ok(model)
    }

    /// A model by its id.
    pub async fn model(&self, id: ModelId) -> Result<Model, ReadError> {
        find(&mut *self.inner.database.read().await?, id).await
    }

    /// A model by its name inside its owner.
    pub async fn model_by_name(&self, owner: TenantId, name: &ModelName) -> Result<Model, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        find_by_name(&mut snapshot, owner, name).await?.ok_or(ReadError::NotFound(Thing::Model))
    }

    /// One owner's models that fit a search, oldest first.
    pub async fn search_models(&self, owner: TenantId, search: &ModelSearch) -> Result<Vec<Model>, ReadError> {
        let words: Vec<&str> = search.text.split_whitespace().take(MAX_SEARCH_WORDS + 1).collect();
        if words.len() > MAX_SEARCH_WORDS || words.iter().any(|word| word.len() > MAX_WORD_BYTES) {
            return Err(ReadError::SearchTooLong { max_words: MAX_SEARCH_WORDS });
        }
        let mut words = words.into_iter();
        let (tag_name, tag_value) = search.tag.as_ref().map_or(("", ""), |(name, value)| (name, value));
        let limit = if search.limit == 0 { MAX_SEARCH_RESULTS } else { search.limit.min(MAX_SEARCH_RESULTS) };
        // The query has MAX_SEARCH_WORDS places for words; the pattern of no word fits everything.
        let mut query = sqlx::query(
            "SELECT m.* FROM models m
             WHERE m.owner_id = $1 AND m.id > $2
               AND ($3 = '' OR EXISTS (SELECT 1 FROM model_tags t WHERE t.model_id = m.id AND t.name = $3 AND t.value = $4))
               AND (m.search_text LIKE $5 ESCAPE '!'
                    OR EXISTS (SELECT 1 FROM versions v WHERE v.model_id = m.id AND v.search_text LIKE $5 ESCAPE '!'))
               AND (m.search_text LIKE $6 ESCAPE '!'
                    OR EXISTS (SELECT 1 FROM versions v WHERE v.model_id = m.id AND v.search_text LIKE $6 ESCAPE '!'))
               AND (m.search_text LIKE $7 ESCAPE '!'
                    OR EXISTS (SELECT 1 FROM versions v WHERE v.model_id = m.id AND v.search_text LIKE $7 ESCAPE '!'))
               AND (m.search_text LIKE $8 ESCAPE '!'
                    OR EXISTS (SELECT 1 FROM versions v WHERE v.model_id = m.id AND v.search_text LIKE $8 ESCAPE '!'))
             ORDER BY m.id LIMIT $9",
        )
        .bind(owner.to_string())
        .bind(search.after.map(|id| id.to_string()).unwrap_or_default())
        .bind(tag_name)
        .bind(tag_value);
        for _ in 0..MAX_SEARCH_WORDS {
            query = query.bind(check::search_pattern(words.next().unwrap_or("")));
        }
        let mut snapshot = self.inner.database.read().await?;
        let rows = query.bind(i64::from(limit)).fetch_all(&mut *snapshot).await?;
        let tags = sqlx::query(
            "SELECT t.* FROM model_tags t JOIN models m ON m.id = t.model_id WHERE m.owner_id = $1 AND m.id > $2",
        )
        .bind(owner.to_string())
        .bind(search.after.map(|id| id.to_string()).unwrap_or_default())
        .fetch_all(&mut *snapshot)
        .await?;
        let mut tags = rows::tags(&tags)?;
        let shared_with = sqlx::query(
            "SELECT t.* FROM model_tenants t JOIN models m ON m.id = t.model_id WHERE m.owner_id = $1 AND m.id > $2",
        )
        .bind(owner.to_string())
        .bind(search.after.map(|id| id.to_string()).unwrap_or_default())
        .fetch_all(&mut *snapshot)
        .await?;
        let mut shared_with = rows::shared_with(&shared_with)?;
        rows.iter().map(|row| rows::model(row, &mut tags, &mut shared_with)).collect()
    }

    /// Deletes a model with its versions, aliases, deployment and the files nothing else of its owner refers to.
    pub async fn delete_model(&self, id: ModelId) -> Result<(), WriteError> {
        let _alone = self.inner.removal.write().await;
        let mut write = self.write().await?;
        let connection = write.connection();
        let model = find(connection, id).await?;
        let files: Vec<FilePath> = versions::list(connection, id)
            .await?
            .iter()
            .flat_map(|version| FilePath::of_version(model.owner, version))
            .collect();
        // Aliases refer to versions without a cascade, so they go before what they name.
        for statement in ["DELETE FROM aliases WHERE model_id = $1", "DELETE FROM models WHERE id = $1"] {
            sqlx::query(statement).bind(id.to_string()).execute(&mut *connection).await?;
        }
        write.commit().await?;
        Ok(self.remove_unreferenced(model.owner, files).await?)
    }
}

pub(crate) async fn find(connection: &mut AnyConnection, id: ModelId) -> Result<Model, ReadError> {
    let row = sqlx::query("SELECT * FROM models WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(ReadError::NotFound(Thing::Model))?;
    let tags = sqlx::query("SELECT * FROM model_tags WHERE model_id = $1")
        .bind(id.to_string())
        .fetch_all(&mut *connection)
        .await?;
    let shared_with = sqlx::query("SELECT * FROM model_tenants WHERE model_id = $1")
        .bind(id.to_string())
        .fetch_all(&mut *connection)
        .await?;
    rows::model(&row, &mut rows::tags(&tags)?, &mut rows::shared_with(&shared_with)?)
}

/// Writes whom a model is shared with by name.
async fn share_with(connection: &mut AnyConnection, model: &Model) -> Result<(), WriteError> {
    sqlx::query("DELETE FROM model_tenants WHERE model_id = $1")
        .bind(model.id.to_string())
        .execute(&mut *connection)
        .await?;
    let Sharing::Tenants(tenants) = &model.shared else { return Ok(()) };
    if tenants.len() > MAX_NAMED {
        return Err(WriteError::LimitReached { things: "tenants a model is shared with", limit: MAX_NAMED });
    }
    for tenant in tenants {
        sqlx::query("INSERT INTO model_tenants (model_id, tenant_name) VALUES ($1, $2)")
            .bind(model.id.to_string())
            .bind(tenant.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn find_by_name(
    connection: &mut AnyConnection,
    owner: TenantId,
    name: &ModelName,
) -> Result<Option<Model>, ReadError> {
    let id: Option<String> = sqlx::query_scalar("SELECT id FROM models WHERE owner_id = $1 AND name = $2")
        .bind(owner.to_string())
        .bind(name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(id) = id else { return Ok(None) };
    let id = id.parse().map_err(|_| ReadError::Damaged { thing: Thing::Model, column: "id" })?;
    find(connection, id).await.map(Some)
}

async fn insert_tags(connection: &mut AnyConnection, model: &Model) -> Result<(), WriteError> {
    for (name, value) in &model.tags {
        sqlx::query("INSERT INTO model_tags (model_id, name, value) VALUES ($1, $2, $3)")
            .bind(model.id.to_string())
            .bind(name.as_str())
            .bind(value.as_str())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn check_fields(
    description: &str,
    framework: &str,
    tags: &BTreeMap<String, String>,
    dependencies: &[String],
) -> Result<(), WriteError> {
    check::description(description)?;
    check::word("framework", framework)?;
    check::tags(tags)?;
    check::dependencies(dependencies)
}

fn search_text(model: &Model) -> String {
    let tags = model.tags.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    let dependencies = model.dependencies.iter().map(String::as_str);
    // The short fields first, so that a long description cannot push them over the cap.
    check::search_text(
        [model.name.as_str(), model.framework.as_str()]
            .into_iter()
            .chain(tags)
            .chain(dependencies)
            .chain([model.description.as_str()]),
    )
}
