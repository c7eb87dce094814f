//! Organisations, and the settings of the nodes of the share tree.

use sqlx::AnyConnection;
use tenantry_types::{KeyId, OrganisationId, OrganisationName, ShareSettings, ShareSubject, TenantId};

use crate::database::{count, is_taken};
use crate::limits::{MAX_ORGANISATIONS, MAX_SHARES_PER_TENANT};
use crate::open::id_parts;
use crate::records::{Organisation, ShareRecord};
use crate::{ReadError, Store, Thing, WriteError, check, rows};

impl Store {
    /// Creates an organisation.
    ///
    /// # Errors
    /// [`WriteError::AlreadyExists`] if the name is taken.
    pub async fn create_organisation(&self, name: &OrganisationName, now_ms: i64) -> Result<Organisation, WriteError> {
        let (time, random) = id_parts(now_ms)?;
        let organisation =
            Organisation { id: OrganisationId::from_parts(time, random), name: name.clone(), created_ms: now_ms };
        let mut write = self.write().await?;
        let there: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM organisations").fetch_one(write.connection()).await?;
        if usize::try_from(there).is_ok_and(|there| there >= MAX_ORGANISATIONS) {
            return Err(WriteError::LimitReached { things: "organisations", limit: MAX_ORGANISATIONS });
        }
        sqlx::query("INSERT INTO organisations (id, name, created_ms) VALUES ($1, $2, $3)")
            .bind(organisation.id.to_string())
            .bind(name.as_str())
            .bind(now_ms)
            .execute(write.connection())
            .await
            .map_err(
                |error| {
                    if is_taken(&error) { WriteError::AlreadyExists(Thing::Organisation) } else { error.into() }
                },
            )?;
        write.commit().await?;
        Ok(organisation)
    }

    /// Deletes an organisation with its settings.
    ///
    /// # Errors
    /// [`WriteError::WrongState`] while tenants belong to it.
    pub async fn delete_organisation(&self, id: OrganisationId) -> Result<(), WriteError> {
        let mut write = self.write().await?;
        let members =
            count(write.connection(), "SELECT COUNT(*) FROM shares WHERE member_of = $1", &id.to_string()).await?;
        if members > 0 {
            return Err(WriteError::WrongState(format!(
                "{members} tenants belong to the organisation; take them out of it first"
            )));
        }
        let deleted = sqlx::query("DELETE FROM organisations WHERE id = $1")
            .bind(id.to_string())
            .execute(write.connection())
            .await?;
        if deleted.rows_affected() == 0 {
            return Err(WriteError::NotFound(Thing::Organisation));
        }
        Ok(write.commit().await?)
    }

    /// Gives a node of the share tree these settings, or its default ones again, if it still is at the generation the
    /// caller read (absent: whatever it is at).
    ///
    /// `check` sees all settings as they would be, and what it finds still holds when this commits: settings are bounded
    /// together, not one by one.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if it changed meanwhile, [`WriteError::NotFound`] if what it is for is not there, what
    /// `check` says as [`WriteError::WrongState`].
    pub async fn set_share(
        &self,
        subject: ShareSubject,
        expected_generation: Option<u64>,
        settings: ShareSettings,
        check: impl FnOnce(&[ShareRecord]) -> Result<(), String> + Send,
    ) -> Result<ShareRecord, WriteError> {
        check::share(subject, &settings)?;
        let mut write = self.write().await?;
        let connection = write.connection();
        ensure_exists(connection, subject, settings.organisation).await?;
        let mut all = all(connection).await?;
        let before = all.iter().position(|record| record.subject == subject);
        let generation = before.and_then(|position| all.get(position)).map_or(0, |record| record.generation);
        if expected_generation.is_some_and(|expected| expected != generation) {
            return Err(WriteError::Conflict { thing: Thing::Share, generation });
        }
        let of_tenant = all.iter().filter(|record| record.subject.tenant() == subject.tenant()).count();
        if before.is_none() && of_tenant >= MAX_SHARES_PER_TENANT && subject.tenant().is_some() {
            return Err(WriteError::LimitReached { things: "settings of shares", limit: MAX_SHARES_PER_TENANT });
        }
        let generation =
            generation.checked_add(1).ok_or(WriteError::Damaged { thing: Thing::Share, column: "generation" })?;
        let record = ShareRecord { subject, generation, settings };
        match before.and_then(|position| all.get_mut(position)) {
            Some(known) => known.clone_from(&record),
            None => all.push(record.clone()),
        }
        check(&all).map_err(WriteError::WrongState)?;
        write_record(connection, &record, before.is_some()).await?;
        write.commit().await?;
        Ok(record)
    }
}

/// Every node's settings.
async fn all(connection: &mut AnyConnection) -> Result<Vec<ShareRecord>, ReadError> {
    let rows = sqlx::query("SELECT * FROM shares ORDER BY scope, subject").fetch_all(connection).await?;
    rows.iter().map(rows::share).collect()
}

