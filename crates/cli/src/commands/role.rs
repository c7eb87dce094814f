//! `tenantry role`.

use anyhow::Result;
use tenantry_api::admin::types::{CustomRole, RoleContent, Roles};
use tenantry_types::TenantName;
use ureq::http::Method;

use super::tenant;
use crate::arguments::RoleCommand as Command;
use crate::client::Client;
use crate::output::{print_json, print_table, table};

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Set { tenant, role, actions, models, description } => {
            let content = RoleContent {
                actions: actions.iter().copied().collect(),
                models: (!models.is_empty()).then(|| models.iter().cloned().collect()),
                description: description.clone(),
            };
            let made: CustomRole = client.send(Method::PUT, &format!("{}/{role}", roles_path(tenant)), &content)?;
            if json {
                return print_json(&made);
            }
            println!("role {role}: {}; give it with `tenantry key create {tenant} --role {role}`", actions_of(&made));
        }
        Command::List { tenant } => {
            let roles: Roles = client.get(&roles_path(tenant))?;
            if json {
                return print_json(&roles);
            }
            let mut rows = table(&["role", "actions", "models", "description"]);
            for role in &roles.roles {
                let models = role.content.models.as_ref().map_or_else(
                    || "all".to_owned(),
                    |models| models.iter().map(|model| model.as_str()).collect::<Vec<_>>().join(" "),
                );
                rows.add_row([role.name.as_str(), &actions_of(role), &models, &role.content.description]);
            }
            print_table(&rows, &format!("no roles of its own; there are {} everywhere", roles.built_in.join(", ")));
        }
        Command::Delete { tenant, role } => {
            client.delete(&format!("{}/{role}", roles_path(tenant)))?;
            eprintln!("role {role} deleted");
        }
    }
    Ok(())
}

fn roles_path(tenant: &TenantName) -> String {
    format!("{}/roles", tenant::path(tenant))
}

fn actions_of(role: &CustomRole) -> String {
    role.content.actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(" ")
}
