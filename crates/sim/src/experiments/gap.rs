//! X1: the gap between tenants that always have work.

use std::time::Duration;

use tenantry_sched::Policy;

use super::{Findings, audited, underscored};
use crate::adversary::backlogged;
use crate::report::jain;

pub(super) fn run(quick: bool) -> Findings {
    let mut found = Findings::default();
    found.line(
        "Gap (X1): tenants that always have work, weights 1:2:4 in turn, requests of 1 to 32 rows, 3 shared models",
    );
    found.line(
        "of 4 ms + 0.5 ms a row. Gap: the largest difference of service/weight of any two over any interval, seconds",
    );
    found.line("of device time. Bound (P2): 2T + (D+1)(c_i/w_i + c_j/w_j), T the window for filling batches. A gap that doubles drifts.");
    found.line("");
    found.line(format!(
        "{:<16} {:>5} {:>7} {:>12} {:>12} {:>9} {:>7} {:>9} {:>7} {:>10}",
        "policy", "slots", "tenants", "gap, half s", "gap, full s", "bound s", "jain", "wait s", "batch", "req/s"
    ));
    let seconds = if quick { 8 } else { 30 };
    let worlds: &[(usize, usize)] = if quick { &[(1, 8), (4, 16)] } else { &[(1, 8), (1, 64), (4, 32), (16, 64)] };
    for name in ["fair", "fifo", "round-robin", "by-count"] {
        let policy = Policy::ALL.into_iter().find(|policy| policy.as_str() == name).unwrap_or(Policy::Fair);
        let mut worst: f64 = 0.0;
        for &(slots, tenants) in worlds {
            let mut world = backlogged(policy, slots, tenants, Duration::from_secs(seconds));
            world.count_not_time = name == "by-count";
            world.noise = 0.05;
            let half = {
                let mut shorter = world.clone();
                shorter.duration = world.duration / 2;
                audited(&shorter, &format!("gap {name} {slots}x{tenants}"), &mut found).1.worst_gap()
            };
            let what = format!("gap {name} {slots}x{tenants}");
            let (report, mut auditor) = audited(&world, &what, &mut found);
            if name == "fair" {
                auditor.check_gaps();
                auditor.check_waits();
                super::note(&crate::report::Report::default(), &auditor, &what, &mut found);
            }
            let shares: Vec<f64> = report
                .tenants
                .iter()
                .zip(&world.tenants)
                .map(|(tenant, plan)| tenant.charged_ns as f64 / f64::from(plan.share.weight.milli()))
                .collect();
            let Some(gap) = auditor.worst_gap() else { continue };
            worst = worst.max(gap.part());
            found.line(format!(
                "{:<16} {:>5} {:>7} {:>12.3} {:>12.3} {:>9.3} {:>7.4} {:>9.3} {:>7.1} {:>10.0}",
                name,
                slots,
                tenants,
                half.map_or(0.0, |gap| gap.gap),
                gap.gap,
                gap.bound,
                jain(&shares),
                auditor.longest_wait().0,
                report.mean_batch(),
                report.tenants.iter().map(|tenant| tenant.answered).sum::<u64>() as f64 / report.counted.as_secs_f64(),
            ));
        }
        let suffix = if name == "by-count" { "by_count".to_owned() } else { underscored(policy) };
        found.figure(format!("sim_gap_over_bound_{suffix}"), worst, "ratio", "<=", 1.0);
    }
    found.line("");
    found
}
