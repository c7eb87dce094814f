//! gRPC beside binary HTTP: the same row to the same model through both, in alternation. What differs is the edge alone.
//!
//! HTTP has a connection for each request in flight, gRPC one connection with as many streams, as its clients do it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use h2::client::SendRequest;
use hyper::Request;
use prost::Message as _;
use tenantry_oip::grpc::proto::ModelInferRequest;
use tenantry_oip::grpc::proto::model_infer_request::InferInputTensor;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::Bench;
use crate::figures::{Figures, at_least, at_most, median};
use crate::load::{Repeated, Seen};
use crate::models::{Models, Subject};
use crate::null;
use crate::process::cpu_time;
use crate::raw;
use crate::server::Server;

/// Requests one after another in a round of the latency measurement.
const ONE_BY_ONE: u64 = 5_000;
/// Requests in flight at saturation.
const IN_FLIGHT: usize = 32;

pub(crate) fn measure(bench: &Bench, figures: &mut Figures) -> Result<()> {
    let subject = Models::matmul();
    let (mut raw, server, key) = raw::beside_server(bench, &subject)?;
    let (http, grpc) = both(&server, &key, &subject)?;
    let (_null, null_address) = null::start()?;
    let null_request = http.to(null_address);
    let null_call = Calls { address: null_address, ..grpc.clone() };
    let warm = Duration::from_secs(1);
    http.flood(IN_FLIGHT, warm)?;
    grpc.flood(IN_FLIGHT, warm)?;
    null_request.flood(IN_FLIGHT, warm)?;
    null_call.flood(IN_FLIGHT, warm)?;

    let requests = if bench.quick { 500 } else { ONE_BY_ONE };
    let (mut ratios, mut nulls, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        let engine = micros(raw.single(2_000)?);
        let null = micros(null_request.one_by_one(requests)?.middle());
        let null_grpc = micros(null_call.one_by_one(requests)?.middle());
        let over_http = micros(http.one_by_one(requests)?.middle());
        let over_grpc = micros(grpc.one_by_one(requests)?.middle());
        eprintln!(
            "latency round {round}: engine {engine:.1}, null {null:.1} (gRPC {null_grpc:.1}), HTTP {over_http:.1}, gRPC {over_grpc:.1} us"
        );
        ratios.push(over_grpc / over_http);
        nulls.push(null_grpc / null);
        added.push((over_grpc - engine) / null_grpc);
    }
    // What the protocol's own library costs, at both ends, before anything is served.
    eprintln!("  the null server over gRPC takes {:.2} times as long as over HTTP", median(nulls));
    figures.add("grpc_latency_vs_http", median(ratios), "ratio", at_most(1.3));
    figures.add("grpc_added_latency_vs_null", median(added), "ratio", at_most(3.0));

    let (throughput, cpu) = saturated(bench, &server, &http, &grpc)?;
    figures.add("grpc_throughput_vs_http", throughput, "ratio", at_least(0.8));
    figures.add("grpc_cpu_per_request_vs_http", cpu, "ratio", at_most(1.3));

    // Where the engine works for milliseconds, the edge should not be seen; and with a megabyte in and out, the copies are.
    for (name, subject) in [("embedding", bench.models.embedding()?), ("image", bench.models.image()?)] {
        let (http, grpc) = both(&server, &key, &subject)?;
        http.flood(IN_FLIGHT, warm)?;
        grpc.flood(IN_FLIGHT, warm)?;
        let (throughput, _) = saturated(bench, &server, &http, &grpc)?;
        figures.add(format!("grpc_throughput_{name}_vs_http"), throughput, "ratio", at_least(0.95));
    }
    Ok(())
}

/// A model of acme's and one request to it through both edges.
fn both(server: &Server, key: &str, subject: &Subject) -> Result<(Repeated, Calls)> {
    let digest = server.admin.upload("acme", &subject.model)?;
    server.admin.register("acme", subject.name, &digest)?;
    let http = Repeated::infer(server.address, subject.name, key, subject)?;
    Ok((http, Calls::infer(server.grpc_address, subject.name, key, subject)))
}

