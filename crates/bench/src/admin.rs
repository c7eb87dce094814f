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

    /// Makes something at a path of the admin API; answers what it says of it.
    pub(crate) fn add(&self, path: &str, body: &Value) -> Result<Value> {
        self.post(path, body)
    }

    /// Sets something at a path of the admin API.
    pub(crate) fn set(&self, path: &str, body: &Value) -> Result<()> {
        self.put(path, body).map(|_| ())
    }

    /// A token for the holder of a key.
    pub(crate) fn token(&self, id: &str, secret: &str) -> Result<String> {
        let form = [("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)];
        let answer = Self::checked(&mut self.agent.post(format!("{}/oauth2/token", self.url)).send_form(form)?)?;
        Ok(answer.get("access_token").and_then(Value::as_str).context("the answer has no token")?.to_owned())
    }

    /// The operator's tenant, whose published models serve every tenant from one worker.
    pub(crate) fn operator(&self) -> Result<String> {
        let all = self.get("tenants")?;
        let tenants = all.get("tenants").and_then(Value::as_array).context("the answer has no tenants")?;
        let is_operator = |tenant: &&Value| tenant.get("operator").and_then(Value::as_bool) == Some(true);
        let operator = tenants.iter().find(is_operator).context("the server has no operator's tenant")?;
        Ok(operator.get("name").and_then(Value::as_str).context("a tenant without a name")?.to_owned())
    }

    /// Switches the scheduler's policy, while the server runs.
    pub(crate) fn policy(&self, policy: &str) -> Result<()> {
        self.put("system/policy", &json!({"policy": policy})).map(|_| ())
    }

    /// Gives a tenant these settings and no others.
    pub(crate) fn settle(&self, tenant: &str, settings: &Value) -> Result<()> {
        self.put(&format!("tenants/{tenant}/share"), &json!({"settings": settings})).map(|_| ())
    }

    /// Prices for everybody.
    pub(crate) fn add_prices(&self, plan: &Value) -> Result<()> {
        self.post("prices", plan).map(|_| ())
    }

    /// The device time a tenant's requests have used so far, seconds, by the server's own metrics.
    pub(crate) fn device_seconds(&self, tenant: &str) -> Result<f64> {
        let request = self.agent.get(format!("{}/admin/v1/metrics", self.url));
        let mut response = request.header("authorization", format!("Bearer {}", self.key)).call()?;
        let status = response.status();
        let text = response.body_mut().read_to_string()?;
        anyhow::ensure!(status.is_success(), "the server answered {status}: {text}");
        Ok(device_seconds_in(&text, tenant))
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

    /// Uploads an archive of a model with its manifest, registers it and waits until it is ready.
    pub(crate) fn register_archive(&self, tenant: &str, model: &str, archive: &[u8]) -> Result<Value> {
        let digest = self.upload(tenant, archive)?;
        let body = json!({"artefact": digest, "filename": "model.tar"});
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
                _ => {
                    let reason = version.get("reason").and_then(Value::as_str).unwrap_or("without a reason");
                    anyhow::bail!("the model was refused: {reason}")
                }
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

/// The sum of a tenant's series, whatever model they are of.
fn device_seconds_in(metrics: &str, tenant: &str) -> f64 {
    let label = format!("tenant=\"{tenant}\"");
    let series = metrics.lines().filter(|line| line.starts_with("tenantry_device_time_seconds_total{"));
    series
        .filter_map(|line| line.split_once('}'))
        .filter(|(labels, _)| labels.contains(&label))
        .filter_map(|(_, value)| value.split_whitespace().next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::device_seconds_in;

    #[test]
    fn a_tenants_series_are_added_up() {
        let metrics = "# TYPE tenantry_device_time_seconds counter\n\
                       tenantry_device_time_seconds_total{tenant=\"a\",model=\"p/x\"} 1.5\n\
                       tenantry_device_time_seconds_total{tenant=\"a\",model=\"p/y\"} 0.25\n\
                       tenantry_device_time_seconds_total{tenant=\"ab\",model=\"p/y\"} 7\n";
        assert_eq!(device_seconds_in(metrics, "a"), 1.75);
        assert_eq!(device_seconds_in(metrics, "c"), 0.0);
    }
}
