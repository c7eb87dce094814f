//! Who is at the other end of a connection, what it has asked, and the socket of an HTTP/1.1 connection, with a limit on its
//! silence and a polite end ([`crate::linger`]).
//!
//! Silence: a peer may take `header_timeout` to send a request's head, and stay idle between requests for [`KEEP_ALIVE`];
//! one that takes no bytes of an answer for that long is gone too. While a request is being served no clock runs here: its
//! body and its deadline have their own. One timer a connection serves for all of this and is moved only when it fires
//! early, so an ordinary request does not touch the timer wheel.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Extensions;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite as _;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::linger::Linger;
use crate::route::Edge;
use crate::stream::Stream;
use crate::tls::ClientCertificate;

/// How long a connection may stay idle between requests: longer than the clients' and proxies' usual minute, so that they
/// close first and never send into a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// A connection that is ready for its first request.
pub(crate) struct Opened {
    pub(crate) stream: Stream,
    pub(crate) peer: Arc<Peer>,
    /// Whether its client has said that it speaks HTTP/2.
    pub(crate) is_http2: bool,
    /// What was read of it already.
    pub(crate) read: Bytes,
}

/// Who is at the other end of a connection. Every request carries it among its extensions.
#[derive(Debug)]
pub(crate) struct Peer {
    /// The address it came from.
    pub(crate) address: IpAddr,
    /// Its certificate, where the connection is encrypted and it has shown one that is good.
    pub(crate) certificate: Option<ClientCertificate>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, certificate: Option<ClientCertificate>) -> Arc<Self> {
        // An IPv4 address is one, whatever the listener's family.
        let address = address.ip().to_canonical();
        if let Some(ClientCertificate { common_name, uris, fingerprint, .. }) = &certificate {
            tracing::debug!(%address, common_name, ?uris, %fingerprint, "a client has shown its certificate");
        }
        Arc::new(Self { address, certificate })
    }

    /// The address a request came from.
    pub(crate) fn source(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Arc<Self>>().map(|peer| peer.address)
    }

    /// The certificate that the client of a request has shown.
    pub(crate) fn certificate(extensions: &Extensions) -> Option<&ClientCertificate> {
        extensions.get::<Arc<Self>>()?.certificate.as_ref()
    }
}

/// A client's connection.
pub(crate) struct Connection {
    io: TokioIo<Stream>,
    edge: Arc<Edge>,
    requests: Arc<Requests>,
    silence: Silence,
    timer: Pin<Box<Sleep>>,
    linger: Option<Linger>,
}

/// The requests a connection has begun and ended.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    begun: AtomicU64,
    ended: AtomicU64,
    /// How often something of an answer was handed on.
    moved: AtomicU64,
}

/// One request being served, until dropped.
pub(crate) struct Serving(Arc<Requests>);

impl Requests {
    pub(crate) fn begin(self: &Arc<Self>) -> Serving {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Serving(Arc::clone(self))
    }

