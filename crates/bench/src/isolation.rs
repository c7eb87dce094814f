//! What a tenant with a reservation notices of another tenant's flood, under each policy, on a real server.
//!
//! One server run; the policy is switched while it runs. Each round visits every policy, and each visit has two windows
//! of load: the victim *alone*, sending at a tenth of what it could get, at independent times and whatever the server
//! does; and the same arrivals *attacked* by a tenant with 64 connections that send again as soon as they have their
//! answers. Latency counts from when a request was due. The victim names no deadline, so that nothing is given up and
//! every latency is seen; an answer counts as in time if it came before the deadline printed for its arm. Every third
//! round has a third window, the aggressor alone: what it could get.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tenantry_load::StreamReport;

use crate::Bench;
use crate::figures::{Figures, at_least, at_most};
use crate::load::{Repeated, ensure_answered, send};
use crate::models::Subject;
use crate::server::Server;
use crate::share_of_64;

/// The policies under comparison, as the server calls them; the first is ours.
pub(crate) const POLICIES: [&str; 4] = ["fair", "fifo", "round-robin", "strict-priority"];
/// The arms: whose model is asked by whom. In `same_big` both ask the image model; otherwise the victim asks the small one.
pub(crate) const ARMS: [&str; 4] = ["same_small", "other_small", "other_big", "same_big"];
/// The aggressor's connections.
const FLOOD_CONNECTIONS: usize = 64;
/// The connections by which the victim's capacity is found: enough to keep every batch full.
const CAPACITY_CONNECTIONS: usize = 32;
/// The part of its capacity that the victim uses.
const VICTIM_PART: f64 = 0.1;
/// What the victim reserves, over what its requests need in the mean: they come at random.
const HEADROOM: f64 = 2.0;
/// The most it reserves, in slots.
const MAX_RESERVED: f64 = 0.6;
/// The victim's deadline in times of its requests' device time, and at the least.
const DEADLINE_RUNS: f64 = 10.0;
const MIN_DEADLINE: Duration = Duration::from_millis(100);
/// Load before a window counts, so that queues are as they stay.
const SETTLE: Duration = Duration::from_secs(1);
/// Every so many rounds the aggressor has a window of its own.
const ALONE_EVERY: u32 = 3;
/// The most rounds of the baselines: where the victim's tenth is few requests a second, only the fair policy goes on until
/// it has them all.
const MAX_BASELINE_ROUNDS: u32 = 40;

/// Who asks what.
struct Arm<'a> {
    name: &'static str,
    victim: &'a Subject,
    aggressor: &'a Subject,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    window: Duration,
    /// Victim's requests of each of alone and attacked.
    requests: f64,
    max_baseline_rounds: u32,
    max_rounds: u32,
}

/// What one policy showed in one arm.
struct Seen {
    alone: StreamReport,
    attacked: StreamReport,
    aggressor: StreamReport,
    aggressor_alone: StreamReport,
    /// The victim's device time while attacked, in slots.
    victim_used: f64,
}

/// The result of one policy in one arm, or the worst over all arms.
#[derive(Clone, Copy)]
struct Score {
    p50: f64,
    p99: f64,
    goodput: f64,
    kept: f64,
    alone_p50: f64,
}

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let effort = if bench.quick {
        Effort { window: Duration::from_secs(2), requests: 1.0, max_baseline_rounds: 1, max_rounds: 1 }
    } else {
        Effort {
            window: Duration::from_secs(5),
            requests: f64::from(bench.victim_requests),
            max_baseline_rounds: MAX_BASELINE_ROUNDS,
            max_rounds: u32::MAX,
        }
    };
    let server = Server::start(bench)?;
    let [file_type, embedding, image] = [bench.models.file_type()?, bench.models.embedding()?, bench.models.image()?];
    let operator = server.admin.operator()?;
    for subject in [&file_type, &embedding, &image] {
        eprintln!("registering {}", subject.name);
        let digest = server.admin.upload(&operator, &subject.model)?;
        server.admin.register(&operator, subject.name, &digest)?;
        server.admin.share(&operator, subject.name)?;
    }
    let keys = Keys { operator, victim: server.admin.tenant("victim")?, aggressor: server.admin.tenant("aggressor")? };
    let models = [(&file_type, &file_type), (&file_type, &embedding), (&file_type, &image), (&image, &image)];
    let arms = ARMS.into_iter().zip(models).map(|(name, (victim, aggressor))| Arm { name, victim, aggressor });
    let mut all: Vec<[Score; POLICIES.len()]> = Vec::new();
    for arm in arms.filter(|arm| bench.arms.is_empty() || bench.arms.iter().any(|name| name == arm.name)) {
        let scores = one(&server, &keys, &arm, effort)?;
        for (policy, score) in POLICIES.iter().zip(&scores) {
            add(figures, &format!("_{}_{}", word(policy), arm.name), *score);
        }
        all.push(scores);
    }
    for (index, policy) in POLICIES.iter().enumerate() {
        let of_policy = || all.iter().filter_map(|scores| scores.get(index)).copied();
        if let Some(worst) = of_policy().reduce(Score::worst) {
            add(figures, &format!("_{}", word(policy)), worst);
        }
    }
    let fifo = POLICIES.iter().position(|policy| *policy == "fifo").unwrap_or(1);
    let slower = all.iter().filter_map(|scores| Some(scores.first()?.alone_p50 / scores.get(fifo)?.alone_p50));
    if let Some(slower) = slower.reduce(f64::max) {
        figures.add("victim_alone_fair_vs_fifo", slower, "ratio", at_most(1.15));
    }
    // The two tenants on the image model belong to the arm of that model.
    let wanted = bench.arms.is_empty() || bench.arms.iter().any(|name| name == "same_big");
    if wanted { share_of_64::measure(bench, &server, &keys.operator, &image, figures) } else { Ok(()) }
}

