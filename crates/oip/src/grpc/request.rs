//! A `ModelInferRequest`, read in two steps: what it consists of, which costs little, and then its tensors.

use std::time::Duration;

use tenantry_types::limits::{MAX_TENSOR_NAME_BYTES, MAX_TENSORS};
use tenantry_types::tensor::{MAX_RANK, element_count};
use tenantry_types::{
    DataType, InferRequest, Inputs, ModelRef, OutputRequest, ParameterValue, Parameters, Payload, Priority, Shape,
    Tensor,
};

use super::contents::read_contents;
use super::wire::{Chain, Fields, Value, WireError};
use crate::error::{DecodeError, TensorKind, TensorProblem, echo};
use crate::framing::check_framing;
use crate::limits::{MAX_ID_BYTES, MAX_PARAMETER_BYTES, MAX_PARAMETERS};
use crate::request::check_bools;
use crate::response::Form;

/// The longest name of a model or version, bytes: more than any has.
const MAX_NAME_BYTES: usize = 1024;
/// The most fields of a message, unknown ones included.
const MAX_FIELDS: usize = 3 * MAX_TENSORS + MAX_PARAMETERS + 64;

/// What a `ModelInferRequest` consists of. Tensors are still the buffers they were received in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestParts {
    model_name: String,
    model_version: String,
    id: String,
    parameters: Vec<Payload>,
    inputs: Vec<Payload>,
    outputs: Vec<Payload>,
    raw: Vec<Payload>,
}

/// A request, decoded, and how its answer is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedCall {
    /// What the service is asked.
    pub request: InferRequest,
    /// The form of the answer's tensors: [`Form::Binary`] is `raw_output_contents`.
    pub form: Form,
    /// How many more bytes the tensors take than the message.
    pub grown_bytes: u64,
}

impl RequestParts {
    /// Takes a message apart without reading its tensors. Everything that repeats is counted here.
    ///
    /// # Errors
    /// Not a message, or more of something than is accepted.
    pub fn read(message: &Payload) -> Result<Self, DecodeError> {
        let mut parts = Self::default();
        let mut chain = Chain::new(message);
        let mut fields = 0;
        while !chain.is_at_end() {
            fields += 1;
            if fields > MAX_FIELDS {
                return Err(DecodeError::TooMany { what: "fields", limit: MAX_FIELDS });
            }
            let (number, value) = chain.field()?;
            let value = || value.ok_or(WireError::Mistyped(number));
            match number {
                1 => parts.model_name = text(&value()?, number, "the model's name", MAX_NAME_BYTES)?,
                2 => parts.model_version = text(&value()?, number, "the model's version", MAX_NAME_BYTES)?,
                3 => parts.id = text(&value()?, number, "the id", MAX_ID_BYTES)?,
                4 => put(&mut parts.parameters, value()?, "parameters", MAX_PARAMETERS)?,
                5 => put(&mut parts.inputs, value()?, "inputs", MAX_TENSORS)?,
                6 => put(&mut parts.outputs, value()?, "outputs", MAX_TENSORS)?,
                7 => put(&mut parts.raw, value()?, "raw_input_contents", MAX_TENSORS)?,
                _ => {}
            }
        }
        Ok(parts)
    }

    /// The model's name as the client wrote it; empty if it wrote none.
    pub fn model_name(&self) -> &str {
        &self.model_name
    }

    /// The client's own id; empty if it gave none.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes that have to be converted: typed contents, with the rest of their inputs.
    pub fn typed_bytes(&self) -> usize {
        self.inputs.iter().map(Payload::len).sum()
    }

