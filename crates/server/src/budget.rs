//! Budgets on the path of a request: held before it runs, settled with what was measured, and told when thresholds are reached.
//!
//! What may begin is decided by the crate `bill`; here it meets the clock, the ledger and the callers. A tenant without budgets
//! costs a request one look into a table without a lock. What an attempt holds travels with its usage record
//! ([`crate::meter::Account`]), so that what is settled is what is recorded, and a request that is dropped gives back what it held.
//!
//! Counts live in memory. When limits come into force, what their period has used already is taken from the ledger; an attempt
//! that is running at that moment and was not held to the limit is not counted by it until the next start.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tenantry_bill::period::BudgetPeriod;
use tenantry_bill::{
    Amounts, BudgetLimit, BudgetMeter, BudgetScope, Budgets, Crossed, Currency, LimitKey, PriceBook, Quantities, Rates,
    Refused, RefusedFor, Remaining, Reservation, Subject,
};
use tenantry_store::{AuditActor, AuditEntry, BudgetRecord, ReadError, Thing};
use tenantry_types::model::TOKEN_COUNT;
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{Outcome, UsageKind, Used};
use tenantry_types::{DeploymentId, ErrorCode, Inputs, KeyId, ServiceError, TenantId};
use tokio::sync::Notify;

use crate::limits::reason;
use crate::routing::Servable;
use crate::server::unix_ms;
use crate::{Principal, Server};

/// When what stands in the way of what runs may have settled for less.
const RUNNING_RETRY: Duration = Duration::from_secs(1);
/// When the next try comes to tell thresholds that the store did not take.
const TELL_RETRY: Duration = Duration::from_secs(1);
/// The most thresholds that wait to be told. More are left to the next start, which finds them untold.
const MAX_UNTOLD: usize = 10_000;

/// The budgets of all tenants that have some.
#[derive(Debug, Default)]
pub(crate) struct BudgetBook {
    by_tenant: ArcSwap<HashMap<TenantId, Arc<TenantBudget>>>,
    /// Held by whoever changes limits or prices, from reading them to bringing them into force.
    pub(crate) changing: tokio::sync::Mutex<()>,
    untold: Arc<Untold>,
}

/// One tenant's.
#[derive(Debug)]
pub(crate) struct TenantBudget {
    tenant: TenantId,
    budgets: Mutex<Budgets>,
    /// What money is counted by; none where no limit is on money.
    priced: ArcSwapOption<Priced>,
    untold: Arc<Untold>,
}

#[derive(Debug)]
struct Priced {
    currency: Currency,
    prices: PriceBook,
}

/// Thresholds that were reached and are to be told.
#[derive(Debug, Default)]
struct Untold {
    reached: Mutex<Vec<(TenantId, Crossed)>>,
    some: Notify,
}

/// What an attempt holds of its tenant's budgets. Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<TenantBudget>,
    reservation: Option<Reservation>,
    rates: Option<Rates>,
}

/// The budgets that apply to a caller.
#[derive(Debug, Clone)]
pub struct BudgetView {
    budget: Arc<TenantBudget>,
    subject: Subject,
}

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetState {
    /// Of what.
    pub meter: BudgetMeter,
    /// In which time.
    pub period: BudgetPeriod,
    /// How much may be used: requests, nanoseconds, tokens or nanos of a currency.
    pub limit: u64,
    /// How much of it is neither used nor held by what runs.
    pub remaining: u64,
    /// Until all of it may be used again.
    pub reset: Duration,
}

/// What a caller may know of his budgets from one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetsLeft {
    /// The limit of which the least is left in proportion.
    pub nearest: BudgetState,
    /// The limit on tokens of which the least is left.
    pub tokens: Option<BudgetState>,
}

