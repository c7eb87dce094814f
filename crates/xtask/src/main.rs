//! Chores that need more than cargo: the runtime library and the models of the demo and the tests.
#![forbid(unsafe_code)]

mod fetch;
mod packages;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of the Tenantry repository.
#[derive(Debug, Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Bring the runtime library and the models into the cache: pinned, hash-checked, skipped when already there.
    #[command(
        after_help = "Examples:\n  cargo xtask fetch\n  cargo xtask fetch --only runtime --cache ~/.cache/tenantry"
    )]
    Fetch {
        /// Where the files go.
        #[arg(long, value_name = "DIR")]
        cache: Option<PathBuf>,
        /// Fetch one part only.
        #[arg(long, value_enum)]
        only: Option<packages::Part>,
    },
}

fn main() -> ExitCode {
    let Arguments { chore: Chore::Fetch { cache, only } } = Arguments::parse();
    let cache = cache.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.cache")));
    match fetch::fetch(&cache, only) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
