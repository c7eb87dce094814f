//! A version's files on their way, unless they are there already.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tenantry_api::admin::types::{Version, VersionSettings, VersionState};
use tenantry_import::Plan;
use tenantry_import::folder::{self, Content, Kind};
use tenantry_types::{Digest, ModelRef};

use super::super::push::{NewModelVersion, push as push_file};
use crate::client::Client;
use crate::output::Progress;

/// The tag with a version's number in its repository.
pub(super) const VERSION_TAG: &str = "triton_version";
/// What a version of several files is packed into.
const ARCHIVE_FILE: &str = "model.tar";

/// The version among `known` that has the same files and settings and was not refused.
pub(super) fn find(version: &folder::Version, plan: &Plan, known: &[Version]) -> Result<Option<Version>> {
    let settings = VersionSettings::from(plan.settings.clone());
    let bytes: u64 = version.files.iter().map(|file| file.bytes).sum();
    let same = |known: &&Version| {
        known.bytes == bytes
            && known.files.len() == version.files.len()
            && known.settings == settings
            && known.state != VersionState::Refused
    };
    let mut candidates = known.iter().filter(same).peekable();
    if candidates.peek().is_none() {
        return Ok(None);
    }
    // The files are read only where it may save sending them.
    let mut digests: BTreeMap<&str, Digest> = BTreeMap::new();
    for file in &version.files {
        digests.insert(&file.name, file.digest()?);
    }
    let has_files = |known: &&Version| {
        let files = known.files.iter();
        files.map(|file| (file.name.as_str(), file.digest)).collect::<BTreeMap<_, _>>() == digests
    };
    Ok(candidates.rfind(has_files).cloned())
}

/// Uploads a version and waits for its registration.
pub(super) fn push(
    client: &Client,
    model: &ModelRef,
    kind: Kind,
    version: &folder::Version,
    plan: &Plan,
    progress: &Progress,
) -> Result<Version> {
    let mut tags = plan.tags.clone();
    let (origin, description) = match (kind, version.number) {
        (Kind::Triton, Some(number)) => {
            tags.insert(VERSION_TAG.to_owned(), number.to_string());
            ("triton", format!("version {number} of a Triton model repository"))
        }
        (Kind::Triton, None) => ("triton", "from a Triton model repository".to_owned()),
        (Kind::Mlflow, _) => ("mlflow", "from an MLflow model".to_owned()),
    };
    tags.insert("imported_from".to_owned(), origin.to_owned());
    let place = TempDir::new().context("no temporary folder can be made")?;
    let file = match version.files.as_slice() {
        [folder::File { content: Content::At(path), .. }] => path.clone(),
        [folder::File { content: Content::Text(text), name, .. }] => {
            let path = place.path().join(name);
            fs::write(&path, text).context("no temporary file can be made")?;
            path
        }
        files => {
            let path = place.path().join(ARCHIVE_FILE);
            let packing = progress.wait(&format!("packing {model}"));
            pack(files, &path)?;
            packing.finish_and_clear();
            path
        }
    };
    let new = NewModelVersion {
        model: model.clone(),
        file,
        share: false,
        about: None,
        description,
        framework: None,
        tags,
        quality: BTreeMap::new(),
        dependencies: None,
        min_isolation: None,
        deploy: false,
        settings: plan.settings.clone().into(),
    };
    push_file(client, &new, progress)
}

fn pack(files: &[folder::File], path: &std::path::Path) -> Result<()> {
    let archive = fs::File::create(path).context("no temporary file can be made")?;
    let mut archive = tar::Builder::new(std::io::BufWriter::new(archive));
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.bytes);
        header.set_mode(0o644);
        // A file that grew meanwhile would spill into the next one's place.
        let content = file.open()?.take(file.bytes);
        archive.append_data(&mut header, &file.name, content).context("the files cannot be packed")?;
    }
    archive.into_inner().and_then(|mut file| file.flush()).context("the files cannot be packed")
}