impl BudgetBook {
    /// A tenant's budgets, if it has some.
    pub(crate) fn of(&self, tenant: TenantId) -> Option<Arc<TenantBudget>> {
        let by_tenant = self.by_tenant.load();
        if by_tenant.is_empty() {
            return None;
        }
        by_tenant.get(&tenant).cloned()
    }

    /// Forgets tenants that are gone.
    pub(crate) fn retain(&self, is_known: impl Fn(TenantId) -> bool) {
        if self.by_tenant.load().keys().all(|tenant| is_known(*tenant)) {
            return;
        }
        self.by_tenant.rcu(|known| {
            let mut next = HashMap::clone(known);
            next.retain(|tenant, _| is_known(*tenant));
            next
        });
    }

    /// Calls `visit` with every limit there is and what is left of it.
    pub(crate) fn each(&self, now_ms: i64, mut visit: impl FnMut(TenantId, &BudgetLimit, &Remaining)) {
        for (tenant, budget) in self.by_tenant.load().iter() {
            let budgets = budget.budgets.lock();
            budgets.all(now_ms).for_each(|(limit, left)| visit(*tenant, limit, &left));
        }
    }

    fn put(&self, tenant: TenantId, budget: Option<&Arc<TenantBudget>>) {
        self.by_tenant.rcu(|known| {
            let mut next = HashMap::clone(known);
            match budget {
                Some(budget) => next.insert(tenant, Arc::clone(budget)),
                None => next.remove(&tenant),
            };
            next
        });
    }
}

impl Untold {
    fn add(&self, tenant: TenantId, crossed: Vec<Crossed>) {
        if crossed.is_empty() {
            return;
        }
        let mut reached = self.reached.lock();
        let room = MAX_UNTOLD.saturating_sub(reached.len());
        reached.extend(crossed.into_iter().take(room).map(|crossed| (tenant, crossed)));
        drop(reached);
        self.some.notify_one();
    }
}

impl TenantBudget {
    fn new(tenant: TenantId, untold: &Arc<Untold>) -> Self {
        Self { tenant, budgets: Mutex::default(), priced: ArcSwapOption::empty(), untold: Arc::clone(untold) }
    }

    /// All limits, and what is left of each.
    pub(crate) fn all(&self, now_ms: i64) -> Vec<(BudgetLimit, Remaining)> {
        let budgets = self.budgets.lock();
        budgets.all(now_ms).map(|(limit, left)| (limit.clone(), left)).collect()
    }

    /// Holds what an attempt is estimated to use; nothing is refused that is estimated to use nothing.
    ///
    /// # Errors
    /// What is in its way.
    pub(crate) fn hold(
        self: &Arc<Self>,
        now_ms: i64,
        subject: &Subject,
        tier: ShareTier,
        estimate: &Quantities,
    ) -> Result<Held, Refused> {
        let rates = self.rates(now_ms, tier);
        let mut amounts = amounts(estimate, rates.as_ref());
        if rates.is_some() && estimate.requests > 0 {
            // Not known to be nothing, however little the estimate costs.
            amounts.money_nano = amounts.money_nano.max(1);
        }
        let reservation = self.budgets.lock().reserve(now_ms, subject, amounts)?;
        Ok(Held { budget: Arc::clone(self), reservation: Some(reservation), rates })
    }

    /// What things cost now; nothing where no limit asks for it, or no plan says it in the limit's currency.
    fn rates(&self, now_ms: i64, tier: ShareTier) -> Option<Rates> {
        let priced = self.priced.load();
        let Priced { currency, prices } = &**priced.as_ref()?;
        let plan = prices.in_force(now_ms).filter(|plan| plan.currency() == *currency)?;
        Some(plan.rates(tier, None)).filter(|rates| *rates != Rates::default())
    }

    fn has(&self, limit: &BudgetLimit) -> bool {
        // Sums in another currency are no sums.
        self.budgets.lock().limits().any(|known| known.key == limit.key && known.currency == limit.currency)
    }

