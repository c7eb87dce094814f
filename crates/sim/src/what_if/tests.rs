use super::*;
use crate::trace::{TokenCost, read};

const HEADER: &str = "at_us,tenant,model,rows,bucket,bytes,timeout_ms,device_us";

fn trace(lines: &str) -> Trace {
    read(format!("{HEADER}\n{lines}").as_bytes(), &TokenCost::default()).unwrap()
}

/// Two tenants that ask for twice what there is, for two seconds.
fn busy() -> Trace {
    let mut lines = String::new();
    for number in 0..400 {
        lines.push_str(&format!(
            "{},acme,digits,1,0,16,,5000\n{},bolt,digits,1,0,16,,5000\n",
            number * 5000,
            number * 5000 + 1
        ));
    }
    trace(&lines)
}

#[test]
fn shares_follow_the_weights() {
    let file = tenants::parse("[tenants.acme]\nweight = 3\n[models.digits]\nmax_rows = 1").unwrap();
    let answer = ask(&busy(), &file, Overrides::default()).unwrap();
    assert!(answer.faults().is_empty(), "{:?}", answer.faults());
    let [acme, bolt] = answer.tenants.as_slice() else { panic!("{answer:?}") };
    assert!((acme.promised - 0.75).abs() < 1e-9 && (bolt.promised - 0.25).abs() < 1e-9);
    assert!((0.65..0.80).contains(&acme.received), "{acme:?}");
    assert!((0.20..0.35).contains(&bolt.received), "{bolt:?}");
    assert!(acme.p50_ms < bolt.p50_ms);
    assert!(answer.picture().contains("acme"));
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["tenants"][0]["tenant"], "acme");
}

#[test]
fn the_command_line_overrides_the_file() {
    let file = tenants::parse("[slots]\ncount = 1\n[tenants.acme]\nweight = 3").unwrap();
    let overrides = Overrides { slots: Some(2), policy: Some(Policy::Fifo), speed: 0.0 };
    let answer = ask(&busy(), &file, overrides).unwrap();
    assert_eq!((answer.slots, answer.policy), (2, Policy::Fifo));
    assert_eq!(answer.tenants[0].answered, 400);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let ask = |text: &str, trace: &Trace| {
        ask(trace, &tenants::parse(text).unwrap(), Overrides::default()).unwrap_err().to_string()
    };
    assert!(ask("", &Trace::default()).contains("no requests"));
    let unanswered = trace("0,acme,digits,1,0,16,,\n");
    assert!(ask("", &unanswered).contains("[models.\"digits\"]"));
    assert!(ask("[tenants.acme]\ngroup = \"gold\"", &busy()).contains("the group `gold`"));
    assert!(ask("[tenants.acme]\norganisation = \"x\"", &busy()).contains("the organisation `x`"));
    let both = "[tenants.acme]\nreservation = \"0.5\"\n[tenants.bolt]\nreservation = 0.5";
    assert!(ask(both, &busy()).contains("1 slots x 0.78"));
}

#[test]
fn organisations_divide_before_tenants_do() {
    let mut lines = String::new();
    for name in ["a", "b", "c"] {
        for number in 0..300 {
            lines.push_str(&format!("{},{name},digits,1,0,16,,10000\n", number * 5000));
        }
    }
    let file = "[models.digits]\nmax_rows = 1\n[organisations.one]\n[organisations.two]\n[tenants.a]\norganisation = \"one\"\n\
                [tenants.b]\norganisation = \"one\"\n[tenants.c]\norganisation = \"two\"";
    let answer = ask(&trace(&lines), &tenants::parse(file).unwrap(), Overrides::default()).unwrap();
    let promised: Vec<f64> = answer.tenants.iter().map(|one| one.promised).collect();
    assert_eq!(promised, [0.25, 0.25, 0.5]);
    let [a, b, c] = answer.tenants.as_slice() else { panic!("{answer:?}") };
    assert!(c.received > 1.6 * a.received && c.received > 1.6 * b.received, "{answer:?}");
}