/// Medians over the rounds: requests a second through gRPC over those through HTTP, and processor time a request likewise.
fn saturated(bench: &Bench, server: &Server, http: &Repeated, grpc: &Calls) -> Result<(f64, f64)> {
    let time = Duration::from_secs(u64::from(bench.seconds));
    let (mut throughput, mut cpu) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        let before = cpu_time(server.pid());
        let over_http = http.flood(IN_FLIGHT, time)?;
        let between = cpu_time(server.pid());
        let over_grpc = grpc.flood(IN_FLIGHT, time)?;
        let after = cpu_time(server.pid());
        let each = |spent: Duration, seen: &Seen| micros(spent) / seen.answers.max(1) as f64;
        let (of_http, of_grpc) =
            (each(between.saturating_sub(before), &over_http), each(after.saturating_sub(between), &over_grpc));
        eprintln!(
            "saturation round {round}: HTTP {:.0}/s at {of_http:.1} us, gRPC {:.0}/s at {of_grpc:.1} us",
            over_http.per_second(),
            over_grpc.per_second()
        );
        throughput.push(over_grpc.per_second() / over_http.per_second());
        cpu.push(of_grpc / of_http);
    }
    Ok((median(throughput), median(cpu)))
}

/// One call, ready to be made.
#[derive(Debug, Clone)]
struct Calls {
    address: SocketAddr,
    key: String,
    message: Bytes,
}

impl Calls {
    /// One row of a model, as raw contents.
    fn infer(address: SocketAddr, model: &str, key: &str, subject: &Subject) -> Self {
        let input = |tensor: &tenantry_types::Tensor| InferInputTensor {
            name: tensor.name.clone(),
            datatype: tensor.datatype.to_string(),
            shape: tensor.shape.iter().map(|extent| *extent as i64).collect(),
            ..Default::default()
        };
        let raw = |tensor: &tenantry_types::Tensor| Bytes::copy_from_slice(&tensor.data.to_contiguous());
        let request = ModelInferRequest {
            model_name: model.to_owned(),
            inputs: subject.row.iter().map(input).collect(),
            raw_input_contents: subject.row.iter().map(raw).collect(),
            ..Default::default()
        };
        let message = request.encode_to_vec();
        // Not compressed, its length, itself (gRPC over HTTP/2, "Length-Prefixed-Message").
        let framed = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
        Self { address, key: key.to_owned(), message: framed.into() }
    }

    /// As [`Repeated::one_by_one`].
    fn one_by_one(&self, times: u64) -> Result<Seen> {
        on_this_thread(async {
            let (mut requests, connection) = self.connect().await?;
            let start = Instant::now();
            let mut seen = Seen::default();
            for _ in 0..times {
                let sent = Instant::now();
                self.call(&mut requests).await?;
                seen.round_trips.push(sent.elapsed());
                seen.answers += 1;
            }
            seen.elapsed = start.elapsed();
            connection.abort();
            Ok(seen)
        })
    }

    /// As [`Repeated::flood`], over one connection.
    fn flood(&self, in_flight: usize, time: Duration) -> Result<Seen> {
        on_this_thread(async {
            let (requests, connection) = self.connect().await?;
            let start = Instant::now();
            let mut streams = JoinSet::new();
            for _ in 0..in_flight {
                let (calls, mut requests) = (self.clone(), requests.clone());
                streams.spawn(async move {
                    let mut answers = 0;
                    while start.elapsed() < time {
                        calls.call(&mut requests).await?;
                        answers += 1;
                    }
                    anyhow::Ok(answers)
                });
            }
            let mut seen = Seen::default();
            while let Some(answers) = streams.join_next().await {
                seen.answers += answers??;
            }
            seen.elapsed = start.elapsed();
            connection.abort();
            Ok(seen)
        })
    }

    async fn connect(&self) -> Result<(SendRequest<Bytes>, JoinHandle<()>)> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        // Windows that a client of large tensors would choose.
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(8 << 20)
            .initial_connection_window_size(64 << 20)
            .handshake(stream)
            .await?;
        let connection = tokio::spawn(async move {
            // What breaks it is seen by the calls.
            let _ = connection.await;
        });
        Ok((requests, connection))
    }

    /// Makes the call and reads its answer to the end; anything but an OK is an error.
    async fn call(&self, requests: &mut SendRequest<Bytes>) -> Result<()> {
        std::future::poll_fn(|context| requests.poll_ready(context)).await?;
        let request = Request::post("http://bench/inference.GRPCInferenceService/ModelInfer")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("authorization", format!("Bearer {}", self.key))
            .body(())?;
        let (answer, mut send) = requests.send_request(request, false)?;
        // The library keeps what the window has no room for yet.
        send.send_data(self.message.clone(), true)?;
        let answer = answer.await?;
        let mut metadata = answer.headers().clone();
        let mut body = answer.into_body();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
        }
        metadata.extend(body.trailers().await?.unwrap_or_default());
        let status = metadata.get("grpc-status").context("an answer without a status")?;
        anyhow::ensure!(status == "0", "an answer was no OK: {metadata:?}");
        Ok(())
    }
}

fn on_this_thread<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(what)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
