//! What a tenant notices of another one whose models and inputs are made to do harm.
//!
//! Windows of the victim's steady load alone and attacked, in turns, on one slot and one processor. The attacker is two
//! threads that go round their lists of attacks as fast as the server lets them: one sends requests that eat memory, run
//! for ever, kill their worker or cannot be interrupted, the other registers models whose load never ends, that read other
//! files, forge log lines or are broken. A model that the server has put into quarantine is registered anew. Every attempt
//! and its outcome are counted and printed: a bench in which the attacks did not happen would look the same.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tenantry_load::{Request, SplitMix64, StreamReport, call_once};
use tenantry_types::testing::onnx;
use tenantry_types::{DataType, Tensor};

use crate::Bench;
use crate::admin::Admin;
use crate::figures::{Figures, at_least, at_most, exactly};
use crate::load::{Repeated, send};
use crate::models::{Models, integers};
use crate::server::Server;

/// The victim's requests a second.
const RATE: f64 = 80.0;
/// Load before a window counts.
const SETTLE: Duration = Duration::from_secs(1);
/// The victim's answers after this are late; nothing depends on it but a line of the report.
const LATE: Duration = Duration::from_millis(100);
/// How long the attacker waits for an answer before it turns to the next attack.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the attacker's requests allow themselves.
const TIMEOUT: Duration = Duration::from_millis(500);
/// Workers may use this much memory, a run and a registration take so long: an operator's settings for such tenants.
const WORKERS: &str = "memory = \"2GiB\"\nrun_timeout = \"2s\"\nregister_timeout = \"5s\"";

/// A model file; inputs and file by a number that makes each another one.
type Model = fn() -> Vec<u8>;
type Inputs = fn(i64) -> Vec<Tensor>;
type File = fn(u64) -> Vec<u8>;

/// Attacks by request: a model that registers, and inputs for it.
const REQUESTS: [(&str, Model, Inputs); 4] = [
    ("allocate_16_gib", onnx::expand, |n| vec![whole("shape", &[1], &[(4 << 30) + n])]),
    ("endless_loop", onnx::counting_loop, |n| vec![whole("count", &[], &[i64::MAX - n])]),
    ("min_by_minus_one", onnx::div_i64, |n| vec![whole("a", &[2], &[i64::MIN, n]), whole("b", &[2], &[-1, 1])]),
    ("uninterruptible", onnx::stubborn_square, |n| vec![whole("shape", &[2], &[4000 + n % 8, 4000 + n % 8])]),
];

/// Attacks by registration: a file that is no good.
const REGISTRATIONS: [(&str, File); 8] = [
    ("function_bomb", |_| onnx::function_bomb()),
    ("external_passwd", |_| onnx::external_matmul16("/etc/passwd").0),
    ("forged_log_line", |_| onnx::unknown_operator()),
    ("truncated", |_| cut(onnx::matmul16())),
    ("random_bytes", random_bytes),
    ("endless_at_load", |_| onnx::endless_loop()),
    ("external_above", |_| onnx::external_matmul16("../../../../etc/passwd").0),
    ("thousands_of_nodes", |_| onnx::chain(20_000)),
];

/// Attempts and what became of them.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, BTreeMap<String, u64>>);

