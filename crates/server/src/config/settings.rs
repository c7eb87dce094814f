//! The configuration as meant: units resolved, defaults filled in, contradictions refused.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_bill::Parties;
use tenantry_node::{Layer, Layers, Level, SuspendBy, WorkerStart};
use tenantry_sched::Policy;

use super::encryption::EncryptionSettings;
use super::identity::IdentitySettings;
use super::slots;
use super::transport::{self, TlsSettings};
use super::{BillingTable, ByteSize, Config, Span};

/// The most characters of the names on an invoice.
const MAX_PARTY_CHARS: usize = 200;

/// Values that contradict each other or cannot work. The text names the keys and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {problem}")]
pub struct SettingsError {
    /// The key, with its table.
    pub key: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// Everything the composition root needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder of the database, the artefacts and the first administrator's key.
    pub data_dir: PathBuf,
    /// `sqlite://` or `postgres://`; absent: a SQLite file in `data_dir`.
    pub database_url: Option<String>,
    /// Encryption of tenants' files on the disk.
    pub encryption: EncryptionSettings,
    /// The ONNX Runtime library, when named.
    pub engine_library: Option<PathBuf>,
    /// The edges.
    pub http: HttpSettings,
    /// The worker processes.
    pub workers: WorkerSettings,
    /// How it is chosen what runs next.
    pub scheduler: SchedulerSettings,
    /// Who sells what is used.
    pub billing: Parties,
    /// Who is believed besides the holders of keys.
    pub identity: IdentitySettings,
    /// What the service bounds.
    pub limits: Limits,
    /// What the server writes about itself.
    pub log: LogSettings,
}

/// Where the server listens and what it accepts from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Address of the data plane and the admin API.
    pub listen: SocketAddr,
    /// Address of `/metrics`.
    pub metrics_listen: SocketAddr,
    /// Address of gRPC.
    pub grpc_listen: SocketAddr,
    /// The largest inference body, before and after decompression.
    pub max_body_bytes: u64,
    /// The largest upload.
    pub max_upload_bytes: u64,
    /// The most connections at the same time.
    pub max_connections: u32,
    /// How long a client may take to send a request's headers.
    pub header_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_timeout: Duration,
    /// How long running requests may take to end after SIGTERM.
    pub drain_timeout: Duration,
    /// Encryption; none: plain text.
    pub tls: Option<TlsSettings>,
}

/// The worker processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSettings {
    /// Batches that may run at the same time.
    pub slots: u16,
    /// The processors of each slot; empty: no slot is pinned.
    pub slot_cores: Vec<Vec<usize>>,
    /// Slots for some tenants only, out of all slots.
    pub groups: Vec<SlotGroupSettings>,
    /// The processors workers may use; empty: those of the server.
    pub cpus: Vec<usize>,
    /// The program `tenantry-worker`, when named.
    pub binary: Option<PathBuf>,
    /// How workers are made.
    pub start: WorkerStart,
    /// The least that the barriers around workers must amount to.
    pub min_isolation: Level,
    /// The barriers wanted.
    pub layers: Layers,
    /// Memory of one worker.
    pub memory_bytes: Option<u64>,
    /// Memory the machine is to keep available; 0: not watched.
    pub memory_floor_bytes: u64,
    /// Processes and threads of one worker.
    pub max_processes: u32,
    /// Processor time of one worker, thousandths of a processor.
    pub max_cpu_milli: Option<u32>,
    /// How a worker is stopped in the middle of a run.
    pub suspend_by: SuspendBy,
    /// The largest arena.
    pub max_arena_bytes: u64,
    /// Tasks that may wait for a slot.
    pub max_queued_tasks: usize,
    /// Tasks of one tenant that may wait for a slot.
    pub max_queued_tasks_per_tenant: usize,
    /// Bytes of tensor data that may wait for a slot.
    pub max_queued_bytes: u64,
    /// The longest load.
    pub load_limit: Duration,
    /// The longest registration.
    pub register_limit: Duration,
    /// The most nodes of a model.
    pub max_model_nodes: u32,
    /// How long an input is refused that workers died over.
    pub refuse_poison_for: Duration,
}

