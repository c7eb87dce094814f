//! What came in and what was decided, on files: to replay a workload against another configuration and to check the
//! scheduler's promises afterwards. Never a byte of anybody's data.
//!
//! A thread of its own writes. What it cannot keep up with is dropped and counted; the data path never waits for a disk.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use parking_lot::RwLock;
use serde::Serialize;
use tenantry_sched::{Decision, Event, Scheduler, SchedulerConfig, Task};
use tenantry_types::{MonotonicTime, TenantId};
use tokio::sync::oneshot;

use crate::config::NodeConfig;
use crate::placement::Placement;

/// Records that may wait for the writer.
const MAX_WAITING_RECORDS: usize = 16_384;
/// How long a flush may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// The first line of a file of arrivals.
const ARRIVALS_HEADER: &str = "at_us,tenant,model,rows,bucket,bytes,timeout_ms,device_us";

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
#[error("the recording of {what} cannot be written; choose a file in a folder that exists and can be written to")]
pub struct RecordError {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// The way to the writer.
#[derive(Debug)]
pub(crate) struct Recorder {
    sender: SyncSender<Record>,
    decisions: bool,
    arrivals: bool,
    dropped: AtomicU64,
    names: RwLock<HashMap<TenantId, String>>,
}

enum Record {
    Arrival(Arrival),
    Poll(Poll),
    Flush(oneshot::Sender<()>),
}

/// A request that has ended.
struct Arrival {
    at: MonotonicTime,
    tenant: String,
    placement: Arc<Placement>,
    rows: u32,
    bucket: u32,
    bytes: u64,
    timeout: Option<Duration>,
    /// Absent unless it was answered.
    device_time: Option<Duration>,
}

/// One poll of the scheduler, as a line of the log.
#[derive(Serialize)]
struct Poll {
    /// Nanoseconds since the node started.
    at: u64,
    events: Vec<Event>,
    decisions: Vec<Decision>,
}

/// The first line of the log.
#[derive(Serialize)]
struct Head<'a> {
    config: &'a SchedulerConfig,
}

impl Recorder {
    /// Opens what is to be written; none if nothing is.
    pub(crate) fn start(config: &NodeConfig, scheduling: &SchedulerConfig) -> Result<Option<Arc<Self>>, RecordError> {
        let open = |what, path: &Option<std::path::PathBuf>| path.as_deref().map(|path| create(what, path)).transpose();
        let mut arrivals = open("arrivals", &config.record_arrivals)?;
        let mut decisions = open("decisions", &config.record_decisions)?;
        if arrivals.is_none() && decisions.is_none() {
            return Ok(None);
        }
        if let Some(file) = &mut arrivals {
            writeln!(file, "{ARRIVALS_HEADER}").map_err(|source| RecordError { what: "arrivals", source })?;
        }
        if let Some(file) = &mut decisions {
            write_line(file, &Head { config: scheduling })
                .map_err(|source| RecordError { what: "decisions", source })?;
        }
        let (sender, receiver) = sync_channel(MAX_WAITING_RECORDS);
        let recorder = Self {
            sender,
            decisions: decisions.is_some(),
            arrivals: arrivals.is_some(),
            dropped: AtomicU64::new(0),
            names: RwLock::default(),
        };
        let body = move || write_all(&receiver, arrivals, decisions);
        std::thread::Builder::new()
            .name("recorder".to_owned())
            .spawn(body)
            .map_err(|source| RecordError { what: "anything", source })?;
        Ok(Some(Arc::new(recorder)))
    }

    /// Polls the scheduler and records what went in and came out. Called under the scheduler's lock, so that the polls
    /// stand in the file in their order.
    pub(crate) fn poll(
        &self,
        scheduler: &mut Scheduler,
        now: MonotonicTime,
        events: &mut Vec<Event>,
        decisions: &mut Vec<Decision>,
    ) -> Option<MonotonicTime> {
        if !self.decisions {
            return scheduler.poll(now, events.drain(..), decisions);
        }
        let told = events.clone();
        let before = decisions.len();
        let wake = scheduler.poll(now, events.drain(..), decisions);
        let made = decisions.get(before..).unwrap_or_default().to_vec();
        if !told.is_empty() || !made.is_empty() {
            self.send(Record::Poll(Poll { at: now.as_nanos(), events: told, decisions: made }));
        }
        wake
    }

