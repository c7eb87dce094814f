//! From what the operator wrote to requests that can be sent: models asked for their inputs, inputs made up.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tenantry_load::{
    Arrival, Arrivals, ModelMetadata, Plan, PlanFile, Request, SplitMix64, Stream, TenantEntry, TraceRow, random_inputs,
};
use tenantry_types::ModelRef;

use super::{DURATION, WARMUP, key_of};
use crate::arguments::Bench;
use crate::client::{Client, model_path};

/// Different inputs of a stream: enough that no cache answers for the model.
const INPUTS: u64 = 4;
/// The most different requests of one tenant in a trace.
const MAX_TRACE_REQUESTS: usize = 1_000;
/// Connections of a tenant in a trace.
const TRACE_CONNECTIONS: usize = 256;

/// The server, as the generator reaches it.
#[derive(Debug)]
pub(super) struct Target<'a> {
    server: &'a str,
    address: SocketAddr,
}

impl<'a> Target<'a> {
    pub(super) fn find(server: &'a str) -> Result<Self> {
        let authority = server
            .strip_prefix("http://")
            .with_context(|| format!("{server} does not begin with http://, which is all the load generator speaks"))?
            .trim_end_matches('/');
        ensure!(!authority.contains('/'), "{server} has a path; name the server alone, as http://HOST:PORT");
        let with_port = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let address = with_port
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .with_context(|| format!("{authority} is no address; name the server as http://HOST:PORT"))?;
        Ok(Self { server, address })
    }

    /// The plan of a file and a command line, and each stream's load in words.
    pub(super) fn plan(&self, file: &PlanFile, arguments: &Bench) -> Result<(Plan, Vec<String>)> {
        let mut streams = Vec::new();
        let mut loads = Vec::new();
        for (index, entry) in file.tenants.iter().enumerate() {
            if let Some(problem) = entry.problem() {
                bail!("tenant `{}` of the plan: {problem}", entry.name);
            }
            let model = entry.model.as_ref().with_context(|| {
                format!("tenant `{}` asks no model; write NAME:KEY:MODEL, or name it in the plan", entry.name)
            })?;
            let seed = arguments.seed.wrapping_add(index as u64);
            let key = key_of(entry)?;
            let metadata: ModelMetadata = Client::new(self.server, Some(&key)).get(&model_path(model, None))?;
            let mut noise = SplitMix64::new(seed);
            let rows = entry.rows.unwrap_or(arguments.rows);
            let timeout = entry.timeout.or(arguments.timeout);
            let requests = (0..INPUTS).map(|_| {
                let inputs = random_inputs(&metadata, rows, &entry.shapes, &mut noise)?;
                Ok(Request::infer(self.address, model, &key, &inputs, timeout)?)
            });
            streams.push(Stream {
                name: entry.name.clone(),
                address: self.address,
                requests: requests.collect::<Result<_>>()?,
                arrivals: entry.arrivals(seed),
                connections: entry.connections(),
                late_after: None,
            });
            loads.push(in_words(entry, model));
        }
        let plan = Plan {
            streams,
            warmup: arguments.warmup.or(file.warmup).unwrap_or(WARMUP),
            duration: arguments.duration.or(file.duration).unwrap_or(DURATION),
        };
        Ok((plan, loads))
    }

    /// The plan of a trace: a stream for each tenant in it.
    pub(super) fn replay(&self, rows: &[TraceRow], arguments: &Bench) -> Result<(Plan, Vec<String>)> {
        ensure!(arguments.speed.is_finite() && arguments.speed > 0.0, "--speed must be above zero");
        let mut tenants: BTreeMap<&str, Vec<&TraceRow>> = BTreeMap::new();
        rows.iter().for_each(|row| tenants.entry(&row.tenant).or_default().push(row));
        let mut streams = Vec::new();
        let mut loads = Vec::new();
        for (name, rows) in &tenants {
            let entry = arguments.tenants.iter().find(|entry| entry.name == *name).with_context(|| {
                let names: Vec<&str> = tenants.keys().copied().collect();
                format!(
                    "`{name}` has no key; name one for each tenant of the trace ({}): --tenant {name}:KEY",
                    names.join(", ")
                )
            })?;
            streams.push(self.stream_of(name, rows, &key_of(entry)?, arguments)?);
            loads.push(format!("{} recorded", rows.len()));
        }
        let last = rows.last().context("the trace has no requests")?.at.div_f64(arguments.speed);
        let warmup = arguments.warmup.unwrap_or_default();
        // The last one is due within the time, too.
        let whole = (last + Duration::from_millis(1)).saturating_sub(warmup);
        Ok((Plan { streams, warmup, duration: arguments.duration.unwrap_or(whole) }, loads))
    }

    fn stream_of(&self, name: &str, rows: &[&TraceRow], key: &str, arguments: &Bench) -> Result<Stream> {
        let client = Client::new(self.server, Some(key));
        let mut noise = SplitMix64::new(arguments.seed);
        let mut models: BTreeMap<&str, (ModelRef, ModelMetadata)> = BTreeMap::new();
        let mut known: BTreeMap<(&str, u32, Option<Duration>), usize> = BTreeMap::new();
        let mut requests = Vec::new();
        let mut arrivals = Vec::with_capacity(rows.len());
        for row in rows {
            let timeout = row.timeout.or(arguments.timeout);
            let request = match known.get(&(row.model.as_str(), row.rows, timeout)) {
                Some(&request) => request,
                None => {
                    ensure!(
                        requests.len() < MAX_TRACE_REQUESTS,
                        "`{name}` sends more than {MAX_TRACE_REQUESTS} different requests in the trace; replay a part of it"
                    );
                    if !models.contains_key(row.model.as_str()) {
                        let model: ModelRef =
                            row.model.parse().with_context(|| format!("`{}` in the trace is no model", row.model))?;
                        let metadata = client.get(&model_path(&model, None))?;
                        models.insert(&row.model, (model, metadata));
                    }
                    let (model, metadata) = models.get(row.model.as_str()).context("it was put there")?;
                    let inputs = random_inputs(metadata, row.rows, &BTreeMap::new(), &mut noise)?;
                    requests.push(Request::infer(self.address, model, key, &inputs, timeout)?);
                    known.insert((&row.model, row.rows, timeout), requests.len() - 1);
                    requests.len() - 1
                }
            };
            arrivals.push(Arrival { at: row.at.div_f64(arguments.speed), request });
        }
        Ok(Stream {
            name: name.to_owned(),
            address: self.address,
            requests,
            arrivals: Arrivals::Recorded(arrivals.into()),
            connections: TRACE_CONNECTIONS.min(rows.len()),
            late_after: None,
        })
    }
}

fn in_words(entry: &TenantEntry, model: &ModelRef) -> String {
    match entry.arrivals(0) {
        Arrivals::Closed => format!("{model}, {} connections", entry.connections()),
        Arrivals::Constant { per_second } => format!("{model}, {per_second}/s evenly"),
        Arrivals::Poisson { per_second, .. } => format!("{model}, {per_second}/s"),
        Arrivals::Recorded(_) => model.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_by_its_url() {
        assert_eq!(Target::find("http://127.0.0.1:8000/").unwrap().address.port(), 8000);
        assert_eq!(Target::find("http://127.0.0.1").unwrap().address.port(), 80);
        for (url, hint) in [("https://127.0.0.1", "http://"), ("http://127.0.0.1/v2", "path"), ("http://:x", "address")]
        {
            let error = Target::find(url).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }
}
