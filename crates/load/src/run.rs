//! Driving all streams of a plan at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::pacer::Pacer;
use crate::report::Fate;
use crate::{Answer, Arrivals, CallError, Connection, Report, Request, StreamReport};

/// The most connections of one stream.
pub const MAX_CONNECTIONS: usize = 10_000;
/// The highest rate of one stream.
pub const MAX_PER_SECOND: f64 = 1e6;
/// How long an answer without a timeout is waited for, and how long after its timeout one with it.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_AFTER_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a call that broke, so that a closed loop does not spin on a server that is gone.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// By how much the thread of the closed loops yields to that of the open streams.
const FLOOD_NICE: i32 = 10;

/// One tenant's load.
#[derive(Debug, Clone)]
pub struct Stream {
    /// How the report calls it.
    pub name: String,
    /// The server.
    pub address: SocketAddr,
    /// What is sent, in turn or as recorded arrivals say; never empty.
    pub requests: Vec<Request>,
    /// When.
    pub arrivals: Arrivals,
    /// The most requests under way at the same time.
    pub connections: usize,
    /// After which an answer counts as late, though the server is not told: for measuring what a deadline would have
    /// meant without anybody giving up.
    pub late_after: Option<Duration>,
}

/// The load of several tenants.
#[derive(Debug, Clone)]
pub struct Plan {
    /// All of them.
    pub streams: Vec<Stream>,
    /// How long load is sent before anything counts.
    pub warmup: Duration,
    /// How long what is sent counts.
    pub duration: Duration,
}

/// What a run has done so far, for whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Successful answers, warm-up included.
    pub answered: AtomicU64,
    /// Everything else that came or did not come back.
    pub refused: AtomicU64,
}

