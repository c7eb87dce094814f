//! `tenantry model`.

mod import;
mod push;
mod show;

pub(crate) use push::{NewModelVersion, push};

use std::time::Duration;

use anyhow::Result;
use tenantry_api::admin::types::{
    AliasChange, Deployment, DeploymentChange, Model, ModelChange, Models, Sharing, VersionState,
};
use tenantry_types::{ModelRef, TenantName};
use ureq::http::Method;

use super::tenant;
use crate::arguments::Model as Command;
use crate::client::{Client, escape};
use crate::output::{Progress, confirm, print_json, print_table, table};

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Push(arguments) => {
            let version = push(client, &NewModelVersion::from_arguments(client, arguments)?, &Progress::new(json))?;
            if json {
                print_json(&version)?;
            } else if version.state == VersionState::Ready {
                show::print_pushed(&version);
            }
            push::ensure_ready(&version)
        }
        Command::Import(arguments) => import::run(client, arguments, json),
        Command::List { tenant, search, tag } => list(client, tenant.as_ref(), search.as_deref(), tag.as_ref(), json),
        Command::Show { model } => show::run(client, model, json),
        Command::Rm { model, version, yes } => remove(client, model, *version, *yes),
        Command::Alias { model, alias, version, remove: _ } => {
            let path = format!("{}/aliases/{alias}", path(client, model)?);
            match version {
                Some(version) => {
                    let _: serde_json::Value = client.send(Method::PUT, &path, &AliasChange { version: *version })?;
                    eprintln!("{model}: {alias} now means version {version}");
                }
                None => {
                    client.delete(&path)?;
                    eprintln!("{model}: alias {alias} removed");
                }
            }
            Ok(())
        }
        Command::Deploy {
            model,
            version,
            min_replicas,
            max_replicas,
            idle_after,
            default_timeout,
            cache,
            no_cache,
        } => {
            let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
            let path = format!("{}/deployment", path(client, model)?);
            let current: Deployment = client.get(&path)?;
            let change = DeploymentChange {
                generation: current.generation,
                version: version.or(current.version),
                min_replicas: min_replicas.unwrap_or(current.min_replicas),
                max_replicas: max_replicas.unwrap_or(current.max_replicas),
                idle_after_seconds: idle_after.map(|span| span.as_secs()).or(current.idle_after_seconds),
                default_timeout_ms: default_timeout.map(millis).or(current.default_timeout_ms),
                cache_ttl_ms: cache.map(millis).or(current.cache_ttl_ms.filter(|_| !*no_cache)),
            };
            let deployment: Deployment = client.send(Method::PUT, &path, &change)?;
            if json {
                return print_json(&deployment);
            }
            println!("{model}: {}", show::deployment_text(&deployment));
            Ok(())
        }
        Command::Set { model, min_isolation } => {
            let change = ModelChange { min_isolation: Some((*min_isolation).into()), ..ModelChange::default() };
            let changed = self::change(client, model, &change)?;
            if json {
                return print_json(&changed);
            }
            println!("{model}: {}", show::minimum_text(&changed));
            Ok(())
        }
        Command::Share { model, with, nobody } => {
            let (shared, shared_with) = match (*nobody, with.is_empty()) {
                (true, _) => (Sharing::Private, None),
                (false, true) => (Sharing::Everyone, None),
                (false, false) => (Sharing::Tenants, Some(with.iter().cloned().collect())),
            };
            let change = ModelChange { shared: Some(shared), shared_with, ..ModelChange::default() };
            let changed = self::change(client, model, &change)?;
            if json {
                return print_json(&changed);
            }
            println!("{model}: {}", show::sharing_text(&changed));
            Ok(())
        }
    }
}

/// Changes what is said of a model.
fn change(client: &Client, model: &ModelRef, change: &ModelChange) -> Result<Model> {
    client.send(Method::PATCH, &path(client, model)?, change)
}

/// A model's place in the admin API; a model without an owner is the key's tenant's.
pub(crate) fn path(client: &Client, model: &ModelRef) -> Result<String> {
    let owner = match &model.owner {
        Some(owner) => owner.clone(),
        None => tenant::own(client)?,
    };
    Ok(format!("{}/models/{}", tenant::path(&owner), model.name))
}

fn list(
    client: &Client,
    tenant: Option<&TenantName>,
    search: Option<&str>,
    tag: Option<&(String, String)>,
    json: bool,
) -> Result<()> {
    let owner = match tenant {
        Some(tenant) => tenant.clone(),
        None => tenant::own(client)?,
    };
    let mut query: Vec<String> = Vec::new();
    query.extend(search.map(|text| format!("search={}", escape(text))));
    query.extend(tag.map(|(key, value)| format!("tag={}", escape(&format!("{key}:{value}")))));
    let models: Models = client.get(&format!("{}/models?{}", tenant::path(&owner), query.join("&")))?;
    if json {
        return print_json(&models);
    }
    let mut rows = table(&["model", "deployed", "versions", "for", "description"]);
    for model in &models.models {
        rows.add_row([
            format!("{}/{}", model.owner, model.name),
            model.deployment.version.map_or_else(|| "nothing".to_owned(), |version| version.to_string()),
            model.versions.len().to_string(),
            show::sharing_text(model),
            model.description.clone(),
        ]);
    }
    print_table(&rows, &format!("{owner} has no such models"));
    Ok(())
}

fn remove(client: &Client, model: &ModelRef, version: Option<u32>, yes: bool) -> Result<()> {
    let path = path(client, model)?;
    match version {
        Some(version) => {
            client.delete(&format!("{path}/versions/{version}"))?;
            eprintln!("{model}: version {version} removed");
        }
        None => {
            confirm(&format!("Remove {model} with all its versions?"), yes)?;
            client.delete(&path)?;
            eprintln!("{model} removed");
        }
    }
    Ok(())
}
