//! OpenAI's calls: what their clients send and read.

use serde_json::{Value, json};
use tenantry_types::testing::onnx;

use crate::support::{Answer, Running};

/// What makes a model of the right form one for embeddings.
const MANIFEST: &str = r#"
[[input]]
name = "text"
type = "text"
[[output]]
name = "embedding"
[[output]]
name = "token_count"
[task]
kind = "embedding"
"#;

async fn push(running: &Running, key: &str, name: &str, more: &str) {
    let (model, manifest) = (onnx::embedder(), format!("{MANIFEST}{more}"));
    let files = [("model.onnx", &model[..]), ("tenantry.toml", manifest.as_bytes())];
    let version = running.push_files("acme", name, key, &files).await;
    assert_eq!(version["state"], "ready", "{version}");
}

/// The envelope's error, whose form is checked.
fn error(answer: &Answer) -> Value {
    let body = answer.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{answer:?}"));
    let mut fields: Vec<&str> = error.keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!((body.as_object().unwrap().len(), fields), (1, vec!["code", "message", "param", "type"]), "{body}");
    assert!(answer.header("x-should-retry").is_some(), "{answer:?}");
    has_headers(answer);
    body["error"].clone()
}

fn has_headers(answer: &Answer) {
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"), "{answer:?}");
    assert!(answer.header("openai-processing-ms").unwrap().parse::<u64>().is_ok(), "{answer:?}");
    assert_eq!(answer.header("openai-version"), Some("2020-10-01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_come_for_texts_and_for_tokens() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    push(&running, &admin, "embedder", "dimensions = true").await;
    for (path, model) in [("/v1/embeddings", "embedder"), ("/openai/v1/embeddings", "acme/embedder")] {
        for (input, count) in
            [(json!("hi"), 1), (json!(["a", "b"]), 2), (json!([1, 2, 3]), 1), (json!([[1], [2, 3], [4]]), 3)]
        {
            let answer = running.post(path, &invoker, &json!({ "model": model, "input": input, "user": "u" })).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            has_headers(&answer);
            assert_eq!(answer.header("openai-organization"), Some("acme"));
            assert!(answer.header("x-ratelimit-limit-requests").is_none(), "no rate is set: {answer:?}");
            let list = answer.json();
            assert_eq!((&list["object"], &list["model"]), (&json!("list"), &json!(model)));
            assert_eq!(list["usage"], json!({ "prompt_tokens": 3 * count, "total_tokens": 3 * count }));
            assert_eq!(list["data"].as_array().unwrap().len(), count, "{list}");
            assert_eq!(
                list["data"][count - 1],
                json!({ "object": "embedding", "index": count - 1, "embedding": [0.6, 0.8] })
            );
        }
    }
    let body = json!({ "model": "embedder", "input": "hi", "encoding_format": "base64", "dimensions": 1 });
    let answer = running.post("/v1/embeddings", &invoker, &body).await;
    assert_eq!(answer.json()["data"][0]["embedding"], "AACAPw==", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_form_their_clients_read() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    push(&running, &admin, "embedder", "").await;
    running.push("acme", "double", &admin, &onnx::matmul16()).await;
    running.push("acme", "vectors", &admin, &onnx::embedder()).await;
    let (_, other) = running.tenant("globex").await;

    for path in ["/v1/models", "/v1/models/m", "/openai/v1/models"] {
        for (key, expected) in [(None, "didn't provide an API key"), (Some("sk-not-a-real-old-key"), "sk-no*****-key")]
        {
            let answer = running.send("GET", path, key, &[], b"").await;
            let error = error(&answer);
            assert_eq!((answer.status, &error["code"]), (401, &json!("invalid_api_key")), "{path}");
            assert!(error["message"].as_str().unwrap().contains(expected), "{error}");
            assert_eq!(answer.header("x-should-retry"), Some("false"));
        }
    }

    let embed = async |key: &str, body: Value| running.post("/v1/embeddings", key, &body).await;
    let mut texts = Vec::new();
    for (key, model) in [(&invoker, "nothing"), (&other, "acme/embedder"), (&invoker, "Not A Name")] {
        let answer = embed(key, json!({ "model": model, "input": "hi" })).await;
        let error = error(&answer);
        assert_eq!((answer.status, &error["code"]), (404, &json!("model_not_found")));
        texts.push(error["message"].as_str().unwrap().replace(model, "x"));
        let answer = running.get(&format!("/v1/models/{}", model.replace(' ', "%20")), key).await;
        texts.push(self::error(&answer)["message"].as_str().unwrap().replace(model, "x"));
    }
    texts.dedup();
    assert_eq!(texts, ["The model `x` does not exist or you do not have access to it."]);

    for (body, param, expected) in [
        (json!({ "model": "double", "input": "hi" }), json!("model"), "does not make embeddings"),
        (json!({ "model": "embedder", "input": "hi", "dimensions": 3 }), json!("dimensions"), "have 2 numbers"),
        (json!({ "model": "embedder", "input": "hi", "dimensions": 1 }), json!("dimensions"), "not support specifying"),
        (json!({ "model": "embedder", "input": "hi", "dimensions": 0 }), json!("dimensions"), "below minimum"),
        // It looks like one, and its owner does not say that it is.
        (json!({ "model": "vectors", "input": "hi" }), json!("model"), "does not make embeddings"),
        (json!({ "model": "embedder", "input": "" }), Value::Null, "empty string"),
        (json!({ "model": "embedder" }), Value::Null, "missing field `input`"),
        (json!({ "model": "embedder", "input": "hi", "encoding_format": "hex" }), Value::Null, "`float` or `base64`"),
    ] {
        let answer = embed(&invoker, body).await;
        let error = error(&answer);
        assert_eq!((answer.status, &error["type"], &error["param"]), (400, &json!("invalid_request_error"), &param));
        assert!(error["message"].as_str().unwrap().contains(expected), "{error}");
    }
    for path in ["/v1/chat/completions", "/v1/completions", "/openai/v1/chat/completions"] {
        let answer = running.post(path, &invoker, &json!({ "model": "m", "messages": [] })).await;
        assert_eq!((answer.status, answer.header("x-should-retry")), (501, Some("false")), "{path}");
        assert!(error(&answer)["message"].as_str().unwrap().contains("engine"), "{answer:?}");
    }
    // The calls of other protocols have their own form still.
    assert!(running.post("/v1/models/nothing:predict", &invoker, &json!({})).await.json()["error"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_on_every_reply() {
    let running = Running::start().await;
    let (admin, invoker) = running.tenant("acme").await;
    push(&running, &admin, "embedder", "").await;
    let path = "/admin/v1/tenants/acme/share";
    let generation = running.get(path, &running.admin_key).await.json()["generation"].as_u64();
    // So slow that nothing is won back meanwhile.
    let change = json!({
        "generation": generation.unwrap_or(0), "settings": { "request_rate": { "per_second": 0.001, "burst": 3 } },
    });
    let set = running.send("PUT", path, Some(&running.admin_key), &[], change.to_string().as_bytes()).await;
    assert_eq!(set.status, 200, "{set:?}");

    let body = json!({ "model": "embedder", "input": "hi" });
    for remaining in ["2", "1", "0"] {
        let answer = running.post("/v1/embeddings", &invoker, &body).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-limit-requests")), (200, Some("3")), "{answer:?}");
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(remaining));
        assert!(answer.header("x-ratelimit-reset-requests").unwrap().ends_with('s'));
    }
    let answer = running.post("/v1/embeddings", &invoker, &body).await;
    let error = error(&answer);
    assert_eq!((answer.status, answer.header("x-should-retry")), (429, Some("true")), "{answer:?}");
    assert_eq!((&error["type"], &error["code"]), (&json!("requests"), &json!("rate_limit_exceeded")));
    let text = error["message"].as_str().unwrap();
    assert!(
        text.contains("organization acme on requests: Limit 3, Used 3, Requested 1. Please try again in 16m"),
        "{text}"
    );
    let after: f64 = answer.header("retry-after").unwrap().parse().unwrap();
    let after_ms: f64 = answer.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((after * 1000.0 - after_ms).abs() <= 1000.0 && after > 900.0, "{answer:?}");
    // What is asked without a place is told, too.
    let answer = running.get("/v1/models", &invoker).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, Some("0")));
}