/// One attacker's position on its round.
struct Attacker<'a> {
    admin: &'a Admin,
    address: SocketAddr,
    key: &'a str,
    /// The next attack.
    next: usize,
    /// Counts models and requests.
    number: u64,
    /// The models that can be asked, by attack.
    models: BTreeMap<&'static str, String>,
    tally: Tally,
}

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let (rounds, alone, attacked) = if bench.quick { (2, 2, 12) } else { (6, 10, 24) };
    let server = Server::start_with(bench, WORKERS)?;
    let victim = ask_victim(&server)?;
    let key = server.admin.tenant("attacker")?;
    let attacker = || Attacker {
        admin: &server.admin,
        address: server.address,
        key: &key,
        next: 0,
        number: 0,
        models: BTreeMap::new(),
        tally: Tally::default(),
    };
    let (mut asking, mut registering) = (attacker(), attacker());
    let (mut quiet, mut under_attack) = (StreamReport::new(String::new()), StreamReport::new(String::new()));
    for round in 0..rounds {
        let window = |seconds: u64, seed: u64| -> Result<StreamReport> {
            let stream = victim.open("victim", RATE, seed, LATE);
            send(vec![stream], SETTLE, Duration::from_secs(seconds))?.pop().context("no report")
        };
        quiet.merge(&window(alone, round * 2 + 1)?);
        let on = AtomicBool::new(true);
        // The window is alone again when both have come to the end of their last attempt.
        let seen = std::thread::scope(|scope| {
            let asks = scope.spawn(|| asking.go_round(&on, Attacker::ask));
            let registers = scope.spawn(|| registering.go_round(&on, Attacker::register));
            let seen = window(attacked, round * 2 + 2);
            on.store(false, Ordering::Relaxed);
            for attacker in [asks, registers] {
                attacker.join().map_err(|_| anyhow::anyhow!("an attacker panicked"))??;
            }
            seen
        })?;
        under_attack.merge(&seen);
        eprintln!("round {} of {rounds}", round + 1);
    }
    asking.tally.show("requests");
    registering.tally.show("registrations");
    report(figures, &quiet, &under_attack);
    let attacks = [&asking.tally, &registering.tally];
    let kinds = attacks.iter().map(|tally| tally.0.len()).sum::<usize>();
    figures.add("hostile_kinds", kinds as f64, "count", exactly((REQUESTS.len() + REGISTRATIONS.len()) as f64));
    let attempts = attacks.iter().map(|tally| tally.attempts()).sum::<u64>();
    figures.add("hostile_attempts", attempts as f64, "count", at_least(100.0));
    Ok(())
}

/// The victim: a guaranteed tenant with a small model of its own.
fn ask_victim(server: &Server) -> Result<Repeated> {
    let subject = Models::matmul();
    let key = server.admin.tenant("victim")?;
    server.admin.settle("victim", &json!({"tier": "guaranteed", "reservation": {"slots": 0.3}}))?;
    let digest = server.admin.upload("victim", &subject.model)?;
    server.admin.register("victim", subject.name, &digest)?;
    let request = Repeated::infer(server.address, subject.name, &key, &subject)?;
    request.one_by_one(20)?;
    Ok(request)
}

fn report(figures: &mut Figures, alone: &StreamReport, attacked: &StreamReport) {
    for (what, seen) in [("alone", alone), ("attacked", attacked)] {
        let at = |part| seen.latency.quantile(part).as_secs_f64() * 1e3;
        eprintln!(
            "victim {what:8} {} requests, p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms, {} later than {LATE:?}; refused {:?}, failed {}",
            seen.due,
            at(0.5),
            at(0.99),
            at(1.0),
            seen.late,
            seen.refused,
            seen.failures()
        );
    }
    let errors = |seen: &StreamReport| seen.refusals() + seen.failures();
    let ratio = |part| attacked.latency.quantile(part).as_secs_f64() / alone.latency.quantile(part).as_secs_f64();
    figures.add("victim_errors", (errors(alone) + errors(attacked)) as f64, "count", exactly(0.0));
    figures.add("victim_requests", attacked.due as f64, "count", at_least(10_000.0));
    figures.add("victim_hostile_p50_ratio", ratio(0.5), "ratio", at_most(1.5));
    figures.add("victim_hostile_p99_ratio", ratio(0.99), "ratio", at_most(2.0));
}

