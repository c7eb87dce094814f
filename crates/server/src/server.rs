//! The service: what it owns, how it starts, follows changes and ends.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tenantry_bill::Parties;
use tenantry_node::Layer;
use tenantry_node::Node;
use tenantry_policy::PolicyError;
use tenantry_sched::Subject;
use tenantry_store::{Bookkeeper, Ledger, LedgerError, OpenError, ReadError, Store, WriteError};
use tenantry_types::{ErrorCode, KeyId, ModelRef, MonotonicTime, ReplicaId, RequestId, ServiceError, TenantId};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::admin::EncryptionJob;
use crate::audit::{PendingIncidents, Refusals};
use crate::auth::Access;
use crate::bootstrap::BootstrapError;
use crate::budget::BudgetBook;
use crate::cache::ResponseCache;
use crate::config::{IdentitySettings, Limits};
use crate::identity::{Identity, TokenKeyError};
use crate::limits::{Gate, NarrowGates, RateState, ServerLoad, reason};
use crate::metrics::{BarrierLabels, Metrics};
use crate::residency::Residences;
use crate::routing::Routing;
use crate::sequences::Sequences;
use crate::shares::SlotGroups;
use crate::{Permit, Principal, audit, bootstrap, budget, cache, meter, reconciler, registration, shares};

/// How long after a routing table that could not be read the next try comes.
const REFRESH_RETRY: Duration = Duration::from_secs(1);
/// When a write or read that met a busy or broken store may be tried again.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The most admin writes at one time, those whose callers went away included. The store takes one after the other anyway;
/// the rest is so that removing a tenant's many files holds up nobody else.
const MAX_WRITES: u32 = 8;
/// How often it is written down when keys were last used.
const NOTE_KEYS_EVERY: Duration = Duration::from_secs(60);
/// How often files nothing refers to are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// What the composition root decides for the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The folder in which the first start leaves `admin.key`.
    pub data_dir: PathBuf,
    /// Who sells what is used.
    pub billing: Parties,
    /// Who is believed besides the holders of keys.
    pub identity: IdentitySettings,
    /// What the service bounds.
    pub limits: Limits,
}

