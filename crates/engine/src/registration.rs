//! Registration: everything worth knowing about a model file, found out once.
//!
//! 1. Load the file as uploaded, timed: can it be served at all, what are its inputs and outputs?
//! 2. Rewrite it into the optimised form, which later loads map read-only, and load that.
//! 3. Warm up on made-up inputs. A valid model may load and then fail at every run because of one of the runtime's own
//!    rewrites; then rewrite it less.
//! 4. Profile: which batch size pays, and does the copy of the weights in the processor's layout pay for its memory?
//!
//! The caller holds the deadline: a hostile file can make step 1 last forever, and nothing but SIGKILL ends that.

mod profile;
mod synthetic;

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use tenantry_types::model::{EngineOptions, Optimization, Profile, Registration, VersionSettings};

use crate::memory::{anonymous_bytes, trim};
use crate::model::Model;
use crate::runtime::{Form, LoadError, Runtime, SharedBytes, Source};
use synthetic::{Choice, Inputs};

/// How long looking for inputs may take.
const WARM_UP_LIMIT: Duration = Duration::from_secs(3);
/// How long profiling may take, but for the run that is under way when time is up.
const PROFILE_LIMIT: Duration = Duration::from_secs(5);
/// Prepacking stays on when runs without it are slower by more than this, percent.
const PREPACK_PERCENT: u64 = 5;
/// Pairs of runs compared to find that out.
const PREPACK_RUNS: usize = 15;

/// A registration's result.
struct Prepared {
    options: EngineOptions,
    model: Model,
    source: Source,
    bytes: u64,
    choice: Option<Choice>,
}

/// Registers the ONNX model `source`: writes its optimised form into `optimised` and maps it through `map`, which gets
/// the number of bytes written. `look` sees the model as it was uploaded, loaded. Returns what was found out and the number.
///
/// # Errors
/// See [`LoadError`]; then the version is to be refused with the error's text.
pub fn register(
    runtime: Runtime,
    source: &Source,
    settings: &VersionSettings,
    optimised: BorrowedFd<'_>,
    map: &dyn Fn(u64) -> std::io::Result<SharedBytes>,
    look: &mut dyn FnMut(&Model),
) -> Result<(Registration, u64), LoadError> {
    let asked = EngineOptions {
        threads: settings.threads.unwrap_or(1).max(1),
        optimization: settings.optimization.unwrap_or_default(),
        disabled_optimizers: settings.disabled_optimizers.clone(),
        prepack: settings.prepack.unwrap_or(true),
    };
    let (model, load_ns) = timed(|| runtime.load(source, &asked))?;
    let (signature, metadata) = (model.signature().clone(), model.metadata()?);
    look(&model);
    drop(model);

    let prepare = |options: EngineOptions| -> Result<Prepared, LoadError> {
        let bytes = runtime.optimise(source, &options, optimised)?;
        let mapped = map(bytes).map_err(|error| LoadError::OutOfMemory(error.kind().to_string()))?;
        let source = Source { form: Form::Optimised, model: mapped, external: Vec::new() };
        let mut model = runtime.load(&source, &options)?;
        let choice = synthetic::find_choice(&mut model, Instant::now() + WARM_UP_LIMIT);
        Ok(Prepared { options, model, source, bytes, choice })
    };
    let mut prepared = prepare(asked.clone())?;
    if prepared.choice.is_none() && settings.optimization.is_none() {
        // First, because the lesser form overwrites the file that this one maps.
        drop(prepared);
        let less = prepare(EngineOptions { optimization: Optimization::Basic, ..asked.clone() });
        prepared = match less {
            Ok(less) if less.choice.is_some() => less,
            // No level helps, so it is the inputs that cannot be guessed.
            no_better => {
                drop(no_better);
                prepare(asked)?
            }
        };
    }
    let Prepared { mut options, mut model, source, bytes, choice } = prepared;

    let until = Instant::now() + PROFILE_LIMIT;
    let mut can_batch = signature.has_batch_axis();
    let (mut points, mut best_batch) = (Vec::new(), 1);
    if let Some(choice) = &choice {
        can_batch = can_batch && profile::rows_are_independent(&mut model, choice);
        if settings.prepack.is_none() && !prepacking_pays(runtime, &source, &options, &mut model, choice, until) {
            options.prepack = false;
            model = runtime.load(&source, &options)?;
        }
        points = profile::measure(&mut model, &options, choice, can_batch, until);
        best_batch = profile::best_batch(&points);
    }
    drop(model);

    trim();
    let before = anonymous_bytes();
    let (model, optimised_load_ns) = timed(|| runtime.load(&source, &options))?;
    trim();
    let resident_bytes = grown(before);
    drop(model);

    let profile = Profile {
        runtime: runtime.version().to_owned(),
        options,
        load_ns,
        optimised_load_ns,
        resident_bytes,
        optimised_bytes: bytes,
        best_batch,
        points,
    };
    Ok((Registration { signature, pipeline: None, metadata, can_batch, profile }, bytes))
}

/// How much anonymous memory this process has more than `before`; 0 where the kernel does not say.
fn grown(before: Option<u64>) -> u64 {
    anonymous_bytes().unwrap_or(0).saturating_sub(before.unwrap_or(u64::MAX))
}

fn timed<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<(T, u64), LoadError> {
    let started = Instant::now();
    let loaded = load()?;
    Ok((loaded, u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX)))
}

/// Whether `packed`, loaded with prepacking, runs faster than the same model without by more than a few percent.
/// Measured in alternation, so that a neighbour's noise meets both.
fn prepacking_pays(
    runtime: Runtime,
    source: &Source,
    options: &EngineOptions,
    packed: &mut Model,
    choice: &Choice,
    until: Instant,
) -> bool {
    let Ok(mut unpacked) = runtime.load(source, &EngineOptions { prepack: false, ..options.clone() }) else {
        return true;
    };
    let Some(inputs) = Inputs::new(packed.signature(), choice, 0, 1) else { return true };
    let clock = profile::RunClock::of(options);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    // The first pair only warms up.
    for pair in 0..=PREPACK_RUNS {
        let (Ok(packed_ns), Ok(unpacked_ns)) = (clock.run_ns(packed, &inputs), clock.run_ns(&mut unpacked, &inputs))
        else {
            return true;
        };
        if pair > 0 {
            with.push(packed_ns);
            without.push(unpacked_ns);
        }
        if pair > 2 && Instant::now() > until {
            break;
        }
    }
    let (with, without) = (profile::median(&mut with), profile::median(&mut without));
    without.saturating_mul(100) > with.saturating_mul(100 + PREPACK_PERCENT)
}

#[cfg(test)]
mod tests;
