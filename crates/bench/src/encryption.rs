//! What encryption at rest costs: the first answer of a model that is loaded nowhere, and the upload of a large file.
//!
//! The baseline: the same server with `encryption.enabled = false`, in alternation. Each round has tenants of its own, so that no
//! worker of theirs exists and nothing of theirs is decrypted already. All files lie in the page cache, which is where encryption
//! shows most: a disk would take longer for both.

use std::time::Instant;

use anyhow::Result;

use crate::Bench;
use crate::cold::first_answer;
use crate::figures::{Figures, at_most, median};
use crate::pair::in_turn;
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
