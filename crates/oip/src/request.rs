//! A request's body, decoded.

use std::time::Duration;

use smallvec::SmallVec;
use tenantry_types::limits::MAX_JSON_HEADER_BYTES;
use tenantry_types::tensor::element_count;
use tenantry_types::{DataType, InferRequest, Inputs, ModelRef, OutputRequest, Payload, Priority, Tensor};

use crate::elements::read_elements;
use crate::error::{DecodeError, TensorKind, TensorProblem, echo};
use crate::framing::check_framing;
use crate::header::{OutputHeader, TensorHeader, read_request};
use crate::response::{Form, ReplyFormat};

/// A request and how its answer is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedRequest {
    /// What the service is asked.
    pub request: InferRequest,
    /// How the client wants the answer.
    pub reply: ReplyFormat,
}

/// Decodes the body of an infer call.
///
/// `model` and `version` come from the URL. `header_length` is the value of the header `Inference-Header-Content-Length`:
/// absent, the body is all JSON; `0`, the body is the data of the model's only input (a raw request) and all outputs are
/// returned binary. The parameters `timeout` (microseconds, 0 means none) and `priority` become the request's.
///
/// # Errors
/// The first thing wrong with the body.
pub fn decode_request(
    model: ModelRef,
    version: Option<String>,
    header_length: Option<&str>,
    body: Payload,
) -> Result<DecodedRequest, DecodeError> {
    let (json, binary) = match split_body(header_length, body)? {
        Split::Raw(data) => return Ok(raw_request(model, version, data)),
        Split::Json { json, binary } => (json, binary),
    };
    let json = json.to_contiguous();
    let header = read_request(&json)?;
    let inputs = read_tensors(header.inputs, TensorKind::Input, binary)?;
    let default = Form::binary_if(header.parameters.binary_data_output.unwrap_or(false));
    let (outputs, forms) = read_outputs(header.outputs, default)?;
    let timeout = header.parameters.timeout_us.filter(|timeout_us| *timeout_us > 0).map(Duration::from_micros);
    let request = InferRequest {
        model,
        version,
        id: header.id,
        parameters: header.parameters.other,
        inputs: Inputs::Named(inputs),
        outputs,
        timeout,
        priority: Priority::from_client(header.parameters.priority.unwrap_or(0)),
    };
    Ok(DecodedRequest { request, reply: ReplyFormat { default, outputs: forms } })
}

/// The parts of a body.
pub(crate) enum Split {
    /// One tensor and nothing else.
    Raw(Payload),
    /// JSON, and what follows it when the header says that something may.
    Json { json: Payload, binary: Option<Payload> },
}

/// Takes a body apart where its header says.
pub(crate) fn split_body(header_length: Option<&str>, mut body: Payload) -> Result<Split, DecodeError> {
    let Some(text) = header_length else { return Ok(Split::Json { json: body, binary: None }) };
    let body_bytes = body.len();
    let wrong = || DecodeError::HeaderLength { got: echo(text), body_bytes };
    let length: usize = text.trim().parse().map_err(|_| wrong())?;
    if length == 0 {
        return Ok(Split::Raw(body));
    }
    if length > body_bytes {
        return Err(wrong());
    }
    if length < body_bytes && length > MAX_JSON_HEADER_BYTES {
        return Err(DecodeError::HeaderTooLarge { got: length, limit: MAX_JSON_HEADER_BYTES });
    }
    let json = body.split_to(length).ok_or_else(wrong)?;
    Ok(Split::Json { json, binary: Some(body) })
}

fn raw_request(model: ModelRef, version: Option<String>, data: Payload) -> DecodedRequest {
    let request = InferRequest { version, ..InferRequest::new(model, Inputs::Raw(data)) };
    DecodedRequest { request, reply: ReplyFormat { default: Form::Binary, outputs: SmallVec::new() } }
}

