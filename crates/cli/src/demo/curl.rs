//! Lines to paste: real requests with real keys, their bodies written beside the demo's data.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use tenantry_oip::{Form, ReplyFormat};
use tenantry_types::InferRequest;

use super::ask::{request, texts};
use super::material::Material;
use super::publish::Stage;

/// A line and what it shows.
pub(super) struct Line {
    pub(super) shows: &'static str,
    pub(super) command: String,
}

/// Writes the bodies into `folder` and returns the lines that send them.
pub(super) fn write(stage: &Stage, material: &Material, metrics: SocketAddr, folder: &Path) -> Result<Vec<Line>> {
    let (server, acme, globex) = (&stage.server, &stage.acme.key, &stage.globex.key);
    let bearer = |key: &str| format!("-H 'Authorization: Bearer {key}'");
    let line = |shows, command| Line { shows, command };
    let get = |key: &str, path: &str| format!("curl -s {} {server}{path}", bearer(key));
    let picture = material.pictures.first().context("there is no picture")?;
    let picture = request("m", vec![texts("image", &[&picture.content])], &["label", "score"])?;
    let picture = write_body(folder, "picture.bin", &picture)?;
    let sound = material.sounds.first().context("there is no sound")?;
    let sound = write_body(folder, "sound.bin", &request("m", vec![texts("sound", &[&sound.content])], &["speech"])?)?;
    let binary = |key: &str, body: &Body, model: &str| {
        format!(
            "curl -s {} -H 'Inference-Header-Content-Length: {}' --data-binary @{} {server}/v2/models/{model}/infer",
            bearer(key),
            body.json_length,
            body.path
        )
    };
    let json = "-H 'Content-Type: application/json'";
    let body = |inputs: &str| format!("-d '{inputs}'");
    let sentence = r#"{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["A kitten naps on the couch."]}],"outputs":[{"name":"token_count"},{"name":"embedding"}]}"#;
    Ok(vec![
        line("whether the server is ready", format!("curl -s {server}/v2/health/ready")),
        line("what goes into a shared model and what comes out", get(acme, "/v2/models/platform/picture-safety")),
        line(
            "the meaning of a sentence as 384 numbers",
            format!("curl -s {} {json} {} {server}/v2/models/platform/sentences/infer", bearer(acme), body(sentence)),
        ),
        line("how safe the picture is, its file sent as it is", binary(acme, &picture, "platform/picture-safety")),
        line("where somebody speaks, the sound's file sent as it is", binary(globex, &sound, "platform/speech")),
        line("acme asking for globex's own model: there is no such thing", get(acme, "/v2/models/globex/sentences")),
        line("acme's models with what was measured", get(acme, "/admin/v1/tenants/acme/models/file-type/versions/1")),
        line("the server at a glance (the platform's key)", get(&stage.platform_key, "/admin/v1/status")),
        line("requests, latency, device time by tenant and model", format!("curl -s http://{metrics}/metrics")),
    ])
}

struct Body {
    path: String,
    json_length: usize,
}

fn write_body(folder: &Path, name: &str, request: &InferRequest) -> Result<Body> {
    // Answers in JSON, which a person can read.
    let encoded = tenantry_oip::encode_request(request, Form::Binary, &ReplyFormat::default())?;
    let body = encoded.body.to_contiguous();
    let path = folder.join(name);
    std::fs::write(&path, &body)?;
    Ok(Body { path: path.display().to_string(), json_length: encoded.json_length.unwrap_or(body.len()) })
}
