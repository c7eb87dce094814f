//! Price plans: what one of each unit costs, and from when on.

use serde::{Deserialize, Serialize};
use tenantry_types::share::ShareTier;

use crate::meter::{Meter, Pool, Quantities, Unit};
use crate::money::{Currency, Nano, ParseAmountError, div_half_even, parse_nano};

/// The most prices of a plan.
pub const MAX_PRICES: usize = 256;
/// The longest name of a plan, bytes.
pub const MAX_PLAN_NAME_BYTES: usize = 64;
/// The most plans of one book, each list of it.
pub const MAX_PLANS: usize = 1_000;

/// What one unit of a meter costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "WrittenPrice", into = "WrittenPrice")]
pub struct Price {
    /// Of what.
    pub meter: Meter,
    /// Of this tier only.
    pub tier: Option<ShareTier>,
    /// On devices of this pool only.
    pub pool: Option<Pool>,
    /// For one unit: nanos.
    pub nano: u64,
    /// The unit.
    pub per: Unit,
}

/// Prices in one currency. As JSON:
///
/// ```json
/// {"name": "standard-2027", "currency": "EUR", "valid_from_ms": 1798761600000, "prices": [
///   {"meter": "device_compute", "pool": "gpu", "tier": "guaranteed", "price": "2.40", "per": "hour"},
///   {"meter": "tokens_in", "price": "0.50", "per": "million"}]}
/// ```
///
/// A meter without a price costs nothing and is not on the bill; one with the price 0 is on it, for nothing. Of several prices
/// that fit, the most exact counts: one for tier and pool before one for the tier, before one for the pool, before one for all.
/// Where the pool of what was used is not known, prices for a pool do not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenPlan", into = "WrittenPlan")]
pub struct PricePlan {
    name: String,
    currency: Currency,
    valid_from_ms: i64,
    valid_until_ms: Option<i64>,
    prices: Vec<Price>,
}

/// A plan's prices for one tier and pool, looked up once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rates(Vec<Price>);

/// The plans a tenant is billed by: its own, and those of everybody for when it has none.
///
/// A plan is in force from its first instant until the next of the same list begins, or until its own end. While one of the
/// tenant's own is in force, the others do not count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PriceBook {
    own: Vec<PricePlan>,
    list: Vec<PricePlan>,
}

/// Prices that are no plan, or plans that are no book.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// The name of the plan.
    #[error(
        "a plan's name is 1 to {MAX_PLAN_NAME_BYTES} letters, digits, `-`, `_` or `.`, and begins with a letter or digit"
    )]
    Name,
    /// It ends before it begins.
    #[error("the plan `{0}` would end before it begins")]
    EndsFirst(String),
    /// There are more prices than [`MAX_PRICES`].
    #[error("more than {MAX_PRICES} prices")]
    TooManyPrices,
    /// There are more plans than [`MAX_PLANS`].
    #[error("more than {MAX_PLANS} plans")]
    TooManyPlans,
    /// The same thing has two prices.
    #[error("two prices of `{0}` for the same tier and pool")]
    TwoPrices(Meter),
    /// A unit of something else.
    #[error("`{meter}` is measured in {} and cannot be priced per `{per}`", meter.measured_in())]
    Unit {
        /// Of what.
        meter: Meter,
        /// The unit.
        per: Unit,
    },
    /// A price that cannot be read.
    #[error("the price of `{meter}`: {source}")]
    Amount {
        /// Of what.
        meter: Meter,
        /// Why.
        source: ParseAmountError,
    },
    /// Two plans of one list begin at the same instant.
    #[error("the plans `{0}` and `{1}` begin at the same instant")]
    SameStart(String, String),
}

/// A cost that is too large to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cost is too large to be added up")]
pub struct CostOverflow;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrice {
    meter: Meter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tier: Option<ShareTier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pool: Option<Pool>,
    price: String,
    per: Unit,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPlan {
    name: String,
    currency: Currency,
    valid_from_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid_until_ms: Option<i64>,
    prices: Vec<Price>,
}

impl Price {
    /// A price as people write it: `amount` is a decimal number of the currency's units.
    ///
    /// # Errors
    /// [`PriceError::Unit`] if the meter is not measured so, [`PriceError::Amount`] if the amount cannot be read.
    pub fn new(
        meter: Meter,
        tier: Option<ShareTier>,
        pool: Option<Pool>,
        amount: &str,
        per: Unit,
    ) -> Result<Self, PriceError> {
        if !meter.is_priced_per(per) {
            return Err(PriceError::Unit { meter, per });
        }
        let nano = parse_nano(amount).map_err(|source| PriceError::Amount { meter, source })?;
        Ok(Self { meter, tier, pool, nano, per })
    }

