//! What a tenant with a reservation notices of another tenant's flood, under each policy, on a real server.
//!
//! One server run; the policy is switched while it runs. Each round visits every policy, and each visit has windows of
//! load: the victim *alone*, sending at a tenth of what it could get, at independent times and whatever the server does;
//! then the same arrivals *attacked*, once in each arm, by a tenant with 64 connections that send again as soon as they
//! have their answers. The arms of one victim share its windows alone. Latency counts from when a request was due. The
//! victim names no deadline, so that nothing is given up and every latency is seen; an answer counts as in time if it came
//! before the deadline printed for its victim. In some rounds each aggressor has a window alone: what it could get.

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
/// The arms. The victim asks the file-type model, but for `same_image`, where both ask the image model; the aggressor asks
/// for the same with one row and with many, for sentences, for pictures.
pub(crate) const ARMS: [&str; 5] = ["same_small", "same_big", "other_small", "other_big", "same_image"];
/// The arm that runs only if it is named: a tenth of the image model's capacity is few requests a second.
const ONLY_IF_NAMED: &str = "same_image";
/// Rows of the aggressor's requests in `same_big`.
const BIG_ROWS: u64 = 32;
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
/// Every so many rounds the aggressors have windows of their own.
const ALONE_EVERY: u32 = 5;

/// A victim, and who attacks it.
struct Scene<'a> {
    victim: &'a Subject,
    arms: Vec<Arm<'a>>,
}

/// Whom the aggressor asks for what.
struct Arm<'a> {
    name: &'static str,
    /// Of this model, by its name at the server.
    model: &'a str,
    sends: &'a Subject,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    window: Duration,
    /// The victim's requests alone, and in each arm.
    requests: f64,
    /// The same under the baselines, whose ratios are tens of times ours: fewer tell as much.
    baseline_requests: f64,
}

