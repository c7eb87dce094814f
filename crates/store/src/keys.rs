//! API keys.

use sqlx::AnyConnection;
use tenantry_types::{KeyId, TenantId};

use crate::database::count;
use crate::limits::MAX_KEYS_PER_TENANT;
use crate::open::{id_parts, random};
use crate::records::{Key, Role};
use crate::{KeySecret, ReadError, Store, Thing, WriteError, check, rows};

impl Store {
    /// Creates a key and returns it with its secret, which is kept nowhere and cannot be shown again.
    ///
    /// # Errors
    /// [`WriteError::Invalid`] for a platform key outside the operator's tenant.
    pub async fn create_key(
        &self,
        tenant: TenantId,
        role: Role,
        label: &str,
        expires_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<(Key, String), WriteError> {
        check::word("label", label)?;
        let (time, id_random) = id_parts(now_ms)?;
        let id = KeyId::from_parts(time, id_random);
        let (secret, secret_sha256) =
            KeySecret::make(id, &random().map_err(|error| WriteError::Unavailable(error.into()))?);
        let key = Key {
            id,
            tenant,
            role,
            label: label.to_owned(),
            secret_sha256,
            created_ms: now_ms,
            expires_ms,
            revoked_ms: None,
        };
        let mut write = self.write().await?;
        let owner = sqlx::query("SELECT * FROM tenants WHERE id = $1")
            .bind(tenant.to_string())
            .fetch_optional(write.connection())
            .await?;
        let owner = rows::tenant(&owner.ok_or(WriteError::NotFound(Thing::Tenant))?)?;
        if role == Role::PlatformAdmin && !owner.operator {
            return Err(WriteError::Invalid("only the operator's tenant has platform keys".to_owned()));
        }
        let there =
            count(write.connection(), "SELECT COUNT(*) FROM api_keys WHERE tenant_id = $1", &tenant.to_string())
                .await?;
        if there >= MAX_KEYS_PER_TENANT && !forget_dead_key(write.connection(), tenant, now_ms).await? {
            return Err(WriteError::LimitReached { things: "keys", limit: MAX_KEYS_PER_TENANT });
        }
        sqlx::query(
            "INSERT INTO api_keys (id, tenant_id, role, label, secret_sha256, created_ms, expires_ms, revoked_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(key.id.to_string())
        .bind(key.tenant.to_string())
        .bind(key.role.as_str())
        .bind(key.label.as_str())
        .bind(key.secret_sha256.to_string())
        .bind(key.created_ms)
        .bind(key.expires_ms)
        .bind(key.revoked_ms)
        .execute(write.connection())
        .await?;
        write.tell(|entry| entry.object = key.id.to_string());
        write.commit().await?;
        Ok((key, secret))
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
