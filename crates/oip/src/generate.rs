//! The bodies of Triton's generate extension: tensors by name among the fields of one flat JSON object.
//!
//! A field that is called like an input is that input: a value, or a list of them, where dimensions in front that the value
//! does not have are 1. `id` and `parameters` are those of the v2 protocol, and so is every other field: a parameter. The
//! answer has a field for each output: its value if it is one, else a list of them, row by row.

use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;
use tenantry_types::error::sanitise;
use tenantry_types::limits::MAX_TENSORS;
use tenantry_types::{InferResponse, Parameters, Priority, Signature, Tensor};

use crate::json_out::write_text;
use crate::limits::{MAX_ID_BYTES, MAX_JSON_MESSAGE_CHARS, MAX_PARAMETERS};
use crate::parameters::{KnownParameters, Name, ParametersOf, ParametersSeed};
use crate::predict::PredictError;
use crate::predict::nested::{Gatherer, depth, quoted};
use crate::predict::values::Reader;

/// A decoded request.
#[derive(Debug, Clone, PartialEq)]
pub struct Generate {
    /// The client's own id.
    pub id: Option<String>,
    /// The inputs, each with its name.
    pub inputs: Vec<Tensor>,
    /// What is no input.
    pub parameters: Parameters,
    /// How long the client will wait.
    pub timeout: Option<Duration>,
    /// Its place among the caller's own requests.
    pub priority: Priority,
}

/// The fields of the object.
struct Fields<'a> {
    id: Option<String>,
    known: KnownParameters,
    values: SmallVec<[(Cow<'a, str>, &'a RawValue); 4]>,
}

/// The most fields: inputs, parameters, and the two that have a meaning of their own.
const MAX_FIELDS: usize = MAX_TENSORS + MAX_PARAMETERS + 2;

/// Decodes the body of a generate call to a version with this signature.
///
/// # Errors
/// The first thing wrong with the body.
pub fn decode_generate(signature: &Signature, body: &[u8]) -> Result<Generate, PredictError> {
    let json = quoted(body);
    let wrong = |error: serde_json::Error| PredictError::Json(sanitise(&error.to_string(), MAX_JSON_MESSAGE_CHARS));
    let Fields { id, mut known, values } = serde_json::from_slice(&json).map_err(wrong)?;
    let mut inputs: SmallVec<[Option<Tensor>; 4]> = signature.inputs.iter().map(|_| None).collect();
    for (name, value) in values {
        let Some(position) = signature.input_index(&name) else {
            known.put(ParametersOf::Request, name, value.get()).map_err(|(name, expected)| PredictError::Field {
                name: sanitise(&name, crate::limits::MAX_WORD_CHARS),
                got: sanitise(value.get(), crate::limits::MAX_WORD_CHARS),
                expected,
            })?;
            continue;
        };
        let (Some(spec), Some(input)) = (signature.inputs.get(position), inputs.get_mut(position)) else { continue };
        let of_input = |problem| PredictError::Input { name: spec.name.clone(), problem };
        let mut gatherer = Gatherer::new(spec, value.get().len()).map_err(of_input)?;
        let outer = spec.dims.len().saturating_sub(depth(value.get()));
        gatherer.take(value.get(), outer).map_err(of_input)?;
        for axis in 0..outer {
            gatherer.settle(axis, 1).map_err(of_input)?;
        }
        if input.replace(gatherer.finish()).is_some() {
            return Err(PredictError::Duplicate { place: "the body".to_owned(), name: spec.name.clone() });
        }
    }
    let missing = inputs.iter().zip(&signature.inputs).find(|(input, _)| input.is_none());
    if let Some((_, spec)) = missing {
        return Err(PredictError::Missing { place: "the body".to_owned(), name: spec.name.clone() });
    }
    let timeout = known.timeout_us.filter(|timeout_us| *timeout_us > 0).map(Duration::from_micros);
    let priority = Priority::from_client(known.priority.unwrap_or(0));
    Ok(Generate { id, inputs: inputs.into_iter().flatten().collect(), parameters: known.other, timeout, priority })
}

