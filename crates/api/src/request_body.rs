//! A request's body on its way in, and what becomes of the rest of one that is refused before it has come.
//!
//! Over HTTP/1.1 the connection ends with such an answer, politely ([`crate::linger`]). Over HTTP/2 the rest of the one body
//! is stopped by a reset without an error once it is given up (RFC 9113, section 8.1); but there are clients that forget an
//! answer that a reset follows at once (curl 7.88 says "stream was not closed cleanly"). So what comes of it is thrown away
//! for a moment, until the client has seen the answer and stops by itself.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;

use crate::linger::LINGER;

/// How much of a refused body is thrown away before it is stopped, bytes: a client may have sent so much of it before it can
/// have seen the answer.
const MAX_DISCARDED_BYTES: usize = 1 << 20;

/// A request's body.
pub(crate) struct RequestBody {
    /// `None` once it is given up.
    incoming: Option<Incoming>,
    lingers: bool,
}

impl RequestBody {
    pub(crate) fn of_http1(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), lingers: false }
    }

    pub(crate) fn of_http2(incoming: Incoming) -> Self {
        Self { incoming: Some(incoming), lingers: true }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.incoming.as_mut().map_or(Poll::Ready(None), |incoming| Pin::new(incoming).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.lingers
            && let Some(incoming) = self.incoming.take()
            && !incoming.is_end_stream()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(discard(incoming));
        }
    }
}

async fn discard(mut incoming: Incoming) {
    let discarding = async {
        let mut left_bytes = MAX_DISCARDED_BYTES;
        while let Some(Ok(frame)) = incoming.frame().await
            && let Some(left) = left_bytes.checked_sub(frame.data_ref().map_or(0, Bytes::len))
        {
            left_bytes = left;
        }
    };
    // One that goes on for longer is stopped.
    let _ = tokio::time::timeout(LINGER, discarding).await;
}
