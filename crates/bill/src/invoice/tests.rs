use proptest::prelude::*;

use super::*;
use crate::price::{PriceError, PricePlan};

/// The first of November 2026.
const NOVEMBER: i64 = 20_758;

fn tenant() -> Billed {
    Billed {
        tenant: TenantId::from_parts(1, [7; 10]),
        tenant_name: "acme".to_owned(),
        organisation: None,
        organisation_name: None,
    }
}

fn november() -> Period {
    Period::month(2026, 11).unwrap()
}

fn plan(name: &str, from_day: i64, currency: &str, prices: &[(Meter, Option<ShareTier>, &str, Unit)]) -> PricePlan {
    let prices: Result<Vec<Price>, PriceError> =
        prices.iter().map(|(meter, tier, amount, per)| Price::new(*meter, *tier, None, amount, *per)).collect();
    PricePlan::new(name, currency.parse().unwrap(), from_day * DAY_MS, None, prices.unwrap()).unwrap()
}

fn book(plans: Vec<PricePlan>) -> PriceBook {
    PriceBook::new(Vec::new(), plans).unwrap()
}

fn sum(day: i64, model: &str, quantities: Quantities) -> DaySum {
    DaySum {
        day,
        deployment: Some(DeploymentId::from_parts(2, [8; 10])),
        model: model.to_owned(),
        version: 3,
        tier: ShareTier::Burstable,
        pool: None,
        quantities,
    }
}

fn compute(hours_ns: u64) -> Quantities {
    Quantities { compute_ns: hours_ns, ..Quantities::default() }
}

const HOUR_NS: u64 = 3_600_000_000_000;

#[test]
fn a_day_is_priced_by_the_plan_that_is_in_force_at_its_beginning() {
    let hour = |amount| [(Meter::DeviceCompute, None, amount, Unit::Hour)];
    let mut second = plan("second", NOVEMBER + 10, "EUR", &hour("2"));
    // It comes into force at noon, so it counts from the next day on.
    second = PricePlan::new(
        "second",
        second.currency(),
        second.valid_from_ms() + DAY_MS / 2,
        None,
        second.prices().to_vec(),
    )
    .unwrap();
    let book = book(vec![plan("first", NOVEMBER + 1, "EUR", &hour("1")), second]);
    let days: Vec<DaySum> = (0..30).map(|day| sum(NOVEMBER + day, "acme/a", compute(HOUR_NS))).collect();
    let invoice = Invoice::new(tenant(), november(), &book, &days).unwrap();
    let lines: Vec<_> = invoice
        .lines()
        .iter()
        .map(|line| {
            (line.plan.as_str(), line.first_day.as_str(), line.last_day.as_str(), line.quantity.as_str(), line.cost.0)
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("first", "2026-11-02", "2026-11-11", "10", 10_000_000_000),
            ("second", "2026-11-12", "2026-11-30", "19", 38_000_000_000),
        ]
    );
    assert_eq!(invoice.unpriced_days(), ["2026-11-01"]);
    assert_eq!((invoice.total().0, invoice.total.as_str()), (48_000_000_000, "48.00"));
}

#[test]
fn the_total_is_rounded_once_and_says_so() {
    let book = book(vec![plan("p", 0, "EUR", &[(Meter::TokensIn, None, "0.50", Unit::Million)])]);
    let tokens = |tokens_in| Quantities { tokens_in, ..Quantities::default() };
    // 1.005 and 2.015: the sum is 3.02 although each alone would be rounded down and up.
    let days = [sum(NOVEMBER, "acme/a", tokens(2_010_000)), sum(NOVEMBER, "acme/b", tokens(4_030_002))];
    let invoice = Invoice::new(tenant(), november(), &book, &days).unwrap();
    assert_eq!((invoice.sum().to_string(), invoice.total.as_str()), ("3.020001".to_owned(), "3.02"));
    assert_eq!(invoice.rounding().to_string(), "-0.000001");
    let csv = invoice.to_csv();
    assert_eq!(csv.lines().count(), 4);
    let costs: f64 = csv.lines().skip(1).map(|line| line.split(',').nth(18).unwrap().parse::<f64>().unwrap()).sum();
    assert!((costs - 3.02).abs() < 1e-12);
}

