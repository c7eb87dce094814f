//! The program `tenantry`: the server, the demo, and the clients of the public API.
#![forbid(unsafe_code)]

mod arguments;
mod client;
mod commands;
mod demo;
mod doctor;
mod logs;
mod output;
mod programs;
mod serve;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::arguments::{Arguments, Command};
use crate::client::{Client, Trust};
use crate::commands::{
    audit, bench, budget, config, encryption, infer, invoice, key, model, organisation, policy, price, role, status,
    tenant, usage, what_if,
};

// Not `tokio::main`: the spawner must start before any other thread exists.
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    let global = &arguments.global;
    // An empty variable means no key, as in most programs.
    let trust = Trust::read(global.ca.as_deref())?;
    let client = || Client::trusting(&global.server, global.key.as_deref().filter(|key| !key.is_empty()), &trust);
    match &arguments.command {
        Command::Serve(serve) => serve::run(serve)?,
        Command::Demo(demo) => demo::run(demo, global.json)?,
        Command::Doctor(file) => return doctor::run(file, global.json),
        Command::Status => status::run(&client(), global.json)?,
        Command::Tenant(command) => tenant::run(&client(), command, global.json)?,
        Command::Organisation(command) => organisation::run(&client(), command, global.json)?,
        Command::Policy(command) => policy::run(&client(), command, global.json)?,
        Command::Key(command) => key::run(&client(), command, global.json)?,
        Command::Role(command) => role::run(&client(), command, global.json)?,
        Command::Model(command) => model::run(&client(), command, global.json)?,
        Command::Audit(command) => return audit::run(&client(), command, global.json),
        Command::Encryption(command) => return encryption::run(&client(), command, global.json),
        Command::Usage(command) => usage::run(&client(), command, global.json)?,
        Command::Price(command) => price::run(&client(), command, global.json)?,
        Command::Invoice(command) => invoice::run(&client(), command, global.json)?,
        Command::Budget(command) => budget::run(&client(), command, global.json)?,
        Command::Infer(command) => infer::run(&client(), command, global.json)?,
        Command::Bench(command) => bench::run(&global.server, command, global.json)?,
        Command::WhatIf(question) => what_if::run(question, global.json)?,
        Command::Config(command) => config::run(command)?,
    }
    Ok(ExitCode::SUCCESS)
}
