//! The worker process: wire in, engine, wire out.
//!
//! One thread reads a frame, does what it says, answers, and waits for the next. A run costs two system calls, `recvmsg`
//! and `send`: inputs are read where they lie in the arena, outputs are copied into it once. Another thread only waits for
//! the node's word that a run is to end.
//!
//! The runtime library is loaded first, before the first byte of a tenant's arrives. The worker knows no path of a
//! model, holds no credential, and writes nothing but frames (and its last words to stderr).

#![forbid(unsafe_code)]

mod directory;
mod pipeline;
mod replicas;
mod terminations;
mod worker;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use tenantry_engine::Runtime;
use tenantry_jail::{Layer, Layers};
use tenantry_wire::Channel;

use terminations::Current;
use worker::{End, Worker};

/// The machine is not set up: no runtime library, no socket (`EX_CONFIG`).
const EXIT_CONFIG: u8 = 78;
/// The node sent something that is not a frame (`EX_PROTOCOL`).
const EXIT_PROTOCOL: u8 = 76;

/// Loads the runtime library ahead of [`work`], in the process that workers are then forked from. Starts no thread.
///
/// # Errors
/// Why it cannot be loaded, for the operator.
pub fn prepare(library: &Path) -> Result<(), String> {
    Runtime::open(library).map(|_| ()).map_err(|error| error.to_string())
}

/// The body of `tenantry-worker work`, and of a forked worker: puts up the barriers, and serves frames until the node says `Exit`
/// or is gone. Answers the exit code.
pub fn work(library: &Path, layers: Layers) -> u8 {
    let channel = match Channel::inherited(tenantry_jail::WORKER_CHANNEL_FD).context("this is not a worker's place") {
        Ok(channel) => channel,
        Err(error) => return complain(&error),
    };
    // Whoever closes the channel is dead to the server, which makes it true at once: first the reason, then the end.
    let mut worker = match start(library, layers) {
        Ok((runtime, current)) => Worker::new(channel, runtime, current, layers),
        Err(error) => return complain(&error),
    };
    match worker.serve() {
        End::Asked => 0,
        End::Protocol(error) => {
            eprintln!("{error}");
            EXIT_PROTOCOL
        }
    }
}

fn complain(error: &anyhow::Error) -> u8 {
    eprintln!("{error:#}");
    EXIT_CONFIG
}

fn start(library: &Path, layers: Layers) -> anyhow::Result<(Runtime, Arc<Current>)> {
    // Its code has to be mapped, which is forbidden afterwards; it starts no thread.
    let runtime = Runtime::open(library)?;
    if !layers.has(Layer::Root) {
        directory::enter_empty().context("no empty directory to work in")?;
    }
    tenantry_jail::lock_down(layers)?;
    Ok((runtime, Current::new(runtime)?))
}
