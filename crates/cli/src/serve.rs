//! `serve`: the composition root. Nothing else knows all the parts.
//!
//! The order matters: the spawner starts before any thread exists (it dies with the thread that made it, which must be
//! the main one), then the log, then the runtime, then store, node, service and edges. The way down is the reverse.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tenantry_api::{BindError, Listeners, Tls};
use tenantry_jail::{Barriers, Exits, Spawner};
use tenantry_node::{Node, NodeConfig};
use tenantry_sched::{SlotGroup, Tuning};
use tenantry_server::config::{Config, EncryptionSettings, MasterKeySettings, Settings};
use tenantry_server::{Server, ServerConfig};
use tenantry_store::{Store, StoreConfig};
use tenantry_types::model::ModelLimits;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::arguments::Serve;
use crate::{logs, programs};

/// How long the last pieces of work on the runtime may take to end once everything else has.
const RUNTIME_END: Duration = Duration::from_secs(2);

/// Runs the server until SIGTERM or SIGINT.
pub(crate) fn run(arguments: &Serve) -> Result<()> {
    let mut settings = settings(arguments)?;
    settings.log.format = logs::format(arguments.log, settings.log.format);
    let mut process = Process::start(&settings)?;
    process.record_arrivals.clone_from(&arguments.record_arrivals);
    process.record_decisions.clone_from(&arguments.record_decisions);
    logs::to_stderr(&settings.log)?;
    let running = Running::start(process, settings)?;
    announce(&running, arguments.ready_file.as_deref())?;
    running.until_told_to_stop()
}

/// What the configuration and the command line say together.
fn settings(arguments: &Serve) -> Result<Settings> {
    let mut config = read_config(arguments.file.config.as_deref())?;
    if let Some(data_dir) = &arguments.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    config.http.listen = arguments.listen.unwrap_or(config.http.listen);
    config.http.metrics_listen = arguments.metrics_listen.unwrap_or(config.http.metrics_listen);
    config.http.grpc_listen = arguments.grpc_listen.unwrap_or(config.http.grpc_listen);
    config.http.plain_text |= arguments.plain_text;
    Ok(Settings::from_config(&config)?)
}

/// Reads a configuration file; without one every key has its default.
pub(crate) fn read_config(path: Option<&Path>) -> Result<Config> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Config::parse(&text).with_context(|| path.display().to_string())
}

/// What must be there before the first thread: the spawner, and the programs it needs.
pub(crate) struct Process {
    spawner: Spawner,
    exits: Exits,
    library: PathBuf,
    worker_binary: PathBuf,
    /// Where arrivals are recorded.
    record_arrivals: Option<PathBuf>,
    /// Where the scheduler's decisions are recorded.
    record_decisions: Option<PathBuf>,
}

impl Process {
    /// Finds the programs and starts the spawner. Call it from `main`'s thread, before any other thread exists.
    pub(crate) fn start(settings: &Settings) -> Result<Self> {
        let library = programs::engine_library(settings.engine_library.as_deref())?;
        let worker_binary = programs::worker_binary(settings.workers.binary.as_deref())?;
        let (spawner, exits) = Spawner::start(&worker_binary)
            .with_context(|| format!("the spawner did not start from {}", worker_binary.display()))?;
        // After the spawner, which is another program: what this process holds of keys is in no file that a crash leaves.
        tenantry_jail::forbid_core_dumps().context("core dumps cannot be turned off")?;
        Ok(Self { spawner, exits, library, worker_binary, record_arrivals: None, record_decisions: None })
    }

    /// What this machine lets us put up around workers.
    pub(crate) fn barriers(&self) -> &Barriers {
        self.spawner.barriers()
    }

