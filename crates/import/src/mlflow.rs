//! An MLflow model of the ONNX flavour: its file `MLmodel`, in YAML, and what its settings become.

use serde::Deserialize;
use serde_json::{Map, Value};
use tenantry_types::limits::MAX_TENSORS;
use tenantry_types::model::Optimization;
use tenantry_types::{DataType, error::sanitise};

use crate::declared::{Declared, Leading};
use crate::triton::VersionPolicy;
use crate::{Outcome, Plan, is_plain_file_name, shown};

/// The name of the file.
pub const MODEL_FILE: &str = "MLmodel";
/// The longest one, bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// Its model's file unless it says otherwise.
const DEFAULT_FILE: &str = "model.onnx";

/// A file that is no `MLmodel`. The text says where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MlflowError(String);

/// One input or output of a signature.
#[derive(Deserialize)]
struct Column {
    name: Option<String>,
    #[serde(rename = "type", default)]
    kind: Value,
    #[serde(rename = "tensor-spec")]
    tensor: Option<TensorSpec>,
}

#[derive(Deserialize)]
struct TensorSpec {
    dtype: String,
    shape: Vec<i64>,
}

/// What the settings in `text` become.
///
/// # Errors
/// The text is no YAML of an MLflow model, or longer than [`MAX_TEXT_BYTES`].
pub fn plan(text: &str) -> Result<Plan, MlflowError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(MlflowError("the text is longer than 1 MiB".to_owned()));
    }
    let model: Map<String, Value> = serde_saphyr::from_str(text)
        .map_err(|error| MlflowError(sanitise(error.to_string().lines().next().unwrap_or_default(), 200)))?;
    let mut plan = Plan { versions: VersionPolicy::All, ..Plan::default() };
    for (name, value) in &model {
        match (name.as_str(), value) {
            ("flavors", Value::Object(flavors)) => read_flavors(&mut plan, flavors),
            ("signature", Value::Object(signature)) => read_signature(&mut plan, signature),
            ("run_id" | "model_uuid" | "model_id" | "mlflow_version", Value::String(text)) => {
                let tag = if name.starts_with("mlflow") { name.clone() } else { format!("mlflow_{name}") };
                plan.tags.insert(tag, shown(text));
                plan.note(name, text, Outcome::Applied, "a tag of the version");
            }
            _ => plan.note(name, &in_short(value), Outcome::Ignored, reason(name)),
        }
    }
    if !matches!(model.get("flavors"), Some(Value::Object(flavors)) if flavors.contains_key("onnx")) {
        plan.skipped = Some("it has no ONNX flavour, and only ONNX models are served".to_owned());
    }
    Ok(plan)
}

fn read_flavors(plan: &mut Plan, flavors: &Map<String, Value>) {
    for (flavor, settings) in flavors {
        let setting = format!("flavors.{flavor}");
        match settings {
            Value::Object(settings) if flavor == "onnx" => {
                plan.note(&setting, "", Outcome::Applied, "served by ONNX Runtime");
                for (name, value) in settings {
                    read_onnx(plan, &format!("{setting}.{name}"), name, value);
                }
            }
            _ => plan.note(&setting, "", Outcome::Ignored, "the ONNX flavour is taken"),
        }
    }
}

fn read_onnx(plan: &mut Plan, setting: &str, name: &str, value: &Value) {
    match (name, value) {
        ("data", Value::String(file)) if is_plain_file_name(file) => {
            plan.filename = Some(file.clone());
            plan.note(setting, file, Outcome::Applied, "the model's file");
        }
        ("data", _) => {
            plan.note(setting, &in_short(value), Outcome::Ignored, "not the name of a file in the folder");
            plan.skipped = Some("its file is to be one outside of its folder".to_owned());
        }
        ("onnx_session_options", Value::Object(options)) => {
            for (name, value) in options {
                read_option(plan, &format!("{setting}.{name}"), name, value);
            }
        }
        _ => {
            let reason = match name {
                "providers" => "runs are on processors",
                "code" => "no code is run but the model's graph",
                "onnx_version" => "the model's file says it",
                _ => reason(name),
            };
            plan.note(setting, &in_short(value), Outcome::Ignored, reason);
        }
    }
}

fn read_option(plan: &mut Plan, setting: &str, name: &str, value: &Value) {
    let number = value.as_u64();
    let (outcome, note) = match (name, number) {
        ("intra_op_num_threads", Some(threads)) if threads > 0 && u16::try_from(threads).is_ok() => {
            plan.settings.threads = u16::try_from(threads).ok();
            (Outcome::Applied, format!("threads {threads}"))
        }
        ("intra_op_num_threads", Some(0)) => (Outcome::Applied, "threads as registration measures best".to_owned()),
        // The numbers of ONNX Runtime's levels.
        ("graph_optimization_level", Some(level @ (0 | 1 | 2 | 99))) => {
            let (optimization, word) = match level {
                0 => (Optimization::Disabled, "disabled"),
                1 => (Optimization::Basic, "basic"),
                2 => (Optimization::Extended, "extended"),
                _ => (Optimization::All, "all"),
            };
            plan.settings.optimization = Some(optimization);
            (Outcome::Applied, format!("optimization {word}"))
        }
        ("inter_op_num_threads" | "execution_mode", _) => {
            (Outcome::Ignored, "a run goes through the graph in order, with one pool of threads".to_owned())
        }
        _ => (Outcome::Ignored, "an option of ONNX Runtime that cannot be set".to_owned()),
    };
    plan.note(setting, &in_short(value), outcome, note);
}

