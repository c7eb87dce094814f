//! The edges over the real service: who may come in, what is refused and how, and that answers are right.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise as such"
)]

#[path = "http/grpc.rs"]
mod grpc;
#[path = "http/http2.rs"]
mod http2;
#[path = "http/openai.rs"]
mod openai;
mod support;
#[path = "http/tls.rs"]
mod tls;
#[path = "http/triton.rs"]
mod triton;
#[path = "http/v1.rs"]
mod v1;

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use support::Running;
use tenantry_types::testing::onnx;
use tenantry_types::{DataType, Dim};

/// A JSON request for the model `y = 2x` with one row of ones.
fn ones() -> Value {
    json!({ "inputs": [{ "name": "x", "shape": [1, 16], "datatype": "FP32", "data": vec![1; 16] }] })
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_health_and_the_metrics_listener_answers_without_a_key() {
    let running = Running::start().await;
    let live = running.send("GET", "/v2/health/live", None, &[], b"").await;
    assert_eq!((live.status, live.json()), (200, json!({ "live": true })));
    let ready = running.send("GET", "/v2/health/ready", None, &[], b"").await;
    assert_eq!((ready.status, ready.json()), (200, json!({ "ready": true })));

    let document: Value = serde_json::from_str(&tenantry_api::admin::openapi()).unwrap();
    let mut routes: Vec<(String, String)> = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{number}", "1").replace("{key}", &format!("key_{}", "0".repeat(32)));
        let path = path.replace(['{', '}'], "");
        routes.extend(operations.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
    }
    for path in [
        "/v2",
        "/v2/models",
        "/v2/models/m",
        "/v2/models/m/ready",
        "/v2/models/m/config",
        "/v2/models/stats",
        "/v2/openapi.json",
        "/v1/models",
        "/v1/models/m",
        "/v1/models/m/metadata",
    ] {
        routes.push(("GET".to_owned(), path.to_owned()));
    }
    for path in [
        "/v2/models/m/infer",
        "/v2/repository/index",
        "/v2/repository/models/m/load",
        "/v2/repository/models/m/unload",
        "/v1/models/m:predict",
        "/v1/models/m:explain",
        "/predictions/m",
    ] {
        routes.push(("POST".to_owned(), path.to_owned()));
    }
    let mut texts = Vec::new();
    for (method, path) in &routes {
        for key in [None, Some("tnty_nonsense"), Some("ü")] {
            let answer = running.send(method, path, key, &[], b"{}").await;
            assert_eq!(answer.status, 401, "{method} {path} {answer:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{method} {path}");
            // OpenAI's clients read another form.
            if !path.starts_with("/v1/models") || path.ends_with("metadata") || path.contains(':') {
                texts.push(answer.error());
            }
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "one text for all: {texts:?}");

    let mut scraper = tokio::net::TcpStream::connect(running.metrics_address).await.unwrap();
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    scraper.write_all(b"GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    scraper.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("application/openmetrics-text"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_wrong_methods_say_so() {
    let running = Running::start().await;
    let key = running.admin_key.clone();
    for path in [
        "/v1",
        "/v1/nothing",
        "/predictions",
        "/v2/nothing",
        "/v2/models/a/b/c",
        "/v22",
        "/admin",
        "/admin/v1/nothing",
        "/metrics",
    ] {
        let answer = running.get(path, &key).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["code"], "not_found");
        answer.error();
    }
    for (method, path, allow) in [
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/v2", "GET, HEAD"),
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("GET", "/v2/models/m/infer", "POST"),
        ("PUT", "/v2/models/m", "GET, HEAD"),
        ("PUT", "/admin/v1/tenants", "GET,HEAD,POST"),
        ("POST", "/admin/v1/status", "GET,HEAD"),
    ] {
        let answer = running.send(method, path, Some(&key), &[], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        answer.error();
    }
    let answer = running.get("/v2/models/m/trace/setting", &key).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (501, Some("unimplemented")));
    let mut head = running.connect().await;
    head.send("HEAD", "/v2/health/live", None, &[("connection", "close")], b"").await;
    let text = String::from_utf8(head.closed().await).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_answers_in_every_form_of_the_protocol() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    let version = running.push("acme", "double", &admin, &onnx::matmul16()).await;
    assert_eq!(version["state"], "ready", "{version}");
    assert_eq!(version["signature"]["inputs"][0]["shape"], json!([-1, 16]));

    let metadata = running.get("/v2/models/double", &invoker).await.json();
    assert_eq!((&metadata["name"], &metadata["versions"]), (&json!("double"), &json!(["1"])));
    assert_eq!(metadata["inputs"], json!([{ "name": "x", "datatype": "FP32", "shape": [-1, 16] }]));
    assert_eq!(
        running.get("/v2/models/double/ready", &invoker).await.json(),
        json!({ "name": "double", "ready": true })
    );
    assert_eq!(running.get("/v2/models", &invoker).await.json(), json!({ "models": ["double"] }));

    // JSON, by every name the model has.
    let mut request = ones();
    request["id"] = json!("my own");
    for path in ["double", "acme/double", "acme%2Fdouble", "double/versions/1"] {
        let answer = running.post(&format!("/v2/models/{path}/infer"), &invoker, &request).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let body = answer.json();
        assert_eq!((&body["id"], &body["model_version"]), (&json!("my own"), &json!("1")));
        assert_eq!(body["outputs"][0]["data"], json!(vec![2.0; 16]));
        assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    }

    // Binary in, binary out.
    let data: Vec<u8> = (0..32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let header = json!({
        "inputs": [{ "name": "x", "shape": [2, 16], "datatype": "FP32", "parameters": { "binary_data_size": 128 } }],
        "outputs": [{ "name": "y", "parameters": { "binary_data": true } }],
    })
    .to_string();
    let body = [header.as_bytes(), &data].concat();
    let length = header.len().to_string();
    let headers = [("inference-header-content-length", length.as_str())];
    let answer = running.send("POST", "/v2/models/double/infer", Some(&invoker), &headers, &body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")), "{answer:?}");
    let json_length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let expected: Vec<f32> = (0..32).map(|i| 2.0 * i as f32).collect();
    assert_eq!(floats(&answer.body[json_length..]), expected);

    // A raw request: the bytes of the only input.
    let headers = [("inference-header-content-length", "0")];
    let answer = running.send("POST", "/v2/models/double/infer", Some(&invoker), &headers, &data[..64]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json_length: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(floats(&answer.body[json_length..]), expected[..16]);

    // Compressed both ways; and a chunked body.
    let rows = 100;
    let many =
        json!({ "inputs": [{ "name": "x", "shape": [rows, 16], "datatype": "FP32", "data": vec![1; rows * 16] }] });
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(many.to_string().as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let headers =
        [("content-encoding", "gzip"), ("accept-encoding", "gzip, deflate"), ("transfer-encoding", "chunked")];
    let mut chunks = Vec::new();
    for chunk in packed.chunks(10) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let answer = running.send("POST", "/v2/models/double/infer", Some(&invoker), &headers, &chunks).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")), "{answer:?}");
    let body: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&answer.body[..])).unwrap();
    assert_eq!(body["outputs"][0]["data"], json!(vec![2.0; rows * 16]));

    // Several requests on one connection.
    let mut connection = running.connect().await;
    for _ in 0..3 {
        let body = ones().to_string();
        connection.send("POST", "/v2/models/double/infer", Some(&invoker), &[], body.as_bytes()).await;
        assert_eq!(connection.answer().await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_may_not_see_is_not_there() {
    let running = Running::start().await;
    let (acme, _) = running.tenant("acme").await;
    let (_, globex) = running.tenant("globex").await;
    running.push("acme", "secret", &acme, &onnx::matmul16()).await;
    let mut texts = Vec::new();
    for name in ["acme/secret", "acme/nothing", "nobody/secret", "secret", "UPPER", "a%20b"] {
        for (method, action) in [("POST", "/infer"), ("GET", "/ready"), ("GET", ""), ("GET", "/versions/1")] {
            let path = format!("/v2/models/{name}{action}");
            let answer = running.send(method, &path, Some(&globex), &[], ones().to_string().as_bytes()).await;
            assert_eq!(answer.status, 404, "{path} {answer:?}");
            texts.push(answer.error().replace(&name.replace("%20", " "), "NAME"));
        }
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(running.get("/v2/models", &globex).await.json(), json!({ "models": [] }));

    // Shared, it is.
    let path = "/admin/v1/tenants/acme/models/secret";
    let shared = running.send("PATCH", path, Some(&acme), &[], br#"{"shared":"everyone"}"#).await;
    assert_eq!(shared.status, 200, "{shared:?}");
    let answer = running.post("/v2/models/acme/secret/infer", &globex, &ones()).await;
    assert_eq!((answer.status, answer.json()["model_name"].as_str()), (200, Some("acme/secret")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_what_was_expected() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    running.push("acme", "half", &admin, &onnx::identity(DataType::Fp16, &[Dim::Fixed(1)])).await;
    let infer = async |model: &str, body: &str, headers: &[(&str, &str)]| {
        let path = format!("/v2/models/{model}/infer");
        let answer = running.send("POST", &path, Some(&invoker), headers, body.as_bytes()).await;
        assert_eq!(answer.status, 400, "{body} {answer:?}");
        answer.error()
    };
    let input = |name: &str, shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let cases = [
        ("double", input("z", "[1,16]", "FP32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), "unknown input `z`"),
        ("double", input("x", "[1,15]", "FP32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]"), "expected [batch,16]"),
        ("double", input("x", "[1]", "INT32", "[1]"), "expected FP32"),
        ("double", input("x", "[1,16]", "FP32", "[1]"), "has 1 elements in `data`; shape [1, 16] needs 16"),
        ("double", input("x", "[1]", "INT32", "[NaN]"), "NaN and infinities have no JSON form"),
        ("double", input("x", "[1]", "FP32", &deep), "nested deeper than its 1 dimensions"),
        ("half", input("x", "[1]", "FP16", "[1]"), "FP16, which has no JSON form"),
        ("double", r#"{"inputs":[]}"#.to_owned(), "input `x` is missing"),
        ("double", "{".to_owned(), "the JSON of the body is not valid"),
    ];
    for (model, body, expected) in &cases {
        let text = infer(model, body, &[]).await;
        assert!(text.contains(expected), "{text}");
    }
    let text = infer("double", "{}", &[("inference-header-content-length", "77")]).await;
    assert!(text.contains("Inference-Header-Content-Length is `77`"), "{text}");
    let text = infer("double", "{}", &[("content-encoding", "br")]).await;
    assert!(text.contains("identity, gzip, deflate"), "{text}");
    let text = infer("double", "{}", &[("content-encoding", "gzip")]).await;
    assert!(text.contains("not valid gzip"), "{text}");
    let text = infer("double", &ones().to_string(), &[("x-request-timeout-ms", "soon")]).await;
    assert!(text.contains("x-request-timeout-ms"), "{text}");
    // The output has no JSON form, and the error says what to ask for instead.
    let header = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}}]}"#;
    let length = header.len().to_string();
    let text = infer("half", &format!("{header}\0\0"), &[("inference-header-content-length", &length)]).await;
    assert!(text.contains("ask for it as binary data"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let limit = 100_000;
    let running = Running::start_with(|http| http.max_body_bytes = limit).await;
    let (_, invoker) = running.tenant("acme").await;
    let path = "/v2/models/m/infer";

    // Not a byte of the body is sent, and the answer comes.
    let mut connection = running.connect().await;
    connection.send("POST", path, Some(&invoker), &[("content-length", "100001")], b"").await;
    let answer = connection.answer().await;
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("100000 bytes"), "{answer:?}");

    // A client that sends everything before it listens gets the answer too.
    let body = vec![b' '; 20_000_000];
    let answer = running.send("POST", path, Some(&invoker), &[], &body).await;
    assert_eq!(answer.status, 413);

    // A body of unknown length is cut at the limit.
    let mut connection = running.connect().await;
    connection.send("POST", path, Some(&invoker), &[("transfer-encoding", "chunked")], b"").await;
    let chunk = [b"4e20\r\n".as_slice(), &[b' '; 20_000], b"\r\n"].concat();
    for _ in 0..6 {
        connection.write(&chunk).await;
    }
    assert_eq!(connection.answer().await.status, 413);

    // So is one that only grows when inflated.
    let mut bomb = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&vec![b' '; 50_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!((bomb.len() as u64) < limit);
    let answer = running.send("POST", path, Some(&invoker), &[("content-encoding", "deflate")], &bomb).await;
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("when inflated"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_is_the_shorter_of_header_and_parameter() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    // A run of seconds; the second request's time is over before the only slot is free.
    let body = |count: u64, timeout_us: u64| {
        json!({
            "inputs": [{ "name": "count", "shape": [], "datatype": "INT64", "data": [count] }],
            "parameters": { "timeout": timeout_us },
        })
        .to_string()
    };
    let mut first = running.connect().await;
    first.send("POST", "/v2/models/count/infer", Some(&invoker), &[], body(1_000_000, 60_000_000).as_bytes()).await;
    let headers = [("x-request-timeout-ms", "1")];
    let second =
        running.send("POST", "/v2/models/count/infer", Some(&invoker), &headers, body(1, 60_000_000).as_bytes()).await;
    assert_eq!((second.status, second.json()["code"].as_str()), (504, Some("deadline_exceeded")), "{second:?}");
    let third = running.send("POST", "/v2/models/count/infer", Some(&invoker), &[], body(1, 1).as_bytes()).await;
    assert_eq!(third.status, 504, "{third:?}");
    assert_eq!(first.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_idle_connections_and_lets_running_requests_end() {
    let mut running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    let mut idle = running.connect().await;
    idle.send("GET", "/v2/health/live", None, &[], b"").await;
    assert_eq!(idle.answer().await.status, 200);

    let mut busy = running.connect().await;
    let body = r#"{"inputs":[{"name":"count","shape":[],"datatype":"INT64","data":[300000]}]}"#;
    // The body's last byte is held back, so that the request is surely begun and surely not ended when draining starts.
    let length = body.len().to_string();
    let headers = [("content-length", length.as_str()), ("expect", "100-continue")];
    busy.send("POST", "/v2/models/count/infer", Some(&invoker), &headers, b"").await;
    assert_eq!(busy.answer().await.status, 100);
    running.begin_drain();
    assert_eq!(idle.closed().await, b"");
    busy.write(body.as_bytes()).await;
    let answer = busy.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    busy.closed().await;
    running.drained().await;
    assert!(tokio::net::TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_its_head_slowly_or_its_body_never_is_let_go() {
    let running = Running::start_with(|http| {
        http.header_timeout = Duration::from_millis(50);
        http.body_timeout = Duration::from_millis(50);
    })
    .await;
    let (_, invoker) = running.tenant("acme").await;
    let mut slow = running.connect().await;
    slow.write(b"GET /v2 HTTP/1.1\r\nhost: t\r\n").await;
    assert_eq!(slow.closed().await, b"");

    let mut never = running.connect().await;
    never.send("POST", "/v2/models/m/infer", Some(&invoker), &[("content-length", "10")], b"{").await;
    let answer = never.answer().await;
    assert_eq!(answer.status, 504, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_cancels_its_request() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    let mut leaving = running.connect().await;
    let body = r#"{"inputs":[{"name":"count","shape":[],"datatype":"INT64","data":[2000000]}]}"#;
    leaving.send("POST", "/v2/models/count/infer", Some(&invoker), &[], body.as_bytes()).await;
    // It must have begun: a client that leaves earlier never was a request to the service.
    while running.get("/admin/v1/status", &running.admin_key).await.json()["running_batches"] != 1 {}
    drop(leaving);
    // The next request waits behind it for the only slot; by its answer the first one's end is known.
    let body = r#"{"inputs":[{"name":"count","shape":[],"datatype":"INT64","data":[1]}]}"#;
    let answer = running.send("POST", "/v2/models/count/infer", Some(&invoker), &[], body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let counted = running
        .server
        .metrics_text()
        .lines()
        .any(|line| line.starts_with("tenantry_requests_total") && line.contains("code=\"cancelled\""));
    assert!(counted, "{}", running.server.metrics_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_refuses_what_it_cannot_read() {
    let running = Running::start().await;
    let key = running.admin_key.clone();
    let long = format!("{{\"name\":\"{}\"}}", "x".repeat(2 << 20));
    let cases: [(&str, &str, &str, u16, &str); 8] = [
        ("POST", "/admin/v1/tenants", "{", 400, "EOF while parsing"),
        ("POST", "/admin/v1/tenants", r#"{"name":"Not A Name"}"#, 400, "is not a name"),
        ("POST", "/admin/v1/tenants", r#"{"name":"a","more":1}"#, 400, "unknown field `more`"),
        ("POST", "/admin/v1/tenants", &long, 413, "larger than the limit"),
        ("GET", "/admin/v1/tenants/Not%20A%20Name", "", 400, "is not a name"),
        ("GET", "/admin/v1/tenants/platform/models?tag=x", "", 400, "key:value"),
        ("GET", "/admin/v1/tenants/platform/models/m/versions/one", "", 400, "the path is not valid"),
        ("GET", "/admin/v1/tenants/platform/models/m/versions/1?wait=5", "", 400, "the query is not valid"),
    ];
    for (method, path, body, status, text) in cases {
        let answer = running.send(method, path, Some(&key), &[], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{path} {answer:?}");
        assert!(answer.error().contains(text), "{path} {answer:?}");
    }
    let document = running.get("/admin/v1/openapi.json", &key).await;
    assert_eq!(document.body, tenantry_api::admin::openapi().as_bytes());
    let status = running.get("/admin/v1/status", &key).await.json();
    assert_eq!(status["ready"], true, "{status}");
    let metrics = running.get("/admin/v1/metrics", &key).await;
    assert_eq!(metrics.status, 200);
    let (admin, _) = running.tenant("acme").await;
    for path in ["/admin/v1/status", "/admin/v1/metrics"] {
        assert_eq!(running.get(path, &admin).await.status, 403, "{path}");
    }
}
