//! The paths under `/v1`, where TensorFlow Serving, KServe and OpenAI meet, and TorchServe's `/predictions`.

use std::borrow::Cow;

use super::{Segments, decoded, split_model};
use crate::openai::OpenAiCall;

/// What a path under `/v1` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum V1Path<'a> {
    /// What OpenAI's clients ask, and others beside them; errors have their form.
    OpenAi(OpenAiCall<'a>),
    /// Something of one model.
    Model(V1ModelPath<'a>),
}

/// A model as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct V1ModelPath<'a> {
    /// `name` or `owner/name`, decoded but not checked.
    pub(crate) model: Cow<'a, str>,
    /// A version's number or label, decoded but not checked.
    pub(crate) version: Option<Cow<'a, str>>,
    /// What is to be done.
    pub(crate) action: V1Action,
}

/// What is to be done with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum V1Action {
    /// Say how it is.
    Status,
    /// Describe its inputs and outputs.
    Metadata,
    /// Run it.
    Predict,
    /// What this server has no such model for: the word.
    Refused(&'static str),
}

/// Reads a path; `None` if it names nothing.
pub(crate) fn parse_v1(path: &str) -> Option<V1Path<'_>> {
    match path {
        "/v1/models" | "/v1/models/" => return Some(V1Path::OpenAi(OpenAiCall::Models)),
        "/v1/embeddings" => return Some(V1Path::OpenAi(OpenAiCall::Embeddings)),
        "/v1/chat/completions" | "/v1/completions" => return Some(V1Path::OpenAi(OpenAiCall::Completions)),
        _ => {}
    }
    let rest = path.strip_prefix("/v1/models")?;
    let mut segments = decoded(rest.strip_prefix('/')?.split('/'))?;
    let verb = take_verb(&mut segments);
    let (model, rest) = split_model(&segments)?;
    let (version, rest) = match rest {
        [word, version, rest @ ..] if word == "versions" || word == "labels" => (Some(version.clone()), rest),
        rest => (None, rest),
    };
    let action = match (rest, verb.as_deref()) {
        ([], None) => V1Action::Status,
        ([word], None) if word == "metadata" => V1Action::Metadata,
        ([], Some("predict")) => V1Action::Predict,
        ([], Some("classify")) => V1Action::Refused("classify"),
        ([], Some("regress")) => V1Action::Refused("regress"),
        ([], Some("explain")) => V1Action::Refused("explain"),
        _ => return None,
    };
    Some(match (&version, action) {
        (None, V1Action::Status) => V1Path::OpenAi(OpenAiCall::Model(model)),
        _ => V1Path::Model(V1ModelPath { model, version, action }),
    })
}

/// The path under `/v1` that a path under KServe's prefix for OpenAI's API stands for.
pub(crate) fn without_openai_prefix(path: &str) -> Option<&str> {
    path.strip_prefix("/openai").filter(|rest| rest.starts_with("/v1/"))
}

/// Takes `:verb` off the last segment. No name has a colon.
fn take_verb(segments: &mut Segments<'_>) -> Option<String> {
    let last = segments.last_mut()?;
    let (name, verb) = last.split_once(':')?;
    let (name, verb) = (name.to_owned(), verb.to_owned());
    *last = Cow::Owned(name);
    Some(verb)
}

/// Reads what follows `/predictions`: `{model}`, `{model}/{version}` or `{owner}/{model}/{version}`. Two segments are a
/// model and its version, as in TorchServe; an owner without a version is written `{owner}%2F{model}`.
pub(crate) fn parse_predictions(path: &str) -> Option<V1ModelPath<'_>> {
    let segments = decoded(path.strip_prefix("/predictions/")?.split('/'))?;
    let (model, version) = match segments.as_slice() {
        [model] => (model.clone(), None),
        [model, version] => (model.clone(), Some(version.clone())),
        [owner, model, version] if !owner.contains('/') => {
            (Cow::Owned(format!("{owner}/{model}")), Some(version.clone()))
        }
        _ => return None,
    };
    Some(V1ModelPath { model, version, action: V1Action::Predict })
}
