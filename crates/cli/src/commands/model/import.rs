//! `tenantry model import`: what lies in another server's folder becomes models here, and each setting is accounted for.

mod upload;

use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use tenantry_api::admin::types::{Deployment, DeploymentChange, Signature, Tensor, Version, VersionState, Versions};
use tenantry_import::declared::{self, Registered};
use tenantry_import::folder::{self, Kind};
use tenantry_import::manifest::{self, Stage};
use tenantry_import::{Finding, Outcome, Plan, model_name, shown};
use tenantry_types::{ModelRef, TenantName};
use ureq::http::Method;

use crate::arguments::Import;
use crate::client::{Client, Refused};
use crate::commands::tenant;
use crate::output::{Progress, print_json, print_table, table};

/// What became of everything.
#[derive(Serialize)]
struct Report {
    dry_run: bool,
    models: Vec<Imported>,
}

/// What became of one model.
#[derive(Serialize)]
struct Imported {
    /// The name of its folder.
    source: String,
    kind: Kind,
    /// What it is called here.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    outcome: ModelOutcome,
    /// Why it was skipped or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    versions: Vec<ImportedVersion>,
    /// Versions of the folder that its settings do not serve.
    left_out: Vec<u64>,
    /// The version that gets the traffic now.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployed: Option<u32>,
    settings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ModelOutcome {
    /// Would be imported.
    Planned,
    /// At least one version is new.
    Imported,
    /// Everything was there.
    Exists,
    /// Nothing that is served here.
    Skipped,
    /// It should have been imported and could not be.
    Failed,
}

/// What became of one version.
#[derive(Serialize)]
struct ImportedVersion {
    /// Its number in the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<u64>,
    /// Its number here.
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    outcome: VersionOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    files: usize,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum VersionOutcome {
    /// Would be uploaded, unless it is there already.
    Planned,
    /// It was uploaded and can be served.
    Created,
    /// The same files with the same settings are there.
    Exists,
    /// Its registration said no.
    Refused,
}

/// Imports what lies at the path, and says what became of it.
pub(super) fn run(client: &Client, arguments: &Import, json: bool) -> Result<()> {
    let mut models = folder::models(&arguments.path)?;
    // What a chain names comes before it.
    models.sort_by_cached_key(|model| model.plan().is_ok_and(|plan| plan.chain.is_some()));
    if arguments.name.is_some() && models.len() > 1 {
        bail!(
            "there are {} models in the folder, and --name names one\nhint: name the folder of one of them",
            models.len()
        );
    }
    let owner =
        match (arguments.dry_run, &arguments.tenant, arguments.name.as_ref().and_then(|name| name.owner.as_ref())) {
            (_, Some(owner), _) | (_, _, Some(owner)) => Some(owner.clone()),
            (true, None, None) => None,
            (false, None, None) => Some(tenant::own(client)?),
        };
    let progress = Progress::new(json);
    let mut report = Report { dry_run: arguments.dry_run, models: Vec::new() };
    for model in &models {
        let imported = import(client, arguments, owner.as_ref(), model, &progress);
        if !json {
            progress.suspend(|| print(&imported));
        }
        report.models.push(imported);
    }
    if json {
        print_json(&report)?;
    }
    conclude(&report)
}

/// An error unless everything that is served here was imported, and that is something.
fn conclude(report: &Report) -> Result<()> {
    let count = |outcome: ModelOutcome| report.models.iter().filter(|model| model.outcome == outcome).count();
    match (count(ModelOutcome::Failed), count(ModelOutcome::Skipped), report.models.len()) {
        (0, skipped, all) if skipped == all => bail!("nothing could be imported"),
        (0, ..) => Ok(()),
        (failed, _, all) => {
            let first = report.models.iter().find(|model| model.outcome == ModelOutcome::Failed);
            let first = first.map(|model| format!("{}: {}", model.source, model.reason.as_deref().unwrap_or_default()));
            bail!("{failed} of {all} models could not be imported; {}", first.unwrap_or_default())
        }
    }
}

fn import(
    client: &Client,
    arguments: &Import,
    owner: Option<&TenantName>,
    model: &folder::Model,
    progress: &Progress,
) -> Imported {
    let mut imported = Imported {
        source: shown(&model.name),
        kind: model.kind,
        model: None,
        outcome: ModelOutcome::Failed,
        reason: None,
        versions: Vec::new(),
        left_out: Vec::new(),
        deployed: None,
        settings: Vec::new(),
    };
    let outcome = try_import(client, arguments, owner, model, progress, &mut imported);
    match outcome {
        Ok(outcome) => imported.outcome = outcome,
        Err(error) => imported.reason = Some(format!("{error:#}")),
    }
    imported
}

fn try_import(
    client: &Client,
    arguments: &Import,
    owner: Option<&TenantName>,
    model: &folder::Model,
    progress: &Progress,
    imported: &mut Imported,
) -> Result<ModelOutcome> {
    let plan = model.plan()?;
    imported.settings.clone_from(&plan.findings);
    if let Some(reason) = &plan.skipped {
        imported.reason = Some(reason.clone());
        return Ok(ModelOutcome::Skipped);
    }
    let (mut versions, left_out) = model.versions(&plan)?;
    imported.left_out = left_out;
    let name = match &arguments.name {
        Some(name) => name.name.clone(),
        None => match model_name(&model.name) {
            Some(name) => name,
            None => bail!("its folder's name cannot be made a name here; give one with --name"),
        },
    };
    let name = ModelRef { owner: owner.cloned(), name };
    imported.model = Some(name.to_string());
    if arguments.dry_run {
        imported.versions.extend(versions.iter().map(planned));
        imported.settings.extend(declared::announce("input", &plan.inputs));
        imported.settings.extend(declared::announce("output", &plan.outputs));
        return Ok(ModelOutcome::Planned);
    }

    if let Some(chain) = &plan.chain {
        let manifest = manifest::of_chain(&plan, chain, |stage| stage_here(client, owner, stage).map_err(Unchained))
            .map_err(|Unchained(error)| error)?;
        for version in &mut versions {
            version.files = vec![folder::File::of_text(manifest::FILE_NAME, manifest.clone())];
        }
    }
    let known = known_versions(client, &name)?;
    let mut ready: Vec<Version> = Vec::new();
    for version in &versions {
        let (outcome, registered) = match upload::find(version, &plan, &known)? {
            Some(existing) => (VersionOutcome::Exists, existing),
            None => (VersionOutcome::Created, upload::push(client, &name, model.kind, version, &plan, progress)?),
        };
        let is_ready = registered.state == VersionState::Ready;
        imported.versions.push(ImportedVersion {
            number: Some(registered.number),
            outcome: if is_ready { outcome } else { VersionOutcome::Refused },
            reason: registered.reason.clone(),
            ..planned(version)
        });
        if is_ready {
            ready.push(registered);
        }
    }
    // They were taken in the order of their numbers there, and the last is the one that serves.
    if let Some(newest) = ready.last() {
        if let Some(signature) = &newest.signature {
            imported.settings.extend(compare(&plan, signature));
        }
        if !arguments.no_deploy {
            imported.deployed = deploy(client, &name, newest.number, &plan, arguments.cache_ttl)?.version;
        }
    }
    let all = |outcome: VersionOutcome| imported.versions.iter().all(|version| version.outcome == outcome);
    if imported.versions.iter().any(|version| version.outcome == VersionOutcome::Refused) {
        bail!("a version was refused at registration");
    }
    Ok(if all(VersionOutcome::Exists) { ModelOutcome::Exists } else { ModelOutcome::Imported })
}

fn planned(version: &folder::Version) -> ImportedVersion {
    ImportedVersion {
        source: version.number,
        number: None,
        outcome: VersionOutcome::Planned,
        reason: None,
        files: version.files.len(),
        bytes: version.files.iter().map(|file| file.bytes).sum(),
    }
}

/// The versions a model has already; none if it does not exist.
fn known_versions(client: &Client, model: &ModelRef) -> Result<Vec<Version>> {
    match client.get::<Versions>(&format!("{}/versions", super::path(client, model)?)) {
        Ok(versions) => Ok(versions.versions),
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Why there is no chain.
struct Unchained(anyhow::Error);

impl From<String> for Unchained {
    fn from(reason: String) -> Self {
        Self(anyhow::Error::msg(reason))
    }
}

/// What a stage of a chain is called here: its model, and the number that its version got.
fn stage_here(client: &Client, owner: Option<&TenantName>, stage: &Stage) -> Result<(String, Option<u32>)> {
    let shown = shown(&stage.model);
    let Some(name) = model_name(&stage.model) else { bail!("its stage `{shown}` has no name that can be one here") };
    let model = ModelRef { owner: owner.cloned(), name };
    let known = known_versions(client, &model)?;
    if known.is_empty() {
        bail!("it chains `{shown}`, and there is no model {model}; import that, too");
    }
    let Some(wanted) = stage.version else { return Ok((model.name.to_string(), None)) };
    let origin = wanted.to_string();
    let version = known.iter().rev().find(|version| version.tags.get(upload::VERSION_TAG) == Some(&origin));
    match version {
        Some(version) => Ok((model.name.to_string(), Some(version.number))),
        None => bail!("it chains version {wanted} of `{shown}`, and none of {model} was imported from that"),
    }
}

/// Makes the deployment what the settings say; what they do not say stays.
fn deploy(client: &Client, model: &ModelRef, version: u32, plan: &Plan, cache_ttl: Duration) -> Result<Deployment> {
    let path = format!("{}/deployment", super::path(client, model)?);
    let current: Deployment = client.get(&path)?;
    let max_replicas = plan.max_replicas.unwrap_or(current.max_replicas);
    let ttl_ms = u64::try_from(cache_ttl.as_millis()).unwrap_or(u64::MAX).max(1);
    let change = DeploymentChange {
        generation: current.generation,
        version: Some(version),
        min_replicas: plan.min_replicas.unwrap_or(current.min_replicas).min(max_replicas),
        max_replicas,
        idle_after_seconds: current.idle_after_seconds,
        default_timeout_ms: current.default_timeout_ms,
        cache_ttl_ms: if plan.keeps_answers { Some(ttl_ms) } else { current.cache_ttl_ms },
    };
    let is_so = Some(version) == current.version
        && (change.min_replicas, change.max_replicas) == (current.min_replicas, current.max_replicas)
        && change.cache_ttl_ms == current.cache_ttl_ms;
    if is_so { Ok(current) } else { client.send(Method::PUT, &path, &change) }
}

/// What the folder declares, against what registration found in the model's file.
fn compare(plan: &Plan, signature: &Signature) -> Vec<Finding> {
    let inputs: Vec<Registered<'_>> = signature.inputs.iter().map(registered).collect();
    let outputs: Vec<Registered<'_>> = signature.outputs.iter().map(registered).collect();
    let mut findings = declared::compare("input", &plan.inputs, &inputs);
    findings.extend(declared::compare("output", &plan.outputs, &outputs));
    findings
}

fn registered(tensor: &Tensor) -> Registered<'_> {
    Registered { name: &tensor.name, datatype: &tensor.datatype, shape: &tensor.shape }
}

fn print(imported: &Imported) {
    let kind = match imported.kind {
        Kind::Triton => "Triton",
        Kind::Mlflow => "MLflow",
    };
    let outcome = match imported.outcome {
        ModelOutcome::Planned => "would be imported",
        ModelOutcome::Imported => "imported",
        ModelOutcome::Exists => "is there already",
        ModelOutcome::Skipped => "skipped",
        ModelOutcome::Failed => "failed",
    };
    let name = imported.model.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
    let reason = imported.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    println!("{} ({kind}) {outcome}{name}{reason}", imported.source);
    for version in &imported.versions {
        println!("  {}", version_text(version));
    }
    if !imported.left_out.is_empty() {
        println!("  not served there, so not imported: versions {:?}", imported.left_out);
    }
    if let Some(version) = imported.deployed {
        println!("  version {version} gets the traffic");
    }
    if !imported.settings.is_empty() {
        let mut rows = table(&["setting", "value", "", "became"]);
        for Finding { setting, value, outcome, note } in &imported.settings {
            let outcome = match outcome {
                Outcome::Applied => "set",
                Outcome::Compared => "checked",
                Outcome::Differs => "differs",
                Outcome::Ignored => "ignored",
            };
            rows.add_row([setting.as_str(), value, outcome, note]);
        }
        print_table(&rows, "");
    }
    println!();
}

fn version_text(version: &ImportedVersion) -> String {
    let source = version.source.map_or_else(|| "the model".to_owned(), |number| format!("version {number}"));
    let number = version.number.unwrap_or(0);
    let reason = version.reason.as_deref().unwrap_or("no reason was given");
    match version.outcome {
        VersionOutcome::Planned => {
            format!("{source}: {} files, {}", version.files, crate::output::size(version.bytes))
        }
        VersionOutcome::Created => format!("{source} became version {number}"),
        VersionOutcome::Exists => format!("{source} is version {number}"),
        VersionOutcome::Refused => format!("{source} became version {number} and was refused: {reason}"),
    }
}