    /// Reads parameters and tensors. `model` is what [`Self::model_name`] means. `limit_bytes` bounds the tensors.
    ///
    /// # Errors
    /// The first thing wrong with them.
    pub fn decode(self, model: ModelRef, limit_bytes: usize) -> Result<DecodedCall, DecodeError> {
        let Self { model_version, id, parameters, inputs, outputs, raw, .. } = self;
        let message_bytes = inputs.iter().chain(&raw).map(Payload::len).sum::<usize>();
        let known = read_parameters(&parameters)?;
        let is_raw = !raw.is_empty();
        let tensors = if is_raw { raw_inputs(&inputs, raw)? } else { typed_inputs(&inputs, limit_bytes)? };
        let tensor_bytes = tensors.iter().map(|tensor| tensor.data.len()).sum::<usize>();
        let outputs = read_outputs(&outputs)?;
        let request = InferRequest {
            model,
            version: Some(model_version).filter(|version| !version.is_empty()),
            id: Some(id).filter(|id| !id.is_empty()),
            parameters: known.other,
            inputs: Inputs::Named(tensors),
            outputs,
            timeout: known.timeout_us.filter(|timeout_us| *timeout_us > 0).map(Duration::from_micros),
            priority: Priority::from_client(known.priority.unwrap_or(0)),
        };
        let form = Form::binary_if(known.binary_data_output.unwrap_or(is_raw));
        Ok(DecodedCall { request, form, grown_bytes: tensor_bytes.saturating_sub(message_bytes) as u64 })
    }
}

fn put(list: &mut Vec<Payload>, value: Payload, what: &'static str, limit: usize) -> Result<(), DecodeError> {
    if list.len() == limit {
        return Err(DecodeError::TooMany { what, limit });
    }
    list.push(value);
    Ok(())
}

fn text(value: &Payload, number: u32, what: &'static str, limit: usize) -> Result<String, DecodeError> {
    if value.len() > limit {
        return Err(DecodeError::TooLong { what, limit });
    }
    let value = value.to_contiguous();
    Ok(Value::Delimited(&value).text(number)?.to_owned())
}

fn short_text(value: Value<'_>, number: u32, what: &'static str, limit: usize) -> Result<String, DecodeError> {
    let value = value.text(number)?;
    if value.len() > limit {
        return Err(DecodeError::TooLong { what, limit });
    }
    Ok(value.to_owned())
}

/// A request's parameters, those with a meaning to this codec apart.
#[derive(Default)]
struct KnownParameters {
    timeout_us: Option<u64>,
    priority: Option<u64>,
    binary_data_output: Option<bool>,
    other: Parameters,
}

fn read_parameters(entries: &[Payload]) -> Result<KnownParameters, DecodeError> {
    let mut known = KnownParameters::default();
    for entry in entries {
        let (name, value) = read_parameter(&entry.to_contiguous())?;
        let expects = |expected| DecodeError::Parameter { name: echo(&name), expected };
        match (name.as_str(), &value) {
            ("timeout", ParameterValue::Int(timeout_us)) => {
                let timeout_us = u64::try_from(*timeout_us).map_err(|_| expects("a whole number, zero or more"))?;
                known.timeout_us = Some(timeout_us);
            }
            ("timeout", _) => return Err(expects("a whole number, zero or more")),
            ("priority", ParameterValue::Int(level)) => {
                known.priority = Some(u64::try_from(*level).map_err(|_| expects("a whole number, zero or more"))?);
            }
            ("priority", _) => return Err(expects("a whole number, zero or more")),
            ("binary_data_output", ParameterValue::Bool(binary)) => known.binary_data_output = Some(*binary),
            ("binary_data_output", _) => return Err(expects("true or false")),
            _ if known.other.iter().any(|(earlier, _)| *earlier == name) => {
                return Err(expects("one value, not several"));
            }
            _ => known.other.push((name, value)),
        }
    }
    Ok(known)
}

/// An entry of a map of parameters: its name and an `InferParameter`.
fn read_parameter(entry: &[u8]) -> Result<(String, ParameterValue), DecodeError> {
    let (mut name, mut value) = (String::new(), None);
    for field in Fields::new(entry) {
        match field? {
            (1, text) => name = short_text(text, 1, "a parameter's name", MAX_PARAMETER_BYTES)?,
            (2, message) => value = parameter_value(message.delimited(2)?)?,
            _ => {}
        }
    }
    match value {
        Some(value) => Ok((name, value)),
        None => Err(DecodeError::Parameter { name: echo(&name), expected: "a value" }),
    }
}