/// Slots that only the tenants use which are given them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotGroupSettings {
    /// What tenants' settings call it.
    pub name: String,
    /// How many of the slots are in it.
    pub slots: u16,
}

/// How it is chosen what runs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerSettings {
    /// With which policy the server starts.
    pub policy: Policy,
    /// The longest batch that is formed of several requests.
    pub quantum: Duration,
    /// How far ahead of the others somebody may be served.
    pub window: Duration,
    /// Whether batches may be suspended in their middle.
    pub suspend: bool,
}

/// What the service bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest inference body.
    pub max_body_bytes: u64,
    /// The largest upload, and the largest total of an unpacked archive.
    pub max_model_bytes: u64,
    /// Bytes of bodies held by the whole server.
    pub max_bodies_bytes: u64,
    /// Requests of one tenant in flight.
    pub tenant_max_requests: u32,
    /// Tasks of one tenant that may wait for a slot.
    pub tenant_max_queued_tasks: u32,
    /// Bytes of one tenant's bodies in flight.
    pub tenant_max_bodies_bytes: u64,
    /// Uploads of one tenant at the same time.
    pub tenant_max_uploads: u32,
    /// Bytes of one tenant's answers kept to be given again.
    pub tenant_max_cache_bytes: u64,
    /// Bytes of all tenants' answers kept to be given again.
    pub max_cache_bytes: u64,
    /// Sequences of one tenant in progress at the same time.
    pub tenant_max_sequences: u32,
    /// How long a sequence may be idle.
    pub sequence_idle: Duration,
    /// Timeout of a request that names none.
    pub default_timeout: Duration,
    /// The longest timeout a request may name.
    pub max_timeout: Duration,
    /// The longest run of one batch.
    pub run_limit: Duration,
    /// How long a worker without models may idle.
    pub worker_idle: Duration,
    /// The most worker processes.
    pub max_workers: u32,
    /// Registrations at the same time.
    pub max_registrations: u32,
    /// The names of the slot groups, in the order of the configuration.
    pub slot_groups: Vec<String>,
    /// How long audit records are kept.
    pub audit_keep: Duration,
    /// The most audit records that are kept.
    pub audit_max_records: u64,
    /// Whether usage is recorded.
    pub ledger: bool,
    /// How often usage is brought to the disk and into the database.
    pub ledger_sync: Duration,
}

/// What the server writes about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Filter such as `info,tenantry_node=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Limits {
    /// The limits of a configuration without a file.
    pub fn defaults() -> Self {
        Self::from_config(&Config::default())
    }

    fn from_config(config: &Config) -> Self {
        Self {
            max_body_bytes: config.http.max_body.0,
            max_model_bytes: config.store.max_model.0,
            max_bodies_bytes: config.queue.max_bodies.0,
            tenant_max_requests: config.limits.max_requests,
            tenant_max_queued_tasks: u32::try_from(config.limits.max_queued_tasks).unwrap_or(u32::MAX),
            tenant_max_bodies_bytes: config.limits.max_bodies.0,
            tenant_max_uploads: config.limits.max_uploads,
            tenant_max_cache_bytes: config.limits.max_cache.0,
            max_cache_bytes: config.cache.max_size.0,
            tenant_max_sequences: config.limits.max_sequences,
            sequence_idle: config.limits.sequence_idle.0,
            default_timeout: config.limits.default_timeout.0,
            max_timeout: config.limits.max_timeout.0,
            run_limit: config.workers.run_timeout.0,
            worker_idle: config.workers.idle_after.0,
            max_workers: config.workers.max_workers,
            max_registrations: config.workers.max_registrations,
            slot_groups: config.workers.group.iter().map(|group| group.name.clone()).collect(),
            audit_keep: config.audit.keep.0,
            audit_max_records: config.audit.max_records,
            ledger: config.ledger.enabled,
            ledger_sync: config.ledger.sync_interval.0,
        }
    }
}

