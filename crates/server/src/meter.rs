//! The meter: exactly one usage record for each attempt, on its way into the ledger before its answer leaves.
//!
//! An attempt is a request that was admitted and found a version that can be served, or a load. What ends before that costs no
//! device anything; it is counted in the metrics, and refused access in the audit trail.

use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;
use tenantry_bill::{Quantities, Subject};
use tenantry_node::{Cause, LoadFor, LoadMeters, Meter, Residence};
use tenantry_store::{Bookkeeper, Ledger, LedgerError, Opened};
use tenantry_types::model::TOKEN_COUNT;
use tenantry_types::share::ShareTier;
use tenantry_types::usage::{Attempted, DeviceTime, Outcome, UsageKind, Used};
use tenantry_types::{DataType, DeploymentId, ErrorCode, InferResponse, KeyId, RequestId, ServiceError};

use crate::budget::{Held, TenantBudget};
use crate::limits::reason;
use crate::routing::{RoutedModel, RoutedTenant, RoutedVersion, Routing};
use crate::server::unix_ms;
use crate::{Principal, Server};

/// When a request may be tried again that could not be recorded.
const UNRECORDED_RETRY: Duration = Duration::from_secs(1);

/// One attempt and what it has used so far. It is closed when its answer is about to leave; one that is not answered is closed
/// when nobody uses it any more, which may be long after its client has left.
#[derive(Debug)]
pub(crate) struct Account {
    ledger: Arc<Ledger>,
    sequence: u64,
    attempted: Attempted,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    opened: Option<Opened>,
    closed: bool,
    /// Until something else is known: its client has left.
    outcome: Outcome,
    duration: Option<Duration>,
    used: Used,
    /// What it holds of its tenant's budgets, until it is closed.
    held: Option<Held>,
}

/// An answered attempt that is to be closed before its answer leaves. Dropping it closes it, too, but then nobody learns of an
/// error.
#[derive(Debug)]
#[must_use = "an answer may leave only when its attempt is closed"]
pub struct Bill {
    account: Option<Arc<Account>>,
}

impl Bill {
    /// Of an answered request.
    pub(crate) fn of(
        account: Option<Arc<Account>>,
        outcome: Outcome,
        response: &InferResponse,
        queue_wait: Duration,
    ) -> Self {
        if let Some(account) = &account {
            let mut state = account.state.lock();
            state.outcome = outcome;
            state.used.queue_ns = nanos(queue_wait);
            if let Some(tokens) = Tokens::of(response) {
                state.used.tokens = tokens.read;
                let device = &mut state.used.device;
                let padding_ns = tokens.padding_of(device.compute_ns);
                device.compute_ns -= padding_ns;
                device.padding_ns = device.padding_ns.saturating_add(padding_ns);
            }
        }
        Self { account }
    }

    /// Closes the attempt with an answer of so many bytes.
    ///
    /// # Errors
    /// 503 where it cannot be recorded; then the answer must not leave.
    pub fn settle(self, bytes_out: u64) -> Result<(), ServiceError> {
        let Some(account) = self.account else { return Ok(()) };
        account.state.lock().used.bytes_out = bytes_out;
        account.close().map_err(|_| {
            // Nobody gets anything for it: not billed, whenever it is written.
            account.state.lock().outcome = Outcome::Interrupted;
            unrecorded()
        })
    }
}

impl Account {
    fn new(ledger: &Arc<Ledger>, attempted: Attempted, bytes_in: u64, held: Option<Held>) -> Arc<Self> {
        let used = Used { bytes_in, ..Used::nothing(Outcome::Cancelled) };
        let state = State { opened: None, closed: false, outcome: Outcome::Cancelled, duration: None, used, held };
        Arc::new(Self {
            ledger: Arc::clone(ledger),
            sequence: ledger.next_key().sequence,
            attempted,
            began: Instant::now(),
            state: Mutex::new(state),
        })
    }

