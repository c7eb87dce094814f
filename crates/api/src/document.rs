//! The OpenAPI document of the inference API: what is answered under `/v2`, `/v1` and `/predictions`.
//!
//! The admin's is made of its handlers. These paths are read by hand, because a model's name may be two segments, so their
//! document is put together here, and a test sees to it that every path in it is served as it says.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The document as JSON text that ends with a newline.
pub fn inference_openapi() -> String {
    // Values always have a JSON form; the test of the committed copy would notice.
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

/// The same as it is served.
pub(crate) fn served() -> Bytes {
    static TEXT: LazyLock<Bytes> = LazyLock::new(|| inference_openapi().into());
    TEXT.clone()
}

fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tenantry inference API",
            "description": "The Open Inference Protocol v2 with Triton's extensions, TensorFlow Serving's and KServe's v1 protocol, \
                            TorchServe's predictions and OpenAI's embeddings. A model is `name` for the caller's own and `owner/name` for \
                            shared ones; as one parameter of a path the slash is written %2F, and it may stand as it is, too. A version \
                            is a number or an alias. Refusals carry `Retry-After` (seconds) and `retry-after-ms`; a request's own limit \
                            on its time is `x-request-timeout-ms`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths(),
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "key": [] }],
    })
}

/// What an operation's errors look like.
#[derive(Clone, Copy)]
enum Errors {
    Plain,
    OpenAi,
}

/// One operation: what it does, what goes in, what comes out.
struct Operation {
    summary: &'static str,
    tag: &'static str,
    body: Option<Value>,
    answer: Value,
    errors: Errors,
}

impl Operation {
    fn new(tag: &'static str, summary: &'static str, answer: Value) -> Self {
        Self { summary, tag, body: None, answer, errors: Errors::Plain }
    }

    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn openai(self) -> Self {
        Self { errors: Errors::OpenAi, ..self }
    }

