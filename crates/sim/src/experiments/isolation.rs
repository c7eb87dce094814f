//! P7: a guaranteed tenant that keeps within its reservation, beside every adversary and under every policy.

use std::time::Duration;

use tenantry_sched::{Policy, Tuning};

use super::{Findings, audited, ms, underscored};
use crate::adversary::{Adversary, VICTIM, VICTIM_BURST, VICTIM_RATE, scenario};

pub(super) fn run(quick: bool) -> Findings {
    let mut found = Findings::default();
    let promised = VICTIM_BURST.div_f64(VICTIM_RATE) + Tuning::CPU.quantum;
    found.line("Isolation (P7): a guaranteed tenant (rate 0.2 of a slot, burst 12 ms, 20 small requests a second, held back to");
    found.line(format!(
        "its reservation) beside each adversary. Its longest latency and 99th percentile, ms; bound sigma/rho + Q = {:.0} ms",
        ms(promised)
    ));
    found.line("+ longest + epsilon. longest: by how much the longest task that can stand in the way is longer than Q, and what it may");
    found.line("cost that a batch which is nearly done is not suspended; epsilon: the most by which a batch took longer than its upper");
    found.line("estimate; bound: the sum.");
    let setups: &[(usize, bool)] = if quick { &[(1, true)] } else { &[(1, true), (1, false), (4, true)] };
    let duration = Duration::from_secs(if quick { 12 } else { 62 });
    for &(slots, suspendable) in setups {
        found.line("");
        found.line(format!(
            "{slots} slot{}, {}",
            if slots == 1 { "" } else { "s" },
            if suspendable { "workers can be suspended" } else { "batches run to their end" }
        ));
        found.line(format!(
            "{:<24} {:>9} {:>9} {:>9} {:>17} {:>17} {:>17} {:>17} {:>9}",
            "adversary",
            "longest",
            "epsilon",
            "bound",
            "fair max/p99",
            "fifo",
            "round-robin",
            "strict-priority",
            "suspended"
        ));
        let mut worst = [0.0_f64; 4];
        let mut answered = [(0_u64, 0_u64); 4];
        for adversary in Adversary::ALL {
            let mut cells = Vec::new();
            let (mut epsilon, mut longest, mut suspensions) = (Duration::ZERO, Duration::ZERO, 0);
            for (index, policy) in Policy::ALL.into_iter().enumerate() {
                let mut world = scenario(adversary, policy, slots, suspendable, duration);
                world.noise = 0.05;
                let what = format!("isolation {} {slots} {suspendable} {}", adversary.as_str(), policy.as_str());
                let (report, auditor) = audited(&world, &what, &mut found);
                let victim = report.tenant(VICTIM);
                if policy == Policy::Fair {
                    epsilon = Duration::from_secs_f64(auditor.overshoot());
                    longest = auditor.longest_over_quantum();
                    suspensions = report.suspensions;
                }
                // The same bound for all: the fair policy is the first, and it is its bound.
                let bound = promised + longest + epsilon;
                if let Some(worst) = worst.get_mut(index) {
                    *worst = worst.max(victim.longest().as_secs_f64() / bound.as_secs_f64());
                }
                if let Some((got, sent)) = answered.get_mut(index) {
                    *got += victim.answered;
                    *sent += victim.sent;
                }
                cells.push(format!("{:>9.1}/{:>7.1}", ms(victim.longest()), ms(victim.quantile(0.99))));
            }
            found.line(format!(
                "{:<24} {:>9.2} {:>9.2} {:>9.1} {} {:>9}",
                adversary.as_str(),
                ms(longest),
                ms(epsilon),
                ms(promised + longest + epsilon),
                cells.join(" "),
                suspensions
            ));
        }
        let kind = format!("{slots}_{}", if suspendable { "suspend" } else { "boundary" });
        for (index, policy) in Policy::ALL.into_iter().enumerate() {
            let name = underscored(policy);
            let worst = worst.get(index).copied().unwrap_or(0.0);
            found.figure(format!("sim_victim_max_over_bound_{kind}_{name}"), worst, "ratio", "<=", 1.0);
            let (got, sent) = answered.get(index).copied().unwrap_or((0, 1));
            let part = got as f64 / sent.max(1) as f64;
            found.figure(format!("sim_victim_answered_{kind}_{name}"), part, "of sent", ">=", 1.0);
        }
    }
    found.line("");
    found
}
