//! From nothing to the first answer: no worker, no loaded model, against the raw load and first run.
//!
//! Each round has a tenant of its own, so that no worker of its domain exists; the model's optimised form is the one its
//! registration made.

use std::time::{Duration, Instant};

use anyhow::Result;
use tenantry_engine::Runtime;

use crate::Bench;
use crate::figures::{Figures, at_most, median};
use crate::load::Repeated;
use crate::models::Subject;
use crate::raw::Raw;
use crate::server::Server;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let runtime = Runtime::open(&bench.models.library)?;
    let server = Server::start(bench)?;
    for (figure, subject) in [
        ("cold_first_answer_vs_raw_load_small", bench.models.file_type()?),
        ("cold_first_answer_vs_raw_load_embedding", bench.models.embedding()?),
    ] {
        let mut ratios = Vec::new();
        for round in 1..=bench.rounds {
            let (raw, cold) = one(&runtime, &server, &subject, round)?;
            eprintln!("{} round {round}: raw {raw:.1?}, cold {cold:.1?}", subject.name);
            ratios.push(cold.as_secs_f64() / raw.as_secs_f64());
        }
        figures.add(figure, median(ratios), "ratio", at_most(1.0));
    }
    Ok(())
}

fn one(runtime: &Runtime, server: &Server, subject: &Subject, round: u32) -> Result<(Duration, Duration)> {
    let mut raw = Raw::load(runtime, subject)?;
    let raw = raw.load + raw.run_once()?;
    let tenant = format!("cold-{}-{round}", subject.name);
    let key = server.admin.tenant(&tenant)?;
    let digest = server.admin.upload(&tenant, &subject.model)?;
    server.admin.register(&tenant, subject.name, &digest)?;
    let request = Repeated::infer(server.address, subject.name, &key, subject)?;
    let start = Instant::now();
    request.one_by_one(1)?;
    Ok((raw, start.elapsed()))
}
