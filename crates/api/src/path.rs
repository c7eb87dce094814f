//! The paths of the data plane's edges. Parsed by hand, because a model is one segment (`name`) or two (`owner/name`).
//!
//! The words that may follow a model are reserved, so no model is called like one of them and every path has one reading
//! ([`tenantry_types::name::RESERVED_MODEL_NAMES`]).

mod v1;

pub(crate) use v1::{V1Action, V1ModelPath, V1Path, parse_predictions, parse_v1, without_openai_prefix};

use std::borrow::Cow;

use smallvec::SmallVec;
use tenantry_types::name::RESERVED_MODEL_NAMES;

/// What a path under `/v2` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum V2Path<'a> {
    /// `/v2`: the server's metadata.
    Server,
    /// `/v2/health/live`.
    Live,
    /// `/v2/health/ready`.
    Ready,
    /// `/v2/models`: the models the caller may use.
    Models,
    /// `/v2/openapi.json`: the document of these paths.
    Document,
    /// `/v2/repository/index`: the versions the caller may use.
    Index,
    /// Something of one model.
    Model(ModelPath<'a>),
    /// A part of the protocol, or of an extension, that this server does not have.
    Unimplemented,
}

/// A model as a path names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelPath<'a> {
    /// `name` or `owner/name`, decoded but not checked.
    pub(crate) model: Cow<'a, str>,
    /// A version's number or alias, decoded but not checked.
    pub(crate) version: Option<Cow<'a, str>>,
    /// What is to be done.
    pub(crate) action: ModelAction,
}

/// What is to be done with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelAction {
    /// Describe it.
    Metadata,
    /// Say whether it would be served.
    Ready,
    /// Run it.
    Infer,
    /// Run it on one JSON object.
    Generate,
    /// The same, answered as events.
    GenerateStream,
    /// Show how it is run.
    Config,
    /// Load it ahead of a request.
    Load,
    /// Let go of its idle replicas.
    Unload,
    /// Something of the protocol that this server does not have.
    Unimplemented,
}

impl ModelAction {
    /// Whether it is asked for with a body.
    pub(crate) fn is_posted(self) -> bool {
        matches!(self, Self::Infer | Self::Generate | Self::GenerateStream | Self::Load | Self::Unload)
    }
}

/// Reads a path; `None` if it names nothing.
pub(crate) fn parse(path: &str) -> Option<V2Path<'_>> {
    let rest = path.strip_prefix("/v2")?;
    if rest.is_empty() || rest == "/" {
        return Some(V2Path::Server);
    }
    let mut segments = rest.strip_prefix('/')?.split('/');
    match segments.next()? {
        "health" => match (segments.next(), segments.next()) {
            (Some("live"), None) => Some(V2Path::Live),
            (Some("ready"), None) => Some(V2Path::Ready),
            _ => None,
        },
        "models" => match segments.clone().next() {
            None => Some(V2Path::Models),
            Some("stats") if segments.clone().nth(1).is_none() => Some(V2Path::Unimplemented),
            Some(_) => parse_model(segments).map(V2Path::Model),
        },
        "openapi.json" if segments.next().is_none() => Some(V2Path::Document),
        "repository" => parse_repository(segments),
        "systemsharedmemory" | "cudasharedmemory" | "trace" | "logging" => Some(V2Path::Unimplemented),
        _ => None,
    }
}

/// The most segments after `/v2/models/`: owner, name, `versions`, version, action (`trace/setting` has two).
const MAX_SEGMENTS: usize = 6;

fn parse_model<'a>(segments: impl Iterator<Item = &'a str>) -> Option<ModelPath<'a>> {
    let segments = decoded(segments)?;
    let (model, rest) = split_model(&segments)?;
    let (version, rest) = match rest {
        [word, version, rest @ ..] if word == "versions" => (Some(version.clone()), rest),
        rest => (None, rest),
    };
    let action = match rest {
        [] => ModelAction::Metadata,
        [word] => match word.as_ref() {
            "infer" => ModelAction::Infer,
            "ready" => ModelAction::Ready,
            "config" => ModelAction::Config,
            "generate" => ModelAction::Generate,
            "generate_stream" => ModelAction::GenerateStream,
            "stats" => ModelAction::Unimplemented,
            _ => return None,
        },
        [trace, setting] if trace == "trace" && setting == "setting" => ModelAction::Unimplemented,
        _ => return None,
    };
    Some(ModelPath { model, version, action })
}

/// Reads what follows `/v2/repository/`. There is one repository, so none is named.
fn parse_repository<'a>(segments: impl Iterator<Item = &'a str>) -> Option<V2Path<'a>> {
    let segments = decoded(segments)?;
    let (first, rest) = segments.split_first()?;
    if first == "index" && rest.is_empty() {
        return Some(V2Path::Index);
    }
    let (model, rest) = split_model(rest).filter(|_| first == "models")?;
    let action = match rest {
        [word] if word == "load" => ModelAction::Load,
        [word] if word == "unload" => ModelAction::Unload,
        _ => return None,
    };
    Some(V2Path::Model(ModelPath { model, version: None, action }))
}

/// The segments of a path, decoded.
type Segments<'a> = SmallVec<[Cow<'a, str>; MAX_SEGMENTS]>;

/// Decodes the segments of a path; `None` for too many, or an empty one.
fn decoded<'a>(segments: impl Iterator<Item = &'a str>) -> Option<Segments<'a>> {
    let segments: Segments<'a> = segments.take(MAX_SEGMENTS + 1).map(decode).collect::<Option<_>>()?;
    (segments.len() <= MAX_SEGMENTS && segments.iter().all(|segment| !segment.is_empty())).then_some(segments)
}

/// The model at the front of a path, and what follows it.
fn split_model<'a, 's>(segments: &'s [Cow<'a, str>]) -> Option<(Cow<'a, str>, &'s [Cow<'a, str>])> {
    let (first, rest) = segments.split_first()?;
    Some(match rest.split_first() {
        // `owner%2Fname` is one segment that names both.
        Some((name, rest)) if !first.contains('/') && !RESERVED_MODEL_NAMES.contains(&name.as_ref()) => {
            (Cow::Owned(format!("{first}/{name}")), rest)
        }
        _ => (first.clone(), rest),
    })
}

/// Decodes a segment (RFC 3986, section 2.1); `None` if what comes out is not UTF-8 or an escape is broken.
fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if !segment.contains('%') {
        return Some(Cow::Borrowed(segment));
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests;