impl Attacker<'_> {
    /// Makes one attempt after the other while `on`.
    fn go_round(&mut self, on: &AtomicBool, attempt: fn(&mut Self) -> Result<()>) -> Result<()> {
        while on.load(Ordering::Relaxed) {
            attempt(self)?;
            self.next += 1;
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<()> {
        let Some((attack, model, inputs)) = REQUESTS.get(self.next % REQUESTS.len()).copied() else { return Ok(()) };
        self.number += 1;
        let name = match self.models.get(attack) {
            Some(name) => name.clone(),
            None => {
                let name = format!("{}-{}", attack.replace('_', "-"), self.number);
                match self.push(&name, &model())?.as_str() {
                    "ready" => {}
                    outcome => {
                        self.tally.count(attack, format!("its model: {outcome}"));
                        return Ok(());
                    }
                }
                self.models.insert(attack, name.clone());
                name
            }
        };
        let inputs = inputs(i64::try_from(self.number)?);
        let request = Request::infer(self.address, &name.parse()?, self.key, &inputs, Some(TIMEOUT))?;
        let outcome = match call_once(self.address, &request, PATIENCE) {
            Ok(answer) => match answer.refusal {
                None => format!("{}", answer.status),
                Some(refusal) => format!("{} {}: {}", answer.status, refusal.reason, beginning(&refusal.message)),
            },
            Err(error) => format!("no answer: {error}"),
        };
        if outcome.contains("quarantined") {
            self.models.remove(attack);
        }
        self.tally.count(attack, outcome);
        Ok(())
    }

    fn register(&mut self) -> Result<()> {
        let Some((attack, file)) = REGISTRATIONS.get(self.next % REGISTRATIONS.len()).copied() else { return Ok(()) };
        self.number += 1;
        let name = format!("{}-{}", attack.replace('_', "-"), self.number);
        let outcome = self.push(&name, &file(self.number))?;
        self.tally.count(attack, outcome);
        Ok(())
    }

    /// Uploads a file, registers it and waits for the verdict.
    fn push(&self, model: &str, file: &[u8]) -> Result<String> {
        let digest = match self.admin.upload("attacker", &numbered(file, self.number)) {
            Ok(digest) => digest,
            Err(error) => return Ok(format!("not uploaded: {}", beginning(&error.to_string()))),
        };
        match self.admin.register("attacker", model, &digest) {
            Ok(_) => Ok("ready".to_owned()),
            Err(error) => Ok(format!("not registered: {}", beginning(&error.to_string()))),
        }
    }
}

impl Tally {
    fn count(&mut self, attack: &'static str, outcome: String) {
        *self.0.entry(attack).or_default().entry(outcome).or_default() += 1;
    }

    fn attempts(&self) -> u64 {
        self.0.values().flat_map(BTreeMap::values).sum()
    }

    fn show(&self, what: &str) {
        eprintln!("{what}:");
        for (attack, outcomes) in &self.0 {
            for (outcome, times) in outcomes {
                eprintln!("  {attack:20} {times:4} x {outcome}");
            }
        }
    }
}

/// The same model in other bytes, so that nothing remembered of one is known of the next: another description
/// (`ModelProto.doc_string`; a later field replaces an earlier one).
fn numbered(file: &[u8], number: u64) -> Vec<u8> {
    let text = format!("{number:08}");
    [file, &[0x32, text.len() as u8], text.as_bytes()].concat()
}

fn cut(mut file: Vec<u8>) -> Vec<u8> {
    file.truncate(file.len() / 2);
    file
}

fn random_bytes(seed: u64) -> Vec<u8> {
    let mut random = SplitMix64::new(seed);
    (0..512).flat_map(|_| random.next_u64().to_le_bytes()).collect()
}

fn whole(name: &str, shape: &[u64], values: &[i64]) -> Tensor {
    Tensor { shape: shape.into(), datatype: DataType::Int64, ..integers(name, values) }
}

/// Enough of a text to tell what it is, without the numbers that make each another one.
fn beginning(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    text.chars().take(140).collect()
}
