//! The JSON part of a message, read in one pass into borrowed structs; `data` stays unread text until its type is known.
//!
//! The visitors are written by hand for two reasons: an error then names the tensor it is in, and the parameters of the
//! protocol are taken out of their maps without building the maps.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tenantry_types::error::sanitise;
use tenantry_types::limits::{MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use tenantry_types::{DataType, Shape};

use crate::error::{DecodeError, Place, TensorKind, echo};
use crate::limits::{MAX_ID_BYTES, MAX_JSON_DEPTH, MAX_JSON_MESSAGE_CHARS};
use crate::parameters::{KnownParameters, ParametersOf, ParametersSeed};
use crate::values::{DataTypeName, Extents, Text};

/// A request's JSON part.
#[derive(Default)]
pub(crate) struct RequestHeader<'a> {
    pub(crate) id: Option<String>,
    pub(crate) parameters: KnownParameters,
    pub(crate) inputs: Vec<TensorHeader<'a>>,
    pub(crate) outputs: Vec<OutputHeader>,
}

/// A response's JSON part.
#[derive(Default)]
pub(crate) struct ResponseHeader<'a> {
    pub(crate) model_name: String,
    pub(crate) model_version: String,
    pub(crate) id: Option<String>,
    pub(crate) outputs: Vec<TensorHeader<'a>>,
}

/// A tensor as its JSON describes it.
pub(crate) struct TensorHeader<'a> {
    pub(crate) name: String,
    pub(crate) datatype: DataType,
    pub(crate) shape: Shape,
    pub(crate) parameters: KnownParameters,
    pub(crate) data: Option<&'a RawValue>,
}

/// An output as a request asks for it.
pub(crate) struct OutputHeader {
    pub(crate) name: String,
    pub(crate) parameters: KnownParameters,
}

/// Reads a request's JSON part.
pub(crate) fn read_request(json: &[u8]) -> Result<RequestHeader<'_>, DecodeError> {
    let tracker = Tracker::default();
    read(json, &tracker, RequestSeed { tracker: &tracker })
}

/// Reads a response's JSON part.
pub(crate) fn read_response(json: &[u8]) -> Result<ResponseHeader<'_>, DecodeError> {
    let tracker = Tracker::default();
    read(json, &tracker, ResponseSeed { tracker: &tracker })
}

fn read<'a, S: DeserializeSeed<'a>>(json: &'a [u8], tracker: &Tracker, seed: S) -> Result<S::Value, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    seed.deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| json_error(json, tracker, &error))
}

/// Words a JSON error for a stranger: where, what, and the usual cause when it is one.
#[cold]
fn json_error(json: &[u8], tracker: &Tracker, error: &serde_json::Error) -> DecodeError {
    let mut message = sanitise(&error.to_string(), MAX_JSON_MESSAGE_CHARS);
    if error.is_syntax() && is_not_a_number(json, error.line(), error.column()) {
        message
            .push_str("; NaN and infinities have no JSON form, send this tensor as binary data (`binary_data_size`)");
    }
    let place = Place { tensor: tracker.tensor.get(), name: tracker.name.take() };
    DecodeError::Json { place, message }
}

/// Whether the text at (or just before) a position is one of the words Python writes for what is not a number.
fn is_not_a_number(json: &[u8], line: usize, column: usize) -> bool {
    let start =
        json.split(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(|text| text.len() + 1).sum::<usize>();
    let at = start + column.saturating_sub(1);
    let near = json.get(at.saturating_sub(1)..json.len().min(at + 10)).unwrap_or_default();
    [&b"NaN"[..], b"Infinity"].iter().any(|word| near.windows(word.len()).take(3).any(|window| window == *word))
}

/// Remembers where the reader is, for errors only.
#[derive(Default)]
struct Tracker {
    tensor: Cell<Option<(TensorKind, usize)>>,
    name: RefCell<Option<String>>,
}

/// Which fields a message's top level has.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum TopField {
    Id,
    Parameters,
    Inputs,
    Outputs,
    ModelName,
    ModelVersion,
    #[serde(other)]
    Other,
}

/// Which fields a tensor has.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum TensorField {
    Name,
    Shape,
    Datatype,
    Parameters,
    Data,
    #[serde(other)]
    Other,
}

struct RequestSeed<'t> {
    tracker: &'t Tracker,
}

