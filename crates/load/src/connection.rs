//! One keep-alive HTTP/1.1 connection, written by hand: at thousands of requests a second on one processor, what the
//! generator costs is part of what it measures.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Request;

/// The largest answer that is read.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// The buffer of a connection: heads and refusals must fit, the rest of an answer passes through.
const BUFFER_BYTES: usize = 64 << 10;
/// How much of a refusal's own words is kept.
const MAX_MESSAGE_BYTES: usize = 500;

/// What came back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Why not, where the status is no success.
    pub refusal: Option<Refusal>,
}

/// A refusal in the server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The machine-readable reason; `http_` and the status where there is none.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// No answer came.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody accepts connections there.
    #[error("no server accepts connections at {0}; start it, or name another one")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The connection broke.
    #[error("the connection broke before the answer was read")]
    Broken(#[from] std::io::Error),
    /// The server closed the connection without an answer.
    #[error("the server closed the connection before it answered")]
    Closed,
    /// What came is not an answer this client reads.
    #[error("the server's answer is none this client understands: {0}")]
    Unreadable(&'static str),
}

/// A connection that is opened when it is needed, and again after it broke.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head, the empty line included.
    bytes: usize,
    body_bytes: usize,
    closes: bool,
}

impl Connection {
    /// A connection to be, to this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Connects now, so that the first request does not pay for it.
    ///
    /// # Errors
    /// [`CallError::Connect`].
    pub async fn open(&mut self) -> Result<(), CallError> {
        if self.stream.is_none() {
            let refused = |error| CallError::Connect(self.address, error);
            let stream = TcpStream::connect(self.address).await.map_err(refused)?;
            stream.set_nodelay(true).map_err(refused)?;
            self.stream = Some(stream);
        }
        Ok(())
    }

    /// Sends a request and reads its answer to the end. After an error the next call connects anew.
    ///
    /// If this is not driven to its end, the connection is closed: an answer must not be taken for another one's.
    ///
    /// # Errors
    /// Where no answer came.
    pub async fn call(&mut self, request: &Request) -> Result<Answer, CallError> {
        // A server closes what idles for long; that is no failure of this request.
        let is_stale = |stream: &TcpStream| !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        if self.stream.as_ref().is_some_and(is_stale) {
            self.stream = None;
        }
        self.open().await?;
        // Out of its place while the call runs: whoever gives up half-way leaves no half-read connection behind.
        let Some(mut stream) = self.stream.take() else { return Err(CallError::Closed) };
        let written = stream.write_all(request.bytes()).await;
        // A refusal may come, and the connection be closed, before the whole body is written.
        let (answer, closes) = match (read_answer(&mut stream, &mut self.buffer).await, written) {
            (Ok((answer, closes)), written) => (answer, closes || written.is_err()),
            (Err(_), Err(error)) => return Err(error.into()),
            (Err(error), Ok(())) => return Err(error),
        };
        self.stream = (!closes).then_some(stream);
        Ok(answer)
    }
}

