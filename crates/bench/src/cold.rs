//! From nothing to the first answer: no worker, no loaded model, against the raw load and first run; with workers that
//! are executed and with workers that are forked from a zygote.
//!
//! Each round has a tenant of its own, so that no worker of its domain exists; the model's optimised form is the one its
//! registration made. Both servers run all the time, and who goes first changes from round to round.

use std::time::{Duration, Instant};

use anyhow::Result;
use tenantry_engine::Runtime;

use crate::Bench;
use crate::figures::{Figures, at_most, median};
use crate::load::Repeated;
use crate::models::Subject;
use crate::pair::in_turn;
use crate::raw::Raw;
use crate::server::Server;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let runtime = Runtime::open(&bench.models.library)?;
    let servers = [Server::start(bench)?, Server::start_with(bench, "start = \"zygote\"")?];
    for (name, subject) in [("small", bench.models.file_type()?), ("embedding", bench.models.embedding()?)] {
        let (mut against_raw, mut against_exec) = (Vec::new(), Vec::new());
        for round in 1..=bench.rounds {
            let raw = Raw::load(&runtime, &subject).and_then(|mut raw| Ok(raw.load + raw.run_once()?))?;
            let [exec, zygote] = in_turn(&servers, round, |server| first_answer(server, &subject, round))?;
            eprintln!("{} round {round}: raw {raw:.1?}, executed {exec:.1?}, forked {zygote:.1?}", subject.name);
            against_raw.push(exec.as_secs_f64() / raw.as_secs_f64());
            against_exec.push(zygote.as_secs_f64() / exec.as_secs_f64());
        }
        figures.add(format!("cold_first_answer_vs_raw_load_{name}"), median(against_raw), "ratio", at_most(1.0));
        figures.add(format!("cold_{name}_zygote_vs_exec"), median(against_exec), "ratio", at_most(0.9));
    }
    Ok(())
}

/// The first answer of a model that was registered and is loaded nowhere.
pub(crate) fn first_answer(server: &Server, subject: &Subject, round: u32) -> Result<Duration> {
    let tenant = format!("cold-{}-{round}", subject.name);
    let key = server.admin.tenant(&tenant)?;
    let digest = server.admin.upload(&tenant, &subject.model)?;
    server.admin.register(&tenant, subject.name, &digest)?;
    let request = Repeated::infer(server.address, subject.name, &key, subject)?;
    let start = Instant::now();
    request.one_by_one(1)?;
    Ok(start.elapsed())
}
