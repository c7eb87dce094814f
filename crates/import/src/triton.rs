//! A model's `config.pbtxt`: what each of its settings becomes.
//!
//! The settings are those of Triton's model configuration. Everything in the text gets its line in the report; what this
//! version does not know is ignored by name, never silently.

mod ignored;

use std::collections::BTreeMap;

use tenantry_types::model::{Optimization, VersionSettings};
use tenantry_types::{DataType, limits::MAX_TENSORS};

use crate::declared::{Declared, Leading};
use crate::manifest::{Chain, Labels, Stage, State};
use crate::text_format::{Message, Value};
use crate::{Outcome, Plan, is_plain_file_name, shown};

/// The name of the file with a model's settings.
pub const CONFIG_FILE: &str = "config.pbtxt";
/// The model's file in a version's folder unless the settings say otherwise.
pub const DEFAULT_FILE: &str = "model.onnx";
/// The note of a setting that has no other.
const UNKNOWN: &str = "not a setting this version knows";
/// The longest a batch waits to fill here, milliseconds.
const MAX_DELAY_MS: u64 = 1_000;
/// The most copies of a model here.
const MAX_REPLICAS: u64 = 64;
/// The most tags that are taken over.
const MAX_TAGS: usize = 32;
/// The longest key or value of a tag, bytes.
const MAX_TAG_BYTES: usize = 256;

/// Which of a model's versions are served, by their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// So many of the highest.
    Latest(usize),
    /// Every one.
    All,
    /// These.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    /// What holds where nothing is said.
    fn default() -> Self {
        Self::Latest(1)
    }
}

impl VersionPolicy {
    /// Those of `present` that are served, ascending.
    pub fn select(&self, present: &[u64]) -> Vec<u64> {
        let mut selected: Vec<u64> = present.to_vec();
        selected.sort_unstable();
        match self {
            Self::All => {}
            Self::Latest(count) => {
                selected.drain(..selected.len().saturating_sub(*count));
            }
            Self::Specific(numbers) => selected.retain(|number| numbers.contains(number)),
        }
        selected
    }
}

/// What the settings of the model in the folder `folder` become.
pub fn plan(folder: &str, config: &Message) -> Plan {
    let mut reader = Reader { folder, plan: Plan::default(), rows: None, is_served: None, labels: Vec::new() };
    reader.message("", config);
    reader.finish()
}