/// Who sells what is used, by the configuration.
fn parties(table: &BillingTable) -> Result<Parties, SettingsError> {
    let BillingTable { provider, issuer, service, region } = table;
    let texts = [
        ("billing.provider", Some(provider)),
        ("billing.issuer", issuer.as_ref()),
        ("billing.service", Some(service)),
        ("billing.region", region.as_ref()),
    ];
    for (key, text) in texts {
        let is_good =
            |text: &String| (1..=MAX_PARTY_CHARS).contains(&text.chars().count()) && !text.contains(char::is_control);
        if !text.is_none_or(is_good) {
            let problem = format!("must have from 1 to {MAX_PARTY_CHARS} characters, and no control characters");
            return Err(SettingsError { key, problem });
        }
    }
    Ok(Parties {
        provider: provider.clone(),
        issuer: issuer.as_ref().unwrap_or(provider).clone(),
        region: region.clone(),
        service: service.clone(),
    })
}

impl Settings {
    /// Resolves and checks a configuration.
    ///
    /// # Errors
    /// The first value that contradicts another or cannot work.
    pub fn from_config(config: &Config) -> Result<Self, SettingsError> {
        check(config)?;
        let workers = &config.workers;
        let layout = slots::layout(workers.slots, workers.slot_cores, &slots::processors(&workers.cpus))?;
        slots::check_groups(&workers.group, layout.slots)?;
        Ok(Self {
            billing: parties(&config.billing)?,
            data_dir: config.data_dir.clone(),
            database_url: config.store.database_url.clone(),
            encryption: EncryptionSettings::from_table(&config.encryption, &config.data_dir)?,
            engine_library: config.engine.library.clone(),
            http: HttpSettings {
                listen: config.http.listen,
                metrics_listen: config.http.metrics_listen,
                grpc_listen: config.http.grpc_listen,
                max_body_bytes: config.http.max_body.0,
                max_upload_bytes: config.store.max_model.0,
                max_connections: config.http.max_connections,
                header_timeout: config.http.header_timeout.0,
                body_timeout: config.http.body_timeout.0,
                drain_timeout: config.http.drain_timeout.0,
                tls: TlsSettings::from_table(&config.http)?,
            },
            workers: WorkerSettings {
                slots: layout.slots,
                slot_cores: layout.cores,
                groups: workers
                    .group
                    .iter()
                    .map(|group| SlotGroupSettings { name: group.name.clone(), slots: group.slots })
                    .collect(),
                cpus: workers.cpus.clone(),
                binary: workers.binary.clone(),
                start: workers.start,
                min_isolation: workers.min_isolation,
                layers: Layer::ALL.into_iter().filter(|layer| !workers.without.contains(layer)).collect(),
                memory_bytes: workers.memory.map(|size| size.0),
                memory_floor_bytes: workers.memory_floor.0,
                max_processes: workers.max_processes,
                max_cpu_milli: workers.max_cpu.map(milli),
                suspend_by: workers.suspend_by,
                max_arena_bytes: workers.max_arena.0,
                max_queued_tasks: config.queue.max_tasks,
                max_queued_tasks_per_tenant: config.limits.max_queued_tasks,
                max_queued_bytes: config.queue.max_data.0,
                load_limit: workers.load_timeout.0,
                register_limit: workers.register_timeout.0,
                max_model_nodes: workers.max_model_nodes,
                refuse_poison_for: workers.refuse_poison_for.0,
            },
            identity: IdentitySettings::from_table(&config.identity)?,
            scheduler: SchedulerSettings {
                policy: config.scheduler.policy,
                quantum: config.scheduler.quantum.0,
                window: config.scheduler.window.0,
                suspend: config.scheduler.suspend,
            },
            limits: Limits::from_config(config),
            log: LogSettings { filter: config.log.filter.clone(), format: config.log.format },
        })
    }
}

/// The smallest body a server may insist on: less could not carry the JSON part of an ordinary request.
const MIN_BODY: ByteSize = ByteSize(4096);

/// The fewest processes of a worker: itself, the thread that hears of terminations, and one for the runtime.
const MIN_PROCESSES: u32 = 4;
/// The bounds of a processor ceiling, processors.
const MAX_CPU: std::ops::RangeInclusive<f64> = 0.01..=4096.0;

