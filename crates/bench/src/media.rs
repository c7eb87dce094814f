//! What pipelines cost, and whom: pictures of 20 megapixels beside another tenant's load, and the server's own processor
//! time a request, which decoding and tokenising must not touch.
//!
//! The baselines: the victim alone, in turns with the pictures; the same sentence as tokens made by the client.

use std::io::Cursor;
use std::time::Duration;

use anyhow::{Context as _, Result};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::json;
use tenantry_load::StreamReport;
use tenantry_types::{DataType, Tensor};

use crate::Bench;
use crate::figures::{Figures, at_least, at_most, exactly};
use crate::load::{Repeated, ensure_answered, send};
use crate::models::{Models, Subject, tensor};
use crate::process;
use crate::server::Server;

/// The victim's requests a second.
const RATE: f64 = 80.0;
/// Load before a window counts.
const SETTLE: Duration = Duration::from_secs(1);
/// The victim's answers after this are late; nothing depends on it but a line of the report.
const LATE: Duration = Duration::from_millis(100);
/// 20 megapixels, as a camera has them.
const PICTURE: (u32, u32) = (5472, 3648);
/// A sentence of some length, and about as many tokens as the tokenizer cuts it into.
const SENTENCE: &str =
    "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun until the evening comes.";

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    beside_pictures(bench, figures)?;
    of_the_server(bench, figures)
}

/// Windows of a guaranteed tenant's steady load, alone and beside pictures as fast as the server takes them, in turns.
fn beside_pictures(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let (rounds, seconds) = if bench.quick { (2, 4) } else { (6, 12) };
    let server = Server::start(bench)?;
    let subject = Models::matmul();
    let key = server.admin.tenant("victim")?;
    server.admin.settle("victim", &json!({"tier": "guaranteed", "reservation": {"slots": 0.3}}))?;
    let digest = server.admin.upload("victim", &subject.model)?;
    server.admin.register("victim", subject.name, &digest)?;
    let victim = Repeated::infer(server.address, subject.name, &key, &subject)?;
    victim.one_by_one(20)?;

    let pictures = picture_subject(bench)?;
    let key = server.admin.tenant("photographer")?;
    server.admin.register_archive("photographer", pictures.name, &pictures.model)?;
    let pictures = Repeated::infer(server.address, pictures.name, &key, &pictures)?;
    pictures.one_by_one(2)?;

    let (mut quiet, mut beside) = (StreamReport::new(String::new()), StreamReport::new(String::new()));
    let (mut decoded, mut own_cpu, mut all_cpu) = (0, Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        let stream = |seed| victim.open("victim", RATE, seed, LATE);
        let window = Duration::from_secs(seconds);
        quiet.merge(&send(vec![stream(round * 2 + 1)], SETTLE, window)?.pop().context("no report")?);
        let mut seen = send(vec![stream(round * 2 + 2), pictures.closed("pictures", 2)], SETTLE, window)?;
        let of_pictures = seen.pop().context("no report")?;
        ensure_answered(&of_pictures)?;
        decoded += of_pictures.answered;
        beside.merge(&seen.pop().context("no report")?);
        // Pictures alone, for what they cost the server's own threads.
        let before = (process::own_cpu_time(server.pid())?, process::cpu_time(server.pid()));
        pictures.one_by_one(5)?;
        own_cpu += process::own_cpu_time(server.pid())?.saturating_sub(before.0);
        all_cpu += process::cpu_time(server.pid()).saturating_sub(before.1);
        eprintln!("round {} of {rounds}", round + 1);
    }
    for (what, seen) in [("alone", &quiet), ("beside pictures", &beside)] {
        let at = |part| seen.latency.quantile(part).as_secs_f64() * 1e3;
        eprintln!("victim {what:16} {} requests, p50 {:.2} ms, p99 {:.2} ms", seen.due, at(0.5), at(0.99));
    }
    let errors = |seen: &StreamReport| seen.refusals() + seen.failures();
    let ratio = |part| beside.latency.quantile(part).as_secs_f64() / quiet.latency.quantile(part).as_secs_f64();
    figures.add("pictures_decoded", decoded as f64, "count", at_least(50.0));
    figures.add("pictures_victim_errors", (errors(&quiet) + errors(&beside)) as f64, "count", exactly(0.0));
    figures.add("pictures_victim_p50_ratio", ratio(0.5), "ratio", at_most(1.5));
    figures.add("pictures_victim_p99_ratio", ratio(0.99), "ratio", at_most(1.5));
    let share = own_cpu.as_secs_f64() / all_cpu.as_secs_f64();
    figures.add("picture_server_cpu_share", share, "ratio", at_most(0.1));
    Ok(())
}

/// The server's own processor time a request: a sentence, over the same sentence as tokens.
fn of_the_server(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let requests = if bench.quick { 40 } else { 200 };
    let server = Server::start(bench)?;
    let key = server.admin.tenant("writer")?;
    let tokens = bench.models.embedding()?;
    let digest = server.admin.upload("writer", &tokens.model)?;
    server.admin.register("writer", tokens.name, &digest)?;
    let sentences = sentence_subject(bench)?;
    server.admin.register_archive("writer", sentences.name, &sentences.model)?;
    let ask = |subject: &Subject| Repeated::infer(server.address, subject.name, &key, subject);
    let pair = [ask(&sentences)?, ask(&tokens)?];
    let mut ratios = Vec::new();
    for round in 0..=bench.rounds {
        let mut spent = [0.0; 2];
        for (request, spent) in pair.iter().zip(&mut spent) {
            let before = process::own_cpu_time(server.pid())?;
            request.one_by_one(requests)?;
            *spent = process::own_cpu_time(server.pid())?.saturating_sub(before).as_secs_f64();
        }
        // The first round only warms up.
        if round > 0 {
            ratios.push(spent[0] / spent[1]);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().context("no rounds")?;
    figures.add("sentence_server_cpu_ratio", middle, "ratio", at_most(1.1));
    Ok(())
}

/// The picture model as the demo has it, and a file of 20 megapixels.
fn picture_subject(bench: &Bench) -> Result<Subject> {
    let (width, height) = PICTURE;
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let noise = (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 27;
        Rgb([(x / 22) as u8 ^ noise as u8, (y / 15) as u8, ((x + y) / 36) as u8])
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Jpeg)?;
    let manifest = include_str!("../../../examples/picture-safety/tenantry.toml");
    let labels = include_str!("../../../examples/picture-safety/labels.txt");
    let model = bench.models.image()?.model;
    let files = [("model.onnx", &model[..]), ("tenantry.toml", manifest.as_bytes()), ("labels.txt", labels.as_bytes())];
    Ok(Subject { name: "pictures", model: archive(&files)?, row: vec![text("image", &file.into_inner())] })
}

/// The sentence model as the demo has it.
fn sentence_subject(bench: &Bench) -> Result<Subject> {
    let manifest = include_str!("../../../examples/sentences/tenantry.toml");
    let (model, tokenizer) = (bench.models.embedding()?.model, bench.models.read("minilm/tokenizer.json")?);
    let files = [("model.onnx", &model[..]), ("tenantry.toml", manifest.as_bytes()), ("tokenizer.json", &tokenizer)];
    Ok(Subject { name: "sentences", model: archive(&files)?, row: vec![text("text", SENTENCE.as_bytes())] })
}

fn text(name: &str, element: &[u8]) -> Tensor {
    let data = [&(element.len() as u32).to_le_bytes(), element].concat();
    tensor(name, DataType::Bytes, &[1], data)
}

fn archive(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content)?;
    }
    Ok(archive.into_inner()?)
}
