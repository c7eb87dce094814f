//! Triton's extensions of the v2 protocol.

use serde_json::{Value, json};
use tenantry_types::testing::onnx;
use tenantry_types::{DataType, Dim};

use crate::support::{Answer, Running};

/// The replicas of a model's deployed version.
async fn replicas(running: &Running, key: &str, model: &str) -> u64 {
    let path = format!("/admin/v1/tenants/acme/models/{model}/versions/1");
    running.get(&path, key).await.json()["residency"]["replicas_ready"].as_u64().unwrap()
}

async fn repository(running: &Running, key: &str, call: &str, body: &Value) -> Answer {
    running.post(&format!("/v2/repository/{call}"), key, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_shows_what_holds() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    let config = running.get("/v2/models/double/config", &invoker).await.json();
    let max_batch = config["max_batch_size"].as_u64().unwrap();
    assert!(max_batch >= 1, "{config}");
    assert_eq!((&config["name"], &config["backend"]), (&json!("double"), &json!("onnxruntime")));
    let input = &config["input"][0];
    assert_eq!((&input["name"], &input["data_type"], &input["dims"]), (&json!("x"), &json!("TYPE_FP32"), &json!([16])));
    assert_eq!(config["output"][0]["dims"], json!([16]));
    assert_eq!(config["instance_group"][0]["kind"], "KIND_CPU");
    // Requests that are not joined have all their dimensions.
    let config = running.get("/v2/models/acme/count/versions/1/config", &invoker).await.json();
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(0), &json!([])));
    assert!(config["dynamic_batching"].is_null(), "{config}");
    assert_eq!(running.get("/v2/models/nothing/config", &invoker).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_lists_what_the_caller_may_use() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    let (_, other) = running.tenant("globex").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    let refused = running.push("acme", "double", &admin, &onnx::unknown_operator()).await;
    assert_eq!(refused["state"], "refused", "{refused}");
    let index = repository(&running, &invoker, "index", &json!({})).await.json();
    assert_eq!(index[0], json!({ "name": "double", "version": "1", "state": "READY", "reason": "" }));
    assert_eq!((&index[1]["version"], &index[1]["state"]), (&json!("2"), &json!("UNAVAILABLE")));
    assert!(index[1]["reason"].as_str().unwrap().contains("refused at registration"), "{index}");
    let index = repository(&running, &invoker, "index", &json!({ "ready": true })).await.json();
    assert_eq!(index.as_array().unwrap().len(), 1, "{index}");
    // Nothing of it is another tenant's business; and an empty body asks for everything.
    let answer = running.send("POST", "/v2/repository/index", Some(&other), &[], b"").await;
    assert_eq!((answer.status, answer.json()), (200, json!([])));
    let answer = running.send("POST", "/v2/repository/index", Some(&other), &[], b"[").await;
    assert_eq!(answer.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_loaded_before_its_first_request_and_let_go_on_request() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    let (globex, _) = running.tenant("globex").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    assert_eq!(replicas(&running, &admin, "double").await, 0);
    // Twice: the second finds it there.
    for _ in 0..2 {
        let loaded = repository(&running, &invoker, "models/double/load", &json!({})).await;
        assert_eq!((loaded.status, loaded.json()), (200, json!({})), "{loaded:?}");
        assert_eq!(replicas(&running, &admin, "double").await, 1);
    }

    let refused = repository(&running, &invoker, "models/double/unload", &json!({})).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("permission_denied")), "{refused:?}");
    let body = json!({ "parameters": { "unload_dependents": true } });
    let unloaded = repository(&running, &admin, "models/double/unload", &body).await;
    assert_eq!((unloaded.status, unloaded.json()), (200, json!({})), "{unloaded:?}");
    assert_eq!(replicas(&running, &admin, "double").await, 0);
    // What is not loaded is let go of at once.
    assert_eq!(repository(&running, &admin, "models/double/unload", &json!({})).await.status, 200);

    // A deployment that keeps replicas would load it again.
    let path = "/admin/v1/tenants/acme/models/double/deployment";
    let mut deployment = running.get(path, &admin).await.json();
    let change = json!({
        "generation": deployment["generation"].take(), "version": 1, "min_replicas": 1, "max_replicas": 1,
    });
    let changed = running.send("PUT", path, Some(&admin), &[], change.to_string().as_bytes()).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let refused = repository(&running, &admin, "models/double/unload", &json!({})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.error().contains("min_replicas"), "{refused:?}");

    // Somebody else's model may be loaded for oneself where it is shared, and unloaded by its owner only.
    let shared = running
        .send("PATCH", "/admin/v1/tenants/acme/models/double", Some(&admin), &[], br#"{"shared":"everyone"}"#)
        .await;
    assert_eq!(shared.status, 200);
    assert_eq!(repository(&running, &globex, "models/acme/double/load", &json!({})).await.status, 200);
    assert_eq!(repository(&running, &globex, "models/acme/double/unload", &json!({})).await.status, 403);
    for call in ["models/nothing/load", "models/nothing/unload"] {
        assert_eq!(repository(&running, &admin, call, &json!({})).await.status, 404, "{call}");
    }
    for body in [json!({ "parameters": { "config": "{}" } }), json!({ "parameters": { "file:1/model.onnx": "AAAA" } })]
    {
        let refused = repository(&running, &admin, "models/double/load", &body).await;
        assert_eq!(refused.status, 501);
        assert!(refused.error().contains("/admin/v1"), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_has_work_is_not_unloaded() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    let mut busy = running.connect().await;
    let body = r#"{"inputs":[{"name":"count","shape":[],"datatype":"INT64","data":[2000000]}]}"#;
    busy.send("POST", "/v2/models/count/infer", Some(&invoker), &[], body.as_bytes()).await;
    while running.get("/admin/v1/status", &running.admin_key).await.json()["running_batches"] != 1 {}
    let refused = repository(&running, &admin, "models/count/unload", &json!({})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.error().contains("has work"), "{refused:?}");
    assert_eq!(busy.answer().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn generate_takes_inputs_by_name_and_answers_whole_or_as_an_event() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    let rows = [Dim::Named("n".to_owned()), Dim::Fixed(1)];
    running.push("acme", "echo", &admin, &onnx::identity(DataType::Bytes, &rows)).await;
    let body = json!({ "id": "mine", "count": 7, "parameters": { "timeout": 20_000_000 } });
    let answer = running.post("/v2/models/count/generate", &invoker, &body).await;
    let expected = json!({ "model_name": "count", "model_version": "1", "id": "mine", "total": 7 });
    assert_eq!((answer.status, answer.json()), (200, expected), "{answer:?}");
    let answer = running.post("/v2/models/echo/versions/1/generate_stream", &invoker, &json!({ "x": "hé\n" })).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"), "{answer:?}");
    let event = String::from_utf8(answer.body.clone()).unwrap();
    let data = event.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data, json!({ "model_name": "echo", "model_version": "1", "y": "hé\n" }));
    let answer = running.post("/v2/models/echo/generate", &invoker, &json!({ "x": [["a"], ["b"]] })).await;
    assert_eq!(answer.json()["y"], json!(["a", "b"]));

    // Before anything has run, an error is an error, for a stream too.
    for (path, body, status) in [
        ("/v2/models/count/generate", json!({}), 400),
        ("/v2/models/count/generate_stream", json!({ "count": "x" }), 400),
        ("/v2/models/nothing/generate_stream", json!({}), 404),
        ("/v2/models/count/generate", json!({ "count": 1, "parameters": { "timeout": 1 } }), 504),
    ] {
        let answer = running.post(path, &invoker, &body).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/json")), "{path}");
        answer.error();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_generate_call_cancels_it() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    running.push("acme", "count", &admin, &onnx::counting_loop()).await;
    let mut leaving = running.connect().await;
    let path = "/v2/models/count/generate_stream";
    leaving.send("POST", path, Some(&invoker), &[], br#"{"count": 2000000}"#).await;
    while running.get("/admin/v1/status", &running.admin_key).await.json()["running_batches"] != 1 {}
    drop(leaving);
    let answer = running.post("/v2/models/count/generate", &invoker, &json!({ "count": 1 })).await;
    assert_eq!((answer.status, &answer.json()["total"]), (200, &json!(1)), "{answer:?}");
    let metrics = running.server.metrics_text();
    let is_cancelled = |line: &str| line.starts_with("tenantry_requests_total") && line.contains("code=\"cancelled\"");
    assert!(metrics.lines().any(is_cancelled), "{metrics}");
}
