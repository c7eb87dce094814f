//! What is asked of models under `/v1` beside running them.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;
use tenantry_server::{ModelStatus, ModelSummary, Principal, VersionState, VersionStatus};
use tenantry_types::{DataType, Dim, ModelRef, ServiceError, TensorSpec};

use crate::reply::{Reply, json};
use crate::route::Edge;

/// The list of models: OpenAI's `data` beside KServe's `models`.
#[derive(Serialize)]
struct Models {
    object: &'static str,
    data: Vec<OpenAiModel>,
    models: Vec<String>,
}

/// A model as OpenAI's API shows it.
#[derive(Serialize)]
struct OpenAiModel {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: String,
}

impl OpenAiModel {
    fn new(name: &ModelRef, owner: &str, created_ms: i64) -> Self {
        Self { id: name.to_string(), object: "model", created: created_ms.div_euclid(1000), owned_by: owner.to_owned() }
    }
}

/// A model: OpenAI's object, KServe's `name` and `ready`, and TensorFlow Serving's versions.
#[derive(Serialize)]
struct Model {
    #[serde(flatten)]
    model: OpenAiModel,
    name: String,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    model_version_status: Vec<ModelVersionStatus>,
}

/// A version in the words of TensorFlow Serving's `get_model_status.proto`.
#[derive(Serialize)]
struct ModelVersionStatus {
    version: String,
    state: &'static str,
    status: Status,
}

#[derive(Serialize)]
struct Alive {
    status: &'static str,
}

/// KServe's v1 word for a server that is there.
pub(super) fn alive() -> Reply {
    json(StatusCode::OK, &Alive { status: "alive" })
}

#[derive(Serialize)]
struct Status {
    error_code: &'static str,
    error_message: String,
}

impl From<VersionStatus> for ModelVersionStatus {
    fn from(status: VersionStatus) -> Self {
        let VersionStatus { number, state, reason } = status;
        let (state, error_code) = match state {
            VersionState::Loading => ("LOADING", "OK"),
            VersionState::Available => ("AVAILABLE", "OK"),
            VersionState::Unavailable => ("END", "UNAVAILABLE"),
        };
        let error_message = reason.filter(|_| error_code != "OK").unwrap_or_default();
        Self { version: number.to_string(), state, status: Status { error_code, error_message } }
    }
}

/// The models the caller may use.
pub(crate) fn models(edge: &Edge, principal: &Principal) -> Reply {
    let summaries = edge.server.models(principal);
    let data = |summary: &ModelSummary| OpenAiModel::new(&summary.name, summary.owner.as_str(), summary.created_ms);
    let models = summaries.iter().map(|summary| summary.name.to_string()).collect();
    json(StatusCode::OK, &Models { object: "list", data: summaries.iter().map(data).collect(), models })
}

/// How a model is, and all its versions or the one asked for.
pub(crate) fn model(
    edge: &Edge,
    principal: &Principal,
    model: &ModelRef,
    version: Option<&str>,
) -> Result<Reply, ServiceError> {
    let ModelStatus { name, owner, created_ms, ready, reason, versions } =
        edge.server.model_status(principal, model, version)?;
    let model = Model {
        model: OpenAiModel::new(&name, owner.as_str(), created_ms),
        name: name.to_string(),
        ready,
        reason,
        model_version_status: versions.into_iter().map(ModelVersionStatus::from).collect(),
    };
    Ok(json(StatusCode::OK, &model))
}

/// TensorFlow Serving's `GetModelMetadataResponse`.
#[derive(Serialize)]
struct Metadata<'a> {
    model_spec: ModelSpec,
    metadata: SignatureDefs<'a>,
}

#[derive(Serialize)]
struct ModelSpec {
    name: String,
    signature_name: &'static str,
    version: String,
}

#[derive(Serialize)]
struct SignatureDefs<'a> {
    signature_def: SignatureDefMap<'a>,
}

#[derive(Serialize)]
struct SignatureDefMap<'a> {
    signature_def: ServingDefault<'a>,
}

#[derive(Serialize)]
struct ServingDefault<'a> {
    serving_default: SignatureDef<'a>,
}

#[derive(Serialize)]
struct SignatureDef<'a> {
    inputs: BTreeMap<&'a str, TensorInfo<'a>>,
    outputs: BTreeMap<&'a str, TensorInfo<'a>>,
    method_name: &'static str,
}

#[derive(Serialize)]
struct TensorInfo<'a> {
    dtype: &'static str,
    tensor_shape: TensorShape<'a>,
    name: &'a str,
}

#[derive(Serialize)]
struct TensorShape<'a> {
    dim: Vec<TensorDim<'a>>,
    unknown_rank: bool,
}

#[derive(Serialize)]
struct TensorDim<'a> {
    size: String,
    name: &'a str,
}

impl<'a> From<&'a TensorSpec> for TensorInfo<'a> {
    fn from(spec: &'a TensorSpec) -> Self {
        let dim = |dim: &'a Dim| TensorDim {
            size: dim.as_protocol().to_string(),
            name: if let Dim::Named(name) = dim { name } else { "" },
        };
        let tensor_shape = TensorShape { dim: spec.dims.iter().map(dim).collect(), unknown_rank: false };
        Self { dtype: dtype(spec.datatype), tensor_shape, name: &spec.name }
    }
}

/// The inputs and outputs of a version.
pub(super) fn metadata(
    edge: &Edge,
    principal: &Principal,
    model: &ModelRef,
    version: Option<&str>,
) -> Result<Reply, ServiceError> {
    let resolved = edge.server.resolve(principal, model, version)?;
    let signature = SignatureDef {
        inputs: infos(&resolved.signature.inputs),
        outputs: infos(&resolved.signature.outputs),
        method_name: "tensorflow/serving/predict",
    };
    let metadata = Metadata {
        model_spec: ModelSpec { name: model.to_string(), signature_name: "", version: resolved.version },
        metadata: SignatureDefs {
            signature_def: SignatureDefMap { signature_def: ServingDefault { serving_default: signature } },
        },
    };
    Ok(json(StatusCode::OK, &metadata))
}

fn infos(specs: &[TensorSpec]) -> BTreeMap<&str, TensorInfo<'_>> {
    specs.iter().map(|spec| (&*spec.name, TensorInfo::from(spec))).collect()
}

/// TensorFlow's word for an element type (`types.proto`).
fn dtype(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "DT_BOOL",
        DataType::Uint8 => "DT_UINT8",
        DataType::Uint16 => "DT_UINT16",
        DataType::Uint32 => "DT_UINT32",
        DataType::Uint64 => "DT_UINT64",
        DataType::Int8 => "DT_INT8",
        DataType::Int16 => "DT_INT16",
        DataType::Int32 => "DT_INT32",
        DataType::Int64 => "DT_INT64",
        DataType::Fp16 => "DT_HALF",
        DataType::Bf16 => "DT_BFLOAT16",
        DataType::Fp32 => "DT_FLOAT",
        DataType::Fp64 => "DT_DOUBLE",
        DataType::Bytes => "DT_STRING",
    }
}
