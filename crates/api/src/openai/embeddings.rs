//! `/v1/embeddings`: texts or token ids in, vectors out.
//!
//! A model for it says so in its manifest ([`Task::Embedding`]): it has one input, `text` (`BYTES [n]`), and the outputs
//! `embedding` (`FP32 [n,d]`) and `token_count` (`INT64 [n]`). Token ids are a `text` too: the byte 0xFF, with which no text
//! begins, and each id as four bytes, little-endian.

mod input;
mod output;

use http::Request;
use serde::Deserialize;
use tenantry_server::{Principal, Resolved};
use tenantry_types::error::sanitise;
use tenantry_types::model::TOKEN_COUNT;
use tenantry_types::model::Task;
use tenantry_types::{
    DataType, Dim, InferRequest, Inputs, ModelRef, OutputRequest, RequestId, ServiceError, Shape, Signature, Tensor,
};

use super::envelope::{Detail, OpenAiError};
use super::unknown_model;
use crate::caller::model_ref;
use crate::flow::Flow;
use crate::pool::LONG_JSON_BYTES;
use crate::reply::Reply;
use crate::request_body::RequestBody;
use crate::route::Edge;
use input::Input;
use output::{Format, Vectors};

/// The tensors of a model that makes embeddings.
const TEXT: &str = "text";
const EMBEDDING: &str = "embedding";
/// Characters of a JSON error that are shown.
const SHOWN_ERROR_CHARS: usize = 300;

#[derive(Deserialize)]
#[serde(expecting = "an object with `model` and `input`")]
struct Body {
    model: String,
    input: Input,
    #[serde(default)]
    encoding_format: Option<Format>,
    #[serde(default)]
    dimensions: Option<u64>,
}

/// Serves a call.
pub(super) async fn embeddings(
    edge: &Edge,
    principal: Principal,
    id: RequestId,
    request: Request<RequestBody>,
) -> Result<Reply, OpenAiError> {
    let flow = Flow::admit_unnamed(edge, principal, id, request)?;
    let (mut decoded, body) = flow.decode(LONG_JSON_BYTES, |body| Ok(read(&body.to_contiguous()))).await?;
    let Body { model: name, input, encoding_format, dimensions } = body?;
    let unknown = |error| unknown_model(error, &name);
    let model = model_ref(&name).map_err(unknown)?;
    decoded.narrow(&model)?;
    let Resolved { version, signature, task } = decoded.resolve(&model, None).map_err(unknown)?;
    let Some(Task::Embedding { dimensions: may_be_cut }) = task else {
        let text = format!("The model `{model}` does not make embeddings; choose one that does.");
        return Err(OpenAiError::invalid("model", text));
    };
    if let Some(dimensions) = dimensions {
        check_dimensions(dimensions, may_be_cut, &signature)?;
    }
    let infer = request_to(model, version, input);
    let format = encoding_format.unwrap_or_default();
    Ok(decoded.answer(infer, Vectors { model: name, format, dimensions }).await?)
}

fn read(json: &[u8]) -> Result<Body, OpenAiError> {
    let body: Body = serde_json::from_slice(json).map_err(|error| {
        ServiceError::invalid(format!("The body is not valid: {}", sanitise(&error.to_string(), SHOWN_ERROR_CHARS)))
    })?;
    if body.dimensions == Some(0) {
        return Err(OpenAiError {
            error: ServiceError::invalid(
                "Invalid 'dimensions': integer below minimum value. Expected a value >= 1, but got 0 instead.",
            ),
            detail: Detail { param: Some("dimensions"), code: Some("integer_below_min_value") },
        });
    }
    Ok(body)
}

/// Whether vectors may have so few numbers; all of them are fine in any case.
fn check_dimensions(dimensions: u64, may_be_cut: bool, signature: &Signature) -> Result<(), OpenAiError> {
    let output = signature.outputs.iter().find(|spec| spec.name == EMBEDDING);
    match output.and_then(|spec| spec.dims.get(1)) {
        Some(Dim::Fixed(width)) if dimensions > *width => {
            Err(OpenAiError::invalid("dimensions", too_wide_text(dimensions, *width)))
        }
        Some(Dim::Fixed(width)) if dimensions == *width => Ok(()),
        _ if may_be_cut => Ok(()),
        _ => Err(OpenAiError::invalid("dimensions", "This model does not support specifying dimensions.")),
    }
}

fn request_to(model: ModelRef, version: String, Input { framed, count }: Input) -> InferRequest {
    let shape = Shape::from_slice(&[count]);
    let text = Tensor { name: TEXT.to_owned(), datatype: DataType::Bytes, shape, data: framed.into() };
    let output = |name: &str| OutputRequest { name: name.to_owned() };
    InferRequest {
        version: Some(version),
        outputs: vec![output(EMBEDDING), output(TOKEN_COUNT)],
        ..InferRequest::new(model, Inputs::Named(vec![text]))
    }
}

fn too_wide_text(dimensions: u64, width: u64) -> String {
    format!("Invalid 'dimensions': the model's embeddings have {width} numbers, and {dimensions} were asked for.")
}
