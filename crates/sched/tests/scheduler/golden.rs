//! Golden scripts: `tests/golden/*.txt` hold commands, each followed by what the scheduler decided.
//!
//! `UPDATE_GOLDEN=1 cargo test` writes the decisions anew; read the difference before committing it. A line is one of
//! - `config [policy=P] tasks=N bytes=N per_tenant=N`, first; the policy is fifo where none is named,
//! - `TIME: EVENT; EVENT; ...`, one poll,
//! - `show`, the gauges and the demand; `usage`, who was charged what,
//! - `> ...`, what came of the line before, and `# ...`, a comment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tenantry_sched::{
    Batching, Decision, DeviceTimeLimit, Event, Outcome, Phase, Place, Policy, Rate, Reservation, Scheduler,
    SchedulerConfig, Share, SlotGroup, Subject, Task, TaskKind, Tier, Tuning, Weight,
};
use tenantry_types::{BatchId, MonotonicTime, PlacementId, Priority, ReplicaId, SlotId, TaskId, TenantId, WorkerId};

#[test]
fn golden_scripts_decide_what_they_always_did() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut scripts: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no golden scripts");
    for path in scripts {
        let written = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        let played = play(&name, &written);
        if update {
            std::fs::write(&path, played).unwrap();
        } else {
            assert!(
                written == played,
                "{name} decides otherwise now; if that is meant, run with UPDATE_GOLDEN=1. It would read:\n{played}"
            );
        }
    }
}

/// The script with its decisions written anew.
fn play(name: &str, script: &str) -> String {
    let mut scheduler = None;
    let mut played = String::new();
    for (number, line) in script.lines().enumerate().filter(|(_, line)| !line.starts_with('>')) {
        writeln!(played, "{line}").unwrap();
        let fail = |what: &str| -> ! { panic!("{name}, line {}: {what}: {line}", number + 1) };
        let command = line.trim();
        if command.is_empty() || command.starts_with('#') {
            continue;
        }
        if let Some(words) = command.strip_prefix("config") {
            let words = Words::new(words);
            let policy = words.named.get("policy").copied().unwrap_or("fifo");
            scheduler = Some(Scheduler::new(SchedulerConfig {
                policy: policy_of(policy).unwrap_or_else(|| fail("no such policy")),
                tuning: Tuning::CPU,
                max_queued_tasks: words.number("tasks").unwrap_or(1000) as usize,
                max_queued_bytes: words.number("bytes").unwrap_or(1_000_000),
                max_queued_tasks_per_tenant: words.number("per_tenant").unwrap_or(1000) as usize,
            }));
            continue;
        }
        let Some(scheduler) = &mut scheduler else { fail("no config before it") };
        if command == "show" {
            show(scheduler, &mut played);
        } else if command == "usage" {
            usage(scheduler, &mut played);
        } else if let Some((time, events)) = command.split_once(':') {
            let events = events.split(';').map(str::trim).filter(|text| !text.is_empty());
            let events: Vec<Event> = events.map(|text| event(text).unwrap_or_else(|| fail("no such event"))).collect();
            let mut decisions = Vec::new();
            let now = MonotonicTime::ZERO.saturating_add(duration(time).unwrap_or_else(|| fail("no such time")));
            let wake = scheduler.poll(now, events, &mut decisions);
            for decision in &decisions {
                writeln!(played, "> {}", print(decision)).unwrap();
            }
            if let Some(wake) = wake {
                writeln!(played, "> wake {:?}", since_start(wake)).unwrap();
            }
        } else {
            fail("not a command");
        }
    }
    played
}

