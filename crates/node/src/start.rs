//! Starting and draining a node, and the tasks that live as long as it does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tenantry_jail::{Barriers, Exits, Layer, Layers, Level, Spawner, SuspendBy};
use tenantry_sched::Event;
use tenantry_types::SlotId;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use crate::config::NodeConfig;
use crate::data_plane::{Entry, Node};
use crate::readable::watch;
use crate::recording::RecordError;
use crate::worker::{Kill, Work};

/// How often idle workers' arenas are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// How long after a spawner that could not be replaced the next try comes.
const SPAWNER_RETRY: Duration = Duration::from_secs(1);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The spawner's socket cannot be watched; probably there is no runtime here.
    #[error("the spawner's socket cannot be watched: {0}")]
    Watch(#[source] io::Error),
    /// This machine cannot keep workers apart as well as the settings demand.
    #[error("workers would be `{found}` here, and the settings demand at least `{wanted}`: {missing}")]
    Isolation {
        /// What the barriers amount to.
        found: Level,
        /// What is demanded.
        wanted: Level,
        /// What is not in force, and why.
        missing: String,
    },
    /// Workers are to be frozen, and cannot be.
    #[error("workers are to be suspended by the freezer, and there is none for them here: {0}")]
    Freezer(String),
    /// A recording was asked for and cannot be made.
    #[error(transparent)]
    Record(#[from] RecordError),
}

struct ExitsFd(Exits);

impl AsRawFd for ExitsFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// The barriers that workers get: wanted, and possible here.
///
/// # Errors
/// [`StartError::Isolation`] if they amount to less than is demanded.
fn isolation(config: &NodeConfig, barriers: &Barriers) -> Result<Barriers, StartError> {
    let isolation = config.isolation(barriers);
    if isolation.level() >= config.min_isolation {
        return Ok(isolation);
    }
    let missing: Vec<String> = isolation.not_in_force.iter().map(|(layer, why)| format!("{layer} ({why})")).collect();
    Err(StartError::Isolation { found: isolation.level(), wanted: config.min_isolation, missing: missing.join(", ") })
}

/// The names of layers, for people.
fn names(layers: Layers) -> String {
    let names: Vec<&str> = layers.iter().map(tenantry_jail::Layer::name).collect();
    names.join(" ")
}

impl Node {
    /// Starts a node on the current tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when there is no runtime to watch the spawner with, or a recording cannot be written.
    pub fn start(config: NodeConfig, spawner: Spawner, exits: Exits) -> Result<Arc<Self>, StartError> {
        let isolation = isolation(&config, spawner.barriers())?;
        let can_freeze = isolation.in_force.has(Layer::Cgroup) && spawner.has_freezer();
        if config.suspend_by == SuspendBy::Freezer && !can_freeze {
            let why = isolation.not_in_force.iter().find(|(layer, _)| *layer == Layer::Cgroup);
            let why = why.map_or("it is not mounted, or not the server's", |(_, why)| why.as_str());
            return Err(StartError::Freezer(why.to_owned()));
        }
        let exits = watch_exits(exits)?;
        let slots = config.slots;
        let node = Arc::new(Self::new(config, spawner)?);
        tracing::info!(level = %isolation.level(), in_force = %names(isolation.in_force), "workers are isolated");
        for (layer, why) in &isolation.not_in_force {
            tracing::warn!(%layer, why, "a barrier around workers is missing");
        }
        for slot in 0..slots.max(1) {
            let group = node.config.group_of(slot);
            node.push(Event::SlotUp { slot: SlotId(u64::from(slot)), group, suspendable: node.config.suspend });
        }
        node.pump();
        tokio::spawn(Arc::clone(&node).keep_time());
        tokio::spawn(Arc::clone(&node).keep_house());
        tokio::spawn(Arc::clone(&node).watch_memory());
        tokio::spawn(Arc::clone(&node).watch_workers_memory());
        tokio::spawn(Arc::clone(&node).relay_exits(exits));
        Ok(node)
    }

    /// Polls the scheduler when it asked for it.
    async fn keep_time(self: Arc<Self>) {
        loop {
            let target = self.clock.instant(self.timer.target());
            tokio::select! {
                () = tokio::time::sleep_until(target) => {
                    self.timer.fire();
                    // A poll without events still expires, aborts and releases waiting batches.
                    self.pump();
                }
                () = self.timer.moved() => {}
            }
        }
    }

    async fn keep_house(self: Arc<Self>) {
        let mut interval = tokio::time::interval(HOUSEKEEPING);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let now = self.now();
            let workers = self.fleet.lock().all_workers();
            for worker in workers {
                worker.exec().shrink_if_idle(&worker, now);
            }
            self.orders.forget_old(now);
            self.poison.forget_old(now);
        }
    }

    /// Takes exits as the spawner relays them. When the spawner itself dies, its workers die with it, and another one
    /// takes its place.
    async fn relay_exits(self: Arc<Self>, mut exits: AsyncFd<ExitsFd>) {
        let keeper = keep_spawner(self.config.worker_binary.clone());
        let mut generation = 0;
        loop {
            if let Ok(mut guard) = exits.readable().await {
                match exits.get_ref().0.next() {
                    Ok(Some(exit)) => {
                        self.worker_ended(generation, &exit);
                        continue;
                    }
                    Ok(None) => {
                        guard.clear_ready();
                        continue;
                    }
                    Err(error) => tracing::error!(%error, "the spawner is gone; its workers died with it"),
                }
            }
            self.all_workers_ended();
            generation += 1;
            exits = self.replace_spawner(&keeper, generation).await;
        }
    }

    async fn replace_spawner(self: &Arc<Self>, keeper: &mpsc::Sender<Order>, generation: u64) -> AsyncFd<ExitsFd> {
        loop {
            let (order, made) = oneshot::channel();
            let answer = if keeper.send(order).is_ok() { made.await.ok() } else { None };
            match answer {
                Some(Ok((spawner, exits))) => match watch_exits(exits) {
                    Ok(exits) => {
                        *self.spawner.write() = (generation, Arc::new(spawner));
                        tracing::info!("a new spawner runs");
                        // It may allow less than the one before.
                        self.enforce_minimums();
                        // Workers wait for it.
                        self.changed();
                        return exits;
                    }
                    Err(error) => tracing::error!(%error, "the new spawner cannot be watched"),
                },
                Some(Err(error)) => tracing::error!(%error, "the spawner cannot be replaced; trying again"),
                None => tracing::error!("the thread that starts spawners is gone"),
            }
            tokio::time::sleep(SPAWNER_RETRY).await;
        }
    }

    /// Stops admitting, waits until what is queued and running has ended or `limit` has passed, then ends all workers.
    pub async fn drain(self: &Arc<Self>, limit: Duration) {
        self.draining.store(true, Ordering::Release);
        // Whoever waits for a load waits no longer.
        self.changed();
        let quiet = async {
            loop {
                let notified = self.quiet.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                if self.is_quiet() {
                    return;
                }
                notified.await;
            }
        };
        if tokio::time::timeout(limit, quiet).await.is_err() {
            tracing::warn!(?limit, "requests were still running when the drain limit passed");
        }
        let workers = self.fleet.lock().all_workers();
        for worker in workers {
            worker.kill(Kill::Stopped);
        }
        if let Some(recorder) = &self.recorder {
            recorder.flush().await;
        }
    }

    fn is_quiet(&self) -> bool {
        if self.inflight.lock().values().any(|entry| matches!(entry, Entry::Request(_))) {
            return false;
        }
        let workers = self.fleet.lock().all_workers();
        !workers.iter().any(|worker| {
            worker.exec().running.as_ref().is_some_and(|running| matches!(running.work, Work::Infer { .. }))
        })
    }
}

fn watch_exits(exits: Exits) -> Result<AsyncFd<ExitsFd>, StartError> {
    watch(ExitsFd(exits)).map_err(StartError::Watch)
}

/// A request to start a spawner.
type Order = oneshot::Sender<Result<(Spawner, Exits), tenantry_jail::StartError>>;

/// A thread that starts spawners. It must outlive them: a spawner dies with the thread that started it.
fn keep_spawner(worker_binary: PathBuf) -> mpsc::Sender<Order> {
    let (sender, orders) = mpsc::channel::<Order>();
    let body = move || {
        for order in orders {
            let _ = order.send(Spawner::start(&worker_binary));
        }
    };
    if let Err(error) = std::thread::Builder::new().name("spawner-keeper".to_owned()).spawn(body) {
        tracing::error!(%error, "no thread to replace a dead spawner with");
    }
    sender
}
