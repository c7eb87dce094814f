//! Lines to paste: real requests with real keys, their bodies written beside the demo's data.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use tenantry_oip::{Form, ReplyFormat};
use tenantry_types::InferRequest;

use super::ask::{Answers, picture_input, request, speech_inputs};
use super::material::Material;
use super::publish::Stage;

/// A line and what it shows.
pub(super) struct Line {
    pub(super) shows: &'static str,
    pub(super) command: String,
}

/// Writes the bodies into `folder` and returns the lines that send them.
pub(super) fn write(
    stage: &Stage,
    material: &Material,
    answers: &Answers,
    metrics: SocketAddr,
    folder: &Path,
) -> Result<Vec<Line>> {
    let (server, acme, globex) = (&stage.server, &stage.acme.key, &stage.globex.key);
    let bearer = |key: &str| format!("-H 'Authorization: Bearer {key}'");
    let line = |shows, command| Line { shows, command };
    let get = |key: &str, path: &str| format!("curl -s {} {server}{path}", bearer(key));
    let picture = material.pictures.first().context("there is no picture")?;
    let picture = write_body(folder, "picture.bin", &request("m", vec![picture_input(picture)?], &[])?, Form::Binary)?;
    let (frame, state) = &answers.sounds.first().context("there is no sound")?.clearest;
    let frame = request("m", speech_inputs(frame, state), &["output"])?;
    let frame = write_body(folder, "frame.json", &frame, Form::Json)?;
    Ok(vec![
        line("whether the server is ready", format!("curl -s {server}/v2/health/ready")),
        line("what goes into a shared model and what comes out", get(acme, "/v2/models/platform/picture-safety")),
        line(
            "how safe the picture is (safe, not safe), its pixels sent as a binary tensor",
            format!(
                "curl -s {} -H 'Inference-Header-Content-Length: {}' --data-binary @{} {server}/v2/models/platform/picture-safety/infer",
                bearer(acme),
                picture.json_length,
                picture.path
            ),
        ),
        line(
            "how surely a piece of the sound is speech, all in JSON",
            format!(
                "curl -s {} -H 'Content-Type: application/json' --data-binary @{} {server}/v2/models/platform/speech/infer",
                bearer(globex),
                frame.path
            ),
        ),
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

fn write_body(folder: &Path, name: &str, request: &InferRequest, form: Form) -> Result<Body> {
    // Answers in JSON, which a person can read.
    let encoded = tenantry_oip::encode_request(request, form, &ReplyFormat::default())?;
    let body = encoded.body.to_contiguous();
    let path = folder.join(name);
    std::fs::write(&path, &body)?;
    Ok(Body { path: path.display().to_string(), json_length: encoded.json_length.unwrap_or(body.len()) })
}
