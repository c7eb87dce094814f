//! One server beside another that does less: what the difference costs, in alternation on the same machine.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::figures::median;
use crate::load::{Repeated, Seen};
use crate::process::cpu_time;
use crate::server::Server;

/// Connections where throughput and processor time are measured.
const FLOOD: usize = 32;

/// Medians of the rounds, each the first server's over the second's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratios {
    /// Of one request after the other, their medians.
    pub(crate) latency: f64,
    /// Of a flood's answers each second.
    pub(crate) throughput: f64,
    /// Of the server's processor time for each answer of a flood.
    pub(crate) cpu: f64,
}

/// Compares two servers, each with the request that it is asked.
pub(crate) fn compare(bench: &Bench, more: &(Server, Repeated), less: &(Server, Repeated)) -> Result<Ratios> {
    for (_, request) in [more, less] {
        request.flood(FLOOD, Duration::from_secs(1))?;
    }
    let one_by_one = if bench.quick { 500 } else { 5_000 };
    let time = Duration::from_secs(u64::from(bench.seconds));
    let (mut latency, mut throughput, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        let middle =
            |request: &Repeated| Ok::<_, anyhow::Error>(request.one_by_one(one_by_one)?.middle().as_secs_f64());
        let (with, without) = (middle(&more.1)?, middle(&less.1)?);
        latency.push(with / without);
        let mut saturated = Vec::new();
        for (server, request) in [more, less] {
            let before = cpu_time(server.pid());
            let seen: Seen = request.flood(FLOOD, time)?;
            let spent = cpu_time(server.pid()).saturating_sub(before).as_secs_f64() / seen.answers.max(1) as f64;
            saturated.push((seen.per_second(), spent));
        }
        let [(with_rate, with_cpu), (rate, cpu_without)] = saturated[..] else { anyhow::bail!("two servers") };
        throughput.push(with_rate / rate);
        cpu.push(with_cpu / cpu_without);
        eprintln!(
            "round {round}: {:.1} us with, {:.1} without; {with_rate:.0}/s with, {rate:.0} without; {:.1} us a request with, {:.1} without",
            with * 1e6,
            without * 1e6,
            with_cpu * 1e6,
            cpu_without * 1e6
        );
    }
    Ok(Ratios { latency: median(latency), throughput: median(throughput), cpu: median(cpu) })
}

/// The same on both servers; who goes first changes from round to round.
pub(crate) fn in_turn(
    servers: &[Server; 2],
    round: u32,
    mut measure: impl FnMut(&Server) -> Result<Duration>,
) -> Result<[Duration; 2]> {
    let mut times = [Duration::ZERO; 2];
    let mut order: Vec<_> = servers.iter().zip(&mut times).collect();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    for (server, time) in order {
        *time = measure(server)?;
    }
    Ok(times)
}
