//! Limits by period on what a tenant may use, kept while requests run: reserve, debit, settle. README.md has the argument.
//!
//! One [`Budgets`] is one tenant's. It reads no clock and is told everything: [`Budgets::reserve`] before an attempt,
//! [`Budgets::settle`] or [`Budgets::release`] behind it, exactly one of them. What it counted is lost with it; the ledger is the
//! truth, and [`Budgets::restore`] takes over what it says.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tenantry_types::{DeploymentId, KeyId};

use crate::money::Currency;
use crate::period::{BudgetPeriod, Window};

/// The most limits of one tenant, those of its deployments and keys included.
pub const MAX_LIMITS: usize = 1_000;
/// The most thresholds of one limit.
pub const MAX_THRESHOLDS: usize = 8;
/// The highest threshold, percent: an open limit may be used several times over.
pub const MAX_THRESHOLD_PERCENT: u16 = 1_000;
/// The thresholds of a limit that names none, percent.
pub const DEFAULT_THRESHOLDS: [u16; 3] = [50, 80, 100];

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetMeter {
    /// Requests that were answered.
    Requests,
    /// Device time of all causes, nanoseconds.
    DeviceTime,
    /// Tokens read and written.
    Tokens,
    /// What it costs, nanos of a currency.
    Money,
}

/// Whose use is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// All of the tenant.
    Tenant,
    /// What goes to one deployment.
    Deployment(DeploymentId),
    /// What comes with one key.
    Key(KeyId),
}

/// What is done where a limit is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Nothing begins that does not fit beside what is used and what is reserved.
    #[default]
    Hard,
    /// Nothing begins that does not fit beside what is used. What is running may yet use less than it reserved, and is not held
    /// against anybody; all of it may come on top.
    Soft,
    /// Everything begins; the thresholds are told.
    Watch,
}

/// What a limit is on: there is one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LimitKey {
    /// Whose use.
    pub scope: BudgetScope,
    /// Of what.
    pub meter: BudgetMeter,
    /// In which time.
    pub period: BudgetPeriod,
}

/// A limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetLimit {
    /// On what.
    #[serde(flatten)]
    pub key: LimitKey,
    /// How much: requests, nanoseconds, tokens or nanos.
    pub amount: u64,
    /// What is done where it is met.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// Of money: in which currency. It has to be the price plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<Currency>,
    /// When to tell, in percent of the amount that are used; ascending.
    #[serde(default = "default_thresholds")]
    pub thresholds_percent: Vec<u16>,
    /// Whether the platform set it: then nobody else changes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub platform: bool,
}

/// Text that names no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no limit: expected a meter and a period, and an id if it is a deployment's or key's, as in `requests.month`")]
pub struct UnknownLimit;

/// Limits that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// More than [`MAX_LIMITS`].
    #[error("more than {MAX_LIMITS} limits")]
    TooMany,
    /// The same thing has two limits.
    #[error("two limits of the same scope, meter and period")]
    Two(LimitKey),
    /// Money without a currency, or something else with one.
    #[error("a limit on money names its currency, and no other does")]
    Currency(LimitKey),
    /// Thresholds out of order or out of bounds.
    #[error("thresholds are at most {MAX_THRESHOLDS} ascending numbers from 1 to {MAX_THRESHOLD_PERCENT}, percent")]
    Thresholds(LimitKey),
}

/// Amounts of everything that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts {
    /// Requests.
    pub requests: u64,
    /// Device time, nanoseconds.
    pub device_ns: u64,
    /// Tokens.
    pub tokens: u64,
    /// Money, nanos: [`crate::Rates::money_nano`].
    pub money_nano: u64,
}

/// What an attempt belongs to, beside its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Subject {
    /// The deployment it goes to.
    pub deployment: Option<DeploymentId>,
    /// The key it came with.
    pub key: Option<KeyId>,
}

/// Why an attempt may not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusedFor {
    /// It does not fit beside what is running, and would if nothing were. What is running may use less than it reserved: trying
    /// again soon is worth it.
    Running,
    /// It does not fit beside what is used: not before the period ends.
    UsedUp,
    /// It is estimated to need more than the limit of a whole period: never.
    TooLarge,
}

/// The limit that stands longest in an attempt's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {} limit of the {} is reached", self.key.meter.as_str(), self.key.period.as_str())]
pub struct Refused {
    /// Which.
    pub key: LimitKey,
    /// Why.
    pub cause: RefusedFor,
    /// How much may be used.
    pub limit: u64,
    /// How much is. As far as it can be written down.
    pub used: u64,
    /// How much more what is running has reserved.
    pub reserved: u64,
    /// How much the attempt was estimated to use.
    pub estimate: u64,
    /// When the period ends, milliseconds since the Unix epoch.
    pub reset_at_ms: i64,
}

