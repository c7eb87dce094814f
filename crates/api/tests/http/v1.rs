//! TensorFlow Serving's, KServe's and TorchServe's calls.

use serde_json::{Value, json};
use tenantry_types::testing::onnx;
use tenantry_types::{DataType, Dim};

use crate::support::{Answer, Running};

async fn predict(running: &Running, path: &str, key: &str, body: &str) -> Answer {
    running.send("POST", path, Some(key), &[("content-type", "application/json")], body.as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_described_to_three_kinds_of_clients_at_once() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    let (_, other) = running.tenant("globex").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    running.push("acme", "double", &admin, &onnx::scaled_matmul(16, 3.0)).await;
    let path = "/admin/v1/tenants/acme/models/double/aliases/best";
    assert_eq!(running.send("PUT", path, Some(&admin), &[], br#"{"version":2}"#).await.status, 200);

    let list = running.get("/v1/models", &invoker).await.json();
    assert_eq!((&list["object"], &list["models"]), (&json!("list"), &json!(["double"])));
    let entry = &list["data"][0];
    assert_eq!(
        (&entry["id"], &entry["object"], &entry["owned_by"]),
        (&json!("double"), &json!("model"), &json!("acme"))
    );
    assert!(entry["created"].as_i64().unwrap() > 1_600_000_000, "{entry}");
    assert_eq!(running.get("/v1/models", &other).await.json()["data"], json!([]));

    let status = running.get("/v1/models/double", &invoker).await.json();
    assert_eq!((&status["id"], &status["object"]), (&json!("double"), &json!("model")));
    assert_eq!((&status["name"], &status["ready"]), (&json!("double"), &json!(true)));
    let available = |version: &str| json!({ "version": version, "state": "AVAILABLE", "status": { "error_code": "OK", "error_message": "" } });
    assert_eq!(status["model_version_status"], json!([available("1"), available("2")]));
    for (path, version) in [
        ("double/versions/1", "1"),
        ("double/labels/best", "2"),
        ("acme/double/labels/best", "2"),
        ("acme%2Fdouble/versions/2", "2"),
    ] {
        let status = running.get(&format!("/v1/models/{path}"), &invoker).await.json();
        assert_eq!(status["model_version_status"], json!([available(version)]), "{path}");
        let metadata = running.get(&format!("/v1/models/{path}/metadata"), &invoker).await.json();
        assert_eq!(metadata["model_spec"]["version"], json!(version), "{path}");
    }
    let metadata = running.get("/v1/models/double/metadata", &invoker).await.json();
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(signature["method_name"], "tensorflow/serving/predict");
    assert_eq!(
        signature["inputs"]["x"],
        json!({
            "dtype": "DT_FLOAT",
            "tensor_shape": { "dim": [{ "size": "-1", "name": "batch" }, { "size": "16", "name": "" }], "unknown_rank": false },
            "name": "x",
        })
    );
    for path in [
        "/v1/models/nothing",
        "/v1/models/double/versions/9",
        "/v1/models/double/labels/worst",
        "/v1/models/acme/double",
    ] {
        let key = if path.ends_with("acme/double") { &other } else { &invoker };
        assert_eq!(running.get(path, key).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn predict_takes_rows_and_columns() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    running.push("acme", "add", &admin, &onnx::add()).await;
    let row = |value: f64| vec![value; 16];

    let answer =
        running.post("/v1/models/double:predict", &invoker, &json!({ "instances": [row(1.0), row(2.0)] })).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "predictions": [row(2.0), row(4.0)] })), "{answer:?}");
    let answer = running.post("/v1/models/acme/double:predict", &invoker, &json!({ "inputs": [row(1.5)] })).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "outputs": [row(3.0)] })), "{answer:?}");
    let instances = json!({ "instances": [{ "a": [1, 2], "b": [3, 4] }, { "a": [5, 6], "b": [7, 8] }] });
    let answer = running.post("/v1/models/add/versions/1:predict", &invoker, &instances).await;
    assert_eq!(answer.json(), json!({ "predictions": [[4.0, 6.0], [12.0, 14.0]] }), "{answer:?}");

    // Words for what JSON has none for, in and out.
    let body = r#"{"inputs": {"a": [[NaN, Infinity]], "b": [[1, -Infinity]]}}"#;
    let answer = predict(&running, "/v1/models/add:predict", &invoker, body).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &br#"{"outputs":[[NaN,NaN]]}"#[..]), "{answer:?}");

    // Compressed as the v2 protocol's answers are, and explained.
    let many = json!({ "instances": vec![row(1.0); 100] }).to_string();
    let headers = [("accept-encoding", "gzip"), ("x-tenantry-explain", "1")];
    let answer = running.send("POST", "/v1/models/double:predict", Some(&invoker), &headers, many.as_bytes()).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));
    assert!(answer.header("x-tenantry-timing").unwrap().contains("device_us"));
    // A long body is decoded in the pool.
    let long = json!({ "instances": vec![row(1.0); 10_000] });
    let answer = running.post("/v1/models/double:predict", &invoker, &long).await;
    assert_eq!(answer.json()["predictions"][9_999], json!(row(2.0)));

    for (body, expected) in [
        (r#"{"instances": [[1, 2]]}"#, "expected [batch,16]"),
        (r#"{"instances": [["a"]]}"#, "input `x` has \"a\" at element 0"),
        (r#"{"signature_name": "other", "instances": [1]}"#, "no signature `other`"),
        ("{", "the JSON of the body is not valid"),
    ] {
        let answer = predict(&running, "/v1/models/double:predict", &invoker, body).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.error().contains(expected), "{answer:?}");
    }
    let answer = predict(&running, "/v1/models/add:predict", &invoker, r#"{"instances": [[1, 2]]}"#).await;
    assert!(answer.error().contains("the model has 2 inputs"), "{answer:?}");
    for verb in ["classify", "regress", "explain"] {
        let answer = predict(&running, &format!("/v1/models/double:{verb}"), &invoker, "{}").await;
        assert_eq!(answer.status, 501);
        assert!(answer.error().contains(verb), "{answer:?}");
    }
    // Refused from its headers alone: not a byte of the body is sent, and the answer comes.
    let mut connection = running.connect().await;
    connection.send("POST", "/v1/models/nothing:predict", Some(&invoker), &[("content-length", "1000")], b"").await;
    assert_eq!(connection.answer().await.status, 404);
    let answer = running.get("/v1/models/double:predict", &invoker).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_travel_as_base64_and_texts_as_they_are() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    let rows = [Dim::Named("n".to_owned())];
    running.push("acme", "echo", &admin, &onnx::identity(DataType::Bytes, &rows)).await;
    let body = r#"{"instances": ["text", {"b64": "w6k="}]}"#;
    let answer = predict(&running, "/v1/models/echo:predict", &invoker, body).await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "predictions": ["text", "é"] })), "{answer:?}");

    // TorchServe: the body is the only string, or one instance of JSON.
    let answer = running.send("POST", "/predictions/echo", Some(&invoker), &[], b"a whole text").await;
    assert_eq!((answer.status, answer.json()), (200, json!("a whole text")), "{answer:?}");
    let answer = running.send("PUT", "/predictions/acme%2Fecho", Some(&invoker), &[], b"put").await;
    assert_eq!((answer.status, answer.json()), (200, json!("put")), "{answer:?}");
    let answer = predict(&running, "/predictions/echo/1", &invoker, r#"{"x": {"b64": "aGk="}}"#).await;
    assert_eq!((answer.status, answer.json()), (200, json!("hi")), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn torchserves_calls_take_raw_tensors_and_instances() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    running.push("acme", "add", &admin, &onnx::add()).await;
    let pinged = running.send("GET", "/ping", None, &[], b"").await;
    assert_eq!((pinged.status, pinged.json()), (200, json!({ "status": "Healthy" })));
    // And KServe's, whose v1 clients ask it there.
    let alive = running.send("GET", "/", None, &[], b"").await;
    assert_eq!((alive.status, alive.json()), (200, json!({ "status": "alive" })));

    let data: Vec<u8> = [1.0_f32; 16].iter().flat_map(|value| value.to_le_bytes()).collect();
    let answer = running.send("POST", "/predictions/acme/double/1", Some(&invoker), &[], &data).await;
    assert_eq!((answer.status, answer.json()), (200, json!(vec![2.0; 16])), "{answer:?}");
    let body = r#"{"a": [1, 2], "b": [3, 4]}"#;
    let answer = predict(&running, "/predictions/add", &invoker, body).await;
    assert_eq!((answer.status, answer.json()), (200, json!([4.0, 6.0])), "{answer:?}");

    let multipart = [("content-type", "multipart/form-data; boundary=x")];
    let answer = running.send("POST", "/predictions/double", Some(&invoker), &multipart, b"--x--").await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("--data-binary"), "{answer:?}");
    let answer = running.send("POST", "/predictions/double", Some(&invoker), &[], &data[1..]).await;
    assert!(answer.error().contains("no multiple of the 64 bytes"), "{answer:?}");
    for (method, path, status) in [
        ("POST", "/predictions/nothing", 404),
        ("POST", "/predictions/double/9", 404),
        ("GET", "/predictions/double", 405),
    ] {
        assert_eq!(running.send(method, path, Some(&invoker), &[], b"").await.status, status, "{path}");
    }
    let unauthenticated: Value = running.send("POST", "/predictions/double", None, &[], &data).await.json();
    assert_eq!(unauthenticated["code"], "unauthenticated");
}
