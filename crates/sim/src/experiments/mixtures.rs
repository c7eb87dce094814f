//! Real mixtures: ServeGen's clients, and Azure's functions with their owners.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenantry_sched::{Policy, Rate, Reservation, Share, Tier};

use super::{Findings, audited, ms, underscored};
use crate::random::Random;
use crate::report::{Report, TenantReport};
use crate::scenario::{Arrivals, ModelPlan, Recorded, Scenario, Source};
use crate::trace::{TokenCost, Trace, TraceError, TraceRequest, read};

/// Where the traces are below their folder.
const SERVEGEN: &str = "servegen/servegen_slice_20min.csv";
const AZURE: &str = "azure_functions_samples";
/// The most that is reserved of a slot in all.
const RESERVED_PER_SLOT: f64 = 0.6;
/// The longest run of a function: what is longer is another kind of work.
const LONGEST_RUN: Duration = Duration::from_secs(2);

/// Why a mixture cannot be simulated.
#[derive(Debug, thiserror::Error)]
pub enum MixtureError {
    /// A file of it cannot be opened.
    #[error("{file} cannot be read below the folder of --traces")]
    Open {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no trace.
    #[error("{file}")]
    Trace {
        /// Which.
        file: String,
        /// Why.
        source: TraceError,
    },
    /// It is no table of functions.
    #[error("{file}: line {line} is not one of the functions' tables")]
    Table {
        /// Which.
        file: String,
        /// Where.
        line: usize,
    },
}

fn open(traces: &Path, file: &str) -> Result<BufReader<File>, MixtureError> {
    let opened = File::open(traces.join(file));
    opened.map(BufReader::new).map_err(|source| MixtureError::Open { file: file.to_owned(), source })
}

pub(super) fn servegen(traces: &Path, quick: bool) -> Result<Findings, MixtureError> {
    let mut trace = read(open(traces, SERVEGEN)?, &TokenCost::default())
        .map_err(|source| MixtureError::Trace { file: SERVEGEN.to_owned(), source })?;
    if quick {
        trace.requests.retain(|request| request.at < Duration::from_secs(180));
    }
    let mut found = Findings::default();
    found.line(
        "ServeGen's clients as tenants: 4 slots, requests of 2 ms + 20 us a token read, batches of up to 8, the trace",
    );
    found.line("sped up to the load named.");
    compare("servegen", &trace, 4, usize::MAX, TokenCost::default().request, 8, &mut found);
    Ok(found)
}

pub(super) fn azure(traces: &Path, quick: bool) -> Result<Findings, MixtureError> {
    let (size, minutes) = if quick { ("100", 15) } else { ("500", 20) };
    let trace = functions(traces, size, minutes)?;
    let mut found = Findings::default();
    found.line(format!(
        "Azure's functions as models, their owners as tenants: {} models, {} tenants, {} calls in {minutes} minutes; 4 slots,",
        trace.models.len(),
        trace.tenants.len(),
        trace.requests.len()
    ));
    found.line(
        "no batching, 32 models fit into a worker (one a slot), loading one takes 50 ms; sped up to the load named.",
    );
    compare("azure", &trace, 4, 32, Duration::ZERO, 1, &mut found);
    Ok(found)
}

/// Both mixtures under every policy at two loads.
fn compare(name: &str, trace: &Trace, slots: usize, fits: usize, fixed: Duration, max_rows: u32, found: &mut Findings) {
    found.line("Tiers by turn: one in ten guaranteed (1.25 times its own mean reserved), four best-effort, five burstable; the");
    found.line("first and the last are patient for 1 s. In time: answered within it, of all sent. Light: the half of the tenants");
    found.line("that sends least. Slowdown: latency over the cost alone.");
    found.line("");
    found.line(format!(
        "{:<16} {:>5} {:>8} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>7} {:>7} {:>6}",
        "policy",
        "load",
        "sent/s",
        "in time",
        "guarant.",
        "burstable",
        "light",
        "light p99",
        "effort/s",
        "late %",
        "loads",
        "batch"
    ));
    for load in [0.9, 1.5] {
        for policy in Policy::ALL {
            let (world, tiers) = mixture(trace, policy, slots, fits, load, fixed, max_rows);
            let what = format!("{name} {load} {}", policy.as_str());
            let (report, _) = audited(&world, &what, found);
            let summary = Summary::new(&report, &tiers);
            found.line(format!(
                "{:<16} {load:>5.1} {:>8.0} {:>10.4} {:>10.4} {:>10.4} {:>10.4} {:>9.0} {:>9.1} {:>7.2} {:>7} {:>6.1}",
                policy.as_str(),
                summary.sent_per_s,
                summary.in_time,
                summary.guaranteed,
                summary.burstable,
                summary.light,
                summary.light_p99_ms,
                summary.best_effort_per_s,
                report.late_part() * 100.0,
                report.loads,
                report.mean_batch(),
            ));
            let load = if load < 1.0 { "0_9" } else { "1_5" };
            let policy = underscored(policy);
            found.figure(
                format!("sim_{name}_guaranteed_in_time_{load}_{policy}"),
                summary.guaranteed,
                "of sent",
                ">=",
                0.99,
            );
            found.figure(format!("sim_{name}_light_in_time_{load}_{policy}"), summary.light, "of sent", ">=", 0.9);
        }
    }
    found.line("");
}

struct Summary {
    sent_per_s: f64,
    in_time: f64,
    guaranteed: f64,
    burstable: f64,
    light: f64,
    light_p99_ms: f64,
    best_effort_per_s: f64,
}

impl Summary {
    fn new(report: &Report, tiers: &[Tier]) -> Self {
        let seconds = report.counted.as_secs_f64();
        let of = |tier: Tier| report.tenants.iter().zip(tiers).filter(move |(_, of)| **of == tier).map(|(one, _)| one);
        let mut hurried: Vec<&TenantReport> = of(Tier::Guaranteed).chain(of(Tier::Burstable)).collect();
        let in_time = |tenants: &[&TenantReport]| {
            let sent: u64 = tenants.iter().map(|one| one.sent).sum();
            tenants.iter().map(|one| one.in_time()).sum::<u64>() as f64 / sent.max(1) as f64
        };
        let all = in_time(&hurried);
        hurried.sort_by_key(|one| one.sent);
        let light: Vec<&TenantReport> = hurried.iter().take(hurried.len() / 2).copied().collect();
        let mut latencies: Vec<u64> = light.iter().flat_map(|one| one.latencies_ns.iter().copied()).collect();
        latencies.sort_unstable();
        let light_latencies = TenantReport { latencies_ns: latencies, ..TenantReport::default() };
        Self {
            sent_per_s: report.tenants.iter().map(|one| one.sent).sum::<u64>() as f64 / seconds,
            in_time: all,
            guaranteed: in_time(&of(Tier::Guaranteed).collect::<Vec<_>>()),
            burstable: in_time(&of(Tier::Burstable).collect::<Vec<_>>()),
            light: in_time(&light),
            light_p99_ms: ms(light_latencies.quantile(0.99)),
            best_effort_per_s: of(Tier::BestEffort).map(|one| one.answered).sum::<u64>() as f64 / seconds,
        }
    }
}

fn mixture(
    trace: &Trace,
    policy: Policy,
    slots: usize,
    fits: usize,
    load: f64,
    fixed: Duration,
    max_rows: u32,
) -> (Scenario, Vec<Tier>) {
    let span = trace.requests.last().map_or(Duration::from_secs(1), |last| last.at).max(Duration::from_secs(1));
    let cost = |request: &TraceRequest| request.device.unwrap_or_default().as_secs_f64();
    let asked: f64 = trace.requests.iter().map(cost).sum();
    // What it asks for a second as it was recorded, and how much faster it has to go.
    let speed = load * slots as f64 / (asked / span.as_secs_f64()).max(1e-9);
    let mut world = Scenario::new(policy, slots);
    world.duration = span.div_f64(speed);
    world.warm_up = world.duration / 20;
    world.loaded_per_worker = fits;
    world.noise = 0.05;
    world.config.max_queued_tasks = 50_000;
    world.config.max_queued_tasks_per_tenant = 1000;
    for (number, name) in trace.models.iter().enumerate() {
        let costs: Vec<f64> = trace.requests.iter().filter(|request| request.model == number).map(cost).collect();
        let mean = Duration::from_secs_f64(costs.iter().sum::<f64>() / costs.len().max(1) as f64);
        let model = ModelPlan::new(name.clone(), fixed, mean.saturating_sub(fixed), max_rows);
        world.model(ModelPlan { loaded: fits == usize::MAX, ..model });
    }
    let mut replays: BTreeMap<usize, Vec<Recorded>> = BTreeMap::new();
    let mut asked_by: BTreeMap<usize, f64> = BTreeMap::new();
    let tier = |tenant: usize| match tenant % 10 {
        0 => Tier::Guaranteed,
        1 | 3 | 5 | 7 => Tier::BestEffort,
        _ => Tier::Burstable,
    };
    for request in &trace.requests {
        *asked_by.entry(request.tenant).or_default() += cost(request);
        replays.entry(request.tenant).or_default().push(Recorded {
            at: request.at.div_f64(speed),
            model: request.model,
            rows: request.rows,
            bucket: request.bucket,
            bytes: request.bytes,
            timeout: (tier(request.tenant) != Tier::BestEffort).then_some(Duration::from_secs(1)),
            work: request.device.map(|device| device.saturating_sub(fixed)),
        });
    }
    let mut room = RESERVED_PER_SLOT * slots as f64;
    for (number, name) in trace.tenants.iter().enumerate() {
        let mean = asked_by.get(&number).copied().unwrap_or(0.0) / world.duration.as_secs_f64();
        let rate = (mean * 1.25).clamp(0.01, 0.5).min(room);
        let is_guaranteed = tier(number) == Tier::Guaranteed && rate >= 0.01;
        room -= if is_guaranteed { rate } else { 0.0 };
        let burst = Duration::from_millis(100).mul_f64(rate.max(0.05)).max(Duration::from_millis(20));
        let reservation = is_guaranteed.then_some(Reservation { rate: Rate::from_ppm((rate * 1e6) as u32), burst });
        let tenant = world.tenant(name.clone(), Share { tier: Some(tier(number)), reservation, ..Share::default() });
        if let Some(replay) = replays.remove(&number) {
            world.sources.push(Source::new(tenant, 0, Arrivals::Replay(Arc::new(replay))));
        }
    }
    // Nobody has a process of his own here: what is simulated is one pool of models.
    for tenant in &mut world.tenants {
        tenant.batch_with_others |= fits != usize::MAX;
    }
    (world, (0..trace.tenants.len()).map(tier).collect())
}

/// Calls of functions, spread over each minute, with their owners and their mean durations.
fn functions(traces: &Path, size: &str, minutes: usize) -> Result<Trace, MixtureError> {
    let durations_file = format!("{AZURE}/{size}_durations.csv");
    let mut durations: BTreeMap<String, f64> = BTreeMap::new();
    for (line, text) in open(traces, &durations_file)?.lines().enumerate().skip(1) {
        let wrong = || MixtureError::Table { file: durations_file.clone(), line: line + 1 };
        let text = text.map_err(|source| MixtureError::Open { file: durations_file.clone(), source })?;
        let fields: Vec<&str> = text.split(',').collect();
        let (Some(function), Some(average)) = (fields.get(2), fields.get(3).and_then(|text| text.parse().ok())) else {
            return Err(wrong());
        };
        durations.insert((*function).to_owned(), average);
    }
    let calls_file = format!("{AZURE}/{size}_invocations.csv");
    let mut trace = Trace::default();
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    let mut random = Random::new(2019);
    for (line, text) in open(traces, &calls_file)?.lines().enumerate().skip(1) {
        let text = text.map_err(|source| MixtureError::Open { file: calls_file.clone(), source })?;
        let mut fields = text.split(',');
        let (Some(owner), Some(_), Some(function), Some(_)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(MixtureError::Table { file: calls_file, line: line + 1 });
        };
        let tenant = *owners.entry(owner.to_owned()).or_insert_with(|| {
            trace.tenants.push(format!("owner-{}", trace.tenants.len()));
            trace.tenants.len() - 1
        });
        let model = trace.models.len();
        trace.models.push(format!("function-{model}"));
        // A hundredth of what it took, at least 1 ms: the mean of a call becomes some tens of milliseconds.
        let average = durations.get(function).copied().unwrap_or(100.0) / 100.0;
        let device = Duration::from_secs_f64(average.max(1.0) / 1e3).min(LONGEST_RUN);
        for (minute, count) in fields.take(minutes).enumerate() {
            for _ in 0..count.trim().parse::<u32>().unwrap_or(0) {
                let at = Duration::from_secs_f64((minute as f64 + random.unit()) * 60.0);
                trace.requests.push(TraceRequest {
                    at,
                    tenant,
                    model,
                    rows: 1,
                    bucket: 0,
                    bytes: 1024,
                    timeout: None,
                    device: Some(device),
                });
            }
        }
    }
    trace.requests.sort_by_key(|request| request.at);
    Ok(trace)
}