/// What an attempt has reserved. It must come back, through [`Budgets::settle`] or [`Budgets::release`]; what does not stays
/// reserved until its period is over.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what is not settled or released stays reserved"]
pub struct Reservation {
    holds: Vec<Hold>,
    left: Amounts,
    debited: Amounts,
}

/// Where something is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    key: LimitKey,
    generation: u64,
    window_ms: i64,
}

/// A threshold that was crossed. It is told once in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Crossed {
    /// Of which limit.
    pub key: LimitKey,
    /// When the period began that this is about, milliseconds since the Unix epoch.
    pub window_ms: i64,
    /// The threshold.
    pub percent: u16,
    /// How much is used. As far as it can be written down.
    pub used: u64,
    /// How much may be.
    pub limit: u64,
}

/// What is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Of which.
    pub key: LimitKey,
    /// How much may be used.
    pub limit: u64,
    /// How much is.
    pub used: u64,
    /// How much more what is running has reserved.
    pub reserved: u64,
    /// What is neither used nor reserved.
    pub remaining: u64,
    /// When the period ends, milliseconds since the Unix epoch.
    pub reset_at_ms: i64,
}

/// The budgets of one tenant.
#[derive(Debug, Default)]
pub struct Budgets {
    counters: BTreeMap<LimitKey, Counter>,
    generation: u64,
}

#[derive(Debug)]
struct Counter {
    limit: BudgetLimit,
    /// Tells a limit from one of the same key that was there before it.
    generation: u64,
    /// The current period. It never goes back, whatever the clock does.
    current: Window,
    /// By when they began: the current one, and earlier ones in which something that began in them still runs.
    windows: BTreeMap<i64, Counted>,
}

/// Sums of numbers of 64 bits, so that they cannot overflow.
#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    used: u128,
    reserved: u128,
    running: u64,
    /// The highest threshold that was told.
    told_percent: u16,
}

impl BudgetMeter {
    /// All.
    pub const ALL: [Self; 4] = [Self::Requests, Self::DeviceTime, Self::Tokens, Self::Money];

    /// Its word, the same as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::DeviceTime => "device_time",
            Self::Tokens => "tokens",
            Self::Money => "money",
        }
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.meter.as_str(), self.period.as_str())?;
        match self.scope {
            BudgetScope::Tenant => Ok(()),
            BudgetScope::Deployment(deployment) => write!(f, ".{deployment}"),
            BudgetScope::Key(key) => write!(f, ".{key}"),
        }
    }
}

impl FromStr for LimitKey {
    type Err = UnknownLimit;
    fn from_str(text: &str) -> Result<Self, UnknownLimit> {
        let mut words = text.splitn(3, '.');
        let (meter, period, id) = (words.next(), words.next(), words.next());
        let meter = BudgetMeter::ALL.into_iter().find(|known| Some(known.as_str()) == meter);
        let period = BudgetPeriod::ALL.into_iter().find(|known| Some(known.as_str()) == period);
        let of_id = |id: &str| {
            let deployment = id.parse().ok().map(BudgetScope::Deployment);
            deployment.or_else(|| id.parse().ok().map(BudgetScope::Key))
        };
        let scope = id.map_or(Some(BudgetScope::Tenant), of_id);
        match (scope, meter, period) {
            (Some(scope), Some(meter), Some(period)) => Ok(Self { scope, meter, period }),
            _ => Err(UnknownLimit),
        }
    }
}

impl Amounts {
    /// Nothing.
    pub const ZERO: Self = Self { requests: 0, device_ns: 0, tokens: 0, money_nano: 0 };

    /// How much of one.
    pub const fn get(&self, meter: BudgetMeter) -> u64 {
        match meter {
            BudgetMeter::Requests => self.requests,
            BudgetMeter::DeviceTime => self.device_ns,
            BudgetMeter::Tokens => self.tokens,
            BudgetMeter::Money => self.money_nano,
        }
    }

    fn each(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            requests: combine(self.requests, other.requests),
            device_ns: combine(self.device_ns, other.device_ns),
            tokens: combine(self.tokens, other.tokens),
            money_nano: combine(self.money_nano, other.money_nano),
        }
    }
}

