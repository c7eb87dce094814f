//! The catalogue: one consistent read of everything a routing table is made from.

use std::io;

use sqlx::any::AnyRow;

use crate::records::Catalogue;
use crate::{BackendError, ReadError, Store, database, rows};

impl Store {
    /// The number of changes committed so far. Cheap: tells whether a catalogue read earlier is still current.
    pub async fn revision(&self) -> Result<u64, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        Ok(database::revision(&mut snapshot).await?)
    }

    /// Everything, as it was at one moment between two commits.
    ///
    /// The cost grows with what is stored; read it again when [`Store::revision`] differs, not on every request.
    pub async fn catalogue(&self) -> Result<Catalogue, ReadError> {
        let tables = self.tables().await?;
        // Tens of milliseconds of parsing for some thousand versions, which would hold up a thread that serves requests.
        let parsed = tokio::task::spawn_blocking(move || tables.parse()).await;
        parsed.unwrap_or_else(|error| Err(ReadError::Unavailable(BackendError::System(io::Error::other(error)))))
    }

    /// INVARIANT: all in one transaction, whose snapshot the first query takes.
    async fn tables(&self) -> Result<Tables, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let connection = &mut *snapshot;
        let revision = database::revision(connection).await?;
        let mut all = async |query: &'static str| sqlx::query(query).fetch_all(&mut *connection).await;
        Ok(Tables {
            revision,
            organisations: all("SELECT * FROM organisations ORDER BY id").await?,
            shares: all("SELECT * FROM shares ORDER BY scope, subject").await?,
            tenants: all("SELECT * FROM tenants ORDER BY id").await?,
            keys: all("SELECT * FROM api_keys ORDER BY id").await?,
            roles: all("SELECT * FROM custom_roles ORDER BY tenant_id, name").await?,
            models: all("SELECT * FROM models ORDER BY id").await?,
            tags: all("SELECT * FROM model_tags").await?,
            shared_with: all("SELECT * FROM model_tenants").await?,
            versions: all("SELECT * FROM versions ORDER BY model_id, number").await?,
            files: all("SELECT * FROM version_files ORDER BY version_id, position").await?,
            aliases: all("SELECT * FROM aliases").await?,
            deployments: all("SELECT * FROM deployments ORDER BY id").await?,
        })
    }
}

/// What one snapshot held, as rows.
struct Tables {
    revision: u64,
    organisations: Vec<AnyRow>,
    shares: Vec<AnyRow>,
    tenants: Vec<AnyRow>,
    keys: Vec<AnyRow>,
    roles: Vec<AnyRow>,
    models: Vec<AnyRow>,
    shared_with: Vec<AnyRow>,
    tags: Vec<AnyRow>,
    versions: Vec<AnyRow>,
    files: Vec<AnyRow>,
    aliases: Vec<AnyRow>,
    deployments: Vec<AnyRow>,
}

impl Tables {
    fn parse(self) -> Result<Catalogue, ReadError> {
        let mut tags = rows::tags(&self.tags)?;
        let mut shared_with = rows::shared_with(&self.shared_with)?;
        let mut files = rows::files(&self.files)?;
        let mut aliases = self.aliases.iter().map(rows::alias).collect::<Result<Vec<_>, _>>()?;
        // Not by the database, whose order of names depends on its locale.
        aliases.sort_unstable_by(|a, b| (a.model, &a.name).cmp(&(b.model, &b.name)));
        Ok(Catalogue {
            revision: self.revision,
            organisations: self.organisations.iter().map(rows::organisation).collect::<Result<_, _>>()?,
            shares: self.shares.iter().map(rows::share).collect::<Result<_, _>>()?,
            tenants: self.tenants.iter().map(rows::tenant).collect::<Result<_, _>>()?,
            keys: self.keys.iter().map(rows::key).collect::<Result<_, _>>()?,
            roles: self.roles.iter().map(rows::role).collect::<Result<_, _>>()?,
            models: self
                .models
                .iter()
                .map(|row| rows::model(row, &mut tags, &mut shared_with))
                .collect::<Result<_, _>>()?,
            versions: self.versions.iter().map(|row| rows::version(row, &mut files)).collect::<Result<_, _>>()?,
            aliases,
            deployments: self.deployments.iter().map(rows::deployment).collect::<Result<_, _>>()?,
        })
    }
}
