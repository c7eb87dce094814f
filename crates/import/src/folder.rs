//! What lies in a folder: its models, their versions and files. Reads names, sizes and the settings, no model.
//!
//! The folder may be hostile. Links are followed only to files inside it, names are checked by the rules of an archive, and
//! what is looked at is bounded.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tenantry_types::Digest;
use tenantry_types::limits::MAX_ARCHIVE_FILES;

use crate::manifest::{self, Labels};
use crate::{Plan, is_plain_file_name, mlflow, shown, text_format, triton};

/// The most entries of one folder that are looked at.
const MAX_ENTRIES: usize = 10_000;
/// The most models of one folder.
pub const MAX_MODELS: usize = 1_000;
/// How deep folders of a version may lie in each other.
const MAX_DEPTH: usize = 4;
/// The longest name of a file inside a version, bytes.
const MAX_NAME_BYTES: usize = 255;
/// The longest file of labels, bytes.
const MAX_LABELS_BYTES: usize = 1 << 20;
/// How much of a file is read at a time, bytes.
const READ_BYTES: usize = 1 << 20;
/// What a version's model is called when it comes with other files.
const MODEL_NAME: &str = "model.onnx";

/// A folder, or something in it, that cannot be imported. The text is fit to show.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read.
    #[error("{name} cannot be read: {source}")]
    Unreadable {
        /// What.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is none that is known.
    #[error(
        "{0} is no folder of models: a Triton model's has `config.pbtxt` or folders named by number, an MLflow model's has `MLmodel`"
    )]
    Nothing(String),
    /// Something in it.
    #[error("{0}")]
    Refused(String),
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> FolderError {
    let name = shown(&path.to_string_lossy());
    move |source| FolderError::Unreadable { name, source }
}

/// Which kind of folder a model lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A model of a Triton repository.
    Triton,
    /// An MLflow model.
    Mlflow,
}

/// A model in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The folder's name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    path: PathBuf,
    /// Nothing outside of it is read: canonical.
    root: PathBuf,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name inside the version.
    pub name: String,
    /// What is in it.
    pub content: Content,
    /// Its size.
    pub bytes: u64,
}

/// What is in a file of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// What lies there.
    At(PathBuf),
    /// A text that the settings became.
    Text(String),
}

impl File {
    /// A file with this text.
    pub fn of_text(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), bytes: text.len() as u64, content: Content::Text(text) }
    }

    /// Its content, to be read.
    ///
    /// # Errors
    /// [`FolderError::Unreadable`].
    pub fn open(&self) -> Result<Box<dyn Read + '_>, FolderError> {
        match &self.content {
            Content::At(path) => Ok(Box::new(fs::File::open(path).map_err(unreadable(path))?)),
            Content::Text(text) => Ok(Box::new(text.as_bytes())),
        }
    }

    /// The digest of its bytes.
    ///
    /// # Errors
    /// [`FolderError::Unreadable`].
    pub fn digest(&self) -> Result<Digest, FolderError> {
        let mut file = self.open()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let filled = file.read(&mut buffer).map_err(unreadable(Path::new(&self.name)))?;
            match buffer.get(..filled) {
                Some(bytes) if filled > 0 => hash.update(bytes),
                _ => return Ok(Digest::from_bytes(hash.finalize().into())),
            }
        }
    }
}

/// One version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number there; an MLflow model has none.
    pub number: Option<u64>,
    /// Its files, the model first; none for a chain, whose manifest is made of what its stages are called here.
    pub files: Vec<File>,
}

/// The models at `path`: the one whose folder it is, or those whose folders lie in it, by name.
///
/// # Errors
/// [`FolderError`] when it cannot be read or has none.
pub fn models(path: &Path) -> Result<Vec<Model>, FolderError> {
    let root = path.canonicalize().map_err(unreadable(path))?;
    let name = root.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    if let Some(kind) = kind(&root)? {
        return Ok(vec![Model { name, kind, path: root.clone(), root }]);
    }
    let mut models = Vec::new();
    for (name, path) in entries(&root)? {
        // A link to a folder is looked at where it leads inside.
        let inside = path.canonicalize().is_ok_and(|target| target.starts_with(&root) && target.is_dir());
        if !inside {
            continue;
        }
        if let Some(kind) = kind(&path)? {
            models.push(Model { name, kind, path, root: root.clone() });
        }
        if models.len() > MAX_MODELS {
            return Err(FolderError::Refused(format!(
                "there are more than {MAX_MODELS} models; import them one by one"
            )));
        }
    }
    if models.is_empty() { Err(FolderError::Nothing(shown(&path.to_string_lossy()))) } else { Ok(models) }
}

