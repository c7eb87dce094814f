//! E4: what is answered in time when more is asked for than there is.

use std::time::Duration;

use tenantry_sched::Policy;

use super::{Findings, audited, underscored};
use crate::adversary::overload;
use crate::report::Report;

pub(super) fn run(quick: bool) -> Findings {
    let mut found = Findings::default();
    found.line("Overload (E4): 50 tenants by Zipf's law, 12 models of 4 ms + 0.5 ms a row, deadline 200 ms, 2 slots. Load 1 is what");
    found.line(
        "the slots serve one by one. Goodput: answers in time a second. Late: device time spent on what came too late.",
    );
    found.line("Light half: the part of the requests of the 25 smallest tenants that is answered in time.");
    found.line("");
    found.line(format!(
        "{:<16} {:>5} {:>9} {:>9} {:>8} {:>11} {:>7} {:>8} {:>9} {:>9}",
        "policy", "load", "offered/s", "goodput/s", "late %", "light half", "batch", "p99 ms", "refused/s", "expired/s"
    ));
    let loads: &[f64] = if quick { &[0.8, 1.5, 3.0, 6.0] } else { &[0.5, 0.8, 1.2, 1.5, 2.0, 2.5, 3.0, 4.5, 6.0] };
    let duration = Duration::from_secs(if quick { 12 } else { 60 });
    for policy in [Policy::Fair, Policy::Fifo, Policy::RoundRobin] {
        let (mut peak, mut last, mut late): (f64, f64, f64) = (0.0, 0.0, 0.0);
        for &load in loads {
            let mut world = overload(policy, 2, load, duration);
            world.noise = 0.05;
            let what = format!("overload {} {load}", policy.as_str());
            let (report, _) = audited(&world, &what, &mut found);
            let seconds = report.counted.as_secs_f64();
            let goodput = report.in_time() as f64 / seconds;
            (peak, last, late) = (peak.max(goodput), goodput, late.max(report.late_part()));
            found.line(row(policy.as_str(), load, goodput, &report));
        }
        let name = underscored(policy);
        found.figure(format!("sim_goodput_at_6x_of_peak_{name}"), last / peak.max(1e-9), "ratio", ">=", 0.8);
        found.figure(format!("sim_late_device_time_{name}"), late, "ratio", "<=", 0.01);
    }
    found.line("");
    found
}

fn row(policy: &str, load: f64, goodput: f64, report: &Report) -> String {
    let seconds = report.counted.as_secs_f64();
    let sum = |of: &dyn Fn(&crate::report::TenantReport) -> u64| report.tenants.iter().map(of).sum::<u64>() as f64;
    let light = report.tenants.iter().skip(report.tenants.len() / 2);
    let (in_time, sent) = light.fold((0, 0), |(in_time, sent), one| (in_time + one.in_time(), sent + one.sent));
    let mut latencies: Vec<u64> = report.tenants.iter().flat_map(|tenant| tenant.latencies_ns.clone()).collect();
    latencies.sort_unstable();
    let all = crate::report::TenantReport { latencies_ns: latencies, ..Default::default() };
    format!(
        "{policy:<16} {load:>5.1} {:>9.0} {goodput:>9.0} {:>8.2} {:>11.3} {:>7.1} {:>8.0} {:>9.0} {:>9.0}",
        sum(&|tenant| tenant.sent) / seconds,
        report.late_part() * 100.0,
        in_time as f64 / sent.max(1) as f64,
        report.mean_batch(),
        super::ms(all.quantile(0.99)),
        sum(&|tenant| tenant.refusals()) / seconds,
        sum(&|tenant| tenant.expired) / seconds,
    )
}
