//! What is asked of a ledger with many records: an invoice, sums by day and deployment, a page of records, each beside the same
//! of a ledger with a hundredth of them.
//!
//! The servers make their database and some real records each; the rest is copied from a page of these by SQL while they stand still, because
//! to compute ten million answers takes longer than anybody waits. Both have as many sums of days, whose number does not depend on that
//! of records.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tempfile::TempDir;

use crate::Bench;
use crate::figures::{Figures, at_most, median};
use crate::load::Repeated;
use crate::models::Models;
use crate::server::Server;

/// How many times fewer records the baseline has.
const FEWER: u64 = 100;
/// Days and deployments that are added up.
const DAYS: i64 = 30;
const DEPLOYMENTS: i64 = 100;
/// Asks of each kind in a round.
const ASKS: usize = 20;
/// Numbers of the copies begin here: behind all real ones.
const FIRST_COPY: i64 = 1_000_000;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let many = if bench.quick { bench.records / 10 } else { bench.records };
    let arms = [filled(bench, many)?, filled(bench, (many / FEWER).max(1))?];
    let [(_, large), (_, small)] = &arms;
    let asks = [
        ("invoice", "tenants/acme/invoice?"),
        ("usage", "tenants/acme/usage?by=day,deployment&"),
        ("records", "tenants/acme/usage/records?limit=100&"),
    ];
    for (name, path) in asks {
        // Records have no days.
        let path = if name == "records" { path.trim_end_matches('&').to_owned() } else { format!("{path}{}", days()?) };
        let (mut ratios, mut middles) = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds {
            let (mut of_large, mut of_small) = (Vec::new(), Vec::new());
            for _ in 0..ASKS {
                of_large.push(asked(large, &path)?);
                of_small.push(asked(small, &path)?);
            }
            let (large_ms, small_ms) = (median(of_large), median(of_small));
            ratios.push(large_ms / small_ms);
            middles.push(large_ms);
        }
        figures.add(format!("billing_{name}_ms"), median(middles), "ms", at_most(1_000.0));
        figures.add(format!("billing_{name}_records_ratio"), median(ratios), "ratio", at_most(1.5));
    }
    Ok(())
}

/// The days that are filled.
fn days() -> Result<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let today = i64::try_from(now.as_secs() / 86_400)?;
    let text = |day: i64| tenantry_bill::period::date(day);
    Ok(format!("from={}&to={}", text(today - DAYS), text(today - 1)))
}

/// How long an answer takes, milliseconds.
fn asked(server: &Server, path: &str) -> Result<f64> {
    let begin = Instant::now();
    server.admin.get(path)?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

/// A server whose ledger has so many records.
fn filled(bench: &Bench, records: u64) -> Result<(TempDir, Server)> {
    let folder = tempfile::tempdir()?;
    let subject = Models::matmul();
    let server = Server::start_in(bench, folder.path(), "")?;
    let key = server.admin.tenant("acme")?;
    let digest = server.admin.upload("acme", &subject.model)?;
    server.admin.register("acme", subject.name, &digest)?;
    server.admin.add_prices(&json!({"name": "bench", "currency": "EUR", "valid_from_ms": 0, "prices": [
        {"meter": "device_compute", "price": "0.36", "per": "hour"}, {"meter": "requests", "price": "1", "per": "thousand"}]}))?;
    Repeated::infer(server.address, subject.name, &key, &subject)?.flood(1, Duration::from_millis(100))?;
    // What was recorded is carried into the database before it is answered.
    server.admin.get("tenants/acme/usage")?;
    drop(server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    runtime.block_on(fill(&folder.path().join("data/tenantry.sqlite"), records))?;
    eprintln!("{records} records in {:.0} s", begin.elapsed().as_secs_f64());
    let server = Server::start_in(bench, folder.path(), "")?;
    Ok((folder, server))
}

async fn fill(database: &Path, records: u64) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(database).disable_statement_logging();
    let mut connection = SqliteConnection::connect_with(&options).await.context("the database cannot be opened")?;
    let (of_page,): (i64,) = sqlx::query_as("SELECT MAX(records) FROM usage_pages").fetch_one(&mut connection).await?;
    let pages = i64::try_from(records)? / of_page.max(1);
    sqlx::query(
        "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < $1)
         INSERT INTO usage_pages (boot_id, page, tenant_number, first_sequence, last_sequence, records, data)
         SELECT boot_id, $2 + n, tenant_number, $2 + n * records, $2 + n * records + records - 1, records, data
         FROM number, (SELECT * FROM usage_pages ORDER BY records DESC LIMIT 1)",
    )
    .bind(pages.max(1))
    .bind(FIRST_COPY)
    .execute(&mut connection)
    .await
    .context("the records cannot be copied")?;
    sqlx::query(
        "WITH RECURSIVE days (d) AS (SELECT 1 UNION ALL SELECT d + 1 FROM days WHERE d < $1),
             places (p) AS (SELECT 1 UNION ALL SELECT p + 1 FROM places WHERE p < $2)
         INSERT INTO usage_days
         SELECT day - d, tenant_id, printf('dep_%032x', p), model, version, tier, kind, outcome, attempts, duration_ns, queue_ns,
             compute_ns, padding_ns, load_ns, aborted_ns, cpu_ns, bytes_in, bytes_out, tokens, resident_byte_seconds
         FROM days, places, (SELECT * FROM usage_days WHERE kind = 'inference' AND outcome = 'ok' ORDER BY day DESC LIMIT 1)",
    )
    .bind(DAYS)
    .bind(DEPLOYMENTS)
    .execute(&mut connection)
    .await
    .context("the days cannot be copied")?;
    connection.close().await?;
    Ok(())
}
