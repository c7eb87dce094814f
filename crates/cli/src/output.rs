//! What people read: tables, sizes, times, progress.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Result, bail};
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

/// Prints a value as JSON on standard output.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// A table without lines, as wide as the terminal.
pub(crate) fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|column| column.to_uppercase()));
    table
}

/// Prints a table, or a sentence where it would be empty.
pub(crate) fn print_table(table: &Table, nothing: &str) {
    if table.row_count() == 0 {
        println!("{nothing}");
    } else {
        println!("{}", table.trim_fmt());
    }
}

/// Bytes in the largest unit that keeps the number above one.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, shift)| bytes >= 1 << shift) {
        Some((unit, shift)) => format!("{:.1} {unit}", bytes as f64 / f64::from(1_u32 << shift)),
        None => format!("{bytes} B"),
    }
}

/// A duration to three digits.
pub(crate) fn span(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => return format!("{nanos:.0} ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// An instant, milliseconds since the Unix epoch, as people write it.
pub(crate) fn instant(unix_ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string()
}

/// Asks before something is destroyed; without a terminal to ask on it must have been said.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} Say --yes to do it without being asked.");
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was changed") }
}

/// Progress of uploads and registrations on standard error; silent where that is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: MultiProgress,
    visible: bool,
}

impl Progress {
    /// Shows progress if there is a terminal to show it on and `quiet` was not asked for.
    pub(crate) fn new(quiet: bool) -> Self {
        Self { bars: MultiProgress::new(), visible: !quiet && std::io::stderr().is_terminal() }
    }

    /// A bar for `bytes` that are sent.
    pub(crate) fn upload(&self, what: &str, bytes: u64) -> ProgressBar {
        self.add(ProgressBar::new(bytes), what, "{msg:24} {bar:28} {bytes}/{total_bytes}  {bytes_per_sec}")
    }

    /// A bar for load that is sent for so long; its position is in milliseconds.
    pub(crate) fn load(&self, time: Duration) -> ProgressBar {
        let bar = ProgressBar::new(time.as_millis() as u64);
        self.add(bar, "", "sending load {bar:28} {percent}%  {msg}")
    }

    /// A bar for so many things.
    pub(crate) fn count(&self, what: &str, total: u64) -> ProgressBar {
        self.add(ProgressBar::new(total), what, "{msg:24} {bar:28} {pos}/{len}")
    }

    /// A spinner for something whose end is unknown.
    pub(crate) fn wait(&self, what: &str) -> ProgressBar {
        let bar = self.add(ProgressBar::new_spinner(), what, "{msg:24} {spinner} {elapsed}");
        bar.enable_steady_tick(Duration::from_millis(100));
        bar
    }

    /// Prints a line on standard output without tearing the bars.
    pub(crate) fn say(&self, line: &str) {
        self.suspend(|| println!("{line}"));
    }

    /// Does something that prints without tearing the bars.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.bars.suspend(print);
    }

    fn add(&self, bar: ProgressBar, what: &str, template: &str) -> ProgressBar {
        if !self.visible {
            return ProgressBar::hidden();
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        self.bars.add(bar.with_message(what.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(size(512), "512 B");
        assert_eq!(size(3_163_737), "3.0 MiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(span(Duration::from_nanos(999)), "999 ns");
        assert_eq!(span(Duration::from_micros(9_123)), "9.12 ms");
        assert_eq!(span(Duration::from_micros(91_230)), "91.2 ms");
        assert_eq!(span(Duration::from_millis(912)), "912 ms");
        assert_eq!(span(Duration::from_millis(1_500)), "1.50 s");
        assert_eq!(instant(1_700_000_000_000), "2023-11-14T22:13:20Z");
    }
}