/// Gives a key the settings of another one, which keeps them but for what is kept free for it: that moves.
pub(crate) async fn copy_key(
    connection: &mut AnyConnection,
    tenant: TenantId,
    from: KeyId,
    to: KeyId,
) -> Result<(), WriteError> {
    let row = sqlx::query("SELECT * FROM shares WHERE of_key = $1")
        .bind(from.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(()) };
    let mut old = rows::share(&row)?;
    let there = count(connection, "SELECT COUNT(*) FROM shares WHERE of_tenant = $1", &tenant.to_string()).await?;
    if there >= MAX_SHARES_PER_TENANT {
        return Err(WriteError::LimitReached { things: "settings of shares", limit: MAX_SHARES_PER_TENANT });
    }
    let new = ShareRecord { subject: ShareSubject::Key(tenant, to), generation: 1, settings: old.settings.clone() };
    write_record(connection, &new, false).await?;
    if old.settings.reservation.take().is_some() {
        old.generation += 1;
        write_record(connection, &old, true).await?;
    }
    Ok(())
}

async fn ensure_exists(
    connection: &mut AnyConnection,
    subject: ShareSubject,
    member_of: Option<OrganisationId>,
) -> Result<(), WriteError> {
    let mut there = async |query: &'static str, id: String, tenant: Option<String>, thing: Thing| {
        let mut counting = sqlx::query_scalar::<_, i64>(query).bind(id);
        if let Some(tenant) = tenant {
            counting = counting.bind(tenant);
        }
        let rows = counting.fetch_one(&mut *connection).await?;
        if rows > 0 { Ok(()) } else { Err(WriteError::NotFound(thing)) }
    };
    const ORGANISATION: &str = "SELECT COUNT(*) FROM organisations WHERE id = $1";
    const TENANT: &str = "SELECT COUNT(*) FROM tenants WHERE id = $1";
    if let Some(organisation) = member_of {
        there(ORGANISATION, organisation.to_string(), None, Thing::Organisation).await?;
    }
    match subject {
        ShareSubject::Organisation(id) => there(ORGANISATION, id.to_string(), None, Thing::Organisation).await,
        ShareSubject::Tenant(id) => there(TENANT, id.to_string(), None, Thing::Tenant).await,
        ShareSubject::Deployment(tenant, id) => {
            there(TENANT, tenant.to_string(), None, Thing::Tenant).await?;
            there("SELECT COUNT(*) FROM deployments WHERE id = $1", id.to_string(), None, Thing::Deployment).await
        }
        ShareSubject::Key(tenant, id) => {
            let query = "SELECT COUNT(*) FROM api_keys WHERE id = $1 AND tenant_id = $2 AND revoked_ms IS NULL";
            there(query, id.to_string(), Some(tenant.to_string()), Thing::Key).await
        }
    }
}

async fn write_record(connection: &mut AnyConnection, record: &ShareRecord, is_known: bool) -> Result<(), WriteError> {
    let damaged = |column| WriteError::Damaged { thing: Thing::Share, column };
    let settings = serde_json::to_string(&record.settings).map_err(|_| damaged("settings"))?;
    let generation = i64::try_from(record.generation).map_err(|_| damaged("generation"))?;
    let member_of = record.settings.organisation.map(|organisation| organisation.to_string());
    if is_known {
        sqlx::query(
            "UPDATE shares SET generation = $1, settings = $2, member_of = $3 WHERE scope = $4 AND subject = $5",
        )
        .bind(generation)
        .bind(settings)
        .bind(member_of)
        .bind(scope(record.subject))
        .bind(record.subject.to_string())
        .execute(connection)
        .await?;
        return Ok(());
    }
    let (mut organisation, mut deployment, mut key) = (None, None, None);
    match record.subject {
        ShareSubject::Organisation(id) => organisation = Some(id.to_string()),
        ShareSubject::Tenant(_) => {}
        ShareSubject::Deployment(_, id) => deployment = Some(id.to_string()),
        ShareSubject::Key(_, id) => key = Some(id.to_string()),
    }
    sqlx::query(
        "INSERT INTO shares (scope, subject, of_organisation, of_tenant, of_deployment, of_key, member_of, generation,
             settings)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(scope(record.subject))
    .bind(record.subject.to_string())
    .bind(organisation)
    .bind(record.subject.tenant().map(|tenant| tenant.to_string()))
    .bind(deployment)
    .bind(key)
    .bind(member_of)
    .bind(generation)
    .bind(settings)
    .execute(connection)
    .await?;
    Ok(())
}

const fn scope(subject: ShareSubject) -> &'static str {
    match subject {
        ShareSubject::Organisation(_) => "organisation",
        ShareSubject::Tenant(_) => "tenant",
        ShareSubject::Deployment(..) => "deployment",
        ShareSubject::Key(..) => "key",
    }
}
