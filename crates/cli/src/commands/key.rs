//! `tenantry key`.

use anyhow::Result;
use tenantry_api::admin::types::{CreatedKey, Key, Keys, NewKey, Role};
use tenantry_types::TenantName;
use ureq::http::Method;

use super::tenant;
use crate::arguments::{Key as Command, KeyRole};
use crate::client::Client;
use crate::output::{instant, print_json, print_table, table};

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Create { tenant, role, label, expires } => {
            let new = NewKey {
                label: label.clone(),
                role: api_role(*role),
                expires_in_seconds: expires.map(|span| span.as_secs().max(1)),
            };
            let created = create(client, tenant, &new)?;
            if json {
                return print_json(&created);
            }
            // The secret alone on standard output, so that it can be caught in a variable.
            println!("{}", created.key);
            eprintln!("this is the only time the key is shown; its id is {}", created.info.id);
        }
        Command::List { tenant } => {
            let keys: Keys = client.get(&keys_path(tenant))?;
            if json {
                return print_json(&keys);
            }
            let mut rows = table(&["id", "role", "label", "created", "state"]);
            for key in &keys.keys {
                let created = instant(key.created_ms);
                rows.add_row([key.id.to_string().as_str(), role_name(key.role), &key.label, &created, &state(key)]);
            }
            print_table(&rows, "no keys");
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

fn api_role(role: KeyRole) -> Role {
    match role {
        KeyRole::Invoker => Role::Invoker,
        KeyRole::Admin => Role::Admin,
        KeyRole::PlatformAdmin => Role::PlatformAdmin,
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Invoker => "invoker",
        Role::Admin => "admin",
        Role::PlatformAdmin => "platform-admin",
    }
}

fn state(key: &Key) -> String {
    match (key.revoked_ms, key.expires_ms) {
        (Some(revoked_ms), _) => format!("revoked {}", instant(revoked_ms)),
        (None, Some(expires_ms)) => format!("until {}", instant(expires_ms)),
        (None, None) => "until revoked".to_owned(),
    }
}