    fn left(&self, now_ms: i64, subject: &Subject) -> Option<BudgetsLeft> {
        let budgets = self.budgets.lock();
        let (nearest, tokens) = budgets.nearest(now_ms, subject, BudgetMeter::Tokens);
        Some(BudgetsLeft { nearest: state(&nearest?, now_ms), tokens: tokens.map(|left| state(&left, now_ms)) })
    }
}

impl Held {
    /// What is left of the budgets that it holds of, for whoever calls.
    pub(crate) fn view(&self, subject: Subject) -> BudgetView {
        BudgetView { budget: Arc::clone(&self.budget), subject }
    }

    /// Ends the attempt with what it used.
    pub(crate) fn settle(mut self, kind: UsageKind, outcome: Outcome, used: &Used) {
        let Some(reservation) = self.reservation.take() else { return };
        let used = amounts(&Quantities::of(kind, outcome, 1, used), self.rates.as_ref());
        let crossed = self.budget.budgets.lock().settle(reservation, used);
        self.budget.untold.add(self.budget.tenant, crossed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            self.budget.budgets.lock().release(reservation);
        }
    }
}

impl BudgetView {
    /// What is left now; nothing where every limit is only watched.
    pub fn left(&self) -> Option<BudgetsLeft> {
        self.budget.left(unix_ms(), &self.subject)
    }
}

impl Server {
    /// The budgets that apply to whatever a caller does, if there are some.
    pub fn budget_view(&self, tenant: TenantId, key: KeyId) -> Option<BudgetView> {
        let budget = self.budgets.of(tenant)?;
        Some(BudgetView { budget, subject: Subject { deployment: None, key: Some(key) } })
    }

    /// Holds what a request is estimated to use of its tenant's budgets; nothing where there are none.
    ///
    /// # Errors
    /// 429 where it does not fit.
    pub(crate) fn hold(
        &self,
        principal: &Principal,
        deployment: DeploymentId,
        tier: impl FnOnce() -> ShareTier,
        estimate: impl FnOnce() -> Quantities,
    ) -> Result<Option<Held>, ServiceError> {
        let Some(budget) = self.budgets.of(principal.tenant) else { return Ok(None) };
        let now_ms = unix_ms();
        let subject = Subject { deployment: Some(deployment), key: Some(principal.key) };
        budget.hold(now_ms, &subject, tier(), &estimate()).map(Some).map_err(|refused| refusal(&refused, now_ms))
    }

    /// Brings the stored limits into force. The books have everything that was recorded.
    pub(crate) async fn open_budgets(&self) -> Result<(), ReadError> {
        if self.ledger.is_none() {
            return Ok(());
        }
        let _alone = self.budgets.changing.lock().await;
        for record in self.store.budgets().await? {
            self.apply_budget(record).await?;
        }
        Ok(())
    }

    /// Brings a tenant's limits into force, with what the ledger says of those that are new. `changing` is held.
    pub(crate) async fn apply_budget(&self, record: BudgetRecord) -> Result<(), ReadError> {
        let BudgetRecord { tenant, limits, .. } = record;
        if limits.is_empty() {
            self.budgets.put(tenant, None);
            return Ok(());
        }
        let budget =
            self.budgets.of(tenant).unwrap_or_else(|| Arc::new(TenantBudget::new(tenant, &self.budgets.untold)));
        let priced = match limits.iter().find_map(|limit| limit.currency) {
            Some(currency) => Some(Arc::new(Priced { currency, prices: self.store.price_book(tenant).await? })),
            None => None,
        };
        let now_ms = unix_ms();
        let marks = self.store.budget_marks(tenant).await?;
        let mut used_before = Vec::new();
        for limit in limits.iter().filter(|limit| !budget.has(limit)) {
            let window = limit.key.period.window(now_ms);
            let used = self.store.used_in(tenant, limit.key.scope, window).await?;
            if !used.is_complete {
                tracing::warn!(%tenant, limit = %limit.key, "a budget begins with a part of what was used: there are too many records");
            }
            let mark = marks.iter().find(|mark| mark.key == limit.key && mark.window_ms == window.start_ms);
            used_before.push((limit.key, used.amounts.get(limit.key.meter), mark.map_or(0, |mark| mark.percent)));
        }
        let crossed: Vec<Crossed> = {
            let mut budgets = budget.budgets.lock();
            budgets.set_limits(limits).map_err(|_| ReadError::Damaged { thing: Thing::Budget, column: "limits" })?;
            let restored = used_before.into_iter();
            restored.flat_map(|(key, used, told)| budgets.restore(now_ms, key, used, told)).collect()
        };
        budget.priced.store(priced);
        self.budgets.put(tenant, Some(&budget));
        self.budgets.untold.add(tenant, crossed);
        Ok(())
    }

