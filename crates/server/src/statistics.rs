//! What a caller's requests to each version of a model came to since the start, as Triton's statistics extension counts
//! it. A tenant sees its own requests only: on a shared model, everybody's together would tell each of the others' traffic.
//!
//! Two of the extension's durations have no entry of their own here: copying inputs in and outputs out happens while the
//! batch holds its slot, so it is part of `compute`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tenantry_node::Timing;
use tenantry_types::{Action, ErrorCode, ModelRef, ServiceError, TenantId};

use crate::cache::CacheUse;
use crate::routing::{RoutedModel, RoutedVersion};
use crate::server::unix_ms;
use crate::{Principal, Server, auth};

/// The most batch sizes of a version with figures of their own; requests in batches of further sizes are in the sums only.
const MAX_BATCH_SIZES: usize = 128;
/// One execution, in the parts in which it is divided among its batch's members.
const EXECUTION_PARTS: u128 = 1 << 32;

/// How often something happened, and how long it took together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DurationStatistic {
    /// How often.
    pub count: u64,
    /// The sum.
    pub total: Duration,
}

impl DurationStatistic {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.total = self.total.saturating_add(duration);
    }
}

/// Executions of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStatistics {
    /// Rows of the batch, other callers' included.
    pub rows: u32,
    /// This caller's part of such executions, and of their slot time.
    pub compute: DurationStatistic,
}

/// What a caller's requests to one version of a model came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelStatistics {
    /// The model as this caller names it.
    pub name: ModelRef,
    /// The version's number.
    pub version: String,
    /// When the last answered request ended, milliseconds since the Unix epoch; `None`: there was none.
    pub last_inference_ms: Option<i64>,
    /// Rows answered.
    pub inferences: u64,
    /// Executions they took. A batch shared with other callers counts by this one's part of its rows.
    pub executions: u64,
    /// Answered requests, from arrival to answer.
    pub success: DurationStatistic,
    /// Requests without an answer, from arrival to their end.
    pub fail: DurationStatistic,
    /// Waiting for a slot.
    pub queue: DurationStatistic,
    /// The whole of the batch the request ran in, suspensions excluded.
    pub compute: DurationStatistic,
    /// Answers found in the cache: they are in `success`, and in no other count.
    pub cache_hit: DurationStatistic,
    /// Answers looked for there in vain.
    pub cache_miss: DurationStatistic,
    /// By batch size.
    pub batches: Vec<BatchStatistics>,
}

/// The counters of a model, by calling tenant and version number. Bounded by the tenants and versions there are.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    by_caller: RwLock<HashMap<(TenantId, u32), Arc<VersionStatistics>>>,
}

impl Statistics {
    /// The counters of a caller's requests to a version.
    pub(crate) fn of(&self, caller: TenantId, version: u32) -> Arc<VersionStatistics> {
        if let Some(known) = self.by_caller.read().get(&(caller, version)) {
            return Arc::clone(known);
        }
        Arc::clone(self.by_caller.write().entry((caller, version)).or_default())
    }

    /// Drops those of callers and versions that are gone.
    pub(crate) fn retain(&self, known: impl Fn(TenantId, u32) -> bool) {
        self.by_caller.write().retain(|(caller, version), _| known(*caller, *version));
    }

    fn read(&self, caller: TenantId, version: u32) -> Counters {
        let counters = self.by_caller.read().get(&(caller, version)).cloned();
        counters.map(|counters| counters.0.lock().clone()).unwrap_or_default()
    }
}

/// Where the time of an answered request went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ran {
    pub(crate) timing: Timing,
    pub(crate) cache: CacheUse,
    /// How long its answer was looked for in the cache.
    pub(crate) lookup: Duration,
}