fn add(figures: &mut Figures, of: &str, score: Score) {
    figures.add(format!("victim_p50_ratio{of}"), score.p50, "ratio", at_most(1.5));
    figures.add(format!("victim_p99_ratio{of}"), score.p99, "ratio", at_most(2.0));
    figures.add(format!("victim_goodput{of}"), score.goodput, "ratio", at_least(1.0));
    figures.add(format!("aggressor_kept{of}"), score.kept, "ratio", at_least(0.85));
}

struct Keys {
    operator: String,
    victim: String,
    aggressor: String,
}

fn one(server: &Server, keys: &Keys, arm: &Arm<'_>, effort: Effort) -> Result<[Score; POLICIES.len()]> {
    let admin = &server.admin;
    let request = |subject: &Subject, key| {
        Repeated::infer(server.address, &format!("{}/{}", keys.operator, subject.name), key, subject)
    };
    let victim = request(arm.victim, &keys.victim)?;
    let aggressor = request(arm.aggressor, &keys.aggressor)?;
    // As every tenant is at first; the victim's worker of its own comes with its tier.
    admin.policy("fair")?;
    admin.settle("victim", &json!({"tier": "guaranteed", "reservation": {"slots": 0.1}}))?;
    // Loads both models, and fills the server's caches.
    victim.flood(4, Duration::from_secs(1))?;
    aggressor.flood(4, Duration::from_secs(1))?;
    // On a slow machine a part of this flood may be refused; what is answered is the capacity all the same.
    let capacity = send(vec![victim.closed("victim", CAPACITY_CONNECTIONS)], SETTLE, effort.window)?;
    let capacity = capacity.first().context("no report")?.per_second();
    anyhow::ensure!(capacity > 0.0, "the victim alone got no answer in {:?}: is the machine busy?", effort.window);
    let rate = capacity * VICTIM_PART;
    let before = admin.device_seconds("victim")?;
    let singles = victim.one_by_one(20)?;
    let each = (admin.device_seconds("victim")? - before) / singles.answers.max(1) as f64;
    anyhow::ensure!(each > 0.0, "the server's metrics show no device time of the victim");
    let reserved = (rate * each * HEADROOM).clamp(0.02, MAX_RESERVED);
    let burst_ms = ((each * 5.0 * 1e3) as u64).max(100);
    let deadline = Duration::from_secs_f64(each * DEADLINE_RUNS).max(MIN_DEADLINE);
    admin.settle("victim", &json!({"tier": "guaranteed", "reservation": {"slots": reserved, "burst_ms": burst_ms}}))?;
    let rounds = (effort.requests / (rate * effort.window.as_secs_f64())).ceil().max(1.0) as u32;
    let rounds = rounds.min(effort.max_rounds);
    let baseline_rounds = rounds.min(effort.max_baseline_rounds);
    eprintln!(
        "{}: victim asks {} {rate:.1} times a second (a tenth of {capacity:.1}), {:.2} ms each; {reserved:.3} slots reserved, \
         deadline {deadline:?}; aggressor asks {} over {FLOOD_CONNECTIONS} connections",
        arm.name,
        arm.victim.name,
        each * 1e3,
        arm.aggressor.name
    );
    let visits = f64::from(rounds) + f64::from(baseline_rounds) * (POLICIES.len() - 1) as f64;
    let windows = visits * (2.0 + 1.0 / f64::from(ALONE_EVERY));
    let minutes = windows * (effort.window + SETTLE).as_secs_f64() / 60.0;
    eprintln!("  {rounds} rounds ({baseline_rounds} of the baselines), about {minutes:.0} minutes");
    let mut seen = POLICIES.map(|_| Seen::new());
    for round in 0..rounds {
        for (policy, seen) in POLICIES.iter().zip(&mut seen) {
            if *policy != "fair" && round >= baseline_rounds {
                continue;
            }
            admin.policy(policy)?;
            // Alone and attacked by the same arrivals.
            let arrivals = || victim.open("victim", rate, u64::from(round) + 1, deadline);
            let flood = || aggressor.closed("aggressor", FLOOD_CONNECTIONS);
            let alone = send(vec![arrivals()], SETTLE, effort.window)?;
            seen.alone.merge(alone.first().context("no report")?);
            let used = admin.device_seconds("victim")?;
            let attacked = send(vec![arrivals(), flood()], SETTLE, effort.window)?;
            let used = admin.device_seconds("victim")? - used;
            seen.attacked.merge(attacked.first().context("no report")?);
            seen.aggressor.merge(attacked.get(1).context("no report")?);
            // Over the whole time, the part before the window included.
            seen.victim_used += used / (effort.window + SETTLE).as_secs_f64();
            if round % ALONE_EVERY == 0 {
                let alone = send(vec![flood()], SETTLE, effort.window)?;
                seen.aggressor_alone.merge(alone.first().context("no report")?);
            }
        }
        if rounds > 5 && (round + 1) % 5 == 0 {
            eprintln!("  {}: round {} of {rounds}", arm.name, round + 1);
        }
    }
    let counted = |policy: &str| if policy == "fair" { rounds } else { baseline_rounds };
    let mut scores = Vec::new();
    for (policy, seen) in POLICIES.iter().zip(&mut seen) {
        seen.victim_used /= f64::from(counted(policy));
        // Said, not fatal: one broken connection should not cost the hours before it.
        if let Err(error) = ensure_answered(&seen.alone) {
            eprintln!("warning: the victim alone, {policy}: {error:#}");
        }
        seen.show(policy);
        scores.push(seen.score());
    }
    scores.try_into().ok().context("a score for each policy")
}