    /// The price of one unit as money.
    pub fn amount(&self) -> Nano {
        Nano(i128::from(self.nano))
    }

    /// What so much costs, rounded half to even to a nano.
    ///
    /// # Errors
    /// [`CostOverflow`].
    pub fn cost(&self, used: u128) -> Result<Nano, CostOverflow> {
        let product = used.checked_mul(u128::from(self.nano)).ok_or(CostOverflow)?;
        let nano = div_half_even(product, self.per.size()).ok_or(CostOverflow)?;
        i128::try_from(nano).map(Nano).map_err(|_| CostOverflow)
    }

    const fn place(&self) -> (Meter, Option<ShareTier>, Option<Pool>) {
        (self.meter, self.tier, self.pool)
    }

    /// How exactly it fits, if it does.
    fn fit(&self, meter: Meter, tier: ShareTier, pool: Option<Pool>) -> Option<(bool, bool)> {
        let fits =
            self.meter == meter && self.tier.is_none_or(|of| of == tier) && self.pool.is_none_or(|of| Some(of) == pool);
        fits.then_some((self.tier.is_some(), self.pool.is_some()))
    }
}

impl PricePlan {
    /// Prices with a name that are in force from an instant on, and up to one if it is said.
    ///
    /// # Errors
    /// [`PriceError`] says which rule they break.
    pub fn new(
        name: &str,
        currency: Currency,
        valid_from_ms: i64,
        valid_until_ms: Option<i64>,
        prices: Vec<Price>,
    ) -> Result<Self, PriceError> {
        let is_name = name.len() <= MAX_PLAN_NAME_BYTES
            && name.starts_with(|first: char| first.is_ascii_alphanumeric())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            return Err(PriceError::Name);
        }
        if valid_until_ms.is_some_and(|until| until <= valid_from_ms) {
            return Err(PriceError::EndsFirst(name.to_owned()));
        }
        if prices.len() > MAX_PRICES {
            return Err(PriceError::TooManyPrices);
        }
        let mut places = std::collections::BTreeSet::new();
        for price in &prices {
            if !price.meter.is_priced_per(price.per) {
                return Err(PriceError::Unit { meter: price.meter, per: price.per });
            }
            if !places.insert(price.place()) {
                return Err(PriceError::TwoPrices(price.meter));
            }
        }
        Ok(Self { name: name.to_owned(), currency, valid_from_ms, valid_until_ms, prices })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of its prices.
    pub const fn currency(&self) -> Currency {
        self.currency
    }

    /// From when on it is in force, milliseconds since the Unix epoch.
    pub const fn valid_from_ms(&self) -> i64 {
        self.valid_from_ms
    }

    /// From when on it is not in force any more, if that is said.
    pub const fn valid_until_ms(&self) -> Option<i64> {
        self.valid_until_ms
    }

    /// In the order they were written.
    pub fn prices(&self) -> &[Price] {
        &self.prices
    }

    /// The price of something.
    pub fn price(&self, meter: Meter, tier: ShareTier, pool: Option<Pool>) -> Option<&Price> {
        let fits = self.prices.iter().filter_map(|price| Some((price.fit(meter, tier, pool)?, price)));
        fits.max_by_key(|(fit, _)| *fit).map(|(_, price)| price)
    }

    /// All prices of a tier and pool.
    pub fn rates(&self, tier: ShareTier, pool: Option<Pool>) -> Rates {
        Rates(Meter::ALL.iter().filter_map(|meter| self.price(*meter, tier, pool).copied()).collect())
    }
}

impl Rates {
    /// What this costs, each meter rounded half to even to a nano.
    ///
    /// The costs of single requests add up to an invoice's but for these roundings: half a nano for each request and meter at most.
    ///
    /// # Errors
    /// [`CostOverflow`].
    pub fn cost(&self, used: &Quantities) -> Result<Nano, CostOverflow> {
        self.0.iter().try_fold(Nano::ZERO, |sum, price| {
            let cost = price.cost(u128::from(used.get(price.meter)))?;
            sum.checked_add(cost).ok_or(CostOverflow)
        })
    }

