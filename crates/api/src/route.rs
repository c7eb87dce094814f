//! What every request goes through, and where it goes.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::ALLOW;
use http::{Request, StatusCode};
use tenantry_server::Server;
use tenantry_server::config::HttpSettings;
use tenantry_types::{RequestId, ServiceError};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::grpc::Standard;
use crate::pool::Pool;
use crate::reply::{self, Reply, ReplyBody};
use crate::request_body::RequestBody;
use crate::{admin, metrics, oauth, v1, v2};

/// The path of a tenant in the admin API, in front of its name.
const TENANTS: &str = "/admin/v1/tenants/";

/// What the edges share.
pub(crate) struct Edge {
    pub(crate) server: Arc<Server>,
    pub(crate) settings: HttpSettings,
    pub(crate) pool: Pool,
    pub(crate) standard: Standard,
    /// Cancelled when the server is told to stop.
    pub(crate) stopping: CancellationToken,
    admin: axum::Router,
}

/// Which listener a connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// The data plane and the admin API.
    Main,
    /// `/metrics`.
    Metrics,
    /// gRPC.
    Grpc,
}

impl Edge {
    pub(crate) async fn new(server: Arc<Server>, settings: HttpSettings) -> Self {
        let places = std::thread::available_parallelism().map_or(1, usize::from);
        let admin = admin::router(Arc::clone(&server), &settings);
        let stopping = CancellationToken::new();
        let standard = Standard::new(stopping.clone()).await;
        Self { server, settings, pool: Pool::new(places), standard, stopping, admin }
    }

    /// Whether new connections are refused and old ones end with their current request.
    pub(crate) fn is_draining(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Whether requests are taken.
    pub(crate) fn is_ready(&self) -> bool {
        self.server.is_ready() && !self.is_draining()
    }

    pub(crate) async fn drain(&self) {
        // First, so that whoever watches hears of it before the connections end.
        self.standard.drain().await;
        self.stopping.cancel();
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, entrance: Entrance, request: Request<RequestBody>) -> Result<Reply, Infallible> {
        if entrance == Entrance::Metrics {
            return Ok(metrics::serve(self, &request));
        }
        let id = self.server.new_request_id();
        let path = request.uri().path();
        let reply = if is_under(path, "/v2") {
            v2::serve(self, request, id).await
        } else if is_under(path, "/v1") || is_under(path, "/openai/v1") {
            v1::serve(self, request, id).await
        } else if is_under(path, "/admin") {
            unpack(self.answer_admin(request, id).await?, &id)
        } else if oauth::is_oauth(path) {
            oauth::serve(self, request, id).await
        } else if v1::is_torchserve(path) {
            v1::serve_torchserve(self, request, id).await
        } else if path == "/" {
            v1::serve_root(&request, &id)
        } else {
            reply::not_found(&id)
        };
        reply::identify(reply, &id)
    }

    async fn answer_admin(
        &self,
        mut request: Request<RequestBody>,
        id: RequestId,
    ) -> Result<axum::response::Response, Infallible> {
        request.extensions_mut().insert(id);
        let seen = admin::Seen::default();
        request.extensions_mut().insert(seen.clone());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        // A router is always ready; cloning it counts a reference.
        let response = self.admin.clone().call(request.map(axum::body::Body::new)).await?;
        if let Some(error) = response.extensions().get::<ServiceError>() {
            if let Some(principal) = seen.0.get() {
                let path = uri.path();
                let about = path.strip_prefix(TENANTS).and_then(|rest| rest.split('/').next());
                self.server.note_refusal(principal, &format!("{method} {path}"), about, error.code);
            }
            // Before the answer: whoever was refused, and then asks, reads of it.
            self.server.record_refusals().await;
        }
        Ok(response)
    }
}

/// Gives a refusal of an admin handler the one form errors have, now that the request's id is at hand.
fn unpack(mut response: axum::response::Response, id: &RequestId) -> Reply {
    let Some(error) = response.extensions_mut().remove::<ServiceError>() else {
        return response.map(ReplyBody::Admin);
    };
    let mut reply = reply::error(&error, id);
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        *reply.status_mut() = response.status();
    }
    // What the router adds stays.
    if let Some(allow) = response.headers_mut().remove(ALLOW) {
        reply.headers_mut().insert(ALLOW, allow);
    }
    reply
}

fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