fn parameter_value(message: &[u8]) -> Result<Option<ParameterValue>, DecodeError> {
    let mut found = None;
    for field in Fields::new(message) {
        found = Some(match field? {
            (1, value) => ParameterValue::Bool(value.number(1)? != 0),
            (2, value) => ParameterValue::Int(value.number(2)? as i64),
            (3, value) => ParameterValue::String(short_text(value, 3, "a parameter's text", MAX_PARAMETER_BYTES)?),
            (4, Value::Fixed64(bits)) => ParameterValue::Double(f64::from_le_bytes(bits)),
            (4, _) => return Err(WireError::Mistyped(4).into()),
            (5, value) => {
                let value = value.number(5)?;
                // The same number is the same parameter, whichever of the two fields it came in.
                i64::try_from(value).map_or(ParameterValue::Uint(value), ParameterValue::Int)
            }
            _ => continue,
        });
    }
    Ok(found)
}

/// An `InferInputTensor` without its elements.
struct TensorHeader<'a> {
    name: String,
    datatype: DataType,
    shape: Shape,
    /// An `InferTensorContents`, if there.
    contents: Option<&'a [u8]>,
}

fn read_tensor(message: &[u8]) -> Result<TensorHeader<'_>, DecodeError> {
    let (mut name, mut datatype, mut shape, mut contents) = (String::new(), None, Shape::new(), None);
    let (mut parameters, mut shared_memory) = (0, false);
    for field in Fields::new(message) {
        match field? {
            (1, value) => name = short_text(value, 1, "an input's name", MAX_TENSOR_NAME_BYTES)?,
            (2, value) => datatype = Some(value.text(2)?),
            (3, Value::Varint(extent)) => push_extent(&mut shape, extent, &name)?,
            (3, value) => {
                let mut extents = Fields::new(value.delimited(3)?);
                while !extents.is_at_end() {
                    push_extent(&mut shape, extents.varint()?, &name)?;
                }
            }
            (4, value) => {
                parameters += 1;
                shared_memory |= names_shared_memory(value.delimited(4)?, parameters)?;
            }
            (5, value) => {
                if contents.is_some() {
                    return Err(DecodeError::tensor(TensorKind::Input, &name, TensorProblem::RepeatedContents));
                }
                contents = Some(value.delimited(5)?);
            }
            _ => {}
        }
    }
    let problem = |problem| DecodeError::tensor(TensorKind::Input, &name, problem);
    if shared_memory {
        return Err(problem(TensorProblem::SharedMemory));
    }
    let datatype = datatype.unwrap_or_default();
    let datatype = datatype.parse().map_err(|_| problem(TensorProblem::UnknownDataType { got: echo(datatype) }))?;
    Ok(TensorHeader { name, datatype, shape, contents })
}

fn push_extent(shape: &mut Shape, extent: u64, name: &str) -> Result<(), DecodeError> {
    // The protocol's extents are signed.
    if shape.len() == MAX_RANK || i64::try_from(extent).is_err() {
        return Err(DecodeError::tensor(TensorKind::Input, name, TensorProblem::Extents));
    }
    shape.push(extent);
    Ok(())
}

/// Whether a tensor's parameter is one of the shared memory extensions'. Others have no meaning; their form is checked.
fn names_shared_memory(entry: &[u8], count: usize) -> Result<bool, DecodeError> {
    if count > MAX_PARAMETERS {
        return Err(DecodeError::TooMany { what: "parameters of a tensor", limit: MAX_PARAMETERS });
    }
    read_parameter(entry).map(|(name, _)| name.starts_with("shared_memory_"))
}

