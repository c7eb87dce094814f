//! The raw engine: the same library in this process, on the server's processor, with default session options.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tenantry_engine::{Form, InputTensor, Model, Runtime, SharedBytes, Source};
use tenantry_types::DataType;
use tenantry_types::model::EngineOptions;

use crate::Bench;
use crate::models::Subject;
use crate::process::{SERVER_CPU, on_cpu};
use crate::server::Server;

/// A model in this process.
pub(crate) struct Raw {
    model: Model,
    subject: Subject,
    /// How long the load took, from bytes to a session.
    pub(crate) load: Duration,
}

/// A model in this process, and a server with a tenant `acme` whose key comes along.
pub(crate) fn beside_server(bench: &Bench, subject: &Subject) -> Result<(Raw, Server, String)> {
    let raw = Raw::load(&Runtime::open(&bench.models.library)?, subject)?;
    let server = Server::start(bench)?;
    let key = server.admin.tenant("acme")?;
    Ok((raw, server, key))
}

impl Raw {
    pub(crate) fn load(runtime: &Runtime, subject: &Subject) -> Result<Self> {
        on_cpu(SERVER_CPU, || {
            let source = Source {
                form: Form::Source,
                model: Arc::new(subject.model.clone()) as SharedBytes,
                external: Vec::new(),
            };
            let start = Instant::now();
            let model = runtime.load(&source, &EngineOptions::default())?;
            Ok(Self { model, subject: subject.clone(), load: start.elapsed() })
        })
    }

    /// One row once: the first answer after a load.
    pub(crate) fn run_once(&mut self) -> Result<Duration> {
        let batch = Batch::of(&self.subject, 1);
        on_cpu(SERVER_CPU, || {
            let start = Instant::now();
            batch.run(&mut self.model)?;
            Ok(start.elapsed())
        })
    }

    /// The median time of one row.
    pub(crate) fn single(&mut self, times: u32) -> Result<Duration> {
        let batch = Batch::of(&self.subject, 1);
        on_cpu(SERVER_CPU, || {
            let mut times: Vec<Duration> = (0..times)
                .map(|_| {
                    let start = Instant::now();
                    batch.run(&mut self.model)?;
                    Ok(start.elapsed())
                })
                .collect::<Result<_>>()?;
            times.sort_unstable();
            times.get(times.len() / 2).copied().context("no runs")
        })
    }

    /// The batch of 1 to 32 rows with the most rows a second.
    pub(crate) fn best_batch(&mut self) -> Result<u64> {
        let mut best = (1, 0.0);
        for rows in [1, 2, 4, 8, 16, 32] {
            // Twice, because the first run of a shape allocates.
            self.rows_per_second(rows, Duration::ZERO)?;
            let speed = self.rows_per_second(rows, Duration::from_millis(800))?;
            if speed > best.1 {
                best = (rows, speed);
            }
        }
        Ok(best.0)
    }

    /// Rows a second in batches of `rows`, over at least `time` (and at least one batch).
    pub(crate) fn rows_per_second(&mut self, rows: u64, time: Duration) -> Result<f64> {
        let batch = Batch::of(&self.subject, rows);
        on_cpu(SERVER_CPU, || {
            let start = Instant::now();
            let mut done = 0;
            loop {
                batch.run(&mut self.model)?;
                done += rows;
                let elapsed = start.elapsed();
                if elapsed >= time {
                    return Ok(done as f64 / elapsed.as_secs_f64());
                }
            }
        })
    }
}

/// A subject's row, repeated.
struct Batch {
    inputs: Vec<Input>,
}

struct Input {
    index: u16,
    datatype: DataType,
    shape: Vec<u64>,
    /// The data, padded to whole words.
    words: Vec<u64>,
    length: usize,
}

impl Batch {
    fn of(subject: &Subject, rows: u64) -> Self {
        let inputs = subject
            .row
            .iter()
            .enumerate()
            .map(|(index, tensor)| {
                let row = tensor.data.to_contiguous();
                let bytes: Vec<u8> = std::iter::repeat_n(&row[..], rows as usize).flatten().copied().collect();
                let length = bytes.len();
                // Words, so that the data is aligned for any element type.
                let mut words = vec![0_u64; length.div_ceil(8)];
                for (to, from) in bytemuck::cast_slice_mut::<u64, u8>(&mut words).iter_mut().zip(bytes) {
                    *to = from;
                }
                let shape =
                    tensor.shape.iter().enumerate().map(|(axis, extent)| extent * if axis == 0 { rows } else { 1 });
                Input { index: index as u16, datatype: tensor.datatype, shape: shape.collect(), words, length }
            })
            .collect();
        Self { inputs }
    }

    fn run(&self, model: &mut Model) -> Result<()> {
        let inputs: Vec<InputTensor<'_>> = self
            .inputs
            .iter()
            .map(|input| InputTensor {
                index: input.index,
                datatype: input.datatype,
                shape: &input.shape,
                data: bytemuck::cast_slice(&input.words).get(..input.length).unwrap_or_default(),
            })
            .collect();
        std::hint::black_box(model.run(&inputs, &[])?);
        Ok(())
    }
}
