//! What the service says, as the protocol's messages.

use std::time::Duration;

use tenantry_oip::grpc::proto::model_instance_group::Kind;
use tenantry_oip::grpc::proto::model_metadata_response::TensorMetadata;
use tenantry_oip::grpc::proto::model_version_policy::{All, PolicyChoice};
use tenantry_oip::grpc::proto::repository_index_response::ModelIndex;
use tenantry_oip::grpc::proto::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup,
    ModelMetadataResponse, ModelOutput, ModelStatistics, ModelTransactionPolicy, ModelVersionPolicy, StatisticDuration,
};
use tenantry_server::{DurationStatistic, RepositoryEntry};
use tenantry_types::TensorSpec;

use crate::v2::repository;

/// A model's metadata.
pub(crate) fn metadata(metadata: tenantry_server::ModelMetadata) -> ModelMetadataResponse {
    ModelMetadataResponse {
        name: metadata.name.to_string(),
        versions: metadata.versions,
        platform: metadata.platform.to_owned(),
        inputs: metadata.signature.inputs.iter().map(tensor).collect(),
        outputs: metadata.signature.outputs.iter().map(tensor).collect(),
    }
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.as_str().to_owned(),
        shape: spec.dims.iter().map(|dim| dim.as_protocol()).collect(),
    }
}

/// A version's configuration, as over HTTP.
pub(crate) fn config(config: &tenantry_server::ModelConfig) -> ModelConfig {
    let whole = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let name = config.name.to_string();
    let batching = ModelDynamicBatching {
        preferred_batch_size: vec![whole(config.max_batch)],
        max_queue_delay_microseconds: u64::try_from(config.max_batch_delay.as_micros()).unwrap_or(u64::MAX),
    };
    let group = ModelInstanceGroup { name: name.clone(), count: whole(config.max_replicas), kind: Kind::Cpu.into() };
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: config.dims(spec),
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: config.dims(spec),
    };
    ModelConfig {
        name,
        platform: config.platform.to_owned(),
        backend: "onnxruntime".to_owned(),
        version_policy: Some(ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) }),
        max_batch_size: whole(config.max_batch),
        input: config.signature.inputs.iter().map(input).collect(),
        output: config.signature.outputs.iter().map(output).collect(),
        instance_group: vec![group],
        dynamic_batching: (config.max_batch > 1).then_some(batching),
        default_model_filename: "model.onnx".to_owned(),
        parameters: Default::default(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
    }
}

fn data_type(datatype: tenantry_types::DataType) -> DataType {
    use tenantry_types::DataType as Of;
    match datatype {
        Of::Bool => DataType::TypeBool,
        Of::Uint8 => DataType::TypeUint8,
        Of::Uint16 => DataType::TypeUint16,
        Of::Uint32 => DataType::TypeUint32,
        Of::Uint64 => DataType::TypeUint64,
        Of::Int8 => DataType::TypeInt8,
        Of::Int16 => DataType::TypeInt16,
        Of::Int32 => DataType::TypeInt32,
        Of::Int64 => DataType::TypeInt64,
        Of::Fp16 => DataType::TypeFp16,
        Of::Bf16 => DataType::TypeBf16,
        Of::Fp32 => DataType::TypeFp32,
        Of::Fp64 => DataType::TypeFp64,
        Of::Bytes => DataType::TypeString,
    }
}

/// One version in the list of what a caller may use.
pub(crate) fn entry(RepositoryEntry { name, version }: RepositoryEntry) -> ModelIndex {
    ModelIndex {
        name: name.to_string(),
        version: version.number.to_string(),
        state: repository::state(version.state).to_owned(),
        reason: version.reason.unwrap_or_default(),
    }
}

/// One version's statistics.
pub(crate) fn statistics(statistics: tenantry_server::ModelStatistics) -> ModelStatistics {
    ModelStatistics {
        name: statistics.name.to_string(),
        version: statistics.version,
        last_inference: statistics.last_inference_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0),
        inference_count: statistics.inferences,
        execution_count: statistics.executions,
        inference_stats: Some(InferStatistics {
            success: duration(statistics.success),
            fail: duration(statistics.fail),
            queue: duration(statistics.queue),
            compute_input: within(statistics.compute),
            compute_infer: duration(statistics.compute),
            compute_output: within(statistics.compute),
            cache_hit: duration(statistics.cache_hit),
            cache_miss: duration(statistics.cache_miss),
        }),
        batch_stats: statistics.batches.into_iter().map(batch).collect(),
    }
}

fn batch(batch: tenantry_server::BatchStatistics) -> InferBatchStatistics {
    InferBatchStatistics {
        batch_size: batch.rows.into(),
        compute_input: within(batch.compute),
        compute_infer: duration(batch.compute),
        compute_output: within(batch.compute),
    }
}

#[expect(clippy::unnecessary_wraps, reason = "sub-messages are optional in every field they go in")]
fn duration(statistic: DurationStatistic) -> Option<StatisticDuration> {
    let ns = u64::try_from(statistic.total.as_nanos()).unwrap_or(u64::MAX);
    Some(StatisticDuration { count: statistic.count, ns })
}

/// Copying inputs in and outputs out is part of computing: it happened as often, and has no time of its own.
fn within(compute: DurationStatistic) -> Option<StatisticDuration> {
    duration(DurationStatistic { total: Duration::ZERO, ..compute })
}