fn show(scheduler: &Scheduler, out: &mut String) {
    let stats = scheduler.stats();
    writeln!(
        out,
        "> queued {} tasks {} bytes {:?}, running {} tasks in {} batches, {} of {} slots free, {} workers, {} replicas",
        stats.queued_tasks,
        stats.queued_bytes,
        stats.queued_cost,
        stats.running_tasks,
        stats.running_batches,
        stats.free_slots,
        stats.slots,
        stats.workers,
        stats.replicas
    )
    .unwrap();
    writeln!(
        out,
        "> admitted {} rejected {} dispatched {} in {} expired {} dropped {} cancelled {}+{} aborted {} misuses {}",
        stats.admitted_tasks,
        stats.rejected_tasks,
        stats.dispatched_tasks,
        stats.dispatched_batches,
        stats.expired_tasks,
        stats.dropped_tasks,
        stats.cancelled_tasks,
        stats.cancelled_running_tasks,
        stats.aborted_batches,
        stats.misuses
    )
    .unwrap();
    for demand in scheduler.demand() {
        let oldest = since_start(demand.oldest);
        writeln!(out, "> demand {} waiting {} oldest {oldest:?}", demand.placement, demand.waiting).unwrap();
    }
}

fn usage(scheduler: &Scheduler, out: &mut String) {
    for usage in scheduler.usage() {
        if let Subject::Tenant(of) = usage.subject {
            let letter =
                (b'a'..=b'z').find(|&byte| tenant(&char::from(byte).to_string()) == of).map_or('?', char::from);
            let tenantry_sched::Usage { charged, wasted, queued_tasks, running, .. } = usage;
            let wasted = if wasted.is_zero() { String::new() } else { format!(" wasted {wasted:?}") };
            writeln!(out, "> {letter} charged {charged:?}{wasted} queued {queued_tasks} running {running}").unwrap();
        }
    }
    let stats = scheduler.stats();
    writeln!(
        out,
        "> used {:?} wasted {:?} ({:?} by the machine), {} suspensions, {} suspended now",
        stats.used, stats.wasted, stats.wasted_by_machine, stats.suspensions, stats.suspended_batches
    )
    .unwrap();
}

fn print(decision: &Decision) -> String {
    match decision {
        Decision::Reject { task, reason, retry_after } => format!("reject {task} {reason:?} retry {retry_after:?}"),
        Decision::Dispatch { batch, slot, worker, replica, tasks, run_limit, phase, .. } => {
            let replica = replica.map_or_else(|| "-".to_owned(), |replica| replica.to_string());
            let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
            let reserved = if *phase == Phase::Reserved { " reserved" } else { "" };
            format!("dispatch {batch} {slot} {worker} {replica} [{}] limit {run_limit:?}{reserved}", tasks.join(" "))
        }
        Decision::Expire { task } => format!("expire {task}"),
        Decision::Drop { task } => format!("drop {task}"),
        Decision::Suspend { batch, worker } => format!("suspend {batch} {worker}"),
        Decision::Resume { batch, worker } => format!("resume {batch} {worker}"),
        Decision::Abort { batch, cause } => format!("abort {batch} {cause:?}"),
    }
}

/// Positional words, and `key=value` words.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        let (named, plain): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|word| word.contains('='));
        Self { plain, named: named.into_iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.named.get(key)?.parse().ok()
    }

    fn duration(&self, key: &str) -> Option<Duration> {
        duration(self.named.get(key)?)
    }

    /// The number of the only word with this prefix.
    fn id(&self, prefix: &str) -> Option<u64> {
        self.plain.iter().find_map(|word| word.strip_prefix(prefix)).and_then(|digits| digits.parse().ok())
    }
}