    /// The same for a budget: what is more than its counters hold is the most they do.
    pub fn money_nano(&self, used: &Quantities) -> u64 {
        self.cost(used).map_or(u64::MAX, |cost| u64::try_from(cost.0).unwrap_or(u64::MAX))
    }
}

impl PriceBook {
    /// A tenant's own plans, and those of everybody.
    ///
    /// # Errors
    /// [`PriceError::SameStart`] where it would not be clear which of two is in force, [`PriceError::TooManyPlans`].
    pub fn new(own: Vec<PricePlan>, list: Vec<PricePlan>) -> Result<Self, PriceError> {
        Ok(Self { own: in_order(own)?, list: in_order(list)? })
    }

    /// The plan that is in force at an instant.
    pub fn in_force(&self, at_ms: i64) -> Option<&PricePlan> {
        latest(&self.own, at_ms).or_else(|| latest(&self.list, at_ms))
    }
}

fn in_order(mut plans: Vec<PricePlan>) -> Result<Vec<PricePlan>, PriceError> {
    if plans.len() > MAX_PLANS {
        return Err(PriceError::TooManyPlans);
    }
    plans.sort_by_key(|plan| plan.valid_from_ms);
    let same = plans.iter().zip(plans.iter().skip(1)).find(|(one, other)| one.valid_from_ms == other.valid_from_ms);
    match same {
        Some((one, other)) => Err(PriceError::SameStart(one.name.clone(), other.name.clone())),
        None => Ok(plans),
    }
}

fn latest(plans: &[PricePlan], at_ms: i64) -> Option<&PricePlan> {
    let plan = plans.iter().rfind(|plan| plan.valid_from_ms <= at_ms)?;
    plan.valid_until_ms.is_none_or(|until| at_ms < until).then_some(plan)
}

impl TryFrom<WrittenPrice> for Price {
    type Error = PriceError;
    fn try_from(written: WrittenPrice) -> Result<Self, PriceError> {
        Self::new(written.meter, written.tier, written.pool, &written.price, written.per)
    }
}

impl From<Price> for WrittenPrice {
    fn from(price: Price) -> Self {
        let Price { meter, tier, pool, per, .. } = price;
        Self { meter, tier, pool, price: price.amount().to_string(), per }
    }
}

impl TryFrom<WrittenPlan> for PricePlan {
    type Error = PriceError;
    fn try_from(written: WrittenPlan) -> Result<Self, PriceError> {
        let WrittenPlan { name, currency, valid_from_ms, valid_until_ms, prices } = written;
        Self::new(&name, currency, valid_from_ms, valid_until_ms, prices)
    }
}

impl From<PricePlan> for WrittenPlan {
    fn from(plan: PricePlan) -> Self {
        let PricePlan { name, currency, valid_from_ms, valid_until_ms, prices } = plan;
        Self { name, currency, valid_from_ms, valid_until_ms, prices }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eur() -> Currency {
        "EUR".parse().unwrap()
    }

    fn price(meter: Meter, tier: Option<ShareTier>, pool: Option<Pool>, amount: &str, per: Unit) -> Price {
        Price::new(meter, tier, pool, amount, per).unwrap()
    }

    fn plan(name: &str, from: i64, until: Option<i64>) -> PricePlan {
        PricePlan::new(name, eur(), from, until, Vec::new()).unwrap()
    }

    #[test]
    fn the_most_exact_price_counts() {
        let of = |tier, pool, amount| price(Meter::DeviceCompute, tier, pool, amount, Unit::Hour);
        let (gold, gpu) = (Some(ShareTier::Guaranteed), Some(Pool::Gpu));
        let prices = vec![of(None, None, "1"), of(None, gpu, "2"), of(gold, None, "3"), of(gold, gpu, "4")];
        let all = PricePlan::new("p", eur(), 0, None, prices.clone()).unwrap();
        let found = |plan: &PricePlan, tier, pool| {
            plan.price(Meter::DeviceCompute, tier, pool).map(|price| price.nano / 1_000_000_000)
        };
        assert_eq!(found(&all, ShareTier::Burstable, None), Some(1));
        assert_eq!(found(&all, ShareTier::Burstable, gpu), Some(2));
        assert_eq!(found(&all, ShareTier::Guaranteed, None), Some(3));
        assert_eq!(found(&all, ShareTier::Guaranteed, gpu), Some(4));
        let less = PricePlan::new("p", eur(), 0, None, prices.into_iter().take(3).collect()).unwrap();
        assert_eq!(found(&less, ShareTier::Guaranteed, gpu), Some(3), "the tier's before the pool's");
        assert_eq!(all.price(Meter::Cpu, ShareTier::Burstable, None), None);
    }

    #[test]
    fn a_plan_is_read_as_it_is_written() {
        let text = r#"{"name":"standard-2027","currency":"EUR","valid_from_ms":5,"prices":[{"meter":"device_compute","tier":"guaranteed","pool":"gpu","price":"2.4","per":"hour"},{"meter":"tokens_in","price":"0.5","per":"million"}]}"#;
        let plan: PricePlan = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&plan).unwrap(), text);
        for (wrong, why) in [
            (text.replace("hour", "million"), "cannot be priced per `million`"),
            (text.replace("\"2.4\"", "\"-2.4\""), "not a decimal number"),
            (text.replace("EUR", "EUX"), "ISO 4217"),
            (text.replace("standard-2027", "=1+1"), "a plan's name"),
            (text.replace("\"pool\"", "\"pols\""), "unknown field"),
            (text.replace("\"prices\"", "\"valid_until_ms\":5,\"prices\""), "end before it begins"),
        ] {
            let error = serde_json::from_str::<PricePlan>(&wrong).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let twice = vec![price(Meter::Cpu, None, None, "1", Unit::Hour); 2];
        assert_eq!(PricePlan::new("p", eur(), 0, None, twice), Err(PriceError::TwoPrices(Meter::Cpu)));
    }

