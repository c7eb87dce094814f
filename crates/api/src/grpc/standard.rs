//! The services that tools for gRPC expect of every server: health (`grpc.health.v1`) and reflection (`v1` and `v1alpha`).
//! They need no key, as the probes and tools that call them have none; they say nothing of any tenant.

use std::convert::Infallible;
use std::pin::Pin;

use http::{Request, Response};
use hyper::body::Incoming;
use tenantry_types::ServiceError;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tonic_reflection::server::Builder;
use tower_service::Service;

use super::body::GrpcBody;
use super::reply::{self, Reply};
use crate::v2::unimplemented;
use tenantry_oip::grpc::proto::DESCRIPTOR_SET;

/// The names by which the health service knows us; the empty one is the whole server.
const NAMES: [&str; 2] = ["", "inference.GRPCInferenceService"];
/// The longest message of these services, bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 10;

/// Calls a service of tonic's, whose type has no name.
type Handler = Box<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = Response<tonic::body::Body>> + Send>>;

/// The standard services.
pub(crate) struct Standard {
    reporter: HealthReporter,
    /// By the beginnings of their paths.
    services: Vec<(&'static str, Handler)>,
    stopping: CancellationToken,
}

impl Standard {
    pub(crate) async fn new(stopping: CancellationToken) -> Self {
        let (reporter, health) = tonic_health::server::health_reporter();
        for name in NAMES {
            reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        let mut services =
            vec![("/grpc.health.v1.Health/", handler(health.max_decoding_message_size(MAX_MESSAGE_BYTES)))];
        let described = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Fails only for descriptors that are none; a test asks both versions for ours.
        if let (Ok(v1), Ok(v1alpha)) = (described().build_v1(), described().build_v1alpha()) {
            services.push((
                "/grpc.reflection.v1.ServerReflection/",
                handler(v1.max_decoding_message_size(MAX_MESSAGE_BYTES)),
            ));
            services.push((
                "/grpc.reflection.v1alpha.ServerReflection/",
                handler(v1alpha.max_decoding_message_size(MAX_MESSAGE_BYTES)),
            ));
        }
        Self { reporter, services, stopping }
    }

    /// Says from now on that the server takes no requests.
    pub(crate) async fn drain(&self) {
        for name in NAMES {
            self.reporter.set_service_status(name, ServingStatus::NotServing).await;
        }
    }

    /// Answers a call of one of them.
    pub(crate) async fn serve(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path();
        match self.services.iter().find(|(prefix, _)| path.starts_with(prefix)) {
            Some((_, handler)) => {
                let stopping = Box::pin(self.stopping.clone().cancelled_owned());
                handler(request).await.map(|body| GrpcBody::Standard { body, stopping: Some(stopping) })
            }
            None => reply::refused(&unimplemented()),
        }
    }
}

/// How a stream that outlives the server ends.
pub(crate) fn ended_by_shutdown() -> ServiceError {
    ServiceError::new(tenantry_types::ErrorCode::Unavailable, "the server is shutting down; try again shortly")
}

fn handler<S>(service: S) -> Handler
where
    S: Service<Request<Incoming>, Response = Response<tonic::body::Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    Box::new(move |request| {
        // Always ready; cloning it counts references.
        let answer = service.clone().call(request);
        Box::pin(async {
            match answer.await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    })
}
