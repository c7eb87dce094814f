//! The bodies of answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use hyper::body::{Body, Frame};
use smallvec::SmallVec;
use tenantry_server::Permit;
use tenantry_types::Payload;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::reply::failure;
use super::standard::ended_by_shutdown;
use crate::connection::Requests;
use crate::http2::CHUNK_BYTES;

/// The messages of a stream, and at its end the trailers.
pub(crate) type Replies = Pin<Box<dyn Stream<Item = Frame<Bytes>> + Send>>;

/// An answer's body.
#[derive(Default)]
#[expect(clippy::large_enum_variant, reason = "the largest is the usual one")]
pub(crate) enum GrpcBody {
    /// Nothing: the status is in the headers.
    #[default]
    Empty,
    /// One message, all here, and the trailers.
    Message(Sending),
    /// One message after the other.
    Stream(Replies),
    /// What one of the standard services made; a stream that its client holds open ends when the server does.
    Standard { body: tonic::body::Body, stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>> },
}

/// A message on its way.
pub(crate) struct Sending {
    parts: smallvec::IntoIter<[Bytes; 2]>,
    part: Bytes,
    trailers: Option<HeaderMap>,
    /// Held until the message is sent or given up.
    _permit: Option<Permit>,
    /// Told that the client takes it.
    requests: Arc<Requests>,
}

impl GrpcBody {
    /// A message with its prefix, then `trailers`.
    pub(crate) fn message(
        data: &Payload,
        trailers: HeaderMap,
        permit: Option<Permit>,
        requests: &Arc<Requests>,
    ) -> Self {
        Self::Message(Sending { trailers: Some(trailers), ..Sending::new(data, permit, requests) })
    }
}

impl Sending {
    /// A message without trailers.
    pub(crate) fn new(data: &Payload, permit: Option<Permit>, requests: &Arc<Requests>) -> Self {
        let parts: SmallVec<[Bytes; 2]> = data.parts().iter().cloned().collect();
        let (parts, requests) = (parts.into_iter(), Arc::clone(requests));
        Self { parts, part: Bytes::new(), trailers: None, _permit: permit, requests }
    }

    pub(crate) fn next(&mut self) -> Option<Frame<Bytes>> {
        self.requests.moved();
        if self.part.is_empty() {
            self.part = self.parts.next().unwrap_or_default();
        }
        if self.part.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        let chunk = self.part.split_to(self.part.len().min(CHUNK_BYTES));
        Some(Frame::data(chunk))
    }
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Message(message) => Poll::Ready(message.next().map(Ok)),
            Self::Stream(replies) => Poll::Ready(ready!(replies.as_mut().poll_next(context)).map(Ok)),
            Self::Standard { body, stopping } => {
                // None left: the trailers were sent.
                let Some(stop) = stopping else { return Poll::Ready(None) };
                if let Poll::Ready(frame) = Pin::new(body).poll_frame(context) {
                    return Poll::Ready(frame);
                }
                ready!(stop.as_mut().poll(context));
                *stopping = None;
                Poll::Ready(Some(Ok(Frame::trailers(failure(&ended_by_shutdown())))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Message(_) | Self::Stream(_) => false,
            Self::Standard { body, stopping } => stopping.is_none() || body.is_end_stream(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_message_is_sent_in_chunks_and_then_its_trailers() {
        let mut data = Payload::from(Bytes::from_static(b"front"));
        data.push(vec![7; CHUNK_BYTES + 1].into());
        let trailers = HeaderMap::from_iter([(http::header::TE, HeaderValue::from_static("yes"))]);
        let mut body = GrpcBody::message(&data, trailers, None, &Arc::default());
        assert!(!body.is_end_stream());
        let mut lengths = Vec::new();
        let trailers = loop {
            match body.frame().await.unwrap().unwrap().into_data() {
                Ok(data) => lengths.push(data.len()),
                Err(frame) => break frame.into_trailers().unwrap(),
            }
        };
        assert_eq!(lengths, [5, CHUNK_BYTES, 1]);
        assert_eq!(trailers.len(), 1);
        assert!(body.frame().await.is_none());
    }
}
