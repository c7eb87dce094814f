//! The service.
use tenantry_types::{ErrorCode, InferRequest, ModelRef, RequestId, ServiceError};

use crate::{Inferred, ModelMetadata, ModelReadiness, ModelSummary, Permit, Principal};

/// The service every edge calls.
#[derive(Debug)]
pub struct Server {}

pub(crate) fn later() -> ServiceError {
    ServiceError::new(ErrorCode::Unimplemented, "not written yet")
}

impl Server {
    /// A fresh id for a request; the edge makes one on arrival, so that refusals have one too.
    pub fn new_request_id(&self) -> RequestId {
        RequestId::from_parts(0, [0; 10])
    }

    /// Who is calling, from the value of the `Authorization` header.
    ///
    /// # Errors
    /// 401 with one text, whatever was wrong.
    pub fn authenticate(&self, authorization: Option<&str>) -> Result<Principal, ServiceError> {
        let _ = authorization;
        Err(later())
    }

    /// Takes a place for one request, from its headers alone. `content_length`: `None` when not announced; then
    /// [`Permit::grow`] counts the body as it comes. The request's time starts here.
    ///
    /// # Errors
    /// 413 beyond the largest body, 429 beyond the tenant's own limits, 503 beyond the server's.
    pub fn admit(&self, principal: &Principal, content_length: Option<u64>) -> Result<Permit, ServiceError> {
        let _ = (principal, content_length);
        Err(later())
    }

    /// Runs one inference. Dropping the future cancels it.
    ///
    /// # Errors
    /// By the refusal table of the design: 400, 404, 429, 503, 504, and 500 `model_failed`.
    pub async fn infer(
        &self,
        principal: &Principal,
        permit: Permit,
        request: RequestId,
        infer: InferRequest,
    ) -> Result<Inferred, ServiceError> {
        let _ = (principal, permit, request, infer);
        Err(later())
    }

    /// What a client may know of a model. `version`: a number, an alias, or absent for the deployed one.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's; 503 when no version can be served.
    pub fn model_metadata(
        &self,
        principal: &Principal,
        model: &ModelRef,
        version: Option<&str>,
    ) -> Result<ModelMetadata, ServiceError> {
        let _ = (principal, model, version);
        Err(later())
    }

    /// Whether a model would be served.
    ///
    /// # Errors
    /// 404 for what does not exist or is not the caller's.
    pub fn model_ready(
        &self,
        principal: &Principal,
        model: &ModelRef,
        version: Option<&str>,
    ) -> Result<ModelReadiness, ServiceError> {
        let _ = (principal, model, version);
        Err(later())
    }

    /// The models the caller may use, by name.
    pub fn models(&self, principal: &Principal) -> Vec<ModelSummary> {
        let _ = principal;
        Vec::new()
    }

    /// Whether the server takes requests (it started, and does not drain).
    pub fn is_ready(&self) -> bool {
        false
    }

    /// The metrics in the OpenMetrics text format.
    pub fn metrics_text(&self) -> String {
        String::new()
    }

    /// Stops admitting, lets what runs finish for at most `limit`, then ends the workers.
    pub async fn drain(&self, limit: std::time::Duration) {
        let _ = limit;
    }
}
