//! A request from `NAME=JSON` and `NAME=@FILE`: types from the model's metadata, shapes from the nesting, from the command
//! line, or from the file's size where only one extent is open.

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tenantry_types::DataType;

use crate::arguments::Infer;

/// What the protocol says of a model.
#[derive(Debug, Deserialize)]
pub(super) struct ModelMetadata {
    pub(super) inputs: Vec<InputMetadata>,
}

/// One input of a model.
#[derive(Debug, Deserialize)]
pub(super) struct InputMetadata {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
}

/// A body: JSON, and the files' bytes behind it.
#[derive(Debug, PartialEq)]
pub(super) struct Built {
    pub(super) json_length: usize,
    pub(super) body: Vec<u8>,
}

pub(super) fn build(metadata: &ModelMetadata, arguments: &Infer, json_answer: bool) -> Result<Built> {
    let mut inputs = Vec::new();
    let mut files = Vec::new();
    for (name, value) in &arguments.input {
        let input = metadata.inputs.iter().find(|input| input.name == *name).with_context(|| {
            let known: Vec<&str> = metadata.inputs.iter().map(|input| input.name.as_str()).collect();
            format!("the model has no input `{name}`; it has {}", known.join(", "))
        })?;
        let shape = arguments.shape.iter().find(|(shaped, _)| shaped == name).map(|(_, shape)| shape.clone());
        match value.strip_prefix('@') {
            Some(path) => {
                let content = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
                let shape = match shape {
                    Some(shape) => shape,
                    None => shape_of_bytes(input, content.len())?,
                };
                inputs.push(json!({
                    "name": name, "datatype": input.datatype, "shape": shape,
                    "parameters": { "binary_data_size": content.len() },
                }));
                files.extend(content);
            }
            None => {
                let data: Value =
                    serde_json::from_str(value).with_context(|| format!("the value of input `{name}` is not JSON"))?;
                let shape = shape.unwrap_or_else(|| shape_of_json(&data));
                // A scalar has the shape [], but the protocol's data is always a list.
                let data = if data.is_array() { data } else { json!([data]) };
                inputs.push(json!({ "name": name, "datatype": input.datatype, "shape": shape, "data": data }));
            }
        }
    }
    let outputs: Vec<Value> = arguments
        .output
        .iter()
        .map(|name| json!({ "name": name, "parameters": { "binary_data": !json_answer } }))
        .collect();
    // No outputs in the list means all of them.
    let request = json!({ "inputs": inputs, "outputs": outputs, "parameters": { "binary_data_output": !json_answer } });
    let mut body = serde_json::to_vec(&request)?;
    let json_length = body.len();
    body.extend(files);
    Ok(Built { json_length, body })
}

/// The extents of nested lists: those of the first element of each level.
fn shape_of_json(mut data: &Value) -> Vec<u64> {
    let mut shape = Vec::new();
    while let Value::Array(elements) = data {
        shape.push(elements.len() as u64);
        match elements.first() {
            Some(first) => data = first,
            None => break,
        }
    }
    shape
}

/// The model's extents with the one open extent that makes `bytes` fit; the first open one, if the others are then 1.
fn shape_of_bytes(input: &InputMetadata, bytes: usize) -> Result<Vec<u64>> {
    let name = &input.name;
    let datatype: DataType = input.datatype.parse()?;
    let Some(element_bytes) = datatype.element_bytes() else {
        bail!("input `{name}` has elements of any length; say its shape: --shape {name}=...");
    };
    let open = input.shape.iter().filter(|extent| **extent < 0).count();
    ensure!(open <= 1, "input `{name}` has {open} open extents; say its shape: --shape {name}=...");
    let fixed: u64 = input.shape.iter().filter_map(|extent| u64::try_from(*extent).ok()).product();
    let row_bytes = fixed * element_bytes as u64;
    let rows = (bytes as u64).checked_div(row_bytes).unwrap_or(0);
    ensure!(
        rows * row_bytes == bytes as u64 && (open == 1 || rows == 1),
        "{bytes} bytes do not fill input `{name}`, {datatype} {:?}; say its shape: --shape {name}=...",
        input.shape
    );
    Ok(input.shape.iter().map(|extent| u64::try_from(*extent).unwrap_or(rows)).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn arguments(line: &[&str]) -> Infer {
        let line = ["tenantry", "infer", "m"].iter().chain(line);
        match Arguments::try_parse_from(line).unwrap().command {
            Command::Infer(infer) => infer,
            _ => unreachable!(),
        }
    }

    fn metadata() -> ModelMetadata {
        let input = |name: &str, datatype: &str, shape: &[i64]| InputMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
        };
        let inputs = vec![input("x", "FP32", &[-1, 2]), input("rate", "INT64", &[]), input("text", "BYTES", &[-1])];
        ModelMetadata { inputs }
    }

    fn header(built: &Built) -> Value {
        serde_json::from_slice(&built.body[..built.json_length]).unwrap()
    }

    #[test]
    fn nested_json_becomes_a_tensor_of_its_shape() {
        let line = ["--input", "x=[[1,2],[3,4],[5,6]]", "--input", "rate=16000", "--output", "y"];
        let built = build(&metadata(), &arguments(&line), true).unwrap();
        assert_eq!(built.json_length, built.body.len());
        let request = header(&built);
        assert_eq!(request["inputs"][0]["shape"], json!([3, 2]));
        assert_eq!(request["inputs"][1], json!({"name": "rate", "datatype": "INT64", "shape": [], "data": [16000]}));
        assert_eq!(request["outputs"][0]["parameters"]["binary_data"], json!(false));
    }

    #[test]
    fn a_file_fills_the_open_extent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.f32");
        std::fs::write(&path, [7; 24]).unwrap();
        let value = format!("x=@{}", path.display());
        let built = build(&metadata(), &arguments(&["--input", &value]), false).unwrap();
        let request = header(&built);
        assert_eq!(request["inputs"][0]["shape"], json!([3, 2]));
        assert_eq!(request["inputs"][0]["parameters"]["binary_data_size"], json!(24));
        assert_eq!(built.body[built.json_length..], [7; 24]);
        std::fs::write(&path, [7; 25]).unwrap();
        assert!(build(&metadata(), &arguments(&["--input", &value]), false).is_err());
    }

    #[test]
    fn mistakes_say_what_to_do() {
        let fail = |line: &[&str]| build(&metadata(), &arguments(line), false).unwrap_err().to_string();
        assert!(fail(&["--input", "z=[1]"]).contains("it has x, rate, text"));
        assert!(fail(&["--input", "x=[1"]).contains("not JSON"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        std::fs::write(&path, "abc").unwrap();
        assert!(fail(&["--input", &format!("text=@{}", path.display())]).contains("--shape text="));
    }
}
