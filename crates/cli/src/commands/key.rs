//! `tenantry key`.

use anyhow::Result;
use tenantry_api::admin::types::{CreatedKey, Key, KeyRotation, Keys, NewKey};
use tenantry_types::TenantName;
use ureq::http::Method;

use super::tenant;
use crate::arguments::Key as Command;
use crate::client::Client;
use crate::output::{instant, print_json, print_table, table};

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Create { tenant, role, label, expires, models, actions, certificate } => {
            let new = NewKey {
                label: label.clone(),
                role: role.clone(),
                expires_in_seconds: expires.map(|span| span.as_secs().max(1)),
                models: (!models.is_empty()).then(|| models.iter().map(ToString::to_string).collect()),
                actions: (!actions.is_empty()).then(|| actions.iter().copied().collect()),
                certificate: certificate.clone(),
            };
            let created = create(client, tenant, &new)?;
            shown(&created, json)?;
        }
        Command::List { tenant } => {
            let keys: Keys = client.get(&keys_path(tenant))?;
            if json {
                return print_json(&keys);
            }
            let mut rows = table(&["id", "role", "confined to", "label", "created", "last used", "state"]);
            for key in &keys.keys {
                let created = instant(key.created_ms);
                let used = key.last_used_ms.map_or_else(|| "never".to_owned(), instant);
                rows.add_row([
                    key.id.to_string().as_str(),
                    key.role.as_str(),
                    &scope(key),
                    &key.label,
                    &created,
                    &used,
                    &state(key),
                ]);
            }
            print_table(&rows, "no keys");
        }
        Command::Rotate { tenant, key, overlap, expires } => {
            let rotation = KeyRotation {
                overlap_seconds: Some(overlap.as_secs()),
                expires_in_seconds: expires.map(|span| span.as_secs().max(1)),
            };
            let path = format!("{}/{key}/rotate", keys_path(tenant));
            let created: CreatedKey = client.send(Method::POST, &path, &rotation)?;
            shown(&created, json)?;
            if !json {
                eprintln!("the old key is accepted for {} more", humantime::format_duration(*overlap));
            }
        }
        Command::Revoke { tenant, key } => {
            client.delete(&format!("{}/{key}", keys_path(tenant)))?;
            eprintln!("key {key} revoked");
        }
    }
    Ok(())
}

/// Creates a key.
pub(crate) fn create(client: &Client, tenant: &TenantName, new: &NewKey) -> Result<CreatedKey> {
    client.send(Method::POST, &keys_path(tenant), new)
}

fn keys_path(tenant: &TenantName) -> String {
    format!("{}/keys", tenant::path(tenant))
}

fn shown(created: &CreatedKey, json: bool) -> Result<()> {
    if json {
        return print_json(created);
    }
    match &created.key {
        // The secret alone on standard output, so that it can be caught in a variable.
        Some(secret) => {
            println!("{secret}");
            eprintln!("this is the only time the key is shown; its id is {}", created.info.id);
        }
        None => eprintln!("key {}: whoever connects with that certificate holds it", created.info.id),
    }
    Ok(())
}

/// What a key is confined to.
fn scope(key: &Key) -> String {
    let models = key.models.iter().flatten().map(String::as_str);
    let actions = key.actions.iter().flatten().map(|action| action.as_str());
    let certificate = key.certificate.as_deref();
    models.chain(actions).chain(certificate).collect::<Vec<_>>().join(" ")
}

fn state(key: &Key) -> String {
    match (key.revoked_ms, key.expires_ms) {
        (Some(revoked_ms), _) => format!("revoked {}", instant(revoked_ms)),
        (None, Some(expires_ms)) => format!("until {}", instant(expires_ms)),
        (None, None) => "until revoked".to_owned(),
    }
}
