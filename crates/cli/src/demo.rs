//! `demo`: a server with two tenants and real models, asked real questions through its public API.
//!
//! The server is the one `serve` runs, in this process; everything else goes through HTTP like any client's.

mod ask;
mod curl;
mod landscape;
mod material;
mod publish;
mod sound;
mod tell;

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use tenantry_server::config::{Config, LogFormat, Settings};

use self::material::Material;
use self::publish::Stage;
use crate::arguments::Demo;
use crate::client::Client;
use crate::logs;
use crate::output::print_json;
use crate::serve::{Process, Running};

/// The file with the first platform key, in the data folder.
const ADMIN_KEY_FILE: &str = tenantry_server::ADMIN_KEY_FILE;

/// Runs the demo; returns after the answers with `--once`, else when told to stop.
pub(crate) fn run(arguments: &Demo, json: bool) -> Result<()> {
    let material = Material::gather(arguments)?;
    let folder = tempfile::Builder::new().prefix("tenantry-demo-").tempdir().context("cannot make a folder")?;
    let data_dir = folder.path().join("data");
    let (settings, moved) = settings(&data_dir)?;
    let process = Process::start(&settings)?;
    let log = folder.path().join("server.log");
    logs::to_file(&settings.log, File::create(&log)?)?;
    let running = Running::start(process, settings)?;
    let sweeper = Sweeper::start(&running, folder.path())?;

    let server = format!("http://{}", running.address);
    if !json {
        tell::opening(&server, running.metrics_address, moved, &log);
    }
    let admin_key = std::fs::read_to_string(data_dir.join(ADMIN_KEY_FILE)).context("the first key is not there")?;
    let platform = Client::new(&server, Some(admin_key.trim()));
    let stage = Stage::set(&platform, admin_key.trim(), &material, json)?;
    let answers = ask::everything(&stage, &material)?;
    let lines = curl::write(&stage, &material, running.metrics_address, folder.path())?;
    if json {
        print_json(&answers)?;
    } else {
        tell::answers(&answers);
        tell::closing(&stage, &lines, arguments.once);
    }
    sweeper.retire();
    if arguments.once { running.stop() } else { running.until_told_to_stop() }
}

/// The defaults, in a folder of the demo's own, on free ports; says whether the usual ones were taken.
fn settings(data_dir: &Path) -> Result<(Settings, bool)> {
    let mut config = Config { data_dir: data_dir.to_owned(), ..Config::default() };
    let addresses = |config: &Config| (config.http.listen, config.http.grpc_listen, config.http.metrics_listen);
    let wanted = addresses(&config);
    config.http.listen = free_or_any(wanted.0);
    config.http.grpc_listen = free_or_any(wanted.1);
    config.http.metrics_listen = free_or_any(wanted.2);
    config.log.format = LogFormat::Json;
    let moved = addresses(&config) != wanted;
    Ok((Settings::from_config(&config)?, moved))
}

/// The address if it is free now, else the same with a port the system chooses.
fn free_or_any(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

/// Removes the demo's folder when a signal ends the demo before it is its turn to end in order.
struct Sweeper(Arc<AtomicBool>);

impl Sweeper {
    fn start(running: &Running, folder: &Path) -> Result<Self> {
        let retired = Arc::new(AtomicBool::new(false));
        let (folder, flag) = (folder.to_owned(), Arc::clone(&retired));
        running.on_signal(move || {
            if !flag.load(Ordering::Acquire) {
                // The process ends either way; a folder that cannot be removed stays.
                let _ = std::fs::remove_dir_all(&folder);
                std::process::exit(130);
            }
        })?;
        Ok(Self(retired))
    }

    fn retire(self) {
        self.0.store(true, Ordering::Release);
    }
}
