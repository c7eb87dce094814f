//! What type a file is: the features and the reading of the answer of the Magika model, standard_v3_3.
//!
//! The model sees the first and the last 1024 bytes of the file after white space at the ends is gone. Files too short
//! to say anything are answered without it, and answers it is not sure of become "text" or "unknown", with its own
//! threshold for some types.

use std::collections::HashMap;

use serde::Deserialize;

/// What counts as white space at a file's ends (as Python's `bytes.strip` has it: the vertical tab too).
const WHITE_SPACE: [u8; 6] = [b' ', b'\t', b'\n', b'\r', 0x0b, 0x0c];

/// The model's configuration or its knowledge of types cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not the JSON that was expected.
    #[error("the file types' configuration is malformed")]
    Json(#[from] serde_json::Error),
    /// Valid JSON with values the features are not defined for.
    #[error("the file types' configuration asks for features of another kind: {0}")]
    Unsupported(&'static str),
}

/// The model answered something that is not a list of scores, one for each type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the model answered {found} scores; {expected} types are known")]
pub struct AnswerError {
    /// How many scores came.
    pub found: usize,
    /// How many types there are.
    pub expected: usize,
}

#[derive(Debug, Deserialize)]
struct Configuration {
    beg_size: usize,
    mid_size: usize,
    end_size: usize,
    use_inputs_at_offsets: bool,
    medium_confidence_threshold: f32,
    min_file_size_for_dl: usize,
    padding_token: i32,
    block_size: usize,
    target_labels_space: Vec<String>,
    thresholds: HashMap<String, f32>,
    overwrite_map: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Knowledge {
    mime_type: Option<String>,
    group: Option<String>,
    description: Option<String>,
    is_text: bool,
}

/// A type of file, in words.
#[derive(Debug, Clone, PartialEq)]
pub struct FileType {
    /// The short name, such as `python`.
    pub label: String,
    /// A few words, such as "Python source".
    pub description: String,
    /// The media type, such as `text/x-python`.
    pub mime_type: String,
    /// The kind of type, such as `code`.
    pub group: String,
    /// Whether it is text.
    pub is_text: bool,
    /// How sure the model was, 0 to 1; 1 where no model was asked.
    pub score: f32,
}

/// What a file's content asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// There is too little to ask the model about.
    Answered(FileType),
    /// The model's input `bytes`: one row, [`FileTypes::row_tokens`] long.
    Ask(Vec<i32>),
}

/// The types the model knows and how its answers are read.
#[derive(Debug)]
pub struct FileTypes {
    configuration: Configuration,
    knowledge: HashMap<String, Knowledge>,
}

impl FileTypes {
    /// Reads the model's `config.min.json` and `content_types_kb.min.json`.
    pub fn open(configuration: &[u8], knowledge: &[u8]) -> Result<Self, OpenError> {
        let configuration: Configuration = serde_json::from_slice(configuration)?;
        if configuration.mid_size != 0 || configuration.use_inputs_at_offsets {
            return Err(OpenError::Unsupported("bytes of the middle or at fixed offsets"));
        }
        if configuration.beg_size.max(configuration.end_size) >= configuration.block_size {
            return Err(OpenError::Unsupported("more bytes than a block has"));
        }
        if configuration.min_file_size_for_dl > configuration.beg_size {
            return Err(OpenError::Unsupported("a shortest file longer than what is read of it"));
        }
        Ok(Self { configuration, knowledge: serde_json::from_slice(knowledge)? })
    }

    /// How many tokens one row of the model's input has.
    pub fn row_tokens(&self) -> usize {
        self.configuration.beg_size + self.configuration.end_size
    }

    /// Turns a file's whole content into the model's input, or answers at once where there is too little of it.
    pub fn question(&self, content: &[u8]) -> Question {
        let configuration = &self.configuration;
        if content.is_empty() {
            return Question::Answered(self.describe("empty", 1.0));
        }
        if content.len() < configuration.min_file_size_for_dl {
            return Question::Answered(self.few_bytes(content));
        }
        let block = content.len().min(configuration.block_size);
        let (first_block, last_block) = (content.split_at(block).0, content.split_at(content.len() - block).1);
        let beginning = strip_start(first_block);
        if beginning.len() < configuration.min_file_size_for_dl {
            return Question::Answered(self.few_bytes(first_block));
        }
        let ending = strip_end(last_block);
        let mut tokens = Vec::with_capacity(self.row_tokens());
        tokens.extend(beginning.iter().take(configuration.beg_size).copied().map(i32::from));
        tokens.resize(configuration.beg_size, configuration.padding_token);
        let kept = ending.len().min(configuration.end_size);
        tokens.resize(self.row_tokens() - kept, configuration.padding_token);
        tokens.extend(ending.iter().skip(ending.len() - kept).copied().map(i32::from));
        Question::Ask(tokens)
    }

    /// Reads one row of the model's output `target_label`.
    pub fn answer(&self, scores: &[f32]) -> Result<FileType, AnswerError> {
        let labels = &self.configuration.target_labels_space;
        let best = labels.iter().zip(scores).reduce(|best, next| if next.1 > best.1 { next } else { best });
        match best {
            Some((label, score)) if scores.len() == labels.len() => Ok(self.read(label, *score)),
            _ => Err(AnswerError { found: scores.len(), expected: labels.len() }),
        }
    }

    /// What is said of the model's best label: itself or what replaces it if the score is high enough, else a generic type.
    fn read(&self, label: &str, score: f32) -> FileType {
        let configuration = &self.configuration;
        let replaced = configuration.overwrite_map.get(label).map_or(label, String::as_str);
        let threshold = configuration.thresholds.get(label).unwrap_or(&configuration.medium_confidence_threshold);
        if score >= *threshold {
            return self.describe(replaced, score);
        }
        // Text or not is trusted even where the exact type is not.
        let is_text = self.knowledge.get(replaced).is_some_and(|known| known.is_text);
        self.describe(if is_text { "txt" } else { "unknown" }, score)
    }

    fn few_bytes(&self, content: &[u8]) -> FileType {
        self.describe(if std::str::from_utf8(content).is_ok() { "txt" } else { "unknown" }, 1.0)
    }

    fn describe(&self, label: &str, score: f32) -> FileType {
        let known = self.knowledge.get(label);
        let is_text = known.is_some_and(|known| known.is_text);
        let or = |value: Option<&String>, default: &str| value.map_or_else(|| default.to_owned(), String::clone);
        FileType {
            label: label.to_owned(),
            description: or(known.and_then(|known| known.description.as_ref()), label),
            mime_type: or(
                known.and_then(|known| known.mime_type.as_ref()),
                if is_text { "text/plain" } else { "application/octet-stream" },
            ),
            group: or(known.and_then(|known| known.group.as_ref()), "unknown"),
            is_text,
            score,
        }
    }
}

fn strip_start(content: &[u8]) -> &[u8] {
    let start = content.iter().position(|byte| !WHITE_SPACE.contains(byte)).unwrap_or(content.len());
    content.split_at(start).1
}

fn strip_end(content: &[u8]) -> &[u8] {
    let end = content.iter().rposition(|byte| !WHITE_SPACE.contains(byte)).map_or(0, |last| last + 1);
    content.split_at(end).0
}

#[cfg(test)]
mod tests;
