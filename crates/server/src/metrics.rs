//! Metrics in the OpenMetrics text format.
//!
//! Labels are bounded: a tenant's or model's name appears only once the server itself knows it, never as a client wrote
//! it, and after [`MAX_FLOWS`] pairs of tenant and model all further ones share one label. A request touches handles
//! that were looked up once, so it formats no label.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tenantry_bill::BudgetMeter;
use tenantry_types::{ErrorCode, TenantId};

use crate::limits::REASONS;

/// The most pairs of tenant and model with series of their own.
pub(crate) const MAX_FLOWS: usize = 10_000;
/// The label of every pair beyond [`MAX_FLOWS`]. Not a name: names start with a letter or a digit.
const OVERFLOW_LABEL: &str = "_other";

type Seconds = Counter<f64, AtomicU64>;
type Ratio = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowLabels {
    tenant: String,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    tenant: String,
    model: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectionLabels {
    tenant: String,
    model: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct BarrierLabels {
    pub(crate) barrier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    tenant: String,
    scope: &'static str,
    meter: &'static str,
    period: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThresholdLabels {
    tenant: String,
    meter: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// 100 us to 52 s, each bucket twice the one before.
fn time_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 20))
}

/// 1 to 256 rows, each bucket twice the one before.
fn row_buckets() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 9))
}

/// By calling tenant and by model, `owner/name`.
type Flows = HashMap<(TenantId, Arc<str>), Arc<FlowMetrics>>;

/// Every metric of the server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    device_charged: Family<TenantLabels, Seconds>,
    request_duration: Family<FlowLabels, Histogram, fn() -> Histogram>,
    queue_wait: Family<FlowLabels, Histogram, fn() -> Histogram>,
    device_time: Family<FlowLabels, Seconds>,
    batch_rows: Family<FlowLabels, Histogram, fn() -> Histogram>,
    cache_hits: Family<FlowLabels, Counter>,
    cache_misses: Family<FlowLabels, Counter>,
    cache_evicted_bytes: Family<TenantLabels, Counter>,
    budgets: Family<BudgetLabels, Ratio>,
    budget_thresholds: Family<ThresholdLabels, Counter>,
    registrations: Family<OutcomeLabels, Counter>,
    pub(crate) gauges: Gauges,
    /// Held while figures of the node are taken over: two readers at once would count them twice.
    pub(crate) reading: Mutex<()>,
    flows: RwLock<Flows>,
    /// Requests of a known tenant for no model it may use, and requests of nobody known.
    unresolved: RwLock<HashMap<Option<TenantId>, Arc<FlowMetrics>>>,
}

/// What is set from the node's figures whenever somebody looks.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) workers: Gauge,
    pub(crate) replicas: Gauge,
    pub(crate) queued_tasks: Gauge,
    pub(crate) sequences: Gauge,
    pub(crate) queued_bytes: Gauge,
    pub(crate) running_batches: Gauge,
    pub(crate) slots: Gauge,
    pub(crate) cache_bytes: Gauge,
    pub(crate) clear_bytes: Gauge,
    pub(crate) registering: Gauge,
    pub(crate) isolation_level: Gauge,
    pub(crate) isolation_minimum: Gauge,
    pub(crate) models_below_minimum: Gauge,
    pub(crate) barriers: Family<BarrierLabels, Gauge>,
    pub(crate) worker_deaths: Counter,
    pub(crate) suspensions: Counter,
    pub(crate) aborted_batches: Counter,
    pub(crate) dropped_records: Counter,
}

