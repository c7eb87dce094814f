//! Loaded versions, and the way from descriptors to one.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use tenantry_engine::{
    Fault, Form, LoadError, Model, Runtime, SharedBytes, Source, anonymous_bytes, inspect, register, trim,
};
use tenantry_pipeline::{Manifest, Program, manifest};
use tenantry_types::ReplicaId;
use tenantry_types::model::{Chain, EngineOptions, ModelLimits, Registration, VersionSettings};
use tenantry_wire::{FailureKind, FileEntry, FileMap, ModelForm};

use crate::pipeline::{self, Pipeline};

/// The most replicas of one worker.
const MAX_REPLICAS: usize = 256;

/// Why a task gave no result: what goes into a `Failed` frame.
pub(crate) struct Failed {
    pub(crate) kind: FailureKind,
    pub(crate) message: String,
}

impl Failed {
    pub(crate) fn resource(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Resource, message: message.into() }
    }

    pub(crate) fn model(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Model, message: message.into() }
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Input, message: message.into() }
    }
}

pub(crate) fn kind(fault: Fault) -> FailureKind {
    match fault {
        Fault::Input => FailureKind::Input,
        Fault::Model => FailureKind::Model,
        Fault::Resource => FailureKind::Resource,
    }
}

impl From<LoadError> for Failed {
    fn from(error: LoadError) -> Self {
        Self { kind: kind(error.fault()), message: error.to_string() }
    }
}

/// What a load measured.
pub(crate) struct Loaded {
    pub(crate) load_ns: u64,
    pub(crate) resident_bytes: u64,
}

/// A loaded version: its model and what is done before and behind it.
pub(crate) struct Replica {
    pub(crate) model: Model,
    pub(crate) program: Option<Program>,
}

#[derive(Default)]
pub(crate) struct Replicas {
    models: HashMap<ReplicaId, Replica>,
}

impl Replicas {
    pub(crate) fn get_mut(&mut self, replica: ReplicaId) -> Option<&mut Replica> {
        self.models.get_mut(&replica)
    }

    /// Forgets a replica, and gives its memory back.
    pub(crate) fn unload(&mut self, replica: ReplicaId) {
        if self.models.remove(&replica).is_some() {
            trim();
        }
    }

    pub(crate) fn load(
        &mut self,
        runtime: Runtime,
        replica: ReplicaId,
        files: Files<'_>,
        options: &EngineOptions,
    ) -> Result<Loaded, Failed> {
        if self.models.len() >= MAX_REPLICAS && !self.models.contains_key(&replica) {
            return Err(Failed::resource(format!("a worker holds at most {MAX_REPLICAS} replicas")));
        }
        trim();
        let before = anonymous_bytes();
        let started = Instant::now();
        let Opened { source, pipeline } = files.open()?;
        let model = runtime.load(&source, options)?;
        let program = pipeline.map(|pipeline| pipeline.around(&model)).transpose()?;
        let load_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        drop(source);
        self.models.insert(replica, Replica { model, program });
        // What loading needed and freed again is not the replica's.
        trim();
        let resident_bytes = anonymous_bytes().unwrap_or(0).saturating_sub(before.unwrap_or(u64::MAX));
        Ok(Loaded { load_ns, resident_bytes })
    }
}

/// Registers the model in `fds`, whose last is the file for the optimised form.
pub(crate) fn register_model(
    runtime: Runtime,
    files: &[FileEntry],
    fds: &[OwnedFd],
    settings: &VersionSettings,
    limits: ModelLimits,
) -> Result<(Registration, u64), Failed> {
    let Some((optimised, fds)) = fds.split_last() else {
        return Err(Failed::resource("a registration came without descriptors"));
    };
    let files = Files { form: ModelForm::Source, entries: files, fds, limits };
    if let Some(chain) = files.chain()? {
        return Ok((pipeline::chain_registration(runtime, chain), 0));
    }
    let Opened { source, pipeline } = files.open()?;
    let map = |bytes: u64| Ok(Arc::new(FileMap::map(optimised.as_fd(), bytes)?) as SharedBytes);
    let mut program = None;
    let mut look = |model: &Model| program = pipeline.as_ref().map(|pipeline| pipeline.around(model));
    let (mut registration, bytes) = register(runtime, &source, settings, optimised.as_fd(), &map, &mut look)?;
    if let Some(program) = program.transpose()? {
        registration.can_batch &= program.signature().has_batch_axis();
        registration.signature = program.signature().clone();
        registration.pipeline = Some(program.facts().clone());
    }
    drop(source);
    trim();
    Ok((registration, bytes))
}

/// The files of a version as they came.
pub(crate) struct Files<'a> {
    pub(crate) form: ModelForm,
    /// Names and lengths.
    pub(crate) entries: &'a [FileEntry],
    pub(crate) fds: &'a [OwnedFd],
    pub(crate) limits: ModelLimits,
}

/// The files of a version, mapped and told apart.
struct Opened {
    source: Source,
    pipeline: Option<Pipeline>,
}

impl Files<'_> {
    /// The chain, where the first file is a manifest and not a model.
    fn chain(&self) -> Result<Option<Chain>, Failed> {
        match self.map()?.into_iter().next() {
            Some((name, manifest)) if name == manifest::FILE_NAME => {
                let manifest =
                    Manifest::parse((*manifest).as_ref()).map_err(|error| Failed::model(error.to_string()))?;
                let chain = manifest.chain().ok_or_else(|| {
                    Failed::model("there is no model file, and the manifest has no [[stage]] that would name one")
                })?;
                Ok(Some(chain))
            }
            _ => Ok(None),
        }
    }

    /// Maps each file; the first is the model, the manifest and what it names are its pipeline, the others the model's
    /// external data. What a tenant uploaded is looked at before the runtime may see it.
    fn open(&self) -> Result<Opened, Failed> {
        let mut mapped = self.map()?.into_iter();
        let Some((_, model)) = mapped.next() else { return Err(Failed::model("there is no model file")) };
        let (pipeline, external) = Pipeline::take(mapped.collect())?;
        let form = match self.form {
            ModelForm::Source => {
                inspect((*model).as_ref(), external.iter().map(|(name, _)| name.as_str()), self.limits)
                    .map_err(|error| Failed::model(format!("the model is not accepted: {error}")))?;
                Form::Source
            }
            ModelForm::Optimised => Form::Optimised,
        };
        Ok(Opened { source: Source { form, model, external }, pipeline })
    }

    fn map(&self) -> Result<Vec<(String, SharedBytes)>, Failed> {
        if self.entries.len() != self.fds.len() {
            return Err(Failed::resource("files and descriptors do not match"));
        }
        let map = |(file, fd): (&FileEntry, &OwnedFd)| {
            let map = FileMap::map(fd.as_fd(), file.bytes)
                .map_err(|error| Failed::resource(format!("a model file cannot be mapped: {}", error.kind())))?;
            Ok((file.name.clone(), Arc::new(map) as SharedBytes))
        };
        self.entries.iter().zip(self.fds).map(map).collect()
    }
}
