//! A version's pipeline around its model: opened from its files, run with the engine in the middle.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tenantry_engine::{InputTensor, Model, RunError as EngineError, Runtime, SharedBytes, Termination};
use tenantry_pipeline::{Array, Files, Manifest, Program, RunError, manifest};
use tenantry_types::model::{Chain, EngineOptions, FileMetadata, PipelineFacts, Profile, Registration};
use tenantry_types::{DataType, Signature};
use tenantry_wire::FailureKind;

use crate::replicas::Failed;

/// A manifest and the files it names.
pub(crate) struct Pipeline {
    manifest: Manifest,
    files: NamedFiles,
}

/// Files by name.
type NamedFiles = Vec<(String, SharedBytes)>;

impl Pipeline {
    /// Takes a pipeline out of the files beside a model, if there is one; what is left is the model's.
    pub(crate) fn take(mut files: NamedFiles) -> Result<(Option<Self>, NamedFiles), Failed> {
        let Some(position) = files.iter().position(|(name, _)| name == manifest::FILE_NAME) else {
            return Ok((None, files));
        };
        let (_, file) = files.swap_remove(position);
        let manifest = Manifest::parse((*file).as_ref()).map_err(|error| Failed::model(error.to_string()))?;
        if manifest.chain().is_some() {
            return Err(Failed::model("a manifest with [[stage]] has no model beside it; upload the manifest alone"));
        }
        let named: Vec<String> = manifest.files().into_iter().map(str::to_owned).collect();
        let (files, rest) = files.into_iter().partition(|(name, _)| named.contains(name));
        Ok((Some(Self { manifest, files }), rest))
    }

    /// Puts it around a model.
    pub(crate) fn around(&self, model: &Model) -> Result<Program, Failed> {
        let mut texts = Vec::new();
        for name in self.manifest.metadata_files() {
            let key = name.strip_prefix(manifest::METADATA_PREFIX).unwrap_or(name);
            if let Some(text) = model.custom_metadata(key).map_err(Failed::from)? {
                texts.push((name, text));
            }
        }
        let mut files: Files<'_> = self.files.iter().map(|(name, file)| (name.as_str(), (**file).as_ref())).collect();
        files.extend(texts.iter().map(|(name, text)| (*name, text.as_bytes())));
        let opened = guarded(|| Program::open(&self.manifest, &files, model.signature()));
        let opened = opened.map_err(|()| Failed::model("a file beside the manifest cannot be read"))?;
        opened.map_err(|error| Failed::model(format!("{}: {error}", manifest::FILE_NAME)))
    }
}

/// What a chain's registration says: it has no model, so nothing was measured.
pub(crate) fn chain_registration(runtime: Runtime, chain: Chain) -> Registration {
    let files = vec![manifest::FILE_NAME.to_owned()];
    Registration {
        signature: Signature::default(),
        pipeline: Some(PipelineFacts { files, chain: Some(chain), ..PipelineFacts::default() }),
        metadata: FileMetadata::default(),
        can_batch: false,
        profile: Profile {
            runtime: runtime.version().to_owned(),
            options: EngineOptions::default(),
            load_ns: 0,
            optimised_load_ns: 0,
            resident_bytes: 0,
            optimised_bytes: 0,
            best_batch: 1,
            points: Vec::new(),
        },
    }
}

/// Runs a program with its model in the middle. `stopped`: whether the end of the run was asked for.
pub(crate) fn run(
    program: &Program,
    model: &mut Model,
    inputs: &[InputTensor<'_>],
    wanted: &[u16],
    termination: &Termination,
    stopped: &dyn Fn() -> bool,
) -> Result<Vec<(u16, Array<'static>)>, Failed> {
    let mut ordered: Vec<(DataType, &[u64], &[u8])> = Vec::with_capacity(inputs.len());
    for index in 0..program.signature().inputs.len() {
        let input = inputs.iter().find(|input| usize::from(input.index) == index);
        let input = input.ok_or_else(|| Failed::input(format!("input {index} is missing")))?;
        ordered.push((input.datatype, input.shape, input.data));
    }
    let mut engine = |feeds: &[Array<'_>], wanted: &[u16]| compute(model, feeds, wanted, termination);
    let outcome = guarded(|| {
        let outputs = program.run(&ordered, wanted, &mut engine, stopped)?;
        Ok(outputs.into_iter().map(|(index, array)| (index, array.into_owned())).collect())
    });
    let outcome: Result<Vec<(u16, Array<'static>)>, RunError<EngineError>> =
        outcome.map_err(|()| Failed::input("this input cannot be prepared for the model"))?;
    outcome.map_err(|error| match error {
        RunError::Input(text) => Failed::input(text),
        RunError::Model(text) => Failed::model(text),
        RunError::Engine(error) => error.into(),
        RunError::Stopped => Failed { kind: FailureKind::Resource, message: "the run was ended".to_owned() },
    })
}

/// Libraries that read media may panic over what they did not expect: that is the input's failure, not the worker's.
fn guarded<T>(body: impl FnOnce() -> T) -> Result<T, ()> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|_| ())
}

fn compute(
    model: &mut Model,
    feeds: &[Array<'_>],
    wanted: &[u16],
    termination: &Termination,
) -> Result<Vec<Array<'static>>, EngineError> {
    let mut inputs = Vec::with_capacity(feeds.len());
    for (index, feed) in (0_u16..).zip(feeds) {
        inputs.push(InputTensor { index, datatype: feed.datatype, shape: &feed.shape, data: feed.bytes() });
    }
    let outputs = model.run_until(&inputs, wanted, termination)?;
    let mut arrays = Vec::with_capacity(outputs.len());
    for output in &outputs {
        let bytes = usize::try_from(output.bytes)
            .map_err(|_| EngineError::OutOfMemory("an output is larger than memory".to_owned()))?;
        arrays.push(Array::filled(output.datatype, output.shape.clone(), bytes, |room| output.copy_to(room))?);
    }
    Ok(arrays)
}
