//! `doctor`: what this machine has, what is missing, and what to do about it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tenantry_api::Tls;
use tenantry_jail::{Layer, Level};
use tenantry_server::config::{LogFormat, LogSettings, Settings, TlsSettings};
use tokio::sync::Notify;

use crate::arguments::ConfigFile;
use crate::client::Client;
use crate::output::print_json;
use crate::serve::{self, Process};
use crate::{logs, programs};

/// How long a database server may take to accept a connection.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long what a dying worker wrote may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How long whoever has our port may take to say who he is.
const PORT_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    state: State,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    fn new(name: &'static str, state: State, detail: impl Into<String>) -> Self {
        Self { name, state, detail: detail.into(), hint: None }
    }

    /// From a result whose error may end with a line `hint: ...`.
    fn of(name: &'static str, result: Result<String>) -> Self {
        match result {
            Ok(detail) => Self::new(name, State::Ok, detail),
            Err(error) => {
                let text = format!("{error:#}");
                let (detail, hint) = match text.split_once("\nhint: ") {
                    Some((detail, hint)) => (detail.to_owned(), Some(hint.to_owned())),
                    None => (text, None),
                };
                Self { name, state: State::Failed, detail, hint }
            }
        }
    }
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

/// Looks at everything a server needs; the exit code says whether one would start.
pub(crate) fn run(file: &ConfigFile, json: bool) -> Result<ExitCode> {
    let settings = Settings::from_config(&serve::read_config(file.config.as_deref())?)?;
    // The spawner must start before any thread exists, and the looks below make some.
    let process = Process::start(&settings);
    let mut checks = vec![
        Check::of("engine library", library(&settings)),
        Check::of("worker program", worker_program(&settings)),
        isolation(process.as_ref().ok(), &settings),
        worker(process, &settings),
        data_folder(&settings.data_dir),
        database(&settings),
        Check::of("master key", master_key(&settings)),
    ];
    checks.push(port("port", settings.http.listen));
    checks.push(port("gRPC port", settings.http.grpc_listen));
    checks.push(port("metrics port", settings.http.metrics_listen));
    checks.extend(settings.http.tls.as_ref().map(|tls| Check::of("certificate", certificate(tls))));
    let report = Report { ok: checks.iter().all(|check| check.state != State::Failed), checks };
    if json {
        print_json(&report)?;
    } else {
        print(&report);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the master key is there; what it wrapped is looked at when a server starts.
fn master_key(settings: &Settings) -> Result<String> {
    let encryption = settings.encryption.open()?;
    let state = if encryption.is_on { "files are encrypted" } else { "files are not encrypted" };
    Ok(format!("{state}; kept in: {}", encryption.master_key.kind()))
}

fn print(report: &Report) {
    for check in &report.checks {
        let state = match check.state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "FAILED",
        };
        println!("{state:8} {:15} {}", check.name, check.detail);
        if let Some(hint) = &check.hint {
            println!("{:24} hint: {hint}", "");
        }
    }
    let has_warnings = report.checks.iter().any(|check| check.state == State::Warning);
    println!(
        "\n{}",
        match (report.ok, has_warnings) {
            (true, false) => "a server would start here",
            (true, true) => "a server would start here once the warnings are seen to",
            (false, _) => "a server would not start here",
        }
    );
}

fn library(settings: &Settings) -> Result<String> {
    Ok(programs::engine_library(settings.engine_library.as_deref())?.display().to_string())
}

fn certificate(tls: &TlsSettings) -> Result<String> {
    Tls::open(tls.clone())?;
    Ok(format!("{} and its key go together", tls.certificate.display()))
}

fn worker_program(settings: &Settings) -> Result<String> {
    Ok(programs::worker_binary(settings.workers.binary.as_deref())?.display().to_string())
}

/// Says how well workers are kept apart here, as tried by the spawner, and whether that is enough for the settings.
fn isolation(process: Option<&Process>, settings: &Settings) -> Check {
    const NAME: &str = "isolation";
    let Some(process) = process else {
        return Check::new(NAME, State::Failed, "cannot be tried without what is missing above");
    };
    let barriers = process.barriers();
    let in_force = barriers.in_force.and(settings.workers.layers);
    let level = in_force.level();
    let names: Vec<&str> = in_force.iter().map(Layer::name).collect();
    let mut detail = format!("{level} ({})", if names.is_empty() { "no barrier".to_owned() } else { names.join(", ") });
    for layer in barriers.in_force.iter().filter(|layer| !in_force.has(*layer)) {
        detail.push_str(&format!("; without {layer}: switched off by `workers.without`"));
    }
    for (layer, why) in &barriers.not_in_force {
        detail.push_str(&format!("; without {layer}: {why}"));
    }
    let wanted = settings.workers.min_isolation;
    detail.push_str(&format!("; at least {wanted} demanded by the settings"));
    let mut check = Check::new(NAME, State::Ok, detail);
    if level < wanted {
        check.state = State::Failed;
        check.hint = Some(format!("`workers.min_isolation` demands `{wanted}`: see to what is missing, or lower it"));
    } else if level < Level::Isolated {
        check.state = State::Warning;
        check.hint = Some(
            "models of different tenants are only as far apart as processes are; see docs/isolation.md".to_owned(),
        );
    }
    check
}

/// Starts a real worker, which loads the library and says its version.
fn worker(process: Result<Process>, settings: &Settings) -> Check {
    const NAME: &str = "worker";
    let process = match process {
        Ok(process) => process,
        // The checks of the library and the program say the rest, unless it is neither.
        Err(_) if library(settings).is_err() || worker_program(settings).is_err() => {
            return Check::new(NAME, State::Failed, "cannot be started without what is missing above");
        }
        Err(error) => return Check::of(NAME, Err(error)),
    };
    // What a worker complains of reaches us as log lines; they are the best explanation there is.
    let lines = Lines::default();
    let log = LogSettings { filter: "warn,tenantry_node::stderr=debug".to_owned(), format: LogFormat::Text };
    let heard = lines.clone();
    let probe = || -> Result<String> {
        logs::install(&log, move || heard.clone(), false)?;
        let runtime = serve::runtime()?;
        let probed = runtime.block_on(async {
            let node = process.start_node(settings)?;
            let info = node.probe().await;
            if info.is_err() {
                // Its last words may still be on their way through the pipe.
                let _ = tokio::time::timeout(LAST_WORDS, lines.said.notified()).await;
            }
            node.drain(Duration::ZERO).await;
            anyhow::Ok(info)
        })?;
        runtime.shutdown_timeout(Duration::from_secs(1));
        let info = probed?;
        Ok(format!("starts and loads ONNX Runtime {} ({})", info.version, info.cpu))
    };
    let mut check = Check::of(NAME, probe());
    if check.state == State::Failed {
        if let Some(words) = lines.last_words() {
            check.detail = format!("it does not start: {words}");
        }
        check.hint = Some(format!("if the library is damaged or too old: {}", programs::LIBRARY_HINT));
    }
    check
}

/// Log lines kept in memory.
#[derive(Debug, Clone, Default)]
struct Lines {
    text: Arc<Mutex<Vec<u8>>>,
    said: Arc<Notify>,
}

impl Lines {
    const MAX_BYTES: usize = 64 << 10;
    /// What stands before the words of a worker in the line that relays them.
    const MARK: &str = "text=";

    fn last_words(&self) -> Option<String> {
        let bytes = self.text.lock().ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let words = text.lines().rev().find_map(|line| line.split_once(Self::MARK));
        words.map(|(_, words)| words.to_owned())
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Ok(mut bytes) = self.text.lock()
            && bytes.len() + line.len() <= Self::MAX_BYTES
        {
            bytes.extend_from_slice(line);
            // Other lines, such as that of the worker's death, may overtake its words.
            if String::from_utf8_lossy(line).contains(Self::MARK) {
                self.said.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether files can be made in the data folder, or the folder itself can be made. Leaves nothing behind.
fn data_folder(folder: &Path) -> Check {
    const NAME: &str = "data folder";
    let shown = folder.display();
    // A folder that does not exist yet is made by the server, inside the nearest that does.
    let existing = folder.ancestors().find(|path| path.exists() || path.as_os_str().is_empty());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match tempfile::tempfile_in(existing) {
        Ok(_) if existing == folder => Check::new(NAME, State::Ok, format!("{shown} is writable")),
        Ok(_) => Check::new(NAME, State::Ok, format!("{shown} does not exist yet; the server will make it")),
        Err(error) => Check {
            hint: Some("choose another with `data_dir` in the configuration or `tenantry serve --data-dir`".to_owned()),
            ..Check::new(NAME, State::Failed, format!("{shown} is not writable: {error}"))
        },
    }
}

/// Whether a database server answers; the built-in database needs none.
fn database(settings: &Settings) -> Check {
    const NAME: &str = "database";
    let Some(url) = settings.database_url.as_deref() else {
        return Check::new(NAME, State::Ok, "SQLite, in the data folder");
    };
    let Some(address) = postgres_address(url) else {
        return Check::new(NAME, State::Ok, "SQLite, as configured");
    };
    let reached = address.to_socket_addrs().map_err(anyhow::Error::new).and_then(|mut addresses| {
        let first = addresses.next().ok_or_else(|| anyhow::anyhow!("its name has no address"))?;
        Ok(std::net::TcpStream::connect_timeout(&first, DATABASE_TIMEOUT)?)
    });
    match reached {
        Ok(_) => Check::new(NAME, State::Ok, format!("Postgres answers at {address}")),
        Err(error) => Check {
            hint: Some("start it, or correct `store.database_url`".to_owned()),
            ..Check::new(NAME, State::Failed, format!("Postgres does not answer at {address}: {error}"))
        },
    }
}

/// Host and port of a Postgres URL; the user and the password stay out of what is printed.
fn postgres_address(url: &str) -> Option<String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit('@').next().filter(|host| !host.is_empty()).unwrap_or("localhost");
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port { host.to_owned() } else { format!("{host}:5432") })
}

fn port(name: &'static str, address: SocketAddr) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::new(name, State::Ok, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let server = format!("http://{address}");
            let is_ours = Client::with_patience(&server, None, PORT_TIMEOUT).get::<serde_json::Value>("/v2").is_ok();
            let who = if is_ours { "a server of the protocol already answers" } else { "another program listens" };
            Check {
                hint: Some("stop it, or choose another with --listen, --grpc-listen and --metrics-listen".to_owned()),
                ..Check::new(name, State::Warning, format!("{address} is taken: {who}"))
            }
        }
        Err(error) => Check::new(name, State::Failed, format!("{address} cannot be listened on: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_of_a_database_are_shown() {
        assert_eq!(postgres_address("postgres://u:secret@db:5433/x"), Some("db:5433".to_owned()));
        assert_eq!(postgres_address("postgresql://db/x?a=b"), Some("db:5432".to_owned()));
        assert_eq!(postgres_address("postgres:///x"), Some("localhost:5432".to_owned()));
        assert_eq!(postgres_address("sqlite://x"), None);
    }

    #[test]
    fn a_taken_port_is_a_warning_that_says_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let check = port("port", listener.local_addr().unwrap());
        // Closes the connection of the question who it is.
        drop(listener);
        assert_eq!(check.state, State::Warning);
        assert!(check.hint.unwrap().contains("--listen"));
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_fine_and_one_that_is_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(data_folder(&folder.path().join("a/b")).state, State::Ok);
        assert_eq!(data_folder(folder.path()).state, State::Ok);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(data_folder(&file).state, State::Failed);
    }
}