    /// Starts the node on the current runtime.
    pub(crate) fn start_node(self, settings: &Settings) -> Result<Arc<Node>> {
        let (workers, scheduler) = (&settings.workers, &settings.scheduler);
        // Everybody's slots first, so that each group's number is its place in the configuration, counted from 1.
        let dedicated: u16 = workers.groups.iter().map(|group| group.slots).sum();
        let shared = std::iter::repeat_n(SlotGroup::default(), workers.slots.saturating_sub(dedicated).into());
        let groups = workers.groups.iter().zip((1..).map(SlotGroup));
        let groups = groups.flat_map(|(group, number)| std::iter::repeat_n(number, group.slots.into()));
        let config = NodeConfig {
            slots: workers.slots,
            slot_groups: shared.chain(groups).collect(),
            slot_cores: workers.slot_cores.clone(),
            policy: scheduler.policy,
            tuning: Tuning { quantum: scheduler.quantum, window: scheduler.window, ..Tuning::CPU },
            suspend: scheduler.suspend,
            record_arrivals: self.record_arrivals,
            record_decisions: self.record_decisions,
            worker_cpus: workers.cpus.clone(),
            worker_start: workers.start,
            layers: workers.layers,
            min_isolation: workers.min_isolation,
            worker_memory_bytes: workers.memory_bytes,
            memory_floor_bytes: workers.memory_floor_bytes,
            worker_max_processes: workers.max_processes,
            worker_max_cpu_milli: workers.max_cpu_milli,
            suspend_by: workers.suspend_by,
            max_queued_tasks: workers.max_queued_tasks,
            max_queued_bytes: workers.max_queued_bytes,
            max_queued_tasks_per_tenant: workers.max_queued_tasks_per_tenant,
            max_arena_bytes: workers.max_arena_bytes,
            load_limit: workers.load_limit,
            register_limit: workers.register_limit,
            model_limits: ModelLimits { max_nodes: workers.max_model_nodes },
            refuse_poison_for: workers.refuse_poison_for,
            ..NodeConfig::small(self.worker_binary, self.library)
        };
        Ok(Node::start(config, self.spawner, self.exits)?)
    }
}

/// A runtime with as many threads as this process may use processors.
pub(crate) fn runtime() -> Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let built = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    built.context("cannot start the threads of the runtime")
}

/// A server that accepts requests.
pub(crate) struct Running {
    runtime: Runtime,
    settings: Settings,
    store: Store,
    server: Arc<Server>,
    edges: tokio::task::JoinHandle<()>,
    stop: tokio::sync::oneshot::Sender<()>,
    /// Heard from before anybody is told that the server is ready, so that no signal after that is lost.
    signals: Signals,
    /// Where the API is.
    pub(crate) address: SocketAddr,
    /// Where gRPC is.
    pub(crate) grpc_address: SocketAddr,
    /// Where `/metrics` is.
    pub(crate) metrics_address: SocketAddr,
}

impl Running {
    /// Starts everything; when this returns, requests are accepted.
    pub(crate) fn start(process: Process, settings: Settings) -> Result<Self> {
        let runtime = runtime()?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let start = async {
            // First what fails most: a port that is taken.
            let listeners = Listeners::bind(&settings.http).await.map_err(with_hint)?;
            if let Some(tls) = listeners.tls() {
                tokio::spawn(reload_on_hangup(tls, signal(SignalKind::hangup())?));
            }
            let addresses = (listeners.address()?, listeners.grpc_address()?, listeners.metrics_address()?);
            let store_config =
                StoreConfig { database_url: settings.database_url.clone(), data_dir: settings.data_dir.clone() };
            let encryption = settings.encryption.open().context("encryption at rest")?;
            let store = Store::open_encrypted(&store_config, encryption)
                .await
                .with_context(|| format!("the store in {}", settings.data_dir.display()))?;
            tell_of_encryption(&store, &settings.encryption).await?;
            let node = process.start_node(&settings)?;
            // A library that does not load is the operator's to hear of now, not the first tenant's.
            let engine = node.probe().await?;
            tracing::info!(runtime = engine.version, cpu = engine.cpu, "the engine works");
            let config = ServerConfig {
                data_dir: settings.data_dir.clone(),
                billing: settings.billing.clone(),
                identity: settings.identity.clone(),
                limits: settings.limits.clone(),
            };
            let server = Server::start(config, store.clone(), node).await?;
            let shutdown = async {
                // Dropping the other end means the same: stop.
                let _ = stopped.await;
            };
            let edges =
                tokio::spawn(tenantry_api::serve(Arc::clone(&server), listeners, settings.http.clone(), shutdown));
            Ok::<_, anyhow::Error>((store, server, edges, Signals::new()?, addresses))
        };
        let (store, server, edges, signals, addresses) = runtime.block_on(start)?;
        let (address, grpc_address, metrics_address) = addresses;
        Ok(Self { runtime, settings, store, server, edges, stop, signals, address, grpc_address, metrics_address })
    }

    /// Does something at the first SIGTERM or SIGINT from now on.
    pub(crate) fn on_signal(&self, action: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut signals = self.runtime.block_on(async { Signals::new() })?;
        self.runtime.spawn(async move {
            signals.next().await;
            action();
        });
        Ok(())
    }

    /// Waits for SIGTERM or SIGINT, then stops in order. A second one ends the process at once.
    pub(crate) fn until_told_to_stop(mut self) -> Result<()> {
        self.runtime.block_on(self.signals.next());
        tracing::info!(limit = ?self.settings.http.drain_timeout, "told to stop: draining");
        self.on_signal(|| {
            tracing::warn!("told to stop again: not waiting any longer");
            std::process::exit(1);
        })?;
        self.stop()
    }

