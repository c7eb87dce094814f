//! `tenantry organisation`.

use anyhow::Result;
use tenantry_api::admin::types::{NewOrganisation, Organisation, Organisations};
use ureq::http::Method;

use super::limits;
use crate::arguments::Organisation as Command;
use crate::client::Client;
use crate::output::{instant, print_json, print_table, table};

const PATH: &str = "/admin/v1/organisations";

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<()> {
    match command {
        Command::Create { name } => {
            let made: Organisation = client.send(Method::POST, PATH, &NewOrganisation { name: name.clone() })?;
            if json {
                return print_json(&made);
            }
            println!("organisation {name} created");
            println!("next: tenantry tenant limits TENANT --organisation {name}");
        }
        Command::List => {
            let all: Organisations = client.get(PATH)?;
            if json {
                return print_json(&all);
            }
            let mut rows = table(&["name", "created", "tenants"]);
            for organisation in &all.organisations {
                let tenants: Vec<&str> = organisation.tenants.iter().map(|tenant| tenant.as_str()).collect();
                rows.add_row([organisation.name.as_str(), &instant(organisation.created_ms), &tenants.join(", ")]);
            }
            print_table(&rows, "no organisations");
        }
        Command::Limits { name, limits } => limits::run(client, &format!("{PATH}/{name}/share"), limits, json)?,
        Command::Rm { name } => {
            client.delete(&format!("{PATH}/{name}"))?;
            eprintln!("organisation {name} removed");
        }
    }
    Ok(())
}
