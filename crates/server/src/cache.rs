//! Answers that are kept to be given again, for deployments that ask for it.
//!
//! Wanted: an answer goes to nobody but the tenant that paid for it, no tenant's entries depend on what another does, and
//! nothing grows without bound. So each tenant's lie apart, under a lock of their own, with a quota. What a tenant keeps is
//! removed by its own newer answers (the longest unused first), by time, and by changes of the deployment; never for
//! another tenant. When all tenants' together reach the server's bound, a tenant makes room among its own, and keeps
//! nothing where that does not help.
//!
//! Requests that are the same and arrive together are each computed: waiting for another's answer would tie one
//! request's deadline and fate to another's, for what is saved once.
//!
//! The time is an argument; the node reads the clock.

mod key;
mod serve;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashlink::LruCache;
use parking_lot::{Mutex, RwLock};
use tenantry_types::{Digest, MonotonicTime, Payload, TenantId, Tensor, VersionId};

pub(crate) use key::Parts;
pub use serve::CacheUse;
pub(crate) use serve::{NO_TIME, sweep, takes_away};

/// The part of a tenant's quota that one answer may take at most.
const LARGEST_PART: u64 = 8;
/// What an entry takes besides its tensors' data and names, bytes: its key and links, and what the allocator rounds up.
const ENTRY_BYTES: u64 = 512;
/// What a tensor takes besides its data and name.
const TENSOR_BYTES: u64 = 128;

/// Every tenant's.
#[derive(Debug)]
pub(crate) struct ResponseCache {
    max_bytes: u64,
    bytes: AtomicU64,
    /// Those of tenants that keep something or did lately; bounded by the tenants there are.
    tenants: RwLock<HashMap<TenantId, Arc<Mutex<Kept>>>>,
}

/// One tenant's.
#[derive(Debug)]
struct Kept {
    entries: LruCache<Digest, Entry>,
    bytes: u64,
    /// The tenant is gone; what comes for it now is not kept.
    closed: bool,
}

#[derive(Debug)]
struct Entry {
    origin: Origin,
    bytes: u64,
    outputs: Arc<[Tensor]>,
}

/// What computed an answer, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) version: VersionId,
    /// Of the deployment.
    pub(crate) generation: u64,
    pub(crate) at: MonotonicTime,
}

impl ResponseCache {
    /// An empty cache of at most so many bytes.
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self { max_bytes, bytes: AtomicU64::new(0), tenants: RwLock::default() }
    }

    /// The outputs kept under `key`, unless they are older than `ttl`.
    fn get(&self, tenant: TenantId, key: &Digest, ttl: Duration, now: MonotonicTime) -> Option<Arc<[Tensor]>> {
        let kept = self.tenants.read().get(&tenant).map(Arc::clone)?;
        let mut kept = kept.lock();
        let Entry { origin, outputs, .. } = kept.entries.get(key)?;
        if now.saturating_since(origin.at) < ttl {
            return Some(Arc::clone(outputs));
        }
        if let Some(old) = kept.entries.remove(key) {
            self.release(&mut kept, old.bytes);
        }
        None
    }

    /// Keeps outputs under `key`, if they are not too large for `quota_bytes` or for what there is room for. Returns the
    /// bytes of the tenant's own that were removed for it.
    fn put(&self, tenant: TenantId, key: Digest, origin: Origin, outputs: &[Tensor], quota_bytes: u64) -> u64 {
        let bytes = outputs.iter().fold(ENTRY_BYTES, |bytes, tensor| bytes.saturating_add(tensor_bytes(tensor)));
        if bytes > quota_bytes / LARGEST_PART || bytes > self.max_bytes {
            return 0;
        }
        let entry = Entry { origin, bytes, outputs: outputs.iter().map(own_copy).collect() };
        let kept = Arc::clone(self.tenants.write().entry(tenant).or_default());
        let mut kept = kept.lock();
        if kept.closed {
            return 0;
        }
        if let Some(old) = kept.entries.remove(&key) {
            self.release(&mut kept, old.bytes);
        }
        let mut evicted_bytes = 0;
        while kept.bytes.saturating_add(bytes) > quota_bytes || !self.reserve(bytes) {
            let Some((_, oldest)) = kept.entries.remove_lru() else { return evicted_bytes };
            self.release(&mut kept, oldest.bytes);
            evicted_bytes += oldest.bytes;
        }
        kept.bytes += bytes;
        kept.entries.insert(key, entry);
        evicted_bytes
    }

    /// Removes the tenants that have no quota, and of the others what is no longer to be kept or lies beyond it.
    fn retain(&self, quota_bytes: impl Fn(TenantId) -> Option<u64>, is_kept: impl Fn(Origin) -> bool) {
        let all: Vec<_> = self.tenants.read().iter().map(|(tenant, kept)| (*tenant, Arc::clone(kept))).collect();
        for (tenant, kept) in all {
            let mut kept = kept.lock();
            let quota_bytes = quota_bytes(tenant);
            kept.closed = quota_bytes.is_none();
            let mut freed_bytes = 0;
            kept.entries.retain(|_, entry| {
                let keep = quota_bytes.is_some() && is_kept(entry.origin);
                freed_bytes += if keep { 0 } else { entry.bytes };
                keep
            });
            self.release(&mut kept, freed_bytes);
            while kept.bytes > quota_bytes.unwrap_or(0) {
                let Some((_, oldest)) = kept.entries.remove_lru() else { break };
                self.release(&mut kept, oldest.bytes);
            }
        }
        self.tenants.write().retain(|_, kept| !kept.lock().closed);
    }

    /// Bytes kept, of all tenants.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: u64) -> bool {
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.max_bytes);
        // Relaxed: the count orders nothing but itself.
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn release(&self, kept: &mut Kept, bytes: u64) {
        kept.bytes -= bytes;
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self { entries: LruCache::new_unbounded(), bytes: 0, closed: false }
    }
}

fn tensor_bytes(tensor: &Tensor) -> u64 {
    let Tensor { name, datatype: _, shape: _, data } = tensor;
    TENSOR_BYTES.saturating_add(name.len() as u64).saturating_add(data.len() as u64)
}

/// A tensor whose data is no part of a larger buffer: an answer's is cut out of its batch's, which would stay, too.
fn own_copy(tensor: &Tensor) -> Tensor {
    let data = Payload::from(tensor.data.parts().concat());
    Tensor { name: tensor.name.clone(), datatype: tensor.datatype, shape: tensor.shape.clone(), data }
}

#[cfg(test)]
mod tests;
