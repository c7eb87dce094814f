//! Parameters: a map of names to texts, numbers and booleans, of which this codec takes out those it acts on.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tenantry_types::error::sanitise;
use tenantry_types::{ParameterValue, Parameters};

use crate::limits::{MAX_PARAMETER_BYTES, MAX_PARAMETERS, MAX_WORD_CHARS};

/// Parameters, those with a meaning to this codec apart.
#[derive(Default)]
pub(crate) struct KnownParameters {
    /// Of an input or a response's output.
    pub(crate) binary_data_size: Option<u64>,
    /// Of a requested output.
    pub(crate) binary_data: Option<bool>,
    /// Of a request.
    pub(crate) binary_data_output: Option<bool>,
    /// Of a request, microseconds; 0 means none.
    pub(crate) timeout_us: Option<u64>,
    /// Of a request: 1 is the most urgent, 0 means none.
    pub(crate) priority: Option<u64>,
    /// Whether a parameter of the shared memory extensions is there.
    pub(crate) shared_memory: bool,
    /// Whether the parameter of the classification extension is there.
    pub(crate) classification: bool,
    /// Everything else, in order. Kept for requests only.
    pub(crate) other: Parameters,
}

/// Whose parameters a map holds: the same word means nothing special elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParametersOf {
    Request,
    Tensor,
    RequestedOutput,
}

/// Reads a map of parameters.
pub(crate) struct ParametersSeed(pub(crate) ParametersOf);

impl<'de> DeserializeSeed<'de> for ParametersSeed {
    type Value = KnownParameters;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ParametersSeed {
    type Value = KnownParameters;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parameters = KnownParameters::default();
        let mut count = 0;
        while let Some(Name(key)) = map.next_key()? {
            count += 1;
            if count > MAX_PARAMETERS {
                return Err(de::Error::custom(format_args!("more than {MAX_PARAMETERS} parameters")));
            }
            let value = map.next_value::<&'de RawValue>()?.get();
            parameters.put(self.0, key, value).map_err(|(key, expected)| {
                let (key, got) = (sanitise(&key, MAX_WORD_CHARS), sanitise(value, MAX_WORD_CHARS));
                de::Error::custom(format_args!("parameter `{key}` is {got}, expected {expected}"))
            })?;
        }
        Ok(parameters)
    }
}

impl KnownParameters {
    /// Takes one parameter in; an error carries its key back and says what would have been right.
    pub(crate) fn put<'a>(
        &mut self,
        of: ParametersOf,
        key: Cow<'a, str>,
        value: &str,
    ) -> Result<(), (Cow<'a, str>, &'static str)> {
        let once = |set: bool| if set { Err("one value, not several") } else { Ok(()) };
        let result = match (of, key.as_ref()) {
            (ParametersOf::Tensor, "binary_data_size") => once(self.binary_data_size.is_some())
                .and_then(|()| whole_number(value))
                .map(|bytes| self.binary_data_size = Some(bytes)),
            (ParametersOf::RequestedOutput, "binary_data") => once(self.binary_data.is_some())
                .and_then(|()| boolean(value))
                .map(|binary| self.binary_data = Some(binary)),
            (ParametersOf::Request, "binary_data_output") => once(self.binary_data_output.is_some())
                .and_then(|()| boolean(value))
                .map(|binary| self.binary_data_output = Some(binary)),
            (ParametersOf::Request, "timeout") => once(self.timeout_us.is_some())
                .and_then(|()| whole_number(value))
                .map(|timeout_us| self.timeout_us = Some(timeout_us)),
            (ParametersOf::Request, "priority") => once(self.priority.is_some())
                .and_then(|()| whole_number(value))
                .map(|level| self.priority = Some(level)),
            (ParametersOf::RequestedOutput, "classification") => {
                self.classification = true;
                Ok(())
            }
            (ParametersOf::Tensor | ParametersOf::RequestedOutput, name) if name.starts_with("shared_memory_") => {
                self.shared_memory = true;
                Ok(())
            }
            (ParametersOf::Request, _) if key.len() > MAX_PARAMETER_BYTES => Err("a shorter name"),
            (ParametersOf::Request, name) if self.other.iter().any(|(known, _)| known == name) => {
                Err("one value, not several")
            }
            (ParametersOf::Request, name) => parameter(value).map(|value| self.other.push((name.to_owned(), value))),
            // Parameters of a tensor have no place in a request as the service sees it; their form is still checked.
            (ParametersOf::Tensor | ParametersOf::RequestedOutput, _) => parameter(value).map(drop),
        };
        result.map_err(|expected| (key, expected))
    }
}

fn whole_number(json: &str) -> Result<u64, &'static str> {
    // The protocol's integers are signed; what is above them is refused, not wrapped.
    json.parse::<i64>().ok().and_then(|value| u64::try_from(value).ok()).ok_or("a whole number, zero or more")
}

fn boolean(json: &str) -> Result<bool, &'static str> {
    match json {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("true or false"),
    }
}

fn parameter(json: &str) -> Result<ParameterValue, &'static str> {
    match json.as_bytes().first() {
        Some(b't') => Ok(ParameterValue::Bool(true)),
        Some(b'f') => Ok(ParameterValue::Bool(false)),
        Some(b'"') if json.len() > MAX_PARAMETER_BYTES => Err("a shorter text"),
        Some(b'"') => serde_json::from_str(json).map(ParameterValue::String).map_err(|_| "a text of valid Unicode"),
        Some(b'-' | b'0'..=b'9') if json.contains(['.', 'e', 'E']) => json
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite())
            .map(ParameterValue::Double)
            .ok_or("a number in the range of FP64"),
        Some(b'-' | b'0'..=b'9') => {
            json.parse().map(ParameterValue::Int).map_err(|_| "a whole number in the range of INT64")
        }
        _ => Err("a text, a number, true or false"),
    }
}

/// A text, borrowed where it has no escapes.
#[derive(Deserialize)]
pub(crate) struct Name<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);
