//! `tenantry policy`.

use anyhow::Result;
use tenantry_api::admin::types::{Policy, SchedulerPolicy};
use ureq::http::Method;

use crate::arguments::{Policy as Command, PolicyName};
use crate::client::Client;
use crate::output::print_json;

const PATH: &str = "/admin/v1/system/policy";

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    let now: SchedulerPolicy = match command {
        Command::Show => client.get(PATH)?,
        Command::Set { policy } => client.send(Method::PUT, PATH, &SchedulerPolicy { policy: api_policy(*policy) })?,
    };
    if json {
        return print_json(&now);
    }
    println!("{}", text(now.policy));
    Ok(())
}

fn api_policy(policy: PolicyName) -> Policy {
    match policy {
        PolicyName::Fair => Policy::Fair,
        PolicyName::Fifo => Policy::Fifo,
        PolicyName::RoundRobin => Policy::RoundRobin,
        PolicyName::StrictPriority => Policy::StrictPriority,
    }
}

fn text(policy: Policy) -> &'static str {
    match policy {
        Policy::Fair => "fair: by reservation, then by weight in measured device time",
        Policy::Fifo => "fifo: the oldest request first",
        Policy::RoundRobin => "round-robin: one batch a tenant in turn",
        Policy::StrictPriority => "strict-priority: the higher tier first",
    }
}
