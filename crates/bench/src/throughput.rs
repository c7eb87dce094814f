//! Saturated throughput through HTTP as a fraction of the raw engine's.

use std::time::Duration;

use anyhow::Result;
use tenantry_engine::Runtime;

use crate::Bench;
use crate::figures::{Figures, at_least, median};
use crate::load::Repeated;
use crate::models::Subject;
use crate::raw::Raw;
use crate::server::Server;

/// Connections of the flood: enough to keep every batch full.
const CONNECTIONS: usize = 32;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let runtime = Runtime::open(&bench.models.library)?;
    let server = Server::start(bench)?;
    let key = server.admin.tenant("acme")?;
    for (figure, subject) in
        [("throughput_embedding_vs_raw", bench.models.embedding()?), ("throughput_image_vs_raw", bench.models.image()?)]
    {
        let ratio = one(bench, &runtime, &server, &key, &subject)?;
        figures.add(figure, ratio, "ratio", at_least(0.95));
    }
    Ok(())
}

fn one(bench: &Bench, runtime: &Runtime, server: &Server, key: &str, subject: &Subject) -> Result<f64> {
    let digest = server.admin.upload("acme", &subject.model)?;
    let version = server.admin.register("acme", subject.name, &digest)?;
    let best = version.pointer("/profile/best_batch").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let request = Repeated::infer(server.address, subject.name, key, subject)?;
    let mut raw = Raw::load(runtime, subject)?;
    let raw_best = raw.best_batch()?;
    eprintln!("{}: best batch {raw_best} raw, {best} as registered", subject.name);
    let time = Duration::from_secs(u64::from(bench.seconds));
    // Loads the model, and fills the server's caches as the raw engine's are full.
    request.flood(CONNECTIONS, Duration::from_secs(1))?;
    let mut ratios = Vec::new();
    for round in 1..=bench.rounds {
        let raw_rows = raw.rows_per_second(raw_best, time)?;
        let served_rows = request.flood(CONNECTIONS, time)?.per_second();
        eprintln!("  round {round}: raw {raw_rows:.1} rows/s, served {served_rows:.1} rows/s");
        ratios.push(served_rows / raw_rows);
    }
    Ok(median(ratios))
}
