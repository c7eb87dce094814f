//! A real server for the measurements, on processor 0, with one configuration for all figures.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::Bench;
use crate::admin::Admin;
use crate::process::{SERVER_CPU, on_cpu};

/// A child process that ends with its owner.
#[derive(Debug)]
pub(crate) struct Child {
    child: std::process::Child,
}

impl Child {
    pub(crate) fn new(child: std::process::Child) -> Self {
        crate::interrupt::remember(child.id());
        Self { child }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        crate::interrupt::forget(self.child.id());
        let _ = self.child.wait();
    }
}

/// The first line a child prints.
pub(crate) fn first_line(child: &mut Child) -> Result<String> {
    let stdout = child.child.stdout.take().context("the child's output is not piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    anyhow::ensure!(!line.is_empty(), "a server ended before it was ready; its error is above");
    Ok(line.trim().to_owned())
}

/// A running server with an empty registry.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) grpc_address: SocketAddr,
    pub(crate) admin: Admin,
    /// Removed with it.
    #[expect(dead_code, reason = "removes the folder when dropped")]
    folder: Option<TempDir>,
}

impl Server {
    /// Starts `tenantry serve` pinned to the server's processor, its workers with it.
    pub(crate) fn start(bench: &Bench) -> Result<Self> {
        Self::start_with(bench, "")
    }

    /// The same with these lines more: in the table `[workers]`, then in tables of their own.
    pub(crate) fn start_with(bench: &Bench, lines: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = Self::start_in(bench, folder.path(), lines)?;
        Ok(Self { folder: Some(folder), ..server })
    }

    /// The same in a folder that stays, with what an earlier one left there.
    pub(crate) fn start_in(bench: &Bench, folder: &Path, lines: &str) -> Result<Self> {
        let config = folder.join("tenantry.toml");
        let data = folder.join("data");
        // Warnings only: the log is no part of the measurement.
        let text = format!(
            "data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\ngrpc_listen = \"127.0.0.1:0\"\n[engine]\nlibrary = {:?}\n[workers]\nslots = 1\n{lines}\n[log]\nfilter = \"warn\"\n",
            data.display().to_string(),
            bench.models.library.display().to_string()
        );
        std::fs::write(&config, text)?;
        let mut child = on_cpu(SERVER_CPU, || {
            let mut command = Command::new(&bench.tenantry);
            command.arg("serve").arg("--config").arg(&config).stdout(Stdio::piped());
            Ok(Child::new(command.spawn().context("tenantry does not start")?))
        })?;
        let ready: Value = serde_json::from_str(&first_line(&mut child)?).context("no ready line")?;
        let url = ready.get("url").and_then(Value::as_str).context("the ready line has no url")?.to_owned();
        let address = url.trim_start_matches("http://").parse()?;
        let grpc_address = ready.get("grpc_address").and_then(Value::as_str);
        let grpc_address = grpc_address.context("the ready line has no gRPC address")?.parse()?;
        let key = std::fs::read_to_string(data.join("admin.key")).context("no administrator's key")?;
        Ok(Self { child, address, grpc_address, admin: Admin::new(url, key.trim().to_owned()), folder: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }
}
