//! The shapes of what leaves the house, as files: whoever reads them depends on them.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use tenantry_bill::{
    Billed, DaySum, Invoice, Meter, Parties, Period, Pool, Price, PriceBook, PricePlan, Quantities, Unit, focus_csv,
};
use tenantry_types::share::ShareTier;
use tenantry_types::{DeploymentId, OrganisationId, TenantId};

/// With `WRITE_GOLDEN` in the environment, writes what is made now; then read the difference.
fn golden(name: &str, made: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(path, made).unwrap();
        return;
    }
    assert_eq!(made, std::fs::read_to_string(path).unwrap(), "{name}");
}

fn invoice() -> Invoice {
    let price = |meter, tier, pool, amount, per| Price::new(meter, tier, pool, amount, per).unwrap();
    let prices = vec![
        price(Meter::DeviceCompute, Some(ShareTier::Burstable), Some(Pool::Gpu), "2.40", Unit::Hour),
        price(Meter::TokensIn, None, None, "0.50", Unit::Million),
        price(Meter::Resident, None, None, "0.01", Unit::GibHour),
        price(Meter::BytesOut, None, None, "0.09", Unit::Gb),
    ];
    let plan = PricePlan::new("standard-2026", "EUR".parse().unwrap(), 0, None, prices).unwrap();
    let book = PriceBook::new(Vec::new(), vec![plan]).unwrap();
    let sum = |day| DaySum {
        day,
        deployment: Some(DeploymentId::from_parts(2, [8; 10])),
        model: "acme/digits".to_owned(),
        version: 3,
        tier: ShareTier::Burstable,
        pool: Some(Pool::Gpu),
        quantities: Quantities {
            compute_ns: 90_000_000_001,
            tokens_in: 1_234_567,
            bytes_out: 5_000_000,
            resident_byte_seconds: 1 << 40,
            ..Quantities::default()
        },
    };
    let billed = Billed {
        tenant: TenantId::from_parts(1, [7; 10]),
        tenant_name: "acme".to_owned(),
        organisation: Some(OrganisationId::from_parts(1, [9; 10])),
        organisation_name: Some("globex".to_owned()),
    };
    Invoice::new(billed, Period::month(2026, 11).unwrap(), &book, &[sum(20_760), sum(20_761)]).unwrap()
}

#[test]
fn the_documents_keep_their_shape() {
    let invoice = invoice();
    golden("invoice.json", &format!("{}\n", serde_json::to_string_pretty(&invoice).unwrap()));
    golden("invoice.csv", &invoice.to_csv());
    let parties = Parties {
        provider: "Example Hosting".to_owned(),
        issuer: "Example Hosting, Invoices".to_owned(),
        region: Some("eu-1".to_owned()),
        service: "Tenantry".to_owned(),
    };
    golden("focus.csv", &focus_csv(&parties, std::slice::from_ref(&invoice)));
}