fn event(text: &str) -> Option<Event> {
    let (verb, rest) = text.split_once(' ')?;
    let words = Words::new(rest);
    let slot = || words.id("slt_").map(SlotId);
    let worker = || words.id("wrk_").map(WorkerId);
    let replica = || words.id("rep_").map(ReplicaId);
    let placement = || words.id("plc_").map(PlacementId);
    let task = || words.id("tsk_").map(TaskId);
    Some(match verb {
        "slot_up" => Event::SlotUp {
            slot: slot()?,
            group: SlotGroup(words.number("group").unwrap_or(0) as u32),
            suspendable: words.plain.contains(&"suspendable"),
        },
        "slot_down" => Event::SlotDown { slot: slot()? },
        "worker_up" => Event::WorkerUp { worker: worker()? },
        "worker_down" => Event::WorkerDown { worker: worker()? },
        "replica_up" => Event::ReplicaUp { replica: replica()?, placement: placement()?, worker: worker()? },
        "replica_down" => Event::ReplicaDown { replica: replica()? },
        "placement_up" => {
            let max_rows = words.number("rows").unwrap_or(1) as u32;
            let max_delay = words.duration("delay").unwrap_or(Duration::ZERO);
            Event::PlacementUp { placement: placement()?, batching: Batching { max_rows, max_delay } }
        }
        "placement_down" => Event::PlacementDown { placement: placement()? },
        "ready" => {
            let pinned = worker().map(Place::Worker);
            Event::Ready {
                task: Task {
                    id: task()?,
                    tenant: tenant(words.named.get("tenant").copied().unwrap_or("a")),
                    deployment: None,
                    key: None,
                    bucket: words.number("bucket").unwrap_or(0) as u32,
                    abortable: words.plain.contains(&"abortable"),
                    priority: Priority::from_client(words.number("priority").unwrap_or(0)),
                    place: pinned.or_else(|| placement().map(Place::Placement))?,
                    rows: words.number("rows").unwrap_or(1) as u32,
                    shape: words.number("shape").unwrap_or(0),
                    bytes: words.number("bytes").unwrap_or(1),
                    cost: words.duration("cost").unwrap_or(Duration::from_millis(1)),
                    run_limit: words.duration("limit").unwrap_or(Duration::from_secs(1)),
                    deadline: words.duration("deadline").map(|after| MonotonicTime::ZERO.saturating_add(after)),
                    kind: if pinned.is_some() { TaskKind::Load } else { TaskKind::Infer },
                },
            }
        }
        "memory_short" => Event::MemoryShort { needed_by: words.named.get("by").copied().map(tenant) },
        "policy" => Event::Policy { policy: policy_of(rest.trim())? },
        "share" => {
            let share = Share {
                weight: words.number("weight").map_or(Weight::DEFAULT, |milli| Weight::from_milli(milli as u32)),
                tier: match words.named.get("tier").copied() {
                    Some("guaranteed") => Some(Tier::Guaranteed),
                    Some("burstable") => Some(Tier::Burstable),
                    Some("best_effort") => Some(Tier::BestEffort),
                    _ => None,
                },
                reservation: words.number("reserve").map(|ppm| Reservation {
                    rate: Rate::from_ppm(ppm as u32),
                    burst: words.duration("burst").unwrap_or(Duration::from_millis(100)),
                }),
                limit: words.number("limit").map(|ppm| DeviceTimeLimit {
                    rate: Rate::from_ppm(ppm as u32),
                    burst: words.duration("burst").unwrap_or(Duration::from_millis(100)),
                }),
                max_queued_tasks: words.number("queued").map(|most| most as u32),
                group: SlotGroup(words.number("group").unwrap_or(0) as u32),
                ..Share::default()
            };
            let subject = Subject::Tenant(tenant(words.plain.first()?));
            Event::Share { subject, share: (!words.plain.contains(&"none")).then_some(share) }
        }
        "cancel" => Event::Cancel { task: task()? },
        "done" => Event::Done {
            batch: words.id("bat_").map(BatchId)?,
            used: words.duration("used").unwrap_or(Duration::from_millis(1)),
            outcome: match words.named.get("outcome").copied().unwrap_or("finished") {
                "finished" => Outcome::Finished,
                "failed" => Outcome::Failed,
                "split" => Outcome::Split,
                "interrupted" => Outcome::Interrupted,
                _ => return None,
            },
        },
        _ => return None,
    })
}

fn policy_of(name: &str) -> Option<Policy> {
    Policy::ALL.into_iter().find(|policy| policy.as_str() == name)
}

fn tenant(letter: &str) -> TenantId {
    let byte = letter.bytes().next().unwrap_or(b'a');
    TenantId::from_parts(u64::from(byte), [byte; 10])
}

/// `12us`, `5ms`, `2s`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    match text.get(digits.len()..)? {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

fn since_start(time: MonotonicTime) -> Duration {
    time.saturating_since(MonotonicTime::ZERO)
}
