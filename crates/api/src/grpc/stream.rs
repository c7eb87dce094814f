//! `ModelStreamInfer`: requests and answers on one call, in the same order.
//!
//! A bounded number of a stream's requests is under way at a time; while it is reached, no more of the stream is read, and
//! the client waits. Each message is authenticated and admitted for itself: a stream may live longer than its key. Nothing
//! here is spawned, so whoever drops the stream cancels what is under way.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, unfold};
use http::HeaderName;
use hyper::body::Frame;
use tenantry_oip::grpc::encode_stream_error;
use tenantry_server::{Permit, Principal};
use tenantry_types::{ErrorCode, ServiceError};

use super::body::{GrpcBody, Sending};
use super::call::Call;
use super::infer::{Answered, Failed, Inference};
use super::messages::{Message, Messages};
use super::reply::{self, Reply};
use super::standard::ended_by_shutdown;
use crate::connection::Serving;

/// The most requests of one stream under way.
const MAX_UNDER_WAY: usize = 64;
/// Set to `true`: the first error ends the stream with its status, instead of being one of the answers.
const GRPC_ERROR: HeaderName = HeaderName::from_static("triton_grpc_error");

type Answering = Pin<Box<dyn Future<Output = Result<Answered, Failed>> + Send>>;
type Reading = Pin<Box<dyn Future<Output = (Messages, Read)> + Send>>;
/// A message with its caller and permit, or the refusal of one; `None` at the stream's end, an error where it cannot go on.
type Read = Result<Option<Result<(Message, Principal, Permit), ServiceError>>, ServiceError>;

/// Serves `ModelStreamInfer`: the headers at once, the answers as they come.
pub(crate) fn model_stream_infer(call: Call, messages: Messages) -> Reply {
    let session = Session::new(Arc::new(call), messages);
    reply::accepted(GrpcBody::Stream(Box::pin(unfold(session, Session::next))))
}

/// One stream.
struct Session {
    call: Arc<Call>,
    errors_end: bool,
    /// The next message on its way, while more are read.
    reading: Option<Reading>,
    /// The messages, while none is on its way.
    messages: Option<Messages>,
    under_way: FuturesOrdered<Answering>,
    sending: Option<Sending>,
    /// How the stream ends once everything under way is answered.
    end: Result<(), ServiceError>,
    is_over: bool,
    _serving: Serving,
}

impl Session {
    fn new(call: Arc<Call>, messages: Messages) -> Self {
        let errors_end = call.headers.get(GRPC_ERROR).is_some_and(|value| value == "true");
        let serving = call.requests.begin();
        Self {
            call,
            errors_end,
            reading: None,
            messages: Some(messages),
            under_way: FuturesOrdered::new(),
            sending: None,
            end: Ok(()),
            is_over: false,
            _serving: serving,
        }
    }

    /// The next frame of the answer.
    async fn next(mut self) -> Option<(Frame<Bytes>, Self)> {
        if self.is_over {
            return None;
        }
        loop {
            if let Some(frame) = self.sending.as_mut().and_then(Sending::next) {
                return Some((frame, self));
            }
            self.sending = None;
            if self.reading.is_none()
                && self.under_way.len() < MAX_UNDER_WAY
                && let Some(messages) = self.messages.take()
            {
                self.reading = Some(Box::pin(read(Arc::clone(&self.call), messages)));
            }
            let is_reading = self.reading.is_some() || self.messages.is_some();
            if !is_reading && self.under_way.is_empty() {
                return Some(self.finish());
            }
            let stopping = self.call.edge.stopping.clone();
            tokio::select! {
                biased;
                Some(answered) = self.under_way.next() => {
                    if let Err(error) = self.answer(answered) {
                        self.stop(Err(error));
                        self.under_way.clear();
                    }
                }
                (messages, read) = pending_or(self.reading.as_mut()) => {
                    self.reading = None;
                    self.take(messages, read);
                }
                () = stopping.cancelled(), if is_reading => self.stop(Err(ended_by_shutdown())),
            }
        }
    }

    /// Reads no more.
    fn stop(&mut self, end: Result<(), ServiceError>) {
        (self.reading, self.messages, self.end) = (None, None, end);
    }

    /// Begins to answer what was read.
    fn take(&mut self, messages: Messages, read: Read) {
        match read {
            Ok(Some(Ok((message, principal, permit)))) => {
                self.messages = Some(messages);
                self.under_way.push_back(Box::pin(infer(Arc::clone(&self.call), message, principal, permit)));
            }
            Ok(Some(Err(refusal))) if refusal.code == ErrorCode::Unauthenticated => self.stop(Err(refusal)),
            // An answer like others, in its turn.
            Ok(Some(Err(refusal))) => {
                self.messages = Some(messages);
                self.under_way.push_back(Box::pin(std::future::ready(Err(refusal.into()))));
            }
            Ok(None) => self.stop(Ok(())),
            Err(error) => self.stop(Err(error)),
        }
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// The one that ends the stream.
    fn answer(&mut self, answered: Result<Answered, Failed>) -> Result<(), ServiceError> {
        let (data, permit) = match answered {
            Ok(Answered { data, permit, .. }) => (data, Some(permit)),
            Err(Failed { error, .. }) if self.errors_end => return Err(error),
            Err(Failed { error, client_id }) => {
                tracing::debug!(request_id = %self.call.id, code = error.code.as_str(), %error, "refused");
                let data = encode_stream_error(&error.message, &client_id).map_err(|_| ServiceError::internal())?;
                (data, None)
            }
        };
        self.sending = Some(Sending::new(&data, permit, &self.call.requests));
        Ok(())
    }

    fn finish(mut self) -> (Frame<Bytes>, Self) {
        self.is_over = true;
        let trailers = match &self.end {
            Ok(()) => reply::success(),
            Err(error) => reply::failure(error),
        };
        (Frame::trailers(trailers), self)
    }
}

/// Waits for ever where there is nothing to wait for.
async fn pending_or(reading: Option<&mut Reading>) -> (Messages, Read) {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

/// Reads the next message, and gives the rest back.
async fn read(call: Arc<Call>, mut messages: Messages) -> (Messages, Read) {
    let mut admitted = None;
    let announced = |bytes| {
        let admit = |principal: Principal| {
            let permit = call.edge.server.admit_unnamed(&principal, Some(bytes))?;
            Ok((principal, permit))
        };
        admitted = Some(call.authenticate_again().and_then(admit)?);
        Ok(())
    };
    let read = messages.next(announced).await;
    let read = match (read, admitted) {
        (Ok(Some(Ok(message))), Some((principal, permit))) => Ok(Some(Ok((message, principal, permit)))),
        (Ok(Some(Err(refusal))), _) => Ok(Some(Err(refusal))),
        (Ok(_), _) => Ok(None),
        (Err(error), _) => Err(error),
    };
    (messages, read)
}

async fn infer(call: Arc<Call>, message: Message, principal: Principal, permit: Permit) -> Result<Answered, Failed> {
    let id = call.edge.server.new_request_id();
    let inference = Inference {
        edge: &call.edge,
        principal: &principal,
        id,
        coding: call.coding(),
        // A stream's deadline is the whole stream's, and its client's to keep; a request has its parameter.
        timeout: None,
        explains: false,
        in_stream: true,
    };
    inference.run(message, permit).await
}
