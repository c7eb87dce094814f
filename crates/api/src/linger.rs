//! The polite end of a connection.
//!
//! Were a socket closed as soon as the last byte is handed to the kernel, what the client still sends (the rest of a refused
//! body, an HTTP/2 client's word that it took something) would be answered with a reset, and what is still under way to it
//! would be lost with that. So what still comes is thrown away for a moment, until the client has seen the end and closes
//! (RFC 9112, section 9.6).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::stream::Stream;

/// How long a client may take to see the end of its connection.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// How much of what a client still sends is thrown away, bytes.
const MAX_LINGER_BYTES: usize = 128 << 20;
/// Bytes thrown away at a time.
const SCRATCH_BYTES: usize = 8 << 10;

/// A connection whose last byte is sent.
pub(crate) struct Linger {
    until: Pin<Box<Sleep>>,
    left_bytes: usize,
}

impl Linger {
    pub(crate) fn new() -> Self {
        Self { until: Box::pin(sleep_until(Instant::now() + LINGER)), left_bytes: MAX_LINGER_BYTES }
    }

    /// Throws away what comes; ready when the client has closed, or has had its time.
    pub(crate) fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<()> {
        while self.left_bytes > 0 && self.until.as_mut().poll(context).is_pending() {
            let mut scratch = [0_u8; SCRATCH_BYTES];
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.left_bytes = self.left_bytes.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(())
    }
}