fn read_signature(plan: &mut Plan, signature: &Map<String, Value>) {
    for (name, value) in signature {
        let setting = format!("signature.{name}");
        match (name.as_str(), value) {
            ("inputs" | "outputs", Value::String(json)) => match serde_json::from_str::<Vec<Column>>(json) {
                Ok(columns) => {
                    let declared: Vec<Declared> = columns.into_iter().filter_map(declared).take(MAX_TENSORS).collect();
                    let of = if name == "inputs" { &mut plan.inputs } else { &mut plan.outputs };
                    let named = declared.len();
                    *of = declared;
                    let (outcome, note) = match named {
                        0 => (Outcome::Ignored, "it names no tensors, which is what is sent here"),
                        _ => (Outcome::Compared, "compared with the model's file once it is registered"),
                    };
                    plan.note(&setting, "[…]", outcome, note);
                }
                Err(_) => plan.note(&setting, json, Outcome::Ignored, "not a list of columns or tensors"),
            },
            (_, Value::Null) => {}
            _ => plan.note(&setting, &in_short(value), Outcome::Ignored, "a request's parameters are not checked"),
        }
    }
}

fn declared(column: Column) -> Option<Declared> {
    let Column { name, kind, tensor } = column;
    let (datatype, dims) = match (&kind, tensor) {
        (Value::String(kind), Some(tensor)) if kind == "tensor" => (datatype(&tensor.dtype), Some(tensor.shape)),
        // The columns of a table say nothing of tensors.
        _ => return None,
    };
    Some(Declared { name: name?, datatype, dims, leading: Leading::Exact })
}

/// The name of a type in numpy.
fn datatype(name: &str) -> Option<DataType> {
    match name {
        "object" | "str" | "string" => Some(DataType::Bytes),
        "bool" => Some(DataType::Bool),
        "float16" => Some(DataType::Fp16),
        "float32" => Some(DataType::Fp32),
        "float64" => Some(DataType::Fp64),
        other if other.starts_with(['i', 'u']) => other.to_ascii_uppercase().parse().ok(),
        _ => None,
    }
}

fn reason(name: &str) -> &'static str {
    match name {
        "artifact_path" | "model_size_bytes" | "utc_time_created" => "a note of MLflow's",
        "saved_input_example_info" | "is_signature_from_type_hint" | "type_hint_from_example" => "a note of MLflow's",
        "env_vars" | "resources" | "auth_policy" => "workers have no environment but their model",
        _ => "not a setting this version knows",
    }
}

fn in_short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(_) => "{…}".to_owned(),
        Value::Array(_) => "[…]".to_owned(),
        other => other.to_string(),
    }
}

/// The model's file in a folder whose plan this is.
pub fn filename(plan: &Plan) -> &str {
    plan.filename.as_deref().unwrap_or(DEFAULT_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = r#"
artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_session_options:
      execution_mode: sequential
      graph_optimization_level: 2
      intra_op_num_threads: 2
    onnx_version: 1.17.0
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    loader_module: mlflow.onnx
mlflow_version: 3.1.0
run_id: 0123456789abcdef
signature:
  inputs: '[{"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape":
    [-1, 4]}}]'
  outputs: '[{"type": "double", "name": "y"}]'
  params: null
"#;

    #[test]
    fn settings_and_signature_are_read() {
        let plan = plan(MODEL).unwrap();
        assert_eq!(plan.skipped, None);
        assert_eq!(filename(&plan), "model.onnx");
        assert_eq!((plan.settings.threads, plan.settings.optimization), (Some(2), Some(Optimization::Extended)));
        assert_eq!(plan.tags["mlflow_run_id"], "0123456789abcdef");
        let x = Declared {
            name: "x".to_owned(),
            datatype: Some(DataType::Fp32),
            dims: Some(vec![-1, 4]),
            leading: Leading::Exact,
        };
        assert_eq!((plan.inputs.as_slice(), plan.outputs.as_slice()), (&[x][..], &[][..]));
        let ignored = |name: &str| {
            let found = plan.findings.iter().find(|finding| finding.setting == name);
            found.is_some_and(|finding| finding.outcome == Outcome::Ignored)
        };
        for name in ["flavors.python_function", "flavors.onnx.providers", "artifact_path", "signature.outputs"] {
            assert!(ignored(name), "{name}: {:#?}", plan.findings);
        }
    }

    #[test]
    fn other_flavours_and_files_elsewhere_are_skipped_with_a_reason() {
        let other = plan("flavors:\n  sklearn:\n    pickled_model: model.pkl\n").unwrap();
        assert!(other.skipped.unwrap().contains("ONNX"));
        assert!(plan("mlflow_version: 3.1.0\n").unwrap().skipped.is_some());
        let outside = plan("flavors:\n  onnx:\n    data: ../../secret\n").unwrap();
        assert!(outside.skipped.unwrap().contains("outside"));
    }

    #[test]
    fn what_is_no_model_is_an_error_of_one_line() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for text in ["- a\n- b\n", "flavors: [", "\u{0}", &deep, &" ".repeat(MAX_TEXT_BYTES + 1)] {
            let error = plan(text).unwrap_err().to_string();
            assert!(error.lines().count() <= 1 && error.chars().count() <= 201, "{error}");
        }
    }

    #[test]
    fn aliases_do_not_multiply_without_bound() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(plan(&text).is_err());
    }
}
