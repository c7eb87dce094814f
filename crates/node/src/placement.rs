//! Placements: a version in a trust domain, and what the data plane needs to know to run it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tenantry_types::{MonotonicTime, PlacementId, Signature, TrustDomain, VersionId};

/// One registered version, as the node needs to run it.
#[derive(Debug, PartialEq, Eq)]
pub struct VersionSpec {
    /// The version.
    pub version: VersionId,
    /// `owner/model:number`, for logs and for the owner's eyes.
    pub name: String,
    /// Inputs and outputs.
    pub signature: Arc<Signature>,
    /// Whether requests may be joined along the first dimension.
    pub can_batch: bool,
    /// The most rows of one batch.
    pub max_batch: u32,
    /// How long a batch may wait to fill.
    pub max_batch_delay: Duration,
    /// The longest run before the worker is killed.
    pub run_limit: Duration,
    /// The estimated run time of one row.
    pub cost: Duration,
}

/// A placement's entry in the node.
#[derive(Debug)]
pub(crate) struct Placement {
    pub(crate) id: PlacementId,
    pub(crate) spec: Arc<VersionSpec>,
    pub(crate) domain: TrustDomain,
    /// Shared by the records before and after a change of settings.
    pub(crate) counters: Arc<Counters>,
}

/// What changes while requests come and go.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Replicas loading or ready. Zero with work waiting is demand the reconciler must hear of.
    pub(crate) replicas: AtomicU32,
    /// Requests submitted and not yet answered.
    pending: AtomicU32,
    /// When the last request was submitted or answered, nanoseconds.
    last_used: AtomicU64,
}

impl Counters {
    pub(crate) fn submitted(&self, now: MonotonicTime) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.last_used.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(crate) fn answered(&self, now: MonotonicTime) {
        self.last_used.store(now.as_nanos(), Ordering::Relaxed);
        self.pending.fetch_sub(1, Ordering::AcqRel);
    }

    /// Since when nothing is pending; `None` while something is.
    pub(crate) fn idle_since(&self) -> Option<MonotonicTime> {
        (self.pending.load(Ordering::Acquire) == 0)
            .then(|| MonotonicTime::from_nanos(self.last_used.load(Ordering::Relaxed)))
    }
}

/// All placements, interned by (version, domain).
///
/// Bounded by versions x callers that really sent something; `retire` removes a deleted version's.
#[derive(Debug, Default)]
pub(crate) struct Placements {
    tables: RwLock<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    by_id: HashMap<PlacementId, Arc<Placement>>,
    by_key: HashMap<(VersionId, TrustDomain), Arc<Placement>>,
}

impl Placements {
    pub(crate) fn get(&self, id: PlacementId) -> Option<Arc<Placement>> {
        self.tables.read().by_id.get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Placement>> {
        self.tables.read().by_id.values().cloned().collect()
    }

    /// The placement of this key, made by `make_id` if it is new; the flag says whether it is.
    pub(crate) fn intern(
        &self,
        spec: &Arc<VersionSpec>,
        domain: TrustDomain,
        now: MonotonicTime,
        make_id: impl FnOnce() -> PlacementId,
    ) -> (Arc<Placement>, Interned) {
        let key = (spec.version, domain);
        if let Some(known) = self.tables.read().by_key.get(&key)
            && known.spec == *spec
        {
            return (Arc::clone(known), Interned::Known);
        }
        let mut tables = self.tables.write();
        let (id, interned) = match tables.by_key.get(&key) {
            Some(known) if known.spec == *spec => return (Arc::clone(known), Interned::Known),
            // The same version with other settings keeps its id, replicas and queue.
            Some(known) => (known.id, Interned::Changed),
            None => (make_id(), Interned::New),
        };
        let counters = match tables.by_key.get(&key) {
            Some(known) => Arc::clone(&known.counters),
            None => {
                let counters = Counters::default();
                counters.last_used.store(now.as_nanos(), Ordering::Relaxed);
                Arc::new(counters)
            }
        };
        let placement = Arc::new(Placement { id, spec: Arc::clone(spec), domain, counters });
        tables.by_key.insert(key, Arc::clone(&placement));
        tables.by_id.insert(id, Arc::clone(&placement));
        (placement, interned)
    }

    pub(crate) fn retire(&self, version: VersionId) -> Vec<Arc<Placement>> {
        let mut tables = self.tables.write();
        tables.by_key.retain(|(known, _), _| *known != version);
        let gone: Vec<_> =
            tables.by_id.values().filter(|placement| placement.spec.version == version).cloned().collect();
        tables.by_id.retain(|_, placement| placement.spec.version != version);
        gone
    }
}

/// What `intern` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interned {
    Known,
    Changed,
    New,
}
