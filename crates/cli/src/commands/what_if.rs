//! `tenantry what-if`: a recorded trace, replayed against the real scheduler in virtual time. No server is asked.

use std::fs::{self, File};
use std::io::BufReader;

use anyhow::{Context as _, Result, bail};
use tenantry_sim::trace::{self, TokenCost};
use tenantry_sim::what_if::{Answer, Overrides, ask, tenants};

use crate::arguments::{PolicyName, WhatIf};
use crate::output::{print_json, print_table, table};

pub(crate) fn run(question: &WhatIf, json: bool) -> Result<()> {
    let opened = File::open(&question.trace).with_context(|| format!("cannot open {}", question.trace.display()))?;
    let trace = trace::read(BufReader::new(opened), &TokenCost::default())
        .with_context(|| format!("cannot use {}", question.trace.display()))?;
    let text =
        fs::read_to_string(&question.tenants).with_context(|| format!("cannot read {}", question.tenants.display()))?;
    let file = tenants::parse(&text)?;
    let policy = question.policy.map(|policy| match policy {
        PolicyName::Fair => tenantry_sched::Policy::Fair,
        PolicyName::Fifo => tenantry_sched::Policy::Fifo,
        PolicyName::RoundRobin => tenantry_sched::Policy::RoundRobin,
        PolicyName::StrictPriority => tenantry_sched::Policy::StrictPriority,
    });
    let answer = ask(&trace, &file, Overrides { slots: question.slots, policy, speed: question.speed })?;
    if let Some(fault) = answer.faults().first() {
        bail!("the simulation contradicts itself, which is a fault of this program: {fault}");
    }
    if let Some(path) = &question.svg {
        fs::write(path, answer.picture()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if json {
        return print_json(&answer);
    }
    print(&answer);
    for name in file.tenants.keys().filter(|name| !trace.tenants.contains(name)) {
        println!("note: tenant {name} is in the tenants file and sends nothing in the trace");
    }
    Ok(())
}

fn print(answer: &Answer) {
    println!(
        "{} on {} slots for {:.1} s: {:.0} % used, {:.1} requests a batch, {:.2} % of device time came too late, {} suspensions\n",
        answer.policy.as_str(),
        answer.slots,
        answer.seconds,
        answer.utilisation * 100.0,
        answer.mean_batch,
        answer.late_device_time * 100.0,
        answer.suspensions
    );
    let mut rows = table(&[
        "tenant", "tier", "promised", "asked", "received", "sent", "answered", "p50 ms", "p99 ms", "missed", "refused",
        "failed",
    ]);
    for one in &answer.tenants {
        let reasons: Vec<String> = one.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        rows.add_row([
            one.tenant.clone(),
            one.tier.to_owned(),
            format!("{:.3}", one.promised),
            format!("{:.3}", one.asked),
            format!("{:.3}", one.received),
            one.sent.to_string(),
            one.answered.to_string(),
            format!("{:.1}", one.p50_ms),
            format!("{:.1}", one.p99_ms),
            one.missed.to_string(),
            if reasons.is_empty() { "0".to_owned() } else { reasons.join(", ") },
            one.failed.to_string(),
        ]);
    }
    print_table(&rows, "no tenants");
    println!(
        "\nPromised, asked and received in slots: device time over time. Who asks for less than promised receives less."
    );
}
