//! `tenantry encryption`.

use std::process::ExitCode;

use anyhow::Result;
use tenantry_api::admin::types::{
    Encryption, EncryptionJob, EncryptionJobKind, EncryptionJobState, RekeyRequest, TenantEncryption,
};
use ureq::http::Method;

use super::tenant;
use crate::arguments::EncryptionCommand as Command;
use crate::client::Client;
use crate::output::{Progress, instant, print_json, print_table, size, table};

const PATH: &str = "/admin/v1/encryption";
/// How long one question for a job waits on the server before it is asked again, milliseconds.
const WAIT_MS: u32 = 500;

pub(crate) fn run(client: &Client, command: &Command, json: bool) -> Result<ExitCode> {
    match command {
        Command::Status { tenant: None } => status(&client.get(PATH)?, json)?,
        Command::Status { tenant: Some(name) } => of_tenant(&client.get(&path(name))?, json)?,
        Command::Rotate { tenant: Some(name), .. } => {
            of_tenant(&client.send(Method::POST, &format!("{}/rotation", path(name)), &())?, json)?;
        }
        Command::Rotate { tenant: None, .. } => {
            let job = client.send(Method::POST, &format!("{PATH}/master-key/rotation"), &())?;
            return to_its_end(client, job, json);
        }
        Command::Rekey { tenant } => {
            let wanted = RekeyRequest { tenant: tenant.clone() };
            let job = client.send(Method::POST, &format!("{PATH}/rekey"), &wanted)?;
            return to_its_end(client, job, json);
        }
        Command::NewKey => println!("{}", *tenantry_store::master::new_master_key()?),
    }
    Ok(ExitCode::SUCCESS)
}

fn path(tenant: &tenantry_types::TenantName) -> String {
    format!("{}/encryption", tenant::path(tenant))
}

fn status(now: &Encryption, json: bool) -> Result<()> {
    if json {
        return print_json(now);
    }
    let state = if now.enabled { "files are encrypted when they are written" } else { "files are not encrypted" };
    println!("{state}");
    match (&now.keeper, &now.master_key) {
        (Some(keeper), Some(key)) => println!("master key      {key} ({keeper})"),
        (Some(keeper), None) => println!("master key      none yet ({keeper})"),
        _ => {}
    }
    let behind = |count: u64, what: &str| if count == 0 { String::new() } else { format!(", {count} {what}") };
    println!("tenants' keys   {}{}", now.data_keys, behind(now.behind, "wrapped by an older master key"));
    if now.tenants_behind > 0 {
        println!("old keys        {} tenants; `tenantry encryption rekey` removes them", now.tenants_behind);
    }
    println!("in memory       {} files decrypted, {}", now.clear_files, size(now.clear_bytes));
    if let Some(job) = &now.job {
        println!("last job        {}", told(job));
    }
    Ok(())
}

fn of_tenant(now: &TenantEncryption, json: bool) -> Result<()> {
    if json {
        return print_json(now);
    }
    let mut rows = table(&["generation", "wrapped by", "made"]);
    for kept in &now.generations {
        rows.add_row([kept.generation.to_string(), kept.master_key.clone(), instant(kept.created_ms)]);
    }
    print_table(&rows, "no keys yet: the first file that is written makes one");
    println!(
        "\n{} files, {}: {} not encrypted, {} encrypted with an older key",
        now.files,
        size(now.bytes),
        now.plain,
        now.behind
    );
    Ok(())
}

/// Follows a job; fails where it did, and where a file could not be decrypted.
fn to_its_end(client: &Client, mut job: EncryptionJob, json: bool) -> Result<ExitCode> {
    let progress = Progress::new(json);
    let what = match job.kind {
        EncryptionJobKind::Rekey => "rekeying",
        EncryptionJobKind::Rewrap => "wrapping keys",
    };
    let bar = progress.count(what, job.total);
    let number = job.number;
    while job.state == EncryptionJobState::Running && job.number == number {
        bar.set_length(job.total);
        bar.set_position(job.done);
        job = client.get(&format!("{PATH}/job?wait_ms={WAIT_MS}"))?;
    }
    bar.finish_and_clear();
    if json {
        print_json(&job)?;
    } else {
        println!("{}", told(&job));
    }
    let is_good = job.state == EncryptionJobState::Done && job.damaged == 0;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A job in a sentence.
fn told(job: &EncryptionJob) -> String {
    let whose = job.tenant.as_ref().map_or_else(|| "every tenant".to_owned(), ToString::to_string);
    let state = match (job.state, &job.error) {
        (EncryptionJobState::Running, _) => "runs".to_owned(),
        (EncryptionJobState::Done, _) => "done".to_owned(),
        (EncryptionJobState::Failed, error) => {
            format!("stopped: {}; the same command goes on", error.as_deref().unwrap_or("see the server's log"))
        }
    };
    match job.kind {
        EncryptionJobKind::Rewrap => format!("master key: {} of {} keys wrapped anew; {state}", job.done, job.total),
        EncryptionJobKind::Rekey => {
            let damaged = match job.damaged {
                0 => String::new(),
                count => format!(", {count} damaged and left as they are"),
            };
            format!(
                "rekey of {whose}: {} of {} files written anew ({}){damaged}, {} old keys removed, {} left; {state}",
                job.rewritten,
                job.files,
                size(job.rewritten_bytes),
                job.generations_gone,
                job.generations_left
            )
        }
    }
}
