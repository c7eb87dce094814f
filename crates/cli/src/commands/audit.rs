//! `tenantry audit`.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tenantry_api::admin::types::{Audit, AuditActor, AuditFault, AuditVerification};
use tenantry_types::TenantName;

use super::tenant;
use crate::arguments::{Audit as Arguments, AuditCommand as Command, AuditExport, AuditFilter};
use crate::client::Client;
use crate::output::{instant, print_json, print_table, table};

/// How many records of an export are asked for at a time.
const EXPORT_PAGE: u32 = 1_000;

pub(crate) fn run(client: &Client, arguments: &Arguments, json: bool) -> Result<ExitCode> {
    match &arguments.command {
        None => list(client, &arguments.filter, json)?,
        Some(Command::Verify) => return verify(client, json),
        Some(Command::Export(export)) => self::export(client, export)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn verify(client: &Client, json: bool) -> Result<ExitCode> {
    let found: AuditVerification = client.get("/admin/v1/audit/verification")?;
    let code = if found.broken.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        return print_json(&found).map(|()| code);
    }
    match (found.first, found.last) {
        (Some(first), Some(last)) => println!("{} records verified, {first} to {last}", found.verified),
        _ => println!("no records verified"),
    }
    match &found.broken {
        None => println!("the newest hash is {}", found.hash),
        Some(AuditFault { sequence, problem }) => {
            eprintln!("error: record {sequence} is not what was written: {}", described(problem));
        }
    }
    Ok(code)
}

/// What is wrong, for people.
fn described(problem: &str) -> &str {
    match problem {
        "unreadable" => "a column holds what was never written there",
        "hash_differs" => "it was changed",
        "link_broken" => "it follows another record than the one that is there",
        "missing" => "it is missing",
        "head_differs" => "it is not the record that was written last",
        other => other,
    }
}

fn export(client: &Client, export: &AuditExport) -> Result<()> {
    let path = path(client, export.tenant.as_ref(), export.all)?;
    let mut out = std::io::stdout().lock();
    let mut after = export.after;
    loop {
        let page: Audit = client.get(&format!("{path}?after={after}&limit={EXPORT_PAGE}"))?;
        for record in &page.records {
            writeln!(out, "{}", serde_json::to_string(record)?)?;
        }
        match page.records.last() {
            Some(last) => after = last.sequence,
            None => return Ok(out.flush()?),
        }
    }
}

/// Where the records are.
fn path(client: &Client, tenant: Option<&TenantName>, all: bool) -> Result<String> {
    match (tenant, all) {
        (_, true) => Ok("/admin/v1/audit".to_owned()),
        (Some(tenant), false) => Ok(format!("{}/audit", tenant::path(tenant))),
        (None, false) => Ok(format!("{}/audit", tenant::path(&tenant::own(client)?))),
    }
}

fn list(client: &Client, filter: &AuditFilter, json: bool) -> Result<()> {
    let mut query = vec![format!("limit={}", filter.limit)];
    if let Some(since) = filter.since {
        query.push(format!("since_ms={}", ago_ms(since)?));
    }
    query.extend(filter.before.map(|before| format!("before={before}")));
    let query = query.join("&");
    let path = path(client, filter.tenant.as_ref(), filter.all)?;
    let audit: Audit = client.get(&format!("{path}?{query}"))?;
    if json {
        return print_json(&audit);
    }
    let mut rows = table(&["number", "when", "who", "tenant", "what", "to what", "outcome", "detail", "from"]);
    for record in &audit.records {
        rows.add_row([
            record.sequence.to_string(),
            instant(record.at_ms),
            who(&record.actor),
            record.tenant.clone().unwrap_or_default(),
            record.action.clone(),
            record.object.clone(),
            record.outcome.clone(),
            record.detail.clone(),
            record.source.map(|source| source.to_string()).unwrap_or_default(),
        ]);
    }
    print_table(&rows, "no records");
    Ok(())
}

fn who(actor: &AuditActor) -> String {
    match (&actor.tenant, actor.key) {
        (None, Some(key)) if actor.unknown => format!("somebody with {key}"),
        (None, None) if actor.unknown => "somebody".to_owned(),
        (None, _) => "the server".to_owned(),
        (Some(tenant), None) => tenant.clone(),
        (Some(tenant), Some(key)) => format!("{tenant} {key}"),
    }
}

/// That long ago, milliseconds since the Unix epoch.
fn ago_ms(ago: Duration) -> Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    i64::try_from(now.saturating_sub(ago).as_millis()).context("the clock is far in the future")
}
