//! Closed loops for the paired measurements: the same request again and again, on the load's processor.
//!
//! What is measured with it is throughput and processor time at saturation, and the latency of one connection; no
//! latency under an open load is claimed from here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tenantry_load::{Arrivals, Connection, Plan, Progress, Request, Stream, StreamReport};

use crate::models::Subject;

/// Connections of an open stream: more than ever wait at the same time while the server keeps up.
const OPEN_CONNECTIONS: usize = 128;

/// One request, ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Repeated {
    address: SocketAddr,
    request: Request,
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

    /// The middle round trip of those that were kept.
    pub(crate) fn middle(mut self) -> Duration {
        self.round_trips.sort_unstable();
        self.round_trips.get(self.round_trips.len() / 2).copied().unwrap_or_default()
    }
}

impl Repeated {
    /// One row of a model, binary both ways.
    pub(crate) fn infer(address: SocketAddr, model: &str, key: &str, subject: &Subject) -> Result<Self> {
        Ok(Self { address, request: Request::infer(address, &model.parse()?, key, &subject.row, None)? })
    }

    /// What is sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.request.bytes()
    }

    /// The same bytes, sent to another address: how the null server is asked.
    pub(crate) fn to(&self, address: SocketAddr) -> Self {
        Self { address, request: self.request.clone() }
    }

    /// Sends the request over `connections` connections until the time is over; anything but an answer is an error.
    pub(crate) fn flood(&self, connections: usize, time: Duration) -> Result<Seen> {
        let seen = send(vec![self.closed("flood", connections)], Duration::ZERO, time)?.pop();
        let seen = seen.context("a run without a report")?;
        ensure_answered(&seen)?;
        Ok(Seen { answers: seen.answered, elapsed: seen.measured, round_trips: Vec::new() })
    }

    /// A closed loop of this request.
    pub(crate) fn closed(&self, name: &str, connections: usize) -> Stream {
        Stream {
            name: name.to_owned(),
            address: self.address,
            requests: vec![self.request.clone()],
            arrivals: Arrivals::Closed,
            connections,
            late_after: None,
        }
    }

    /// This request at independent times, whatever the server does; answers after `late_after` are counted as late.
    pub(crate) fn open(&self, name: &str, per_second: f64, seed: u64, late_after: Duration) -> Stream {
        Stream {
            arrivals: Arrivals::Poisson { per_second, seed },
            late_after: Some(late_after),
            ..self.closed(name, OPEN_CONNECTIONS)
        }
    }

    /// Sends this request and another one in turn over one connection, `times` each, where neither is answered with a 200; the
    /// middle round trip of each.
    pub(crate) fn refused_beside(&self, other: &Self, times: u64) -> Result<[Duration; 2]> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut connection = Connection::new(self.address);
            connection.open().await?;
            let (mut own, mut others) = (Seen::default(), Seen::default());
            for turn in 0..2 * times {
                // Which one is first changes, too.
                let is_own = (turn % 2 == 1) == ((turn / 2) % 2 == 1);
                let (request, seen) = if is_own { (&self.request, &mut own) } else { (&other.request, &mut others) };
                let sent = Instant::now();
                let answer = connection.call(request).await?;
                anyhow::ensure!(answer.refusal.is_some(), "a request that should be refused was answered");
                seen.round_trips.push(sent.elapsed());
            }
            Ok([own.middle(), others.middle()])
        })
    }

    /// Sends the request `times` times over one connection and keeps the round trips.
    pub(crate) fn one_by_one(&self, times: u64) -> Result<Seen> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut connection = Connection::new(self.address);
            connection.open().await?;
            let start = Instant::now();
            let mut seen = Seen::default();
            for _ in 0..times {
                let sent = Instant::now();
                let answer = connection.call(&self.request).await?;
                anyhow::ensure!(answer.refusal.is_none(), "an answer was no 200: {answer:?}");
                seen.round_trips.push(sent.elapsed());
                seen.answers += 1;
            }
            seen.elapsed = start.elapsed();
            Ok(seen)
        })
    }
}

/// Sends the load of several streams at once; the reports come in the streams' order.
pub(crate) fn send(streams: Vec<Stream>, warmup: Duration, duration: Duration) -> Result<Vec<StreamReport>> {
    Ok(tenantry_load::run(&Plan { streams, warmup, duration }, &Arc::new(Progress::default()))?.tenants)
}

/// Where every request should have been answered.
pub(crate) fn ensure_answered(seen: &StreamReport) -> Result<()> {
    anyhow::ensure!(
        seen.refusals() + seen.failures() == 0,
        "not every request of `{}` was answered: refused {:?}, failed {:?}, lost {}",
        seen.name,
        seen.refused,
        seen.failed,
        seen.lost + seen.unsent
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let request = Request::post(address, "/", "key", 0, b"x", None);
        let seen = Repeated { address, request }.one_by_one(5).unwrap();
        assert_eq!((seen.answers, seen.round_trips.len()), (5, 5));
        assert!(seen.elapsed > Duration::ZERO);
        assert_eq!(server.join().unwrap(), 5);
    }
}
