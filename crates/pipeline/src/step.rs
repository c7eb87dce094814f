//! The steps: as a manifest writes them, and ready to run.

mod boxes;
mod classes;
mod files;
mod picture;
mod sound;
mod text;
mod vector;

use std::collections::HashMap;

use serde::Deserialize;

use crate::manifest::METADATA_PREFIX;
use crate::value::{PlanError, Specs, StepError, Values};

/// Something done to values.
pub(crate) trait Step: std::fmt::Debug + Send + Sync {
    /// Reads from `specs` what is known of its values, and adds what it makes.
    fn plan(&self, specs: &mut Specs) -> Result<(), PlanError>;

    /// Reads values, and adds what it makes.
    fn run<'a>(&'a self, values: &mut Values<'a>) -> Result<(), StepError>;

    /// The values it makes: where none is wanted, it is left out.
    fn makes(&self) -> Vec<&str>;

    /// The values it reads.
    fn reads(&self) -> Vec<&str>;
}

/// The files beside a manifest, by name.
pub type Files<'a> = HashMap<&'a str, &'a [u8]>;

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident($config:ty),)*) => {
        /// A step as written: `step` names it, the rest is its own.
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        #[serde(tag = "step", rename_all = "snake_case")]
        #[expect(missing_docs, reason = "each is documented where it is defined, and in docs/pipelines.md")]
        pub enum StepConfig {
            $($(#[$doc])* $name($config),)*
        }

        impl StepConfig {
            /// The files it needs.
            pub(crate) fn files(&self) -> Vec<&str> {
                match self {
                    $(Self::$name(config) => config.files(),)*
                }
            }

            /// Reads its files.
            pub(crate) fn open(&self, files: &Files<'_>) -> Result<Box<dyn Step>, PlanError> {
                match self {
                    $(Self::$name(config) => config.open(files),)*
                }
            }
        }
    };
}

steps! {
    Tokenize(text::TokenizeConfig),
    DecodeImage(picture::DecodeImage),
    EncodeImage(picture::EncodeImage),
    Resize(picture::Resize),
    CenterCrop(picture::CenterCrop),
    Recompress(picture::Recompress),
    Pixels(picture::Pixels),
    Turn(picture::Turn),
    DecodeAudio(sound::DecodeAudio),
    Frame(sound::Frame),
    SpeechSegments(sound::SpeechSegments),
    Constant(vector::Constant),
    MeanPool(vector::MeanPool),
    L2Normalize(vector::L2Normalize),
    Softmax(vector::Softmax),
    TopK(classes::TopKConfig),
    CtcDecode(classes::CtcDecodeConfig),
    Nms(boxes::Nms),
    TextBoxes(boxes::TextBoxes),
    FileWindow(files::FileWindowConfig),
    FileType(files::FileTypeConfig),
}

/// A step as a manifest writes it.
pub(crate) trait Config {
    fn files(&self) -> Vec<&str> {
        Vec::new()
    }

    fn open(&self, files: &Files<'_>) -> Result<Box<dyn Step>, PlanError>;
}

/// A step that needs no file is its own configuration.
impl<T: Step + Clone + 'static> Config for T {
    fn open(&self, _: &Files<'_>) -> Result<Box<dyn Step>, PlanError> {
        Ok(Box::new(self.clone()))
    }
}

/// A file beside the manifest.
fn file<'a>(files: &Files<'a>, name: &str) -> Result<&'a [u8], PlanError> {
    files.get(name).copied().ok_or_else(|| match name.strip_prefix(METADATA_PREFIX) {
        Some(key) => PlanError(format!("the model's metadata have no key `{key}`")),
        None => PlanError(format!("the file `{name}` is not beside the manifest; upload it with the model")),
    })
}

/// The lines of a text file, without those at its end that are empty.
fn lines(files: &Files<'_>, name: &str) -> Result<Vec<String>, PlanError> {
    let text = std::str::from_utf8(file(files, name)?)
        .map_err(|_| PlanError(format!("the file `{name}` is not UTF-8 text")))?;
    Ok(text.trim_end_matches(['\n', '\r']).lines().map(str::to_owned).collect())
}
