//! API keys.

use sqlx::AnyConnection;
use tenantry_types::{KeyId, Role, TenantId};

use crate::database::count;
use crate::limits::MAX_KEYS_PER_TENANT;
use crate::open::{id_parts, random};
use crate::records::{Key, NewKey};
use crate::{KeySecret, ReadError, Store, Thing, WriteError, check, rows};

impl Store {
    /// Creates a key and returns it with its secret, which is kept nowhere and cannot be shown again; a key that is proved by
    /// a certificate has none.
    ///
    /// # Errors
    /// [`WriteError::Invalid`] for a platform key outside the operator's tenant and for a role that the tenant has not,
    /// [`WriteError::AlreadyExists`] for a certificate's subject that another key has.
    pub async fn create_key(
        &self,
        tenant: TenantId,
        new: NewKey,
        now_ms: i64,
    ) -> Result<(Key, Option<String>), WriteError> {
        check::key(&new)?;
        let mut write = self.write().await?;
        let made = insert(write.connection(), tenant, new, now_ms).await?;
        write.tell(|entry| entry.object = made.0.id.to_string());
        write.commit().await?;
        Ok(made)
    }

    /// Makes a new key in the place of one: what it may do, its label and its settings in the share tree are the same. The old
    /// one is accepted for `overlap_ms` more, or less if it expires before.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] for a key there is not, or that is revoked or expired; [`WriteError::Invalid`] for one that is
    /// proved by a certificate.
    pub async fn rotate_key(
        &self,
        tenant: TenantId,
        id: KeyId,
        overlap_ms: i64,
        expires_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<(Key, Option<String>), WriteError> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1 AND tenant_id = $2")
            .bind(id.to_string())
            .bind(tenant.to_string())
            .fetch_optional(write.connection())
            .await?;
        let old = rows::key(&row.ok_or(WriteError::NotFound(Thing::Key))?)?;
        if !old.is_live(now_ms) {
            return Err(WriteError::NotFound(Thing::Key));
        }
        if old.certificate.is_some() {
            return Err(WriteError::Invalid("a key proved by a certificate has no secret to rotate".to_owned()));
        }
        let ends_ms = now_ms.saturating_add(overlap_ms);
        let ends_ms = old.expires_ms.map_or(ends_ms, |expires_ms| expires_ms.min(ends_ms));
        let new = NewKey { role: old.role, scope: old.scope, label: old.label, expires_ms, certificate: None };
        let made = insert(write.connection(), tenant, new, now_ms).await?;
        sqlx::query("UPDATE api_keys SET expires_ms = $1 WHERE id = $2")
            .bind(ends_ms)
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        crate::shares::copy_key(write.connection(), tenant, id, made.0.id).await?;
        write.tell(|entry| entry.object = format!("{id} to {}", made.0.id));
        write.commit().await?;
        Ok(made)
    }

    /// Writes when keys were last used. No revision: nobody who serves depends on it.
    pub async fn note_keys_used(&self, used: &[(KeyId, i64)]) -> Result<(), WriteError> {
        if used.is_empty() {
            return Ok(());
        }
        let mut transaction = self.inner.database.append().await?;
        for (key, at_ms) in used {
            sqlx::query(
                "UPDATE api_keys SET last_used_ms = $1 WHERE id = $2 AND (last_used_ms IS NULL OR last_used_ms < $1)",
            )
            .bind(*at_ms)
            .bind(key.to_string())
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The keys of a tenant, oldest first, revoked and expired ones included.
    pub async fn keys(&self, tenant: TenantId) -> Result<Vec<Key>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query("SELECT * FROM api_keys WHERE tenant_id = $1 ORDER BY id")
            .bind(tenant.to_string())
            .fetch_all(&mut *snapshot)
            .await?;
        rows.iter().map(rows::key).collect()
    }

    /// Revokes a key of a tenant and forgets its settings in the share tree. Revoking it again changes nothing: the first time stands.
    pub async fn revoke_key(&self, tenant: TenantId, id: KeyId, now_ms: i64) -> Result<Key, WriteError> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE api_keys SET revoked_ms = $1 WHERE id = $2 AND tenant_id = $3 AND revoked_ms IS NULL")
            .bind(now_ms)
            .bind(id.to_string())
            .bind(tenant.to_string())
            .execute(write.connection())
            .await?;
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = $1 AND tenant_id = $2")
            .bind(id.to_string())
            .bind(tenant.to_string())
            .fetch_optional(write.connection())
            .await?;
        let key = rows::key(&row.ok_or(WriteError::NotFound(Thing::Key))?)?;
        // What was kept free for it is free again.
        sqlx::query("DELETE FROM shares WHERE of_key = $1").bind(id.to_string()).execute(write.connection()).await?;
        write.commit().await?;
        Ok(key)
    }
}

