//! Serving a connection that speaks HTTP/2, whatever is asked over it: every limit on what the peer may hold, and a polite
//! end.
//!
//! Silence: the first request must begin within `header_timeout`. After that a connection may stay as it is for [`IDLE`] to
//! twice as long: clients keep connections for later. What counts is that a request begins or ends, or that the client takes
//! some of an answer; pings count for nothing. A peer that is gone is found by pings of our own ([`PING_INTERVAL`]), as is one
//! that stays inside a frame.
//!
//! Floods: the library counts what costs the server more than the peer, and ends the connection beyond it. Streams that were
//! reset before anybody looked at them ([`MAX_RESET_STREAMS`]), resets of our own that the peer provokes
//! ([`MAX_PROVOKED_RESETS`]), `CONTINUATION` frames without end (more than the header list's limit can need), headers of
//! four times that limit, frames of next to no data; answers to pings and settings are sent before more is read.
//!
//! The end: of a request that is refused before its body has come, see [`crate::request_body`]; of the connection, see
//! [`socket`].

mod answer;
mod body;
mod socket;

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connection::{Opened, Requests};
use crate::linger::LINGER;
use crate::route::{Edge, Entrance};
use crate::serve::{MAX_BUFFER_BYTES, MAX_HEADER_BYTES};

pub(crate) use answer::answer;
use socket::Socket;

/// The most requests of a connection at a time; a client that wants more waits or opens another.
const MAX_STREAMS: u32 = 256;
/// How much of a body a client may send ahead of its being read, bytes: by request, and by connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The longest frame, bytes: the buffers a body arrives in.
const MAX_FRAME_BYTES: u32 = MAX_BUFFER_BYTES as u32;
/// How much of an answer waits for a client to take it, bytes, by request.
const MAX_SEND_BYTES: usize = 1 << 20;
/// The most bytes of an answer handed to the connection at a time: a client that takes none of them for long is known by
/// that, and what is not handed over yet is still counted as its tenant's.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;
/// How many streams the peer may have reset that were not accepted yet.
const MAX_RESET_STREAMS: usize = 20;
/// How many frames a connection may have had, in all its life, that were answered with a reset.
const MAX_PROVOKED_RESETS: usize = 1024;
/// How often a connection is looked at: one on which nothing happened since the last time is closed.
const IDLE: Duration = Duration::from_secs(300);
/// How often the peer is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Serves a connection to its end. Once the server stops, it takes no new requests and ends with those it has.
pub(crate) async fn serve<A, F, B>(entrance: Entrance, opened: Opened, edge: &Arc<Edge>, answer: A)
where
    A: Fn(Arc<Edge>, Arc<Requests>, Request<Incoming>) -> F,
    F: Future<Output = Result<Response<B>, Infallible>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let Opened { stream, peer, read, .. } = opened;
    let header_timeout = edge.settings.header_timeout;
    let requests = Arc::new(Requests::default());
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&peer));
        let serving = requests.begin();
        let answering = answer(Arc::clone(edge), Arc::clone(&requests), request);
        async move {
            let reply = answering.await;
            drop(serving);
            reply
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        // No client of gRPC reads it.
        .auto_date_header(entrance != Entrance::Grpc)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .max_send_buf_size(MAX_SEND_BYTES)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_PROVOKED_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(Socket::new(stream, read), service);
    let mut connection = pin!(connection);
    let mut silence = pin!(silent(&requests, header_timeout));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = edge.stopping.cancelled() => {
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
    fn a_first_request_must_have_begun_at_the_first_look() {
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
        // However often it is looked at while a request is served.
        assert!(!silence.look(&requests) && !silence.look(&requests) && !silence.look(&requests));
        drop(serving);
        assert!(!silence.look(&requests), "it ended since");
        // Its answer is still being taken.
        requests.moved();
        assert!(!silence.look(&requests));
        assert!(silence.look(&requests));
    }
}
