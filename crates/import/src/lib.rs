//! Model folders of other servers: what lies in them, what their settings become here, and what is left out and why.
//!
//! Two kinds are known: a Triton model repository (`config.pbtxt` beside folders named by number) and an MLflow model of
//! the ONNX flavour (a file `MLmodel`). The settings are read by plain functions from text to a [`Plan`] ([`triton`],
//! [`mlflow`]); [`folder`] finds the files. Nothing is uploaded here: whoever carries a plan out does so through the admin
//! API like everybody else.
//!
//! A folder may come from anywhere. What is read of it is bounded, files outside of it are not followed to, and whatever it
//! says is made fit to show before it is shown.

#![forbid(unsafe_code)]

pub mod declared;
pub mod folder;
pub mod manifest;
pub mod mlflow;
pub mod text_format;
pub mod triton;

use std::collections::BTreeMap;

use serde::Serialize;
use tenantry_types::ModelName;
use tenantry_types::error::sanitise;
use tenantry_types::model::VersionSettings;
use tenantry_types::name::MAX_NAME_BYTES;

pub use declared::Declared;

/// Characters of a folder's text that are shown at a time.
const SHOWN_CHARS: usize = 60;

/// What became of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is a setting of the model or its versions here.
    Applied,
    /// It is compared with what the model's file says, once it is registered.
    Compared,
    /// What the model's file says is something else.
    Differs,
    /// Nothing became of it.
    Ignored,
}

/// One setting and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name, with those of the messages around it.
    pub setting: String,
    /// What it is set to, in short.
    pub value: String,
    /// What became of it.
    pub outcome: Outcome,
    /// As what, or why not.
    pub note: String,
}

impl Finding {
    /// A finding whose text is fit to show.
    pub fn new(setting: &str, value: &str, outcome: Outcome, note: impl Into<String>) -> Self {
        Self { setting: shown(setting), value: shown(value), outcome, note: note.into() }
    }
}

/// What a model's settings become. What its files are is in [`folder::Model`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Why the model cannot be served here; the rest is for the report then.
    pub skipped: Option<String>,
    /// The settings of every version.
    pub settings: VersionSettings,
    /// Copies to keep loaded; absent: as it is.
    pub min_replicas: Option<u32>,
    /// The most copies; absent: as it is.
    pub max_replicas: Option<u32>,
    /// Whether answers are kept to be given again.
    pub keeps_answers: bool,
    /// The name of the file in a version's folder; absent: the kind's own.
    pub filename: Option<String>,
    /// Which versions are served.
    pub versions: triton::VersionPolicy,
    /// Pairs to find the versions by.
    pub tags: BTreeMap<String, String>,
    /// Inputs as they are declared.
    pub inputs: Vec<Declared>,
    /// Outputs as they are declared.
    pub outputs: Vec<Declared>,
    /// The names of outputs' classes.
    pub labels: Vec<manifest::Labels>,
    /// What is carried through a sequence.
    pub states: Vec<manifest::State>,
    /// The models it chains; then it has no file of its own.
    pub chain: Option<manifest::Chain>,
    /// Setting by setting.
    pub findings: Vec<Finding>,
}

impl Plan {
    fn note(&mut self, setting: &str, value: &str, outcome: Outcome, note: impl Into<String>) {
        let finding = Finding::new(setting, value, outcome, note);
        match self.findings.last_mut() {
            // The elements of a list are told in one line.
            Some(last) if (&last.setting, last.outcome, &last.note) == (&finding.setting, outcome, &finding.note) => {
                last.value = shown(&format!("{}, {}", last.value, finding.value));
            }
            _ => self.findings.push(finding),
        }
    }
}

/// A folder's text as it may be shown.
pub fn shown(text: &str) -> String {
    sanitise(text, SHOWN_CHARS)
}

/// The name a model gets that is called `text` elsewhere: in small letters, and with `-` for what names here do not have.
pub fn model_name(text: &str) -> Option<ModelName> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let lower = text.chars().map(|c| {
        let c = c.to_ascii_lowercase();
        if plain(c) || matches!(c, '-' | '_' | '.') { c } else { '-' }
    });
    // All of it is ASCII by now.
    let cut: String = lower.skip_while(|c| !plain(*c)).take(MAX_NAME_BYTES).collect();
    cut.trim_end_matches(|c| !plain(c)).parse().ok()
}

/// Whether `name` is one of a file in a folder, and not a way out of it.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_to_fit() {
        let named = |text: &str| model_name(text).map(|name| name.to_string());
        assert_eq!(named("ResNet50").as_deref(), Some("resnet50"));
        assert_eq!(named("my model (v2)").as_deref(), Some("my-model--v2"));
        assert_eq!(named("_hidden.").as_deref(), Some("hidden"));
        assert_eq!(named(&"X".repeat(100)), Some("x".repeat(63)));
        for none in ["", "..", "äöü", "infer"] {
            assert_eq!(named(none), None, "{none}");
        }
    }

    #[test]
    fn a_file_name_is_no_way_out() {
        assert!(is_plain_file_name("model.onnx") && is_plain_file_name("a b"));
        for way in ["", ".", "..", "a/b", "/etc/passwd", "..\\x", "a\0", &"x".repeat(256)] {
            assert!(!is_plain_file_name(way), "{way:?}");
        }
    }
}