impl<'de> DeserializeSeed<'de> for RequestSeed<'_> {
    type Value = RequestHeader<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RequestSeed<'_> {
    type Value = RequestHeader<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an inference request: an object with `inputs`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut header = RequestHeader::default();
        let mut seen = Seen::default();
        let mut has_inputs = false;
        while let Some(field) = map.next_key()? {
            match field {
                TopField::Id => {
                    seen.once(0, "id")?;
                    header.id = Some(map.next_value_seed(Text { what: "an id", limit: MAX_ID_BYTES })?);
                }
                TopField::Parameters => {
                    seen.once(1, "parameters")?;
                    header.parameters = map.next_value_seed(ParametersSeed(ParametersOf::Request))?;
                }
                TopField::Inputs => {
                    seen.once(2, "inputs")?;
                    has_inputs = true;
                    let kind = TensorKind::Input;
                    header.inputs = map.next_value_seed(ListSeed {
                        tracker: self.tracker,
                        kind,
                        item: || TensorSeed { tracker: self.tracker },
                    })?;
                }
                TopField::Outputs => {
                    seen.once(3, "outputs")?;
                    let kind = TensorKind::Output;
                    header.outputs = map.next_value_seed(ListSeed {
                        tracker: self.tracker,
                        kind,
                        item: || OutputSeed { tracker: self.tracker },
                    })?;
                }
                TopField::ModelName | TopField::ModelVersion | TopField::Other => skip(&mut map)?,
            }
        }
        if !has_inputs {
            return Err(de::Error::missing_field("inputs"));
        }
        Ok(header)
    }
}

struct ResponseSeed<'t> {
    tracker: &'t Tracker,
}

impl<'de> DeserializeSeed<'de> for ResponseSeed<'_> {
    type Value = ResponseHeader<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ResponseSeed<'_> {
    type Value = ResponseHeader<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an inference response: an object with `model_name` and `outputs`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut header = ResponseHeader::default();
        let mut seen = Seen::default();
        let mut has_outputs = false;
        while let Some(field) = map.next_key()? {
            match field {
                TopField::ModelName => {
                    seen.once(0, "model_name")?;
                    header.model_name = map.next_value_seed(Text { what: "a name", limit: MAX_ID_BYTES })?;
                }
                TopField::ModelVersion => {
                    seen.once(1, "model_version")?;
                    header.model_version = map.next_value_seed(Text { what: "a version", limit: MAX_ID_BYTES })?;
                }
                TopField::Id => {
                    seen.once(2, "id")?;
                    header.id = Some(map.next_value_seed(Text { what: "an id", limit: MAX_ID_BYTES })?);
                }
                TopField::Outputs => {
                    seen.once(3, "outputs")?;
                    has_outputs = true;
                    let kind = TensorKind::Output;
                    header.outputs = map.next_value_seed(ListSeed {
                        tracker: self.tracker,
                        kind,
                        item: || TensorSeed { tracker: self.tracker },
                    })?;
                }
                TopField::Parameters | TopField::Inputs | TopField::Other => skip(&mut map)?,
            }
        }
        if header.model_name.is_empty() {
            return Err(de::Error::missing_field("model_name"));
        }
        if !has_outputs {
            return Err(de::Error::missing_field("outputs"));
        }
        Ok(header)
    }
}

/// An array of at most [`MAX_TENSORS`] items.
struct ListSeed<'t, F> {
    tracker: &'t Tracker,
    kind: TensorKind,
    item: F,
}

impl<'de, F: Fn() -> S, S: DeserializeSeed<'de>> DeserializeSeed<'de> for ListSeed<'_, F> {
    type Value = Vec<S::Value>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: Fn() -> S, S: DeserializeSeed<'de>> Visitor<'de> for ListSeed<'_, F> {
    type Value = Vec<S::Value>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}s", self.kind)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        loop {
            self.tracker.tensor.set(Some((self.kind, items.len())));
            let Some(item) = seq.next_element_seed((self.item)())? else { break };
            if items.len() == MAX_TENSORS {
                return Err(de::Error::custom(format_args!("more than {MAX_TENSORS} {}s", self.kind)));
            }
            items.push(item);
        }
        self.tracker.tensor.set(None);
        Ok(items)
    }
}

