//! Whose call it is, and the end every call of the data plane comes to: one line in the log, and an error in the form that
//! its protocol's clients read.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Request};
use tenantry_server::{Presented, Principal, Server};
use tenantry_types::error::sanitise;
use tenantry_types::name::MAX_NAME_BYTES;
use tenantry_types::{ErrorCode, KeyId, ModelRef, RequestId, ServiceError, TenantId, TenantName};

use crate::connection::Peer;
use crate::reply::Reply;
use crate::route::Edge;
use crate::{budget, explain};

/// How much of a path a log line shows, characters.
pub(crate) const MAX_LOGGED_CHARS: usize = 200;

/// What is kept of a caller until his call has ended.
pub(crate) struct Caller {
    server: Arc<Server>,
    tenant: Arc<TenantName>,
    payer: (TenantId, KeyId),
    explains: bool,
    id: RequestId,
}

impl Caller {
    /// Authenticates a call by its headers.
    ///
    /// # Errors
    /// 401.
    pub(crate) async fn of<B>(
        edge: &Edge,
        request: &Request<B>,
        id: RequestId,
    ) -> Result<(Self, Principal), ServiceError> {
        let headers = request.headers();
        let principal = edge.server.authenticate(&presented(headers, request.extensions())).await?;
        let explains = explain::is_wanted(headers);
        let server = Arc::clone(&edge.server);
        let payer = (principal.tenant, principal.key);
        let caller = Self { server, tenant: Arc::clone(&principal.tenant_name), payer, explains, id };
        Ok((caller, principal))
    }

    /// Logs what became of the call, and gives an error its protocol's form.
    pub(crate) fn finish(
        self,
        served: Result<Reply, ServiceError>,
        path: &str,
        form: impl FnOnce(&ServiceError, &RequestId) -> Reply,
    ) -> Reply {
        self.log(&served, path);
        served.unwrap_or_else(|error| {
            let mut reply = form(&error, &self.id);
            if budget::refused(&error) {
                let (tenant, key) = self.payer;
                let left = self.server.budget_view(tenant, key).and_then(|view| view.left());
                left.into_iter().for_each(|left| budget::tell(&mut reply, left));
            }
            if self.explains {
                explain::refused(&mut reply, &error);
            }
            reply
        })
    }

    /// One line a request: of those the server failed for everybody who reads the log, of the others for who asks for them.
    fn log(&self, served: &Result<Reply, ServiceError>, path: &str) {
        let Self { id, tenant, .. } = self;
        let shown = || sanitise(path, MAX_LOGGED_CHARS);
        match served {
            Ok(reply) => {
                tracing::debug!(request_id = %id, %tenant, path = %shown(), status = reply.status().as_u16(), "answered");
            }
            Err(error)
                if matches!(error.code, ErrorCode::Internal | ErrorCode::ModelFailed | ErrorCode::Unavailable) =>
            {
                tracing::warn!(request_id = %id, %tenant, path = %shown(), code = error.code.as_str(), %error, "failed");
            }
            Err(error) => {
                tracing::debug!(request_id = %id, %tenant, path = %shown(), code = error.code.as_str(), %error, "refused");
            }
        }
    }
}

/// What a caller presents.
pub(crate) fn presented<'a>(headers: &'a HeaderMap, extensions: &'a Extensions) -> Presented<'a> {
    Presented {
        authorization: authorization(headers),
        certificate: Peer::certificate(extensions).map_or(&[], |certificate| &certificate.names),
        source: Peer::source(extensions),
    }
}

/// The value of the `Authorization` header, if it is one text.
pub(crate) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()
}

/// A model as a client names it. What cannot be a name names no model: the same text as for one that is not there.
pub(crate) fn model_ref(text: &str) -> Result<ModelRef, ServiceError> {
    text.parse().map_err(|_| {
        let name = sanitise(text, 2 * MAX_NAME_BYTES + 1);
        ServiceError::new(ErrorCode::NotFound, format!("model `{name}` does not exist or you may not use it"))
    })
}
