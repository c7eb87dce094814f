//! What a worker may use: the server's bounds and its tenants'; and the bound on memory where the kernel keeps none: the
//! node looks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tenantry_types::share::WorkerLimits;
use tenantry_types::{DataOwner, TenantId, TrustDomain};

use crate::data_plane::Node;
use crate::worker::Kill;

/// How often. What a worker can take meanwhile is bounded by how fast memory can be written.
const LOOK: Duration = Duration::from_millis(200);

impl Node {
    /// Changes what the workers of tenants may use; those that run keep what they were started with.
    pub fn set_worker_limits(&self, limits: HashMap<TenantId, WorkerLimits>) {
        *self.worker_limits.lock() = limits;
    }

    /// What somebody says a worker of this domain may use: the tightest of what the configuration, the model's owner and the
    /// data's owner have.
    pub(crate) fn worker_limits_of(&self, domain: TrustDomain) -> WorkerLimits {
        let server = WorkerLimits {
            memory_bytes: self.config.worker_memory_bytes,
            max_processes: Some(self.config.worker_max_processes),
            max_cpu_milli: self.config.worker_max_cpu_milli,
        };
        let limits = self.worker_limits.lock();
        let of = |tenant: TenantId| limits.get(&tenant).copied().unwrap_or_default();
        let data = match domain.data_owner {
            DataOwner::Tenant(tenant) => of(tenant),
            DataOwner::Any => WorkerLimits::default(),
        };
        server.tighter(of(domain.model_owner)).tighter(data)
    }

    /// The memory a worker may use, bytes: what somebody says, and where the configuration is silent no more than the default.
    pub(crate) fn worker_memory_limit(&self, named_bytes: Option<u64>) -> Option<u64> {
        let server = self.config.worker_memory_bytes.or(self.default_worker_memory_bytes);
        named_bytes.into_iter().chain(server).min()
    }

    /// Ends workers without a control group that use more memory than they may.
    pub(crate) async fn watch_workers_memory(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let workers = self.fleet.lock().all_workers();
            for worker in workers.into_iter().filter(|worker| !worker.is_in_group()) {
                let Some(&limit) = worker.memory_limit.get() else { continue };
                if worker.own_memory_bytes().is_some_and(|bytes| bytes > limit) {
                    worker.kill(Kill::Memory(limit));
                }
            }
        }
    }
}

/// The memory of a process that is not a file's or shared, bytes (`man 5 proc`, `statm`).
pub(crate) fn own_memory_bytes(pid: i32) -> Option<u64> {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = pages.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some(resident.saturating_sub(shared).saturating_mul(rustix::param::page_size() as u64))
}

/// The limit where the configuration names none: so much of the memory there is that the server, the system and the files
/// in use have the rest.
pub(crate) fn default_limit(available_bytes: Option<u64>) -> Option<u64> {
    available_bytes.map(|bytes| bytes / 4 * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_written_to_is_counted() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let before = own_memory_bytes(pid).unwrap();
        // Not to be optimised away.
        let taken = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = own_memory_bytes(pid).unwrap();
        assert!(after >= before + (48 << 20), "{before} {after}");
        drop(taken);
        assert_eq!(own_memory_bytes(i32::MAX), None);
        assert_eq!(default_limit(Some(4 << 30)), Some(3 << 30));
    }
}
