//! Recorded arrivals: the CSV that `tenantry serve --record-arrivals` writes.
//!
//! A header line and one line a request, `at_us,tenant,model,rows,bucket,bytes,timeout_ms,device_us`. Columns are found by
//! their names; only the first four and the timeout are read here.

use std::io::BufRead;
use std::time::Duration;

/// The most requests of a trace.
const MAX_ROWS: usize = 10_000_000;

/// One recorded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRow {
    /// When, after the start of the recording.
    pub at: Duration,
    /// Who.
    pub tenant: String,
    /// What, `owner/name`.
    pub model: String,
    /// How much.
    pub rows: u32,
    /// How long it was waited for, if that was said.
    pub timeout: Option<Duration>,
}

/// A file that is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("the trace cannot be read")]
    Io(#[from] std::io::Error),
    /// A column is missing.
    #[error("the trace has no column `{0}`; its first line names the columns: at_us,tenant,model,rows,...")]
    Column(&'static str),
    /// A line does not fit.
    #[error("line {line} of the trace has no valid `{column}`")]
    Line {
        /// Counted from one.
        line: usize,
        /// The column.
        column: &'static str,
    },
    /// Too long.
    #[error("the trace has more than {MAX_ROWS} requests; replay a part of it")]
    TooLong,
}

/// Reads a trace; the rows come in the order of their times.
///
/// # Errors
/// [`TraceError`].
pub fn read_trace(mut source: impl BufRead) -> Result<Vec<TraceRow>, TraceError> {
    let mut header = String::new();
    source.read_line(&mut header)?;
    let names: Vec<&str> = header.trim().split(',').map(str::trim).collect();
    let place = |column| names.iter().position(|name| *name == column).ok_or(TraceError::Column(column));
    let (at, tenant, model, rows) = (place("at_us")?, place("tenant")?, place("model")?, place("rows")?);
    let timeout = place("timeout_ms").ok();
    let mut read = Vec::new();
    for (index, line) in source.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        if read.len() == MAX_ROWS {
            return Err(TraceError::TooLong);
        }
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let of = |place: usize| fields.get(place).copied().unwrap_or_default();
        // The header is line one.
        let wrong = |column| TraceError::Line { line: index + 2, column };
        let text = |place, column| Some(of(place)).filter(|text| !text.is_empty()).ok_or(wrong(column));
        let patience = timeout.map(of).filter(|text| !text.is_empty());
        let patience = patience.map(|text| text.parse().map(Duration::from_millis)).transpose();
        read.push(TraceRow {
            at: Duration::from_micros(of(at).parse().map_err(|_| wrong("at_us"))?),
            tenant: text(tenant, "tenant")?.to_owned(),
            model: text(model, "model")?.to_owned(),
            rows: of(rows).parse().map_err(|_| wrong("rows"))?,
            timeout: patience.map_err(|_| wrong("timeout_ms"))?,
        });
    }
    // Requests are recorded when they are admitted, which may be a little out of order.
    read.sort_by_key(|row| row.at);
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_by_the_names_of_its_columns() {
        let text = "at_us,tenant,model,rows,bucket,bytes,timeout_ms,device_us\n\
                    2500,acme,platform/image,1,34,602112,200,51000\n1000,globex,globex/x,3,8,64,,\n\n";
        let rows = read_trace(text.as_bytes()).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].tenant.as_str(), rows[0].rows, rows[0].timeout), ("globex", 3, None));
        assert_eq!((rows[1].at, rows[1].timeout), (Duration::from_micros(2500), Some(Duration::from_millis(200))));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let refused = |text: &str| read_trace(text.as_bytes()).unwrap_err().to_string();
        assert!(refused("at_us,tenant\n").contains("`model`"));
        let header = "at_us,tenant,model,rows\n";
        assert!(refused(&format!("{header}1,a,m,1\nx,a,m,1\n")).contains("line 3"));
        assert!(refused(&format!("{header}1,,m,1\n")).contains("`tenant`"));
    }
}
