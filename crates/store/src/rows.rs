//! Rows to records. A row that does not say what it should is an error that names the column, never a panic.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{Any, Decode, Row as _, Type};
use tenantry_types::{CustomRole, TenantId, TenantName};

use crate::audit::{AuditActor, AuditEntry, AuditRecord, UNKNOWN};
use crate::records::{
    Alias, Deployment, Key, Model, Optimised, Organisation, ShareRecord, Sharing, StoredFile, Tenant, TenantMinimum,
    Version, VersionState,
};
use crate::{ReadError, Thing};

/// One row and what it should be.
pub(crate) struct Row<'a> {
    row: &'a AnyRow,
    thing: Thing,
}

impl<'a> Row<'a> {
    pub(crate) const fn new(row: &'a AnyRow, thing: Thing) -> Self {
        Self { row, thing }
    }

    pub(crate) const fn damaged(&self, column: &'static str) -> ReadError {
        ReadError::Damaged { thing: self.thing, column }
    }

    pub(crate) fn get<T: Decode<'a, Any> + Type<Any>>(&self, column: &'static str) -> Result<T, ReadError> {
        self.row.try_get(column).map_err(|_| self.damaged(column))
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<String, ReadError> {
        self.get(column)
    }

    /// A text, nothing where it is empty.
    fn maybe_text(&self, column: &'static str) -> Result<Option<String>, ReadError> {
        Ok(Some(self.text(column)?).filter(|text| !text.is_empty()))
    }

    pub(crate) fn number(&self, column: &'static str) -> Result<i64, ReadError> {
        self.get(column)
    }

    pub(crate) fn unsigned<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, ReadError> {
        T::try_from(self.number(column)?).map_err(|_| self.damaged(column))
    }

    fn maybe_unsigned<T: TryFrom<i64>>(&self, column: &'static str) -> Result<Option<T>, ReadError> {
        let value: Option<i64> = self.get(column)?;
        value.map(|value| T::try_from(value).map_err(|_| self.damaged(column))).transpose()
    }

    pub(crate) fn parsed<T: FromStr>(&self, column: &'static str) -> Result<T, ReadError> {
        let text: &str = self.get(column)?;
        text.parse().map_err(|_| self.damaged(column))
    }

    pub(crate) fn maybe_parsed<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, ReadError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| text.parse().map_err(|_| self.damaged(column))).transpose()
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T, ReadError> {
        let text: &str = self.get(column)?;
        serde_json::from_str(text).map_err(|_| self.damaged(column))
    }

    fn maybe_json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, ReadError> {
        let text: Option<&str> = self.get(column)?;
        text.map(|text| serde_json::from_str(text).map_err(|_| self.damaged(column))).transpose()
    }
}

pub(crate) fn tenant(row: &AnyRow) -> Result<Tenant, ReadError> {
    let row = Row::new(row, Thing::Tenant);
    Ok(Tenant {
        id: row.parsed("id")?,
        name: row.parsed("name")?,
        operator: row.number("operator")? != 0,
        created_ms: row.number("created_ms")?,
        minimum: TenantMinimum {
            platform: row.parsed("platform_min_isolation")?,
            own: row.parsed("own_min_isolation")?,
        },
    })
}

pub(crate) fn organisation(row: &AnyRow) -> Result<Organisation, ReadError> {
    let row = Row::new(row, Thing::Organisation);
    Ok(Organisation { id: row.parsed("id")?, name: row.parsed("name")?, created_ms: row.number("created_ms")? })
}

pub(crate) fn share(row: &AnyRow) -> Result<ShareRecord, ReadError> {
    let row = Row::new(row, Thing::Share);
    Ok(ShareRecord {
        subject: row.parsed("subject")?,
        generation: row.unsigned("generation")?,
        settings: row.json("settings")?,
    })
}

pub(crate) fn key(row: &AnyRow) -> Result<Key, ReadError> {
    let row = Row::new(row, Thing::Key);
    Ok(Key {
        id: row.parsed("id")?,
        tenant: row.parsed("tenant_id")?,
        role: row.parsed("role")?,
        scope: row.json("scope")?,
        certificate: row.maybe_text("certificate")?,
        label: row.text("label")?,
        secret_sha256: row.parsed("secret_sha256")?,
        created_ms: row.number("created_ms")?,
        expires_ms: row.get("expires_ms")?,
        revoked_ms: row.get("revoked_ms")?,
        last_used_ms: row.get("last_used_ms")?,
    })
}

pub(crate) fn audit(row: &AnyRow) -> Result<AuditRecord, ReadError> {
    let row = Row::new(row, Thing::Audit);
    let role: Option<&str> = row.get("actor_role")?;
    let role_text = || role.map(Into::into).ok_or_else(|| row.damaged("actor_role"));
    let actor = match (row.maybe_parsed("actor_tenant")?, row.maybe_parsed("actor_key")?) {
        (None, key) if role == Some(UNKNOWN) => AuditActor::Unknown { key },
        (None, None) => AuditActor::Server,
        (Some(tenant), Some(key)) => AuditActor::Key { tenant, key, role: role_text()? },
        _ => return Err(row.damaged("actor_key")),
    };
    let entry = AuditEntry {
        at_ms: row.number("at_ms")?,
        actor,
        source: match row.get("source")? {
            "" => None,
            source => Some(source.parse().map_err(|_| row.damaged("source"))?),
        },
        tenant: row.maybe_parsed("tenant_id")?,
        action: row.text("action")?,
        object: row.text("object")?,
        outcome: row.text("outcome")?,
        detail: row.text("detail")?,
    };
    Ok(AuditRecord {
        sequence: row.unsigned("sequence")?,
        entry,
        generation: row.maybe_unsigned("generation")?,
        previous: row.text("previous")?,
        hash: row.text("hash")?,
    })
}

