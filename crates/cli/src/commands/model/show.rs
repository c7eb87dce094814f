//! `tenantry model show`: what is known of a model and its versions, in words.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tenantry_api::admin::types::{
    Deployment, Model, Profile, Sharing, Signature, Tensor, Version, VersionState, Versions,
};
use tenantry_types::ModelRef;

use super::path;
use crate::client::Client;
use crate::output::{instant, print_json, size, span};

#[derive(Serialize)]
struct Shown {
    model: Model,
    versions: Vec<Version>,
}

pub(super) fn run(client: &Client, model: &ModelRef, json: bool) -> Result<()> {
    let path = path(client, model)?;
    let model: Model = client.get(&path)?;
    let Versions { versions } = client.get(&format!("{path}/versions"))?;
    if json {
        return print_json(&Shown { model, versions });
    }
    println!("{}/{}", model.owner, model.name);
    line("description", &model.description);
    line("made with", &model.framework);
    line("needs", &model.dependencies.join(", "));
    line("tags", &pairs(model.tags.iter()));
    line("may use it", &sharing_text(&model));
    line("isolation", &minimum_text(&model));
    line("deployment", &deployment_text(&model.deployment));
    for alias in &model.aliases {
        line("alias", &format!("{} = version {}", alias.name, alias.version));
    }
    line("created", &instant(model.created_ms));
    for version in &versions {
        println!();
        print_version(version);
    }
    Ok(())
}

/// What `push` says of a version that is ready.
pub(super) fn print_pushed(version: &Version) {
    print_version(version);
    if version.deployed {
        println!("next: tenantry infer {}/{} --help", version.owner, version.model);
    }
}

fn print_version(version: &Version) {
    let deployed = if version.deployed { ", deployed" } else { "" };
    println!("{}/{} version {} ({}{deployed})", version.owner, version.model, version.number, state_text(version));
    line("description", &version.description);
    line("files", &format!("{}, {}", version.files.len(), size(version.bytes)));
    line("digest", &version.digest.to_string());
    line("tags", &pairs(version.tags.iter()));
    line("quality", &pairs(version.quality.iter()));
    line("created", &instant(version.created_ms));
    if let Some(signature) = &version.signature {
        print_signature(signature);
    }
    if let Some(profile) = &version.profile {
        print_profile(profile);
    }
    let residency = &version.residency;
    if residency.replicas_ready + residency.replicas_loading > 0 {
        line("loaded", &format!("{} ready, {} loading", residency.replicas_ready, residency.replicas_loading));
    }
    line("last failure", residency.last_failure.as_deref().unwrap_or_default());
    if let Some(reason) = &residency.quarantine_reason {
        let left = span(Duration::from_millis(residency.quarantine_ms.unwrap_or(0)));
        line("quarantined", &format!("for another {left}: {reason}"));
    }
}

fn print_signature(signature: &Signature) {
    let tensor = |tensor: &Tensor| format!("{} {} [{}]", tensor.name, tensor.datatype, tensor.dims.join(", "));
    for input in &signature.inputs {
        line("input", &tensor(input));
    }
    for output in &signature.outputs {
        line("output", &tensor(output));
    }
}

fn print_profile(profile: &Profile) {
    let nanos = |nanos: u64| span(Duration::from_nanos(nanos));
    let prepacked = if profile.prepack { ", weights prepacked" } else { "" };
    line("engine", &format!("ONNX Runtime {}, {} threads{prepacked}", profile.runtime, profile.threads));
    let loads = (nanos(profile.load_ns), nanos(profile.optimised_load_ns));
    line("load", &format!("{} as uploaded, {} optimised", loads.0, loads.1));
    line("memory", &format!("{} a copy", size(profile.resident_bytes)));
    let points: Vec<String> =
        profile.points.iter().map(|point| format!("{} rows in {}", point.rows, nanos(point.run_ns))).collect();
    line("measured", &points.join(", "));
    line("best batch", &if profile.can_batch { profile.best_batch.to_string() } else { "never joined".to_owned() });
}

fn state_text(version: &Version) -> String {
    match (version.state, &version.reason) {
        (VersionState::Ready, _) => "ready".to_owned(),
        (VersionState::Registering, _) => "registering".to_owned(),
        (VersionState::Refused, Some(reason)) => format!("refused: {reason}"),
        (VersionState::Refused, None) => "refused".to_owned(),
    }
}

/// A deployment in a few words.
pub(super) fn deployment_text(deployment: &Deployment) -> String {
    let version = deployment.version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
    let idle =
        deployment.idle_after_seconds.map_or_else(String::new, |seconds| format!(", idle for {seconds} s at most"));
    let cache = deployment.cache_ttl_ms.map_or_else(String::new, |ttl_ms| {
        format!(", answers kept for {}", humantime::format_duration(Duration::from_millis(ttl_ms)))
    });
    format!(
        "{version}, {} to {} replicas{idle}{cache} (generation {})",
        deployment.min_replicas, deployment.max_replicas, deployment.generation
    )
}

/// Who may use a model, in a few words.
pub(super) fn sharing_text(model: &Model) -> String {
    match model.shared {
        Sharing::Private => "its owner".to_owned(),
        Sharing::Everyone => "every tenant".to_owned(),
        Sharing::Tenants if model.shared_with.is_empty() => "some tenants".to_owned(),
        Sharing::Tenants => {
            let names: Vec<&str> = model.shared_with.iter().map(|tenant| tenant.as_str()).collect();
            format!("its owner and {}", names.join(", "))
        }
    }
}

/// How well its workers must be kept apart, in a few words.
pub(super) fn minimum_text(model: &Model) -> String {
    let (own, effective) = (model.min_isolation.as_str(), model.effective_min_isolation.as_str());
    format!("at least {effective} (its own minimum: {own})")
}

/// A line of a description; nothing where there is nothing to say.
fn line(label: &str, text: &str) {
    if !text.is_empty() {
        println!("  {label:13} {text}");
    }
}

fn pairs<V: std::fmt::Display>(pairs: impl Iterator<Item = (impl std::fmt::Display, V)>) -> String {
    pairs.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
}