async fn insert(
    connection: &mut AnyConnection,
    tenant: TenantId,
    new: NewKey,
    now_ms: i64,
) -> Result<(Key, Option<String>), WriteError> {
    let NewKey { role, scope, label, expires_ms, certificate } = new;
    let (time, id_random) = id_parts(now_ms)?;
    let id = KeyId::from_parts(time, id_random);
    let (secret, secret_sha256) =
        KeySecret::make(id, &random().map_err(|error| WriteError::Unavailable(error.into()))?);
    let key = Key {
        id,
        tenant,
        role,
        scope,
        certificate,
        label,
        secret_sha256,
        created_ms: now_ms,
        expires_ms,
        revoked_ms: None,
        last_used_ms: None,
    };
    let owner = sqlx::query("SELECT * FROM tenants WHERE id = $1")
        .bind(tenant.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let owner = rows::tenant(&owner.ok_or(WriteError::NotFound(Thing::Tenant))?)?;
    match &key.role {
        Role::PlatformAdmin if !owner.operator => {
            return Err(WriteError::Invalid("only the operator's tenant has platform keys".to_owned()));
        }
        Role::Custom(name) => {
            let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM custom_roles WHERE tenant_id = $1 AND name = $2")
                .bind(tenant.to_string())
                .bind(name.as_str())
                .fetch_one(&mut *connection)
                .await?;
            if there == 0 {
                return Err(WriteError::Invalid(format!("this tenant has no role `{name}`; make it first")));
            }
        }
        _ => {}
    }
    let there = count(connection, "SELECT COUNT(*) FROM api_keys WHERE tenant_id = $1", &tenant.to_string()).await?;
    if there >= MAX_KEYS_PER_TENANT && !forget_dead_key(connection, tenant, now_ms).await? {
        return Err(WriteError::LimitReached { things: "keys", limit: MAX_KEYS_PER_TENANT });
    }
    if let Some(subject) = &key.certificate {
        // One that has expired is in nobody's way.
        sqlx::query(
            "UPDATE api_keys SET revoked_ms = $1 WHERE certificate = $2 AND revoked_ms IS NULL AND expires_ms <= $1",
        )
        .bind(now_ms)
        .bind(subject.as_str())
        .execute(&mut *connection)
        .await?;
        let taken =
            count(connection, "SELECT COUNT(*) FROM api_keys WHERE certificate = $1 AND revoked_ms IS NULL", subject);
        if taken.await? > 0 {
            return Err(WriteError::AlreadyExists(Thing::Key));
        }
    }
    sqlx::query(
        "INSERT INTO api_keys (id, tenant_id, role, label, secret_sha256, created_ms, expires_ms, revoked_ms, scope,
             certificate)
         VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, $8, $9)",
    )
    .bind(key.id.to_string())
    .bind(key.tenant.to_string())
    .bind(key.role.as_str())
    .bind(key.label.as_str())
    .bind(key.secret_sha256.to_string())
    .bind(key.created_ms)
    .bind(key.expires_ms)
    .bind(crate::versions::json(&key.scope)?)
    .bind(key.certificate.as_deref().unwrap_or_default())
    .execute(connection)
    .await?;
    let secret = key.certificate.is_none().then_some(secret);
    Ok((key, secret))
}

/// Makes room: forgets the oldest key of a tenant that is revoked or expired, if there is one.
async fn forget_dead_key(connection: &mut AnyConnection, tenant: TenantId, now_ms: i64) -> Result<bool, sqlx::Error> {
    let forgotten = sqlx::query(
        "DELETE FROM api_keys WHERE id IN
             (SELECT MIN(id) FROM api_keys WHERE tenant_id = $1 AND (revoked_ms IS NOT NULL OR expires_ms <= $2))",
    )
    .bind(tenant.to_string())
    .bind(now_ms)
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected() > 0)
}
