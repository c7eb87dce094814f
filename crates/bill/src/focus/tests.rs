use proptest::prelude::*;
use tenantry_types::{OrganisationId, TenantId};

use super::*;
use crate::invoice::Billed;
use crate::invoice::tests::{books, day_sums};
use crate::period::Period;

fn parties() -> Parties {
    Parties {
        provider: "Example Hosting".to_owned(),
        issuer: "Example Hosting, Invoices".to_owned(),
        region: None,
        service: "Tenantry".to_owned(),
    }
}

fn billed() -> Billed {
    Billed {
        tenant: TenantId::from_parts(1, [7; 10]),
        tenant_name: "acme".to_owned(),
        organisation: Some(OrganisationId::from_parts(1, [9; 10])),
        organisation_name: Some("globex".to_owned()),
    }
}

#[test]
fn the_columns_are_those_of_the_version_in_its_order() {
    // What version 1.2 calls mandatory for cost and usage.
    let mandatory = [
        "BilledCost",
        "BillingAccountId",
        "BillingAccountName",
        "BillingCurrency",
        "BillingPeriodEnd",
        "BillingPeriodStart",
        "ChargeCategory",
        "ChargeClass",
        "ChargeDescription",
        "ChargePeriodEnd",
        "ChargePeriodStart",
        "ContractedCost",
        "EffectiveCost",
        "InvoiceIssuerName",
        "ListCost",
        "PricingQuantity",
        "PricingUnit",
        "ProviderName",
        "PublisherName",
        "ServiceCategory",
        "ServiceName",
    ];
    for column in mandatory {
        assert!(FOCUS_COLUMNS.contains(&column), "{column}");
    }
    assert!(FOCUS_COLUMNS.is_sorted(), "by name, and our own, which begin with a small letter, last");
}

#[test]
fn texts_are_json() {
    let object = object(&[("a", "x\"\\\n"), ("b", "ü")]);
    let read: serde_json::Value = serde_json::from_str(&object).unwrap();
    assert_eq!(read, serde_json::json!({"a": "x\"\\\n", "b": "ü"}));
}

/// The fields of a line: enough of a reader for what we write.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

/// Of a decimal number.
fn nano(text: &str) -> i128 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    format!("{whole}{fraction:0<9}").parse().unwrap()
}

proptest! {
    #[test]
    fn rows_add_up_to_the_total_and_have_what_must_be_there(book in books(), days in day_sums()) {
        let invoice = Invoice::new(billed(), Period::month(2026, 11).unwrap(), &book, &days).unwrap();
        let csv = focus_csv(&parties(), std::slice::from_ref(&invoice));
        let mut prices = std::collections::BTreeMap::new();
        let mut sum = 0i128;
        for line in csv.lines().skip(1) {
            let row = fields(line);
            prop_assert_eq!(row.len(), FOCUS_COLUMNS.len());
            let get = |name: &str| row[FOCUS_COLUMNS.iter().position(|column| *column == name).unwrap()].clone();
            let cost = get("BilledCost");
            sum += nano(&cost);
            for same in ["EffectiveCost", "ListCost", "ContractedCost"] {
                prop_assert_eq!(get(same), cost.clone());
            }
            for filled in ["BillingAccountId", "BillingCurrency", "ChargeDescription", "ChargePeriodStart", "ServiceName"] {
                prop_assert!(!get(filled).is_empty());
            }
            let is_usage = get("ChargeCategory") == "Usage";
            for of_usage in ["PricingQuantity", "PricingUnit", "ConsumedQuantity", "ConsumedUnit", "SkuId", "SkuPriceId", "ListUnitPrice"] {
                prop_assert_eq!(!get(of_usage).is_empty(), is_usage);
            }
            if is_usage {
                let price = (get("SkuId"), get("ListUnitPrice"), get("PricingUnit"));
                let known = prices.entry(get("SkuPriceId")).or_insert_with(|| price.clone());
                prop_assert_eq!(&*known, &price, "a name stands for one price");
            }
        }
        prop_assert_eq!(sum, invoice.total().0);
    }
}