/// Gives each tensor its data, in the order of the list; nothing may be left over.
pub(crate) fn read_tensors(
    headers: Vec<TensorHeader<'_>>,
    kind: TensorKind,
    mut binary: Option<Payload>,
) -> Result<Vec<Tensor>, DecodeError> {
    let mut tensors = Vec::with_capacity(headers.len());
    for header in headers {
        match read_data(&header, binary.as_mut()) {
            Ok(data) => {
                let TensorHeader { name, datatype, shape, .. } = header;
                tensors.push(Tensor { name, datatype, shape, data });
            }
            Err(problem) => return Err(DecodeError::tensor(kind, &header.name, problem)),
        }
    }
    match binary.map_or(0, |rest| rest.len()) {
        0 => Ok(tensors),
        count => Err(DecodeError::TrailingBytes { count }),
    }
}

fn read_data(header: &TensorHeader<'_>, binary: Option<&mut Payload>) -> Result<Payload, TensorProblem> {
    if header.parameters.shared_memory {
        return Err(TensorProblem::SharedMemory);
    }
    match (header.data, header.parameters.binary_data_size) {
        (None, None) => Err(TensorProblem::NoData),
        (Some(_), Some(_)) => Err(TensorProblem::BothData),
        (Some(data), None) => read_elements(data, header.datatype, &header.shape).map(Payload::from),
        (None, Some(announced)) => read_binary(header, announced, binary.ok_or(TensorProblem::BinaryWithoutHeader)?),
    }
}

/// Splits a tensor's bytes off the chain and checks that they are its elements.
fn read_binary(header: &TensorHeader<'_>, announced: u64, rest: &mut Payload) -> Result<Payload, TensorProblem> {
    let too_large = || TensorProblem::ShapeTooLarge(header.shape.clone());
    let count = element_count(&header.shape).ok_or_else(too_large)?;
    if let Some(element_bytes) = header.datatype.element_bytes() {
        let expected = count.checked_mul(element_bytes as u64).ok_or_else(too_large)?;
        if announced != expected {
            let (shape, datatype) = (header.shape.clone(), header.datatype);
            return Err(TensorProblem::BinarySize { announced, shape, datatype, expected });
        }
    }
    let truncated = TensorProblem::Truncated { announced, left: rest.len() };
    let data = usize::try_from(announced).ok().and_then(|bytes| rest.split_to(bytes)).ok_or(truncated)?;
    match header.datatype {
        DataType::Bytes => check_framing(&data, count)?,
        DataType::Bool => check_bools(&data)?,
        _ => {}
    }
    Ok(data)
}

/// The engine's behaviour for other bytes than 0 and 1 is not defined.
pub(crate) fn check_bools(data: &Payload) -> Result<(), TensorProblem> {
    let mut bytes = data.parts().iter().flat_map(|part| part.iter());
    match bytes.position(|byte| *byte > 1) {
        None => Ok(()),
        Some(index) => {
            let got = data.parts().iter().flat_map(|part| part.iter()).nth(index).copied().unwrap_or_default();
            Err(TensorProblem::BoolByte { index: index as u64, got })
        }
    }
}

fn read_outputs(
    headers: Vec<OutputHeader>,
    default: Form,
) -> Result<(Vec<OutputRequest>, SmallVec<[Form; 4]>), DecodeError> {
    let mut outputs: Vec<OutputRequest> = Vec::with_capacity(headers.len());
    let mut forms = SmallVec::new();
    for OutputHeader { name, parameters } in headers {
        let problem = match (parameters.shared_memory, parameters.classification) {
            (true, _) => Some(TensorProblem::SharedMemory),
            (_, true) => Some(TensorProblem::Classification),
            _ => None,
        };
        if let Some(problem) = problem {
            return Err(DecodeError::tensor(TensorKind::Output, &name, problem));
        }
        if outputs.iter().any(|earlier| earlier.name == name) {
            return Err(DecodeError::DuplicateOutput { name: echo(&name) });
        }
        forms.push(parameters.binary_data.map_or(default, Form::binary_if));
        outputs.push(OutputRequest { name });
    }
    Ok((outputs, forms))
}

#[cfg(test)]
mod tests;