struct Reader<'a> {
    folder: &'a str,
    plan: Plan,
    /// `max_batch_size`, if it is said.
    rows: Option<u32>,
    /// Whether platform or backend is the one that is served, if either is said.
    is_served: Option<bool>,
    /// Files with labels, by the positions of their outputs.
    labels: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn message(&mut self, prefix: &str, message: &Message) {
        for field in &message.fields {
            let path = match prefix {
                "" => field.name.clone(),
                prefix => format!("{prefix}.{}", field.name),
            };
            self.setting(&path, &field.value);
        }
    }

    /// One setting; `path` is its name behind those of the messages around it.
    fn setting(&mut self, path: &str, value: &Value) {
        match (path, value) {
            ("name", Value::Text(name)) => {
                if name == self.folder {
                    self.applied(path, value, "the model's name, in the alphabet of names here");
                } else {
                    self.ignored(path, value, "the folder's name counts, and is another");
                }
            }
            ("platform" | "backend", Value::Text(engine)) => self.engine(path, engine),
            ("default_model_filename", Value::Text(name)) => self.filename(path, name),
            ("max_batch_size", Value::Integer(rows)) => self.max_batch_size(path, *rows),
            ("input" | "output", Value::Message(tensor)) => self.tensor(path, tensor),
            ("version_policy", Value::Message(policy)) => self.version_policy(path, policy),
            ("instance_group", Value::Message(group)) => self.instance_group(path, group),
            ("dynamic_batching", Value::Message(batching)) => {
                self.applied(path, value, "requests are joined where the model can");
                self.message(path, batching);
            }
            ("dynamic_batching.max_queue_delay_microseconds", Value::Integer(delay_us)) => {
                self.max_queue_delay(path, *delay_us);
            }
            ("optimization" | "optimization.graph" | "response_cache", Value::Message(inner)) => {
                self.message(path, inner);
            }
            ("optimization.graph.level", Value::Integer(level)) => self.graph_level(path, *level),
            ("response_cache.enable", Value::Word(word)) => {
                self.plan.keeps_answers = word == "true";
                match word.as_str() {
                    "true" => self.applied(path, value, "answers are kept, for as long as --cache-ttl says"),
                    _ => self.ignored(path, value, "answers are not kept unless that is asked for"),
                }
            }
            ("parameters", Value::Message(entry)) => self.parameter(entry),
            ("metric_tags", Value::Message(entry)) => self.tag(entry),
            ("model_warmup", Value::Message(_)) => {
                self.plan.min_replicas = Some(1);
                let note = "one copy is kept loaded; what it was warmed with is not run";
                self.plan.note(path, &in_short(value), Outcome::Applied, note);
            }
            ("ensemble_scheduling", Value::Message(ensemble)) => self.chain(path, ensemble),
            ("sequence_batching", Value::Message(batching)) => {
                for field in &batching.fields {
                    let path = format!("{path}.{}", field.name);
                    match (field.name.as_str(), &field.value) {
                        ("state", Value::Message(state)) => self.state(&path, state),
                        _ => self.ignored(&path, &field.value, ignored::reason(&path).unwrap_or(UNKNOWN)),
                    }
                }
            }
            _ => match ignored::reason(path) {
                Some(reason) => self.ignored(path, value, reason),
                None => self.ignored(path, value, UNKNOWN),
            },
        }
    }

    fn chain(&mut self, path: &str, ensemble: &Message) {
        let map = |step: &Message, name: &str| -> BTreeMap<String, String> {
            let entries = step.messages(name);
            entries.filter_map(|entry| Some((entry.text("key")?.to_owned(), entry.text("value")?.to_owned()))).collect()
        };
        let stage = |step: &Message| Stage {
            model: step.text("model_name").unwrap_or_default().to_owned(),
            version: step.integers("model_version").next_back().and_then(|number| u64::try_from(number).ok()),
            inputs: map(step, "input_map"),
            outputs: map(step, "output_map"),
        };
        let stages: Vec<Stage> = ensemble.messages("step").map(stage).collect();
        let names: Vec<&str> = stages.iter().map(|stage| stage.model.as_str()).collect();
        let note = format!("a chain of {} stages, whose versions are fixed by registering it", stages.len());
        self.plan.note(path, &names.join(", "), Outcome::Applied, note);
        self.plan.chain = Some(Chain { stages });
        for field in ensemble.fields.iter().filter(|field| field.name != "step") {
            self.ignored(&format!("{path}.{}", field.name), &field.value, "each stage has its own limits");
        }
    }

    fn state(&mut self, path: &str, state: &Message) {
        let (name, next) =
            (state.text("input_name").unwrap_or_default(), state.text("output_name").unwrap_or_default());
        let datatype = state.words("data_type").next_back().and_then(datatype);
        let dims: Option<Vec<u64>> = state.integers("dims").map(|extent| u64::try_from(extent).ok()).collect();
        let begins_otherwise =
            state.messages("initial_state").any(|initial| initial.words("zero_data").all(|word| word != "true"));
        let setting = format!("{path} {name}");
        match (datatype, dims) {
            _ if begins_otherwise => {
                self.plan.note(&setting, next, Outcome::Ignored, "what is carried through a sequence begins as zeros");
            }
            (Some(datatype), Some(shape))
                if shape.iter().all(|extent| *extent > 0) && self.plan.states.len() < MAX_TENSORS =>
            {
                let note = "carried from request to request of a sequence, zeros at first";
                self.plan.note(&setting, next, Outcome::Applied, note);
                let (name, next) = (name.to_owned(), next.to_owned());
                self.plan.states.push(State { name, next, datatype, shape });
            }
            _ => self.plan.note(
                &setting,
                next,
                Outcome::Ignored,
                "only what has a fixed shape is carried through a sequence",
            ),
        }
    }

    fn applied(&mut self, path: &str, value: &Value, note: impl Into<String>) {
        self.plan.note(path, &in_short(value), Outcome::Applied, note);
    }

    fn ignored(&mut self, path: &str, value: &Value, note: impl Into<String>) {
        self.plan.note(path, &in_short(value), Outcome::Ignored, note);
    }

    fn engine(&mut self, path: &str, engine: &str) {
        let is_served = matches!(engine, "onnxruntime_onnx" | "onnxruntime" | "ensemble");
        if engine.is_empty() {
            return;
        }
        // `platform` and `backend` say the same in two ways; either is enough.
        self.is_served = Some(self.is_served.unwrap_or(false) || is_served);
        let (outcome, note) = match engine {
            "ensemble" => (Outcome::Applied, "a chain"),
            _ if is_served => (Outcome::Applied, "served by ONNX Runtime"),
            _ => (Outcome::Ignored, "only ONNX models are served"),
        };
        self.plan.note(path, engine, outcome, note);
        if !is_served && self.plan.skipped.is_none() {
            let engine = shown(engine);
            self.plan.skipped =
                Some(format!("it is for `{engine}`, and only ONNX models are served; export it to ONNX"));
        }
    }

    fn filename(&mut self, path: &str, name: &str) {
        if is_plain_file_name(name) {
            self.plan.filename = Some(name.to_owned());
            self.plan.note(path, name, Outcome::Applied, "the file in each version's folder");
        } else {
            self.plan.note(path, name, Outcome::Ignored, "not the name of a file in the version's folder");
            self.plan.skipped = Some("its file is to be one outside of its folder".to_owned());
        }
    }

    fn max_batch_size(&mut self, path: &str, rows: i128) {
        let Ok(rows) = u32::try_from(rows) else {
            self.plan.note(path, &rows.to_string(), Outcome::Ignored, "not a number of rows");
            return;
        };
        self.rows = Some(rows);
        self.plan.settings.max_batch = Some(rows.max(1));
        let note =
            if rows == 0 { "max_batch 1: requests are not joined".to_owned() } else { format!("max_batch {rows}") };
        self.plan.note(path, &rows.to_string(), Outcome::Applied, note);
    }

    fn max_queue_delay(&mut self, path: &str, delay_us: i128) {
        let value = format!("{delay_us}");
        let Ok(delay_us) = u64::try_from(delay_us) else {
            self.plan.note(path, &value, Outcome::Ignored, "not a number of microseconds");
            return;
        };
        let delay_ms = delay_us.div_ceil(1_000);
        let kept_ms = delay_ms.min(MAX_DELAY_MS);
        let note = match (delay_us, delay_ms) {
            (0, _) => "batches do not wait to fill".to_owned(),
            (_, delay_ms) if delay_ms > MAX_DELAY_MS => format!("max_batch_delay_ms {kept_ms}, the longest there is"),
            (delay_us, _) if delay_us % 1_000 != 0 => format!("max_batch_delay_ms {kept_ms}, rounded up"),
            _ => format!("max_batch_delay_ms {kept_ms}"),
        };
        self.plan.settings.max_batch_delay_ms = u32::try_from(kept_ms).ok().filter(|delay_ms| *delay_ms > 0);
        self.plan.note(path, &value, Outcome::Applied, note);
    }

    fn graph_level(&mut self, path: &str, level: i128) {
        let optimization = match level {
            -1 => Some(Optimization::Basic),
            0 => Some(Optimization::All),
            1 => Some(Optimization::Extended),
            2 => Some(Optimization::Disabled),
            _ => None,
        };
        let (outcome, note) = match optimization {
            Some(Optimization::Basic) => (Outcome::Applied, "optimization basic"),
            Some(Optimization::All) => (Outcome::Applied, "optimization all"),
            Some(Optimization::Extended) => (Outcome::Applied, "optimization extended"),
            Some(Optimization::Disabled) => (Outcome::Applied, "optimization disabled"),
            None => (Outcome::Ignored, "not a level of ONNX Runtime's"),
        };
        self.plan.settings.optimization = optimization.or(self.plan.settings.optimization);
        self.plan.note(path, &level.to_string(), outcome, note);
    }

    fn version_policy(&mut self, path: &str, policy: &Message) {
        for field in &policy.fields {
            let path = format!("{path}.{}", field.name);
            let Value::Message(inner) = &field.value else {
                self.ignored(&path, &field.value, UNKNOWN);
                continue;
            };
            let (policy, note) = match field.name.as_str() {
                "all" => (VersionPolicy::All, "every version is imported, the highest is deployed".to_owned()),
                "latest" => {
                    let count = inner.integers("num_versions").next_back().unwrap_or(1).max(1);
                    let count = usize::try_from(count).unwrap_or(usize::MAX);
                    (
                        VersionPolicy::Latest(count),
                        "the highest are imported, the highest of all is deployed".to_owned(),
                    )
                }
                "specific" => {
                    let numbers: Vec<u64> =
                        inner.integers("versions").filter_map(|number| u64::try_from(number).ok()).collect();
                    let note = format!("versions {numbers:?} are imported, the highest is deployed");
                    (VersionPolicy::Specific(numbers), shown(&note))
                }
                _ => {
                    self.ignored(&path, &field.value, UNKNOWN);
                    continue;
                }
            };
            self.plan.versions = policy;
            self.plan.note(&path, &in_short(&field.value), Outcome::Applied, note);
        }
    }

    fn instance_group(&mut self, path: &str, group: &Message) {
        let count = group.integers("count").next_back().and_then(|count| u64::try_from(count).ok()).unwrap_or(1).max(1);
        let before = u64::from(self.plan.max_replicas.unwrap_or(0));
        let replicas = before.saturating_add(count).min(MAX_REPLICAS);
        self.plan.max_replicas = u32::try_from(replicas).ok();
        self.plan.note(path, &format!("count {count}"), Outcome::Applied, format!("max_replicas {replicas}"));
        for field in group.fields.iter().filter(|field| field.name != "count") {
            let path = format!("{path}.{}", field.name);
            if matches!(&field.value, Value::Word(kind) if kind == "KIND_CPU" && field.name == "kind") {
                self.applied(&path, &field.value, "copies run on processors");
                continue;
            }
            let reason = ignored::reason(&path).unwrap_or(UNKNOWN);
            self.ignored(&path, &field.value, reason);
        }
    }

    fn tensor(&mut self, path: &str, tensor: &Message) {
        let mut declared = Declared::default();
        let mut reshape = None;
        let mut dims = Vec::new();
        let mut others = Vec::new();
        let mut label = None;
        for field in &tensor.fields {
            match (field.name.as_str(), &field.value) {
                ("name", Value::Text(name)) => declared.name.clone_from(name),
                ("data_type", Value::Word(word)) => declared.datatype = datatype(word),
                ("dims", Value::Integer(extent)) => dims.push(i64::try_from(*extent).unwrap_or(-1)),
                ("reshape", Value::Message(shape)) => {
                    let extents = shape.integers("shape").map(|extent| i64::try_from(extent).unwrap_or(-1));
                    reshape = Some(extents.collect::<Vec<i64>>());
                }
                ("label_filename", Value::Text(file)) if path == "output" => label = Some(file.clone()),
                (name, value) => others.push((format!("{path} {}.{name}", shown(&declared.name)), value)),
            }
        }
        if let Some(shape) = &reshape {
            let note = "clients send and get the model's own shape, not the one before it";
            let shape = format!("{shape:?}");
            self.plan.note(&format!("{path} {}.reshape", shown(&declared.name)), &shape, Outcome::Ignored, note);
        }
        for (setting, value) in others {
            let name = setting.rsplit('.').next().unwrap_or_default();
            let reason = ignored::reason(&format!("{path}.{name}")).unwrap_or(UNKNOWN);
            self.plan.note(&setting, &in_short(value), Outcome::Ignored, reason);
        }
        declared.dims = Some(reshape.unwrap_or(dims));
        let list = if path == "input" { &mut self.plan.inputs } else { &mut self.plan.outputs };
        if list.len() < MAX_TENSORS {
            self.labels.extend(label.filter(|file| !file.is_empty()).map(|file| (list.len(), file)));
            list.push(declared);
        } else {
            self.plan.note(path, &declared.name, Outcome::Ignored, "more than a model may have");
        }
    }

    /// An entry of the parameters of Triton's ONNX Runtime backend.
    fn parameter(&mut self, entry: &Message) {
        let key = entry.text("key").unwrap_or_default();
        let value = match entry.last("value") {
            Some(Value::Message(value)) => value.text("string_value").unwrap_or_default(),
            Some(Value::Text(value)) => value,
            _ => "",
        };
        let setting = format!("parameters {key}");
        let (outcome, note) = match (key, value.parse::<u16>()) {
            ("intra_op_thread_count", Ok(0)) => (Outcome::Applied, "threads as registration measures best".to_owned()),
            ("intra_op_thread_count", Ok(threads)) => {
                self.plan.settings.threads = Some(threads);
                (Outcome::Applied, format!("threads {threads}"))
            }
            ("inter_op_thread_count" | "execution_mode", _) => {
                (Outcome::Ignored, "a run goes through the graph in order, with one pool of threads".to_owned())
            }
            _ => (Outcome::Ignored, "a parameter of Triton's backend that nothing corresponds to".to_owned()),
        };
        self.plan.note(&setting, value, outcome, note);
    }

    fn tag(&mut self, entry: &Message) {
        let (key, value) = (entry.text("key").unwrap_or_default(), entry.text("value").unwrap_or_default());
        let fits = |text: &str| text.len() <= MAX_TAG_BYTES && !text.chars().any(char::is_control);
        let setting = format!("metric_tags {key}");
        if key.is_empty() || !fits(key) || !fits(value) || self.plan.tags.len() >= MAX_TAGS {
            self.plan.note(&setting, value, Outcome::Ignored, "not fit for a tag");
            return;
        }
        self.plan.tags.insert(key.to_owned(), value.to_owned());
        self.plan.note(&setting, value, Outcome::Applied, "a tag of the versions");
    }

    fn finish(mut self) -> Plan {
        // Whether the extents have the batch in front is known only now.
        let leading = match self.rows {
            None => Leading::Unknown,
            Some(0) => Leading::Exact,
            Some(_) => Leading::Batch,
        };
        for declared in self.plan.inputs.iter_mut().chain(&mut self.plan.outputs) {
            declared.leading = leading;
        }
        for state in &mut self.plan.states {
            if leading == Leading::Batch {
                // A sequence's requests have one row.
                state.shape.insert(0, 1);
            }
        }
        for (position, file) in std::mem::take(&mut self.labels) {
            self.label(position, &file);
        }
        if self.is_served == Some(true) {
            // The other of the two may have said something else.
            let refused = self.plan.filename_is_refused();
            self.plan.skipped = self.plan.skipped.take().filter(|_| refused);
        }
        if self.plan.chain.is_some() {
            self.plan.settings = VersionSettings::default();
            let of_model = ["max_batch_size", "dynamic_batching", "instance_group", "optimization", "parameters"];
            for finding in &mut self.plan.findings {
                if of_model.iter().any(|name| finding.setting.starts_with(name)) {
                    finding.outcome = Outcome::Ignored;
                    "each stage has its own".clone_into(&mut finding.note);
                }
            }
            self.plan.max_replicas = None;
            self.plan.min_replicas = None;
        }
        self.plan
    }

    /// The labels in `file`, for the output at a position.
    fn label(&mut self, position: usize, file: &str) {
        let Some(output) = self.plan.outputs.get(position) else { return };
        let classes = match (output.leading, output.dims.as_deref()) {
            (Leading::Batch, Some([classes])) | (Leading::Exact, Some([_, classes])) => u64::try_from(*classes).ok(),
            _ => None,
        };
        let classes = classes.filter(|classes| *classes > 0 && output.datatype == Some(DataType::Fp32));
        let name = output.name.clone();
        let setting = label_setting(&name);
        match classes {
            Some(classes) if is_plain_file_name(file) && self.plan.chain.is_none() => {
                let labels = Labels { output: name, file: file.to_owned(), classes };
                let note = format!("the likeliest class's label is the output `{}`", shown(&labels.name()));
                self.plan.labels.push(labels);
                self.plan.note(&setting, file, Outcome::Applied, note);
            }
            _ => self.plan.note(&setting, file, Outcome::Ignored, "only an output of FP32 [rows, classes] gets labels"),
        }
    }
}