/// The series of one tenant's requests to one model.
#[derive(Debug)]
pub(crate) struct FlowMetrics {
    labels: FlowLabels,
    requests: Family<RequestLabels, Counter>,
    rejections: Family<RejectionLabels, Counter>,
    /// One counter a reason, in the order of [`REASONS`]; looked up on first use.
    by_reason: [OnceLock<Counter>; REASONS.len()],
    /// One counter a code, success last; looked up on first use, so that codes that never occur make no series.
    by_code: [OnceLock<Counter>; ErrorCode::ALL.len() + 1],
    duration: Histogram,
    queue_wait: Histogram,
    device_time: Seconds,
    batch_rows: Histogram,
    cache_hits: Family<FlowLabels, Counter>,
    cache_misses: Family<FlowLabels, Counter>,
    /// Hits and misses; looked up on first use, as most models keep no answers.
    looked_up: [OnceLock<Counter>; 2],
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let rejections = Family::<RejectionLabels, Counter>::default();
        let device_charged = Family::<TenantLabels, Seconds>::default();
        let request_duration =
            Family::<FlowLabels, Histogram, fn() -> Histogram>::new_with_constructor(time_buckets as fn() -> Histogram);
        let queue_wait =
            Family::<FlowLabels, Histogram, fn() -> Histogram>::new_with_constructor(time_buckets as fn() -> Histogram);
        let device_time = Family::<FlowLabels, Seconds>::default();
        let batch_rows =
            Family::<FlowLabels, Histogram, fn() -> Histogram>::new_with_constructor(row_buckets as fn() -> Histogram);
        let cache_hits = Family::<FlowLabels, Counter>::default();
        let cache_misses = Family::<FlowLabels, Counter>::default();
        let cache_evicted_bytes = Family::<TenantLabels, Counter>::default();
        let budgets = Family::<BudgetLabels, Ratio>::default();
        let budget_thresholds = Family::<ThresholdLabels, Counter>::default();
        let registrations = Family::<OutcomeLabels, Counter>::default();
        let gauges = Gauges::default();
        let mut registry = Registry::with_prefix("tenantry");
        registry.register("requests", "Inference requests by result", requests.clone());
        registry.register("rejections", "Inference requests refused by a limit", rejections.clone());
        registry.register(
            "device_charged_seconds",
            "Slot time charged by the scheduler: requests, loads and registrations",
            device_charged.clone(),
        );
        registry.register("request_duration_seconds", "From arrival to answer", request_duration.clone());
        registry.register("queue_wait_seconds", "From submission to dispatch", queue_wait.clone());
        registry.register("device_time_seconds", "Slot time, shared within a batch", device_time.clone());
        registry.register("batch_rows", "Rows of the batch a request ran in", batch_rows.clone());
        registry.register("cache_hits", "Requests answered with what was computed before", cache_hits.clone());
        registry.register("cache_misses", "Requests computed whose answer may be kept", cache_misses.clone());
        registry.register(
            "cache_evicted_bytes",
            "Kept answers removed to make room for newer ones of the same tenant",
            cache_evicted_bytes.clone(),
        );
        registry.register("cache_bytes", "Answers kept to be given again", gauges.cache_bytes.clone());
        registry.register("clear_bytes", "Decrypted files of models in memory, each once", gauges.clear_bytes.clone());
        registry.register(
            "budget_used_ratio",
            "What is used of a budget over its limit; of several deployments or keys the one nearest to its limit",
            budgets.clone(),
        );
        registry.register("budget_thresholds", "Thresholds of budgets that were told", budget_thresholds.clone());
        registry.register("registrations", "Finished registrations by outcome", registrations.clone());
        registry.register("workers", "Worker processes", gauges.workers.clone());
        registry.register("replicas", "Loaded versions", gauges.replicas.clone());
        registry.register("queued_tasks", "Tasks waiting for a slot", gauges.queued_tasks.clone());
        registry.register(
            "sequences",
            "Sequences that carry something from request to request",
            gauges.sequences.clone(),
        );
        registry.register("queued_bytes", "Tensor data waiting for a slot", gauges.queued_bytes.clone());
        registry.register("running_batches", "Batches running", gauges.running_batches.clone());
        registry.register("slots", "Batches that may run at the same time", gauges.slots.clone());
        registry.register("registering_versions", "Versions being registered", gauges.registering.clone());
        registry.register(
            "isolation_level",
            "What the barriers around workers amount to: 0 none, 1 confined, 2 isolated, 3 full",
            gauges.isolation_level.clone(),
        );
        registry.register(
            "isolation_minimum",
            "The least the configuration lets workers be started at, by the same numbers",
            gauges.isolation_minimum.clone(),
        );
        registry.register(
            "models_below_minimum",
            "Models that are not run because they or their owners demand more than is in force",
            gauges.models_below_minimum.clone(),
        );
        registry.register("barriers", "Barriers around workers: 1 in force, 0 missing", gauges.barriers.clone());
        registry.register("worker_deaths", "Workers that ended without being asked to", gauges.worker_deaths.clone());
        registry.register(
            "suspensions",
            "Times a batch was suspended in its middle for a reservation",
            gauges.suspensions.clone(),
        );
        registry.register("aborted_batches", "Batches ended before their end", gauges.aborted_batches.clone());
        registry.register(
            "dropped_records",
            "Lines of --record-arrivals and --record-decisions the disk was too slow for",
            gauges.dropped_records.clone(),
        );
        Self {
            registry,
            requests,
            rejections,
            device_charged,
            request_duration,
            queue_wait,
            device_time,
            batch_rows,
            cache_hits,
            cache_misses,
            cache_evicted_bytes,
            budgets,
            budget_thresholds,
            registrations,
            gauges,
            reading: Mutex::default(),
            flows: RwLock::default(),
            unresolved: RwLock::default(),
        }
    }

    /// The series of a tenant's requests to a model, both named by the server.
    pub(crate) fn flow(&self, tenant: TenantId, tenant_name: &str, model: &Arc<str>) -> Arc<FlowMetrics> {
        let key = (tenant, Arc::clone(model));
        if let Some(known) = self.flows.read().get(&key) {
            return Arc::clone(known);
        }
        let mut flows = self.flows.write();
        let labels = if flows.len() < MAX_FLOWS {
            FlowLabels { tenant: tenant_name.to_owned(), model: model.as_ref().to_owned() }
        } else {
            // The overflow pair itself is cheap to make again, so it takes no place in the table.
            return Arc::new(
                self.make_flow(FlowLabels { tenant: OVERFLOW_LABEL.to_owned(), model: OVERFLOW_LABEL.to_owned() }),
            );
        };
        Arc::clone(flows.entry(key).or_insert_with(|| Arc::new(self.make_flow(labels))))
    }

    /// The series of requests that reached no model: of a tenant, or of nobody known.
    pub(crate) fn unresolved(&self, tenant: Option<(TenantId, &str)>) -> Arc<FlowMetrics> {
        let key = tenant.map(|(id, _)| id);
        if let Some(known) = self.unresolved.read().get(&key) {
            return Arc::clone(known);
        }
        let mut unresolved = self.unresolved.write();
        let full = unresolved.len() >= MAX_FLOWS;
        let name = if full { OVERFLOW_LABEL } else { tenant.map_or("", |(_, name)| name) };
        let flow = Arc::new(self.make_flow(FlowLabels { tenant: name.to_owned(), model: String::new() }));
        if full { flow } else { Arc::clone(unresolved.entry(key).or_insert(flow)) }
    }

    /// Drops the series of tenants and models that are gone.
    pub(crate) fn retain(&self, known: impl Fn(TenantId, Option<&str>) -> bool) {
        let gone = |flow: &FlowMetrics| {
            for counter_code in codes() {
                self.requests.remove(&flow.request_labels(counter_code));
            }
            for reason in REASONS {
                self.rejections.remove(&flow.rejection_labels(reason));
            }
            self.request_duration.remove(&flow.labels);
            self.queue_wait.remove(&flow.labels);
            self.device_time.remove(&flow.labels);
            self.batch_rows.remove(&flow.labels);
            self.cache_hits.remove(&flow.labels);
            self.cache_misses.remove(&flow.labels);
        };
        self.flows.write().retain(|(tenant, model), flow| {
            let keep = known(*tenant, Some(model));
            if !keep {
                gone(flow);
            }
            keep
        });
        self.unresolved.write().retain(|tenant, flow| {
            let keep = tenant.is_none_or(|tenant| known(tenant, None));
            if !keep {
                gone(flow);
            }
            keep
        });
    }

    /// What the scheduler has charged a tenant since the start.
    pub(crate) fn charged(&self, tenant: &str, total: Duration) {
        let counter = self.device_charged.get_or_create_owned(&TenantLabels { tenant: tenant.to_owned() });
        let more = total.as_secs_f64() - counter.get();
        if more > 0.0 {
            counter.inc_by(more);
        }
    }

    /// Bytes of a tenant's kept answers made room for newer ones.
    pub(crate) fn cache_evicted(&self, tenant: &str, bytes: u64) {
        self.cache_evicted_bytes.get_or_create_owned(&TenantLabels { tenant: tenant.to_owned() }).inc_by(bytes);
    }

    /// Drops the series of a tenant that is gone.
    pub(crate) fn forget_tenant(&self, tenant: &str) {
        let labels = TenantLabels { tenant: tenant.to_owned() };
        self.device_charged.remove(&labels);
        self.cache_evicted_bytes.remove(&labels);
        for meter in BudgetMeter::ALL {
            self.budget_thresholds.remove(&ThresholdLabels { tenant: tenant.to_owned(), meter: meter.as_str() });
        }
    }

    /// Forgets what was used of budgets, before it is said anew.
    pub(crate) fn clear_budgets(&self) {
        self.budgets.clear();
    }

    /// What is used of a budget; of several with the same labels the highest stays.
    pub(crate) fn budget_used(
        &self,
        tenant: &str,
        scope: &'static str,
        meter: &'static str,
        period: &'static str,
        ratio: f64,
    ) {
        let gauge = self.budgets.get_or_create_owned(&BudgetLabels { tenant: tenant.to_owned(), scope, meter, period });
        gauge.set(gauge.get().max(ratio));
    }

    /// A threshold of a tenant's budget was told.
    pub(crate) fn budget_threshold(&self, tenant: &str, meter: &'static str) {
        self.budget_thresholds.get_or_create_owned(&ThresholdLabels { tenant: tenant.to_owned(), meter }).inc();
    }

    pub(crate) fn registered(&self, outcome: &'static str) {
        self.registrations.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        text
    }

    fn make_flow(&self, labels: FlowLabels) -> FlowMetrics {
        FlowMetrics {
            requests: self.requests.clone(),
            rejections: self.rejections.clone(),
            by_reason: Default::default(),
            by_code: Default::default(),
            duration: self.request_duration.get_or_create_owned(&labels),
            queue_wait: self.queue_wait.get_or_create_owned(&labels),
            device_time: self.device_time.get_or_create_owned(&labels),
            batch_rows: self.batch_rows.get_or_create_owned(&labels),
            cache_hits: self.cache_hits.clone(),
            cache_misses: self.cache_misses.clone(),
            looked_up: Default::default(),
            labels,
        }
    }
}