    fn into_value(self, path: &str) -> Value {
        let error = match self.errors {
            Errors::Plain => schema("Error"),
            Errors::OpenAi => schema("OpenAiError"),
        };
        let parameter =
            |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
        let parameters: Vec<Value> = ["model", "version", "label"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(parameter)
            .collect();
        let mut operation = json!({
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": parameters,
            "responses": {
                "200": { "description": "The answer.", "content": self.answer },
                "default": { "description": "An error.", "content": in_json(error) },
            },
        });
        if let (Some(body), Some(object)) = (self.body, operation.as_object_mut()) {
            object.insert("requestBody".to_owned(), json!({ "required": true, "content": body }));
        }
        operation
    }
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn in_json(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn paths() -> Map<String, Value> {
    let mut paths = Map::new();
    let mut add = |method: &str, path: &str, operation: Operation| {
        let operation = operation.into_value(path);
        if let Some(methods) = paths.entry(path).or_insert_with(|| json!({})).as_object_mut() {
            methods.insert(method.to_owned(), operation);
        }
    };
    let answer = |name: &str| in_json(schema(name));
    let object = || in_json(json!({ "type": "object" }));

    add("get", "/v2", Operation::new("v2", "The server and its extensions.", answer("ServerMetadata")));
    add("get", "/v2/health/live", Operation::new("v2", "Whether the server is there. Needs no key.", answer("Live")));
    add("get", "/v2/health/ready", Operation::new("v2", "Whether it takes requests. Needs no key.", answer("Ready")));
    add("get", "/v2/models", Operation::new("v2", "The names of the models the caller may use.", answer("ModelNames")));
    add("get", "/v2/openapi.json", Operation::new("v2", "This document.", object()));
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        let infer = json!({
            "application/json": { "schema": schema("InferRequest") },
            "application/octet-stream": { "schema": { "type": "string", "format": "binary" } },
        });
        let inferred = json!({
            "application/json": { "schema": schema("InferResponse") },
            "application/octet-stream": { "schema": { "type": "string", "format": "binary" } },
        });
        let events = json!({ "text/event-stream": { "schema": { "type": "string" } } });
        let of = |rest: &str| format!("{model}{rest}");
        add("get", model, Operation::new("v2", "A model's inputs and outputs.", answer("ModelMetadata")));
        add("get", &of("/ready"), Operation::new("v2", "Whether a model would be served.", answer("ModelReady")));
        add("get", &of("/config"), Operation::new("v2", "How a model is run, in Triton's words.", object()));
        add("post", &of("/infer"), Operation::new("v2", "Run a model on tensors.", inferred).body(infer));
        let generate = || in_json(schema("GenerateRequest"));
        add("post", &of("/generate"), Operation::new("v2", "Run a model on fields.", object()).body(generate()));
        let stream = Operation::new("v2", "The same, answered as events.", events);
        add("post", &of("/generate_stream"), stream.body(generate()));
    }
    let index = Operation::new("v2", "The versions the caller may use.", answer("RepositoryIndex"));
    add("post", "/v2/repository/index", index.body(in_json(schema("RepositoryRequest"))));
    for (path, summary) in [
        ("/v2/repository/models/{model}/load", "Load a model ahead of requests."),
        ("/v2/repository/models/{model}/unload", "Unload an own model's idle replicas."),
    ] {
        add("post", path, Operation::new("v2", summary, object()).body(in_json(schema("RepositoryRequest"))));
    }

    add("get", "/v1/models", Operation::new("v1", "The models the caller may use.", answer("ModelList")).openai());
    add("get", "/v1/models/{model}", Operation::new("v1", "A model and its versions.", answer("ModelStatus")).openai());
    for model in ["/v1/models/{model}", "/v1/models/{model}/versions/{version}", "/v1/models/{model}/labels/{label}"] {
        let of = |rest: &str| format!("{model}{rest}");
        if model != "/v1/models/{model}" {
            add("get", model, Operation::new("v1", "A version of a model.", answer("ModelStatus")));
        }
        add("get", &of("/metadata"), Operation::new("v1", "A version's signature, in TensorFlow's words.", object()));
        let predict = Operation::new("v1", "Run a model on rows or columns.", object());
        add("post", &of(":predict"), predict.body(in_json(schema("PredictRequest"))));
    }
    let embeddings = Operation::new("openai", "Vectors of texts or token ids.", answer("EmbeddingList")).openai();
    add("post", "/v1/embeddings", embeddings.body(in_json(schema("EmbeddingRequest"))));
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let refused = Operation::new("openai", "Not there: it needs a language model's engine.", object()).openai();
        add("post", path, refused.body(object()));
    }

    add(
        "get",
        "/",
        Operation::new("v1", "Whether the server is there, as KServe's v1 clients ask. Needs no key.", object()),
    );
    add("get", "/ping", Operation::new("torchserve", "Whether the server takes requests. Needs no key.", object()));
    for path in ["/predictions/{model}", "/predictions/{model}/{version}"] {
        let predict =
            Operation::new("torchserve", "Run a model on its only input, or on one instance.", in_json(json!({})));
        let body = json!({
            "application/octet-stream": { "schema": { "type": "string", "format": "binary" } },
            "application/json": { "schema": {} },
        });
        add("post", path, predict.body(body));
    }
    paths
}

fn schemas() -> Value {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": { "type": "string" } });
    let whole = || json!({ "type": "integer" });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let parameters = || {
        json!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
            "description": "`timeout` (microseconds), `priority` (1 is the most urgent of the caller's own requests), and others.",
        })
    };
    let tensor = |required: &[&str], more: Value| {
        let mut properties = json!({
            "name": { "type": "string" },
            "datatype": { "enum": tenantry_types::DataType::ALL.map(tenantry_types::DataType::as_str) },
            "shape": { "type": "array", "items": { "type": "integer" } },
        });
        if let (Some(known), Some(more)) = (properties.as_object_mut(), more.as_object()) {
            known.extend(more.clone());
        }
        object(required, properties)
    };
    let values = || json!({ "description": "Row by row, flat or nested." });
    let requested = object(&["name"], json!({ "name": text(), "parameters": parameters() }));
    let described = || json!({ "type": "array", "items": tensor(&["name", "datatype", "shape"], json!({})) });
    let input = tensor(&["name", "datatype", "shape"], json!({ "data": values(), "parameters": parameters() }));
    json!({
        "Error": object(&["error", "code", "request_id"], json!({
            "error": { "type": "string", "description": "For people." },
            "code": { "type": "string", "description": "For programs." },
            "reason": { "type": "string", "description": "Which limit refused the request." },
            "request_id": text(),
        })),
        "OpenAiError": object(&["error"], json!({
            "error": object(&["message", "type", "param", "code"], json!({
                "message": text(),
                "type": text(),
                "param": { "type": ["string", "null"] },
                "code": { "type": ["string", "null"] },
            })),
        })),
        "ServerMetadata": object(&["name", "version", "extensions"], json!({ "name": text(), "version": text(), "extensions": texts() })),
        "Live": object(&["live"], json!({ "live": { "type": "boolean" } })),
        "Ready": object(&["ready"], json!({ "ready": { "type": "boolean" } })),
        "ModelNames": object(&["models"], json!({ "models": texts() })),
        "ModelReady": object(&["name", "ready"], json!({ "name": text(), "ready": { "type": "boolean" }, "reason": text() })),
        "ModelMetadata": object(&["name", "versions", "platform", "inputs", "outputs"], json!({
            "name": text(), "versions": texts(), "platform": text(), "inputs": described(), "outputs": described(),
        })),
        "InferRequest": object(&["inputs"], json!({
            "id": text(),
            "parameters": parameters(),
            "inputs": { "type": "array", "items": input },
            "outputs": { "type": "array", "items": requested },
        })),
        "InferResponse": object(&["model_name", "model_version", "outputs"], json!({
            "model_name": text(),
            "model_version": text(),
            "id": text(),
            "outputs": { "type": "array", "items": tensor(&["name", "datatype", "shape", "data"], json!({ "data": values() })) },
        })),
        "GenerateRequest": {
            "type": "object",
            "properties": { "id": text(), "parameters": parameters() },
            "description": "Beside these, a field for each input; fields of other names are parameters.",
        },
        "RepositoryRequest": object(&[], json!({ "ready": { "type": "boolean" }, "parameters": { "type": "object" } })),
        "RepositoryIndex": { "type": "array", "items": object(&["name", "version", "state", "reason"], json!({
            "name": text(), "version": text(), "state": { "enum": ["READY", "LOADING", "UNAVAILABLE"] }, "reason": text(),
        })) },
        "PredictRequest": object(&[], json!({
            "signature_name": text(),
            "instances": { "type": "array", "description": "One value, or object of values by input, a row." },
            "inputs": { "description": "A whole tensor, or an object of tensors by input." },
        })),
        "ModelObject": object(&["id", "object", "created", "owned_by"], json!({
            "id": text(), "object": { "const": "model" }, "created": whole(), "owned_by": text(),
        })),
        "ModelList": object(&["object", "data", "models"], json!({
            "object": { "const": "list" }, "data": { "type": "array", "items": schema("ModelObject") }, "models": texts(),
        })),
        "ModelStatus": { "allOf": [schema("ModelObject"), object(&["name", "ready", "model_version_status"], json!({
            "name": text(),
            "ready": { "type": "boolean" },
            "reason": text(),
            "model_version_status": { "type": "array", "items": object(&["version", "state", "status"], json!({
                "version": text(), "state": text(), "status": { "type": "object" },
            })) },
        }))] },
        "EmbeddingRequest": object(&["model", "input"], json!({
            "model": text(),
            "input": { "description": "A text, texts, token ids, or lists of token ids." },
            "encoding_format": { "enum": ["float", "base64"] },
            "dimensions": { "type": "integer", "minimum": 1 },
            "user": text(),
        })),
        "EmbeddingList": object(&["object", "data", "model", "usage"], json!({
            "object": { "const": "list" },
            "model": text(),
            "data": { "type": "array", "items": object(&["object", "index", "embedding"], json!({
                "object": { "const": "embedding" }, "index": whole(), "embedding": { "type": ["array", "string"] },
            })) },
            "usage": object(&["prompt_tokens", "total_tokens"], json!({ "prompt_tokens": whole(), "total_tokens": whole() })),
        })),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::path::{self, V1Path, V2Path};

    #[test]
    fn the_committed_document_is_what_is_served() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi-inference.json");
        let current = inference_openapi();
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, &current).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == current, "docs/openapi-inference.json is stale; run this test with UPDATE_REFERENCE=1");
    }

    #[test]
    fn every_path_in_it_is_served_with_its_method() {
        let document = document();
        for (path, operations) in document["paths"].as_object().unwrap() {
            let methods: Vec<&str> = operations.as_object().unwrap().keys().map(String::as_str).collect();
            let path = path.replace("{model}", "m").replace("{version}", "1").replace("{label}", "best");
            let is_posted = if path.starts_with("/v2") {
                match path::parse(&path) {
                    Some(V2Path::Model(model)) => Some(model.action.is_posted()),
                    Some(V2Path::Unimplemented) | None => None,
                    Some(other) => Some(other == V2Path::Index),
                }
            } else if path.starts_with("/v1") {
                match path::parse_v1(&path) {
                    Some(V1Path::OpenAi(call)) => Some(call.is_posted()),
                    Some(V1Path::Model(model)) => Some(model.action == crate::path::V1Action::Predict),
                    None => None,
                }
            } else if path == "/ping" || path == "/" {
                Some(false)
            } else {
                path::parse_predictions(&path).map(|_| true)
            };
            let method = is_posted.map(|is_posted| if is_posted { "post" } else { "get" });
            assert_eq!(methods, Vec::from_iter(method), "{path}");
        }
    }
}