/// What a report calls the file with an output's labels.
fn label_setting(output: &str) -> String {
    format!("output {output}.label_filename")
}

impl Plan {
    /// Leaves an output's labels out.
    pub(crate) fn without_labels(&mut self, output: &str, reason: &str) {
        self.labels.retain(|labels| labels.output != output);
        let setting = shown(&label_setting(output));
        for finding in self.findings.iter_mut().filter(|finding| finding.setting == setting) {
            finding.outcome = Outcome::Ignored;
            reason.clone_into(&mut finding.note);
        }
    }

    fn filename_is_refused(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.setting == "default_model_filename" && finding.outcome == Outcome::Ignored)
    }
}

impl Message {
    fn last(&self, name: &str) -> Option<&Value> {
        self.fields.iter().rev().find(|field| field.name == name).map(|field| &field.value)
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.last(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn messages(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.fields.iter().filter(move |field| field.name == name).filter_map(|field| match &field.value {
            Value::Message(message) => Some(message),
            _ => None,
        })
    }

    fn words(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.fields.iter().filter(move |field| field.name == name).filter_map(|field| match &field.value {
            Value::Word(word) => Some(word.as_str()),
            _ => None,
        })
    }

    fn integers(&self, name: &str) -> impl DoubleEndedIterator<Item = i128> {
        self.fields.iter().filter(move |field| field.name == name).filter_map(|field| match field.value {
            Value::Integer(number) => Some(number),
            _ => None,
        })
    }
}

fn datatype(word: &str) -> Option<DataType> {
    match word.strip_prefix("TYPE_")? {
        "STRING" => Some(DataType::Bytes),
        other => other.parse().ok().filter(|datatype| *datatype != DataType::Bytes),
    }
}

/// A value in few words: what is in a message is not told.
fn in_short(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("\"{text}\""),
        Value::Word(word) => word.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Message(message) if message.fields.is_empty() => "{}".to_owned(),
        Value::Message(_) => "{…}".to_owned(),
    }
}

#[cfg(test)]
mod tests;