/// Why the service did not start. For the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be opened or read.
    #[error("the store cannot be read")]
    Store(#[from] ReadError),
    /// The store could not be opened.
    #[error("the store cannot be opened")]
    Open(#[from] OpenError),
    /// The first tenant and key could not be made.
    #[error("the first administrator's key cannot be made")]
    Bootstrap(#[from] BootstrapError),
    /// The usage ledger could not be opened.
    #[error("the usage ledger cannot be opened")]
    Ledger(#[from] LedgerError),
    /// The key of the server's own tokens could be neither read nor made.
    #[error("the server's tokens cannot be signed")]
    TokenKey(#[from] TokenKeyError),
    /// The policies of the roles could not be read.
    #[error("the policies of the roles cannot be read; this is a fault of the program")]
    Policies(#[from] PolicyError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// The service every edge calls. Made by [`Server::start`].
#[derive(Debug)]
pub struct Server {
    pub(crate) limits: Arc<Limits>,
    pub(crate) store: Store,
    pub(crate) node: Arc<Node>,
    pub(crate) routing: ArcSwap<Routing>,
    /// What roles come to.
    pub(crate) access: Access,
    pub(crate) identity: Identity,
    /// When keys were last used, as it was written down by this start.
    pub(crate) noted_keys: Mutex<HashMap<KeyId, i64>>,
    pub(crate) metrics: Metrics,
    pub(crate) cache: ResponseCache,
    pub(crate) sequences: Sequences,
    /// Where usage is recorded; none where it is not.
    pub(crate) ledger: Option<Arc<Ledger>>,
    /// Held by whoever brings them up to the log.
    pub(crate) books: tokio::sync::Mutex<Option<Bookkeeper>>,
    /// What tenants may use in a period.
    pub(crate) budgets: BudgetBook,
    pub(crate) residences: Residences,
    /// Who sells what is used.
    pub(crate) parties: Parties,
    /// The revision of the routing table in force; whoever waits for a change of desired state waits on it.
    pub(crate) routed: watch::Sender<u64>,
    /// Replicas that somebody waits to see unloaded.
    pub(crate) let_go: Mutex<Vec<ReplicaId>>,
    load: Arc<ServerLoad>,
    /// Held by whoever builds the next routing table, so that an older one never replaces a newer one.
    refreshing: tokio::sync::Mutex<()>,
    /// The node's incidents on their way into the audit trail; held by whoever writes them.
    pub(crate) incidents: tokio::sync::Mutex<PendingIncidents>,
    /// The rotation or rekey that runs, or the last one.
    pub(crate) encryption_job: watch::Sender<Option<EncryptionJob>>,
    /// Held by whoever verifies the audit trail.
    pub(crate) verifying: tokio::sync::Mutex<()>,
    /// Refused accesses on their way into it.
    pub(crate) refusals: Refusals,
    stale: Notify,
    /// One place for each admin write that runs; see [`Server::write`].
    writes: Arc<Semaphore>,
    draining: AtomicBool,
    ended: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    request_seed: u64,
    requests: AtomicU64,
}

impl Server {
    /// Starts the service: makes the operator's tenant and key on the first start, reads the routing table, and begins to
    /// reconcile and to register what was left unregistered.
    ///
    /// # Errors
    /// [`StartError`] when the store cannot be used.
    pub async fn start(config: ServerConfig, store: Store, node: Arc<Node>) -> Result<Arc<Self>, StartError> {
        bootstrap::ensure_operator(&store, &config.data_dir, unix_ms()).await?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|_| StartError::Random)?;
        let catalogue = store.catalogue().await?;
        let groups = SlotGroups::new(&config.limits.slot_groups);
        if let Err(arithmetic) = shares::check_reservations(&catalogue.shares, &groups, &node.slot_groups()) {
            tracing::warn!(
                "the reservations do not fit the slots there are now, and some will not be kept: {arithmetic}"
            );
        }
        let access = Access::new()?;
        let identity = Identity::open(config.identity.clone(), &config.data_dir)?;
        let routing = Routing::build(catalogue, &Routing::default(), &config.limits, &access);
        let (ledger, books) = meter::open(&config, &store)?;
        node.set_shares(shares::changes(&BTreeMap::new(), &routing.shares));
        node.set_minimums(routing.minimums());
        node.set_worker_limits(routing.worker_limits());
        node.set_tenant_names(|| tenant_names(&routing));
        let max_cache_bytes = config.limits.max_cache_bytes;
        let server = Arc::new(Self {
            routed: watch::Sender::new(routing.revision),
            routing: ArcSwap::from_pointee(routing),
            access,
            identity,
            noted_keys: Mutex::default(),
            sequences: Sequences::new(config.limits.tenant_max_sequences as usize, config.limits.sequence_idle),
            ledger,
            books: tokio::sync::Mutex::new(books),
            budgets: BudgetBook::default(),
            residences: Residences::default(),
            parties: config.billing,
            limits: Arc::new(config.limits),
            store,
            node,
            metrics: Metrics::new(),
            cache: ResponseCache::new(max_cache_bytes),
            let_go: Mutex::default(),
            load: Arc::default(),
            refreshing: tokio::sync::Mutex::default(),
            incidents: tokio::sync::Mutex::default(),
            encryption_job: watch::Sender::new(None),
            verifying: tokio::sync::Mutex::default(),
            refusals: Refusals::default(),
            stale: Notify::new(),
            writes: Arc::new(Semaphore::new(MAX_WRITES as usize)),
            draining: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            tasks: Mutex::default(),
            request_seed: u64::from_le_bytes(seed),
            requests: AtomicU64::new(0),
        });
        server.node.set_load_meters(Arc::new(meter::Loads(Arc::downgrade(&server))));
        // What an earlier start left open is closed before anything is asked for.
        server.sync_ledger(false).await;
        server.open_budgets().await?;
        let tasks = vec![
            tokio::spawn(until_ended(&server, Arc::clone(&server).keep_books())),
            tokio::spawn(until_ended(&server, reconciler::run(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, registration::run(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, follow(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, sweep(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, cache::sweep(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, audit::run(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, audit::run_refusals(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, forget_sequences(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, note_keys(Arc::clone(&server)))),
            tokio::spawn(until_ended(&server, budget::run(Arc::clone(&server)))),
        ];
        let refreshes = server.identity.refreshes().into_iter().enumerate();
        let refresh =
            |(issuer, every)| tokio::spawn(until_ended(&server, refresh_keys(Arc::clone(&server), issuer, every)));
        *server.tasks.lock() = tasks.into_iter().chain(refreshes.map(refresh)).collect();
        Ok(server)
    }

    /// A fresh id for a request. The edge makes one on arrival, so that refusals have one too.
    pub fn new_request_id(&self) -> RequestId {
        // Unique by counter, unlike those of other starts by seed; nobody has to be unable to guess it.
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        let [a, b, c, d, e, f, g, h] = mix(self.request_seed.wrapping_add(count)).to_be_bytes();
        let [i, j, ..] = self.request_seed.to_be_bytes();
        RequestId::from_parts(u64::try_from(unix_ms()).unwrap_or(0), [a, b, c, d, e, f, g, h, i, j])
    }

    /// Takes a place for one request to `model`, from its headers alone. `content_length`: `None` when not announced; then
    /// [`Permit::grow`] counts the body as it comes. The request's time starts here.
    ///
    /// # Errors
    /// 503 where its workers would be kept apart less well than is demanded, 413 beyond the largest body, 429 beyond the limits of tenant, deployment and key, 503 beyond the server's or while
    /// it drains.
    pub fn admit(
        &self,
        principal: &Principal,
        model: &ModelRef,
        content_length: Option<u64>,
    ) -> Result<Permit, ServiceError> {
        let outcome = match self.check_call(principal, model) {
            Err(below) => Err(below),
            Ok(()) => self.take_place(principal, self.narrow_gates(principal, model), content_length),
        };
        outcome.inspect_err(|error| self.count_refusal(principal, error))
    }

    /// The same for a request that names its model, if it has one, in its body only.
    ///
    /// # Errors
    /// As for [`Server::admit`], but for what concerns the model and its deployment.
    pub fn admit_unnamed(&self, principal: &Principal, content_length: Option<u64>) -> Result<Permit, ServiceError> {
        let outcome = self.take_place(principal, self.key_gate(principal), content_length);
        outcome.inspect_err(|error| self.count_refusal(principal, error))
    }

    /// Holds a request that was admitted without its model to the bounds of that model's deployment.
    ///
    /// # Errors
    /// 503 where its workers would be kept apart less well than is demanded, 413 and 429 beyond the deployment's limits.
    pub fn narrow(&self, principal: &Principal, permit: &mut Permit, model: &ModelRef) -> Result<(), ServiceError> {
        let enter = |permit: &mut Permit| {
            self.check_call(principal, model)?;
            match self.deployment_gate(principal, model) {
                Some(gate) => permit.enter(gate, self.node.now()),
                None => Ok(()),
            }
        };
        enter(permit).inspect_err(|error| self.count_refusal(principal, error))
    }

    /// How much is left of the request rate of the caller's tenant or key, whichever has less left; none where neither has
    /// one.
    pub fn request_rate(&self, principal: &Principal) -> Option<RateState> {
        principal.routed().gate.rate(&self.key_gate(principal), self.node.now())
    }

    /// The time since the server started: for measuring durations.
    pub fn now(&self) -> MonotonicTime {
        self.node.now()
    }

    fn take_place(
        &self,
        principal: &Principal,
        narrow: NarrowGates,
        content_length: Option<u64>,
    ) -> Result<Permit, ServiceError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(ServiceError::new(ErrorCode::Unavailable, "the server is shutting down; try again shortly")
                .because(reason::DRAINING)
                .retry_after(STORE_RETRY));
        }
        let tenant = &principal.routed().gate;
        Permit::take(tenant, narrow, &self.load, self.limits.max_bodies_bytes, content_length, self.node.now())
    }

    /// Refuses a call whose worker would be below its minimum. A model there is not is somebody else's to refuse.
    fn check_call(&self, principal: &Principal, model: &ModelRef) -> Result<(), ServiceError> {
        let routing = self.routing.load();
        match routing.model(principal.tenant, &principal.tenant_name, model) {
            Ok(routed) => self.check_minimum(routed.demanded_by(&routing, principal), model),
            Err(_) => Ok(()),
        }
    }

    /// The gates of the deployment and the key.
    fn narrow_gates(&self, principal: &Principal, model: &ModelRef) -> NarrowGates {
        self.deployment_gate(principal, model).into_iter().chain(self.key_gate(principal)).collect()
    }

    /// The table is asked only where the tenant has settings for a deployment.
    fn deployment_gate(&self, principal: &Principal, model: &ModelRef) -> Option<Arc<Gate>> {
        let tenant = principal.routed();
        if tenant.deployments.is_empty() {
            return None;
        }
        let routing = self.routing.load();
        let model = routing.model(principal.tenant, &principal.tenant_name, model).ok()?;
        tenant.deployments.get(&model.deployment.id).map(|share| Arc::clone(&share.gate))
    }

    fn key_gate(&self, principal: &Principal) -> NarrowGates {
        principal.routed().keys.get(&principal.key).map(|share| Arc::clone(&share.gate)).into_iter().collect()
    }

    /// Whether the server takes requests.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    /// The largest upload, bytes.
    pub fn max_upload_bytes(&self) -> u64 {
        self.limits.max_model_bytes
    }

    /// The metrics in the OpenMetrics text format.
    pub fn metrics_text(&self) -> String {
        let _alone = self.metrics.reading.lock();
        let stats = self.node.stats();
        let gauges = &self.metrics.gauges;
        let whole = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        gauges.workers.set(whole(stats.workers.len() as u64));
        gauges.replicas.set(stats.workers.iter().map(|worker| i64::from(worker.replicas)).sum());
        gauges.queued_tasks.set(whole(stats.queued_tasks));
        gauges.sequences.set(whole(self.sequences.count() as u64));
        gauges.queued_bytes.set(whole(stats.queued_bytes));
        gauges.running_batches.set(whole(stats.running_batches));
        gauges.slots.set(i64::from(stats.slots));
        gauges.cache_bytes.set(whole(self.cache.bytes()));
        gauges.clear_bytes.set(whole(self.store.clear_bytes().0));
        gauges.registering.set(whole(registration::waiting(&self.routing.load()).len() as u64));
        let isolation = self.node.isolation();
        gauges.isolation_level.set(isolation.level() as i64);
        gauges.isolation_minimum.set(self.node.configured_minimum() as i64);
        gauges.models_below_minimum.set(whole(self.models_below_minimum(&self.routing.load()) as u64));
        for layer in Layer::ALL {
            let labels = BarrierLabels { barrier: layer.name() };
            gauges.barriers.get_or_create(&labels).set(isolation.in_force.has(layer).into());
        }
        self.count_charges();
        self.show_budgets();
        let counted = [
            (&gauges.worker_deaths, stats.worker_deaths),
            (&gauges.suspensions, stats.suspensions),
            (&gauges.aborted_batches, stats.aborted_batches),
            (&gauges.dropped_records, stats.dropped_records),
        ];
        for (counter, total) in counted {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.metrics.encode()
    }

    /// Takes over what the scheduler has charged each tenant.
    fn count_charges(&self) {
        let routing = self.routing.load();
        for usage in self.node.usage() {
            if let Subject::Tenant(tenant) = usage.subject
                && let Some(tenant) = routing.tenants.get(&tenant)
            {
                self.metrics.charged(tenant.name.as_str(), usage.charged);
            }
        }
    }

    /// Stops admitting, lets what runs finish for at most `limit`, ends the workers, then everything else.
    pub async fn drain(&self, limit: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        self.routed.send_modify(|_| {});
        self.node.drain(limit).await;
        self.ended.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            // A task that panicked was logged by the runtime; it ends here like the others.
            let _ = task.await;
        }
        self.residences.end();
        // What was recorded while requests ended.
        self.sync_ledger(true).await;
        // What the last workers died of; the error of a store that does not take it is in the log.
        let _ = self.record_incidents().await;
        self.record_refusals().await;
        self.note_keys_used().await;
        // What cannot be told now is told by the next start.
        let _ = self.tell_thresholds().await;
        // Writes under way end, whoever still waits for them; the store bounds how long that takes.
        let _ended = self.writes.acquire_many(MAX_WRITES).await;
        self.store.close().await;
    }

    /// Runs an admin write and then makes the routing table show it, so that it is in force when its caller hears of it.
    ///
    /// Once begun, it goes on to its end in a task of its own: an edge drops its handler when the client disconnects, and
    /// a key that is revoked in the store must not stay good in the table because of that. Every admin write is one call
    /// of this, from its first check against the store to its last change.
    ///
    /// # Errors
    /// The write's own; 503 when the table cannot be read anew.
    pub(crate) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl Future<Output = Result<T, ServiceError>> + Send + 'static,
    ) -> Result<T, ServiceError> {
        // Waited for here, where a caller that goes away gives up its turn.
        let place = Arc::clone(&self.writes).acquire_owned().await.map_err(|_| ServiceError::internal())?;
        let server = Arc::clone(self);
        let to_its_end = async move {
            let _place = place;
            let outcome = write.await;
            // After an error, too: an earlier part of the write, or even all of it, may have been committed.
            let shown = server.refresh().await;
            outcome.and_then(|value| shown.map(|()| value))
        };
        tokio::spawn(to_its_end.in_current_span()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "an admin write failed");
            Err(ServiceError::internal())
        })
    }

    /// Makes the routing table show everything committed so far.
    ///
    /// # Errors
    /// 503 when the store cannot be read; it is tried again until it can.
    pub(crate) async fn refresh(&self) -> Result<(), ServiceError> {
        let outcome = self.try_refresh().await;
        if outcome.is_err() {
            self.stale.notify_one();
        }
        outcome.map_err(storage)
    }

    async fn try_refresh(&self) -> Result<(), ReadError> {
        let _one = self.refreshing.lock().await;
        // Whoever held the lock before may have read our write, too.
        if self.store.revision().await? == self.routing.load().revision {
            return Ok(());
        }
        let catalogue = self.store.catalogue().await?;
        let previous = self.routing.load_full();
        let next = Arc::new(Routing::build(catalogue, &previous, &self.limits, &self.access));
        let revision = next.revision;
        // First: whoever finds the new table finds its minimums in force.
        self.node.set_minimums(next.minimums());
        self.node.set_worker_limits(next.worker_limits());
        self.routing.store(Arc::clone(&next));
        let told = shares::changes(&previous.shares, &next.shares);
        if !told.is_empty() {
            self.node.set_shares(told);
        }
        self.node.set_tenant_names(|| tenant_names(&next));
        let gone = previous.gone_in(&next);
        for version in &gone {
            self.node.retire(*version);
        }
        if !gone.is_empty() {
            self.sequences.sweep(self.node.now(), &gone);
        }
        self.forget(&previous, &next, !gone.is_empty());
        if cache::takes_away(&previous, &next) {
            self.sweep_cache(&next);
        }
        self.routed.send_replace(revision);
        Ok(())
    }

    /// Drops the series and statistics of tenants, models and versions that are gone.
    fn forget(&self, previous: &Routing, next: &Routing, fewer_versions: bool) {
        let fewer_tenants = previous.tenants.keys().any(|tenant| !next.tenants.contains_key(tenant));
        let names: std::collections::HashSet<&str> = next.models().map(|model| &*model.full_name).collect();
        let fewer_models = previous.models().any(|model| !names.contains(&*model.full_name));
        for (tenant, gone) in &previous.tenants {
            if !next.tenants.contains_key(tenant) {
                self.metrics.forget_tenant(gone.name.as_str());
            }
        }
        if fewer_tenants {
            self.budgets.retain(|tenant| next.tenants.contains_key(&tenant));
        }
        if fewer_tenants || fewer_versions {
            for model in next.models() {
                let known =
                    |tenant, version| next.tenants.contains_key(&tenant) && model.versions.contains_key(&version);
                model.statistics.retain(known);
            }
        }
        if fewer_tenants || fewer_models {
            self.metrics.retain(|tenant, model| {
                next.tenants.contains_key(&tenant) && model.is_none_or(|model| names.contains(model))
            });
        }
    }
}

/// Runs a task until the server ends.
pub(crate) fn until_ended(
    server: &Server,
    task: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let mut ended = server.ended.subscribe();
    async move {
        tokio::select! {
            () = task => {}
            // The sender lives as long as the server, which the task itself keeps.
            _ = ended.wait_for(|ended| *ended) => {}
        }
    }
}

/// Catches up whenever a refresh failed.
async fn follow(server: Arc<Server>) {
    loop {
        server.stale.notified().await;
        while let Err(error) = server.try_refresh().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the routing table is stale; trying again");
            tokio::time::sleep(REFRESH_RETRY).await;
        }
    }
}

/// Removes what abandoned uploads leave over. Opening the store did so once already.
async fn sweep(server: Arc<Server>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        match server.store.sweep(unix_ms()).await {
            Ok(swept) => tracing::info!(files = swept.files, bytes = swept.bytes, "swept unreferenced artefacts"),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the sweep failed"),
        }
        if let Err(error) = server.prune_audit().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "old audit records could not be removed");
        }
    }
}

/// Reads an issuer's keys, for as long as the server runs.
async fn refresh_keys(server: Arc<Server>, issuer: usize, every: Duration) {
    loop {
        server.identity.fetch(issuer, server.node.now()).await;
        tokio::time::sleep(every).await;
    }
}

/// Writes down when keys were last used, for as long as the server runs.
async fn note_keys(server: Arc<Server>) {
    loop {
        tokio::time::sleep(NOTE_KEYS_EVERY).await;
        server.note_keys_used().await;
    }
}

/// Forgets the sequences nobody goes on with.
async fn forget_sequences(server: Arc<Server>) {
    loop {
        tokio::time::sleep(server.limits.sequence_idle).await;
        server.sequences.sweep(server.node.now(), &[]);
    }
}

/// A store's error as the caller may see it; what lies below it goes to the log.
pub(crate) fn storage<E>(error: E) -> ServiceError
where
    E: std::error::Error + Into<ServiceError> + 'static,
{
    let shown = error.to_string();
    let source = error.source().map(|source| format!("{source:?}"));
    let mut service_error: ServiceError = error.into();
    match service_error.code {
        ErrorCode::Unavailable => {
            tracing::error!(error = shown, source, "the store failed");
            service_error = service_error.retry_after(STORE_RETRY);
        }
        ErrorCode::Internal => {
            tracing::error!(error = shown, source, "the store failed");
            service_error = ServiceError::internal();
        }
        _ => {}
    }
    service_error
}

/// Whether trying the same write again later can help.
pub(crate) fn is_temporary(error: &WriteError) -> bool {
    matches!(error, WriteError::Unavailable(_))
}

/// The wall clock, milliseconds since the Unix epoch: for expiry and for records.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection, so distinct counts give distinct ids.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What recordings call the tenants.
fn tenant_names(routing: &Routing) -> Vec<(TenantId, String)> {
    routing.tenants.values().map(|tenant| (tenant.id, tenant.name.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_counts_differ() {
        let ids: std::collections::HashSet<u64> = (0..10_000_u64).map(|count| mix(count.wrapping_add(42))).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
