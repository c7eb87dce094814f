//! Paired measurements against named baselines.
//!
//! Everything is measured in one run, in alternation, several rounds, and reported as medians of ratios: these machines
//! are noisy, so an absolute time means nothing. The server and its workers are pinned to processor 0, the load to
//! processor 1. The baselines:
//!
//! - *raw*: the same engine in this process on processor 0, default session options, at its best batch of 1 to 32;
//! - *null*: a server of the same HTTP stack on processor 0 that answers a constant.
//!
//! The last lines are `figure NAME VALUE UNIT goal OP NUMBER`, whether the goal is met or not.

#![forbid(unsafe_code)]

mod admin;
mod billing;
mod cold;
mod doors;
mod edges;
mod encryption;
mod fairness;
mod figures;
mod hostile;
mod interrupt;
mod isolation;
mod jail;
mod latency;
mod ledger;
mod load;
mod media;
mod memory;
mod models;
mod null;
mod pair;
mod poll;
mod process;
mod raw;
mod refusal;
mod server;
mod share_of_64;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::figures::Figures;
use crate::models::Models;

/// Measure Tenantry against named baselines.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  tenantry-bench                          everything, about ten minutes\n  tenantry-bench --only throughput        one group\n  tenantry-bench --only scheduler         what one decision of the scheduler costs\n  tenantry-bench --rounds 7 --json        more rounds; the figures as JSON\n\nNeeds two processors and what `make fetch` brings."
)]
struct Arguments {
    /// Run these groups only; without it all but isolation, hostile, media, edges, doors, ledger and billing, which take longer than the others together.
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    only: Vec<Group>,
    /// Rounds of each measurement; figures are medians over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load in each round.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Models registered for the memory figure of a large registry.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    models: u32,
    /// Records of the ledger that the billing group asks.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    records: u64,
    /// The `tenantry` program; by default the one beside this one.
    #[arg(long, value_name = "FILE")]
    tenantry: Option<PathBuf>,
    /// The folder with the fetched runtime and models.
    #[arg(long, default_value = ".cache", value_name = "DIR")]
    cache: PathBuf,
    /// Requests of the victim, alone and in every arm of the isolation group each, under the fair policy.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    victim_requests: u32,
    /// The same under the baselines.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    baseline_requests: u32,
    /// These arms of the isolation group only; without it all but same_image, whose victim asks twice a second.
    #[arg(long, value_delimiter = ',', value_name = "ARM", value_parser = isolation::ARMS)]
    arms: Vec<String>,
    /// A short run to see that everything works; its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Print the figures as JSON instead of lines.
    #[arg(long)]
    json: bool,
    /// Play the null server (used by the bench itself).
    #[arg(long, hide = true)]
    null_server: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Group {
    Throughput,
    Latency,
    Memory,
    Cold,
    /// What one decision of the scheduler costs.
    Scheduler,
    /// What a refused request costs.
    Refusal,
    /// What fairness costs in throughput.
    Fairness,
    /// What a tenant notices of another one's flood.
    Isolation,
    /// What the barriers around workers cost.
    Jail,
    /// What a tenant notices of another one's hostile models.
    Hostile,
    /// What pipelines cost, and whom: large pictures, sentences.
    Media,
    /// gRPC beside binary HTTP.
    Edges,
    /// What authentication, policy, limits and the ledger cost together.
    Doors,
    /// What encryption at rest costs.
    Encryption,
    /// What the usage ledger costs, and that a killed server loses nothing.
    Ledger,
    /// What is asked of a ledger with many records.
    Billing,
}

/// What every measurement needs.
struct Bench {
    tenantry: PathBuf,
    models: Models,
    rounds: u32,
    seconds: u32,
    registry_models: u32,
    records: u64,
    quick: bool,
    victim_requests: u32,
    baseline_requests: u32,
    arms: Vec<String>,
}

/// One group's measurement.
type Measure = fn(&Bench, &mut Figures) -> Result<()>;

impl Bench {
    /// Finds the programs and models that the groups with a server need.
    fn prepare(arguments: &Arguments) -> Result<Self> {
        let tenantry = match &arguments.tenantry {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("where is this program?")?.with_file_name("tenantry"),
        };
        anyhow::ensure!(tenantry.exists(), "there is no `tenantry` beside this program: run `make bench`");
        Ok(Self {
            tenantry,
            models: Models::find(&arguments.cache)?,
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            registry_models: arguments.models,
            records: arguments.records,
            quick: arguments.quick,
            victim_requests: arguments.victim_requests,
            baseline_requests: arguments.baseline_requests,
            arms: arguments.arms.clone(),
        })
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.null_server { null::play() } else { measure(&arguments) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again with the runtime's telemetry off: it must be so before the library is loaded, and
/// changing the environment of a running process is not safe.
fn with_telemetry_off() -> Result<()> {
    use std::os::unix::process::CommandExt as _;

    if std::env::var_os("ORT_DISABLE_TELEMETRY").is_some_and(|value| value == "1") {
        return Ok(());
    }
    let program = std::env::current_exe().context("where is this program?")?;
    let error =
        std::process::Command::new(program).args(std::env::args_os().skip(1)).env("ORT_DISABLE_TELEMETRY", "1").exec();
    Err(error).context("cannot start again with the runtime's telemetry off")
}

fn measure(arguments: &Arguments) -> Result<()> {
    with_telemetry_off()?;
    interrupt::end_children_on_signals()?;
    process::pin(process::LOAD_CPU).context("the load needs a second processor")?;
    let mut figures = Figures::default();
    let outcome = measure_groups(arguments, &mut figures);
    // What was measured before something failed may have taken hours: it is printed in any case.
    figures.print(arguments.json)?;
    outcome
}

fn measure_groups(arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    let wanted = |group: Group| match arguments.only.as_slice() {
        [] => !matches!(
            group,
            Group::Isolation | Group::Hostile | Group::Media | Group::Edges | Group::Ledger | Group::Billing
        ),
        only => only.contains(&group),
    };
    if wanted(Group::Scheduler) {
        poll::measure(arguments.quick, figures)?;
    }
    let groups: [(Group, Measure); 15] = [
        (Group::Throughput, throughput::measure),
        (Group::Latency, latency::measure),
        (Group::Cold, cold::measure),
        (Group::Memory, memory::measure),
        (Group::Refusal, refusal::measure),
        (Group::Fairness, fairness::measure),
        (Group::Isolation, isolation::measure),
        (Group::Jail, jail::measure),
        (Group::Hostile, hostile::measure),
        (Group::Media, media::measure),
        (Group::Edges, edges::measure),
        (Group::Doors, doors::measure),
        (Group::Encryption, encryption::measure),
        (Group::Ledger, ledger::measure),
        (Group::Billing, billing::measure),
    ];
    if groups.iter().any(|(group, _)| wanted(*group)) {
        let bench = Bench::prepare(arguments)?;
        for (_, measure) in groups.iter().filter(|(group, _)| wanted(*group)) {
            measure(&bench, figures)?;
        }
    }
    Ok(())
}