impl BudgetLimit {
    /// # Errors
    /// [`LimitError`] says which rule it breaks.
    pub fn check(&self) -> Result<(), LimitError> {
        if (self.key.meter == BudgetMeter::Money) != self.currency.is_some() {
            return Err(LimitError::Currency(self.key));
        }
        let thresholds = &self.thresholds_percent;
        let ascend = thresholds.iter().zip(thresholds.iter().skip(1)).all(|(one, next)| one < next);
        let are_bounded = thresholds.iter().all(|percent| (1..=MAX_THRESHOLD_PERCENT).contains(percent));
        if thresholds.len() > MAX_THRESHOLDS || !ascend || !are_bounded {
            return Err(LimitError::Thresholds(self.key));
        }
        Ok(())
    }
}

impl Subject {
    fn scopes(&self) -> impl Iterator<Item = BudgetScope> {
        let deployment = self.deployment.map(BudgetScope::Deployment);
        let key = self.key.map(BudgetScope::Key);
        [Some(BudgetScope::Tenant), deployment, key].into_iter().flatten()
    }
}

impl Reservation {
    /// Whether nothing is held: no limit applies.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }
}

impl Budgets {
    /// Without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the limits. What is known of those that stay is kept, also what was told of them. The answer names those that are
    /// new: nothing is known of them until [`Budgets::restore`].
    ///
    /// # Errors
    /// [`LimitError`]; then all is as before.
    pub fn set_limits(&mut self, limits: Vec<BudgetLimit>) -> Result<Vec<LimitKey>, LimitError> {
        if limits.len() > MAX_LIMITS {
            return Err(LimitError::TooMany);
        }
        let mut wanted = BTreeMap::new();
        for limit in limits {
            limit.check()?;
            let key = limit.key;
            if wanted.insert(key, limit).is_some() {
                return Err(LimitError::Two(key));
            }
        }
        self.counters.retain(|key, _| wanted.contains_key(key));
        let mut new = Vec::new();
        for (key, limit) in wanted {
            match self.counters.get_mut(&key) {
                // Sums in another currency are no sums.
                Some(counter) if counter.limit.currency == limit.currency => counter.limit = limit,
                _ => {
                    self.generation = self.generation.saturating_add(1);
                    self.counters.insert(key, Counter::new(limit, self.generation));
                    new.push(key);
                }
            }
        }
        Ok(new)
    }

    /// Takes over what the ledger says was used in the period that `now_ms` is in, beside what has been counted here. Once for each
    /// limit that is new, before or while it is used. `told_percent`: the highest threshold that was told of that period.
    ///
    /// Answers the thresholds that are crossed and were not told.
    pub fn restore(&mut self, now_ms: i64, key: LimitKey, used: u64, told_percent: u16) -> Vec<Crossed> {
        let mut crossed = Vec::new();
        if let Some(counter) = self.counters.get_mut(&key) {
            let window_ms = counter.roll(now_ms);
            let counted = counter.windows.entry(window_ms).or_default();
            counted.used = counted.used.saturating_add(u128::from(used));
            counted.told_percent = counted.told_percent.max(told_percent);
            counter.tell(window_ms, &mut crossed);
        }
        crossed
    }

    /// Reserves what an attempt is estimated to use, in all limits that apply to it or in none.
    ///
    /// An estimate of 0 says that nothing of this will be used, and no limit on it applies; whoever does not know says 1. What is
    /// used of it nevertheless is counted.
    ///
    /// # Errors
    /// [`Refused`]: the limit that stands longest in its way. Where no limit has `used + reserved + estimate` beyond its amount,
    /// there is no refusal.
    pub fn reserve(&mut self, now_ms: i64, subject: &Subject, estimate: Amounts) -> Result<Reservation, Refused> {
        let mut refused: Option<Refused> = None;
        let mut holds = Vec::new();
        for scope in subject.scopes() {
            for (key, counter) in of_scope_mut(&mut self.counters, scope) {
                let window_ms = counter.roll(now_ms);
                holds.push(Hold { key: *key, generation: counter.generation, window_ms });
                let Some(found) = counter.refuse(estimate.get(key.meter)) else { continue };
                if refused.is_none_or(|worst| (worst.cause, worst.reset_at_ms) < (found.cause, found.reset_at_ms)) {
                    refused = Some(found);
                }
            }
        }
        if let Some(refused) = refused {
            return Err(refused);
        }
        for hold in &holds {
            if let Some(counted) = self.counted(hold) {
                counted.reserved = counted.reserved.saturating_add(u128::from(estimate.get(hold.key.meter)));
                counted.running = counted.running.saturating_add(1);
            }
        }
        Ok(Reservation { holds, left: estimate, debited: Amounts::ZERO })
    }

