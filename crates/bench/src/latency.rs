//! What the path costs beside the engine: added latency of one connection, and processor time a request.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::figures::{Figures, at_most, median};
use crate::load::Repeated;
use crate::models::Models;
use crate::null;
use crate::process::cpu_time;
use crate::raw;

/// Requests one after another in a round of the latency measurement.
const ONE_BY_ONE: u64 = 5_000;
/// Connections of the processor time measurement.
const CONNECTIONS: usize = 32;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let subject = Models::matmul();
    let (mut raw, server, key) = raw::beside_server(bench, &subject)?;
    let digest = server.admin.upload("acme", &subject.model)?;
    server.admin.register("acme", subject.name, &digest)?;
    let request = Repeated::infer(server.address, subject.name, &key, &subject)?;
    let (null, null_address) = null::start()?;
    let null_request = request.to(null_address);
    for warm in [&request, &null_request] {
        warm.flood(CONNECTIONS, Duration::from_secs(1))?;
    }

    let mut added = Vec::new();
    let mut ratios = Vec::new();
    for round in 1..=bench.rounds {
        let engine = micros(raw.single(2_000)?);
        let null = micros(null_request.one_by_one(ONE_BY_ONE)?.middle());
        let whole = micros(request.one_by_one(ONE_BY_ONE)?.middle());
        eprintln!("latency round {round}: engine {engine:.1} us, null {null:.1} us, served {whole:.1} us");
        added.push(whole - engine);
        ratios.push((whole - engine) / null);
    }
    figures.add("added_latency_vs_null", median(ratios), "ratio", at_most(3.0));
    figures.add("added_latency", median(added), "us", at_most(300.0));

    let time = Duration::from_secs(u64::from(bench.seconds));
    let mut ratios = Vec::new();
    let mut served = Vec::new();
    for round in 1..=bench.rounds {
        let null = cpu_per_request(null.pid(), &null_request, time)?;
        let whole = cpu_per_request(server.pid(), &request, time)?;
        eprintln!("processor round {round}: null {null:.1} us, served {whole:.1} us a request");
        ratios.push(whole / null);
        served.push(whole);
    }
    figures.add("cpu_per_request_vs_null", median(ratios), "ratio", at_most(3.0));
    figures.add("cpu_per_request", median(served), "us", at_most(60.0));
    Ok(())
}

/// Processor time of a server with all its processes, per answered request, microseconds.
fn cpu_per_request(server: u32, request: &Repeated, time: Duration) -> Result<f64> {
    let before = cpu_time(server);
    let seen = request.flood(CONNECTIONS, time)?;
    Ok(micros(cpu_time(server).saturating_sub(before)) / seen.answers.max(1) as f64)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
