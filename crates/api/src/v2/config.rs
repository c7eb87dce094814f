//! A model's configuration in the words of Triton's `model_config.proto`, as its extension shows it in JSON.
//!
//! Every figure is what holds here; settings that have no meaning here are left out or have the value that says so.

use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use tenantry_server::{ModelConfig, Principal};
use tenantry_types::{DataType, ModelRef, ServiceError, TensorSpec};

use crate::reply::{Reply, json};
use crate::route::Edge;

#[derive(Serialize)]
struct Config {
    name: String,
    platform: &'static str,
    backend: &'static str,
    version_policy: VersionPolicy,
    max_batch_size: u32,
    input: Vec<Input>,
    output: Vec<Output>,
    instance_group: [InstanceGroup; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic_batching: Option<DynamicBatching>,
    default_model_filename: &'static str,
    parameters: Map<String, Value>,
    model_transaction_policy: TransactionPolicy,
}

/// Every version that is registered can be asked for.
#[derive(Serialize)]
struct VersionPolicy {
    all: Map<String, Value>,
}

#[derive(Serialize)]
struct Input {
    name: String,
    data_type: &'static str,
    format: &'static str,
    dims: Vec<i64>,
    is_shape_tensor: bool,
    allow_ragged_batch: bool,
    optional: bool,
}

#[derive(Serialize)]
struct Output {
    name: String,
    data_type: &'static str,
    dims: Vec<i64>,
    label_filename: &'static str,
    is_shape_tensor: bool,
}

#[derive(Serialize)]
struct InstanceGroup {
    name: String,
    kind: &'static str,
    count: u32,
    gpus: [u32; 0],
}

#[derive(Serialize)]
struct DynamicBatching {
    preferred_batch_size: [u32; 1],
    max_queue_delay_microseconds: u64,
    preserve_ordering: bool,
}

#[derive(Serialize)]
struct TransactionPolicy {
    decoupled: bool,
}

/// The configuration of a model's version.
pub(super) fn config(
    edge: &Edge,
    principal: &Principal,
    model: &ModelRef,
    version: Option<&str>,
) -> Result<Reply, ServiceError> {
    let config = edge.server.model_config(principal, model, version)?;
    let ModelConfig { name, platform, max_batch, max_batch_delay, max_replicas, signature } = &config;
    let input = |spec: &TensorSpec| Input {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        format: "FORMAT_NONE",
        dims: config.dims(spec),
        is_shape_tensor: false,
        allow_ragged_batch: false,
        optional: false,
    };
    let output = |spec: &TensorSpec| Output {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        dims: config.dims(spec),
        label_filename: "",
        is_shape_tensor: false,
    };
    let delay_us = u64::try_from(max_batch_delay.as_micros()).unwrap_or(u64::MAX);
    let shown = Config {
        name: name.to_string(),
        platform,
        backend: "onnxruntime",
        version_policy: VersionPolicy { all: Map::new() },
        max_batch_size: *max_batch,
        input: signature.inputs.iter().map(input).collect(),
        output: signature.outputs.iter().map(output).collect(),
        instance_group: [InstanceGroup { name: name.to_string(), kind: "KIND_CPU", count: *max_replicas, gpus: [] }],
        dynamic_batching: (*max_batch > 1).then_some(DynamicBatching {
            preferred_batch_size: [*max_batch],
            max_queue_delay_microseconds: delay_us,
            preserve_ordering: false,
        }),
        default_model_filename: "model.onnx",
        parameters: Map::new(),
        model_transaction_policy: TransactionPolicy { decoupled: false },
    };
    Ok(json(StatusCode::OK, &shown))
}

/// The configuration's word for an element type.
fn data_type(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "TYPE_BOOL",
        DataType::Uint8 => "TYPE_UINT8",
        DataType::Uint16 => "TYPE_UINT16",
        DataType::Uint32 => "TYPE_UINT32",
        DataType::Uint64 => "TYPE_UINT64",
        DataType::Int8 => "TYPE_INT8",
        DataType::Int16 => "TYPE_INT16",
        DataType::Int32 => "TYPE_INT32",
        DataType::Int64 => "TYPE_INT64",
        DataType::Fp16 => "TYPE_FP16",
        DataType::Bf16 => "TYPE_BF16",
        DataType::Fp32 => "TYPE_FP32",
        DataType::Fp64 => "TYPE_FP64",
        DataType::Bytes => "TYPE_STRING",
    }
}
