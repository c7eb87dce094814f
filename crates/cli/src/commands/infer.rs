//! `tenantry infer`: inputs from the command line or from files, outputs as a table or as the protocol's JSON.

mod inputs;
mod preview;

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tenantry_types::InferResponse;

use self::inputs::{ModelMetadata, build};
use self::preview::preview;
use crate::arguments::Infer;
use crate::client::{Answer, Client, Refused, model_path};
use crate::output::{print_table, span, table};

/// The longest request that is read from a file, bytes.
const MAX_REQUEST_BYTES: u64 = 1 << 30;
/// How many values of an output a table shows.
const SHOWN_VALUES: usize = 8;

pub(crate) fn run(client: &Client, arguments: &Infer, json: bool) -> Result<()> {
    let version = arguments.version.as_deref();
    let (json_length, body) = match &arguments.request {
        Some(path) => (None, read_request(path)?),
        None => {
            let metadata: ModelMetadata = client.get(&model_path(&arguments.model, version))?;
            let built = build(&metadata, arguments, json)?;
            (Some(built.json_length).filter(|length| *length < built.body.len()), built.body)
        }
    };
    let answer = client.infer_raw(&arguments.model, version, json_length, &body, arguments.timeout, arguments.explain);
    if arguments.explain {
        explain(&answer);
    }
    let answer = answer?;
    // A request from a file may ask for binary outputs; those have no JSON to print.
    if json && answer.json_length.is_none() {
        // As the server sent it: laid out, a long tensor would take a line for each number.
        println!("{}", String::from_utf8(answer.body).context("the answer is not JSON")?);
        return Ok(());
    }
    print_answer(&answer.decode()?);
    Ok(())
}

/// Where the time went, on standard error: the answer itself may be for a program.
fn explain(answer: &Result<Answer>) {
    match answer {
        Ok(answer) => {
            let timing = answer.timing.as_deref().and_then(|text| serde_json::from_str::<Timing>(text).ok());
            match timing {
                Some(timing) => eprintln!("{}", timing.text()),
                None => eprintln!("the server does not say where the time went"),
            }
        }
        Err(error) => {
            let reason = error.downcast_ref::<Refused>().and_then(|refused| refused.reason.as_deref());
            eprintln!("refused by {}", reason.unwrap_or("no limit"));
        }
    }
}

/// What the server says of an answered request.
#[derive(Debug, serde::Deserialize)]
struct Timing {
    admission_us: u64,
    queue_us: u64,
    batch_wait_us: u64,
    device_us: u64,
    suspended_us: u64,
    batch_rows: u32,
    phase: String,
    cache: Option<String>,
}

impl Timing {
    fn text(&self) -> String {
        let span = |micros| span(Duration::from_micros(micros));
        if self.cache.as_deref() == Some("hit") {
            let admission = span(self.admission_us);
            return format!(
                "admission   {admission}  reading, decoding, checking\nran         not at all: a kept answer was given again"
            );
        }
        let phase = match self.phase.as_str() {
            "reserved" => "by its reservation",
            _ => "by its share",
        };
        format!(
            "admission   {}  reading, decoding, checking\nqueue       {}  waiting for a slot and for company\n\
             batch       {}  its batch mates' part of the run\ndevice      {}  its own part: what is charged\n\
             suspended   {}  stopped for somebody's reservation\nran         {phase}, in a batch of {} rows",
            span(self.admission_us),
            span(self.queue_us),
            span(self.batch_wait_us),
            span(self.device_us),
            span(self.suspended_us),
            self.batch_rows
        )
    }
}

fn read_request(path: &Path) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let source: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
    };
    source.take(MAX_REQUEST_BYTES).read_to_end(&mut body)?;
    Ok(body)
}

fn print_answer(response: &InferResponse) {
    println!("{} version {}", response.model, response.version);
    let mut rows = table(&["output", "type", "shape", "values"]);
    for output in &response.outputs {
        let extents: Vec<String> = output.shape.iter().map(u64::to_string).collect();
        rows.add_row([
            output.name.clone(),
            output.datatype.to_string(),
            format!("[{}]", extents.join(",")),
            preview(output, SHOWN_VALUES),
        ]);
    }
    print_table(&rows, "no outputs");
}
