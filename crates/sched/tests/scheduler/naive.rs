//! The fair policy in its plainest form: one slot, one group, weights, no reservations, no deadlines, nobody joined.
//!
//! Each tenant has a virtual time; the one with work and the smallest goes next; a newcomer starts at the clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tenantry_sched::{Decision, Event, Outcome, Phase, Place, Subject, Task};
use tenantry_types::{BatchId, MonotonicTime, ReplicaId, SlotId, TenantId, WorkerId};

use crate::stage::Decides;

/// By what service is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measure {
    Time,
    Count,
}

#[derive(Debug, Default)]
struct Account {
    milli: i128,
    /// Service in millionths of a nanosecond at weight 1, and when it was served last.
    v: i128,
    turn: u64,
    /// When it was first heard of: of two that were never served that one is next.
    number: u64,
    waiting: Vec<Task>,
}

#[derive(Debug)]
pub(crate) struct Naive {
    measure: Measure,
    accounts: BTreeMap<TenantId, Account>,
    clock: i128,
    turn: u64,
    heard: u64,
    running: Option<(TenantId, Duration)>,
}

impl Naive {
    pub(crate) fn new(measure: Measure) -> Self {
        Self { measure, accounts: BTreeMap::new(), clock: 0, turn: 0, heard: 1, running: None }
    }

    fn charge(&mut self, tenant: TenantId, ns: i128) {
        let account = self.accounts.entry(tenant).or_default();
        account.v += ns * 1_000_000_000 / account.milli.max(1);
    }

    fn next(&mut self) -> Option<Decision> {
        let with_work = self.accounts.iter().filter(|(_, account)| !account.waiting.is_empty());
        let (&tenant, _) = with_work.min_by_key(|&(_, account)| (account.v, account.turn, account.number))?;
        self.turn += 1;
        let account = self.accounts.get_mut(&tenant)?;
        account.turn = self.turn;
        self.clock = self.clock.max(account.v);
        let task = account.waiting.remove(0);
        self.running = Some((tenant, task.cost));
        self.charge(tenant, if self.measure == Measure::Time { task.cost.as_nanos() as i128 } else { 1_000_000 });
        let Place::Placement(placement) = task.place else { return None };
        Some(Decision::Dispatch {
            batch: BatchId(self.turn),
            slot: SlotId(1),
            worker: WorkerId(placement.0),
            replica: Some(ReplicaId(placement.0)),
            tasks: [task.id].into_iter().collect(),
            weights: [u64::from(task.rows.max(1))].into_iter().collect(),
            run_limit: task.run_limit,
            phase: Phase::Shared,
        })
    }
}

impl Decides for Naive {
    fn decide(&mut self, _: MonotonicTime, events: Vec<Event>, out: &mut Vec<Decision>) -> Option<MonotonicTime> {
        for event in events {
            match event {
                Event::Share { subject: Subject::Tenant(tenant), share } => {
                    self.accounts.entry(tenant).or_default().milli =
                        i128::from(share.unwrap_or_default().weight.milli());
                }
                Event::Ready { task } => {
                    let (clock, number) = (self.clock, self.heard);
                    let account =
                        self.accounts.entry(task.tenant).or_insert(Account { milli: 1000, ..Account::default() });
                    if account.number == 0 {
                        (account.number, self.heard) = (number, number + 1);
                    }
                    if account.waiting.is_empty() {
                        account.v = account.v.max(clock);
                    }
                    account.waiting.push(task);
                }
                Event::Done { used, outcome, .. } => {
                    let Some((tenant, estimate)) = self.running.take() else { continue };
                    if self.measure == Measure::Time && outcome != Outcome::Interrupted {
                        self.charge(tenant, used.as_nanos() as i128 - estimate.as_nanos() as i128);
                    }
                }
                _ => {}
            }
        }
        if self.running.is_none() {
            out.extend(self.next());
        }
        None
    }
}
