//! `tenantry tenant`.

use anyhow::{Context as _, Result};
use tenantry_api::admin::types::{NewTenant, Tenant, TenantChange, TenantIsolation, Tenants};
use tenantry_types::TenantName;
use ureq::http::Method;

use super::limits;
use crate::arguments::Tenant as Command;
use crate::client::Client;
use crate::output::{confirm, instant, print_json, print_table, table};

const PATH: &str = "/admin/v1/tenants";

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Create { name } => {
            let tenant = create(client, name)?;
            if json {
                return print_json(&tenant);
            }
            println!("tenant {name} created");
            println!("next: tenantry key create {name} --role admin");
        }
        Command::List => {
            let tenants: Tenants = client.get(PATH)?;
            if json {
                return print_json(&tenants);
            }
            let mut rows = table(&["name", "id", "created", "isolation at least", ""]);
            for tenant in &tenants.tenants {
                let note = if tenant.operator { "the operator's" } else { "" };
                let minimum = tenant.isolation.minimum.as_str();
                let created = instant(tenant.created_ms);
                rows.add_row([tenant.name.as_str(), &tenant.id.to_string(), &created, minimum, note]);
            }
            print_table(&rows, "no tenants");
        }
        Command::Show { name } => {
            let shares = client.get(&format!("{}/shares", path(name)))?;
            if !json {
                print_isolation(&client.get(&path(name))?);
                println!();
            }
            limits::print_all(&shares, json)?;
        }
        Command::Set { name, min_isolation, platform_min_isolation } => {
            let change = TenantChange {
                min_isolation: min_isolation.map(Into::into),
                platform_min_isolation: platform_min_isolation.map(Into::into),
            };
            let tenant: Tenant = client.send(Method::PATCH, &path(name), &change)?;
            if json {
                return print_json(&tenant);
            }
            print_isolation(&tenant);
        }
        Command::Limits { name, model, key_id, limits } => {
            let place = match (model, key_id) {
                (Some(model), _) => {
                    let owner = model.owner.as_ref().unwrap_or(name);
                    format!("{}/deployments/{owner}/{}/share", path(name), model.name)
                }
                (None, Some(key)) => format!("{}/keys/{key}/share", path(name)),
                (None, None) => format!("{}/share", path(name)),
            };
            limits::run(client, &place, limits, json)?;
        }
        Command::Rm { name, yes } => {
            confirm(&format!("Remove tenant {name} with its keys, models and versions?"), *yes)?;
            client.delete(&path(name))?;
            eprintln!("tenant {name} removed");
        }
    }
    Ok(())
}

fn print_isolation(tenant: &Tenant) {
    let TenantIsolation { in_force, minimum, platform_minimum, own_minimum } = tenant.isolation;
    let (in_force, minimum) = (in_force.as_str(), minimum.as_str());
    let (platform, own) = (platform_minimum.as_str(), own_minimum.as_str());
    println!("tenant {}: isolation {in_force}, at least {minimum} (platform {platform}, own {own})", tenant.name);
    if tenant.isolation.in_force < tenant.isolation.minimum {
        println!("nothing of it is run: `tenantry doctor` names the barriers that are missing");
    }
}

/// Creates a tenant.
pub(crate) fn create(client: &Client, name: &TenantName) -> Result<Tenant> {
    client.send(Method::POST, PATH, &NewTenant { name: name.clone() })
}

/// A tenant's place in the API.
pub(crate) fn path(name: &TenantName) -> String {
    format!("{PATH}/{name}")
}

/// The tenant a key works in: the only one it sees, or the operator's for a platform key.
pub(crate) fn own(client: &Client) -> Result<TenantName> {
    let Tenants { tenants } = client.get(PATH)?;
    let own = match tenants.as_slice() {
        [only] => Some(only),
        several => several.iter().find(|tenant| tenant.operator),
    };
    Ok(own.context("the server names no tenant for this key; write the model as `owner/name`")?.name.clone())
}
