//! The usage ledger: what it costs, and that a killed server loses nothing.
//!
//! The baselines: the same server with `ledger.enabled = false`, in alternation. The crash test has none: a record that is lost or
//! doubled is wrong, however many there are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use indicatif::ProgressIterator as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Bench;
use crate::figures::{Figures, at_least, at_most, exactly};
use crate::load::Repeated;
use crate::models::Models;
use crate::pair;
use crate::server::Server;

/// Kills of the crash test, and the records it needs for its word to count.
const KILLS: u32 = 200;
const RECORDS: f64 = 100_000.0;
/// Connections of its load.
const CONNECTIONS: usize = 8;
/// Answers in the middle of which a kill comes: between these.
const ANSWERS: std::ops::Range<u64> = 300..1_500;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    cost(bench, figures)?;
    crashes(bench, figures)
}

/// With the ledger over without, on the smallest model.
fn cost(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let subject = Models::matmul();
    let server = |config: &str| {
        let server = Server::start_with(bench, config)?;
        let key = server.admin.tenant("acme")?;
        let digest = server.admin.upload("acme", &subject.model)?;
        server.admin.register("acme", subject.name, &digest)?;
        let request = Repeated::infer(server.address, subject.name, &key, &subject)?;
        Ok::<_, anyhow::Error>((server, request))
    };
    let ratios = pair::compare(bench, &server("")?, &server("[ledger]\nenabled = false")?)?;
    figures.add("ledger_latency_ratio", ratios.latency, "ratio", at_most(1.2));
    figures.add("ledger_throughput_ratio", ratios.throughput, "ratio", at_least(0.95));
    figures.add("ledger_cpu_ratio", ratios.cpu, "ratio", at_most(1.25));
    Ok(())
}

/// Kills the server again and again in the middle of load; then every answer that reached a client has its record, once.
fn crashes(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let kills = if bench.quick { 5 } else { KILLS };
    let folder = tempfile::tempdir()?;
    let subject = Models::matmul();
    let mut server = Server::start_in(bench, folder.path(), "")?;
    let key = server.admin.tenant("acme")?;
    let digest = server.admin.upload("acme", &subject.model)?;
    server.admin.register("acme", subject.name, &digest)?;
    let mut answered: Vec<String> = Vec::new();
    for kill in (0..kills).progress() {
        let request = Repeated::infer(server.address, subject.name, &key, &subject)?;
        // Different ones, without dice: the moments of the kills are the scheduler's of this machine anyway.
        let answers = ANSWERS.start + u64::from(kill) * 37 % (ANSWERS.end - ANSWERS.start);
        answered.extend(until_killed(server, request.bytes(), answers)?);
        server = Server::start_in(bench, folder.path(), "")?;
    }
    reconcile(&server, folder.path(), &answered, kills, figures)
}

/// Sends load, kills the server after so many answers, and hands back the ids of all that came.
fn until_killed(server: Server, request: &[u8], answers: u64) -> Result<Vec<String>> {
    let address = server.address;
    let request: Arc<[u8]> = request.into();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
        let mut connections = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (request, sender) = (Arc::clone(&request), sender.clone());
            connections.spawn(async move {
                // Ends when the server does.
                let _ = ask(address, &request, |id| sender.send(id).is_ok()).await;
            });
        }
        drop(sender);
        let patience = Instant::now() + Duration::from_secs(60);
        let mut ids = Vec::new();
        let mut server = Some(server);
        // After the kill: what was on its way to the clients.
        while let Some(id) =
            tokio::time::timeout_at(patience.into(), received.recv()).await.context("the load stands still")?
        {
            ids.push(id);
            if ids.len() as u64 >= answers {
                drop(server.take());
            }
        }
        anyhow::ensure!(ids.len() as u64 >= answers, "the server ended by itself after {} answers", ids.len());
        Ok(ids)
    })
}

/// Asks again and again over one connection; tells the id of each whole answer.
async fn ask(address: SocketAddr, request: &[u8], tell: impl Fn(String) -> bool) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        stream.write_all(request).await?;
        buffer.clear();
        let id = loop {
            anyhow::ensure!(stream.read_buf(&mut buffer).await? > 0, "closed");
            if let Some(id) = whole_answer(&buffer)? {
                break id;
            }
        };
        if !tell(id) {
            return Ok(());
        }
    }
}

/// The request id of an answer that is there whole.
fn whole_answer(bytes: &[u8]) -> Result<Option<String>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
    anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "refused: {}", head.lines().next().unwrap_or_default());
    let header = |wanted: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let length: usize = header("content-length").context("an answer without a length")?.parse()?;
    let id = header("x-request-id").context("an answer without an id")?;
    Ok((bytes.len() >= end + 4 + length).then(|| id.to_owned()))
}

fn reconcile(server: &Server, folder: &Path, answered: &[String], kills: u32, figures: &mut Figures) -> Result<()> {
    let mut records: HashMap<String, Vec<String>> = HashMap::new();
    let (mut count, mut after) = (0_u64, String::new());
    loop {
        let page = server.admin.get(&format!("usage/records?limit=1000{after}"))?;
        let page = page.get("records").and_then(Value::as_array).context("no records")?;
        let Some(last) = page.last() else { break };
        after = format!("&after={}", text(last, "id")?);
        count += page.len() as u64;
        for record in page {
            if record.get("request_id").is_some() {
                records.entry(text(record, "request_id")?).or_default().push(text(record, "outcome")?);
            }
        }
    }
    let lost =
        answered.iter().filter(|id| !records.get(*id).is_some_and(|outcomes| outcomes.iter().any(|word| word == "ok")));
    let lost = lost.count();
    let doubled = records.values().filter(|outcomes| outcomes.len() > 1).count();
    let interrupted = records.values().flatten().filter(|word| *word == "interrupted").count();
    let sum = server.admin.get("usage")?;
    let sum = sum.pointer("/lines/0/attempts").and_then(Value::as_u64).context("no sum")?;
    let files = std::fs::read_dir(folder.join("data/ledger"))?.count();
    eprintln!(
        "{} answers reached a client, {count} records, {interrupted} of them interrupted; {files} files left",
        answered.len()
    );
    figures.add("ledger_kills", f64::from(kills), "count", at_least(f64::from(KILLS)));
    figures.add("ledger_records", count as f64, "count", at_least(RECORDS));
    figures.add("ledger_lost", lost as f64, "count", exactly(0.0));
    figures.add("ledger_doubled", doubled as f64, "count", exactly(0.0));
    figures.add("ledger_sum_difference", sum.abs_diff(count) as f64, "count", exactly(0.0));
    Ok(())
}

fn text(record: &Value, key: &str) -> Result<String> {
    Ok(record.get(key).and_then(Value::as_str).with_context(|| format!("a record without {key}"))?.to_owned())
}