impl FlowMetrics {
    /// One request ended with `code` (`None`: answered) after `duration`.
    pub(crate) fn ended(&self, code: Option<ErrorCode>, duration: Duration) {
        let position = code.map_or(ErrorCode::ALL.len(), |code| code as usize);
        if let Some(counter) = self.by_code.get(position) {
            counter.get_or_init(|| self.requests.get_or_create_owned(&self.request_labels(code))).inc();
        }
        self.duration.observe(duration.as_secs_f64());
    }

    /// One request was refused for `reason`, a word of [`REASONS`].
    pub(crate) fn rejected(&self, reason: &'static str) {
        let counter = REASONS.iter().position(|known| *known == reason).and_then(|index| self.by_reason.get(index));
        if let Some(counter) = counter {
            counter.get_or_init(|| self.rejections.get_or_create_owned(&self.rejection_labels(reason))).inc();
        }
    }

    /// One request ran: how long it waited, its share of slot time, and the rows of its batch.
    pub(crate) fn ran(&self, queue_wait: Duration, device_time: Duration, batch_rows: u32) {
        self.queue_wait.observe(queue_wait.as_secs_f64());
        self.device_time.inc_by(device_time.as_secs_f64());
        self.batch_rows.observe(f64::from(batch_rows));
    }

    /// One request's answer was looked up among those that are kept.
    pub(crate) fn looked_up(&self, found: bool) {
        let [hits, misses] = &self.looked_up;
        let (counter, family) = if found { (hits, &self.cache_hits) } else { (misses, &self.cache_misses) };
        counter.get_or_init(|| family.get_or_create_owned(&self.labels)).inc();
    }

    /// Slot time of work that is no request: a registration.
    pub(crate) fn used(&self, device_time: Duration) {
        self.device_time.inc_by(device_time.as_secs_f64());
    }

    fn rejection_labels(&self, reason: &'static str) -> RejectionLabels {
        RejectionLabels { tenant: self.labels.tenant.clone(), model: self.labels.model.clone(), reason }
    }

    fn request_labels(&self, code: Option<ErrorCode>) -> RequestLabels {
        RequestLabels {
            tenant: self.labels.tenant.clone(),
            model: self.labels.model.clone(),
            code: code.map_or("ok", ErrorCode::as_str),
        }
    }
}

fn codes() -> impl Iterator<Item = Option<ErrorCode>> {
    ErrorCode::ALL.into_iter().map(Some).chain([None])
}

#[cfg(test)]
mod tests;
