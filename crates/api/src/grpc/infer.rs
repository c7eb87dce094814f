//! The one path's edge: an inference from its message to its encoded answer, for single calls and for streams.

use std::time::Duration;

use tenantry_oip::compression::{Coding, inflate};
use tenantry_oip::grpc::{DecodedCall, Envelope, RequestParts, encode_response};
use tenantry_oip::{DecodeError, Form};
use tenantry_server::{BudgetsLeft, Permit, Principal};
use tenantry_types::{ErrorCode, InferResponse, Payload, RequestId, ServiceError};

use super::call::Call;
use super::messages::{Message, Messages};
use super::reply::{self, Reply};
use crate::budget;
use crate::caller::model_ref;
use crate::encoding;
use crate::explain;
use crate::pool::{LONG_BINARY_BYTES, LONG_JSON_BYTES};
use crate::route::Edge;

/// How much longer typed contents are than a tensor in memory, at most: eight bytes as a number of ten, and a copy.
const TYPED_GROWTH: usize = 2;

/// An answer, encoded, and what is held for it.
pub(crate) struct Answered {
    pub(crate) data: Payload,
    pub(crate) permit: Permit,
    pub(crate) timing: Option<http::HeaderValue>,
    /// What the caller's budgets have left.
    pub(crate) budget: Option<BudgetsLeft>,
}

/// A request that has no answer.
pub(crate) struct Failed {
    pub(crate) error: ServiceError,
    /// The client's own id, where it was read.
    pub(crate) client_id: String,
}

impl From<ServiceError> for Failed {
    fn from(error: ServiceError) -> Self {
        Self { error, client_id: String::new() }
    }
}

/// What an inference needs besides its message.
pub(crate) struct Inference<'a> {
    pub(crate) edge: &'a Edge,
    pub(crate) principal: &'a Principal,
    pub(crate) id: RequestId,
    pub(crate) coding: Result<Coding, ServiceError>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) explains: bool,
    pub(crate) in_stream: bool,
}

/// Serves `ModelInfer`.
pub(crate) async fn model_infer(
    call: Call,
    mut messages: Messages,
    principal: Principal,
) -> Result<Reply, ServiceError> {
    // From the metadata alone: a refusal reads no message.
    let mut permit = call.edge.server.admit_unnamed(&principal, None)?;
    let explains = explain::is_wanted(&call.headers);
    let inference = Inference {
        edge: &call.edge,
        principal: &principal,
        id: call.id,
        coding: call.coding(),
        timeout: call.timeout()?,
        explains,
        in_stream: false,
    };
    let message = messages.only(|bytes| permit.grow(bytes)).await?;
    match inference.run(message, permit).await {
        Ok(Answered { data, permit, timing, budget }) => {
            let mut reply = reply::message(&data, Some(permit), &call.requests);
            if let Some(left) = budget {
                budget::write(reply.headers_mut(), left);
            }
            if let Some(timing) = timing {
                reply.headers_mut().insert(explain::TIMING, timing);
            }
            Ok(reply)
        }
        Err(Failed { error, .. }) if explains || budget::refused(&error) => {
            let mut reply = reply::refused(&error);
            if let Some(timing) = explain::of_refused(&error).filter(|_| explains) {
                reply.headers_mut().insert(explain::TIMING, timing);
            }
            let view =
                call.edge.server.budget_view(principal.tenant, principal.key).filter(|_| budget::refused(&error));
            if let Some(left) = view.and_then(|view| view.left()) {
                budget::write(reply.headers_mut(), left);
            }
            Ok(reply)
        }
        Err(Failed { error, .. }) => Err(error),
    }
}

impl Inference<'_> {
    /// From a message to its answer. `permit` has counted the message already.
    pub(crate) async fn run(self, message: Message, mut permit: Permit) -> Result<Answered, Failed> {
        let Self { edge, principal, id, coding, timeout, explains, in_stream } = self;
        let Message { is_compressed, mut data } = message;
        if is_compressed {
            let (coding, limit_bytes, sent_bytes) = (coding?, edge.settings.max_body_bytes, data.len());
            data = edge.pool.run(true, move || inflated(coding, &data, limit_bytes)).await??;
            permit.grow(data.len().saturating_sub(sent_bytes) as u64)?;
        }
        let parts = RequestParts::read(&data).map_err(|error| refuse(&error))?;
        let message_bytes = data.len();
        drop(data);
        let client_id = parts.id().to_owned();
        let answered = async {
            let model = model_ref(parts.model_name())?;
            let mut permit = permit;
            edge.server.narrow(principal, &mut permit, &model)?;
            let limit_bytes = usize::try_from(edge.settings.max_body_bytes).unwrap_or(usize::MAX);
            let is_long = parts.typed_bytes() > LONG_JSON_BYTES || message_bytes > LONG_BINARY_BYTES;
            let decoded = edge.pool.run(is_long, move || parts.decode(model, limit_bytes)).await?;
            let DecodedCall { mut request, form, grown_bytes } = decoded.map_err(|error| refuse(&error))?;
            permit.grow(grown_bytes)?;
            request.timeout = match (request.timeout, timeout) {
                (Some(parameter), Some(header)) => Some(parameter.min(header)),
                (parameter, header) => parameter.or(header),
            };
            let envelope = envelope(in_stream, &request.parameters);
            let inferred = edge.server.infer(principal, &permit, id, request).await?;

            let timing = explains.then(|| explain::of_answered(&inferred.explanation())).flatten();
            let (response, bill, budget) = (inferred.response, inferred.bill, inferred.budget);
            let output_bytes: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
            let typed_bytes = if form == Form::Json { output_bytes } else { 0 };
            // The outputs and what they become are held until the client has read them, and count until then.
            permit.hold(output_bytes.saturating_add(typed_bytes.saturating_mul(TYPED_GROWTH)) as u64)?;
            let is_long = typed_bytes > LONG_JSON_BYTES;
            let data = edge.pool.run(is_long, move || encode(&response, form, envelope, id)).await??;
            bill.settle(data.len() as u64)?;
            let budget = budget.and_then(|view| view.left());
            Ok(Answered { data, permit, timing, budget })
        };
        answered.await.map_err(|error| Failed { error, client_id })
    }
}

/// How the answer to a request is wrapped.
fn envelope(in_stream: bool, parameters: &tenantry_types::Parameters) -> Envelope {
    if !in_stream {
        return Envelope::Alone;
    }
    let asked = ("triton_enable_empty_final_response".to_owned(), tenantry_types::ParameterValue::Bool(true));
    Envelope::InStream { says_final: parameters.contains(&asked) }
}

fn encode(response: &InferResponse, form: Form, envelope: Envelope, id: RequestId) -> Result<Payload, ServiceError> {
    encode_response(response, form, envelope).map_err(|error| {
        tracing::error!(request_id = %id, model = %response.model, %error, "an answer cannot be encoded");
        ServiceError::internal()
    })
}

/// A message as it was before it was compressed.
pub(crate) fn inflated(coding: Coding, data: &Payload, limit_bytes: u64) -> Result<Payload, ServiceError> {
    let limit_bytes = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    inflate(coding, data, limit_bytes).map_err(|error| encoding::refuse(&error))
}

fn refuse(error: &DecodeError) -> ServiceError {
    let code = if error.is_too_large() { ErrorCode::TooLarge } else { ErrorCode::InvalidArgument };
    ServiceError::new(code, error.to_string())
}
