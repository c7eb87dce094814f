//! Memory: private bytes of processes, as `smaps_rollup` counts them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::ProgressBar;
use serde_json::Value;

use crate::Bench;
use crate::figures::{Figures, at_most};
use crate::load::Repeated;
use crate::models::{Models, Subject};
use crate::process::{mib, private_bytes};
use crate::server::Server;

/// Copies loaded for the figures of further copies.
const COPIES: u32 = 5;
/// How long a worker is left alone before its memory is read: longer than it waits before it trims its heap.
const SETTLE: Duration = Duration::from_millis(1500);
/// Registrations asked for ahead of the one waited for.
const AHEAD: u32 = 8;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    copies(bench, figures)?;
    large_registry(bench, figures)
}

/// Further copies of the 3 MiB model: in one worker, and in workers of their own.
fn copies(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let server = Server::start(bench)?;
    let subject = bench.models.file_type()?;
    let owner_key = server.admin.tenant("owner")?;
    let digest = server.admin.upload("owner", &subject.model)?;

    let mut in_one = Vec::new();
    for copy in 0..=COPIES {
        let model = format!("copy-{copy}");
        server.admin.register("owner", &model, &digest)?;
        Repeated::infer(server.address, &model, &owner_key, &subject)?.one_by_one(3)?;
        std::thread::sleep(SETTLE);
        let [worker] = workers(&server)?[..] else { anyhow::bail!("one domain has not exactly one worker") };
        in_one.push(private_bytes(worker)?);
    }
    // From the second copy on: the first pages in the library and its tables as well.
    eprintln!("private bytes of one worker by copies: {in_one:?}");
    figures.add("memory_copy_same_domain", growth(in_one.get(1..).unwrap_or_default()), "MiB", at_most(1.0));

    // Shared by an ordinary tenant, a model runs for each caller in a worker of that pair.
    server.admin.share("owner", "copy-0")?;
    let mut own = Vec::new();
    let known = workers(&server)?;
    for caller in 0..COPIES {
        let key = server.admin.tenant(&format!("caller-{caller}"))?;
        Repeated::infer(server.address, "owner/copy-0", &key, &subject)?.one_by_one(3)?;
    }
    std::thread::sleep(SETTLE);
    for worker in workers(&server)?.into_iter().filter(|worker| !known.contains(worker)) {
        own.push(private_bytes(worker)?);
    }
    anyhow::ensure!(own.len() == COPIES as usize, "{} workers for {COPIES} domains", own.len());
    eprintln!("private bytes of workers of their own: {own:?}");
    figures.add("memory_copy_own_domain", mib(own.iter().sum::<u64>() / u64::from(COPIES)), "MiB", at_most(8.0));

    figures.add("memory_idle_worker", idle_worker(&server)?, "MiB", at_most(8.0));
    Ok(())
}

/// A worker whose only model was unloaded.
fn idle_worker(server: &Server) -> Result<f64> {
    let subject = Models::matmul();
    let key = server.admin.tenant("idler")?;
    let before = workers(server)?;
    let digest = server.admin.upload("idler", &subject.model)?;
    server.admin.register("idler", subject.name, &digest)?;
    server.admin.unload_when_idle("idler", subject.name)?;
    Repeated::infer(server.address, subject.name, &key, &subject)?.one_by_one(1)?;
    // Asked until it says so; a worker without a model is kept for a while before it is ended.
    for _ in 0..200 {
        let empty = worker_list(server)?.into_iter().find(|worker| {
            let pid = worker.get("pid").and_then(Value::as_u64).unwrap_or(0) as u32;
            worker.get("replicas") == Some(&Value::from(0)) && pid != 0 && !before.contains(&pid)
        });
        if let Some(pid) = empty.and_then(|worker| worker.get("pid").and_then(Value::as_u64)) {
            return Ok(mib(private_bytes(pid as u32)?));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    anyhow::bail!("the idle model was not unloaded within 20 s")
}

/// The server with many registered models, none of them loaded.
fn large_registry(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let server = Server::start(bench)?;
    let empty = private_bytes(server.pid())?;
    let Subject { model, .. } = Models::matmul();
    server.admin.tenant("crowd")?;
    let digest = server.admin.upload("crowd", &model)?;
    let bar = ProgressBar::new(u64::from(bench.registry_models));
    for index in 0..bench.registry_models + AHEAD {
        if index < bench.registry_models {
            server.admin.register_later("crowd", &format!("model-{index}"), &digest)?;
        }
        if let Some(behind) = index.checked_sub(AHEAD) {
            server.admin.wait_ready("crowd", &format!("model-{behind}"))?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let full = private_bytes(server.pid())?;
    eprintln!("server: {:.1} MiB empty, {:.1} MiB with {} models", mib(empty), mib(full), bench.registry_models);
    figures.add("memory_server_1000_models", mib(full), "MiB", at_most(64.0));
    let each = full.saturating_sub(empty) as f64 / f64::from(bench.registry_models) / 1024.0;
    figures.add("memory_per_registered_model", each, "KiB", at_most(32.0));
    Ok(())
}

fn worker_list(server: &Server) -> Result<Vec<Value>> {
    let status = server.admin.get("status")?;
    status.get("workers").and_then(Value::as_array).cloned().context("the status has no workers")
}

/// Process ids of the workers that serve.
fn workers(server: &Server) -> Result<Vec<u32>> {
    let serves = |worker: &Value| worker.get("registration") != Some(&Value::from(true));
    let pid = |worker: &Value| worker.get("pid").and_then(Value::as_u64).map(|pid| pid as u32);
    Ok(worker_list(server)?.iter().filter(|worker| serves(worker)).filter_map(pid).collect())
}

/// Growth from the first value to the last, per step, MiB.
fn growth(values: &[u64]) -> f64 {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return 0.0 };
    mib(last.saturating_sub(*first)) / (values.len().saturating_sub(1)).max(1) as f64
}
