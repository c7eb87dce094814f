//! What handlers take from a request and give back. Every failure becomes the one form errors have.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse, Response};
use http::Method;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tenantry_server::Principal;
use tenantry_types::error::sanitise;
use tenantry_types::{ErrorCode, RequestId, ServiceError};

use super::AdminState;
use crate::caller::{MAX_LOGGED_CHARS, presented};
use crate::connection::Peer;

/// The largest JSON body of the admin API, bytes.
const MAX_ADMIN_BODY_BYTES: usize = 1 << 20;
/// How much of a parser's account of an error is shown, characters.
const MAX_ACCOUNT_CHARS: usize = 300;

/// An error on its way out. The connection's loop writes its body, because it knows the request's id.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) ServiceError);

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(self.0);
        response
    }
}

fn invalid(what: &str, account: &str) -> Refusal {
    Refusal(ServiceError::invalid(format!("{what}: {}", sanitise(account, MAX_ACCOUNT_CHARS))))
}

/// Who the caller of a request turned out to be, for whoever sees the answer.
#[derive(Clone, Default)]
pub(crate) struct Seen(pub(crate) Arc<OnceLock<Principal>>);

/// The authenticated caller. Every handler takes it first, before anything of the request is looked at.
pub(crate) struct Caller(pub(crate) Principal);

impl FromRequestParts<AdminState> for Caller {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Refusal> {
        let caller = state.server.authenticate(&presented(&parts.headers, &parts.extensions)).await?;
        if let Some(seen) = parts.extensions.get::<Seen>() {
            // It is empty: a handler takes its caller once.
            let _ = seen.0.set(caller.clone());
        }
        if parts.method != Method::GET {
            // Who changed what: kept in the log whatever becomes of it.
            let request = parts.extensions.get::<RequestId>().map(ToString::to_string);
            let path = sanitise(parts.uri.path(), MAX_LOGGED_CHARS);
            let (tenant, key, method) = (&caller.tenant_name, &caller.key, &parts.method);
            let certificate = Peer::certificate(&parts.extensions).map(|shown| shown.fingerprint.to_string());
            tracing::info!(request_id = request, %tenant, %key, %method, %path, certificate, "admin call");
        }
        Ok(Self(caller))
    }
}

/// The names in the path.
pub(crate) struct Names<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AdminState> for Names<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Refusal> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(rejection) => Err(invalid("the path is not valid", &rejection.body_text())),
        }
    }
}

/// The query.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequestParts<AdminState> for Asked<T> {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, state: &AdminState) -> Result<Self, Refusal> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(invalid("the query is not valid", &rejection.body_text())),
        }
    }
}

/// A JSON body, whatever its content type says.
pub(crate) struct Given<T>(pub(crate) T);

impl<T: DeserializeOwned + Send> FromRequest<AdminState> for Given<T> {
    type Rejection = Refusal;
    async fn from_request(request: Request, state: &AdminState) -> Result<Self, Refusal> {
        let caller = request.extensions().get::<Seen>().and_then(|seen| seen.0.get());
        let tenant = caller.ok_or_else(ServiceError::internal)?.tenant;
        let _place = state.bodies.enter(tenant)?;
        let body = Limited::new(request.into_body(), MAX_ADMIN_BODY_BYTES).collect();
        let body = tokio::time::timeout(state.upload_pause, body).await.map_err(|_| {
            Refusal(ServiceError::new(
                ErrorCode::DeadlineExceeded,
                "the body did not arrive in time; send it without pauses",
            ))
        })?;
        let body = body.map_err(|error| {
            Refusal(if error.is::<LengthLimitError>() {
                let text = format!("the body is larger than the limit of {MAX_ADMIN_BODY_BYTES} bytes");
                ServiceError::new(ErrorCode::TooLarge, text)
            } else {
                ServiceError::new(ErrorCode::Cancelled, "the connection ended before the body did")
            })
        })?;
        serde_json::from_slice(&body.to_bytes())
            .map(Self)
            .map_err(|error| invalid("the body is not valid", &error.to_string()))
    }
}