    /// A request has ended.
    pub(crate) fn arrival(
        &self,
        task: &Task,
        placement: &Arc<Placement>,
        at: MonotonicTime,
        device_time: Option<Duration>,
    ) {
        if self.arrivals {
            self.send(Record::Arrival(Arrival {
                at,
                tenant: self.name_of(task.tenant),
                placement: Arc::clone(placement),
                rows: task.rows,
                bucket: task.bucket,
                bytes: task.bytes,
                timeout: task.deadline.map(|deadline| deadline.saturating_since(at)),
                device_time,
            }));
        }
    }

    /// What tenants are called from now on.
    pub(crate) fn set_names(&self, names: Vec<(TenantId, String)>) {
        *self.names.write() = names.into_iter().collect();
    }

    fn name_of(&self, tenant: TenantId) -> String {
        self.names.read().get(&tenant).cloned().unwrap_or_else(|| tenant.to_string())
    }

    fn send(&self, record: Record) {
        if self.sender.try_send(record).is_err() && self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the recording has gaps from now on: its disk does not keep up");
        }
    }

    /// Waits until all that was recorded is written.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.sender.try_send(Record::Flush(done)).is_err()
            || !matches!(tokio::time::timeout(FLUSH_LIMIT, written).await, Ok(Ok(())))
        {
            tracing::warn!("the end of the recording may be missing");
        }
        let dropped = self.dropped();
        if dropped > 0 {
            tracing::warn!(dropped, "the recording has gaps: the disk did not keep up");
        }
    }

    /// Records that were lost because the disk did not keep up.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn create(what: &'static str, path: &Path) -> Result<BufWriter<File>, RecordError> {
    File::create(path).map(BufWriter::new).map_err(|source| RecordError { what, source })
}

/// The writer's body: writes while there is something, makes it visible when there is nothing.
fn write_all(
    records: &Receiver<Record>,
    mut arrivals: Option<BufWriter<File>>,
    mut decisions: Option<BufWriter<File>>,
) {
    loop {
        let record = match records.try_recv() {
            Err(TryRecvError::Empty) => {
                let flushed = arrivals.iter_mut().chain(&mut decisions).try_for_each(Write::flush);
                flushed.and_then(|()| records.recv().map_err(|RecvError| io::ErrorKind::BrokenPipe.into()))
            }
            Err(TryRecvError::Disconnected) => return,
            Ok(record) => Ok(record),
        };
        let written = record.and_then(|record| match record {
            Record::Arrival(arrival) => arrivals.as_mut().map_or(Ok(()), |file| arrival.write(file)),
            Record::Poll(poll) => decisions.as_mut().map_or(Ok(()), |file| write_line(file, &poll)),
            Record::Flush(done) => {
                let flushed = arrivals.iter_mut().chain(&mut decisions).try_for_each(Write::flush);
                // Whoever asked may have given up.
                let _ = done.send(());
                flushed
            }
        });
        match written {
            Ok(()) => {}
            // The node is gone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return,
            Err(error) => {
                tracing::error!(%error, "the recording has ended: it cannot be written");
                return;
            }
        }
    }
}

fn write_line<T: Serialize>(file: &mut BufWriter<File>, value: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *file, value)?;
    file.write_all(b"\n")
}

impl Arrival {
    fn write(&self, file: &mut BufWriter<File>) -> io::Result<()> {
        let at_us = self.at.as_nanos() / 1_000;
        let tenant = &self.tenant;
        // As callers name it: what is replayed is asked of whatever version is deployed then.
        let model = self.placement.spec.name.split(':').next().unwrap_or_default();
        write!(file, "{at_us},{tenant},{model},{},{},{},", self.rows, self.bucket, self.bytes)?;
        if let Some(timeout) = self.timeout {
            write!(file, "{}", timeout.as_millis())?;
        }
        write!(file, ",")?;
        if let Some(device_time) = self.device_time {
            write!(file, "{}", device_time.as_micros())?;
        }
        writeln!(file)
    }
}
