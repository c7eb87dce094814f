//! What the doors cost: authentication, policy, limits and the ledger together, and the parts of them that can be measured alone.
//!
//! The baseline is the same server with as little of it as can be had: a tenant without limits, a plain key, and no ledger. A call
//! without any authentication there is not, on purpose; what looking at a key costs is measured by itself.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;
use tenantry_policy::{Policies, Relation};
use tenantry_types::{Action, CustomRole, Digest, Role};

use crate::Bench;
use crate::figures::{Figures, at_least, at_most, median};
use crate::load::Repeated;
use crate::models::Models;
use crate::pair;
use crate::server::Server;

/// Questions in one measurement of a single step.
const QUESTIONS: u32 = 1_000_000;
/// How often a single step is measured.
const TIMES: usize = 9;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    together(bench, figures)?;
    existence(bench, figures)?;
    alone(figures)
}

/// All of it on over as little of it as there can be, on the smallest model.
fn together(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let subject = Models::matmul();
    let start = |config: &str| {
        let server = Server::start_with(bench, config)?;
        let key = server.admin.tenant("acme")?;
        let digest = server.admin.upload("acme", &subject.model)?;
        server.admin.register("acme", subject.name, &digest)?;
        Ok::<_, anyhow::Error>((server, key))
    };
    let (all, _) = start("")?;
    // A role of the tenant's own, a key confined to the model, a token for it, and limits that are far away.
    let role = json!({"actions": ["model.infer", "model.read"], "models": [subject.name]});
    all.admin.set("tenants/acme/roles/caller", &role)?;
    let key = json!({"role": "caller", "models": [subject.name], "actions": ["model.infer"]});
    let key = all.admin.add("tenants/acme/keys", &key)?;
    let text = |name: &str| key.get(name).and_then(|value| value.as_str()).context("the answer has no key");
    let limits = json!({"settings": {
        "request_rate": {"per_second": 1_000_000, "burst": 1_000_000}, "max_requests": 10_000,
    }});
    let budget = json!({"meter": "requests", "period": "month", "amount": 1_000_000_000});
    all.admin.set("tenants/acme/budgets", &budget)?;
    all.admin.set("tenants/acme/share", &limits)?;
    all.admin.set(&format!("tenants/acme/deployments/acme/{}/share", subject.name), &limits)?;
    all.admin.set(&format!("tenants/acme/keys/{}/share", text("id")?), &limits)?;
    let token = all.admin.token(text("id")?, text("key")?)?;
    let request = Repeated::infer(all.address, subject.name, &token, &subject)?;
    let (least, plain) = start("[ledger]\nenabled = false")?;
    let plain = Repeated::infer(least.address, subject.name, &plain, &subject)?;
    let ratios = pair::compare(bench, &(all, request), &(least, plain))?;
    figures.add("auth_added_median", ratios.latency, "ratio", at_most(1.2));
    figures.add("auth_throughput_ratio", ratios.throughput, "ratio", at_least(0.95));
    figures.add("auth_cpu_ratio", ratios.cpu, "ratio", at_most(1.25));
    Ok(())
}

/// Whether the time of a refusal tells that another tenant's model exists: beside one of a model there is not.
fn existence(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let subject = Models::matmul();
    let server = Server::start_with(bench, "")?;
    let key = server.admin.tenant("acme")?;
    server.admin.tenant("globex")?;
    let digest = server.admin.upload("globex", &subject.model)?;
    server.admin.register("globex", subject.name, &digest)?;
    // As long as the other's name.
    let none = "x".repeat(subject.name.len());
    let theirs = Repeated::infer(server.address, &format!("globex/{}", subject.name), &key, &subject)?;
    let none = Repeated::infer(server.address, &format!("globex/{none}"), &key, &subject)?;
    let times = if bench.quick { 1_000 } else { 20_000 };
    let mut ratios = Vec::new();
    for _ in 0..bench.rounds {
        let [there, not] = theirs.refused_beside(&none, times)?.map(|time| time.as_secs_f64());
        ratios.push((there / not).max(not / there));
    }
    figures.add("cross_tenant_time_ratio", median(ratios), "ratio", at_most(1.02));
    Ok(())
}

/// The steps that a request cannot go without.
fn alone(figures: &mut Figures) -> Result<()> {
    let policies = Policies::new()?;
    let role = CustomRole {
        name: "caller".parse()?,
        actions: [Action::ModelInfer, Action::ModelRead].into_iter().collect(),
        models: Some(["a", "b", "c"].into_iter().map(str::parse).collect::<Result<_, _>>()?),
        description: String::new(),
    };
    let roles = [Role::Custom(role.name.clone())];
    let ask = || policies.grants(&roles, false, std::slice::from_ref(&role));
    let grants = ask()?;
    let model = "b".parse()?;
    let decided = per_time(QUESTIONS, || {
        black_box(grants.allows_model(black_box(Action::ModelInfer), Relation::Own, black_box(&model)));
    });
    let hashed = per_time(QUESTIONS / 10, || {
        black_box(Digest::of(black_box(&[7; 81])));
    });
    let mut asked = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        black_box(ask()?);
        asked.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    figures.add("policy_decision", decided, "ns", at_most(100.0));
    figures.add("key_hash", hashed, "ns", at_most(1_000.0));
    figures.add("policy_role_set", median(asked), "us", at_most(5_000.0));
    Ok(())
}

/// Nanoseconds of one call, the median of some measurements.
fn per_time(calls: u32, mut call: impl FnMut()) -> f64 {
    let measured = (0..TIMES).map(|_| {
        let begun = Instant::now();
        (0..calls).for_each(|_| call());
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    });
    median(measured.collect())
}
