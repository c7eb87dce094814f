//! Messages out of a call's body.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tenantry_oip::grpc::{PREFIX_BYTES, Prefix};
use tenantry_types::{ErrorCode, Payload, ServiceError};

use crate::body::Chain;

/// A call's messages, one after the other.
pub(crate) struct Messages {
    body: Incoming,
    received: Chain,
    /// What is left of a message that was refused.
    refused_bytes: usize,
    timeout: Duration,
}

/// A message as it was sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) is_compressed: bool,
    pub(crate) data: Payload,
}

impl Messages {
    /// `timeout`: how long a message may take to arrive.
    pub(crate) fn new(body: Incoming, timeout: Duration) -> Self {
        Self { body, received: Chain::default(), refused_bytes: 0, timeout }
    }

    /// The call's only message. `announced` is asked, with its size, before it is read.
    ///
    /// # Errors
    /// What `announced` says, 400 without a message or with more than one, 504 when the client stalls, `cancelled` when it
    /// goes away.
    pub(crate) async fn only(
        &mut self,
        announced: impl FnOnce(u64) -> Result<(), ServiceError> + Send,
    ) -> Result<Message, ServiceError> {
        let timeout = self.timeout;
        let read = async {
            let message =
                self.read(announced).await?.ok_or_else(|| ServiceError::invalid("the call has no message"))?;
            // Up to its end, so that the answer does not cut it off.
            if self.more().await? || !self.received.is_empty() {
                return Err(ServiceError::invalid("the call takes one message, and more came"));
            }
            Ok(message)
        };
        in_time(read, timeout).await
    }

    /// The next message of a stream; `None` after the last. Any time may pass before it begins. What `announced` refuses is
    /// passed over, and the stream goes on.
    ///
    /// # Errors
    /// As [`Self::only`]; the stream cannot go on then.
    pub(crate) async fn next(
        &mut self,
        announced: impl FnOnce(u64) -> Result<(), ServiceError> + Send,
    ) -> Result<Option<Result<Message, ServiceError>>, ServiceError> {
        let timeout = self.timeout;
        if self.refused_bytes > 0 {
            in_time(self.pass_over(), timeout).await?;
        }
        if self.received.is_empty() && !self.more().await? {
            return Ok(None);
        }
        let mut refusal = None;
        let read = self.read(|bytes| announced(bytes).inspect_err(|error| refusal = Some(error.clone())));
        let outcome = in_time(read, timeout).await;
        match refusal {
            Some(refusal) => Ok(Some(Err(refusal))),
            None => outcome.map(|message| message.map(Ok)),
        }
    }

    async fn read(
        &mut self,
        announced: impl FnOnce(u64) -> Result<(), ServiceError> + Send,
    ) -> Result<Option<Message>, ServiceError> {
        if !self.fill(PREFIX_BYTES).await? {
            return if self.received.is_empty() { Ok(None) } else { Err(cut_off()) };
        }
        let prefix = self.received.take(PREFIX_BYTES).ok_or_else(cut_off)?.to_contiguous();
        let prefix = prefix.first_chunk().and_then(|bytes| Prefix::read(*bytes));
        let Prefix { is_compressed, message_bytes } =
            prefix.ok_or_else(|| ServiceError::invalid("a message does not begin as gRPC messages do"))?;
        let bytes = usize::try_from(message_bytes).unwrap_or(usize::MAX);
        self.refused_bytes = bytes;
        announced(message_bytes.into())?;
        self.refused_bytes = 0;
        if !self.fill(bytes).await? {
            return Err(cut_off());
        }
        let data = self.received.take(bytes).ok_or_else(cut_off)?;
        Ok(Some(Message { is_compressed, data }))
    }

    /// Reads what is left of a refused message, and keeps none of it.
    async fn pass_over(&mut self) -> Result<(), ServiceError> {
        loop {
            let passed = self.refused_bytes.min(self.received.len());
            drop(self.received.take(passed));
            self.refused_bytes -= passed;
            if self.refused_bytes == 0 {
                return Ok(());
            }
            if !self.more().await? {
                return Err(cut_off());
            }
        }
    }

    /// Reads until so many bytes are there; false if the body ends before.
    async fn fill(&mut self, bytes: usize) -> Result<bool, ServiceError> {
        while self.received.len() < bytes {
            if !self.more().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads some more; false at the end.
    async fn more(&mut self) -> Result<bool, ServiceError> {
        while let Some(frame) = self.body.frame().await {
            let Ok(frame) = frame else {
                return Err(ServiceError::new(ErrorCode::Cancelled, "the call ended before its message did"));
            };
            // A frame of no data ends a body, or does nothing.
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                self.received.push(data);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn cut_off() -> ServiceError {
    ServiceError::invalid("the call's body ends inside a message")
}

/// Waits for something to be read. What is here already needs no timer.
async fn in_time<T>(read: impl Future<Output = Result<T, ServiceError>>, timeout: Duration) -> Result<T, ServiceError> {
    let mut read = pin!(read);
    if let Some(result) = read.as_mut().now_or_never() {
        return result;
    }
    tokio::time::timeout(timeout, read).await.map_err(|_| {
        ServiceError::new(
            ErrorCode::DeadlineExceeded,
            format!("the message did not arrive within {} s; send it without pauses", timeout.as_secs()),
        )
    })?
}