    /// The record that follows on one of a residency.
    pub(crate) fn following(&self) -> Option<Arc<Self>> {
        let next = Self::new(&self.ledger, Attempted { admitted_ms: unix_ms(), ..self.attempted.clone() }, 0, None);
        if next.open() {
            return Some(next);
        }
        next.forget();
        None
    }

    /// How long it has been.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// A model was in so much memory all the time. Closes it.
    pub(crate) fn resided(&self, bytes: u64) {
        {
            let mut state = self.state.lock();
            let age = self.began.elapsed();
            let byte_ms = u128::from(bytes).saturating_mul(age.as_millis());
            state.used.resident_byte_seconds = u64::try_from(byte_ms / 1_000).unwrap_or(u64::MAX);
            (state.outcome, state.duration) = (Outcome::Ok, Some(age));
        }
        self.close_or_log();
    }

    /// Nothing came of it and nothing was used: there is no record, unless it was opened.
    pub(crate) fn forget(&self) {
        let mut state = self.state.lock();
        state.closed |= state.opened.is_none();
    }

    fn close_or_log(&self) {
        let Err(error) = self.close() else { return };
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "a usage record could not be closed; it is tried again"
        );
        let mut state = self.state.lock();
        if !std::mem::replace(&mut state.closed, true) {
            let used = self.used_by(&state);
            self.ledger.closes_later(self.sequence, state.opened, &self.attempted, &used, unix_ms());
            state.settle(self.attempted.kind, &used);
        }
    }

    /// How it ended, as far as its client is concerned.
    pub(crate) fn ended(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        state.outcome = outcome;
        state.duration.get_or_insert_with(|| self.began.elapsed());
    }

    fn close(&self) -> Result<(), LedgerError> {
        let mut state = self.state.lock();
        if state.closed {
            return Ok(());
        }
        let used = self.used_by(&state);
        self.ledger.closed(self.sequence, state.opened, &self.attempted, &used, unix_ms())?;
        state.closed = true;
        state.settle(self.attempted.kind, &used);
        Ok(())
    }

    fn used_by(&self, state: &State) -> Used {
        let duration = state.duration.unwrap_or_else(|| self.began.elapsed());
        Used { outcome: state.outcome, duration_ns: nanos(duration), ..state.used }
    }
}

impl State {
    /// Budgets count what the ledger has, and nothing else.
    fn settle(&mut self, kind: UsageKind, used: &Used) {
        if let Some(held) = self.held.take() {
            held.settle(kind, used.outcome, used);
        }
    }
}

impl Meter for Account {
    fn open(&self) -> bool {
        let mut state = self.state.lock();
        if state.opened.is_some() {
            return true;
        }
        match self.ledger.opened(self.sequence, &self.attempted) {
            Ok(opened) => {
                state.opened = Some(opened);
                true
            }
            Err(error) => unopened(&error),
        }
    }

    fn used(&self, cause: Cause, time: Duration, cpu: Duration) {
        let mut state = self.state.lock();
        let DeviceTime { compute_ns, load_ns, aborted_ns, .. } = &mut state.used.device;
        let counter = match cause {
            Cause::Compute => Some(compute_ns),
            Cause::Load => Some(load_ns),
            Cause::Aborted => Some(aborted_ns),
            // Beside the slots: no device time.
            Cause::Registration => None,
        };
        if let Some(counter) = counter {
            *counter = counter.saturating_add(nanos(time));
        }
        state.used.cpu_ns = state.used.cpu_ns.saturating_add(nanos(cpu));
        if self.attempted.kind == UsageKind::Load {
            state.outcome = if cause == Cause::Load { Outcome::Ok } else { Outcome::Failed };
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.close_or_log();
    }
}

impl Server {
    /// Begins the record of a request.
    pub(crate) fn account(
        &self,
        principal: &Principal,
        model: &RoutedModel,
        version: &RoutedVersion,
        request: RequestId,
        bytes_in: u64,
        held: Option<Held>,
    ) -> Option<Arc<Account>> {
        let ledger = self.ledger.as_ref()?;
        let attempted = Attempted {
            kind: UsageKind::Inference,
            tenant: principal.tenant,
            key: Some(principal.key),
            deployment: Some(model.deployment.id),
            model: Arc::clone(&model.full_name),
            version: version.id,
            version_number: version.number,
            tier: tier(principal.routed(), Some(model.deployment.id), principal.share_key()),
            request: Some(request),
            admitted_ms: unix_ms(),
        };
        Some(Account::new(ledger, attempted, bytes_in, held))
    }

