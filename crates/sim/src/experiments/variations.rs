//! What each part of the fair policy is good for: without it, and with other constants.

use std::time::Duration;

use tenantry_sched::Policy;

use super::{Findings, audited, ms};
use crate::adversary::{Adversary, VICTIM, backlogged, overload, scenario};
use crate::scenario::Scenario;

pub(super) fn run(quick: bool) -> Findings {
    let mut found = Findings::default();
    let seconds = if quick { 8 } else { 30 };
    let duration = Duration::from_secs(seconds);
    found.line("Variations of the fair policy: what changes without a part of it.");
    found.line("");
    found.line("Windows for deadlines and for filling batches (8 tenants that always have work, 1 slot; overload of 3 on 2 slots):");
    found.line(format!(
        "{:<18} {:>9} {:>9} {:>8} {:>9} {:>12} {:>8}",
        "windows, ms", "gap s", "bound s", "batch", "req/s", "goodput 3x/s", "late %"
    ));
    for (window, fill) in [(0, 0), (0, 100), (0, 1000), (20, 20), (100, 100), (100, 1000), (1000, 1000), (5000, 5000)] {
        let with = |mut world: Scenario| {
            world.config.tuning.window = Duration::from_millis(window);
            world.config.tuning.fill_window = Duration::from_millis(fill);
            world.noise = 0.05;
            world
        };
        let world = with(backlogged(Policy::Fair, 1, 8, duration));
        let (report, auditor) = audited(&world, &format!("window {window} gap"), &mut found);
        let gap = auditor.worst_gap();
        let world = with(overload(Policy::Fair, 2, 3.0, duration));
        let (full, _) = audited(&world, &format!("window {window} overload"), &mut found);
        found.line(format!(
            "{:<18} {:>9.3} {:>9.3} {:>8.1} {:>9.0} {:>12.0} {:>8.2}",
            format!("{window} and {fill}"),
            gap.map_or(0.0, |gap| gap.gap),
            gap.map_or(0.0, |gap| gap.bound),
            report.mean_batch(),
            report.tenants.iter().map(|tenant| tenant.answered).sum::<u64>() as f64 / report.counted.as_secs_f64(),
            full.in_time() as f64 / full.counted.as_secs_f64(),
            full.late_part() * 100.0,
        ));
    }
    found.line("");
    found.line("The guaranteed tenant's longest latency, ms, 1 slot:");
    found.line(format!(
        "{:<24} {:>9} {:>12} {:>12} {:>15}",
        "adversary", "as it is", "no suspend", "no reserve", "cost noise 30 %"
    ));
    for adversary in [Adversary::FloodSmall, Adversary::FloodBig, Adversary::FloodHuge, Adversary::ManyEqual] {
        let world = scenario(adversary, Policy::Fair, 1, true, duration);
        let mut cells = Vec::new();
        for variant in 0..4 {
            let mut world = world.clone();
            match variant {
                1 => world.slots.iter_mut().for_each(|slot| slot.suspendable = false),
                2 => {
                    if let Some(victim) = world.tenants.get_mut(VICTIM) {
                        victim.share.reservation = None;
                    }
                }
                3 => world.noise = 0.3,
                _ => {}
            }
            let what = format!("variation {variant} {}", adversary.as_str());
            let (report, _) = audited(&world, &what, &mut found);
            cells.push(ms(report.tenant(VICTIM).longest()));
        }
        let cell = |index: usize| cells.get(index).copied().unwrap_or(0.0);
        found.line(format!(
            "{:<24} {:>9.1} {:>12.1} {:>12.1} {:>15.1}",
            adversary.as_str(),
            cell(0),
            cell(1),
            cell(2),
            cell(3)
        ));
    }
    found.line("");
    found
}
