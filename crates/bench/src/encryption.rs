//! What encryption at rest costs: the first answer of a model that is loaded nowhere, and the upload of a large file.
//!
//! The baseline: the same server with `encryption.enabled = false`, in alternation. Each round has tenants of its own, so that no
//! worker of theirs exists and nothing of theirs is decrypted already. All files lie in the page cache, which is where encryption
//! shows most: a disk would take longer for both.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Bench;
use crate::figures::{Figures, at_most, median};
use crate::load::Repeated;
use crate::models::Subject;
use crate::server::Server;

/// What is uploaded.
const UPLOAD_BYTES: usize = 64 << 20;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let servers = [Server::start(bench)?, Server::start_with(bench, "[encryption]\nenabled = false")?];
    let subjects = [("small", bench.models.file_type()?, 1.1), ("embedding", bench.models.embedding()?, 1.25)];
    for (name, subject, goal) in subjects {
        let mut ratios = Vec::new();
        for round in 1..=bench.rounds {
            let [sealed, plain] = in_turn(&servers, round, |server| first_answer(server, &subject, round))?;
            eprintln!("{} round {round}: encrypted {sealed:.1?}, plain {plain:.1?}", subject.name);
            ratios.push(sealed.as_secs_f64() / plain.as_secs_f64());
        }
        figures.add(format!("encryption_cold_first_answer_ratio_{name}"), median(ratios), "ratio", at_most(goal));
    }
    let mut ratios = Vec::new();
    for round in 1..=bench.rounds {
        // Bytes that are nowhere yet.
        let content: Vec<u8> = (0..UPLOAD_BYTES).map(|at| (at >> 3) as u8 ^ round as u8).collect();
        let [sealed, plain] = in_turn(&servers, round, |server| {
            let tenant = format!("upload-{round}");
            server.admin.tenant(&tenant)?;
            let start = Instant::now();
            server.admin.upload(&tenant, &content)?;
            Ok(start.elapsed())
        })?;
        eprintln!("upload round {round}: encrypted {sealed:.1?}, plain {plain:.1?}");
        ratios.push(sealed.as_secs_f64() / plain.as_secs_f64());
    }
    figures.add("encryption_upload_ratio", median(ratios), "ratio", at_most(1.25));
    Ok(())
}

/// The same on both servers; who goes first changes from round to round.
fn in_turn(
    servers: &[Server; 2],
    round: u32,
    mut measure: impl FnMut(&Server) -> Result<Duration>,
) -> Result<[Duration; 2]> {
    let mut times = [Duration::ZERO; 2];
    let mut order: Vec<_> = servers.iter().zip(&mut times).collect();
    if round.is_multiple_of(2) {
        order.reverse();
    }
    for (server, time) in order {
        *time = measure(server)?;
    }
    Ok(times)
}

/// The first answer of a model that was registered and is loaded nowhere.
fn first_answer(server: &Server, subject: &Subject, round: u32) -> Result<Duration> {
    let tenant = format!("sealed-{}-{round}", subject.name);
    let key = server.admin.tenant(&tenant)?;
    let digest = server.admin.upload(&tenant, &subject.model)?;
    server.admin.register(&tenant, subject.name, &digest)?;
    let request = Repeated::infer(server.address, subject.name, &key, subject)?;
    let start = Instant::now();
    request.one_by_one(1)?;
    Ok(start.elapsed())
}
