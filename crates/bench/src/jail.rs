//! What the barriers around workers cost: a run inside over the same run outside, the time from the request for a worker
//! to its first word with each barrier left out, and the memory of a worker that does nothing.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags};
use tenantry_jail::{Exits, Layer, Layers, Spawner, WorkerProcess, WorkerSpec, WorkerStart};
use tenantry_wire::{Channel, FromWorker};

use crate::Bench;
use crate::figures::{Figures, at_most, median};
use crate::load::Repeated;
use crate::models::Models;
use crate::process::{SERVER_CPU, mib, on_cpu, private_bytes};
use crate::server::Server;

/// Nothing here takes this long.
const PATIENCE_S: i64 = 60;
/// Pairs of bursts in a round: short ones next to each other see the same machine.
const PAIRS: usize = 5;
/// Workers started in a round of each kind.
const STARTS: u32 = 5;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    inference(bench, figures)?;
    let worker = bench.tenantry.with_file_name("tenantry-worker");
    // The spawner dies with the thread that starts it, and is to run where servers do.
    let (spawner, exits) = on_cpu(SERVER_CPU, || Ok(Spawner::start(&worker)?))?;
    let workers = Workers { spawner, exits, library: &bench.models.library };
    starts(&workers, bench.rounds, figures)?;
    memory(&workers, figures)
}

/// One connection's round trips to a server with every barrier over those to one without any, side by side.
fn inference(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let names: Vec<String> = Layer::ALL.into_iter().map(|layer| format!("\"{layer}\"")).collect();
    let inside = Server::start(bench)?;
    let outside = Server::start_with(bench, &format!("without = [{}]", names.join(", ")))?;
    let subjects = [
        ("", bench.models.embedding()?, 1.03, 5),
        ("_small", bench.models.file_type()?, 1.03, 10),
        // Hardly anything but the two system calls of a run and what the filter adds to them.
        ("_tiny", Models::matmul(), 1.1, 200),
    ];
    for (suffix, subject, goal, runs) in subjects {
        let ask = |server: &Server| -> Result<Repeated> {
            let key = server.admin.tenant(&format!("jail-{}", subject.name))?;
            let digest = server.admin.upload(&format!("jail-{}", subject.name), &subject.model)?;
            server.admin.register(&format!("jail-{}", subject.name), subject.name, &digest)?;
            let request = Repeated::infer(server.address, subject.name, &key, &subject)?;
            request.one_by_one(3)?;
            Ok(request)
        };
        let (inside, outside) = (ask(&inside)?, ask(&outside)?);
        let rounds = if bench.quick { 1 } else { bench.rounds };
        let mut ratios = Vec::new();
        for pair in 0..PAIRS * rounds as usize {
            let burst = |request: &Repeated| -> Result<f64> {
                let seen = request.one_by_one(runs)?;
                Ok(median(seen.round_trips.iter().map(Duration::as_secs_f64).collect()))
            };
            let (with, without) = if pair % 2 == 0 {
                let with = burst(&inside)?;
                (with, burst(&outside)?)
            } else {
                let without = burst(&outside)?;
                (burst(&inside)?, without)
            };
            ratios.push(with / without);
        }
        figures.add(format!("jail_inference_ratio{suffix}"), median(ratios), "ratio", at_most(goal));
    }
    Ok(())
}

/// Workers made by a spawner of the bench's own: what the server adds is not measured.
struct Workers<'a> {
    spawner: Spawner,
    exits: Exits,
    library: &'a Path,
}

/// A worker that has said it is ready.
struct Ready {
    process: WorkerProcess,
    took: Duration,
    _channel: Channel,
}

