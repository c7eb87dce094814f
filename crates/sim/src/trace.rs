//! Arrivals as they were recorded: a server's own, and public traces.
//!
//! The format of `tenantry serve --record-arrivals`:
//!
//! ```text
//! at_us,tenant,model,rows,bucket,bytes,timeout_ms,device_us
//! ```
//!
//! `timeout_ms` is empty without a timeout, `device_us` (the request's part of the device time of its batch) where it was
//! not answered. ServeGen's slices (`t_s,model,tenant,in_tokens,out_tokens,size_src`) and the arena trace of VTC
//! (`req_time_s,tenant,prompt_len,output_len`) are read, too: one row a request, its bucket by its input's tokens, and its
//! device time as [`TokenCost`] says.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::time::Duration;

use tenantry_sched::bucket_of;

/// Requests that are read at the most.
pub const MAX_REQUESTS: usize = 20_000_000;

const OWN: &str = "at_us,tenant,model,rows,bucket,bytes,timeout_ms,device_us";
const SERVEGEN: &str = "t_s,model,tenant,in_tokens,out_tokens,size_src";
const ARENA: &str = "req_time_s,tenant,prompt_len,output_len";

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("the trace cannot be read")]
    Io(#[from] std::io::Error),
    /// Its first line names columns nobody knows.
    #[error("the trace's first line is not one of the known headers; expected: {OWN}")]
    Header,
    /// A line is not what it should be.
    #[error("line {line} of the trace: {what}")]
    Line {
        /// Which.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// There are more requests than fit.
    #[error("the trace has more than {MAX_REQUESTS} requests: cut it")]
    TooLong,
}

/// What a token costs, for traces of tokens.
#[derive(Debug, Clone, Copy)]
pub struct TokenCost {
    /// Each request.
    pub request: Duration,
    /// Each token of the input.
    pub input: Duration,
    /// Each token of the output.
    pub output: Duration,
}

impl Default for TokenCost {
    /// As a sentence model on a CPU: 2 ms a request, 20 us a token read; nothing is generated.
    fn default() -> Self {
        Self { request: Duration::from_millis(2), input: Duration::from_micros(20), output: Duration::ZERO }
    }
}

/// A trace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trace {
    /// Names of tenants.
    pub tenants: Vec<String>,
    /// Names of models.
    pub models: Vec<String>,
    /// Requests, in order of arrival.
    pub requests: Vec<TraceRequest>,
}

/// A request of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceRequest {
    /// Since the trace's beginning.
    pub at: Duration,
    /// Its tenant's index.
    pub tenant: usize,
    /// Its model's index.
    pub model: usize,
    /// Its rows.
    pub rows: u32,
    /// The size of its rows.
    pub bucket: u32,
    /// Its payload.
    pub bytes: u64,
    /// How long its client waits.
    pub timeout: Option<Duration>,
    /// The device time it took.
    pub device: Option<Duration>,
}

#[derive(Default)]
struct Names {
    index: BTreeMap<String, usize>,
    names: Vec<String>,
}

impl Names {
    fn get(&mut self, name: &str) -> usize {
        if let Some(&known) = self.index.get(name) {
            return known;
        }
        self.names.push(name.to_owned());
        self.index.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }
}

/// Reads a trace; the first line says of which kind it is.
///
/// # Errors
/// [`TraceError`] where it is none.
pub fn read(from: impl BufRead, cost: &TokenCost) -> Result<Trace, TraceError> {
    let mut lines = from.lines();
    let header = lines.next().ok_or(TraceError::Header)??;
    let kind = match header.trim() {
        OWN => OWN,
        SERVEGEN => SERVEGEN,
        ARENA => ARENA,
        _ => return Err(TraceError::Header),
    };
    let (mut tenants, mut models) = (Names::default(), Names::default());
    let mut requests = Vec::new();
    for (text, line) in lines.zip(2_u64..) {
        let text = text?;
        if text.trim().is_empty() {
            continue;
        }
        if requests.len() >= MAX_REQUESTS {
            return Err(TraceError::TooLong);
        }
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        let wrong = |what| TraceError::Line { line, what };
        requests.push(match (kind, fields.as_slice()) {
            (OWN, &[at, tenant, model, rows, bucket, bytes, timeout, device]) => TraceRequest {
                at: Duration::from_micros(number(at).ok_or(wrong("at_us is not a number"))?),
                tenant: tenants.get(tenant),
                model: models.get(model),
                rows: number(rows).and_then(|rows| u32::try_from(rows).ok()).ok_or(wrong("rows is not a number"))?,
                bucket: number(bucket)
                    .and_then(|bucket| u32::try_from(bucket).ok())
                    .ok_or(wrong("bucket is not a number"))?,
                bytes: number(bytes).ok_or(wrong("bytes is not a number"))?,
                timeout: optional(timeout)
                    .map_err(|()| wrong("timeout_ms is not a number"))?
                    .map(Duration::from_millis),
                device: optional(device).map_err(|()| wrong("device_us is not a number"))?.map(Duration::from_micros),
            },
            (SERVEGEN, &[at, model, tenant, input, output, _]) => {
                let (at, input, output) = tokens(at, input, output).ok_or(wrong("a field is not a number"))?;
                of_tokens(at, tenants.get(tenant), models.get(model), input, output, cost)
            }
            (ARENA, &[at, tenant, input, output]) => {
                let (at, input, output) = tokens(at, input, output).ok_or(wrong("a field is not a number"))?;
                of_tokens(at, tenants.get(tenant), models.get("arena"), input, output, cost)
            }
            _ => return Err(wrong("the number of fields is not that of the header")),
        });
    }
    requests.sort_by_key(|request| request.at);
    Ok(Trace { tenants: tenants.names, models: models.names, requests })
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn optional(text: &str) -> Result<Option<u64>, ()> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| ()) }
}

