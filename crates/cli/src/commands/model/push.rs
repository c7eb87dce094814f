//! `tenantry model push`: upload, create the version, wait for its registration.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tenantry_api::admin::types::{
    Artefact, IsolationLevel, ModelChange, NewVersion, Sharing, Version, VersionSettings, VersionState,
};
use tenantry_types::ModelRef;
use ureq::http::Method;

use super::{change, tenant};
use crate::arguments::Push;
use crate::client::{Client, escape};
use crate::output::Progress;

/// How long one question for the state waits on the server before it is asked again, milliseconds.
const WAIT_MS: u32 = 20_000;
/// How often it is asked: registration has its own, shorter limit on the server.
const MAX_QUESTIONS: u32 = 60;

/// A file on its way to become a version.
#[derive(Debug)]
pub(crate) struct NewModelVersion {
    /// The model, with its owner.
    pub(crate) model: ModelRef,
    /// The file.
    pub(crate) file: PathBuf,
    /// Whether every tenant may use the model.
    pub(crate) share: bool,
    /// What the model is for.
    pub(crate) about: Option<String>,
    /// What is new in this version.
    pub(crate) description: String,
    /// What the model was made with.
    pub(crate) framework: Option<String>,
    /// Pairs to find it by.
    pub(crate) tags: BTreeMap<String, String>,
    /// Figures of quality.
    pub(crate) quality: BTreeMap<String, f64>,
    /// What it needs besides itself.
    pub(crate) dependencies: Option<Vec<String>>,
    /// How well its workers must be kept apart.
    pub(crate) min_isolation: Option<IsolationLevel>,
    /// Whether traffic moves to it.
    pub(crate) deploy: bool,
    /// How it is to be run.
    pub(crate) settings: VersionSettings,
}

impl NewModelVersion {
    /// What the command line asks for.
    pub(crate) fn from_arguments(client: &Client, arguments: &Push) -> Result<Self> {
        let owner = match &arguments.model.owner {
            Some(owner) => owner.clone(),
            None => tenant::own(client)?,
        };
        Ok(Self {
            model: ModelRef { owner: Some(owner), name: arguments.model.name.clone() },
            file: arguments.file.clone(),
            share: arguments.share,
            about: arguments.about.clone(),
            description: arguments.description.clone(),
            framework: arguments.framework.clone(),
            tags: arguments.tag.iter().cloned().collect(),
            quality: arguments.quality.iter().cloned().collect(),
            dependencies: Some(arguments.dependency.clone()).filter(|names| !names.is_empty()),
            min_isolation: arguments.min_isolation.map(Into::into),
            deploy: !arguments.no_deploy,
            settings: VersionSettings {
                max_batch: arguments.max_batch,
                max_batch_delay_ms: arguments.max_batch_delay_ms,
                max_run_ms: arguments.max_run_ms,
                threads: arguments.threads,
                ..VersionSettings::default()
            },
        })
    }
}

/// Uploads and registers; returns the version when its registration is over, whichever way.
pub(crate) fn push(client: &Client, new: &NewModelVersion, progress: &Progress) -> Result<Version> {
    let owner = new.model.owner.as_ref().context("a model to push needs an owner")?;
    let owner = tenant::path(owner);
    let name = &new.model.name;
    let folder = new.file.is_dir();
    let packed = folder.then(|| pack(&new.file)).transpose()?;
    let filename = if folder { format!("{name}.tar") } else { file_name(&new.file)? };
    let file = match packed {
        Some(packed) => packed,
        None => File::open(&new.file).with_context(|| format!("cannot read {}", new.file.display()))?,
    };
    let artefact = upload(client, &format!("{owner}/artefacts?filename={}", escape(&filename)), file, new, progress)?;
    let version = NewVersion {
        artefact: artefact.digest,
        filename,
        settings: new.settings.clone(),
        description: new.description.clone(),
        tags: new.tags.clone(),
        quality: new.quality.clone(),
        framework: new.framework.clone(),
        dependencies: new.dependencies.clone(),
        min_isolation: new.min_isolation,
        deploy: new.deploy,
    };
    let versions = format!("{owner}/models/{name}/versions");
    let mut version: Version = client.send(Method::POST, &versions, &version)?;
    if new.share || new.about.is_some() {
        let shared = new.share.then_some(Sharing::Everyone);
        change(client, &new.model, &ModelChange { shared, description: new.about.clone(), ..ModelChange::default() })?;
    }
    let waiting = progress.wait(&format!("registering {}", new.model));
    for _ in 0..MAX_QUESTIONS {
        if version.state != VersionState::Registering {
            break;
        }
        version = client.get(&format!("{versions}/{}?wait_ms={WAIT_MS}", version.number))?;
    }
    waiting.finish_and_clear();
    Ok(version)
}

/// The files of a folder as an archive in a temporary file: what a version with a manifest is made of. Hidden files stay
/// behind.
fn pack(folder: &Path) -> Result<File> {
    let cannot = || format!("cannot pack {}", folder.display());
    let mut archive = tar::Builder::new(tempfile::tempfile().with_context(cannot)?);
    let mut waiting = vec![PathBuf::new()];
    while let Some(inner) = waiting.pop() {
        let mut entries: Vec<_> = folder.join(&inner).read_dir().with_context(cannot)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries.into_iter().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")) {
            let name = inner.join(entry.file_name());
            if entry.path().is_dir() {
                waiting.push(name);
            } else {
                archive.append_path_with_name(entry.path(), name).with_context(cannot)?;
            }
        }
    }
    let mut file = archive.into_inner().with_context(cannot)?;
    file.rewind().with_context(cannot)?;
    Ok(file)
}

fn upload(client: &Client, path: &str, file: File, new: &NewModelVersion, progress: &Progress) -> Result<Artefact> {
    let bytes = file.metadata()?.len();
    let bar = progress.upload(&format!("uploading {}", new.model), bytes);
    let artefact = client.upload(path, bar.wrap_read(file), bytes);
    bar.finish_and_clear();
    artefact
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    Ok(name.with_context(|| format!("{} has no usable file name", path.display()))?.to_owned())
}

/// An error unless the version can be served.
pub(crate) fn ensure_ready(version: &Version) -> Result<()> {
    let name = format!("{}/{} version {}", version.owner, version.model, version.number);
    match version.state {
        VersionState::Ready => Ok(()),
        VersionState::Refused => {
            bail!("{name} was refused: {}", version.reason.as_deref().unwrap_or("no reason was given"))
        }
        VersionState::Registering => {
            bail!("{name} is still being registered\nhint: `tenantry model show {}` says how it went", version.model)
        }
    }
}