/// Sends one request over a connection of its own and waits for the answer: to see that a load makes sense before it
/// is sent.
///
/// # Errors
/// Where no answer came within `patience`.
pub fn call_once(address: SocketAddr, request: &Request, patience: Duration) -> Result<Answer, CallError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = Connection::new(address);
        let answer = tokio::time::timeout(patience, connection.call(request)).await;
        answer.unwrap_or_else(|_| Err(std::io::Error::from(ErrorKind::TimedOut).into()))
    })
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<(Answer, bool), CallError> {
    let mut filled = 0;
    loop {
        let room = buffer.get_mut(filled..).unwrap_or_default();
        if room.is_empty() {
            return Err(CallError::Unreadable("its head is too long"));
        }
        let read = stream.read(room).await?;
        if read == 0 {
            return Err(CallError::Closed);
        }
        // The end of the head may straddle two reads.
        let searched = filled.saturating_sub(3);
        filled += read;
        let so_far = buffer.get(..filled).unwrap_or_default();
        let Some(head) = head_of(so_far, searched)? else { continue };
        if head.status == 100 {
            buffer.copy_within(head.bytes..filled, 0);
            filled -= head.bytes;
            continue;
        }
        let succeeded = (200..300).contains(&head.status);
        let whole = head.bytes + head.body_bytes;
        let mut missing = whole.saturating_sub(filled);
        while missing > 0 {
            // A refusal's words are kept; the tensors of an answer are not looked at.
            let from = if succeeded || whole > buffer.len() { 0 } else { filled };
            let room = buffer.get_mut(from..).unwrap_or_default();
            let wanted = missing.min(room.len());
            let read = stream.read(room.get_mut(..wanted).unwrap_or_default()).await?;
            if read == 0 {
                return Err(CallError::Closed);
            }
            filled += read;
            missing -= read;
        }
        let body = if whole > buffer.len() { &[] } else { buffer.get(head.bytes..whole).unwrap_or_default() };
        let refusal = (!succeeded).then(|| refusal_of(head.status, body));
        return Ok((Answer { status: head.status, refusal }, head.closes));
    }
}

/// The head, once it is whole; `searched` bytes are known not to begin its end.
fn head_of(bytes: &[u8], searched: usize) -> Result<Option<Head>, CallError> {
    let unsearched = bytes.get(searched..).unwrap_or_default();
    let Some(end) = unsearched.windows(4).position(|window| window == b"\r\n\r\n").map(|at| searched + at) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default())
        .map_err(|_| CallError::Unreadable("its head is not text"))?;
    let mut lines = text.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok())
        .ok_or(CallError::Unreadable("it is not HTTP/1.1"))?;
    let mut head = Head { status, bytes: end + 4, body_bytes: 0, closes: false };
    let mut has_length = matches!(status, 100..200 | 204 | 304);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.body_bytes = value.parse().map_err(|_| CallError::Unreadable("its length is no number"))?;
            has_length = true;
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    if !has_length {
        return Err(CallError::Unreadable("it has no content-length"));
    }
    if head.body_bytes > MAX_ANSWER_BYTES {
        return Err(CallError::Unreadable("it is too large"));
    }
    Ok(Some(head))
}

fn refusal_of(status: u16, body: &[u8]) -> Refusal {
    #[derive(Deserialize)]
    struct Said {
        error: Option<String>,
        reason: Option<String>,
    }
    let said = serde_json::from_slice(body).unwrap_or(Said { error: None, reason: None });
    let mut message = said.error.unwrap_or_default();
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    Refusal { reason: said.reason.unwrap_or_else(|| format!("http_{status}")), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<Head>, CallError> {
        head_of(text.as_bytes(), 0)
    }

    #[test]
    fn heads_are_read_whatever_their_case() {
        let read = head("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nx: y\r\n\r\nbody").unwrap().unwrap();
        assert_eq!(read, Head { status: 200, bytes: 45, body_bytes: 12, closes: false });
        let read = head("HTTP/1.1 429 Too Many\r\ncontent-length:7\r\nConnection: Close\r\n\r\n").unwrap().unwrap();
        assert!(read.status == 429 && read.body_bytes == 7 && read.closes);
        assert_eq!(head("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n").unwrap(), None);
        assert!(head("HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(head("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").is_err());
        assert!(head("SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn a_refusal_has_a_reason_whatever_the_server_says() {
        let refusal = refusal_of(429, br#"{"error": "slow down", "reason": "request_rate"}"#);
        assert_eq!((refusal.reason.as_str(), refusal.message.as_str()), ("request_rate", "slow down"));
        assert_eq!(refusal_of(503, b"<html>").reason, "http_503");
        assert_eq!(refusal_of(400, br#"{"error": "no"}"#).reason, "http_400");
    }
}
