//! A connection of a gRPC client: HTTP/2, with every limit on what the peer may hold, and a polite end.
//!
//! Silence: the first call must begin within `header_timeout`. After that a connection may stay as it is for [`IDLE`] to
//! twice as long: gRPC clients keep connections for later. What counts is that a call begins or ends, or that the client takes
//! some of an answer; pings count for nothing. A peer that is gone is found by pings of our own ([`PING_INTERVAL`]), as is one
//! that stays inside a frame.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;

use super::call::answer;
use crate::connection::{LINGER, Peer, Requests};
use crate::route::Edge;
use crate::serve::{MAX_BUFFER_BYTES, MAX_HEADER_BYTES};
use crate::stream::Stream;

/// The most calls of a connection at a time; a client that wants more waits or opens another.
const MAX_CALLS: u32 = 256;
/// How much of a message a client may send ahead of its being read, bytes: by call, and by connection.
const CALL_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The longest frame, bytes: the buffers a message arrives in.
const MAX_FRAME_BYTES: u32 = MAX_BUFFER_BYTES as u32;
/// How much of an answer waits for a client to take it, bytes, by call.
const MAX_SEND_BYTES: usize = 1 << 20;
/// How often a connection is looked at: one on which nothing happened since the last time is closed.
const IDLE: Duration = Duration::from_secs(300);
/// How often the peer is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a connection to its end. Once `stopping`, it takes no new calls and ends with those it has.
pub(crate) async fn serve(stream: Stream, peer: Arc<Peer>, edge: Arc<Edge>, stopping: CancellationToken) {
    let header_timeout = edge.settings.header_timeout;
    let requests = Arc::new(Requests::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&peer));
        let (edge, requests) = (Arc::clone(&edge), Arc::clone(&requests));
        let serving = requests.begin();
        async move {
            let reply = answer(edge, requests, request).await;
            drop(serving);
            reply
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(MAX_CALLS)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_send_buf_size(MAX_SEND_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut silence = pin!(silent(&requests, header_timeout));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = silence.as_mut() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LINGER, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Ready when the peer has been silent for too long.
async fn silent(requests: &Requests, header_timeout: Duration) {
    let mut silence = Silence::default();
    tokio::time::sleep(header_timeout).await;
    while !silence.look(requests) {
        tokio::time::sleep(IDLE).await;
    }
}

/// What was seen of a connection when it was last looked at.
#[derive(Debug, Default)]
struct Silence {
    seen: Option<Option<u64>>,
}

impl Silence {
    /// Whether nothing happened since the last look; at the first, whether nothing happened at all.
    fn look(&mut self, requests: &Requests) -> bool {
        let now = requests.activity();
        match self.seen.replace(now) {
            None => !requests.any(),
            Some(before) => now.is_some() && now == before,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_call_must_have_begun_at_the_first_look() {
        assert!(Silence::default().look(&Requests::default()));
        let requests = Arc::new(Requests::default());
        drop(requests.begin());
        assert!(!Silence::default().look(&requests));
    }

    #[test]
    fn a_connection_is_silent_where_nothing_happened_between_two_looks() {
        let requests = Arc::new(Requests::default());
        let mut silence = Silence::default();
        let serving = requests.begin();
        // However often it is looked at while a call is served.
        assert!(!silence.look(&requests) && !silence.look(&requests) && !silence.look(&requests));
        drop(serving);
        assert!(!silence.look(&requests), "it ended since");
        // Its answer is still being taken.
        requests.moved();
        assert!(!silence.look(&requests));
        assert!(silence.look(&requests));
    }
}