    #[test]
    fn plans_follow_each_other_and_ones_own_come_first() {
        let book = PriceBook::new(
            vec![plan("own", 20, Some(30))],
            vec![plan("second", 10, None), plan("first", 0, Some(100)), plan("third", 40, Some(50))],
        )
        .unwrap();
        let named = |at| book.in_force(at).map(PricePlan::name);
        assert_eq!([-1, 0, 9, 10, 19].map(named), [None, Some("first"), Some("first"), Some("second"), Some("second")]);
        assert_eq!([20, 29, 30, 39].map(named), [Some("own"), Some("own"), Some("second"), Some("second")]);
        assert_eq!([40, 49, 50].map(named), [Some("third"), Some("third"), None], "an end is an end");
        let twice = PriceBook::new(Vec::new(), vec![plan("a", 1, None), plan("b", 1, None)]);
        assert_eq!(twice, Err(PriceError::SameStart("a".to_owned(), "b".to_owned())));
    }

    #[test]
    fn costs_are_rounded_once_and_never_overflow() {
        let hour = price(Meter::DeviceCompute, None, None, "0.36", Unit::Hour);
        assert_eq!(hour.cost(3_600_000_000_000), Ok(Nano(360_000_000)));
        // A ten-thousandth of a nano a nanosecond: 5000 ns are half a nano, 15000 are one and a half.
        assert_eq!(hour.cost(5_000), Ok(Nano(0)));
        assert_eq!(hour.cost(5_001), Ok(Nano(1)));
        assert_eq!(hour.cost(15_000), Ok(Nano(2)));
        assert_eq!(hour.cost(u128::MAX), Err(CostOverflow));
        let tokens = price(Meter::TokensIn, None, None, "0.50", Unit::Million);
        let rates = PricePlan::new("p", eur(), 0, None, vec![hour, tokens]).unwrap().rates(ShareTier::Burstable, None);
        let used = Quantities { compute_ns: 10_000_000, tokens_in: 3, cpu_ns: 9, ..Quantities::default() };
        assert_eq!(rates.cost(&used), Ok(Nano(1_000 + 1_500)));
        assert_eq!(rates.money_nano(&used), 2_500);
    }
}