    /// Carries the log into the books, and syncs it, as long as the server lives.
    pub(crate) async fn keep_books(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.limits.ledger_sync).await;
            self.residences.follow_on();
            self.sync_ledger(false).await;
        }
    }

    /// Syncs the log, with what the slots have done by now, and brings the books up to it. `last`: nothing comes after it.
    pub(crate) async fn sync_ledger(&self, last: bool) {
        let Some(ledger) = &self.ledger else { return };
        if let Err(error) = ledger.slots(unix_ms(), self.node.slot_time(), last) {
            tracing::error!(error = &error as &dyn std::error::Error, "the usage ledger cannot be written");
        }
        let mut books = self.books.lock().await;
        let Some(books) = books.as_mut() else { return };
        match books.carry().await {
            Ok(carried) => {
                if carried.interrupted > 0 || carried.torn > 0 {
                    tracing::warn!(
                        interrupted = carried.interrupted,
                        torn_files = carried.torn,
                        "an earlier start ended before these attempts did; they are not billed"
                    );
                }
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "usage waits to come into the database; trying again"
                );
            }
        }
    }
}

/// The log and its books.
pub(crate) fn open(
    settings: &crate::ServerConfig,
    store: &tenantry_store::Store,
) -> Result<(Option<Arc<Ledger>>, Option<Bookkeeper>), LedgerError> {
    if !settings.limits.ledger {
        return Ok((None, None));
    }
    let ledger = Arc::new(Ledger::open(&settings.data_dir.join("ledger"), unix_ms())?);
    let books = Bookkeeper::new(Arc::clone(&ledger), store.clone());
    Ok((Some(ledger), Some(books)))
}

/// Makes the meters of loads.
#[derive(Debug)]
pub(crate) struct Loads(pub(crate) Weak<Server>);

impl LoadMeters for Loads {
    /// One write for all of them.
    fn open(&self, together: &[&dyn Meter]) -> bool {
        let accounts = || together.iter().filter_map(|meter| (*meter as &dyn Any).downcast_ref::<Account>());
        let new: SmallVec<[&Account; 32]> =
            accounts().filter(|account| account.state.lock().opened.is_none()).collect();
        let Some(first) = new.first() else { return true };
        match first.ledger.opened_together(new.iter().map(|account| (account.sequence, &account.attempted))) {
            Ok(opened) => {
                new.iter().for_each(|account| account.state.lock().opened = Some(opened));
                true
            }
            Err(error) => unopened(&error),
        }
    }

    fn load(&self, load: LoadFor) -> Option<Arc<dyn Meter>> {
        Some(self.0.upgrade()?.account_of(UsageKind::Load, &load)?)
    }

    fn residence(&self, load: LoadFor, bytes: u64) -> Option<Box<dyn Residence>> {
        let server = self.0.upgrade()?;
        let account = server.account_of(UsageKind::Residency, &load)?;
        Some(Box::new(server.residences.begin(account, bytes)))
    }
}

