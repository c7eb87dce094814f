//! What happened to workers that somebody should know of later: drained into the audit trail by whoever keeps one.
//!
//! A list in memory, bounded in all and for each trust domain, so that one tenant's dying models do not push another's
//! incidents out. What does not fit is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tenantry_types::{MonotonicTime, TrustDomain, VersionId};
use tokio::sync::Notify;

use crate::data_plane::Node;

/// The most incidents that wait to be taken.
const MAX_WAITING: usize = 1_024;
/// The most of them of one trust domain.
const MAX_WAITING_PER_DOMAIN: usize = 64;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IncidentKind {
    /// The kernel ended a worker for a system call that it may not make.
    ForbiddenCall,
    /// The kernel ended a worker for its use of memory.
    OutOfMemory,
    /// The node ended a worker that broke the protocol.
    Violation,
    /// The node ended a run, or its worker, for the time it took.
    Deadline,
    /// A worker died of something else: a crash, an exit, somebody's signal.
    Died,
    /// A version is not started for a while.
    Quarantined,
    /// An input is refused for a while.
    PoisonClosed,
    /// A request with such an input came, the first since it was closed.
    PoisonRefused,
}

impl IncidentKind {
    /// Its name in records and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ForbiddenCall => "forbidden_call",
            Self::OutOfMemory => "out_of_memory",
            Self::Violation => "protocol_violation",
            Self::Deadline => "deadline",
            Self::Died => "worker_died",
            Self::Quarantined => "quarantined",
            Self::PoisonClosed => "poison_closed",
            Self::PoisonRefused => "poison_refused",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// What kind of thing.
    pub kind: IncidentKind,
    /// When, on the clock of [`Node::now`].
    pub at: MonotonicTime,
    /// Whose model and whose data the worker had.
    pub domain: TrustDomain,
    /// What it ran; absent for a worker that was idle or registered a file that is no version yet.
    pub version: Option<VersionId>,
    /// What the owner is told. The node's own words, or a worker's sanitised ones.
    pub reason: String,
}

/// What waits to be taken.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    waiting: Mutex<VecDeque<Incident>>,
    added: Notify,
    dropped: AtomicU64,
}

impl Incidents {
    /// Files one, or counts it where there is no room.
    pub(crate) fn add(&self, incident: Incident) {
        let mut waiting = self.waiting.lock();
        let same = waiting.iter().filter(|other| other.domain == incident.domain).count();
        if waiting.len() >= MAX_WAITING || same >= MAX_WAITING_PER_DOMAIN {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(incident);
        drop(waiting);
        self.added.notify_one();
    }

    fn take(&self) -> Vec<Incident> {
        self.waiting.lock().drain(..).collect()
    }
}

impl Node {
    /// Takes the incidents since the last call, the oldest first.
    pub fn take_incidents(&self) -> Vec<Incident> {
        self.incidents.take()
    }

    /// Ends when an incident was added since this ended last. For one caller at a time.
    pub async fn incident_added(&self) {
        self.incidents.added.notified().await;
    }

    /// Incidents that were lost because nobody took them in time.
    pub fn dropped_incidents(&self) -> u64 {
        self.incidents.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use tenantry_types::{DataOwner, TenantId};

    use super::*;

    fn incident(tenant: u8) -> Incident {
        let tenant = TenantId::from_parts(1, [tenant; 10]);
        Incident {
            kind: IncidentKind::Died,
            at: MonotonicTime::ZERO,
            domain: TrustDomain { model_owner: tenant, data_owner: DataOwner::Tenant(tenant) },
            version: None,
            reason: "it ended".to_owned(),
        }
    }

    #[test]
    fn one_domain_cannot_push_anothers_out() {
        let incidents = Incidents::default();
        for _ in 0..10 * MAX_WAITING {
            incidents.add(incident(1));
        }
        incidents.add(incident(2));
        let taken = incidents.take();
        assert_eq!(taken.len(), MAX_WAITING_PER_DOMAIN + 1);
        assert_eq!(taken.last(), Some(&incident(2)));
        assert_eq!(incidents.dropped.load(Ordering::Relaxed), (10 * MAX_WAITING - MAX_WAITING_PER_DOMAIN) as u64);
        assert!(incidents.take().is_empty());
    }

    #[test]
    fn there_is_a_bound_for_all_together() {
        let incidents = Incidents::default();
        for tenant in 0..=u8::MAX {
            for _ in 0..MAX_WAITING_PER_DOMAIN {
                incidents.add(incident(tenant));
            }
        }
        assert_eq!(incidents.take().len(), MAX_WAITING);
    }

    #[tokio::test]
    async fn who_waits_hears_of_what_came_before() {
        let incidents = Incidents::default();
        incidents.add(incident(1));
        incidents.added.notified().await;
    }
}
