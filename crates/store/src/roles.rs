//! Roles that tenants make for themselves.

use tenantry_types::{CustomRole, RoleName, TenantId};

use crate::database::count;
use crate::limits::{MAX_NAMED, MAX_ROLES_PER_TENANT};
use crate::{ReadError, Store, Thing, WriteError, check, rows, versions};

impl Store {
    /// Makes a role, or gives one of that name this content.
    pub async fn set_role(&self, tenant: TenantId, role: &CustomRole, now_ms: i64) -> Result<(), WriteError> {
        check::description(&role.description)?;
        if role.models.as_ref().is_some_and(|models| models.len() > MAX_NAMED) {
            return Err(WriteError::LimitReached { things: "models of a role", limit: MAX_NAMED });
        }
        let mut write = self.write().await?;
        let connection = write.connection();
        if count(connection, "SELECT COUNT(*) FROM tenants WHERE id = $1", &tenant.to_string()).await? == 0 {
            return Err(WriteError::NotFound(Thing::Tenant));
        }
        let models = role.models.as_ref().map(versions::json).transpose()?;
        let changed = sqlx::query(
            "UPDATE custom_roles SET actions = $1, models = $2, description = $3 WHERE tenant_id = $4 AND name = $5",
        )
        .bind(versions::json(&role.actions)?)
        .bind(models.clone())
        .bind(role.description.as_str())
        .bind(tenant.to_string())
        .bind(role.name.as_str())
        .execute(&mut *connection)
        .await?;
        if changed.rows_affected() == 0 {
            let id = tenant.to_string();
            let there = count(connection, "SELECT COUNT(*) FROM custom_roles WHERE tenant_id = $1", &id);
            if there.await? >= MAX_ROLES_PER_TENANT {
                return Err(WriteError::LimitReached { things: "roles", limit: MAX_ROLES_PER_TENANT });
            }
            sqlx::query(
                "INSERT INTO custom_roles (tenant_id, name, actions, models, description, created_ms)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(tenant.to_string())
            .bind(role.name.as_str())
            .bind(versions::json(&role.actions)?)
            .bind(models)
            .bind(role.description.as_str())
            .bind(now_ms)
            .execute(&mut *connection)
            .await?;
        }
        Ok(write.commit().await?)
    }

    /// A tenant's own roles, by name.
    pub async fn roles(&self, tenant: TenantId) -> Result<Vec<CustomRole>, ReadError> {
        let mut snapshot = self.inner.database.read().await?;
        let rows = sqlx::query("SELECT * FROM custom_roles WHERE tenant_id = $1")
            .bind(tenant.to_string())
            .fetch_all(&mut *snapshot)
            .await?;
        let mut roles: Vec<CustomRole> =
            rows.iter().map(|row| rows::role(row).map(|(_, role)| role)).collect::<Result<_, _>>()?;
        roles.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(roles)
    }

    /// Deletes a role.
    ///
    /// # Errors
    /// [`WriteError::NotFound`] for one there is not, [`WriteError::WrongState`] while a key has it that is neither revoked nor
    /// expired.
    pub async fn delete_role(&self, tenant: TenantId, name: &RoleName, now_ms: i64) -> Result<(), WriteError> {
        let mut write = self.write().await?;
        let used: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM api_keys
             WHERE tenant_id = $1 AND role = $2 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $3)",
        )
        .bind(tenant.to_string())
        .bind(name.as_str())
        .bind(now_ms)
        .fetch_one(write.connection())
        .await?;
        if used > 0 {
            return Err(WriteError::WrongState(format!(
                "{used} keys have the role `{name}`; revoke them or let them expire first"
            )));
        }
        let deleted = sqlx::query("DELETE FROM custom_roles WHERE tenant_id = $1 AND name = $2")
            .bind(tenant.to_string())
            .bind(name.as_str())
            .execute(write.connection())
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(WriteError::NotFound(Thing::Role));
        }
        Ok(write.commit().await?)
    }
}