    /// Takes over prices that changed, where money is limited. `changing` is held.
    pub(crate) async fn reprice_budgets(&self) -> Result<(), ReadError> {
        for (tenant, budget) in self.budgets.by_tenant.load_full().iter() {
            let Some(before) = budget.priced.load_full() else { continue };
            let prices = self.store.price_book(*tenant).await?;
            budget.priced.store(Some(Arc::new(Priced { currency: before.currency, prices })));
        }
        Ok(())
    }

    /// Tells the thresholds that were reached: in the log, the audit trail and the metrics, each once. Answers whether it could.
    pub(crate) async fn tell_thresholds(&self) -> bool {
        let reached = std::mem::take(&mut *self.budgets.untold.reached.lock());
        let mut left = reached.into_iter();
        while let Some((tenant, crossed)) = left.next() {
            match self.store.mark_threshold(tenant, &crossed).await {
                Ok(true) => self.tell_threshold(tenant, &crossed).await,
                // Somebody told it before, or the tenant is gone.
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a budget's threshold is not told yet");
                    let mut waiting = self.budgets.untold.reached.lock();
                    waiting.push((tenant, crossed));
                    waiting.extend(left);
                    return false;
                }
            }
        }
        true
    }

    async fn tell_threshold(&self, tenant: TenantId, crossed: &Crossed) {
        let Crossed { key, window_ms, percent, used, limit } = crossed;
        let named = self.routing.load().tenants.get(&tenant).map(|tenant| Arc::clone(&tenant.name));
        if let Some(name) = named {
            tracing::warn!(tenant = %name, budget = %key, percent, used, limit, "a budget reached a threshold");
            self.metrics.budget_threshold(name.as_str(), key.meter.as_str());
        }
        let entry = AuditEntry {
            at_ms: unix_ms(),
            actor: AuditActor::Server,
            source: None,
            tenant: Some(tenant),
            action: "budget.threshold".to_owned(),
            object: key.to_string(),
            outcome: format!("{percent}%"),
            detail: format!("{used} of {limit} used in the {} from {}", key.period.as_str(), instant(*window_ms)),
        };
        if let Err(error) = self.store.append_audit(&[entry]).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a budget's threshold is not in the audit");
        }
    }

    /// Puts what is used of each budget into the metrics: of each tenant, meter and period the one nearest to its limit, so that
    /// there are no more series than twelve a tenant and kind.
    pub(crate) fn show_budgets(&self) {
        let routing = self.routing.load();
        self.metrics.clear_budgets();
        self.budgets.each(unix_ms(), |tenant, limit, left| {
            let Some(tenant) = routing.tenants.get(&tenant) else { return };
            let ratio = if limit.amount == 0 { 1.0 } else { left.used as f64 / limit.amount as f64 };
            let kind = match limit.key.scope {
                BudgetScope::Tenant => "tenant",
                BudgetScope::Deployment(_) => "deployment",
                BudgetScope::Key(_) => "key",
            };
            let LimitKey { meter, period, .. } = limit.key;
            self.metrics.budget_used(tenant.name.as_str(), kind, meter.as_str(), period.as_str(), ratio);
        });
    }
}