#[test]
fn what_is_free_is_on_the_bill_and_what_has_no_price_is_not() {
    let prices =
        [(Meter::Requests, None, "0", Unit::Thousand), (Meter::Cpu, Some(ShareTier::Guaranteed), "1", Unit::Hour)];
    let book = book(vec![plan("p", 0, "JPY", &prices)]);
    let used = Quantities { requests: 5, cpu_ns: 1, bytes_in: 9, ..Quantities::default() };
    let days = [sum(NOVEMBER, "acme/a", used), sum(NOVEMBER, "acme/b", Quantities::default())];
    let invoice = Invoice::new(tenant(), november(), &book, &days).unwrap();
    let lines: Vec<_> = invoice.lines().iter().map(|line| (line.meter, line.quantity.as_str(), line.cost)).collect();
    assert_eq!(lines, [(Meter::Requests, "0.005", Nano::ZERO)]);
    assert_eq!(invoice.total, "0");
}

#[test]
fn what_cannot_be_one_invoice_is_an_error() {
    let hour = [(Meter::DeviceCompute, None, "1", Unit::Hour)];
    let plans = book(vec![plan("a", 0, "EUR", &hour), plan("b", NOVEMBER + 5, "CHF", &hour)]);
    let days = [sum(NOVEMBER + 9, "acme/a", compute(1)), sum(NOVEMBER, "acme/a", compute(1))];
    let (chf, eur) = ("CHF".parse().unwrap(), "EUR".parse().unwrap());
    assert_eq!(Invoice::new(tenant(), november(), &plans, &days), Err(InvoiceError::TwoCurrencies(chf, eur)));
    let outside = [sum(NOVEMBER - 1, "acme/a", compute(1))];
    assert_eq!(Invoice::new(tenant(), november(), &plans, &outside), Err(InvoiceError::Outside(NOVEMBER - 1)));
    let dear = book(vec![plan("a", 0, "EUR", &[(Meter::Requests, None, "18446744073", Unit::One)])]);
    let many: Vec<DaySum> = (0..2)
        .map(|day| sum(NOVEMBER + day, "acme/a", Quantities { requests: u64::MAX, ..Quantities::default() }))
        .collect();
    assert_eq!(Invoice::new(tenant(), november(), &dear, &many), Err(InvoiceError::Cost(CostOverflow)));
}

pub(crate) fn quantities() -> impl Strategy<Value = Quantities> {
    let amount = || prop_oneof![Just(0), 0..10_000u64, 0..1u64 << 50];
    prop::array::uniform11(amount()).prop_map(|[a, b, c, d, e, f, g, h, i, j, k]| Quantities {
        compute_ns: a,
        padding_ns: b,
        load_ns: c,
        aborted_ns: d,
        cpu_ns: e,
        requests: f,
        bytes_in: g,
        bytes_out: h,
        tokens_in: i,
        tokens_out: j,
        resident_byte_seconds: k,
    })
}

pub(crate) fn day_sums() -> impl Strategy<Value = Vec<DaySum>> {
    let tiers = prop::sample::select(vec![ShareTier::BestEffort, ShareTier::Burstable, ShareTier::Guaranteed]);
    let pools = prop::sample::select(vec![None, Some(Pool::Cpu), Some(Pool::Gpu)]);
    let one = (0..30i64, 0..3u8, 1..4u32, tiers, pools, quantities());
    prop::collection::vec(one, 0..40).prop_map(|sums| {
        let sum = |(day, model, version, tier, pool, quantities)| DaySum {
            day: NOVEMBER + day,
            deployment: (model > 0).then(|| DeploymentId::from_parts(u64::from(model), [1; 10])),
            model: format!("acme/{model}"),
            version,
            tier,
            pool,
            quantities,
        };
        sums.into_iter().map(sum).collect()
    })
}

