//! The checkers: they see what goes into a scheduler and what comes out of it, and check what it promises.
//!
//! They work beside a simulated world and on a recorded decision log alike. What each property says is in
//! `crates/sched/README.md`; the names P0 to P9 are those of that page.

mod books;
mod gap;
mod reserved;

use std::collections::BTreeMap;
use std::fmt;

use tenantry_sched::{Event, SchedulerConfig, Share, SlotGroup, Subject, Tier};
use tenantry_types::{MonotonicTime, TenantId};

pub use gap::PairGap;

use crate::world::{Observer, Poll};
use books::Books;
use gap::Gaps;
use reserved::Reserved;

/// Violations that are kept in full; the rest are counted.
const KEPT: usize = 20;

/// Something that was promised and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When.
    pub at: MonotonicTime,
    /// Of what: `P0` ... `P9`, or `slots`, `ends`.
    pub property: &'static str,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}: {}", self.property, self.at, self.what)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    first: Vec<Violation>,
    count: u64,
}

impl Findings {
    pub(crate) fn add(&mut self, at: MonotonicTime, property: &'static str, what: String) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(Violation { at, property, what });
        }
    }
}

/// The settings of the share tree as they stand.
#[derive(Debug, Default)]
pub(crate) struct Shares(BTreeMap<Subject, Share>);

impl Shares {
    fn tell(&mut self, event: &Event) {
        if let Event::Share { subject, share } = event {
            match share {
                Some(share) => self.0.insert(*subject, *share),
                None => self.0.remove(subject),
            };
        }
    }

    pub(crate) fn get(&self, subject: Subject) -> Share {
        self.0.get(&subject).copied().unwrap_or_default()
    }

    pub(crate) fn tenant(&self, tenant: TenantId) -> Share {
        self.get(Subject::Tenant(tenant))
    }

    pub(crate) fn group(&self, tenant: TenantId) -> SlotGroup {
        self.tenant(tenant).group
    }

    /// Whether a tenant's part is by weight alone, beside those of all others.
    pub(crate) fn is_plain(&self, tenant: TenantId) -> bool {
        let share = self.tenant(tenant);
        share.reservation.is_none() && share.organisation.is_none() && share.tier != Some(Tier::BestEffort)
    }
}

/// Checks everything.
#[derive(Debug)]
pub struct Auditor {
    config: SchedulerConfig,
    shares: Shares,
    books: Books,
    gaps: Gaps,
    reserved: Reserved,
    findings: Findings,
    /// From when on service counts for the gaps.
    from: MonotonicTime,
    now: MonotonicTime,
}

impl Auditor {
    /// For a scheduler with these settings.
    pub fn new(config: &SchedulerConfig) -> Self {
        Self {
            config: config.clone(),
            shares: Shares::default(),
            books: Books::default(),
            gaps: Gaps::default(),
            reserved: Reserved::default(),
            findings: Findings::default(),
            from: MonotonicTime::ZERO,
            now: MonotonicTime::ZERO,
        }
    }

    /// The same, with gaps and reservations counted from later on: after costs were learned.
    pub fn from(config: &SchedulerConfig, from: std::time::Duration) -> Self {
        Self { from: MonotonicTime::ZERO.saturating_add(from), ..Self::new(config) }
    }

    /// The first violations, and how many there were in all.
    pub fn violations(&self) -> (&[Violation], u64) {
        (&self.findings.first, self.findings.count)
    }

    /// For each pair of tenants that had work at the same time: how far their service came apart, and the bound.
    pub fn gaps(&self) -> Vec<PairGap> {
        self.gaps.pairs(&self.config.tuning)
    }

    /// The pair whose gap is the largest part of its bound.
    pub fn worst_gap(&self) -> Option<PairGap> {
        self.gaps().into_iter().max_by(|one, other| one.part().total_cmp(&other.part()))
    }

    /// The longest a tenant with work went without service, P3, and the bound for it; seconds.
    pub fn longest_wait(&self) -> (f64, f64) {
        self.gaps.longest_wait(&self.config.tuning)
    }

    /// P4: how long after `F + Q` a reserved task ended at the worst (negative: before it), seconds, and how many were
    /// looked at.
    pub fn worst_lateness(&self) -> (f64, u64) {
        self.reserved.worst()
    }

    /// The most by which a batch that can stand in a reserved task's way took longer than its upper estimate, seconds.
    pub fn overshoot(&self) -> f64 {
        self.reserved.overshoot_ns as f64 / 1e9
    }

    /// By how much the longest single task that can stand in a reserved task's way is longer than Q.
    pub fn longest_over_quantum(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.reserved.more_ns())
    }

    /// P2: adds a violation for each pair whose gap is beyond its bound.
    pub fn check_gaps(&mut self) {
        for gap in self.gaps().into_iter().filter(|gap| gap.gap > gap.bound) {
            let (one, other) = gap.tenants;
            let what = format!("{one} and {other} came {:.6} s apart, bound {:.6} s", gap.gap, gap.bound);
            self.findings.add(self.now, "P2", what);
        }
    }

    /// P3: adds a violation if somebody waited longer than the bound.
    pub fn check_waits(&mut self) {
        let (longest, bound) = self.longest_wait();
        if longest > bound {
            let what = format!("somebody with work was not served for {longest:.6} s, bound {bound:.6} s");
            self.findings.add(self.now, "P3", what);
        }
    }

    /// P4: adds a violation if a reserved task ended later than `F + Q` by more than batches took longer than expected.
    pub fn check_reservations(&mut self) {
        self.reserved.check(&mut self.findings);
    }
}

impl Observer for Auditor {
    fn poll(&mut self, poll: &Poll<'_>) {
        self.now = poll.at;
        for event in poll.events {
            self.shares.tell(event);
            if let Event::Policy { policy } = event {
                self.config.policy = *policy;
            }
        }
        let counts = poll.at >= self.from;
        let parts = self.books.poll(poll, &self.config, &self.shares, &mut self.findings);
        self.reserved.poll(poll, &self.config, &self.shares, &self.books, &parts, counts);
        self.gaps.poll(poll, &self.shares, &self.books, &parts, counts);
    }
}