impl Workers<'_> {
    fn possible(&self) -> Layers {
        self.spawner.barriers().in_force
    }

    fn start(&self, layers: Layers, start: WorkerStart) -> Result<Ready> {
        let spec = WorkerSpec {
            runtime_library: self.library.to_owned(),
            cpus: vec![SERVER_CPU],
            layers,
            start,
            ..WorkerSpec::default()
        };
        let (ours, theirs) = Channel::pair()?;
        let channel = Channel::new(ours);
        let stderr = rustix::io::dup(std::io::stderr())?;
        let asked = Instant::now();
        let process = self.spawner.spawn(&spec, theirs, stderr)?;
        readable(&channel).context("a worker does not become ready")?;
        match channel.recv()? {
            FromWorker::Ready { .. } => Ok(Ready { process, took: asked.elapsed(), _channel: channel }),
            other => anyhow::bail!("the first word of a worker is {other:?}"),
        }
    }

    /// Ends a worker, and waits for its end: the next one is to have the processor to itself.
    fn end(&self, worker: Ready) -> Result<()> {
        worker.process.kill()?;
        while self.exits.next()?.is_none() {
            readable(&self.exits).context("a worker does not end")?;
        }
        Ok(())
    }
}

fn readable(what: &impl AsFd) -> Result<()> {
    let limit = rustix::time::Timespec { tv_sec: PATIENCE_S, tv_nsec: 0 };
    let mut polled = [PollFd::new(what, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, Some(&limit)))?;
    anyhow::ensure!(ready == 1, "nothing in {PATIENCE_S} s");
    Ok(())
}

/// The kinds of start under comparison: all barriers, all but one, none, and all around a fork.
fn kinds(possible: Layers) -> Vec<(String, Layers, WorkerStart)> {
    let mut kinds = vec![("all".to_owned(), possible, WorkerStart::Exec)];
    for layer in possible.iter() {
        // A root of its own is made with the rights its namespaces give.
        let left = possible.without(layer);
        let left = if layer == Layer::Namespaces { left.without(Layer::Root) } else { left };
        kinds.push((format!("without_{layer}"), left, WorkerStart::Exec));
    }
    kinds.push(("without_any".to_owned(), Layers::NONE, WorkerStart::Exec));
    kinds.push(("zygote".to_owned(), possible, WorkerStart::Zygote));
    kinds
}

fn starts(workers: &Workers<'_>, rounds: u32, figures: &mut Figures) -> Result<()> {
    let kinds = kinds(workers.possible());
    // The library is in the page cache afterwards, and the spawner has become a zygote.
    for (_, layers, start) in &kinds {
        workers.end(workers.start(*layers, *start)?)?;
    }
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..rounds * STARTS {
        let mut order: Vec<_> = kinds.iter().collect();
        order.rotate_left(round as usize % kinds.len());
        for (name, layers, start) in order {
            let worker = workers.start(*layers, *start)?;
            times.entry(name).or_default().push(worker.took.as_secs_f64() * 1e3);
            workers.end(worker)?;
        }
    }
    let of = |name: &str| times.get(name).cloned().unwrap_or_default();
    let all = of("all");
    figures.add("start_to_ready", median(all.clone()), "ms", at_most(100.0));
    figures.add("start_to_ready_zygote", median(of("zygote")), "ms", at_most(25.0));
    for (name, ..) in kinds.iter().filter(|(name, ..)| name.starts_with("without")) {
        let saved = all.iter().zip(of(name)).map(|(all, without)| all - without).collect();
        figures.add(format!("start_to_ready_saved_{name}"), median(saved), "ms", at_most(10.0));
    }
    Ok(())
}

fn memory(workers: &Workers<'_>, figures: &mut Figures) -> Result<()> {
    for (name, start) in [("exec", WorkerStart::Exec), ("zygote", WorkerStart::Zygote)] {
        let worker = workers.start(workers.possible(), start)?;
        let pid = u32::try_from(worker.process.pid)?;
        let bytes = private_bytes(pid).context("the memory of a worker is its own secret: measure as root")?;
        figures.add(format!("idle_worker_memory_{name}"), mib(bytes), "MiB", at_most(8.0));
        workers.end(worker)?;
    }
    Ok(())
}