/// Tells thresholds as they are reached, for as long as the server runs.
pub(crate) async fn run(server: Arc<Server>) {
    loop {
        server.budgets.untold.some.notified().await;
        while !server.tell_thresholds().await {
            tokio::time::sleep(TELL_RETRY).await;
        }
    }
}

/// What a request to a version is estimated to use. What is not known is one: a limit on it applies.
pub(crate) fn estimate(inputs: &Inputs, servable: &Servable, bytes_in: u64) -> Quantities {
    let spec = &servable.spec;
    let rows = match inputs {
        Inputs::Named(tensors) if spec.can_batch => tensors.first().and_then(|tensor| tensor.shape.first()).copied(),
        Inputs::Named(_) | Inputs::Raw(_) => None,
    };
    // The rows are the caller's word, not checked yet; a run is ended at its limit whatever they are.
    let rows = u32::try_from(rows.unwrap_or(1)).unwrap_or(u32::MAX).max(1);
    let device = spec.cost.saturating_mul(rows).min(spec.run_limit);
    let counts_tokens = servable.outward.outputs.iter().any(|output| output.name == TOKEN_COUNT);
    Quantities {
        compute_ns: u64::try_from(device.as_nanos()).unwrap_or(u64::MAX).max(1),
        requests: 1,
        bytes_in,
        tokens_in: counts_tokens.into(),
        ..Quantities::default()
    }
}

fn amounts(used: &Quantities, rates: Option<&Rates>) -> Amounts {
    Amounts {
        requests: used.requests,
        device_ns: used.device_ns(),
        tokens: used.tokens(),
        money_nano: rates.map_or(0, |rates| rates.money_nano(used)),
    }
}

fn state(left: &Remaining, now_ms: i64) -> BudgetState {
    let LimitKey { meter, period, .. } = left.key;
    let reset = until(left.reset_at_ms, now_ms);
    BudgetState { meter, period, limit: left.limit, remaining: left.remaining, reset }
}

fn until(instant_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(instant_ms.saturating_sub(now_ms)).unwrap_or(0))
}

fn refusal(refused: &Refused, now_ms: i64) -> ServiceError {
    let LimitKey { scope, meter, period } = refused.key;
    let whose = match scope {
        BudgetScope::Tenant => "this tenant's",
        BudgetScope::Deployment(_) => "this tenant's deployment's",
        BudgetScope::Key(_) => "this key's",
    };
    let (what, reason) = match meter {
        BudgetMeter::Requests => ("requests", reason::BUDGET_REQUESTS),
        BudgetMeter::DeviceTime => ("device time", reason::BUDGET_DEVICE_TIME),
        BudgetMeter::Tokens => ("tokens", reason::BUDGET_TOKENS),
        BudgetMeter::Money => ("money", reason::BUDGET_MONEY),
    };
    let budget = format!("{whose} budget of {what} for the {}", period.as_str());
    let (text, after) = match refused.cause {
        RefusedFor::Running => (
            format!("what is running may use up what is left of {budget}; try again when some of it has ended"),
            Some(RUNNING_RETRY),
        ),
        RefusedFor::UsedUp => (
            format!("{budget} is used up; it begins anew at {}", instant(refused.reset_at_ms)),
            Some(until(refused.reset_at_ms, now_ms)),
        ),
        // No time makes it fit.
        RefusedFor::TooLarge => (format!("the request is estimated to use more than all of {budget}"), None),
    };
    let error = ServiceError::new(ErrorCode::ResourceExhausted, text).because(reason);
    ServiceError { retry_after: after, ..error }
}

fn instant(unix_ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0));
    let instant = UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH);
    humantime::format_rfc3339_seconds(instant).to_string()
}

#[cfg(test)]
mod tests;