pub(crate) fn books() -> impl Strategy<Value = PriceBook> {
    let tiers = prop::sample::select(vec![None, Some(ShareTier::Burstable), Some(ShareTier::Guaranteed)]);
    let pools = prop::sample::select(vec![None, Some(Pool::Gpu)]);
    let price =
        (prop::sample::select(Meter::ALL.to_vec()), tiers, pools, 0..5_000_000_000u64, any::<prop::sample::Index>())
            .prop_map(|(meter, tier, pool, nano, unit)| {
                let units: Vec<Unit> = Unit::ALL.iter().copied().filter(|unit| meter.is_priced_per(*unit)).collect();
                Price { meter, tier, pool, nano, per: *unit.get(&units) }
            });
    let prices = prop::collection::vec(price, 0..20).prop_map(|mut prices| {
        prices.sort_by_key(|price| (price.meter, price.tier, price.pool));
        prices.dedup_by_key(|price| (price.meter, price.tier, price.pool));
        prices
    });
    let currency = prop::sample::select(vec!["EUR", "JPY", "KWD"]);
    let plans = prop::collection::btree_map(NOVEMBER - 1..NOVEMBER + 30, prices, 1..4);
    (plans, currency).prop_map(|(plans, currency)| {
        let plan = |(day, prices): (i64, Vec<Price>)| {
            PricePlan::new(&format!("p{day}"), currency.parse().unwrap(), day * DAY_MS, None, prices).unwrap()
        };
        book(plans.into_iter().map(plan).collect())
    })
}

proptest! {
    #[test]
    fn lines_add_up_to_the_total_and_days_to_their_lines(book in books(), days in day_sums()) {
        let invoice = Invoice::new(tenant(), november(), &book, &days).unwrap();
        let sum: i128 = invoice.lines().iter().map(|line| line.cost.0).sum();
        prop_assert_eq!(sum, invoice.sum().0);
        prop_assert_eq!(sum + invoice.rounding().0, invoice.total().0);
        if let Some(currency) = invoice.currency() {
            let smallest = currency.smallest_nano() as i128;
            prop_assert_eq!(invoice.total().0 % smallest, 0);
            prop_assert!(invoice.rounding().0.abs() * 2 <= smallest);
        }
        for line in invoice.lines() {
            let used: u128 = line.used.parse().unwrap();
            prop_assert_eq!(line.days.iter().map(|day| day.used).sum::<u128>(), used);
            prop_assert_eq!(line.days.iter().map(|day| day.cost.0).sum::<i128>(), line.cost.0);
            prop_assert_eq!(Ok(line.cost), line.priced.cost(used));
            for day in &line.days {
                let alone = line.priced.cost(day.used).unwrap();
                prop_assert!((day.cost.0 - alone.0).abs() <= 1);
            }
        }
    }

    #[test]
    fn nothing_that_has_a_price_is_left_out(book in books(), days in day_sums()) {
        let invoice = Invoice::new(tenant(), november(), &book, &days).unwrap();
        for meter in Meter::ALL {
            let priced: u128 = days
                .iter()
                .filter(|sum| book.in_force(sum.day * DAY_MS).is_some_and(|plan| plan.price(*meter, sum.tier, sum.pool).is_some()))
                .map(|sum| u128::from(sum.quantities.get(*meter)))
                .sum();
            let billed: u128 = invoice
                .lines()
                .iter()
                .filter(|line| line.meter == *meter)
                .map(|line| line.used.parse::<u128>().unwrap())
                .sum();
            prop_assert_eq!(billed, priced);
        }
    }

    #[test]
    fn the_order_of_days_and_their_division_do_not_matter(book in books(), days in day_sums(), seed: u64) {
        let made = Invoice::new(tenant(), november(), &book, &days).unwrap();
        let mut shuffled: Vec<DaySum> = days
            .iter()
            .flat_map(|sum| {
                // In two parts, as if another outcome had a row of its own.
                let part = Quantities { bytes_in: sum.quantities.bytes_in / 3, ..Quantities::default() };
                let rest = Quantities { bytes_in: sum.quantities.bytes_in - part.bytes_in, ..sum.quantities };
                [DaySum { quantities: part, ..sum.clone() }, DaySum { quantities: rest, ..sum.clone() }]
            })
            .collect();
        shuffled.sort_by_key(|sum| {
            let text = format!("{seed}{sum:?}");
            Sha256::digest(text.as_bytes()).to_vec()
        });
        let again = Invoice::new(tenant(), november(), &book, &shuffled).unwrap();
        prop_assert_eq!(made.to_csv(), again.to_csv());
        prop_assert_eq!(serde_json::to_string(&made).unwrap(), serde_json::to_string(&again).unwrap());
    }
}
