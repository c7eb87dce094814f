//! An HTTP/2 client whose every frame is the test's own.

use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::grpc::{Client, next};
use super::{Answer, PATIENCE, Running};

/// What a connection begins with: the preface and settings that change nothing.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A connection.
pub(crate) struct Http2 {
    pub(crate) requests: SendRequest<Bytes>,
    /// Ends when the connection does, with what ended it.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// A request under way.
pub(crate) struct Asking {
    pub(crate) send: SendStream<Bytes>,
    response: ResponseFuture,
}

impl Running {
    /// A connection in plain text, as a client makes one that knows what is spoken.
    pub(crate) async fn http2(&self) -> Http2 {
        Http2::over(TcpStream::connect(self.address).await.unwrap()).await
    }
}

impl Http2 {
    pub(crate) async fn over(stream: impl super::Bytes + 'static) -> Self {
        let Client { requests, connection } = Client::over(stream).await;
        Self { requests, connection }
    }

    /// Begins a request. Its length is announced only if `headers` do so.
    pub(crate) async fn begin(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        is_whole: bool,
    ) -> Asking {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let mut request = Request::builder().method(method).uri(format!("http://test{path}"));
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (response, send) = requests.send_request(request.body(()).unwrap(), is_whole).unwrap();
        Asking { send, response }
    }

    /// One request whose body is sent whole.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut asking = self.begin(method, path, key, headers, body.is_empty()).await;
        if !body.is_empty() {
            asking.finish(body);
        }
        asking.answer().await
    }

    /// What ended the connection.
    pub(crate) async fn ended(self) -> Result<(), h2::Error> {
        drop(self.requests);
        tokio::time::timeout(PATIENCE, self.connection).await.expect("the end").unwrap()
    }
}

impl Asking {
    /// Sends some of the body. A server that has refused the request already may have stopped it; the answer tells.
    pub(crate) fn more(&mut self, body: impl Into<Bytes>, is_last: bool) {
        let _ = self.send.send_data(body.into(), is_last);
    }

    /// Sends the rest of the body.
    pub(crate) fn finish(&mut self, body: &[u8]) {
        self.more(body.to_vec(), true);
    }

    /// The answer, to its end.
    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = tokio::time::timeout(PATIENCE, &mut self.response).await.expect("no answer").unwrap();
        let (head, mut stream) = answer.into_parts();
        let mut body = Vec::new();
        while let Some(chunk) = next(&mut stream).await {
            body.extend_from_slice(&chunk);
        }
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Answer { status: head.status.as_u16(), headers, body }
    }

    /// Waits until the server stops the request.
    pub(crate) async fn stopped(&mut self) -> Reason {
        let stopped = poll_fn(|context| self.send.poll_reset(context));
        tokio::time::timeout(PATIENCE, stopped).await.expect("a reset").unwrap()
    }
}