    /// Says that so much more has been used, while the attempt goes on: it is used now, and so much less is reserved. For what runs
    /// long; what is short is only settled.
    pub fn debit(&mut self, reservation: &mut Reservation, used: Amounts) -> Vec<Crossed> {
        let mut crossed = Vec::new();
        let left = reservation.left.each(used, u64::saturating_sub);
        for hold in &reservation.holds {
            let meter = hold.key.meter;
            if let Some(counted) = self.counted(hold) {
                let freed = reservation.left.get(meter).saturating_sub(left.get(meter));
                counted.reserved = counted.reserved.saturating_sub(u128::from(freed));
            }
            self.count(hold, i128::from(used.get(meter)), &mut crossed);
        }
        reservation.left = left;
        reservation.debited = reservation.debited.each(used, u64::saturating_add);
        crossed
    }

    /// Ends an attempt with what it used in all, what was debited included: the truth, whatever was reserved. It counts in the
    /// period in which the attempt began.
    ///
    /// Answers the thresholds that are crossed by it.
    pub fn settle(&mut self, reservation: Reservation, actual: Amounts) -> Vec<Crossed> {
        let mut crossed = Vec::new();
        for hold in &reservation.holds {
            let meter = hold.key.meter;
            if let Some(counted) = self.counted(hold) {
                counted.reserved = counted.reserved.saturating_sub(u128::from(reservation.left.get(meter)));
                counted.running = counted.running.saturating_sub(1);
            }
            let more = i128::from(actual.get(meter)) - i128::from(reservation.debited.get(meter));
            self.count(hold, more, &mut crossed);
            if let Some(counter) = self.counters.get_mut(&hold.key) {
                counter.forget();
            }
        }
        crossed
    }

    /// Ends an attempt that has not used more than was debited.
    pub fn release(&mut self, reservation: Reservation) {
        let debited = reservation.debited;
        // Nothing is added, so no threshold is crossed.
        let _ = self.settle(reservation, debited);
    }

    /// What is left of each limit that applies, those of the tenant first.
    pub fn remaining(&self, now_ms: i64, subject: &Subject) -> Vec<Remaining> {
        let limits = subject.scopes().flat_map(|scope| of_scope(&self.counters, scope));
        limits.map(|(_, counter)| counter.remaining(now_ms)).collect()
    }

    /// What headers have room for, of the limits that apply and are not only watched: the one of which the least is left in
    /// proportion, and of those on one meter the one of which the least is left.
    pub fn nearest(
        &self,
        now_ms: i64,
        subject: &Subject,
        meter: BudgetMeter,
    ) -> (Option<Remaining>, Option<Remaining>) {
        let limits = subject.scopes().flat_map(|scope| of_scope(&self.counters, scope));
        let enforced = limits.filter(|(_, counter)| counter.limit.enforcement != Enforcement::Watch);
        let (mut nearest, mut tightest) = (None, None);
        for (key, counter) in enforced {
            let left = counter.remaining(now_ms);
            if nearest.as_ref().is_none_or(|known| proportion(&left) < proportion(known)) {
                nearest = Some(left);
            }
            if key.meter == meter && tightest.as_ref().is_none_or(|known| rest(&left) < rest(known)) {
                tightest = Some(left);
            }
        }
        (nearest, tightest)
    }

    /// All limits, and what is left of each.
    pub fn all(&self, now_ms: i64) -> impl Iterator<Item = (&BudgetLimit, Remaining)> {
        self.counters.values().map(move |counter| (&counter.limit, counter.remaining(now_ms)))
    }

    /// The limits.
    pub fn limits(&self) -> impl Iterator<Item = &BudgetLimit> {
        self.counters.values().map(|counter| &counter.limit)
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.counters.is_empty()
    }

    /// Where something is held, unless its limit has gone.
    fn counted(&mut self, hold: &Hold) -> Option<&mut Counted> {
        let counter = self.counters.get_mut(&hold.key).filter(|counter| counter.generation == hold.generation)?;
        counter.windows.get_mut(&hold.window_ms)
    }

    /// Adds to what is used. A limit that came while the attempt ran counts it, too, if its period still is the same.
    fn count(&mut self, hold: &Hold, more: i128, crossed: &mut Vec<Crossed>) {
        let Some(counter) = self.counters.get_mut(&hold.key) else { return };
        if counter.generation != hold.generation {
            counter.roll(hold.window_ms);
        }
        let Some(counted) = counter.windows.get_mut(&hold.window_ms) else { return };
        counted.used = counted.used.saturating_add_signed(more);
        counter.tell(hold.window_ms, crossed);
    }
}

impl Counter {
    fn new(limit: BudgetLimit, generation: u64) -> Self {
        let window = Window { start_ms: i64::MIN, end_ms: i64::MIN };
        Self { limit, generation, current: window, windows: BTreeMap::new() }
    }