fn tokens(at: &str, input: &str, output: &str) -> Option<(Duration, u64, u64)> {
    let at = Duration::try_from_secs_f64(at.parse().ok()?).ok()?;
    Some((at, number(input)?, number(output)?))
}

fn of_tokens(at: Duration, tenant: usize, model: usize, input: u64, output: u64, cost: &TokenCost) -> TraceRequest {
    let times = |each: Duration, count: u64| each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
    TraceRequest {
        at,
        tenant,
        model,
        rows: 1,
        bucket: bucket_of(input),
        bytes: input.saturating_mul(8),
        timeout: None,
        device: Some(cost.request + times(cost.input, input) + times(cost.output, output)),
    }
}

/// Writes a trace in the format of this server.
///
/// # Errors
/// What writing fails with.
pub fn write(trace: &Trace, mut to: impl Write) -> std::io::Result<()> {
    writeln!(to, "{OWN}")?;
    for request in &trace.requests {
        let name = |names: &[String], index: usize| names.get(index).cloned().unwrap_or_default();
        let timeout = request.timeout.map(|timeout| timeout.as_millis().to_string()).unwrap_or_default();
        let device = request.device.map(|device| device.as_micros().to_string()).unwrap_or_default();
        writeln!(
            to,
            "{},{},{},{},{},{},{timeout},{device}",
            request.at.as_micros(),
            name(&trace.tenants, request.tenant),
            name(&trace.models, request.model),
            request.rows,
            request.bucket,
            request.bytes,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let text = format!("{OWN}\n0,acme,digits,1,4,16,,900\n1500,bolt,platform/files,8,4,64,250,\n");
        let trace = read(text.as_bytes(), &TokenCost::default()).unwrap();
        assert_eq!(trace.tenants, ["acme", "bolt"]);
        assert_eq!(trace.models, ["digits", "platform/files"]);
        assert_eq!(trace.requests[1].timeout, Some(Duration::from_millis(250)));
        assert_eq!(trace.requests[0].device, Some(Duration::from_micros(900)));
        let mut again = Vec::new();
        write(&trace, &mut again).unwrap();
        assert_eq!(String::from_utf8(again).unwrap(), text);
    }

    #[test]
    fn traces_of_tokens_become_requests_of_one_row() {
        let text = format!("{SERVEGEN}\n0.5,m-large,c31,100,33,own\n0.25,m-mid,c14,279,65,own\n");
        let trace = read(text.as_bytes(), &TokenCost::default()).unwrap();
        assert_eq!(trace.requests[0].at, Duration::from_millis(250));
        assert_eq!(trace.requests[1].device, Some(Duration::from_millis(4)));
        let text = format!("{ARENA}\n0.0,13,13,199\n");
        assert_eq!(read(text.as_bytes(), &TokenCost::default()).unwrap().models, ["arena"]);
    }

    #[test]
    fn what_is_no_trace_is_refused_by_line() {
        let read = |text: &str| read(text.as_bytes(), &TokenCost::default()).unwrap_err().to_string();
        assert!(read("time,who\n1,2\n").contains("headers"));
        assert!(read(&format!("{OWN}\n1,a,b,x,0,0,,\n")).contains("line 2"));
        assert!(read(&format!("{OWN}\n1,a,b\n")).contains("number of fields"));
    }
}
