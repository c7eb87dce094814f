//! HTTP/2 on the main listener: the same answers as over HTTP/1.1, and the limits of a connection.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tenantry_server::config::ClientAuth;
use tenantry_types::testing::onnx;
use tokio::net::TcpStream;

use super::{floats, ones};
use crate::support::http2::{Http2, PREFACE};
use crate::support::tls::{Authority, Files, connect, simple};
use crate::support::{Connection, PATIENCE, Running};

const INFER: &str = "/v2/models/double/infer";

/// A server with the model `y = 2x` of a tenant `acme`, and the key of an invoker.
async fn with_model() -> (Running, String) {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    let version = running.push("acme", "double", &admin, &onnx::matmul16()).await;
    assert_eq!(version["state"], "ready", "{version}");
    (running, invoker)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_api_answers_as_it_does_over_http_1() {
    let (running, key) = with_model().await;
    let client = running.http2().await;
    let ready = client.send("GET", "/v2/health/ready", None, &[], b"").await;
    assert_eq!((ready.status, ready.json()), (200, json!({ "ready": true })));
    assert!(ready.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{ready:?}");
    assert!(ready.header("date").is_some(), "{ready:?}");
    // A length, and no body.
    for path in ["/v2/health/ready", "/admin/v1/openapi.json"] {
        let head = client.send("HEAD", path, Some(&key), &[], b"").await;
        let get = client.send("GET", path, Some(&key), &[], b"").await;
        let length = get.body.len().to_string();
        assert_eq!((head.status, head.header("content-length")), (200, Some(length.as_str())), "{path}");
        assert!(head.body.is_empty() && get.header("content-length") == Some(length.as_str()), "{path}");
    }
    let body = ones().to_string();
    let answer = client.send("POST", INFER, Some(&key), &[], body.as_bytes()).await;
    assert_eq!(answer.json()["outputs"][0]["data"], json!(vec![2.0; 16]), "{answer:?}");
    let gzip = [("accept-encoding", "gzip")];
    let list = client.send("GET", "/v1/models/double", Some(&key), &gzip, b"").await;
    assert_eq!(list.status, 200, "{list:?}");
    let made = client.send("POST", "/admin/v1/tenants", Some(&running.admin_key), &[], br#"{"name":"globex"}"#).await;
    assert_eq!((made.status, made.json()["name"].as_str()), (201, Some("globex")), "{made:?}");
    // The address that the client has used, which HTTP/2 has no header for.
    let found = client.send("GET", "/.well-known/oauth-authorization-server", None, &[], b"").await;
    assert_eq!(found.json()["token_endpoint"], "http://test/oauth2/token", "{found:?}");

    // In pieces, with trailers that mean nothing here, and an expectation that nobody need wait for.
    let mut asking = client.begin("POST", INFER, Some(&key), &[("expect", "100-continue")], false).await;
    let (front, back) = body.as_bytes().split_at(10);
    asking.more(front.to_vec(), false);
    asking.more(back.to_vec(), false);
    asking.send.send_trailers(HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))])).unwrap();
    assert_eq!(asking.answer().await.status, 200);

    // In each of the other forms a request is refused with: no such path, no such method.
    let nothing = client.send("GET", "/nothing", Some(&key), &[], b"").await;
    assert_eq!(nothing.status, 404, "{nothing:?}");
    let wrong = client.send("DELETE", INFER, Some(&key), &[], b"").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_before_the_body_and_then_the_body_is_stopped() {
    let running = Running::start_with(|http| http.max_body_bytes = 100_000).await;
    let (_, key) = running.tenant("acme").await;
    let client = running.http2().await;
    let too_large = [("content-length", "100001")];
    for (key, headers, status) in [(None, &[][..], 401), (Some(key.as_str()), &too_large[..], 413)] {
        let mut asking = client.begin("POST", INFER, key, headers, false).await;
        // Not a byte of the body is sent, and the answer comes, to its end.
        let answer = asking.answer().await;
        assert_eq!((answer.status, answer.header("content-length")), (status, Some(&*answer.body.len().to_string())));
        answer.error();
    }
    // Whoever goes on is stopped, and not for an error of his.
    let mut asking = client.begin("POST", INFER, None, &[], false).await;
    asking.more(vec![b' '; 3 << 20], false);
    assert_eq!(asking.answer().await.status, 401);
    assert_eq!(asking.stopped().await, Reason::NO_ERROR);
    // A body of unknown length is cut at the limit.
    let answer = client.send("POST", INFER, Some(&key), &[], &vec![b' '; 120_000]).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    // All of that is nothing to the connection, however many come at once: more than the resets that it remembers.
    let large = Bytes::from(vec![b' '; 2 << 20]);
    let mut refused = Vec::new();
    for _ in 0..120 {
        let mut asking = client.begin("POST", INFER, None, &[], false).await;
        asking.more(large.clone(), true);
        refused.push(asking);
    }
    for asking in &mut refused {
        assert_eq!(asking.answer().await.status, 401);
    }
    assert_eq!(client.send("GET", "/v2/health/ready", None, &[], b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_several_mebibytes_come_and_go() {
    let (running, key) = with_model().await;
    let client = running.http2().await;
    let rows = 80_000_u32;
    let data: Vec<u8> = (0..rows * 16).flat_map(|at| ((at % 1024) as f32).to_le_bytes()).collect();
    let header = json!({
        "inputs": [{ "name": "x", "shape": [rows, 16], "datatype": "FP32", "parameters": { "binary_data_size": data.len() } }],
        "parameters": { "binary_data_output": true },
    })
    .to_string();
    let body = [header.as_bytes(), &data].concat();
    let (json_length, length) = (header.len().to_string(), body.len().to_string());
    let announced = [("inference-header-content-length", &*json_length), ("content-length", &*length)];
    for headers in [&announced[..], &announced[..1]] {
        let answer = client.send("POST", INFER, Some(&key), headers, &body).await;
        assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body[..answer.body.len().min(500)]));
        let json_length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
        let doubled: Vec<f32> = floats(&data).into_iter().map(|value| 2.0 * value).collect();
        assert!(floats(&answer.body[json_length..]) == doubled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_are_under_way_on_one_connection() {
    let (running, key) = with_model().await;
    let client = running.http2().await;
    let mut asked = Vec::new();
    for _ in 0..90 {
        asked.push(client.begin("POST", INFER, Some(&key), &[], false).await);
    }
    // The last first: none waits for another.
    for asking in asked.iter_mut().rev() {
        asking.finish(ones().to_string().as_bytes());
    }
    for asking in &mut asked {
        let answer = asking.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_large_are_refused_and_far_larger_ones_end_the_connection() {
    let running = Running::start().await;
    let client = running.http2().await;
    let large = "x".repeat(40_000);
    let answer = client.send("GET", "/v2/health/ready", None, &[("x-large", &large)], b"").await;
    assert_eq!(answer.status, 431);
    assert_eq!(client.send("GET", "/v2/health/ready", None, &[], b"").await.status, 200);
    let far_larger = "x".repeat(200_000);
    let asking = client.begin("GET", "/v2/health/ready", None, &[("x-large", &far_larger)], true).await;
    let ended = client.ended().await.expect_err("the server ends it");
    assert!(ended.is_go_away(), "{ended:?}");
    drop(asking);

    // So do headers without end, whose sum is nothing.
    let mut endless = running.connect().await;
    let headers = b"\0\0\0\x01\0\0\0\0\x01";
    let continuation = b"\0\0\0\x09\0\0\0\0\x01";
    endless.write(&[PREFACE, headers, &continuation.repeat(100)].concat()).await;
    let said = endless.closed().await;
    assert!(said.windows(22).any(|window| window == b"too_many_continuations"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_idle_connections_and_lets_running_requests_end() {
    let (mut running, key) = with_model().await;
    let (idle, busy) = (running.http2().await, running.http2().await);
    let mut asking = busy.begin("POST", INFER, Some(&key), &[], false).await;
    for client in [&idle, &busy] {
        // Requests come in their order: by this answer the other one is there, too.
        assert_eq!(client.send("GET", "/v2/health/live", None, &[], b"").await.status, 200);
    }
    running.begin_drain();
    // The server's goodbye is no error.
    idle.ended().await.unwrap();
    asking.finish(ones().to_string().as_bytes());
    let answer = asking.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    busy.ended().await.unwrap();
    running.drained().await;
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_reset_is_cancelled() {
    let running = Running::start().await;
    let (admin, key) = running.tenant("acme").await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    let body = |count: u64| {
        json!({ "inputs": [{ "name": "count", "shape": [], "datatype": "INT64", "data": [count] }] }).to_string()
    };
    let client = running.http2().await;
    let mut leaving = client.begin("POST", "/v2/models/count/infer", Some(&key), &[], false).await;
    leaving.finish(body(2_000_000).as_bytes());
    // It must have begun: one that is reset earlier never was a request to the service.
    while running.get("/admin/v1/status", &running.admin_key).await.json()["running_batches"] != 1 {}
    leaving.send.send_reset(Reason::CANCEL);
    // The next request waits behind it for the only slot; by its answer the first one's end is known.
    let answer = client.send("POST", "/v2/models/count/infer", Some(&key), &[], body(1).as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = running.server.metrics_text();
    let cancelled = |line: &str| line.starts_with("tenantry_requests_total") && line.contains("code=\"cancelled\"");
    assert!(text.lines().any(cancelled), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_certificate_is_seen_and_holds_a_key() {
    let (authority, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let tls = files.put_mutual(&authority.sign("127.0.0.1"), &clients, ClientAuth::Optional);
    let running = Running::start_with(|settings| settings.tls = Some(tls)).await;
    let batch = clients.sign("batch.acme.example");
    let over = async |shown| {
        let stream = connect(&simple(&authority, shown, "h2"), running.address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Http2::over(stream).await
    };
    let (without, with) = (over(None).await, over(Some(&batch)).await);
    let post = async |path: &str, body: Value| {
        let key = Some(running.admin_key.as_str());
        let made = without.send("POST", path, key, &[], body.to_string().as_bytes()).await;
        assert_eq!(made.status, 201, "{made:?}");
    };
    post("/admin/v1/tenants", json!({ "name": "acme" })).await;
    let models = async |client: &Http2| client.send("GET", "/v2/models", None, &[], b"").await.status;
    assert_eq!((models(&without).await, models(&with).await), (401, 401));
    let bound = json!({ "role": "invoker", "certificate": "DNS:batch.acme.example" });
    post("/admin/v1/tenants/acme/keys", bound).await;
    assert_eq!((models(&without).await, models(&with).await), (401, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_text_http_2_is_known_by_a_connections_first_bytes_on_the_main_listener() {
    let running = Running::start().await;
    // Behind a proxy, what follows a request may be somebody else's.
    let mut used = running.connect().await;
    used.send("GET", "/v2/health/live", None, &[], b"").await;
    assert_eq!(used.answer().await.status, 200);
    let mut metrics = Connection::over(TcpStream::connect(running.metrics_address).await.unwrap());
    for connection in [&mut used, &mut metrics] {
        connection.write(PREFACE).await;
        assert_eq!(connection.closed().await, b"");
    }
    // Whoever asks for it by an upgrade goes on with what he has.
    let headers = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "")];
    let answer = running.send("GET", "/v2/health/live", None, &headers, b"").await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_request_is_closed() {
    let running = Running::start_with(|http| http.header_timeout = Duration::from_millis(50)).await;
    let mut silent = running.connect().await;
    silent.write(PREFACE).await;
    silent.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_resets_ends_its_own_connection_and_nobody_elses() {
    let (running, key) = with_model().await;
    let other = running.http2().await;
    let Http2 { requests, connection } = running.http2().await;
    for _ in 0..5_000 {
        // Until the server has had enough.
        let Ok(mut requests) = requests.clone().ready().await else { break };
        let request = http::Request::post("http://test/v2/models/double/infer").body(()).unwrap();
        let Ok((_, mut send)) = requests.send_request(request, false) else { break };
        send.send_reset(Reason::CANCEL);
    }
    drop(requests);
    let ended = tokio::time::timeout(PATIENCE, connection).await.expect("the end").unwrap();
    let ended = ended.expect_err("the server ends it");
    assert_eq!(ended.reason(), Some(Reason::ENHANCE_YOUR_CALM), "{ended:?}");
    let answer = other.send("POST", INFER, Some(&key), &[], ones().to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
