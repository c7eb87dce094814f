//! Requests as bytes, made once and sent many times.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tenantry_oip::{EncodeError, Form, ReplyFormat, encode_request};
use tenantry_types::{InferRequest, Inputs, ModelRef, Tensor};

/// One request, ready to be sent again and again.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Bytes,
    timeout: Option<Duration>,
}

impl Request {
    /// An inference with binary tensors both ways. `timeout` is sent along, and an answer after it is late.
    ///
    /// # Errors
    /// Where the inputs are none the protocol can carry.
    pub fn infer(
        address: SocketAddr,
        model: &ModelRef,
        key: &str,
        inputs: &[Tensor],
        timeout: Option<Duration>,
    ) -> Result<Self, EncodeError> {
        let request = InferRequest::new(model.clone(), Inputs::Named(inputs.to_vec()));
        let reply = ReplyFormat { default: Form::Binary, ..ReplyFormat::default() };
        let encoded = encode_request(&request, Form::Binary, &reply)?;
        let body = encoded.body.to_contiguous();
        // Without binary tensors in it the whole body is the JSON part.
        let json_length = encoded.json_length.unwrap_or(body.len());
        Ok(Self::post(address, &format!("/v2/models/{model}/infer"), key, json_length, &body, timeout))
    }

    /// Any body to any path, marked as the binary form of the protocol.
    pub fn post(
        address: SocketAddr,
        path: &str,
        key: &str,
        json_length: usize,
        body: &[u8],
        timeout: Option<Duration>,
    ) -> Self {
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: {json_length}\r\nContent-Length: {}\r\n",
            body.len()
        );
        if let Some(timeout) = timeout {
            // Writing to a String cannot fail.
            let _ = write!(head, "x-request-timeout-ms: {}\r\n", timeout.as_millis().max(1));
        }
        head.push_str("\r\n");
        let mut bytes = BytesMut::from(head.as_bytes());
        bytes.extend_from_slice(body);
        Self { bytes: bytes.freeze(), timeout }
    }

    /// Head and body, as they are sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// After which the answer is worth nothing.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }
}