/// Writes an answer.
///
/// # Errors
/// An output without a JSON form, or one whose data does not fit its type.
pub fn encode_generate(response: &InferResponse) -> Result<Vec<u8>, PredictError> {
    let mut json = Vec::with_capacity(256);
    json.extend_from_slice(b"{\"model_name\":");
    write_text(&mut json, &response.model.to_string());
    json.extend_from_slice(b",\"model_version\":");
    write_text(&mut json, &response.version);
    if let Some(id) = &response.id {
        json.extend_from_slice(b",\"id\":");
        write_text(&mut json, id);
    }
    for output in &response.outputs {
        json.push(b',');
        write_text(&mut json, &output.name);
        json.push(b':');
        Reader::new(output)?.write_flat(&mut json)?;
    }
    json.push(b'}');
    Ok(json)
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Fields<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a generate request: an object with the model's inputs as fields")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields { id: None, known: KnownParameters::default(), values: SmallVec::new() };
        let mut has_parameters = false;
        while let Some(Name(name)) = map.next_key()? {
            match name.as_ref() {
                "id" if fields.id.is_some() => return Err(de::Error::duplicate_field("id")),
                "id" => {
                    let id: String = map.next_value()?;
                    if id.len() > MAX_ID_BYTES {
                        return Err(de::Error::custom(format_args!("an id of more than {MAX_ID_BYTES} bytes")));
                    }
                    // An empty one is none: clients without an id send it.
                    fields.id = Some(id).filter(|id| !id.is_empty());
                }
                "parameters" if has_parameters => return Err(de::Error::duplicate_field("parameters")),
                "parameters" => {
                    has_parameters = true;
                    fields.known = map.next_value_seed(ParametersSeed(ParametersOf::Request))?;
                }
                _ if fields.values.len() == MAX_FIELDS => {
                    return Err(de::Error::custom(format_args!("more than {MAX_FIELDS} fields")));
                }
                _ => fields.values.push((name, map.next_value()?)),
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use tenantry_types::{DataType, Dim, TensorSpec};

    use super::*;

    fn spec(name: &str, datatype: DataType, dims: Vec<Dim>) -> TensorSpec {
        TensorSpec { name: name.to_owned(), datatype, dims }
    }

    fn signature() -> Signature {
        Signature {
            inputs: vec![
                spec("text_input", DataType::Bytes, vec![Dim::Any(()), Dim::Fixed(1)]),
                spec("scale", DataType::Fp32, vec![Dim::Fixed(1)]),
                spec("ids", DataType::Int64, vec![Dim::Any(())]),
            ],
            outputs: Vec::new(),
        }
    }

    fn decode(body: &str) -> Result<Generate, PredictError> {
        decode_generate(&signature(), body.as_bytes())
    }

    #[test]
    fn fields_are_inputs_by_name_and_parameters_else() {
        let body = r#"{"id": "7", "text_input": "hi", "scale": -Infinity, "ids": [1, 2], "stream": false,
                       "parameters": {"timeout": 5000, "top_k": 3, "priority": 1}}"#;
        let decoded = decode(body).unwrap();
        assert_eq!((decoded.id.as_deref(), decoded.timeout), (Some("7"), Some(Duration::from_millis(5))));
        assert_eq!(decoded.priority.level(), 1);
        let names: Vec<&str> = decoded.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["top_k", "stream"]);
        let shapes: Vec<&[u64]> = decoded.inputs.iter().map(|input| input.shape.as_slice()).collect();
        assert_eq!(shapes, [&[1, 1][..], &[1], &[2]]);
        assert_eq!(decoded.inputs[0].data.to_contiguous(), &b"\x02\0\0\0hi"[..]);
        assert_eq!(decoded.inputs[1].data.to_contiguous(), &f32::NEG_INFINITY.to_le_bytes()[..]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (body, expected) in [
            (r#"{"text_input": "a", "scale": 1}"#, "lacks input `ids`"),
            (r#"{"text_input": "a", "scale": "b", "ids": []}"#, r#"input `scale` has "b" at element 0"#),
            (r#"{"text_input": [[["a"]]], "scale": 1, "ids": []}"#, "nested deeper"),
            (r#"{"ids": [1], "ids": [1]}"#, "`ids` more than once"),
            (r#"{"more": {"a": 1}}"#, "`more` is {\"a\": 1}, expected a text, a number, true or false"),
            (r#"{"parameters": {}, "parameters": {}}"#, "duplicate field"),
            (r#"{"timeout": -1}"#, "expected a whole number, zero or more"),
            ("[]", "a generate request"),
        ] {
            let text = decode(body).unwrap_err().to_string();
            assert!(text.contains(expected), "{body}: {text}");
        }
    }

    #[test]
    fn an_answer_has_a_field_for_each_output() {
        let tensor = |name: &str, datatype, shape: &[u64], data: &[u8]| Tensor {
            name: name.to_owned(),
            datatype,
            shape: shape.into(),
            data: data.to_vec().into(),
        };
        let response = InferResponse {
            model: "acme/m".parse().unwrap(),
            version: "2".to_owned(),
            id: None,
            outputs: vec![
                tensor("text_output", DataType::Bytes, &[1, 1], b"\x02\0\0\0hi"),
                tensor("flags", DataType::Bool, &[2, 1], &[1, 0]),
                tensor("none", DataType::Int8, &[0], &[]),
            ],
        };
        let json = String::from_utf8(encode_generate(&response).unwrap()).unwrap();
        assert_eq!(
            json,
            r#"{"model_name":"acme/m","model_version":"2","text_output":"hi","flags":[true,false],"none":[]}"#
        );
    }
}