    /// Stops in order: no new connections, running requests end, workers end, the database is closed.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { runtime, settings, store, server, edges, stop, .. } = self;
        runtime.block_on(async {
            // The edges are gone already if nobody listens.
            let _ = stop.send(());
            let drained = edges.await;
            server.drain(settings.http.drain_timeout).await;
            store.close().await;
            drained.context("the edges broke")
        })?;
        runtime.shutdown_timeout(RUNTIME_END);
        Ok(())
    }
}

/// An address that cannot be had, with what to do about it.
fn with_hint(error: BindError) -> anyhow::Error {
    let kind = match &error {
        BindError::Address { source, .. } => source.kind(),
        BindError::Tls(_) => return error.into(),
    };
    let hint = match kind {
        std::io::ErrorKind::AddrInUse => {
            "\nhint: another program has it (a Tenantry already?); choose another with --listen, --grpc-listen or --metrics-listen"
        }
        std::io::ErrorKind::PermissionDenied => "\nhint: ports below 1024 need privileges; choose a higher one",
        _ => "",
    };
    anyhow::anyhow!("{error}{hint}")
}

/// Says where the master key is, as long as the log is read by somebody who may do something about it.
async fn tell_of_encryption(store: &Store, settings: &EncryptionSettings) -> Result<()> {
    let now = store.encryption().await.context("encryption at rest")?;
    let (keeper, master_key) = (now.kind, now.master_key.as_deref().unwrap_or("none yet"));
    if !now.is_on {
        tracing::warn!(keeper, master_key, data_keys = now.data_keys, "files are not encrypted; see `[encryption]`");
        return Ok(());
    }
    let advice = match &settings.master_key {
        MasterKeySettings::File { is_beside: true, .. } => {
            "the master key is a file in the data folder, beside what it protects: keep a copy of it elsewhere, and name a place \
             outside the folder in `encryption.key_file` if copies of the folder leave this machine"
        }
        MasterKeySettings::File { .. } => "the master key is a file: keep a copy of it elsewhere",
        MasterKeySettings::Environment(_) | MasterKeySettings::Vault { .. } => "",
    };
    tracing::info!(keeper, master_key, data_keys = now.data_keys, advice, "files are encrypted");
    Ok(())
}

/// Reads the certificate again at every SIGHUP.
async fn reload_on_hangup(tls: Arc<Tls>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        tls.reload().await;
    }
}

/// The signals that tell a server to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on. Needs a runtime around it.
    fn new() -> Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The ready line, for whoever started the server.
#[derive(Serialize)]
struct Ready {
    ready: bool,
    url: String,
    grpc_address: String,
    metrics_url: String,
    pid: u32,
}

fn announce(running: &Running, ready_file: Option<&Path>) -> Result<()> {
    use std::io::IsTerminal as _;

    let scheme = |is_encrypted| if is_encrypted { "https" } else { "http" };
    let tls = running.settings.http.tls.as_ref();
    let ready = Ready {
        ready: true,
        url: format!("{}://{}", scheme(tls.is_some()), running.address),
        grpc_address: running.grpc_address.to_string(),
        metrics_url: format!("{}://{}/metrics", scheme(tls.is_some_and(|tls| tls.metrics)), running.metrics_address),
        pid: std::process::id(),
    };
    let line = serde_json::to_string(&ready)?;
    if let Some(path) = ready_file {
        // Renamed into place, so that whoever waits for the file never reads half of it.
        let aside = path.with_extension("new");
        let written = std::fs::write(&aside, format!("{line}\n")).and_then(|()| std::fs::rename(&aside, path));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    if std::io::stdout().is_terminal() {
        println!(
            "Tenantry is ready on {}; gRPC is on {}, metrics are on {}",
            ready.url, ready.grpc_address, ready.metrics_url
        );
    } else {
        println!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tenantry.toml");
        std::fs::write(&file, "data_dir = \"/from/file\"\n[http]\nlisten = \"127.0.0.1:1\"\n").unwrap();
        let mut arguments = Serve::default();
        arguments.file.config = Some(file.clone());
        let from_file = settings(&arguments).unwrap();
        assert_eq!(from_file.data_dir, Path::new("/from/file"));
        assert_eq!(from_file.http.listen.port(), 1);
        arguments.listen = Some(SocketAddr::from(([127, 0, 0, 1], 2)));
        arguments.data_dir = Some("/from/line".into());
        let from_line = settings(&arguments).unwrap();
        assert_eq!(from_line.data_dir, Path::new("/from/line"));
        assert_eq!(from_line.http.listen.port(), 2);
        std::fs::write(&file, "nonsense = 1").unwrap();
        assert!(format!("{:#}", settings(&arguments).unwrap_err()).contains("nonsense"));
    }
}
