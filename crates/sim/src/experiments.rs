//! What the simulator shows, as tables and figures.

mod gap;
mod isolation;
mod mixtures;
mod overload;
mod variations;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tenantry_sched::Policy;

use crate::check::Auditor;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::world::{Observer, run};

pub use mixtures::MixtureError;

/// A number with its goal.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What it is.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// `<=` or `>=`.
    pub operator: &'static str,
    /// What it should be.
    pub goal: f64,
}

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, value, unit, operator, goal } = self;
        write!(f, "figure {name} {value:.4} {unit} goal {operator} {goal}")
    }
}

/// What an experiment has to say.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// For people.
    pub text: String,
    /// For comparison.
    pub figures: Vec<Figure>,
    /// Promises of the fair policy that were not kept: there should be none.
    pub violations: Vec<String>,
}

impl Findings {
    fn line(&mut self, line: impl AsRef<str>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}", line.as_ref());
    }

    fn figure(&mut self, name: String, value: f64, unit: &'static str, operator: &'static str, goal: f64) {
        self.figures.push(Figure { name, value, unit, operator, goal });
    }

    /// Adds what another one found.
    pub fn append(&mut self, other: Self) {
        self.text.push_str(&other.text);
        self.figures.extend(other.figures);
        self.violations.extend(other.violations);
    }
}

/// An experiment that needs nothing but a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Experiment {
    /// X1: how far apart tenants come that always have work.
    Gap,
    /// P7: a tenant within its reservation beside every adversary.
    Isolation,
    /// E4: what is answered in time under 0.5 to 6 times the load.
    Overload,
    /// What each part of the policy is good for.
    Variations,
}

impl Experiment {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Gap, Self::Isolation, Self::Overload, Self::Variations];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Isolation => "isolation",
            Self::Overload => "overload",
            Self::Variations => "ablations",
        }
    }

    /// Runs it; `quick`: shorter and coarser.
    pub fn run(self, quick: bool) -> Findings {
        match self {
            Self::Gap => gap::run(quick),
            Self::Isolation => isolation::run(quick),
            Self::Overload => overload::run(quick),
            Self::Variations => variations::run(quick),
        }
    }
}

/// The ServeGen mixture; `traces`: the folder of traces.
///
/// # Errors
/// [`MixtureError`] where the traces cannot be read.
pub fn servegen(traces: &Path, quick: bool) -> Result<Findings, MixtureError> {
    mixtures::servegen(traces, quick)
}

/// The mixture of Azure's functions; `traces`: the folder of traces.
///
/// # Errors
/// [`MixtureError`] where the traces cannot be read.
pub fn azure(traces: &Path, quick: bool) -> Result<Findings, MixtureError> {
    mixtures::azure(traces, quick)
}

/// Runs a world with an auditor beside it; what it finds under the fair policy goes into the findings.
fn audited(world: &Scenario, what: &str, findings: &mut Findings) -> (Report, Auditor) {
    let mut auditor = Auditor::from(&world.config, world.warm_up);
    let report = run(world, &mut [&mut auditor as &mut dyn Observer]);
    if world.config.policy == Policy::Fair {
        auditor.check_reservations();
    }
    note(&report, &auditor, what, findings);
    (report, auditor)
}

fn note(report: &Report, auditor: &Auditor, what: &str, findings: &mut Findings) {
    let (violations, count) = auditor.violations();
    for violation in violations.iter().take(3) {
        findings.violations.push(format!("{what}: {violation} ({count} in all)"));
    }
    for fault in report.faults.iter().take(3) {
        findings.violations.push(format!("{what}: {fault}"));
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn underscored(policy: Policy) -> String {
    policy.as_str().replace('-', "_")
}
