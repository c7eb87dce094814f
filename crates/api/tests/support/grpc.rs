//! A gRPC client whose every frame is the test's own.

use std::collections::BTreeMap;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use prost::Message;
use tenantry_oip::grpc::proto::model_infer_request::InferInputTensor;
use tenantry_oip::grpc::proto::{InferTensorContents, ModelInferRequest};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{PATIENCE, Running};

/// A connection.
pub(crate) struct Client {
    pub(crate) requests: SendRequest<Bytes>,
    /// Ends when the connection does, with what ended it.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// How a call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Headers and trailers together.
    pub(crate) metadata: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// A call under way.
pub(crate) struct Calling {
    pub(crate) send: SendStream<Bytes>,
    response: h2::client::ResponseFuture,
}

impl Running {
    pub(crate) async fn grpc(&self) -> Client {
        Client::over(TcpStream::connect(self.grpc_address).await.unwrap()).await
    }
}

impl Client {
    pub(crate) async fn over(stream: impl super::Bytes + 'static) -> Self {
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Begins a call of the inference service.
    pub(crate) async fn begin(&mut self, method: &str, key: Option<&str>, metadata: &[(&str, &str)]) -> Calling {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let path = if method.starts_with('/') {
            method.to_owned()
        } else {
            format!("/inference.GRPCInferenceService/{method}")
        };
        let mut request = Request::post(format!("http://test{path}")).header("content-type", "application/grpc");
        request = request.header("te", "trailers");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let (response, send) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        Calling { send, response }
    }

    /// One call of one message.
    pub(crate) async fn call(
        &mut self,
        method: &str,
        key: Option<&str>,
        metadata: &[(&str, &str)],
        message: &impl Message,
    ) -> Ended {
        let mut calling = self.begin(method, key, metadata).await;
        calling.message(message, true);
        calling.ended().await
    }
}

impl Calling {
    /// Sends a message. A server that has refused the call already may have stopped it; the answer tells.
    pub(crate) fn message(&mut self, message: &impl Message, is_last: bool) {
        let _ = self.send.send_data(framed(&message.encode_to_vec()), is_last);
    }

    /// The body of the answer, once its headers are here.
    pub(crate) async fn answer(self) -> (HeaderMap, RecvStream, SendStream<Bytes>) {
        let answer = tokio::time::timeout(PATIENCE, self.response).await.expect("no answer").unwrap();
        let (head, body) = answer.into_parts();
        (head.headers, body, self.send)
    }

    pub(crate) async fn ended(self) -> Ended {
        let (mut metadata, mut body, _send) = self.answer().await;
        let mut data = Vec::new();
        while let Some(chunk) = next(&mut body).await {
            data.extend_from_slice(&chunk);
        }
        // An answer that is all headers has no trailers.
        if let Ok(Some(trailers)) = body.trailers().await {
            metadata.extend(trailers);
        }
        Ended { metadata, body: data }
    }
}

/// The next bytes of an answer.
pub(crate) async fn next(body: &mut RecvStream) -> Option<Bytes> {
    let chunk = tokio::time::timeout(PATIENCE, body.data()).await.expect("no data")?;
    // A reset without an error ends an answer that was complete.
    let chunk = chunk.ok()?;
    let _ = body.flow_control().release_capacity(chunk.len());
    Some(chunk)
}

impl Ended {
    pub(crate) fn status(&self) -> &str {
        self.metadata.get("grpc-status").unwrap_or_else(|| panic!("no status: {self:?}")).to_str().unwrap()
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.metadata.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and the text of a refusal.
    pub(crate) fn refusal(&self) -> (&str, &str, &str) {
        assert!(self.body.is_empty(), "{self:?}");
        (self.status(), self.text("error-code"), self.text("grpc-message"))
    }

    pub(crate) fn message<M: Message + Default>(&self) -> M {
        assert_eq!(self.status(), "0", "{self:?}");
        M::decode(&self.body[5..]).unwrap()
    }
}

pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut framed = vec![0];
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed.into()
}

/// One row of ones for the model `y = 2x`: raw, or typed.
pub(crate) fn ones(model: &str, is_raw: bool) -> ModelInferRequest {
    let contents = InferTensorContents { fp32_contents: vec![1.0; 16], ..Default::default() };
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 16],
        parameters: BTreeMap::new(),
        contents: (!is_raw).then_some(contents),
    };
    let raw = is_raw.then(|| Bytes::from(1.0_f32.to_le_bytes().repeat(16)));
    ModelInferRequest {
        model_name: model.into(),
        id: "mine".into(),
        inputs: vec![input],
        raw_input_contents: raw.into_iter().collect(),
        ..Default::default()
    }
}
