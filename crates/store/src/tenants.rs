//! Tenants.

use tenantry_types::{TenantId, TenantName};

use crate::database::is_taken;
use crate::limits::MAX_TENANTS;
use crate::open::id_parts;
use crate::records::{Tenant, TenantMinimum, TenantMinimumChange};
use crate::{ReadError, Store, Thing, WriteError, rows};

impl Store {
    /// Creates a tenant.
    ///
    /// # Errors
    /// [`WriteError::AlreadyExists`] if the name is taken.
    pub async fn create_tenant(&self, name: &TenantName, operator: bool, now_ms: i64) -> Result<Tenant, WriteError> {
        let (time, random) = id_parts(now_ms)?;
        let tenant = Tenant {
            id: TenantId::from_parts(time, random),
            name: name.clone(),
            operator,
            created_ms: now_ms,
            minimum: TenantMinimum::default(),
        };
        let mut write = self.write().await?;
        let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM tenants").fetch_one(write.connection()).await?;
        if usize::try_from(there).is_ok_and(|there| there >= MAX_TENANTS) {
            return Err(WriteError::LimitReached { things: "tenants", limit: MAX_TENANTS });
        }
        sqlx::query("INSERT INTO tenants (id, name, operator, created_ms) VALUES ($1, $2, $3, $4)")
            .bind(tenant.id.to_string())
            .bind(tenant.name.as_str())
            .bind(i64::from(operator))
            .bind(now_ms)
            .execute(write.connection())
            .await
            .map_err(|error| if is_taken(&error) { WriteError::AlreadyExists(Thing::Tenant) } else { error.into() })?;
        write.tell(|entry| entry.tenant = Some(tenant.id));
        write.commit().await?;
        Ok(tenant)
    }

    /// Every tenant, oldest first.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query("SELECT * FROM tenants ORDER BY id").fetch_all(&mut *snapshot).await?;
        rows.iter().map(rows::tenant).collect()
    }

    /// A tenant by its id.
    pub async fn tenant(&self, id: TenantId) -> Result<Tenant, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let row =
            sqlx::query("SELECT * FROM tenants WHERE id = $1").bind(id.to_string()).fetch_optional(&mut *snapshot);
        rows::tenant(&row.await?.ok_or(ReadError::NotFound(Thing::Tenant))?)
    }

    /// A tenant by its name.
    pub async fn tenant_by_name(&self, name: &TenantName) -> Result<Tenant, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let row =
            sqlx::query("SELECT * FROM tenants WHERE name = $1").bind(name.as_str()).fetch_optional(&mut *snapshot);
        rows::tenant(&row.await?.ok_or(ReadError::NotFound(Thing::Tenant))?)
    }

    /// Changes how well a tenant's workers must be kept apart.
    pub async fn set_tenant_minimum(&self, id: TenantId, change: TenantMinimumChange) -> Result<Tenant, WriteError> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT * FROM tenants WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(write.connection())
            .await?;
        let mut tenant = rows::tenant(&row.ok_or(WriteError::NotFound(Thing::Tenant))?)?;
        tenant.minimum.platform = change.platform.unwrap_or(tenant.minimum.platform);
        tenant.minimum.own = change.own.unwrap_or(tenant.minimum.own);
        sqlx::query("UPDATE tenants SET platform_min_isolation = $1, own_min_isolation = $2 WHERE id = $3")
            .bind(tenant.minimum.platform.name())
            .bind(tenant.minimum.own.name())
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        write.commit().await?;
        Ok(tenant)
    }

    /// Deletes a tenant with its keys, models, versions, deployments and artefacts.
    ///
    /// When this returns, all of it is gone. If the process dies before, either nothing is gone or the rows are, and the
    /// files follow when the store is opened again.
    pub async fn delete_tenant(&self, id: TenantId) -> Result<(), WriteError> {
        let _alone = self.inner.removal.write().await;
        let mut write = self.write().await?;
        // Aliases refer to versions without a cascade, so they go before what they name.
        sqlx::query("DELETE FROM aliases WHERE model_id IN (SELECT id FROM models WHERE owner_id = $1)")
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        // Whoever gets the name next has not been given anything.
        sqlx::query("DELETE FROM model_tenants WHERE tenant_name IN (SELECT name FROM tenants WHERE id = $1)")
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        let deleted =
            sqlx::query("DELETE FROM tenants WHERE id = $1").bind(id.to_string()).execute(write.connection()).await?;
        if deleted.rows_affected() == 0 {
            return Err(WriteError::NotFound(Thing::Tenant));
        }
        write.commit().await?;
        self.remove_files_of(id).await?;
        Ok(())
    }
}
