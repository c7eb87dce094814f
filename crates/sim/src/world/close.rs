//! The end of a world: nothing is left, and the books agree.

use std::time::Duration;

use super::World;
use crate::report::Report;

impl World<'_> {
    /// Checks that nothing is left and that the books agree.
    pub(super) fn close(mut self) -> Report {
        let mut faults = std::mem::take(&mut self.report.faults);
        let stats = self.scheduler.stats();
        if !self.requests.is_empty() || !self.batches.is_empty() {
            let first = self.requests.keys().next();
            faults.push(format!("{} requests never ended, the first is {first:?}", self.requests.len()));
        }
        if stats.queued_tasks + stats.running_batches + stats.suspended_batches > 0 || self.wake_ns.is_some() {
            faults.push(format!("something is left over: {stats:?}, wake {:?}", self.wake_ns));
        }
        if stats.misuses > 0 {
            faults.push(format!("{} misuses of the scheduler", stats.misuses));
        }
        if !self.scenario.count_not_time {
            self.compare_books(&mut faults);
        }
        for tenant in &mut self.report.tenants {
            tenant.latencies_ns.sort_unstable();
        }
        self.report.faults = faults;
        self.report.ended = Duration::from_nanos(self.now_ns);
        self.report
    }

    /// P0: what each tenant was charged is its part of what batches used, what was wasted for it is what batches used that
    /// were ended for it, and all of it adds up.
    fn compare_books(&self, faults: &mut Vec<String>) {
        let stats = self.scheduler.stats();
        if stats.used.as_nanos() != self.used_ns {
            faults.push(format!("P0: the scheduler counted {:?} used, batches took {} ns", stats.used, self.used_ns));
        }
        if stats.wasted_by_machine.as_nanos() != self.wasted_by_machine_ns {
            let (said, is) = (stats.wasted_by_machine, self.wasted_by_machine_ns);
            faults.push(format!("P0: {said:?} are said to be wasted by the machine, it were {is} ns"));
        }
        let mut sum = stats.wasted_by_machine.as_nanos();
        let mut wasted = stats.wasted_by_machine.as_nanos();
        for usage in self.scheduler.usage() {
            let tenantry_sched::Subject::Tenant(tenant) = usage.subject else { continue };
            sum += usage.charged.as_nanos() + usage.wasted.as_nanos();
            wasted += usage.wasted.as_nanos();
            let number = self.numbers.get(&tenant).copied().unwrap_or(usize::MAX);
            let charged_ns = self.charged_ns.get(number).copied().unwrap_or(0);
            if usage.charged.as_nanos() != charged_ns {
                faults.push(format!("P0: {tenant} is charged {:?}, its parts are {charged_ns} ns", usage.charged));
            }
            let wasted_ns = self.wasted_ns.get(number).copied().unwrap_or(0);
            if usage.wasted.as_nanos() != wasted_ns {
                let said = usage.wasted;
                faults.push(format!("P0: {said:?} are said to be wasted for {tenant}, it were {wasted_ns} ns"));
            }
        }
        if wasted != stats.wasted.as_nanos() {
            faults.push(format!("P0: {:?} were wasted, {wasted} ns are somebody's", stats.wasted));
        }
        if sum != stats.used.as_nanos() {
            faults.push(format!("P0: charges and waste add up to {sum} ns, used were {:?}", stats.used));
        }
    }
}