impl Server {
    /// Begins the record of what is done for a tenant without a request of its own.
    pub(crate) fn account_of(&self, kind: UsageKind, load: &LoadFor) -> Option<Arc<Account>> {
        let ledger = self.ledger.as_ref()?;
        let routing = self.routing.load();
        // Such things are rare.
        let (model, version) = find(&routing, load)?;
        let attempted = Attempted {
            kind,
            tenant: load.tenant,
            key: load.key,
            deployment: load.deployment,
            model: Arc::clone(&model.full_name),
            version: load.version,
            version_number: version.number,
            tier: routing
                .tenants
                .get(&load.tenant)
                .map_or(ShareTier::default(), |tenant| tier(tenant, load.deployment, load.key)),
            request: None,
            admitted_ms: unix_ms(),
        };
        // It is asked for by a request that was let in, by a deployment, or by who registered a version; it is counted, and never
        // refused. Memory is on the bill, and in no budget.
        if kind == UsageKind::Residency {
            return Some(Account::new(ledger, attempted, 0, None));
        }
        let subject = Subject { deployment: load.deployment, key: load.key };
        let nothing = Quantities::default();
        let hold =
            |budget: Arc<TenantBudget>| budget.hold(attempted.admitted_ms, &subject, attempted.tier, &nothing).ok();
        let held = self.budgets.of(load.tenant).and_then(hold);
        Some(Account::new(ledger, attempted, 0, held))
    }
}

fn find<'a>(routing: &'a Routing, load: &LoadFor) -> Option<(&'a RoutedModel, &'a RoutedVersion)> {
    routing.models().find_map(|model| {
        let version = model.versions.values().find(|version| version.id == load.version)?;
        Some((&**model, &**version))
    })
}

/// What a request with this key to this deployment was promised: the nearest that says something.
pub(crate) fn tier(tenant: &RoutedTenant, deployment: Option<DeploymentId>, key: Option<KeyId>) -> ShareTier {
    let of_key = key.and_then(|key| tenant.keys.get(&key)?.record.settings.tier);
    let of_deployment = || deployment.and_then(|deployment| tenant.deployments.get(&deployment)?.record.settings.tier);
    let of_tenant = || tenant.share.as_ref().and_then(|share| share.settings.tier);
    of_key.or_else(of_deployment).or_else(of_tenant).unwrap_or_default()
}

pub(crate) fn unrecorded() -> ServiceError {
    ServiceError::new(
        ErrorCode::Unavailable,
        "the server cannot record usage, and nothing runs unrecorded; try again later",
    )
    .because(reason::LEDGER)
    .retry_after(UNRECORDED_RETRY)
}

/// What a model says of the tokens it read, if it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tokens {
    /// Tokens of all texts.
    read: u64,
    /// Those of as many texts as long as the longest: rows of a tensor are of one length.
    computed: u64,
}

impl Tokens {
    fn of(response: &InferResponse) -> Option<Self> {
        let counts =
            response.outputs.iter().find(|tensor| tensor.name == TOKEN_COUNT && tensor.datatype == DataType::Int64)?;
        let bytes = counts.data.to_contiguous();
        let (counts, _) = bytes.as_chunks::<8>();
        let counts = || counts.iter().map(|count| u64::try_from(i64::from_le_bytes(*count)).unwrap_or(0));
        let rows = u64::try_from(counts().len()).unwrap_or(u64::MAX);
        let longest = counts().max().unwrap_or(0);
        Some(Self { read: counts().fold(0, u64::saturating_add), computed: rows.saturating_mul(longest) })
    }

    /// The part of this time that was spent on padding.
    fn padding_of(self, compute_ns: u64) -> u64 {
        let padded = u128::from(self.computed.saturating_sub(self.read));
        let part = u128::from(compute_ns).saturating_mul(padded).checked_div(u128::from(self.computed));
        part.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0)
    }
}

fn unopened(error: &LedgerError) -> bool {
    tracing::error!(error = error as &dyn std::error::Error, "usage cannot be recorded; a request is refused");
    false
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_computed_for_shorter_texts_is_padding() {
        // Rows of 10, 4 and 1 tokens in a tensor of three times ten.
        let tokens = Tokens { read: 15, computed: 30 };
        assert_eq!(
            (tokens.padding_of(1_000), tokens.padding_of(0), tokens.padding_of(u64::MAX)),
            (500, 0, u64::MAX / 2)
        );
        for tokens in
            [Tokens { read: 7, computed: 7 }, Tokens { read: 0, computed: 0 }, Tokens { read: 9, computed: 8 }]
        {
            assert_eq!(tokens.padding_of(1_000), 0);
        }
    }
}