fn kind(path: &Path) -> Result<Option<Kind>, FolderError> {
    if path.join(mlflow::MODEL_FILE).is_file() {
        return Ok(Some(Kind::Mlflow));
    }
    if path.join(triton::CONFIG_FILE).is_file() {
        return Ok(Some(Kind::Triton));
    }
    let has_version = entries(path)?.iter().any(|(name, path)| number(name).is_some() && path.is_dir());
    Ok(has_version.then_some(Kind::Triton))
}

impl Model {
    /// What its settings become.
    ///
    /// # Errors
    /// [`FolderError`] when they cannot be read.
    pub fn plan(&self) -> Result<Plan, FolderError> {
        let refused = |file: &str, error: String| FolderError::Refused(format!("{file}: {error}"));
        match self.kind {
            Kind::Triton => {
                let Some(text) = self.text(triton::CONFIG_FILE, text_format::MAX_TEXT_BYTES)? else {
                    return Ok(Plan::default());
                };
                let config =
                    text_format::parse(&text).map_err(|error| refused(triton::CONFIG_FILE, error.to_string()))?;
                let mut plan = triton::plan(&self.name, &config);
                for labels in plan.labels.clone() {
                    if let Err(reason) = self.check_labels(&labels) {
                        plan.without_labels(&labels.output, &reason);
                    }
                }
                Ok(plan)
            }
            Kind::Mlflow => {
                let text = self.text(mlflow::MODEL_FILE, mlflow::MAX_TEXT_BYTES)?.unwrap_or_default();
                mlflow::plan(&text).map_err(|error| refused(mlflow::MODEL_FILE, error.to_string()))
            }
        }
    }

    /// The versions `plan` takes, ascending, with their files, and the numbers of those it leaves out.
    ///
    /// # Errors
    /// [`FolderError`] when one has no model file, or files that cannot be taken.
    pub fn versions(&self, plan: &Plan) -> Result<(Vec<Version>, Vec<u64>), FolderError> {
        if self.kind == Kind::Mlflow {
            let files = self.files(&self.path, mlflow::filename(plan), is_of_mlflow)?;
            return Ok((vec![Version { number: None, files }], Vec::new()));
        }
        let folders: Vec<(u64, PathBuf)> = entries(&self.path)?
            .into_iter()
            .filter_map(|(name, path)| Some((number(&name).filter(|_| path.is_dir())?, path)))
            .collect();
        let present: Vec<u64> = folders.iter().map(|(number, _)| *number).collect();
        let taken = plan.versions.select(&present);
        if plan.chain.is_some() {
            return Ok((vec![Version { number: taken.last().copied(), files: Vec::new() }], Vec::new()));
        }
        let filename = plan.filename.as_deref().unwrap_or(triton::DEFAULT_FILE);
        let mut versions = Vec::new();
        for number in &taken {
            let Some((_, folder)) = folders.iter().find(|(known, _)| known == number) else { continue };
            // A model with its weights in files of their own may be a folder.
            let inner = folder.join(filename);
            let folder = if inner.is_dir() { &inner } else { folder };
            let mut files = self.files(folder, filename, |_| false)?;
            self.add_manifest(plan, &mut files)?;
            versions.push(Version { number: Some(*number), files });
        }
        if versions.is_empty() {
            let text = if present.is_empty() { "it has no versions" } else { "none of its versions is served" };
            return Err(FolderError::Refused(text.to_owned()));
        }
        Ok((versions, present.into_iter().filter(|number| !taken.contains(number)).collect()))
    }

    /// The model's file and those it may refer to: the others beside it, but no other models.
    fn files(
        &self,
        folder: &Path,
        filename: &str,
        is_left_out: impl Fn(&str) -> bool,
    ) -> Result<Vec<File>, FolderError> {
        let mut files = Vec::new();
        self.collect(folder, "", 0, &mut files)?;
        let model = files.iter().position(|file| file.name == filename);
        let Some(model) = model.map(|position| files.swap_remove(position)) else {
            return Err(FolderError::Refused(format!("there is no `{}`", shown(filename))));
        };
        files.retain(|file| !(is_left_out(&file.name) || is_other_model(&file.name)));
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        if files.len() >= MAX_ARCHIVE_FILES {
            return Err(FolderError::Refused(format!("a version has more than {MAX_ARCHIVE_FILES} files")));
        }
        let name = if files.is_empty() { model.name } else { MODEL_NAME.to_owned() };
        files.insert(0, File { name, ..model });
        Ok(files)
    }

    /// Whether a file of labels has as many as there are classes.
    fn check_labels(&self, labels: &Labels) -> Result<(), String> {
        let text = self.text(&labels.file, MAX_LABELS_BYTES).map_err(|error| error.to_string())?;
        let text = text.ok_or_else(|| "there is no such file".to_owned())?;
        let count = text.trim_end_matches(['\n', '\r']).lines().count() as u64;
        if count == labels.classes {
            return Ok(());
        }
        Err(format!("the file has {count} labels, and there are {} classes", labels.classes))
    }

