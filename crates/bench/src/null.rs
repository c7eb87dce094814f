//! The null server: the HTTP stack of `api` (hyper over tokio), reading the body and answering a constant. Over HTTP/2 the
//! constant is a message of gRPC.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::process::{SERVER_CPU, on_cpu};
use crate::server::{Child, first_line};

/// As long as the JSON part of the small model's answer.
const JSON_BYTES: usize = 136;
/// The whole answer: the JSON part and 16 floats.
static ANSWER: &[u8] = &[b'x'; JSON_BYTES + 64];
/// As long as the small model's answer over gRPC, framed.
static MESSAGE: &[u8] = &[0; 5 + 110];

/// The body of `tenantry-bench --null-server`: prints its address and serves until it is killed.
pub(crate) fn play() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(serve(stream));
        }
    })
}

async fn serve(stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut first = [0; 3];
    // Both end when the load generator closes the connection.
    if stream.peek(&mut first).await.is_ok() && first == *b"PRI" {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service_fn(answer_call))
            .await;
        return;
    }
    let _ = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Ok(body) = request.into_body().collect().await {
        std::hint::black_box(body.to_bytes());
    }
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
    headers.insert("inference-header-content-length", HeaderValue::from(JSON_BYTES));
    Ok(response)
}

async fn answer_call(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    if let Ok(body) = request.into_body().collect().await {
        std::hint::black_box(body.to_bytes());
    }
    let status = [(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))];
    let body = Full::new(Bytes::from_static(MESSAGE)).with_trailers(async { Some(Ok(HeaderMap::from_iter(status))) });
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// A null server in a process of its own on the server's processor.
pub(crate) fn start() -> Result<(Child, SocketAddr)> {
    let program = std::env::current_exe().context("where is this program?")?;
    let child = on_cpu(SERVER_CPU, || {
        let child = Command::new(program).arg("--null-server").stdout(Stdio::piped()).spawn()?;
        Ok(Child::new(child))
    })?;
    let mut child = child;
    let address = first_line(&mut child)?.parse().context("the null server said something else than its address")?;
    Ok((child, address))
}
