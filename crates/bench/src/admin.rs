//! The few calls of the admin API that the measurements need.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use ureq::Agent;

/// A client with the platform's key.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    agent: Agent,
    url: String,
    key: String,
}

impl Admin {
    pub(crate) fn new(url: String, key: String) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).build();
        Self { agent: config.into(), url, key }
    }

    fn checked(response: &mut ureq::http::Response<ureq::Body>) -> Result<Value> {
        let status = response.status();
        let body = response.body_mut().read_to_string()?;
        anyhow::ensure!(status.is_success(), "the server answered {status}: {body}");
        Ok(if body.is_empty() { Value::Null } else { serde_json::from_str(&body)? })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.post(format!("{}/admin/v1/{path}", self.url));
        Self::checked(&mut request.header("authorization", format!("Bearer {}", self.key)).send_json(body)?)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let request = self.agent.get(format!("{}/admin/v1/{path}", self.url));
        Self::checked(&mut request.header("authorization", format!("Bearer {}", self.key)).call()?)
    }

    fn put(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.put(format!("{}/admin/v1/{path}", self.url));
        Self::checked(&mut request.header("authorization", format!("Bearer {}", self.key)).send_json(body)?)
    }

    fn patch(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.agent.patch(format!("{}/admin/v1/{path}", self.url));
        Self::checked(&mut request.header("authorization", format!("Bearer {}", self.key)).send_json(body)?)
    }

    /// A tenant and a key that may invoke its models.
    pub(crate) fn tenant(&self, name: &str) -> Result<String> {
        self.post("tenants", &json!({"name": name}))?;
        let key = self.post(&format!("tenants/{name}/keys"), &json!({"label": "bench", "role": "invoker"}))?;
        Ok(key.get("key").and_then(Value::as_str).context("the answer has no key")?.to_owned())
    }

    /// Uploads a model file; answers its digest.
    pub(crate) fn upload(&self, tenant: &str, model: &[u8]) -> Result<String> {
        let request = self.agent.post(format!("{}/admin/v1/tenants/{tenant}/artefacts?filename=model.onnx", self.url));
        let request = request.header("authorization", format!("Bearer {}", self.key));
        let answer = Self::checked(&mut request.content_type("application/octet-stream").send(model)?)?;
        Ok(answer.get("digest").and_then(Value::as_str).context("the answer has no digest")?.to_owned())
    }

    /// Registers a version of an uploaded file and waits until it is ready; answers what the server knows of it.
    pub(crate) fn register(&self, tenant: &str, model: &str, digest: &str) -> Result<Value> {
        let body = json!({"artefact": digest, "filename": "model.onnx"});
        self.post(&format!("tenants/{tenant}/models/{model}/versions"), &body)?;
        self.wait_ready(tenant, model)
    }

    /// Registers without waiting.
    pub(crate) fn register_later(&self, tenant: &str, model: &str, digest: &str) -> Result<()> {
        let body = json!({"artefact": digest, "filename": "model.onnx"});
        self.post(&format!("tenants/{tenant}/models/{model}/versions"), &body).map(|_| ())
    }

    /// Waits until a model's first version is registered.
    pub(crate) fn wait_ready(&self, tenant: &str, model: &str) -> Result<Value> {
        loop {
            let version = self.get(&format!("tenants/{tenant}/models/{model}/versions/1?wait_ms=10000"))?;
            match version.get("state").and_then(Value::as_str) {
                Some("ready") => return Ok(version),
                Some("registering") => {}
                _ => anyhow::bail!("the model was refused: {version}"),
            }
        }
    }

    /// Lets everybody use a model.
    pub(crate) fn share(&self, tenant: &str, model: &str) -> Result<()> {
        self.patch(&format!("tenants/{tenant}/models/{model}"), &json!({"shared": "everyone"})).map(|_| ())
    }

    /// Lets a model be unloaded after a second of idleness.
    pub(crate) fn unload_when_idle(&self, tenant: &str, model: &str) -> Result<()> {
        let path = format!("tenants/{tenant}/models/{model}/deployment");
        let now = self.get(&path)?;
        let change = json!({
            "generation": now.get("generation"), "version": now.get("version"),
            "min_replicas": 0, "max_replicas": 1, "idle_after_seconds": 1,
        });
        self.put(&path, &change).map(|_| ())
    }
}
