//! What settings become that have their place in a version's manifest, `tenantry.toml`: labels, states, chains.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tenantry_types::DataType;

use crate::Plan;

/// What the file is called.
pub const FILE_NAME: &str = "tenantry.toml";
/// The most stages of a chain.
const MAX_STAGES: usize = 16;

/// The names of an output's classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// The output, FP32 [rows, classes].
    pub output: String,
    /// The file with a label a line, beside the settings.
    pub file: String,
    /// How many there have to be.
    pub classes: u64,
}

impl Labels {
    /// What the output with the likeliest class's label is called.
    pub fn name(&self) -> String {
        format!("{}_label", self.output)
    }
}

/// What is carried from one request of a sequence to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// The model's input.
    pub name: String,
    /// The model's output that is the input of the next request.
    pub next: String,
    /// The element type.
    pub datatype: DataType,
    /// All extents.
    pub shape: Vec<u64>,
}

/// Models one behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// The models, in any order.
    pub stages: Vec<Stage>,
}

/// One model of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stage {
    /// As its folder is called.
    pub model: String,
    /// The number of the version; absent: the one that serves.
    pub version: Option<u64>,
    /// The model's inputs, and the values they are.
    pub inputs: BTreeMap<String, String>,
    /// The model's outputs, and the values they become.
    pub outputs: BTreeMap<String, String>,
}

/// A manifest as it is written.
#[derive(Default, Serialize)]
struct Written {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    input: Vec<Input>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    state: Vec<State>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stage: Vec<WrittenStage>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<TopK>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    output: Vec<Output>,
}

#[derive(Serialize)]
struct Input {
    name: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    datatype: DataType,
    shape: Vec<i64>,
}

