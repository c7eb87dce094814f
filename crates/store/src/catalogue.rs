//! The catalogue: one consistent read of everything a routing table is made from.

use crate::records::Catalogue;
use crate::{ReadError, Store, database, rows};

impl Store {
    /// Everything, as it was at one moment between two commits.
    ///
    /// The cost grows with what is stored; read it again when [`Store::revision`] differs, not on every request.
    pub async fn catalogue(&self) -> Result<Catalogue, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let connection = &mut *snapshot;
        // INVARIANT: all in one transaction, whose snapshot the first query takes.
        let revision = database::revision(connection).await?;
        let tenants = sqlx::query("SELECT * FROM tenants ORDER BY id").fetch_all(&mut *connection).await?;
        let keys = sqlx::query("SELECT * FROM api_keys ORDER BY id").fetch_all(&mut *connection).await?;
        let tags = sqlx::query("SELECT * FROM model_tags").fetch_all(&mut *connection).await?;
        let models = sqlx::query("SELECT * FROM models ORDER BY id").fetch_all(&mut *connection).await?;
        let files = sqlx::query("SELECT * FROM version_files ORDER BY version_id, position")
            .fetch_all(&mut *connection)
            .await?;
        let versions =
            sqlx::query("SELECT * FROM versions ORDER BY model_id, number").fetch_all(&mut *connection).await?;
        let aliases = sqlx::query("SELECT * FROM aliases").fetch_all(&mut *connection).await?;
        let deployments = sqlx::query("SELECT * FROM deployments ORDER BY id").fetch_all(&mut *connection).await?;
        drop(snapshot);

        let mut tags = rows::tags(&tags)?;
        let mut files = rows::files(&files)?;
        let mut aliases = aliases.iter().map(rows::alias).collect::<Result<Vec<_>, _>>()?;
        // Not by the database, whose order of names depends on its locale.
        aliases.sort_unstable_by(|a, b| (a.model, &a.name).cmp(&(b.model, &b.name)));
        Ok(Catalogue {
            revision,
            tenants: tenants.iter().map(rows::tenant).collect::<Result<_, _>>()?,
            keys: keys.iter().map(rows::key).collect::<Result<_, _>>()?,
            models: models.iter().map(|row| rows::model(row, &mut tags)).collect::<Result<_, _>>()?,
            versions: versions.iter().map(|row| rows::version(row, &mut files)).collect::<Result<_, _>>()?,
            aliases,
            deployments: deployments.iter().map(rows::deployment).collect::<Result<_, _>>()?,
        })
    }
}
