//! `tenantry usage`.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tenantry_api::admin::types::{BootState, UsageAccount, UsageAccounts, UsageLine, UsageRecord, UsageRecords};

use super::tenant;
use crate::arguments::{ExportFormat, Usage, UsageExport, UsageFilter, UsageOf};
use crate::client::Client;
use crate::output::{instant, print_json, print_table, size, span, table};

/// The type of our events.
const EVENT_TYPE: &str = "tenantry.usage.v1";

pub(crate) fn run(client: &Client, command: &Usage, json: bool) -> Result<()> {
    match command {
        Usage::Show(filter) => show(client, filter, json),
        Usage::Export(export) => export_records(client, export),
        Usage::Check => check(client, json),
    }
}

fn path(client: &Client, of: &UsageOf) -> Result<String> {
    Ok(match (&of.tenant, of.all) {
        (_, true) => "/admin/v1/usage".to_owned(),
        (Some(tenant), false) => format!("{}/usage", tenant::path(tenant)),
        (None, false) => format!("{}/usage", tenant::path(&tenant::own(client)?)),
    })
}

fn show(client: &Client, filter: &UsageFilter, json: bool) -> Result<()> {
    let mut query = vec![format!("by={}", filter.by.join(","))];
    query.extend(filter.from.as_ref().map(|from| format!("from={from}")));
    query.extend(filter.to.as_ref().map(|to| format!("to={to}")));
    let usage: tenantry_api::admin::types::Usage =
        client.get(&format!("{}?{}", path(client, &filter.of)?, query.join("&")))?;
    if json {
        return print_json(&usage);
    }
    let mut columns: Vec<&str> = filter.by.iter().map(String::as_str).collect();
    columns.extend(["attempts", "compute", "load", "aborted", "processor", "in", "out", "tokens", "memory"]);
    let mut rows = table(&columns);
    for line in &usage.lines {
        let mut row: Vec<String> = filter.by.iter().map(|group| of_group(line, group)).collect();
        let ns = |nanos| span(Duration::from_nanos(nanos));
        let used = &line.used;
        row.extend([
            line.attempts.to_string(),
            ns(used.compute_ns + used.padding_ns),
            ns(used.load_ns),
            ns(used.aborted_ns),
        ]);
        row.extend([ns(used.cpu_ns), size(used.bytes_in), size(used.bytes_out), used.tokens.to_string()]);
        // Memory by the hour, as it is priced.
        row.push(format!("{} h", size(used.resident_byte_seconds / 3_600)));
        rows.add_row(row);
    }
    print_table(&rows, "nothing was used");
    Ok(())
}

fn of_group(line: &UsageLine, group: &str) -> String {
    let word = |value: Option<serde_json::Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let text = match group {
        "day" => line.day.clone(),
        "tenant" => line.tenant.clone(),
        "deployment" => line.model.clone(),
        "version" => line.version.map(|version| format!("{}:{version}", line.model.as_deref().unwrap_or_default())),
        "tier" => word(line.tier.map(|tier| json!(tier))),
        "kind" => word(line.kind.map(|kind| json!(kind))),
        "outcome" => word(line.outcome.map(|outcome| json!(outcome))),
        _ => None,
    };
    text.unwrap_or_default()
}

fn export_records(client: &Client, export: &UsageExport) -> Result<()> {
    let path = format!("{}/records", path(client, &export.of)?);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut after = export.after.clone();
    loop {
        let query = after.as_ref().map(|after| format!("?after={after}")).unwrap_or_default();
        let page: UsageRecords = client.get(&format!("{path}{query}"))?;
        let Some(last) = page.records.last() else { break };
        after = Some(last.id.clone());
        for record in &page.records {
            let line = match export.format {
                ExportFormat::Jsonl => serde_json::to_string(record)?,
                ExportFormat::Cloudevents => serde_json::to_string(&event(record))?,
            };
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(())
}

/// CloudEvents 1.0, JSON event format.
fn event(record: &UsageRecord) -> serde_json::Value {
    let node = record.id.split('/').next().unwrap_or_default();
    json!({
        "specversion": "1.0",
        "id": record.id,
        "source": format!("/nodes/{node}"),
        "type": EVENT_TYPE,
        "subject": record.tenant,
        "time": humantime::format_rfc3339_millis(
            std::time::UNIX_EPOCH + Duration::from_millis(u64::try_from(record.ended_ms).unwrap_or(0))
        ).to_string(),
        "datacontenttype": "application/json",
        "data": record,
    })
}

fn check(client: &Client, json: bool) -> Result<()> {
    let accounts: UsageAccounts = client.get("/admin/v1/usage/accounts")?;
    if json {
        print_json(&accounts)?;
    } else {
        let mut rows = table(&[
            "start",
            "last heard of",
            "slots x wall",
            "charged",
            "system",
            "idle",
            "unaccounted",
            "records",
            "interrupted",
            "state",
        ]);
        for account in &accounts.accounts {
            rows.add_row(row(account));
        }
        print_table(&rows, "no start of this server is known");
    }
    let wrong =
        accounts.accounts.iter().filter(|account| account.state == BootState::Ended && account.unaccounted_ns != 0);
    match wrong.count() {
        0 => Ok(()),
        wrong => bail!("{wrong} starts that ended in order do not add up"),
    }
}

fn row(account: &UsageAccount) -> [String; 10] {
    let ns = |nanos| span(Duration::from_nanos(nanos));
    let unaccounted = match account.unaccounted_ns {
        0 => "0".to_owned(),
        nanos => format!("{}{}", if nanos < 0 { "-" } else { "" }, ns(nanos.unsigned_abs())),
    };
    [
        account.boot.to_string(),
        instant(account.at_ms),
        ns(account.wall_ns.saturating_mul(u64::from(account.slots))),
        ns(account.charged_ns),
        ns(account.system_ns),
        ns(account.idle_ns),
        unaccounted,
        account.records.to_string(),
        account.interrupted.to_string(),
        match account.state {
            BootState::Running => "running",
            BootState::Ended => "ended",
            BootState::Killed => "killed",
        }
        .to_owned(),
    ]
}
