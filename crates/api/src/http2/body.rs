//! An answer's body on its way over HTTP/2: in chunks.
//!
//! The library takes over a buffer whole, however little of it the client is ready for. Handed over at once, a large answer
//! would no longer be counted as its tenant's, and nobody could tell a client that takes it slowly from one that is gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::CHUNK_BYTES;
use crate::connection::Requests;
use crate::reply::ReplyBody;

/// A body in chunks.
pub(crate) struct Chunks {
    body: ReplyBody,
    /// What is left of the body's last buffer.
    part: Bytes,
    /// Told that the client takes it.
    requests: Arc<Requests>,
}

impl Chunks {
    pub(super) fn new(body: ReplyBody, requests: Arc<Requests>) -> Self {
        Self { body, part: Bytes::new(), requests }
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.part.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)?) else { return Poll::Ready(None) };
            match frame.into_data() {
                Ok(data) => self.part = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        self.requests.moved();
        let length = self.part.len().min(CHUNK_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.part.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.part.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.part.len() as u64;
        let rest = self.body.size_hint();
        rest.exact().map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest.saturating_add(left)))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tenantry_types::Payload;

    use super::*;

    #[tokio::test]
    async fn a_body_is_sent_in_chunks_and_counted() {
        let mut data = Payload::from(Bytes::from_static(b"front"));
        data.push(vec![7; CHUNK_BYTES + 1].into());
        let requests = Arc::<Requests>::default();
        let mut body = Chunks::new(data.into(), Arc::clone(&requests));
        let mut left = 5 + CHUNK_BYTES as u64 + 1;
        let mut lengths = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(left));
            let before = requests.activity();
            let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_ne!(requests.activity(), before);
            left -= data.len() as u64;
            lengths.push(data.len());
        }
        assert_eq!(lengths, [5, CHUNK_BYTES, 1]);
        assert!(body.frame().await.is_none());
    }
}
