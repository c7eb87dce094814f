//! What a refused request costs the server: processor time of its process while a tenant floods it over its limit.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Bench;
use crate::figures::{Figures, at_most, median};
use crate::load::{Repeated, send};
use crate::models::Models;
use crate::null;
use crate::process::cpu_time;
use crate::server::Server;

const CONNECTIONS: usize = 32;
/// What the tenant may send: next to nothing, so that next to everything is refused.
const PER_SECOND: f64 = 1.0;
/// Of all requests, the part that must have been refused for the figure to mean anything.
const MOSTLY: f64 = 0.99;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let subject = Models::matmul();
    let server = Server::start(bench)?;
    let admin = &server.admin;
    let key = admin.tenant("eager")?;
    let digest = admin.upload("eager", &subject.model)?;
    admin.register("eager", subject.name, &digest)?;
    let request = Repeated::infer(server.address, subject.name, &key, &subject)?;
    request.one_by_one(10)?;
    admin.settle("eager", &json!({"request_rate": {"per_second": PER_SECOND, "burst": 1}}))?;
    let (null, null_address) = null::start()?;
    let null_request = request.to(null_address);
    let (rounds, window) = if bench.quick {
        (1, Duration::from_secs(1))
    } else {
        (bench.rounds, Duration::from_secs(u64::from(bench.seconds)))
    };
    let mut costs = Vec::new();
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        let before = cpu_time(null.pid());
        let answered = null_request.flood(CONNECTIONS, window)?.answers;
        let baseline = micros(cpu_time(null.pid()).saturating_sub(before)) / answered.max(1) as f64;
        let before = cpu_time(server.pid());
        let seen = send(vec![request.closed("eager", CONNECTIONS)], Duration::ZERO, window)?;
        let used = micros(cpu_time(server.pid()).saturating_sub(before));
        let seen = seen.first().context("no report")?;
        let refused = seen.refused.get("request_rate").copied().unwrap_or(0);
        anyhow::ensure!(
            refused as f64 >= MOSTLY * seen.due as f64,
            "the flood was not refused for its rate: {} of {} requests answered, refused {:?}, failed {:?}",
            seen.answered,
            seen.due,
            seen.refused,
            seen.failed
        );
        let cost = used / refused.max(1) as f64;
        eprintln!("refusal round {round}: {cost:.1} us each, {refused} refused; null {baseline:.1} us an answer");
        costs.push(cost);
        ratios.push(cost / baseline);
    }
    figures.add("refusal_cpu", median(costs), "us", at_most(15.0));
    figures.add("refusal_cpu_vs_null", median(ratios), "ratio", at_most(1.0));
    Ok(())
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
