//! Request bodies, collected as the chain of buffers they arrive in.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Body;
use tenantry_server::Permit;
use tenantry_types::{ErrorCode, Payload, ServiceError};

/// Buffers smaller than this are joined once there are [`FREE_PARTS`] of them, bytes: a client that sends its body byte by
/// byte shall not make a chain of as many buffers.
const SMALL_PART_BYTES: usize = 1024;
/// How many buffers a chain may have before small ones are joined.
const FREE_PARTS: usize = 16;

/// Reads a body to its end. One of announced length was counted at admission and cannot grow beyond it (the protocol layer
/// sees to that); one of unknown length is counted as it comes.
///
/// # Errors
/// 413 and 429 from the permit, 408-like `deadline_exceeded` when the client stalls, `cancelled` when it goes away.
pub(crate) async fn collect<B>(mut body: B, permit: &mut Permit, timeout: Duration) -> Result<Payload, ServiceError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let is_counted = body.size_hint().exact().is_some();
    let mut chain = Chain::default();
    let read = async {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(ServiceError::new(ErrorCode::Cancelled, "the connection ended before the body did"));
            };
            if let Ok(data) = frame.into_data() {
                if !is_counted {
                    permit.grow(data.len() as u64)?;
                }
                chain.push(data);
            }
        }
        Ok(())
    };
    let mut read = std::pin::pin!(read);
    // A small body is here already, as a rule; it needs no timer.
    match read.as_mut().now_or_never() {
        Some(result) => result?,
        None => tokio::time::timeout(timeout, read).await.map_err(|_| {
            ServiceError::new(
                ErrorCode::DeadlineExceeded,
                format!("the body did not arrive within {} s; send it without pauses", timeout.as_secs()),
            )
        })??,
    }
    Ok(chain.finish())
}

/// A payload in the making.
#[derive(Default)]
pub(crate) struct Chain {
    payload: Payload,
    small: BytesMut,
}

impl Chain {
    pub(crate) fn len(&self) -> usize {
        self.payload.len().saturating_add(self.small.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the first bytes away; `None` if there are not so many.
    pub(crate) fn take(&mut self, bytes: usize) -> Option<Payload> {
        self.flush();
        self.payload.split_to(bytes)
    }

    pub(crate) fn push(&mut self, part: Bytes) {
        if part.len() < SMALL_PART_BYTES && self.payload.parts().len() >= FREE_PARTS {
            self.small.extend_from_slice(&part);
        } else {
            self.flush();
            self.payload.push(part);
        }
    }

    fn flush(&mut self) {
        if !self.small.is_empty() {
            self.payload.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> Payload {
        self.flush();
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_buffers_are_joined_and_large_ones_are_not_copied() {
        let mut chain = Chain::default();
        for byte in 0..=255_u8 {
            chain.push(Bytes::from(vec![byte]));
        }
        let large = Bytes::from(vec![7; SMALL_PART_BYTES]);
        chain.push(large.clone());
        chain.push(Bytes::from_static(b"end"));
        let payload = chain.finish();
        assert_eq!(payload.parts().len(), FREE_PARTS + 3);
        assert_eq!(payload.parts()[FREE_PARTS + 1].as_ptr(), large.as_ptr());
        let expected: Vec<u8> = (0..=255).chain([7; SMALL_PART_BYTES]).chain(*b"end").collect();
        assert_eq!(payload.to_contiguous(), expected);
    }
}