/// The tags of models, by the text of the model's id.
pub(crate) type TagsByModel = HashMap<String, BTreeMap<String, String>>;

pub(crate) fn tags(rows: &[AnyRow]) -> Result<TagsByModel, ReadError> {
    let mut tags = TagsByModel::new();
    for row in rows {
        let row = Row::new(row, Thing::Model);
        tags.entry(row.text("model_id")?).or_default().insert(row.text("name")?, row.text("value")?);
    }
    Ok(tags)
}

/// The tenants that models are shared with, by the text of the model's id.
pub(crate) type TenantsByModel = HashMap<String, BTreeSet<TenantName>>;

pub(crate) fn shared_with(rows: &[AnyRow]) -> Result<TenantsByModel, ReadError> {
    let mut tenants = TenantsByModel::new();
    for row in rows {
        let row = Row::new(row, Thing::Model);
        tenants.entry(row.text("model_id")?).or_default().insert(row.parsed("tenant_name")?);
    }
    Ok(tenants)
}

pub(crate) fn role(row: &AnyRow) -> Result<(TenantId, CustomRole), ReadError> {
    let row = Row::new(row, Thing::Role);
    let role = CustomRole {
        name: row.parsed("name")?,
        actions: row.json("actions")?,
        models: row.maybe_json("models")?,
        description: row.text("description")?,
    };
    Ok((row.parsed("tenant_id")?, role))
}

/// A model; its tags and those it is shared with are taken out of `tags` and `tenants`.
pub(crate) fn model(row: &AnyRow, tags: &mut TagsByModel, tenants: &mut TenantsByModel) -> Result<Model, ReadError> {
    let row = Row::new(row, Thing::Model);
    let id: &str = row.get("id")?;
    let shared = match row.get("sharing")? {
        "private" => Sharing::Private,
        "everyone" => Sharing::Everyone,
        "tenants" => Sharing::Tenants(tenants.remove(id).unwrap_or_default()),
        _ => return Err(row.damaged("sharing")),
    };
    Ok(Model {
        id: row.parsed("id")?,
        owner: row.parsed("owner_id")?,
        name: row.parsed("name")?,
        description: row.text("description")?,
        framework: row.text("framework")?,
        tags: tags.remove(id).unwrap_or_default(),
        dependencies: row.json("dependencies")?,
        shared,
        created_ms: row.number("created_ms")?,
        updated_ms: row.number("updated_ms")?,
        min_isolation: row.parsed("min_isolation")?,
        next_version: row.unsigned("next_version")?,
    })
}

/// The files of versions in order, by the text of the version's id.
pub(crate) type FilesByVersion = HashMap<String, Vec<StoredFile>>;

/// Collects rows that come ordered by position within a version.
pub(crate) fn files(rows: &[AnyRow]) -> Result<FilesByVersion, ReadError> {
    let mut files = FilesByVersion::new();
    for row in rows {
        let row = Row::new(row, Thing::Version);
        let file = StoredFile { name: row.text("name")?, digest: row.parsed("digest")?, bytes: row.unsigned("bytes")? };
        files.entry(row.text("version_id")?).or_default().push(file);
    }
    Ok(files)
}

/// A version; its files are taken out of `files`.
pub(crate) fn version(row: &AnyRow, files: &mut FilesByVersion) -> Result<Version, ReadError> {
    let row = Row::new(row, Thing::Version);
    let state = match row.get("state")? {
        "registering" => VersionState::Registering,
        "ready" => VersionState::Ready,
        "refused" => VersionState::Refused { reason: row.text("refusal")? },
        _ => return Err(row.damaged("state")),
    };
    let optimised = match row.maybe_parsed("optimised_digest")? {
        Some(digest) => {
            Some(Optimised { digest, bytes: row.unsigned("optimised_bytes")?, key: row.text("optimised_key")? })
        }
        None => None,
    };
    let id: &str = row.get("id")?;
    Ok(Version {
        id: row.parsed("id")?,
        model: row.parsed("model_id")?,
        number: row.unsigned("number")?,
        digest: row.parsed("digest")?,
        files: files.remove(id).ok_or_else(|| row.damaged("files"))?,
        description: row.text("description")?,
        tags: row.json("tags")?,
        quality: row.json("quality")?,
        settings: row.json("settings")?,
        deploy: row.number("deploy")? != 0,
        state,
        registration: row.maybe_json("registration")?,
        optimised,
        created_ms: row.number("created_ms")?,
    })
}

pub(crate) fn alias(row: &AnyRow) -> Result<Alias, ReadError> {
    let row = Row::new(row, Thing::Alias);
    Ok(Alias { model: row.parsed("model_id")?, name: row.parsed("name")?, version: row.unsigned("version")? })
}

pub(crate) fn deployment(row: &AnyRow) -> Result<Deployment, ReadError> {
    let row = Row::new(row, Thing::Deployment);
    Ok(Deployment {
        id: row.parsed("id")?,
        model: row.parsed("model_id")?,
        generation: row.unsigned("generation")?,
        version: row.maybe_unsigned("version")?,
        previous: row.maybe_unsigned("previous")?,
        min_replicas: row.unsigned("min_replicas")?,
        max_replicas: row.unsigned("max_replicas")?,
        idle_after_ms: row.maybe_unsigned("idle_after_ms")?,
        default_timeout_ms: row.maybe_unsigned("default_timeout_ms")?,
        cache_ttl_ms: row.maybe_unsigned("cache_ttl_ms")?,
    })
}
