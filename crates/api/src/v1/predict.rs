//! `:predict`.

use http::Request;
use tenantry_oip::compression::Coding;
use tenantry_oip::predict::{Predict, PredictError, PredictFormat, decode_instance, decode_predict, encode_predict};
use tenantry_server::Resolved;
use tenantry_types::{InferRequest, InferResponse, Inputs, ModelRef, ServiceError, Signature};

use crate::flow::{Call, Encode, Flow, Unencodable, json_reply};
use crate::pool::LONG_JSON_BYTES;
use crate::reply::Reply;
use crate::request_body::RequestBody;
use crate::route::Edge;

/// Serves a `:predict` call.
pub(super) async fn predict(edge: &Edge, call: Call, request: Request<RequestBody>) -> Result<Reply, ServiceError> {
    serve(edge, call, request, decode_predict).await
}

/// Serves a call whose body is one instance.
pub(super) async fn instance(edge: &Edge, call: Call, request: Request<RequestBody>) -> Result<Reply, ServiceError> {
    serve(edge, call, request, decode_instance).await
}

async fn serve(
    edge: &Edge,
    call: Call,
    request: Request<RequestBody>,
    decode: fn(&Signature, &[u8]) -> Result<Predict, PredictError>,
) -> Result<Reply, ServiceError> {
    let Call { principal, id, model, version } = call;
    let flow = Flow::admit(edge, principal, id, &model, request)?;
    // A model there is not is refused before its body is read, too.
    let Resolved { version, signature, .. } = flow.resolve(&model, version.as_deref())?;
    let (decoded, Predict { inputs, format }) = flow
        .decode(LONG_JSON_BYTES, move |body| {
            decode(&signature, &body.to_contiguous()).map_err(|error| ServiceError::invalid(error.to_string()))
        })
        .await?;
    decoded.answer(request_to(model, version, Inputs::Named(inputs)), format).await
}

/// A request for every output, with nothing else to it.
pub(super) fn request_to(model: ModelRef, version: String, inputs: Inputs) -> InferRequest {
    InferRequest { version: Some(version), ..InferRequest::new(model, inputs) }
}

impl Encode for PredictFormat {
    fn encode(self, response: &InferResponse, accepted: Option<Coding>) -> Result<Reply, Unencodable> {
        match encode_predict(&response.outputs, self) {
            Ok(json) => Ok(json_reply(json.into(), accepted)),
            Err(error) if error.is_senders() => Err(Unencodable::AsAsked(error.to_string())),
            Err(error) => Err(Unencodable::Broken(error.to_string())),
        }
    }
}