/// What one policy showed in one arm.
struct Seen {
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
        Effort { window: Duration::from_secs(2), requests: 1.0, baseline_requests: 1.0 }
    } else {
        Effort {
            window: Duration::from_secs(5),
            requests: f64::from(bench.victim_requests),
            baseline_requests: f64::from(bench.baseline_requests),
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
    let big = file_type.with_rows(BIG_ROWS);
    let wanted = |name: &str| match bench.arms.as_slice() {
        [] => name != ONLY_IF_NAMED,
        arms => arms.iter().any(|arm| arm == name),
    };
    let sent = [&file_type, &big, &embedding, &image, &image];
    let arms = ARMS.into_iter().zip(sent).map(|(name, sends)| Arm { name, model: sends.name, sends });
    let (of_image, of_file_type): (Vec<_>, Vec<_>) =
        arms.filter(|arm| wanted(arm.name)).partition(|arm| arm.name == ONLY_IF_NAMED);
    let scenes = [Scene { victim: &file_type, arms: of_file_type }, Scene { victim: &image, arms: of_image }];
    let mut all: Vec<[Score; POLICIES.len()]> = Vec::new();
    for scene in scenes.iter().filter(|scene| !scene.arms.is_empty()) {
        for (arm, scores) in scene.arms.iter().zip(play(&server, &keys, scene, effort)?) {
            for (policy, score) in POLICIES.iter().zip(&scores) {
                add(figures, &format!("_{}_{}", word(policy), arm.name), *score);
            }
            all.push(scores);
        }
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
    // The two tenants on the image model are part of the whole, or go with the arm of that model.
    if bench.arms.is_empty() || wanted(ONLY_IF_NAMED) {
        share_of_64::measure(bench, &server, &keys.operator, &image, figures)?;
    }
    Ok(())
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

/// One victim and its arms: for each arm the scores of the policies.
fn play(server: &Server, keys: &Keys, scene: &Scene<'_>, effort: Effort) -> Result<Vec<[Score; POLICIES.len()]>> {
    let admin = &server.admin;
    let request = |model: &str, key, subject: &Subject| {
        Repeated::infer(server.address, &format!("{}/{model}", keys.operator), key, subject)
    };
    let victim = request(scene.victim.name, &keys.victim, scene.victim)?;
    let aggressors: Vec<Repeated> =
        scene.arms.iter().map(|arm| request(arm.model, &keys.aggressor, arm.sends)).collect::<Result<_>>()?;
    // As every tenant is at first; the victim's worker of its own comes with its tier.
    admin.policy("fair")?;
    admin.settle("victim", &json!({"tier": "guaranteed", "reservation": {"slots": 0.1}}))?;
    // Loads the models, and fills the server's caches.
    victim.flood(4, Duration::from_secs(1))?;
    for aggressor in &aggressors {
        aggressor.flood(4, Duration::from_secs(1))?;
    }
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
    let rounds_for = |requests: f64| (requests / (rate * effort.window.as_secs_f64())).ceil().max(1.0) as u32;
    let rounds = rounds_for(effort.requests);
    let baseline_rounds = rounds_for(effort.baseline_requests).min(rounds);
    let names: Vec<&str> = scene.arms.iter().map(|arm| arm.name).collect();
    eprintln!(
        "{}: victim asks {} {rate:.1} times a second (a tenth of {capacity:.1}), {:.2} ms each; {reserved:.3} slots \
         reserved, deadline {deadline:?}; each aggressor sends over {FLOOD_CONNECTIONS} connections",
        names.join(", "),
        scene.victim.name,
        each * 1e3,
    );
    let visits = f64::from(rounds) + f64::from(baseline_rounds) * (POLICIES.len() - 1) as f64;
    let windows = visits * (1.0 + names.len() as f64 * (1.0 + 1.0 / f64::from(ALONE_EVERY)));
    let minutes = windows * (effort.window + SETTLE).as_secs_f64() / 60.0;
    eprintln!("  {rounds} rounds ({baseline_rounds} of the baselines), about {minutes:.0} minutes");
    let mut alone = POLICIES.map(|_| StreamReport::new(String::new()));
    let mut seen: Vec<[Seen; POLICIES.len()]> = names.iter().map(|_| POLICIES.map(|_| Seen::new())).collect();
    for round in 0..rounds {
        for (index, policy) in POLICIES.iter().enumerate() {
            if *policy != "fair" && round >= baseline_rounds {
                continue;
            }
            admin.policy(policy)?;
            // Alone and attacked by the same arrivals.
            let arrivals = || victim.open("victim", rate, u64::from(round) + 1, deadline);
            let report = send(vec![arrivals()], SETTLE, effort.window)?;
            if let Some(alone) = alone.get_mut(index) {
                alone.merge(report.first().context("no report")?);
            }
            for (aggressor, seen) in aggressors.iter().zip(&mut seen) {
                let Some(seen) = seen.get_mut(index) else { continue };
                let flood = || aggressor.closed("aggressor", FLOOD_CONNECTIONS);
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
        }
        if rounds > 5 && (round + 1) % 5 == 0 {
            eprintln!("  round {} of {rounds}", round + 1);
        }
    }
    for (policy, alone) in POLICIES.iter().zip(&alone) {
        // Said, not fatal: one broken connection should not cost the hours before it.
        if let Err(error) = ensure_answered(alone) {
            eprintln!("warning: the victim alone, {policy}: {error:#}");
        }
        eprintln!("  {policy:15} alone     {}", summary(alone));
    }
    let mut scores = Vec::new();
    for (name, seen) in names.iter().zip(&mut seen) {
        eprintln!("  {name}");
        let of_policies = POLICIES.iter().zip(seen.iter_mut().zip(&alone)).map(|(policy, (seen, alone))| {
            seen.victim_used /= f64::from(if *policy == "fair" { rounds } else { baseline_rounds });
            seen.show(policy);
            seen.score(alone)
        });
        let of_policies: Vec<Score> = of_policies.collect();
        scores.push(of_policies.try_into().ok().context("a score for each policy")?);
    }
    Ok(scores)
}

fn summary(seen: &StreamReport) -> String {
    let at = |part| seen.latency.quantile(part).as_secs_f64() * 1e3;
    format!("{} requests, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", seen.due, at(0.5), at(0.99), at(1.0))
}

/// A policy in a figure's name.
fn word(policy: &str) -> String {
    policy.replace('-', "_")
}

impl Seen {
    fn new() -> Self {
        let report = || StreamReport::new(String::new());
        Self { attacked: report(), aggressor: report(), aggressor_alone: report(), victim_used: 0.0 }
    }

    fn score(&self, alone: &StreamReport) -> Score {
        let ratio =
            |part| self.attacked.latency.quantile(part).as_secs_f64() / alone.latency.quantile(part).as_secs_f64();
        let left = self.aggressor_alone.per_second() * (1.0 - self.victim_used);
        Score {
            p50: ratio(0.5),
            p99: ratio(0.99),
            goodput: self.attacked.in_time(),
            kept: self.aggressor.per_second() / left,
            alone_p50: alone.latency.quantile(0.5).as_secs_f64(),
        }
    }

    fn show(&self, policy: &str) {
        eprintln!(
            "  {policy:15} attacked  {}; {:.4} in time, refused {:?}, failed {}",
            summary(&self.attacked),
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