/// A policy in a figure's name.
fn word(policy: &str) -> String {
    policy.replace('-', "_")
}

impl Seen {
    fn new() -> Self {
        let report = || StreamReport::new(String::new());
        Self { alone: report(), attacked: report(), aggressor: report(), aggressor_alone: report(), victim_used: 0.0 }
    }

    fn score(&self) -> Score {
        let ratio =
            |part| self.attacked.latency.quantile(part).as_secs_f64() / self.alone.latency.quantile(part).as_secs_f64();
        let left = self.aggressor_alone.per_second() * (1.0 - self.victim_used);
        Score {
            p50: ratio(0.5),
            p99: ratio(0.99),
            goodput: self.attacked.in_time(),
            kept: self.aggressor.per_second() / left,
            alone_p50: self.alone.latency.quantile(0.5).as_secs_f64(),
        }
    }

    fn show(&self, policy: &str) {
        let of = |seen: &StreamReport| {
            let at = |part| seen.latency.quantile(part).as_secs_f64() * 1e3;
            format!("{} requests, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", seen.due, at(0.5), at(0.99), at(1.0))
        };
        eprintln!("  {policy:15} alone     {}", of(&self.alone));
        eprintln!(
            "  {policy:15} attacked  {}; {:.4} in time, refused {:?}, failed {}",
            of(&self.attacked),
            self.attacked.in_time(),
            self.attacked.refused,
            self.attacked.failures()
        );
        eprintln!(
            "  {policy:15} aggressor {:.1}/s of {:.1}/s alone, victim used {:.3} slots; refused {:?}, failed {}",
            self.aggressor.per_second(),
            self.aggressor_alone.per_second(),
            self.victim_used,
            self.aggressor.refused,
            self.aggressor.failures()
        );
    }
}

impl Score {
    fn worst(self, other: Self) -> Self {
        Self {
            p50: self.p50.max(other.p50),
            p99: self.p99.max(other.p99),
            goodput: self.goodput.min(other.goodput),
            kept: self.kept.min(other.kept),
            alone_p50: self.alone_p50.max(other.alone_p50),
        }
    }
}
