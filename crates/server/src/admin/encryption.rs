//! How files are encrypted, and the work that new keys make: rotations, and one job at a time that writes files or keys anew.

use std::sync::Arc;
use std::time::Duration;

use tenantry_store::{
    BackendError, EncryptionSummary, KeyGeneration, ReadError, Rekeyed, SealedFiles, Store, WriteError,
};
use tenantry_types::{Action, ErrorCode, ServiceError, TenantId, TenantName};

use crate::audit::Deed;
use crate::server::{storage, unix_ms};
use crate::{Principal, Server, auth};

/// The longest a caller may wait for a job in one call.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How the whole server's files are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionInfo {
    /// What the store says.
    pub summary: EncryptionSummary,
    /// The job that runs, or the last one.
    pub job: Option<EncryptionJob>,
}

/// How a tenant's files are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantEncryption {
    /// Whose.
    pub tenant: TenantName,
    /// The generations of its keys, oldest first.
    pub generations: Vec<KeyGeneration>,
    /// Its files.
    pub files: SealedFiles,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionJobKind {
    /// Writes files anew under their tenants' newest keys.
    Rekey,
    /// Has the master key wrap the tenants' keys anew.
    Rewrap,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncryptionJobState {
    /// It runs.
    Running,
    /// It is through.
    Done,
    /// It stopped; doing it again goes on. The server's log says why.
    Failed,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncryptionJob {
    /// Counted from 1 since the server started.
    pub number: u64,
    /// What it does.
    pub kind: EncryptionJobKind,
    /// For whom; none: for everybody.
    pub tenant: Option<TenantName>,
    /// How far it is.
    pub state: EncryptionJobState,
    /// Why it stopped, if it did.
    pub error: Option<String>,
    /// Tenants it is through with, and how many there are. Of a rewrap: keys.
    pub done: u64,
    /// See `done`.
    pub total: u64,
    /// Files it looked at.
    pub files: u64,
    /// What it did to them.
    pub rekeyed: Rekeyed,
    /// Tenants that old generations are left of.
    pub tenants_left: u64,
    /// When it began.
    pub started_ms: i64,
    /// When it ended, if it did.
    pub ended_ms: Option<i64>,
}

impl Server {
    /// How files are encrypted. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 503 when the database or the keeper of the master key does not answer.
    pub async fn encryption(&self, principal: &Principal) -> Result<EncryptionInfo, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        let summary = self.store.encryption().await.map_err(|error| match error {
            // The operator can do something about it, and nobody else reads this.
            ReadError::Unavailable(BackendError::MasterKey(error)) => {
                ServiceError::new(ErrorCode::Unavailable, error.to_string())
            }
            error => storage(error),
        })?;
        Ok(EncryptionInfo { summary, job: self.encryption_job.borrow().clone() })
    }

    /// How a tenant's files are encrypted. For its admins.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant.
    pub async fn tenant_encryption(
        &self,
        principal: &Principal,
        tenant: &TenantName,
    ) -> Result<TenantEncryption, ServiceError> {
        let id = auth::tenant(&self.routing.load(), principal, tenant, Action::EncryptionRead)?.id;
        let generations = self.store.key_generations(id).await.map_err(storage)?;
        let files = self.store.sealed_files(id).await.map_err(storage)?;
        Ok(TenantEncryption { tenant: tenant.clone(), generations, files })
    }

    /// Makes a new key for what a tenant's files are encrypted with from now on. For its admins.
    ///
    /// # Errors
    /// 403 for a role that may not, 404 for another tenant, 429 where there are too many generations, which a rekey removes.
    pub async fn rotate_tenant_key(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: &TenantName,
    ) -> Result<TenantEncryption, ServiceError> {
        let routed = auth::tenant(&self.routing.load(), principal, tenant, Action::EncryptionWrite).map(Arc::clone)?;
        let deed = Deed::of(&routed, "encryption.rotate", tenant);
        let id = routed.id;
        let rotate = async move |store: Store| store.rotate_data_key(id, unix_ms()).await.map_err(storage);
        self.write_audited(principal, deed, rotate).await?;
        self.tenant_encryption(principal, tenant).await
    }

    /// Makes a new master key, where its keeper makes one, and begins to wrap the tenants' keys anew. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 409 while another job runs. What the keeper of the master key says is said of the job.
    pub async fn rotate_master_key(self: &Arc<Self>, principal: &Principal) -> Result<EncryptionJob, ServiceError> {
        auth::platform(principal, Action::PlatformWrite)?;
        self.is_encryption_free()?;
        self.audit_first(principal, Deed::of_platform("encryption.rotate_master", "master key")).await?;
        let job = self.begin_encryption(EncryptionJobKind::Rewrap, None)?;
        // All of it in the job, which goes on to its end even if nobody waits for this any more.
        self.run_encryption(async move |server| {
            let master_key = server.store.rotate_master_key().await?;
            tracing::info!(master_key, "the master key is rotated");
            server.rewrap().await
        });
        Ok(job)
    }

    /// Begins to write files anew that are not encrypted with their tenant's newest key: one tenant's, or everybody's. For
    /// platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 404 for a tenant there is not, 409 while another job runs or where files are not encrypted.
    pub async fn rekey(
        self: &Arc<Self>,
        principal: &Principal,
        tenant: Option<TenantName>,
    ) -> Result<EncryptionJob, ServiceError> {
        auth::platform(principal, Action::PlatformWrite)?;
        self.is_encryption_free()?;
        let tenants: Vec<TenantId> = {
            let routing = self.routing.load();
            match &tenant {
                Some(name) => vec![auth::tenant(&routing, principal, name, Action::EncryptionWrite)?.id],
                None => routing.tenants.keys().copied().collect(),
            }
        };
        if !self.store.encryption().await.map_err(storage)?.is_on {
            return Err(ServiceError::new(ErrorCode::Conflict, "files are not encrypted; set `encryption.enabled`"));
        }
        let whose = tenant.as_ref().map_or_else(|| "every tenant".to_owned(), ToString::to_string);
        self.audit_first(principal, Deed::of_platform("encryption.rekey", whose)).await?;
        let job = self.begin_encryption(EncryptionJobKind::Rekey, tenant)?;
        self.run_encryption(async move |server| server.rekey_all(tenants).await);
        Ok(job)
    }

    /// The job that runs, or the last one; with `wait`, once it has ended or the time is over. For platform admins.
    ///
    /// # Errors
    /// 403 for other roles, 404 where there was none since the server started.
    pub async fn encryption_job(
        &self,
        principal: &Principal,
        wait: Option<Duration>,
    ) -> Result<EncryptionJob, ServiceError> {
        auth::platform(principal, Action::PlatformRead)?;
        let mut changes = self.encryption_job.subscribe();
        let is_over =
            |job: &Option<EncryptionJob>| job.as_ref().is_none_or(|job| job.state != EncryptionJobState::Running);
        // Either way what there is then is the answer.
        let _ = tokio::time::timeout(wait.unwrap_or_default().min(MAX_WAIT), changes.wait_for(is_over)).await;
        let job = self.encryption_job.borrow().clone();
        job.ok_or_else(|| ServiceError::new(ErrorCode::NotFound, "there was no such job since the server started"))
    }

    fn is_encryption_free(&self) -> Result<(), ServiceError> {
        match &*self.encryption_job.borrow() {
            Some(EncryptionJob { state: EncryptionJobState::Running, .. }) => Err(ServiceError::new(
                ErrorCode::Conflict,
                "another rotation or rekey runs; try again when it has ended (`tenantry encryption status`)",
            )),
            _ => Ok(()),
        }
    }

    /// Takes the one place for a job.
    fn begin_encryption(
        &self,
        kind: EncryptionJobKind,
        tenant: Option<TenantName>,
    ) -> Result<EncryptionJob, ServiceError> {
        let mut begun = None;
        self.encryption_job.send_if_modified(|job| {
            if job.as_ref().is_some_and(|job| job.state == EncryptionJobState::Running) {
                return false;
            }
            let next = EncryptionJob {
                number: job.as_ref().map_or(0, |job| job.number) + 1,
                kind,
                tenant,
                state: EncryptionJobState::Running,
                error: None,
                done: 0,
                total: 0,
                files: 0,
                rekeyed: Rekeyed::default(),
                tenants_left: 0,
                started_ms: unix_ms(),
                ended_ms: None,
            };
            begun = Some(next.clone());
            *job = Some(next);
            true
        });
        match begun {
            Some(job) => Ok(job),
            None => self.is_encryption_free().and(Err(ServiceError::internal())),
        }
    }

    /// Runs a job that has taken its place, to its end or to the server's.
    fn run_encryption<F>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = Result<(), WriteError>> + Send + 'static,
    {
        let (server, working) = (Arc::clone(self), work(Arc::clone(self)));
        let to_its_end = async move {
            // In a task of its own, so that a job that breaks does not keep its place.
            let outcome = tokio::spawn(working)
                .await
                .unwrap_or_else(|error| Err(WriteError::WrongState(format!("it broke: {error}"))));
            server.end_encryption(outcome.as_ref().copied());
        };
        tokio::spawn(crate::server::until_ended(self, to_its_end));
    }

    fn end_encryption(&self, outcome: Result<(), &WriteError>) {
        if let Err(error) = outcome {
            tracing::error!(error = error as &dyn std::error::Error, "a rotation or rekey stopped");
        }
        self.change_encryption(|job| {
            job.ended_ms = Some(unix_ms());
            job.error = outcome.err().map(shown);
            job.state = if outcome.is_ok() { EncryptionJobState::Done } else { EncryptionJobState::Failed };
            tracing::info!(
                number = job.number,
                files = job.rekeyed.files,
                bytes = job.rekeyed.bytes,
                damaged = job.rekeyed.damaged,
                "a rotation or rekey has ended"
            );
        });
    }

    fn change_encryption(&self, change: impl FnOnce(&mut EncryptionJob)) {
        self.encryption_job.send_modify(|job| {
            if let Some(job) = job {
                change(job);
            }
        });
    }

    async fn rewrap(&self) -> Result<(), WriteError> {
        let told = |done, total| self.change_encryption(|job| (job.done, job.total) = (done, total));
        self.store.rewrap(told).await.map(|_| ())
    }

    async fn rekey_all(&self, tenants: Vec<TenantId>) -> Result<(), WriteError> {
        self.change_encryption(|job| job.total = tenants.len() as u64);
        for tenant in tenants {
            let before = self.encryption_job.borrow().as_ref().map_or(0, |job| job.files);
            let told = |through: SealedFiles, _| self.change_encryption(|job| job.files = before + through.files);
            match self.store.rekey(tenant, told).await {
                Ok(done) => self.change_encryption(|job| add(job, done)),
                // It was deleted meanwhile.
                Err(WriteError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
            self.change_encryption(|job| job.done += 1);
        }
        Ok(())
    }
}

/// Why a job stopped, for the operator: what the keeper of the master key says, he can do something about.
fn shown(error: &WriteError) -> String {
    match error {
        WriteError::Unavailable(BackendError::MasterKey(error)) => error.to_string(),
        error => error.to_string(),
    }
}

fn add(job: &mut EncryptionJob, done: Rekeyed) {
    job.rekeyed.files += done.files;
    job.rekeyed.bytes += done.bytes;
    job.rekeyed.damaged += done.damaged;
    job.rekeyed.generations_gone += done.generations_gone;
    job.rekeyed.generations_left += done.generations_left;
    job.tenants_left += u64::from(done.generations_left > 0);
}