/// Thousandths of a number within [`MAX_CPU`].
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked: far within the type's bounds")]
fn milli(value: f64) -> u32 {
    (value.clamp(*MAX_CPU.start(), *MAX_CPU.end()) * 1000.0).round() as u32
}

fn check(config: &Config) -> Result<(), SettingsError> {
    let fail = |key, problem: String| Err(SettingsError { key, problem });
    let positive_counts = [
        ("workers.slots", config.workers.slots.map_or(1, u64::from)),
        ("workers.max_workers", u64::from(config.workers.max_workers)),
        ("http.max_connections", u64::from(config.http.max_connections)),
        ("queue.max_tasks", config.queue.max_tasks as u64),
        ("limits.max_requests", u64::from(config.limits.max_requests)),
        ("limits.max_queued_tasks", config.limits.max_queued_tasks as u64),
        ("limits.max_uploads", u64::from(config.limits.max_uploads)),
        ("limits.max_sequences", u64::from(config.limits.max_sequences)),
        ("workers.max_registrations", u64::from(config.workers.max_registrations)),
        ("store.max_model", config.store.max_model.0),
        ("audit.max_records", config.audit.max_records),
        ("workers.max_model_nodes", u64::from(config.workers.max_model_nodes)),
    ];
    if let Some((key, _)) = positive_counts.into_iter().find(|(_, count)| *count == 0) {
        return fail(key, "must be at least 1".to_owned());
    }
    let positive_spans = [
        ("http.header_timeout", config.http.header_timeout),
        ("http.body_timeout", config.http.body_timeout),
        ("workers.load_timeout", config.workers.load_timeout),
        ("workers.register_timeout", config.workers.register_timeout),
        ("workers.run_timeout", config.workers.run_timeout),
        ("limits.default_timeout", config.limits.default_timeout),
        ("limits.sequence_idle", config.limits.sequence_idle),
        ("scheduler.quantum", config.scheduler.quantum),
        ("limits.max_timeout", config.limits.max_timeout),
        ("audit.keep", config.audit.keep),
        ("ledger.sync_interval", config.ledger.sync_interval),
    ];
    if let Some((key, _)) = positive_spans.into_iter().find(|(_, span)| span.0 < Span::millis(1).0) {
        return fail(key, "must be at least \"1ms\"".to_owned());
    }
    if config.workers.max_processes < MIN_PROCESSES {
        return fail("workers.max_processes", format!("must be at least {MIN_PROCESSES}"));
    }
    if config.workers.max_cpu.is_some_and(|value| !MAX_CPU.contains(&value)) {
        return fail("workers.max_cpu", format!("must be from {} to {} processors", MAX_CPU.start(), MAX_CPU.end()));
    }
    if config.http.max_body < MIN_BODY {
        return fail("http.max_body", format!("must be at least \"{MIN_BODY}\""));
    }
    let at_least_one_body =
        [("limits.max_bodies", config.limits.max_bodies), ("queue.max_bodies", config.queue.max_bodies)];
    if let Some((key, _)) = at_least_one_body.into_iter().find(|(_, size)| *size < config.http.max_body) {
        return fail(key, format!("must be at least `http.max_body` ({}), or no body would fit", config.http.max_body));
    }
    // INVARIANT: one request's inputs, each aligned in the arena, fit the largest arena.
    if config.workers.max_arena.0 < config.http.max_body.0.saturating_mul(2) {
        return fail("workers.max_arena", format!("must be at least twice `http.max_body` ({})", config.http.max_body));
    }
    if config.queue.max_data < config.http.max_body {
        return fail("queue.max_data", format!("must be at least `http.max_body` ({})", config.http.max_body));
    }
    if config.limits.default_timeout > config.limits.max_timeout {
        return fail("limits.default_timeout", "must not exceed `limits.max_timeout`".to_owned());
    }
    transport::check_plain_text(&config.http)?;
    if config.data_dir.as_os_str().is_empty() {
        return fail("data_dir", "must name a folder".to_owned());
    }
    Ok(())
}
