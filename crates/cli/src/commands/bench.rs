//! `tenantry bench`: load of several tenants at once, and what each of them got.

mod plan;

use std::io::BufReader;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tenantry_load::{Plan, PlanFile, Progress, StreamReport, TenantEntry, call_once, run as send};

use self::plan::Target;
use crate::arguments::Bench;
use crate::output::{Progress as Bars, print_json, print_table, span, table};

/// How long the load counts, where nothing is said.
const DURATION: Duration = Duration::from_secs(10);
/// How long it is sent before.
const WARMUP: Duration = Duration::from_secs(1);
/// The longest run.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
/// How long the first answer of a model may take: it is loaded for it.
const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Output {
    server: String,
    warmup_seconds: f64,
    tenants: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    /// What was asked for, in words.
    load: String,
    /// Answers in time, a second.
    goodput_per_second: f64,
    /// The part of the due requests answered in time.
    in_time: f64,
    #[serde(flatten)]
    seen: StreamReport,
}

pub(crate) fn run(server: &str, arguments: &Bench, json: bool) -> Result<()> {
    let target = Target::find(server)?;
    let bars = Bars::new(json);
    let (plan, loads) = match &arguments.trace {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            let rows = tenantry_load::read_trace(BufReader::new(file))?;
            target.replay(&rows, arguments)?
        }
        None => {
            let file = read_plan(arguments)?;
            target.plan(&file, arguments)?
        }
    };
    ensure!(plan.duration > Duration::ZERO, "the load lasts no time at all; name a longer --duration");
    ensure!(plan.warmup + plan.duration <= MAX_DURATION, "the load lasts more than a day; name a shorter --duration");
    ask_once(&plan, &bars)?;
    let report = with_bar(&plan, &bars)?;
    let rows = report.into_iter().zip(loads).map(|(seen, load)| Row {
        load,
        goodput_per_second: seen.goodput_per_second(),
        in_time: seen.in_time(),
        seen,
    });
    let rows: Vec<Row> = rows.collect();
    if json {
        let server = server.to_owned();
        return print_json(&Output { server, warmup_seconds: plan.warmup.as_secs_f64(), tenants: rows });
    }
    print(&rows);
    Ok(())
}

/// The tenants of the file, then those of the command line.
fn read_plan(arguments: &Bench) -> Result<PlanFile> {
    let mut file = match &arguments.plan {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            PlanFile::parse(&text)?
        }
        None => PlanFile::default(),
    };
    file.tenants.extend(arguments.tenants.iter().cloned());
    ensure!(
        !file.tenants.is_empty(),
        "nobody sends anything: name at least one --tenant, or a --plan with a [[tenant]]; `tenantry bench --help` has examples"
    );
    Ok(file)
}

/// Asks every model once: it is loaded then, and a load that makes no sense is not sent at all.
fn ask_once(plan: &Plan, bars: &Bars) -> Result<()> {
    let bar = bars.wait("asking each model once");
    for stream in &plan.streams {
        let Some(request) = stream.requests.first() else { continue };
        let answer = call_once(stream.address, request, FIRST_ANSWER)?;
        // A limit may well be what is to be measured; what is refused for good is a mistake.
        if let Some(refusal) = answer.refusal.filter(|_| matches!(answer.status, 400..=428)) {
            bail!("`{}` cannot send its load: {} ({})", stream.name, refusal.message, answer.status);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn with_bar(plan: &Plan, bars: &Bars) -> Result<Vec<StreamReport>> {
    /// How often the bar moves.
    const TICK: Duration = Duration::from_millis(200);
    let progress = Arc::new(Progress::default());
    let is_over = AtomicBool::new(false);
    let total = plan.warmup + plan.duration;
    let bar = bars.load(total);
    let start = Instant::now();
    let report = std::thread::scope(|scope| {
        let shown = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                bar.set_position(start.elapsed().min(total).as_millis() as u64);
                let (answered, refused) =
                    (progress.answered.load(Ordering::Relaxed), progress.refused.load(Ordering::Relaxed));
                bar.set_message(format!("{answered} answered, {refused} not"));
                std::thread::park_timeout(TICK);
            }
        });
        let report = send(plan, &progress);
        is_over.store(true, Ordering::Relaxed);
        shown.thread().unpark();
        report
    });
    bar.finish_and_clear();
    Ok(report?.tenants)
}

fn print(rows: &[Row]) {
    let columns =
        ["tenant", "load", "due", "answered", "late", "unanswered", "in time/s", "p50", "p90", "p99", "p99.9", "max"];
    let mut shown = table(&columns);
    for Row { load, seen, .. } in rows {
        let of = |latency| if seen.answered == 0 { "-".to_owned() } else { span(latency) };
        let latency = |part| of(seen.latency.quantile(part));
        shown.add_row([
            seen.name.clone(),
            load.clone(),
            seen.due.to_string(),
            seen.answered.to_string(),
            seen.late.to_string(),
            (seen.refusals() + seen.failures()).to_string(),
            format!("{:.1}", seen.goodput_per_second()),
            latency(0.5),
            latency(0.9),
            latency(0.99),
            latency(0.999),
            of(seen.latency.max()),
        ]);
    }
    print_table(&shown, "nobody sent anything");
    for Row { seen, .. } in rows {
        for (reason, count) in &seen.refused {
            println!("{}: {count} refused, {reason}", seen.name);
        }
        for (what, count) in &seen.failed {
            println!("{}: {count} failed, {what}", seen.name);
        }
        if seen.unsent > 0 {
            println!("{}: {} not sent in time, all its connections being busy", seen.name, seen.unsent);
        }
        if seen.lost > 0 {
            println!("{}: {} never answered", seen.name, seen.lost);
        }
    }
}

/// The key of an entry, from wherever it says.
fn key_of(entry: &TenantEntry) -> Result<String> {
    match (&entry.key, &entry.key_env) {
        (Some(key), _) => Ok(key.clone()),
        (None, Some(variable)) => std::env::var(variable)
            .with_context(|| format!("the key of `{}` should be in the variable {variable}", entry.name)),
        (None, None) => bail!("`{}` has no key", entry.name),
    }
}
