//! The v2 protocol's infer call.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, Response};
use tenantry_oip::compression::Coding;
use tenantry_oip::{DecodedRequest, Encoded, Form, ReplyFormat, decode_request, encode_response};
use tenantry_types::{InferResponse, ServiceError};

use crate::flow::{Call, Encode, Flow, Unencodable, json_reply, text_of};
use crate::pool::{LONG_BINARY_BYTES, LONG_JSON_BYTES};
use crate::reply::{Reply, ReplyBody};
use crate::request_body::RequestBody;
use crate::route::Edge;

/// How long the JSON part is, in front of binary tensors.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Serves an infer call of an authenticated caller.
pub(crate) async fn infer(edge: &Edge, call: Call, request: Request<RequestBody>) -> Result<Reply, ServiceError> {
    let Call { principal, id, model, version } = call;
    let header_length = text_of(request.headers(), &HEADER_LENGTH);
    let flow = Flow::admit(edge, principal, id, &model, request)?;
    let header_length = header_length?;
    let long_bytes = if header_length.is_some() { LONG_BINARY_BYTES } else { LONG_JSON_BYTES };
    let decode = move |body| {
        decode_request(model, version, header_length.as_deref(), body)
            .map_err(|error| ServiceError::invalid(error.to_string()))
    };
    let (decoded, DecodedRequest { request, reply }) = flow.decode(long_bytes, decode).await?;
    decoded.answer(request, reply).await
}

impl Encode for ReplyFormat {
    fn text_bytes(&self, response: &InferResponse) -> usize {
        let outputs = response.outputs.iter().enumerate();
        outputs.filter(|(index, _)| self.form(*index) == Form::Json).map(|(_, tensor)| tensor.data.len()).sum()
    }

    fn encode(self, response: &InferResponse, accepted: Option<Coding>) -> Result<Reply, Unencodable> {
        match encode_response(response, &self) {
            Ok(encoded) => Ok(reply_of(encoded, accepted)),
            Err(error) if error.is_choice_of_form() => Err(Unencodable::AsAsked(error.to_string())),
            Err(error) => Err(Unencodable::Broken(error.to_string())),
        }
    }
}

fn reply_of(encoded: Encoded, accepted: Option<Coding>) -> Reply {
    let Encoded { json_length, body } = encoded;
    let Some(json_length) = json_length else { return json_reply(body, accepted) };
    let mut response = Response::new(ReplyBody::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(HEADER_LENGTH, HeaderValue::from(json_length));
    response
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_ENCODING;

    use super::*;

    #[test]
    fn binary_tensors_are_not_compressed() {
        let encoded = Encoded { json_length: Some(20), body: vec![b' '; 5000].into() };
        let reply = reply_of(encoded, Some(Coding::Gzip));
        assert!(!reply.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(reply.headers()[HEADER_LENGTH], "20");
    }
}