    /// Goes on to the period of `now_ms` if that is later, and answers when the current one began.
    fn roll(&mut self, now_ms: i64) -> i64 {
        // An earlier instant, after the clock was set back, is in the current one, too.
        if now_ms >= self.current.end_ms || self.windows.is_empty() {
            let window = self.limit.key.period.window(now_ms);
            if window.start_ms > self.current.start_ms {
                self.current = window;
            }
            self.windows.entry(self.current.start_ms).or_default();
            self.forget();
        }
        self.current.start_ms
    }

    /// Drops earlier periods in which nothing runs any more.
    fn forget(&mut self) {
        let current_ms = self.current.start_ms;
        self.windows.retain(|window_ms, counted| *window_ms == current_ms || counted.running > 0);
    }

    /// Whether the current period has no room for an estimate.
    fn refuse(&self, estimate: u64) -> Option<Refused> {
        let counted = self.windows.get(&self.current.start_ms).copied().unwrap_or_default();
        let limit = u128::from(self.limit.amount);
        let used = counted.used.saturating_add(u128::from(estimate));
        let with_running = used.saturating_add(counted.reserved);
        let cause = match self.limit.enforcement {
            Enforcement::Watch => return None,
            _ if estimate == 0 => return None,
            _ if estimate > self.limit.amount => RefusedFor::TooLarge,
            _ if used > limit => RefusedFor::UsedUp,
            Enforcement::Hard if with_running > limit => RefusedFor::Running,
            Enforcement::Hard | Enforcement::Soft => return None,
        };
        Some(Refused {
            key: self.limit.key,
            cause,
            limit: self.limit.amount,
            used: shown(counted.used),
            reserved: shown(counted.reserved),
            estimate,
            reset_at_ms: self.current.end_ms,
        })
    }

    /// Tells the thresholds that what is used has reached and that have not been told.
    fn tell(&mut self, window_ms: i64, crossed: &mut Vec<Crossed>) {
        let Some(counted) = self.windows.get_mut(&window_ms) else { return };
        for percent in &self.limit.thresholds_percent {
            let is_reached = counted.used > 0
                && counted.used.saturating_mul(100)
                    >= u128::from(self.limit.amount).saturating_mul(u128::from(*percent));
            if !is_reached || *percent <= counted.told_percent {
                continue;
            }
            counted.told_percent = *percent;
            let (key, used, limit) = (self.limit.key, shown(counted.used), self.limit.amount);
            crossed.push(Crossed { key, window_ms, percent: *percent, used, limit });
        }
    }

    fn remaining(&self, now_ms: i64) -> Remaining {
        let window = if now_ms < self.current.end_ms { self.current } else { self.limit.key.period.window(now_ms) };
        let counted = self.windows.get(&window.start_ms).copied().unwrap_or_default();
        let limit = u128::from(self.limit.amount);
        Remaining {
            key: self.limit.key,
            limit: self.limit.amount,
            used: shown(counted.used),
            reserved: shown(counted.reserved),
            remaining: shown(limit.saturating_sub(counted.used).saturating_sub(counted.reserved)),
            reset_at_ms: window.end_ms,
        }
    }
}

const fn span(scope: BudgetScope) -> std::ops::RangeInclusive<LimitKey> {
    let first = LimitKey { scope, meter: BudgetMeter::Requests, period: BudgetPeriod::Hour };
    let last = LimitKey { scope, meter: BudgetMeter::Money, period: BudgetPeriod::Month };
    first..=last
}

fn of_scope(counters: &BTreeMap<LimitKey, Counter>, scope: BudgetScope) -> impl Iterator<Item = (&LimitKey, &Counter)> {
    counters.range(span(scope))
}

fn of_scope_mut(
    counters: &mut BTreeMap<LimitKey, Counter>,
    scope: BudgetScope,
) -> impl Iterator<Item = (&LimitKey, &mut Counter)> {
    counters.range_mut(span(scope))
}

/// How much is left in proportion, and until when.
fn proportion(left: &Remaining) -> (u128, i64) {
    let parts = u128::from(left.remaining).saturating_mul(1_000_000);
    (parts.checked_div(u128::from(left.limit)).unwrap_or(0), left.reset_at_ms)
}

/// How much is left, and until when.
fn rest(left: &Remaining) -> (u64, i64) {
    (left.remaining, left.reset_at_ms)
}

fn shown(amount: u128) -> u64 {
    u64::try_from(amount).unwrap_or(u64::MAX)
}

fn default_thresholds() -> Vec<u16> {
    DEFAULT_THRESHOLDS.to_vec()
}

#[cfg(test)]
mod tests;