/// The counters of one caller's requests to one version.
#[derive(Debug, Default)]
pub(crate) struct VersionStatistics(Mutex<Counters>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counters {
    last_inference_ms: Option<i64>,
    inferences: u64,
    execution_parts: u128,
    success: DurationStatistic,
    fail: DurationStatistic,
    queue: DurationStatistic,
    compute: DurationStatistic,
    cache_hit: DurationStatistic,
    cache_miss: DurationStatistic,
    batches: BTreeMap<u32, (u128, Duration)>,
}

impl VersionStatistics {
    /// A request was answered `duration` after its arrival.
    pub(crate) fn answered(&self, ran: &Ran, duration: Duration) {
        self.0.lock().answered(ran, duration, unix_ms());
    }

    /// A request ended without an answer.
    pub(crate) fn failed(&self, duration: Duration) {
        self.0.lock().fail.add(duration);
    }
}

impl Counters {
    fn answered(&mut self, ran: &Ran, duration: Duration, now_ms: i64) {
        let Ran { timing, cache, lookup } = ran;
        self.last_inference_ms = Some(now_ms);
        self.success.add(duration);
        match cache {
            CacheUse::Off => {}
            CacheUse::Miss => self.cache_miss.add(*lookup),
            CacheUse::Hit => return self.cache_hit.add(*lookup),
        }
        let parts = match timing.batch_rows {
            0 => EXECUTION_PARTS,
            rows => EXECUTION_PARTS * u128::from(timing.rows) / u128::from(rows),
        };
        self.inferences = self.inferences.saturating_add(timing.rows.into());
        self.execution_parts += parts;
        self.queue.add(timing.queue_wait);
        self.compute.add(timing.batch_time);
        if self.batches.len() < MAX_BATCH_SIZES || self.batches.contains_key(&timing.batch_rows) {
            let (executions, device_time) = self.batches.entry(timing.batch_rows).or_default();
            *executions += parts;
            *device_time = device_time.saturating_add(timing.device_time);
        }
    }

    fn shown(self, name: ModelRef, version: u32) -> ModelStatistics {
        let batches = self.batches.into_iter().map(|(rows, (parts, total))| BatchStatistics {
            rows,
            compute: DurationStatistic { count: whole(parts), total },
        });
        ModelStatistics {
            name,
            version: version.to_string(),
            last_inference_ms: self.last_inference_ms,
            inferences: self.inferences,
            executions: whole(self.execution_parts),
            success: self.success,
            fail: self.fail,
            queue: self.queue,
            compute: self.compute,
            cache_hit: self.cache_hit,
            cache_miss: self.cache_miss,
            batches: batches.collect(),
        }
    }
}

/// To the nearest whole execution.
fn whole(parts: u128) -> u64 {
    u64::try_from((parts + EXECUTION_PARTS / 2) / EXECUTION_PARTS).unwrap_or(u64::MAX)
}

impl Server {
    /// What the caller's own requests came to since the start: of one version, of every servable version of a model, or,
    /// without a model, of every model the caller may use.
    ///
    /// # Errors
    /// 404 for a model or version there is not, 503 for a version that cannot be served yet.
    pub fn model_statistics(
        &self,
        principal: &Principal,
        model: Option<&ModelRef>,
        version: Option<&str>,
    ) -> Result<Vec<ModelStatistics>, ServiceError> {
        let routing = self.routing.load();
        let caller = principal.tenant;
        let of = |model: &RoutedModel, name: &ModelRef, version: &RoutedVersion| {
            model.statistics.read(caller, version.number).shown(name.clone(), version.number)
        };
        let Some(name) = model else {
            if version.is_some() {
                return Err(ServiceError::new(ErrorCode::InvalidArgument, "a version needs the name of its model"));
            }
            let mut visible: Vec<_> = routing
                .models()
                .filter(|model| model.is_visible_to(caller))
                .map(|model| (model.name_for(caller), model))
                .collect();
            visible.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            let all = visible.iter().flat_map(|(name, model)| {
                model.versions.values().filter(|version| version.servable(name).is_ok()).map(|v| of(model, name, v))
            });
            return Ok(all.collect());
        };
        let routed = auth::model(&routing, principal, name, Action::ModelRead)?;
        if version.is_some() {
            let found = routed.version(version, name)?;
            found.servable(name)?;
            return Ok(vec![of(routed, name, found)]);
        }
        let servable = routed.versions.values().filter(|version| version.servable(name).is_ok());
        Ok(servable.map(|version| of(routed, name, version)).collect())
    }
}

#[cfg(test)]
mod tests;
