//! The binary: `spawner` makes workers, `work` is one. Both are run by the server, never by hand.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use tenantry_jail::{Layers, Zygote};

/// The command line is wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [command, ..] if *command == "spawner" => {
            tenantry_jail::zygote_main(Zygote { prepare: tenantry_worker::prepare, work: tenantry_worker::work })
        }
        [command, option, library, other, layers]
            if *command == "work" && *option == "--runtime" && *other == "--layers" =>
        {
            match layers.to_str().and_then(|bits| bits.parse().ok()) {
                Some(bits) => ExitCode::from(tenantry_worker::work(Path::new(library), Layers::from_bits(bits))),
                None => ExitCode::from(EXIT_USAGE),
            }
        }
        [option] if *option == "--version" => {
            println!("tenantry-worker {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("tenantry-worker is started by `tenantry serve`; there is nothing to do with it by hand");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
