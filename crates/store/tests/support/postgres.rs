//! A Postgres cluster of the test's own: new, on a Unix socket only, gone with the value.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;

/// A running cluster.
pub(crate) struct Cluster {
    folder: TempDir,
    binaries: PathBuf,
    user: Option<(u32, u32)>,
    server: Child,
}

impl Cluster {
    /// Starts one; nothing if this machine has no Postgres and nobody requires it.
    pub(crate) fn start() -> Option<Self> {
        let Some(binaries) = find_binaries() else {
            assert!(
                std::env::var_os("TENANTRY_REQUIRE_POSTGRES").is_none(),
                "TENANTRY_REQUIRE_POSTGRES is set but no Postgres was found; install the package `postgresql`"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let user = unprivileged_user();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = folder.path().join("data");
        let initialised = command(&binaries, "initdb", user, folder.path())
            .args(["--username=tenantry", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(initialised.success(), "initdb failed");
        let mut server = command(&binaries, "postgres", user, folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "lc_messages=C", "-k"])
            .arg(folder.path())
            .arg("-D")
            .arg(&data)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
        let mut log = Vec::new();
        loop {
            let Some(line) = lines.next() else { panic!("Postgres did not start:\n{}", log.join("\n")) };
            let line = line.unwrap();
            if line.contains("ready to accept connections") {
                break;
            }
            log.push(line);
        }
        // Read on, or its log would fill the pipe and stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { folder, binaries, user, server })
    }

    /// Creates a database and returns its URL.
    pub(crate) async fn create_database(&self, name: &str) -> String {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        connection.close().await.unwrap();
        self.url(name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://tenantry@localhost/{database}?host={}", self.folder.path().display())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // By the pid in its own data folder. Nothing in it is wanted any more, so it need not write it out.
        let stopped = command(&self.binaries, "pg_ctl", self.user, self.folder.path())
            .args(["stop", "--silent", "--mode=immediate", "-D"])
            .arg(self.folder.path().join("data"))
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

fn command(binaries: &Path, program: &str, user: Option<(u32, u32)>, folder: &Path) -> Command {
    let mut command = Command::new(binaries.join(program));
    command.current_dir(folder).stdin(Stdio::null());
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Whom to run as when we are root, which Postgres refuses to be: its own user, or else nobody.
fn unprivileged_user() -> Option<(u32, u32)> {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut ids = line.split(':').skip(2).map(|id| id.parse::<u32>().ok());
        Some((ids.next()??, ids.next()??))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("a user other than root"))
}

/// Debian keeps the server's programs out of the way; the newest wins.
fn find_binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut debian: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    debian.sort_unstable();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let has_all = |folder: &PathBuf| ["initdb", "postgres", "pg_ctl"].iter().all(|name| folder.join(name).is_file());
    debian.into_iter().rev().map(|(_, folder)| folder).chain(on_path).find(has_all)
}
