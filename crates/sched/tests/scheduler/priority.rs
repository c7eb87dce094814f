//! A client's priorities order its own flow and nobody else's, and nothing of it waits for ever because of them.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use tenantry_sched::{Policy, Scheduler, Task, Tier, Tuning};
use tenantry_types::{MonotonicTime, Priority, TaskId, TenantId};

use crate::stage::{Ended, How, Stage, cases, config, millis, reserved, task, tenant};

const COST: Duration = Duration::from_millis(2);

/// Tasks of two tenants: (when, whose, priority).
fn arrivals() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    prop::collection::vec((0..200_u64, 1..=2_u64, 0..12_u64), 1..80).prop_map(|mut arrivals| {
        arrivals.sort_unstable();
        arrivals
    })
}

/// What began when, in order, of a world in which every batch takes the same.
fn run(arrivals: &[(u64, u64, u64)], rows: u32, guaranteed: bool) -> Vec<(MonotonicTime, Task)> {
    let scheduler = Scheduler::new(config(Policy::Fair, Tuning::CPU));
    let mut stage = Stage::new(scheduler, 1, |_, _: &[Task]| COST);
    stage.build(1, false, 1, rows);
    if guaranteed {
        stage.share(1, reserved(Tier::Burstable, 300_000, Duration::from_millis(50)));
    }
    stage.arrivals = arrivals
        .iter()
        .map(|&(at, of, priority)| {
            let (at, priority) = (millis(at), Priority::from_client(priority));
            let deadline = Some(at.saturating_add(Duration::from_secs(60)));
            (at, Task { deadline, priority, ..task(tenant(of), 1, 1, COST) })
        })
        .collect();
    stage.run(millis(10_000));
    let mut begun: Vec<(MonotonicTime, Task)> = stage
        .ended
        .iter()
        .map(|ended| match ended.how {
            How::Ran { started, .. } => (started, ended.task.clone()),
            other => panic!("{:?} came to {other:?}", ended.task.id),
        })
        .collect();
    begun.sort_by_key(|(started, task)| (*started, task.id));
    assert_eq!(begun.len(), arrivals.len());
    begun
}

fn turns(begun: &[(MonotonicTime, Task)]) -> Vec<(MonotonicTime, TenantId)> {
    let mut turns: Vec<_> = begun.iter().map(|(started, task)| (*started, task.tenant)).collect();
    turns.sort_unstable();
    turns
}

fn of(begun: &[(MonotonicTime, Task)], number: u64) -> Vec<(MonotonicTime, TaskId)> {
    begun.iter().filter(|(_, task)| task.tenant == tenant(number)).map(|(started, task)| (*started, task.id)).collect()
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn nobody_else_notices(arrivals in arrivals(), rows in prop::sample::select(vec![1_u32, 3])) {
        // Only the first tenant has priorities.
        let with: Vec<_> = arrivals.iter().map(|&(at, of, p)| (at, of, if of == 1 { p } else { 0 })).collect();
        let without: Vec<_> = arrivals.iter().map(|&(at, of, _)| (at, of, 0)).collect();
        for guaranteed in [false, true] {
            let (with, without) = (run(&with, rows, guaranteed), run(&without, rows, guaranteed));
            prop_assert_eq!(turns(&with), turns(&without), "each flow's turns are when they were");
            prop_assert_eq!(of(&with, 2), of(&without, 2), "and the other's tasks what they were");
        }
    }

    #[test]
    fn the_more_urgent_of_what_waits_goes_first(arrivals in arrivals(), guaranteed in any::<bool>()) {
        let begun = run(&arrivals, 1, guaranteed);
        let arrived = |id: TaskId| millis(arrivals[id.0 as usize - 1].0);
        let mut waiting: BTreeSet<usize> = (0..begun.len()).collect();
        for (position, (started, first)) in begun.iter().enumerate() {
            waiting.remove(&position);
            // All came within a fifth of a second, and a level is worth twelve seconds.
            let passed = waiting.iter().map(|&other| &begun[other].1).find(|other| {
                other.tenant == first.tenant && other.priority < first.priority && arrived(other.id) < *started
            });
            prop_assert!(passed.is_none(), "{:?} began before {passed:?}", first);
        }
    }
}

#[test]
fn a_flow_that_never_runs_out_of_urgent_work_still_serves_the_rest_by_its_deadline() {
    let scheduler = Scheduler::new(config(Policy::Fair, Tuning::CPU));
    let mut stage = Stage::new(scheduler, 1, |_, _: &[Task]| COST);
    stage.build(1, false, 1, 1);
    // More than the slot can do, all of it urgent, and once in a while something that is not.
    stage.arrivals = (0..3_000)
        .map(|number| {
            let at = MonotonicTime::from_nanos(number * 1_900_000);
            let deadline = Some(at.saturating_add(Duration::from_secs(2)));
            let priority = Priority::from_client(if number % 300 == 150 { 0 } else { 1 });
            (at, Task { deadline, priority, ..task(tenant(1), 1, 1, COST) })
        })
        .collect();
    stage.run(millis(30_000));
    let began = |ended: &Ended| match ended.how {
        How::Ran { started, .. } => started,
        _ => panic!("{ended:?}"),
    };
    let (patient, urgent): (Vec<_>, Vec<_>) = stage.ended.iter().partition(|ended| ended.task.priority.is_default());
    assert_eq!(patient.len(), 10);
    for ended in patient {
        let passed_by =
            urgent.iter().filter(|other| other.arrived > ended.arrived && began(other) < began(ended)).count();
        assert!(passed_by > 100, "it is passed by what came later: {passed_by}");
        assert!(began(ended) < ended.task.deadline.unwrap(), "{ended:?}");
    }
}