#[derive(Serialize)]
struct WrittenStage {
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    inputs: BTreeMap<String, String>,
    outputs: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct TopK {
    step: &'static str,
    from: String,
    k: u32,
    file: String,
    labels: String,
    scores: String,
}

#[derive(Serialize)]
struct Output {
    name: String,
}

/// The manifest beside a model of this plan; none where nothing needs one.
pub fn of_model(plan: &Plan) -> Option<String> {
    if plan.labels.is_empty() && plan.states.is_empty() {
        return None;
    }
    let mut written = Written { state: plan.states.clone(), ..Written::default() };
    for labels in &plan.labels {
        written.after.push(TopK {
            step: "top_k",
            from: labels.output.clone(),
            k: 1,
            file: labels.file.clone(),
            labels: labels.name(),
            scores: format!("{}_score", labels.name()),
        });
    }
    if !plan.labels.is_empty() {
        let outputs = plan.outputs.iter().map(|output| output.name.clone());
        written.output = outputs.chain(plan.labels.iter().map(Labels::name)).map(|name| Output { name }).collect();
    }
    toml::to_string(&written).ok()
}

/// The manifest of a chain. `here` gives the name of a stage's model and the version, where one is named.
///
/// # Errors
/// A chain that cannot be one here, in words, or what `here` says.
pub fn of_chain<E: From<String>>(
    plan: &Plan,
    chain: &Chain,
    mut here: impl FnMut(&Stage) -> Result<(String, Option<u32>), E>,
) -> Result<String, E> {
    let mut written = Written::default();
    for input in &plan.inputs {
        let datatype = input.datatype.ok_or_else(|| format!("the type of its input `{}` is not known", input.name))?;
        let dims = input.dims.clone().unwrap_or_default();
        // The rows come first, said or not.
        let (rows, shape) = match input.leading {
            crate::declared::Leading::Batch => (None, dims),
            _ => {
                let (rows, shape) =
                    dims.split_first().ok_or_else(|| format!("its input `{}` is no list", input.name))?;
                (u64::try_from(*rows).ok(), shape.to_vec())
            }
        };
        written.input.push(Input { name: input.name.clone(), r#type: "tensor", rows, datatype, shape });
    }
    for stage in in_order(plan, chain)? {
        let (model, version) = here(stage)?;
        written.stage.push(WrittenStage {
            model,
            version: version.map(|number| number.to_string()),
            inputs: stage.inputs.clone(),
            outputs: stage.outputs.clone(),
        });
    }
    written.output = plan.outputs.iter().map(|output| Output { name: output.name.clone() }).collect();
    toml::to_string(&written).map_err(|_| "its chain cannot be written".to_owned().into())
}

/// The stages, each behind those whose outputs it reads.
fn in_order<'a>(plan: &'a Plan, chain: &'a Chain) -> Result<Vec<&'a Stage>, String> {
    if chain.stages.len() > MAX_STAGES {
        return Err(format!("it chains {} models; a chain has at most {MAX_STAGES}", chain.stages.len()));
    }
    let mut known: BTreeSet<&str> = plan.inputs.iter().map(|input| input.name.as_str()).collect();
    let mut waiting: Vec<&Stage> = chain.stages.iter().collect();
    let mut ordered = Vec::new();
    while !waiting.is_empty() {
        let next = waiting.iter().position(|stage| stage.inputs.values().all(|value| known.contains(value.as_str())));
        let Some(next) = next else { return Err("a stage of its chain reads what none before it makes".to_owned()) };
        let stage = waiting.remove(next);
        known.extend(stage.outputs.values().map(String::as_str));
        ordered.push(stage);
    }
    match plan.outputs.iter().find(|output| !known.contains(output.name.as_str())) {
        Some(output) => Err(format!("no stage of its chain makes the output `{}`", crate::shown(&output.name))),
        None => Ok(ordered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declared::{Declared, Leading};

    fn declared(name: &str, datatype: DataType, dims: &[i64], leading: Leading) -> Declared {
        Declared { name: name.to_owned(), datatype: Some(datatype), dims: Some(dims.to_vec()), leading }
    }

    fn stage(model: &str, version: Option<u64>, inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> Stage {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Stage { model: model.to_owned(), version, inputs: map(inputs), outputs: map(outputs) }
    }

    #[test]
    fn labels_and_states_stand_beside_the_model() {
        assert_eq!(of_model(&Plan::default()), None);
        let plan = Plan {
            outputs: vec![declared("scores", DataType::Fp32, &[2], Leading::Batch)],
            labels: vec![Labels { output: "scores".to_owned(), file: "a \"b\".txt".to_owned(), classes: 2 }],
            states: vec![State {
                name: "h".to_owned(),
                next: "h_next".to_owned(),
                datatype: DataType::Fp32,
                shape: vec![1, 8],
            }],
            ..Plan::default()
        };
        let written: toml::Table = of_model(&plan).unwrap().parse().unwrap();
        let expected: toml::Table = r#"
            state = [{name = "h", next = "h_next", datatype = "FP32", shape = [1, 8]}]
            after = [{step = "top_k", from = "scores", k = 1, file = 'a "b".txt', labels = "scores_label", scores = "scores_label_score"}]
            output = [{name = "scores"}, {name = "scores_label"}]
        "#
        .parse()
        .unwrap();
        assert_eq!(written, expected);
    }

    #[test]
    fn a_chain_is_put_in_order_and_names_versions_as_they_are_here() {
        let plan = Plan {
            inputs: vec![
                declared("picture", DataType::Uint8, &[3, -1], Leading::Batch),
                declared("scale", DataType::Fp32, &[1, 2], Leading::Exact),
            ],
            outputs: vec![declared("text", DataType::Bytes, &[-1], Leading::Batch)],
            ..Plan::default()
        };
        let chain = Chain {
            stages: vec![
                stage("Read", Some(7), &[("x", "lines")], &[("y", "text")]),
                stage("find", None, &[("in", "picture")], &[("out", "lines")]),
            ],
        };
        let here = |stage: &Stage| Ok::<_, String>((stage.model.to_lowercase(), stage.version.map(|_| 2)));
        let written: toml::Table = of_chain(&plan, &chain, here).unwrap().parse().unwrap();
        let expected: toml::Table = r#"
            input = [
                {name = "picture", type = "tensor", datatype = "UINT8", shape = [3, -1]},
                {name = "scale", type = "tensor", rows = 1, datatype = "FP32", shape = [2]},
            ]
            stage = [
                {model = "find", inputs = {in = "picture"}, outputs = {out = "lines"}},
                {model = "read", version = "2", inputs = {x = "lines"}, outputs = {y = "text"}},
            ]
            output = [{name = "text"}]
        "#
        .parse()
        .unwrap();
        assert_eq!(written, expected);
    }

    #[test]
    fn a_chain_that_is_none_is_refused() {
        let plan = |inputs: &[&str], outputs: &[&str]| {
            let all = |names: &[&str]| {
                names.iter().map(|name| declared(name, DataType::Fp32, &[1], Leading::Batch)).collect()
            };
            Plan { inputs: all(inputs), outputs: all(outputs), ..Plan::default() }
        };
        let of = |plan: &Plan, stages: Vec<Stage>| {
            of_chain(plan, &Chain { stages }, |stage| Ok::<_, String>((stage.model.clone(), None))).unwrap_err()
        };
        let round =
            vec![stage("a", None, &[("x", "v")], &[("y", "w")]), stage("b", None, &[("x", "w")], &[("y", "v")])];
        assert!(of(&plan(&[], &["v"]), round).contains("none before it"));
        assert!(of(&plan(&["i"], &["o"]), vec![stage("a", None, &[("x", "i")], &[("y", "z")])]).contains("output `o`"));
        let many = vec![stage("a", None, &[("x", "i")], &[("y", "o")]); MAX_STAGES + 1];
        assert!(of(&plan(&["i"], &["o"]), many).contains("at most"));
        let untyped =
            Plan { inputs: vec![Declared { name: "i".to_owned(), ..Declared::default() }], ..Plan::default() };
        assert!(of(&untyped, Vec::new()).contains("type"));
    }
}