/// Inputs whose elements are in `raw_input_contents`, one after the other.
fn raw_inputs(inputs: &[Payload], raw: Vec<Payload>) -> Result<Vec<Tensor>, DecodeError> {
    if inputs.len() != raw.len() {
        return Err(DecodeError::RawCount { got: raw.len(), expected: inputs.len() });
    }
    let mut tensors = Vec::with_capacity(inputs.len());
    for (input, data) in inputs.iter().zip(raw) {
        let input = input.to_contiguous();
        let TensorHeader { name, datatype, shape, contents } = read_tensor(&input)?;
        let checked = match contents {
            Some(_) => Err(TensorProblem::MixedContents),
            None => check_raw(&data, datatype, &shape),
        };
        checked.map_err(|problem| DecodeError::tensor(TensorKind::Input, &name, problem))?;
        tensors.push(Tensor { name, datatype, shape, data });
    }
    Ok(tensors)
}

/// Checks that bytes are a tensor's elements.
fn check_raw(data: &Payload, datatype: DataType, shape: &Shape) -> Result<(), TensorProblem> {
    let too_large = || TensorProblem::ShapeTooLarge(shape.clone());
    let count = element_count(shape).ok_or_else(too_large)?;
    if let Some(element_bytes) = datatype.element_bytes() {
        let expected = count.checked_mul(element_bytes as u64).ok_or_else(too_large)?;
        if data.len() as u64 != expected {
            return Err(TensorProblem::RawSize { got: data.len(), shape: shape.clone(), datatype, expected });
        }
    }
    match datatype {
        DataType::Bytes => check_framing(data, count),
        DataType::Bool => check_bools(data),
        _ => Ok(()),
    }
}

/// Inputs whose elements are in their `contents`.
fn typed_inputs(inputs: &[Payload], limit_bytes: usize) -> Result<Vec<Tensor>, DecodeError> {
    let mut tensors = Vec::with_capacity(inputs.len());
    let mut left_bytes = limit_bytes;
    for input in inputs {
        let input = input.to_contiguous();
        let TensorHeader { name, datatype, shape, contents } = read_tensor(&input)?;
        let data =
            read_contents(contents.unwrap_or_default(), datatype, &shape, left_bytes).map_err(
                |problem| match problem {
                    TensorProblem::TooLarge { .. } => DecodeError::TooLarge { limit_bytes },
                    problem => DecodeError::tensor(TensorKind::Input, &name, problem),
                },
            )?;
        left_bytes = left_bytes.saturating_sub(data.len());
        tensors.push(Tensor { name, datatype, shape, data: data.into() });
    }
    Ok(tensors)
}

fn read_outputs(messages: &[Payload]) -> Result<Vec<OutputRequest>, DecodeError> {
    let mut outputs: Vec<OutputRequest> = Vec::with_capacity(messages.len());
    for message in messages {
        let message = message.to_contiguous();
        let (mut name, mut parameters, mut problem) = (String::new(), 0, None);
        for field in Fields::new(&message) {
            match field? {
                (1, value) => name = short_text(value, 1, "an output's name", MAX_TENSOR_NAME_BYTES)?,
                (2, value) => {
                    parameters += 1;
                    if parameters > MAX_PARAMETERS {
                        return Err(DecodeError::TooMany { what: "parameters of a tensor", limit: MAX_PARAMETERS });
                    }
                    let (parameter, _) = read_parameter(value.delimited(2)?)?;
                    if parameter == "classification" {
                        problem = Some(TensorProblem::Classification);
                    } else if parameter.starts_with("shared_memory_") {
                        problem = Some(TensorProblem::SharedMemory);
                    }
                }
                _ => {}
            }
        }
        if let Some(problem) = problem {
            return Err(DecodeError::tensor(TensorKind::Output, &name, problem));
        }
        if outputs.iter().any(|earlier| earlier.name == name) {
            return Err(DecodeError::DuplicateOutput { name: echo(&name) });
        }
        outputs.push(OutputRequest { name });
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests;
