//! The program `tenantry-sim`: experiments with the real scheduler in virtual time, and the check of decision logs.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tenantry_sched::Policy;
use tenantry_sim::adversary::{Adversary, scenario};
use tenantry_sim::experiments::{self, Experiment, Findings};
use tenantry_sim::log;
use tenantry_sim::world::{Observer, run};

const HELP: &str = "\
Experiments with Tenantry's scheduler in virtual time, and the check of decision logs.

Usage: tenantry-sim COMMAND [OPTIONS]

Commands:
  all         every experiment (with --traces also the mixtures)
  gap         how far apart tenants come that always have work (X1)
  isolation   a tenant within its reservation beside every adversary (P7)
  overload    what is answered in time under 0.5 to 6 times the load (E4)
  ablations   what each part of the policy is good for
  servegen    ServeGen's clients as tenants                    needs --traces
  azure       Azure's functions as models, owners as tenants   needs --traces
  record      writes the decision log of a small world         needs --log
  check       checks a decision log: what it says, and that this build decides the same   needs --log

Options:
  --quick         shorter and coarser, for continuous integration
  --traces DIR    the folder of traces (with servegen/ and azure_functions_samples/ in it)
  --log FILE      the decision log, as `tenantry serve --record-decisions FILE` writes it
  -h, --help      this text

Examples:
  tenantry-sim all --quick
  tenantry-sim isolation
  tenantry-sim servegen --traces traces
  tenantry-sim check --log decisions.jsonl

Every experiment prints its tables, then one line a figure: `figure NAME VALUE UNIT goal OP NUMBER`. Figures with the suffix
of a baseline (_fifo, _round_robin, _strict_priority, _by_count) stand beside for comparison. The program fails if the fair
policy breaks a promise, not if a goal is missed.
";

struct Arguments {
    command: String,
    quick: bool,
    traces: Option<PathBuf>,
    log: Option<PathBuf>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|arguments| arguments.map_or(Ok(ExitCode::SUCCESS), act)) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for; nothing if that was the help.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut arguments = Arguments { command: String::new(), quick: false, traces: None, log: None };
    while let Some(word) = words.next() {
        let mut value = |of: &str| words.next().map(PathBuf::from).ok_or(format!("{of} needs a value"));
        match word.as_str() {
            "-h" | "--help" | "help" => {
                print!("{HELP}");
                return Ok(None);
            }
            "--quick" => arguments.quick = true,
            "--traces" => arguments.traces = Some(value("--traces")?),
            "--log" => arguments.log = Some(value("--log")?),
            _ if arguments.command.is_empty() && !word.starts_with('-') => arguments.command = word,
            _ => return Err(format!("`{word}` is unknown; see tenantry-sim --help")),
        }
    }
    if arguments.command.is_empty() {
        return Err("no command; see tenantry-sim --help".to_owned());
    }
    Ok(Some(arguments))
}

fn act(arguments: Arguments) -> Result<ExitCode, String> {
    let Arguments { command, quick, traces, log } = arguments;
    let traces = || traces.clone().ok_or("this needs --traces DIR".to_owned());
    let log = || log.clone().ok_or("this needs --log FILE".to_owned());
    let text = |error: &dyn std::error::Error| {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    };
    let mut figures = Vec::new();
    let mut violations = Vec::new();
    // Each experiment is shown when it is done; the figures come last.
    let mut show = |found: Findings| {
        print!("{}", found.text);
        figures.extend(found.figures);
        violations.extend(found.violations);
    };
    match command.as_str() {
        "all" => {
            for experiment in Experiment::ALL {
                show(experiment.run(quick));
            }
            if let Ok(traces) = traces() {
                show(experiments::servegen(&traces, quick).map_err(|error| text(&error))?);
                show(experiments::azure(&traces, quick).map_err(|error| text(&error))?);
            }
        }
        "servegen" => show(experiments::servegen(&traces()?, quick).map_err(|error| text(&error))?),
        "azure" => show(experiments::azure(&traces()?, quick).map_err(|error| text(&error))?),
        "record" => return record(log()?).map_err(|error| text(&error)),
        "check" => return check(log()?).map_err(|error| text(&error)),
        other => match Experiment::ALL.into_iter().find(|experiment| experiment.as_str() == other) {
            Some(experiment) => show(experiment.run(quick)),
            None => return Err(format!("`{other}` is unknown; see tenantry-sim --help")),
        },
    }
    for violation in &violations {
        println!("violation {violation}");
    }
    for figure in &figures {
        println!("{figure}");
    }
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn record(path: PathBuf) -> std::io::Result<ExitCode> {
    let world = scenario(Adversary::FloodSmall, Policy::Fair, 2, true, Duration::from_secs(3));
    let mut recorder = log::Recorder::new(BufWriter::new(File::create(path)?), &world.config)?;
    let report = run(&world, &mut [&mut recorder as &mut dyn Observer]);
    recorder.finish()?;
    println!("{} batches recorded", report.batches);
    Ok(ExitCode::SUCCESS)
}

fn check(path: PathBuf) -> Result<ExitCode, log::LogError> {
    let found = log::check(BufReader::new(File::open(path)?))?;
    println!("{} polls, {} decisions in {:.3} s", found.polls, found.decisions, found.lasted.as_secs_f64());
    match &found.differs {
        None => println!("this build decides the same"),
        Some((line, what)) => println!("this build decides otherwise from line {line} on: {what}"),
    }
    if let Some((gap, bound)) = found.gap {
        println!("worst gap between tenants with work: {gap:.6} s, bound {bound:.6} s (P2)");
    }
    let (lateness, count) = found.lateness;
    if count > 0 {
        println!("{count} reserved tasks, the worst ended {lateness:.6} s after F + Q (P4; negative: before)");
    }
    let (violations, count) = &found.violations;
    println!("{count} violations");
    for violation in violations {
        println!("violation {violation}");
    }
    Ok(if *count == 0 && found.differs.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
