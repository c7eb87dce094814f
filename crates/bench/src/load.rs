//! The load: keep-alive HTTP/1.1 connections that send the same request again and again, on the load's processor.
//!
//! Closed loop: what is measured is throughput and processor time at saturation, and the latency of one connection; no
//! latency under an open load is claimed from here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use tenantry_oip::{Form, ReplyFormat, encode_request};
use tenantry_types::{InferRequest, Inputs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::models::Subject;

/// The largest answer the load reads.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// One request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    address: SocketAddr,
    bytes: Bytes,
}

/// What a burst of load saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) answers: u64,
    pub(crate) elapsed: Duration,
    /// One connection's round trips, unsorted; kept only when asked for.
    pub(crate) round_trips: Vec<Duration>,
}

impl Seen {
    pub(crate) fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }
}

impl Request {
    /// One row of a model, binary both ways.
    pub(crate) fn infer(address: SocketAddr, model: &str, key: &str, subject: &Subject) -> Result<Self> {
        let request = InferRequest {
            model: model.parse()?,
            version: None,
            id: None,
            parameters: Vec::new(),
            inputs: Inputs::Named(subject.row.clone()),
            outputs: Vec::new(),
            timeout: None,
        };
        let reply = ReplyFormat { default: Form::Binary, ..ReplyFormat::default() };
        let body = encode_request(&request, Form::Binary, &reply)?;
        let json_length = body.json_length.context("a binary request has a JSON part")?;
        Ok(Self::post(address, &format!("/v2/models/{model}/infer"), key, json_length, &body.body.to_contiguous()))
    }

    /// The same bytes to another path: how the null server is asked.
    pub(crate) fn post(address: SocketAddr, path: &str, key: &str, json_length: usize, body: &[u8]) -> Self {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/octet-stream\r\nInference-Header-Content-Length: {json_length}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut bytes = BytesMut::from(head.as_bytes());
        bytes.extend_from_slice(body);
        Self { address, bytes: bytes.freeze() }
    }

    /// This request, sent to another address.
    pub(crate) fn to(&self, address: SocketAddr) -> Self {
        Self { address, bytes: self.bytes.clone() }
    }

    /// Sends the request over `connections` connections until the time is over.
    pub(crate) fn flood(&self, connections: usize, time: Duration) -> Result<Seen> {
        self.run(connections, Limit::Time(time))
    }

    /// Sends the request `times` times over one connection and keeps the round trips.
    pub(crate) fn one_by_one(&self, times: u64) -> Result<Seen> {
        self.run(1, Limit::Answers(times))
    }

    fn run(&self, connections: usize, limit: Limit) -> Result<Seen> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let request = Arc::new(self.clone());
            let mut opened = Vec::with_capacity(connections);
            for _ in 0..connections {
                opened.push(Connection::open(self.address).await?);
            }
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for connection in opened {
                tasks.spawn(connection.drive(Arc::clone(&request), limit, start));
            }
            let mut seen = Seen::default();
            while let Some(one) = tasks.join_next().await {
                let one = one??;
                seen.answers += one.answers;
                seen.round_trips.extend(one.round_trips);
            }
            seen.elapsed = start.elapsed();
            Ok(seen)
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum Limit {
    Time(Duration),
    Answers(u64),
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("the server does not accept connections")?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 256 << 10] })
    }

    async fn drive(mut self, request: Arc<Request>, limit: Limit, start: Instant) -> Result<Seen> {
        let mut seen = Seen::default();
        loop {
            let sent = Instant::now();
            match limit {
                Limit::Time(time) if sent.duration_since(start) >= time => return Ok(seen),
                Limit::Answers(answers) if seen.answers >= answers => return Ok(seen),
                _ => {}
            }
            self.stream.write_all(&request.bytes).await?;
            self.read_answer().await?;
            seen.answers += 1;
            if matches!(limit, Limit::Answers(_)) {
                seen.round_trips.push(sent.elapsed());
            }
        }
    }

    /// Reads one answer to its end; anything but a 200 is an error.
    async fn read_answer(&mut self) -> Result<()> {
        let mut filled = 0;
        loop {
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = self.stream.read(room).await?;
            anyhow::ensure!(read > 0, "the server closed the connection");
            filled += read;
            let so_far = self.buffer.get(..filled).unwrap_or_default();
            let Some(head_end) = so_far.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(so_far.get(..head_end).unwrap_or_default())?;
            anyhow::ensure!(
                head.starts_with("HTTP/1.1 200"),
                "an answer was no 200:\n{}",
                String::from_utf8_lossy(so_far)
            );
            let length = content_length(head).context("an answer has no content-length")?;
            anyhow::ensure!(length <= MAX_ANSWER_BYTES, "an answer has {length} bytes");
            let mut missing = (head_end + 4 + length).saturating_sub(filled);
            while missing > 0 {
                let wanted = missing.min(self.buffer.len());
                let read = self.stream.read(self.buffer.get_mut(..wanted).unwrap_or_default()).await?;
                anyhow::ensure!(read > 0, "the server closed the connection inside an answer");
                missing -= read;
            }
            return Ok(());
        }
    }
}

fn content_length(head: &str) -> Option<usize> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lengths_are_found_whatever_their_case() {
        assert_eq!(content_length("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nx: y"), Some(12));
        assert_eq!(content_length("HTTP/1.1 200 OK\r\ncontent-length:7"), Some(7));
        assert_eq!(content_length("HTTP/1.1 200 OK"), None);
    }

    #[test]
    fn the_load_counts_what_a_server_answers() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            let mut answered = 0;
            while stream.read(&mut buffer).unwrap() > 0 {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
                answered += 1;
            }
            answered
        });
        let seen = Request::post(address, "/", "key", 0, b"x").one_by_one(5).unwrap();
        assert_eq!((seen.answers, seen.round_trips.len()), (5, 5));
        assert!(seen.elapsed > Duration::ZERO);
        assert_eq!(server.join().unwrap(), 5);
    }
}
