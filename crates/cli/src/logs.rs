//! Log lines: JSON with the request's fields for programs, text for people, to standard error or a file.

use std::fs::File;
use std::io::IsTerminal as _;
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use tenantry_server::config::{LogFormat, LogSettings};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::arguments::LogStyle;

/// How the server's lines are to look: as asked on the command line, else for people on a terminal, else as configured.
pub(crate) fn format(asked: Option<LogStyle>, configured: LogFormat) -> LogFormat {
    match asked {
        Some(LogStyle::Json) => LogFormat::Json,
        Some(LogStyle::Text) => LogFormat::Text,
        None if std::io::stderr().is_terminal() => LogFormat::Text,
        None => configured,
    }
}

/// Sends log lines to standard error from now on.
pub(crate) fn to_stderr(settings: &LogSettings) -> Result<()> {
    install(settings, std::io::stderr, std::io::stderr().is_terminal())
}

/// Sends log lines to a file from now on.
pub(crate) fn to_file(settings: &LogSettings, file: File) -> Result<()> {
    install(settings, Mutex::new(file), false)
}

/// Sends log lines to any writer from now on.
pub(crate) fn install<W>(settings: &LogSettings, writer: W, colours: bool) -> Result<()>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.filter)
        .with_context(|| format!("`log.filter` is not a filter: {}", settings.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    let installed = match settings.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("log lines cannot be set up: {error}"))
}