    /// Counts that something of an answer was handed on.
    pub(crate) fn moved(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// How much has happened; `None` while a request is being served. Unchanged means that nothing has.
    pub(crate) fn activity(&self) -> Option<u64> {
        Some(self.quiet()?.wrapping_add(self.moved.load(Ordering::Relaxed)))
    }

    /// Whether a request has begun.
    pub(crate) fn any(&self) -> bool {
        self.begun.load(Ordering::Relaxed) > 0
    }

    /// The number of ended requests; `None` while one is being served.
    fn quiet(&self) -> Option<u64> {
        let ended = self.ended.load(Ordering::Relaxed);
        (self.begun.load(Ordering::Relaxed) == ended).then_some(ended)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long the peer has been silent, and how long it may be.
struct Silence {
    header_timeout: Duration,
    /// When the head that is being received began.
    head_since: Option<Instant>,
    /// When bytes last moved.
    quiet_since: Instant,
    /// The ended requests when last looked.
    ended: u64,
}

impl Silence {
    /// A connection's first head begins with the connection.
    fn new(header_timeout: Duration, now: Instant) -> Self {
        Self { header_timeout, head_since: Some(now), quiet_since: now, ended: 0 }
    }

    fn received(&mut self, quiet: Option<u64>, now: Instant) {
        if let Some(ended) = quiet {
            self.look(ended, now);
            self.head_since.get_or_insert(now);
        }
    }

    fn sent(&mut self, now: Instant) {
        self.quiet_since = now;
        if let Some(since) = &mut self.head_since {
            *since = now;
        }
    }

    /// When the peer has been silent for too long; `None` while a request is being served.
    fn deadline(&mut self, quiet: Option<u64>, now: Instant) -> Option<Instant> {
        self.look(quiet?, now);
        Some(self.head_since.map_or(self.quiet_since + KEEP_ALIVE, |since| since + self.header_timeout))
    }

    fn look(&mut self, ended: u64, now: Instant) {
        if self.ended != ended {
            (self.ended, self.head_since, self.quiet_since) = (ended, None, now);
        }
    }
}

impl Connection {
    pub(crate) fn new(stream: Stream, edge: Arc<Edge>, requests: Arc<Requests>) -> Self {
        let now = Instant::now();
        let header_timeout = edge.settings.header_timeout;
        let timer = Box::pin(sleep_until(now + header_timeout));
        let silence = Silence::new(header_timeout, now);
        Self { io: TokioIo::new(stream), edge, requests, silence, timer, linger: None }
    }

    /// The socket, for whoever speaks another protocol over it.
    pub(crate) fn into_stream(self) -> Stream {
        self.io.into_inner()
    }

    /// Ready when the peer has been silent for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let Some(deadline) = self.silence.deadline(self.requests.quiet(), now) else { return Poll::Pending };
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

impl Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(context, buffer) {
            let quiet = self.requests.quiet();
            self.silence.received(quiet, Instant::now());
            return Poll::Ready(result);
        }
        ready!(self.poll_silence(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write(context, data));
        self.silence.sent(Instant::now());
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, edge, linger, .. } = &mut *self;
        let stream = io.inner_mut();
        if linger.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let linger = linger.get_or_insert_with(Linger::new);
        if !edge.is_draining() {
            ready!(linger.poll(stream, context));
        }
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(context, data));
        self.silence.sent(Instant::now());
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Duration = Duration::from_secs(10);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn the_first_head_must_come_soon() {
        let start = Instant::now();
        let mut silence = Silence::new(HEADER, start);
        assert_eq!(silence.deadline(Some(0), start), Some(start + HEADER));
        // Sending it byte by byte does not help.
        silence.received(Some(0), start + 9 * SECOND);
        assert_eq!(silence.deadline(Some(0), start + 9 * SECOND), Some(start + HEADER));
    }

    #[tokio::test]
    async fn no_clock_runs_while_a_request_is_served_and_idling_is_long_after_it() {
        let start = Instant::now();
        let mut silence = Silence::new(HEADER, start);
        silence.received(Some(0), start);
        silence.received(None, start + SECOND);
        assert_eq!(silence.deadline(None, start + 500 * SECOND), None);
        let end = start + 600 * SECOND;
        assert_eq!(silence.deadline(Some(1), end), Some(end + KEEP_ALIVE));
        // The next head has its own time.
        silence.received(Some(1), end + 70 * SECOND);
        assert_eq!(silence.deadline(Some(1), end + 71 * SECOND), Some(end + 70 * SECOND + HEADER));
    }

    #[tokio::test]
    async fn a_peer_that_takes_an_answer_slowly_is_not_silent() {
        let start = Instant::now();
        let mut silence = Silence::new(HEADER, start);
        silence.received(Some(0), start);
        assert_eq!(silence.deadline(Some(1), start), Some(start + KEEP_ALIVE));
        silence.sent(start + 60 * SECOND);
        assert_eq!(silence.deadline(Some(1), start + 61 * SECOND), Some(start + 60 * SECOND + KEEP_ALIVE));
    }
}
