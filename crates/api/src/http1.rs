//! Serving a connection that speaks HTTP/1.1. Its socket, with the limits on silence, is [`Connection`].

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;

use crate::connection::{Connection, Opened, Requests};
use crate::request_body::RequestBody;
use crate::route::{Edge, Entrance};
use crate::serve::{MAX_BUFFER_BYTES, MAX_HEADER_BYTES};
use crate::stream::Stream;

/// Serves a connection to its end; gives it back where its client begins with HTTP/2 and nothing was answered yet, in plain
/// text ("prior knowledge": RFC 9113, section 3.3). That is noticed where the first head is found to be no HTTP/1.1, so that
/// HTTP/1.1 pays nothing for it. Encrypted, clients say by ALPN what they speak.
pub(crate) async fn serve(entrance: Entrance, opened: Opened, edge: &Arc<Edge>) -> Option<Opened> {
    let Opened { stream, peer, .. } = opened;
    let may_be_http2 = entrance == Entrance::Main && matches!(stream, Stream::Plain(_));
    let requests = Arc::new(Requests::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&peer));
        let edge = Arc::clone(edge);
        let serving = requests.begin();
        async move {
            let reply = edge.answer(entrance, request.map(RequestBody::of_http1)).await;
            drop(serving);
            reply
        }
    });
    let mut connection = http1::Builder::new()
        // The connection itself limits how long a head may take, without a timer a request.
        .header_read_timeout(None)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(Connection::new(stream, Arc::clone(edge), Arc::clone(&requests)), service);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = edge.stopping.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let error = ended.err()?;
    // Only a connection's first bytes: behind a proxy, what follows a request may be another client's.
    if may_be_http2 && error.is_parse_version_h2() && !requests.any() {
        let http1::Parts { io, read_buf, .. } = connection.into_parts();
        return Some(Opened { stream: io.into_stream(), peer, is_http2: true, read: read_buf });
    }
    tracing::debug!(%error, "a connection ended");
    None
}
