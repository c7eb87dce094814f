//! Session options, from the words of the house to the runtime's.

use std::ffi::CString;
use std::path::Path;

use ort::sys;
use tenantry_types::model::{EngineOptions, Optimization};

use crate::handle::{Failure, Owned, api, check};
use crate::runtime::Form;

/// What a session is made for.
#[derive(Clone, Copy)]
pub(crate) enum Purpose<'a> {
    /// To run.
    Run(Form),
    /// To write the optimised form of an ONNX file to this path.
    Optimise(&'a Path),
}

/// Builds the options of one session.
pub(crate) fn session_options(
    options: &EngineOptions,
    purpose: Purpose<'_>,
) -> Result<Owned<sys::OrtSessionOptions>, Failure> {
    // SAFETY: on success the function stores fresh options that belong to the caller.
    let built = unsafe { Owned::create(api().ReleaseSessionOptions, |out| (api().CreateSessionOptions)(out)) }?;
    let ptr = built.as_ptr();
    let level = match options.optimization {
        Optimization::Disabled => sys::GraphOptimizationLevel::ORT_DISABLE_ALL,
        Optimization::Basic => sys::GraphOptimizationLevel::ORT_ENABLE_BASIC,
        Optimization::Extended => sys::GraphOptimizationLevel::ORT_ENABLE_EXTENDED,
        Optimization::All => sys::GraphOptimizationLevel::ORT_ENABLE_ALL,
    };
    // SAFETY: `ptr` is valid for as long as `built`; the other arguments are plain numbers.
    unsafe {
        check((api().SetSessionGraphOptimizationLevel)(ptr, level))?;
        check((api().SetIntraOpNumThreads)(ptr, i32::from(options.threads.max(1))))?;
        check((api().SetInterOpNumThreads)(ptr, 1))?;
        check((api().SetSessionExecutionMode)(ptr, sys::ExecutionMode::ORT_SEQUENTIAL))?;
        // The arena keeps the largest run's memory for good, session by session, and after a failed allocation goes on
        // failing; plain malloc was not measurably slower with any of our models.
        check((api().DisableCpuMemArena)(ptr))?;
    }
    let entry = |key: &str, value: &str| config_entry(&built, key, value);
    // An idle pool that spins costs its neighbours ten times what the request does.
    entry("session.intra_op.allow_spinning", "0")?;
    entry("session.inter_op.allow_spinning", "0")?;
    if !options.prepack {
        entry("session.disable_prepacking", "1")?;
    }
    if !options.disabled_optimizers.is_empty() {
        entry("optimization.disable_specified_optimizers", &options.disabled_optimizers.join(";"))?;
    }
    match purpose {
        Purpose::Run(Form::Source) => {}
        Purpose::Run(Form::Optimised) => {
            // Weights stay where the file is mapped, so that replicas share them.
            entry("session.load_model_format", "ORT")?;
            entry("session.use_ort_model_bytes_directly", "1")?;
            entry("session.use_ort_model_bytes_for_initializers", "1")?;
        }
        Purpose::Optimise(path) => {
            entry("session.save_model_format", "ORT")?;
            let path = text(&path.to_string_lossy())?;
            // SAFETY: `ptr` is valid; the path is a C string that outlives the call, which copies it.
            check(unsafe { (api().SetOptimizedModelFilePath)(ptr, path.as_ptr()) })?;
        }
    }
    Ok(built)
}

fn config_entry(options: &Owned<sys::OrtSessionOptions>, key: &str, value: &str) -> Result<(), Failure> {
    let (key, value) = (text(key)?, text(value)?);
    // SAFETY: the options are valid; both texts are C strings that outlive the call, which copies them.
    check(unsafe { (api().AddSessionConfigEntry)(options.as_ptr(), key.as_ptr(), value.as_ptr()) })
}

pub(crate) fn text(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new("a text contains a zero byte"))
}