    /// What the settings became that has its place in a manifest, and the files that names.
    fn add_manifest(&self, plan: &Plan, files: &mut Vec<File>) -> Result<(), FolderError> {
        let Some(manifest) = manifest::of_model(plan) else { return Ok(()) };
        let texts = plan.labels.iter().map(|labels| labels.file.as_str());
        let mut added: Vec<File> = vec![File::of_text(manifest::FILE_NAME, manifest)];
        for name in texts {
            let text = self.text(name, MAX_LABELS_BYTES)?.unwrap_or_default();
            if added.iter().all(|file| file.name != name) {
                added.push(File::of_text(name, text));
            }
        }
        // What lies in the version's own folder under such a name is something else.
        files.retain(|file| added.iter().all(|added| added.name != file.name));
        files.extend(added);
        match files.first_mut() {
            Some(model) if is_other_model(&model.name) => MODEL_NAME.clone_into(&mut model.name),
            _ => return Err(FolderError::Refused("a file beside the model has the model's name".to_owned())),
        }
        Ok(())
    }

    fn collect(&self, folder: &Path, prefix: &str, depth: usize, files: &mut Vec<File>) -> Result<(), FolderError> {
        if depth > MAX_DEPTH {
            return Err(FolderError::Refused("folders of a version lie too deep in each other".to_owned()));
        }
        for (name, path) in entries(folder)? {
            let name = format!("{prefix}{name}");
            if name.len() > MAX_NAME_BYTES {
                return Err(FolderError::Refused(format!("`{}` is too long a name", shown(&name))));
            }
            let target = path.canonicalize().map_err(unreadable(&path))?;
            if !target.starts_with(&self.root) {
                let name = shown(&name);
                return Err(FolderError::Refused(format!("`{name}` is a link to a file outside of the folder")));
            }
            let metadata = fs::metadata(&target).map_err(unreadable(&path))?;
            if metadata.is_dir() {
                self.collect(&path, &format!("{name}/"), depth + 1, files)?;
            } else if metadata.is_file() {
                files.push(File { name, content: Content::At(target), bytes: metadata.len() });
            } else {
                return Err(FolderError::Refused(format!("`{}` is neither a file nor a folder", shown(&name))));
            }
            if files.len() > MAX_ENTRIES {
                return Err(FolderError::Refused("there are too many files".to_owned()));
            }
        }
        Ok(())
    }

    /// The text of a file in the model's folder; `None` if there is none.
    fn text(&self, name: &str, max_bytes: usize) -> Result<Option<String>, FolderError> {
        let path = self.path.join(name);
        let Ok(target) = path.canonicalize() else { return Ok(None) };
        if !target.starts_with(&self.root) || !target.is_file() {
            return Err(FolderError::Refused(format!("{name} is a link to a file outside of the folder")));
        }
        let file = fs::File::open(&target).map_err(unreadable(&path))?;
        let mut text = Vec::new();
        // One byte more tells a text of the largest size from one beyond it.
        file.take(max_bytes as u64 + 1).read_to_end(&mut text).map_err(unreadable(&path))?;
        if text.len() > max_bytes {
            return Err(FolderError::Refused(format!("{name} is longer than {max_bytes} bytes")));
        }
        String::from_utf8(text).map(Some).map_err(|_| FolderError::Refused(format!("{name} is not UTF-8")))
    }
}

/// The entries of a folder by name; hidden ones are nobody's.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, FolderError> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
        let entry = entry.map_err(unreadable(folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            return Err(FolderError::Refused("there is a name that is not UTF-8".to_owned()));
        };
        if name.starts_with('.') {
            continue;
        }
        if !is_plain_file_name(&name) || name.chars().any(char::is_control) {
            return Err(FolderError::Refused(format!("`{}` is no name for a file of a model", shown(&name))));
        }
        entries.push((name, entry.path()));
        if entries.len() > MAX_ENTRIES {
            return Err(FolderError::Refused(format!("a folder has more than {MAX_ENTRIES} entries")));
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// The number of a version's folder: digits only, without a zero in front.
fn number(name: &str) -> Option<u64> {
    let plain = name.bytes().all(|c| c.is_ascii_digit()) && !name.starts_with('0');
    name.parse().ok().filter(|_| plain)
}

fn is_other_model(name: &str) -> bool {
    !name.contains('/') && name.to_ascii_lowercase().ends_with(".onnx")
}

/// Whether a file in an MLflow model's folder is there for MLflow.
fn is_of_mlflow(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name == mlflow::MODEL_FILE
        || name == "registered_model_meta"
        || [".yaml", ".yml", ".txt", ".json", ".md", ".py"].iter().any(|end| lower.ends_with(end))
        || name.starts_with("metadata/")
        || name.starts_with("code/")
}

#[cfg(test)]
mod tests;
