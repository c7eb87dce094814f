//! What a tenant with 2 of 64 connections gets of a model that both want, equal weights: a half, not a thirty-second.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::Bench;
use crate::figures::{Figures, at_least, at_most};
use crate::load::{Repeated, send};
use crate::models::Subject;
use crate::server::Server;

/// The connections of the two tenants.
const FEW: usize = 2;
const MANY: usize = 62;
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) fn measure(
    bench: &Bench,
    server: &Server,
    operator: &str,
    subject: &Subject,
    figures: &mut Figures,
) -> Result<()> {
    let admin = &server.admin;
    let model = format!("{operator}/{}", subject.name);
    let mut requests = Vec::new();
    for tenant in ["few", "many"] {
        let key = admin.tenant(tenant)?;
        admin.settle(tenant, &json!({"tier": "burstable", "weight": 1.0}))?;
        requests.push(Repeated::infer(server.address, &model, &key, subject)?);
    }
    let [few, many] = requests.as_slice() else { anyhow::bail!("two tenants were made") };
    few.flood(1, Duration::from_secs(1))?;
    let (windows, window) = if bench.quick { (1, Duration::from_secs(4)) } else { (4, Duration::from_secs(15)) };
    let mut used = [(0.0, 0.0); 2];
    let policies = ["fair", "fifo"];
    for round in 1..=windows {
        for (policy, used) in policies.iter().zip(&mut used) {
            admin.policy(policy)?;
            let (device, reports) = std::thread::scope(|scope| {
                let load =
                    scope.spawn(|| send(vec![few.closed("few", FEW), many.closed("many", MANY)], SETTLE, window));
                // Read when the window begins and just before it ends: what is charged outside it does not count.
                std::thread::sleep(SETTLE);
                let before = both(server);
                std::thread::sleep(window);
                let after = both(server);
                let reports = load.join().map_err(|_| anyhow::anyhow!("the load generator failed"))??;
                let (before, after) = (before?, after?);
                Ok::<_, anyhow::Error>(((after.0 - before.0, after.1 - before.1), reports))
            })?;
            used.0 += device.0;
            used.1 += device.1;
            let answers = |index: usize| reports.get(index).map_or(0, |report| report.answered);
            eprintln!(
                "{FEW} of 64 connections, {policy} {round}: device time {:.2} s and {:.2} s, answers {} and {}",
                device.0,
                device.1,
                answers(0),
                answers(1)
            );
        }
    }
    admin.policy("fair")?;
    for (name, (few, many)) in ["two_of_64_share", "two_of_64_share_fifo"].into_iter().zip(used) {
        anyhow::ensure!(few + many > 0.0, "the server's metrics show no device time of the two tenants");
        let share = few / (few + many);
        figures.add(name, share, "part", at_least(0.49));
        figures.add(format!("{name}_off"), (share - 0.5).abs(), "part", at_most(0.01));
    }
    Ok(())
}

fn both(server: &Server) -> Result<(f64, f64)> {
    let of = |tenant| server.admin.device_seconds(tenant).context("reading the metrics");
    Ok((of("few")?, of("many")?))
}
