//! `tenantry audit`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tenantry_api::admin::types::{Audit, AuditActor};

use super::tenant;
use crate::arguments::AuditFilter;
use crate::client::Client;
use crate::output::{instant, print_json, print_table, table};

pub(crate) fn run(client: &Client, filter: &AuditFilter, json: bool) -> Result<()> {
    let mut query = vec![format!("limit={}", filter.limit)];
    if let Some(since) = filter.since {
        query.push(format!("since_ms={}", ago_ms(since)?));
    }
    query.extend(filter.before.map(|before| format!("before={before}")));
    let query = query.join("&");
    let path = match (&filter.tenant, filter.all) {
        (_, true) => "/admin/v1/audit".to_owned(),
        (Some(tenant), false) => format!("{}/audit", tenant::path(tenant)),
        (None, false) => format!("{}/audit", tenant::path(&tenant::own(client)?)),
    };
    let audit: Audit = client.get(&format!("{path}?{query}"))?;
    if json {
        return print_json(&audit);
    }
    let mut rows = table(&["number", "when", "who", "tenant", "what", "to what", "outcome", "detail"]);
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
        ]);
    }
    print_table(&rows, "no records");
    Ok(())
}

fn who(actor: &AuditActor) -> String {
    match (&actor.tenant, actor.key) {
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