struct TensorSeed<'t> {
    tracker: &'t Tracker,
}

impl<'de> DeserializeSeed<'de> for TensorSeed<'_> {
    type Value = TensorHeader<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorSeed<'_> {
    type Value = TensorHeader<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor: an object with `name`, `shape`, `datatype` and data")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut name = None;
        read_tensor(&mut map, &mut name).inspect_err(|_| {
            // Only an error pays for keeping the name.
            *self.tracker.name.borrow_mut() = name.as_deref().map(echo);
        })
    }
}

fn read_tensor<'de, A: MapAccess<'de>>(map: &mut A, name: &mut Option<String>) -> Result<TensorHeader<'de>, A::Error> {
    let mut seen = Seen::default();
    let (mut shape, mut datatype, mut data) = (None, None, None);
    let mut parameters = KnownParameters::default();
    while let Some(field) = map.next_key()? {
        match field {
            TensorField::Name => {
                seen.once(0, "name")?;
                *name = Some(map.next_value_seed(Text { what: "a name", limit: MAX_TENSOR_NAME_BYTES })?);
            }
            TensorField::Shape => {
                seen.once(1, "shape")?;
                shape = Some(map.next_value::<Extents>()?.0);
            }
            TensorField::Datatype => {
                seen.once(2, "datatype")?;
                datatype = Some(map.next_value::<DataTypeName>()?.0);
            }
            TensorField::Parameters => {
                seen.once(3, "parameters")?;
                parameters = map.next_value_seed(ParametersSeed(ParametersOf::Tensor))?;
            }
            TensorField::Data => {
                seen.once(4, "data")?;
                data = Some(map.next_value::<&'de RawValue>()?);
            }
            TensorField::Other => skip(map)?,
        }
    }
    let (Some(shape), Some(datatype)) = (shape, datatype) else {
        return Err(de::Error::missing_field(if seen.has(1) { "datatype" } else { "shape" }));
    };
    let name = name.clone().ok_or_else(|| de::Error::missing_field("name"))?;
    Ok(TensorHeader { name, datatype, shape, parameters, data })
}

struct OutputSeed<'t> {
    tracker: &'t Tracker,
}

impl<'de> DeserializeSeed<'de> for OutputSeed<'_> {
    type Value = OutputHeader;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OutputSeed<'_> {
    type Value = OutputHeader;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a requested output: an object with `name`")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut name: Option<String> = None;
        let mut parameters = KnownParameters::default();
        let mut seen = Seen::default();
        while let Some(field) = map.next_key()? {
            match field {
                TensorField::Name => {
                    seen.once(0, "name")?;
                    name = Some(map.next_value_seed(Text { what: "a name", limit: MAX_TENSOR_NAME_BYTES })?);
                }
                TensorField::Parameters => {
                    seen.once(1, "parameters")?;
                    parameters =
                        map.next_value_seed(ParametersSeed(ParametersOf::RequestedOutput)).inspect_err(|_| {
                            *self.tracker.name.borrow_mut() = name.as_deref().map(echo);
                        })?;
                }
                _ => skip(&mut map)?,
            }
        }
        Ok(OutputHeader { name: name.ok_or_else(|| de::Error::missing_field("name"))?, parameters })
    }
}

/// Refuses the second value of a field.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn once<E: de::Error>(&mut self, field: u8, name: &'static str) -> Result<(), E> {
        if self.has(field) {
            return Err(E::duplicate_field(name));
        }
        self.0 |= 1 << field;
        Ok(())
    }

    fn has(&self, field: u8) -> bool {
        self.0 & (1 << field) != 0
    }
}

/// Passes over a value nobody reads, refusing absurd nesting.
fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    let value = map.next_value::<&'de RawValue>()?.get();
    if nesting(value) > MAX_JSON_DEPTH {
        return Err(de::Error::custom(format_args!("a value is nested deeper than {MAX_JSON_DEPTH}")));
    }
    Ok(())
}

/// How deep brackets nest in valid JSON.
fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_counts_brackets_outside_texts() {
        for (json, depth) in [("1", 0), ("[]", 1), (r#"{"a":[[1]],"b":{}}"#, 3), (r#"["[[[[\"[["]"#, 1)] {
            assert_eq!(nesting(json), depth, "{json}");
        }
    }
}
