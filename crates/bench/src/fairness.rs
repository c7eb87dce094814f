//! What fairness costs in throughput: `fair` over `fifo` in one server, by turns.

use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::figures::{Figures, at_least, median};
use crate::load::{Repeated, ensure_answered, send};
use crate::server::Server;

/// Connections of the one tenant: enough to keep every batch full.
const ONE_CONNECTIONS: usize = 64;
/// Tenants on the shared model, one connection each.
const TENANTS: usize = 100;
const SETTLE: Duration = Duration::from_secs(1);

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let server = Server::start(bench)?;
    let admin = &server.admin;
    let subject = bench.models.embedding()?;
    let operator = admin.operator()?;
    let digest = admin.upload(&operator, &subject.model)?;
    admin.register(&operator, subject.name, &digest)?;
    admin.share(&operator, subject.name)?;
    let model = format!("{operator}/{}", subject.name);
    let tenants = if bench.quick { 10 } else { TENANTS };
    let mut requests = Vec::with_capacity(tenants);
    for index in 0..tenants {
        let key = admin.tenant(&format!("tenant-{index}"))?;
        requests.push(Repeated::infer(server.address, &model, &key, &subject)?);
    }
    let first = requests.first().into_iter();
    let one: Vec<_> = first.map(|request| request.closed("one", ONE_CONNECTIONS)).collect();
    let many: Vec<_> =
        requests.iter().enumerate().map(|(index, request)| request.closed(&format!("tenant-{index}"), 1)).collect();
    let (rounds, window) = if bench.quick {
        (1, Duration::from_secs(2))
    } else {
        (bench.rounds.max(5), Duration::from_secs(u64::from(bench.seconds)))
    };
    for (figure, streams) in [("fair_vs_fifo_throughput_one", one), ("fair_vs_fifo_throughput_many", many)] {
        let mut ratios = Vec::new();
        for round in 1..=rounds {
            let speed = |policy| {
                admin.policy(policy)?;
                let reports = send(streams.clone(), SETTLE, window)?;
                reports.iter().try_for_each(ensure_answered)?;
                let per_tenant = || reports.iter().map(|report| report.answered);
                let (least, most) = (per_tenant().min().unwrap_or(0), per_tenant().max().unwrap_or(0));
                Ok::<_, anyhow::Error>((reports.iter().map(|report| report.per_second()).sum::<f64>(), least, most))
            };
            // Each goes first in every other round: what drifts favours neither.
            let (fair, fifo) = if round % 2 == 1 {
                let fair = speed("fair")?;
                (fair, speed("fifo")?)
            } else {
                let fifo = speed("fifo")?;
                (speed("fair")?, fifo)
            };
            eprintln!(
                "{figure} round {round}: fair {:.1}/s ({} to {} a tenant), fifo {:.1}/s ({} to {})",
                fair.0, fair.1, fair.2, fifo.0, fifo.1, fifo.2
            );
            ratios.push(fair.0 / fifo.0);
        }
        figures.add(figure, median(ratios), "ratio", at_least(0.97));
    }
    Ok(())
}