/// A run that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan makes no sense.
    #[error("the load of `{stream}` cannot be sent: {problem}")]
    Plan {
        /// The stream.
        stream: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// There is no server.
    #[error(transparent)]
    Connect(#[from] CallError),
    /// The system refuses what a run needs.
    #[error("the system gives the load generator no timer, thread or connection; too many open files?")]
    System(#[from] std::io::Error),
}

/// What the connections of one stream share.
struct Shared {
    /// Its place in the plan.
    index: usize,
    stream: Stream,
    report: Mutex<StreamReport>,
    progress: Arc<Progress>,
    start: Instant,
    warmup: Duration,
    end: Duration,
}

/// Sends the plan's load and reports what came back; blocks until it is over.
///
/// # Errors
/// Where the plan makes no sense or nobody listens; a server that fails later is in the report.
pub fn run(plan: &Plan, progress: &Arc<Progress>) -> Result<Report, RunError> {
    plan.streams.iter().try_for_each(check)?;
    let is_closed = |(_, stream): &(usize, &Stream)| matches!(stream.arrivals, Arrivals::Closed);
    let (closed, open): (Group<'_>, Group<'_>) = plan.streams.iter().enumerate().partition(is_closed);
    let groups: Vec<Group<'_>> = [open, closed].into_iter().filter(|group| !group.is_empty()).collect();
    let ready = Barrier::new(groups.len());
    let start = OnceLock::new();
    let drive_group = |group: Group<'_>| drive(&group, plan, progress, &ready, &start);
    let mut reports = std::thread::scope(|scope| {
        let threads: Vec<_> = groups.into_iter().map(|group| scope.spawn(|| drive_group(group))).collect();
        let mut reports = Vec::new();
        for thread in threads {
            match thread.join() {
                Ok(seen) => reports.extend(seen?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, RunError>(reports)
    })?;
    reports.sort_by_key(|(index, _)| *index);
    Ok(Report { tenants: reports.into_iter().map(|(_, report)| report).collect() })
}

/// Some of a plan's streams, with their places in it.
type Group<'a> = Vec<(usize, &'a Stream)>;

fn check(stream: &Stream) -> Result<(), RunError> {
    let fail = |problem| Err(RunError::Plan { stream: stream.name.clone(), problem });
    if stream.requests.is_empty() {
        return fail("it has no request");
    }
    if stream.connections == 0 || stream.connections > MAX_CONNECTIONS {
        return fail("it needs at least one connection and may have 10,000");
    }
    match stream.arrivals {
        Arrivals::Constant { per_second } | Arrivals::Poisson { per_second, .. }
            if !(per_second > 0.0 && per_second <= MAX_PER_SECOND) =>
        {
            fail("its rate must be above zero and at most a million a second")
        }
        _ => Ok(()),
    }
}

/// One thread's streams, all open or all closed.
fn drive(
    group: &Group<'_>,
    plan: &Plan,
    progress: &Arc<Progress>,
    ready: &Barrier,
    start: &OnceLock<Instant>,
) -> Result<Vec<(usize, StreamReport)>, RunError> {
    let is_closed = group.iter().any(|(_, stream)| matches!(stream.arrivals, Arrivals::Closed));
    if is_closed {
        // On Linux this is the calling thread's alone. Where it is refused, the flood is a little less polite.
        let _ = rustix::process::setpriority_process(None, FLOOD_NICE);
    }
    let opened = open_all(group);
    // Reached by every thread, whatever became of its connections: the others wait here.
    ready.wait();
    let start = *start.get_or_init(Instant::now);
    let (runtime, opened) = opened?;
    let streams = group.iter().zip(opened).map(|((index, stream), connections)| {
        let shared = Shared {
            index: *index,
            stream: (*stream).clone(),
            report: Mutex::new(StreamReport::new(stream.name.clone())),
            progress: Arc::clone(progress),
            start,
            warmup: plan.warmup,
            end: plan.warmup + plan.duration,
        };
        (Arc::new(shared), connections)
    });
    let streams: Vec<(Arc<Shared>, Vec<Connection>)> = streams.collect();
    let shared: Vec<Arc<Shared>> = streams.iter().map(|(shared, _)| Arc::clone(shared)).collect();
    runtime.block_on(async { if is_closed { drive_closed(streams).await } else { drive_open(streams).await } })?;
    let finish = |shared: Arc<Shared>| {
        let mut report = shared.locked().clone();
        report.measured = plan.duration;
        (shared.index, report)
    };
    Ok(shared.into_iter().map(finish).collect())
}

type Opened = (tokio::runtime::Runtime, Vec<Vec<Connection>>);

/// A runtime, and every connection in it open, so that no measured request pays for a handshake.
fn open_all(group: &Group<'_>) -> Result<Opened, RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let opened = runtime.block_on(async {
        let mut opened = Vec::with_capacity(group.len());
        for (_, stream) in group {
            let mut connections: Vec<_> = (0..stream.connections).map(|_| Connection::new(stream.address)).collect();
            for connection in &mut connections {
                connection.open().await?;
            }
            opened.push(connections);
        }
        Ok::<_, CallError>(opened)
    })?;
    Ok((runtime, opened))
}

async fn drive_closed(streams: Vec<(Arc<Shared>, Vec<Connection>)>) -> std::io::Result<()> {
    let Some(end) = streams.first().map(|(shared, _)| shared.start + shared.end) else { return Ok(()) };
    let mut tasks = JoinSet::new();
    for (shared, connections) in streams {
        for (place, connection) in connections.into_iter().enumerate() {
            tasks.spawn(send_in_turn(Arc::clone(&shared), connection, place));
        }
    }
    tokio::time::sleep_until(end.into()).await;
    // What is still under way is not waited for: it would count nowhere. The connections close with the tasks.
    tasks.shutdown().await;
    Ok(())
}

/// One connection of a closed loop.
async fn send_in_turn(shared: Arc<Shared>, mut connection: Connection, place: usize) {
    // Each connection begins with another request, so that together they send the mixture from the start.
    for request in shared.stream.requests.iter().cycle().skip(place % shared.stream.requests.len().max(1)) {
        let sent = Instant::now();
        let outcome = tokio::time::timeout(patience(request), connection.call(request)).await;
        let now = shared.start.elapsed();
        let broken = !matches!(outcome, Ok(Ok(_)));
        let fate = shared.fate(outcome, sent.elapsed(), request);
        shared.note(fate, now > shared.warmup && now <= shared.end);
        if broken {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

async fn drive_open(streams: Vec<(Arc<Shared>, Vec<Connection>)>) -> std::io::Result<()> {
    let mut tasks = JoinSet::new();
    for (shared, connections) in streams {
        let offsets = shared.stream.arrivals.offsets(shared.stream.requests.len());
        let pacer = Arc::new(tokio::sync::Mutex::new(Pacer::new(offsets, shared.start, shared.end)?));
        for connection in connections {
            tasks.spawn(send_when_due(Arc::clone(&shared), Arc::clone(&pacer), connection));
        }
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap_or_else(|error| Err(std::io::Error::other(error)))?;
    }
    Ok(())
}

/// One connection of an open stream: it fetches the next arrival whenever it is idle.
async fn send_when_due(
    shared: Arc<Shared>,
    pacer: Arc<tokio::sync::Mutex<Pacer>>,
    mut connection: Connection,
) -> std::io::Result<()> {
    loop {
        let Some(arrival) = pacer.lock().await.next().await? else { return Ok(()) };
        let Some(request) = shared.stream.requests.get(arrival.request) else { continue };
        let measured = arrival.at >= shared.warmup;
        let due = shared.start + arrival.at;
        // Without a timeout the backlog still ends: what is due is sent until patience is over, and then given up.
        if due.elapsed() > request.timeout().unwrap_or(PATIENCE) {
            shared.note(Fate::Unsent, measured);
            continue;
        }
        let give_up = tokio::time::Instant::from_std(due + patience(request));
        let outcome = tokio::time::timeout_at(give_up, connection.call(request)).await;
        let broken = !matches!(outcome, Ok(Ok(_)));
        shared.note(shared.fate(outcome, due.elapsed(), request), measured);
        if broken {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

fn patience(request: &Request) -> Duration {
    request.timeout().map_or(PATIENCE, |timeout| timeout + PATIENCE_AFTER_TIMEOUT)
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, StreamReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(
        &self,
        outcome: Result<Result<Answer, CallError>, tokio::time::error::Elapsed>,
        latency: Duration,
        request: &Request,
    ) -> Fate {
        match outcome {
            Ok(Ok(Answer { refusal: Some(refusal), .. })) => Fate::Refused(refusal.reason),
            Ok(Ok(_)) => {
                let bounds = [request.timeout(), self.stream.late_after];
                Fate::Answered { latency, late: bounds.iter().flatten().any(|bound| latency > *bound) }
            }
            Ok(Err(CallError::Connect(..))) => Fate::Failed("no_connection"),
            Ok(Err(CallError::Broken(_) | CallError::Closed)) => Fate::Failed("connection_broke"),
            Ok(Err(CallError::Unreadable(_))) => Fate::Failed("unreadable_answer"),
            Err(_) => Fate::Lost,
        }
    }

    fn note(&self, fate: Fate, measured: bool) {
        let counter =
            if matches!(fate, Fate::Answered { .. }) { &self.progress.answered } else { &self.progress.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        if measured {
            self.locked().count(fate);
        }
    }
}

#[cfg(test)]
mod tests;
