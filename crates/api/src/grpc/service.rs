//! The calls of the inference service, by name.

use std::collections::BTreeMap;

use tenantry_oip::grpc::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelMetadataRequest, ModelReadyRequest, ModelReadyResponse,
    ModelRepositoryParameter, ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse, RepositoryModelUnloadRequest,
    RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use tenantry_server::Principal;
use tenantry_types::error::sanitise;
use tenantry_types::{ErrorCode, ServiceError};

use super::call::Call;
use super::messages::Messages;
use super::reply::Reply;
use super::{convert, infer, stream};
use crate::caller::model_ref;
use crate::v2::{repository, unimplemented};

/// The extensions of the protocol that are there, by Triton's names.
const EXTENSIONS: [&str; 4] = ["model_configuration", "model_repository", "parameters", "statistics"];
/// Characters of a parameter's name that an error shows.
const SHOWN_NAME_CHARS: usize = 64;

/// Serves a call that needs no key.
pub(crate) async fn probe(call: Call, mut messages: Messages, method: &str) -> Result<Reply, ServiceError> {
    match method {
        "ServerLive" => {
            let ServerLiveRequest {} = call.small(&mut messages).await?;
            call.reply(&ServerLiveResponse { live: true })
        }
        _ => {
            let ServerReadyRequest {} = call.small(&mut messages).await?;
            call.reply(&ServerReadyResponse { ready: call.edge.is_ready() })
        }
    }
}

/// Serves a call of an authenticated caller.
pub(crate) async fn serve(
    call: Call,
    mut messages: Messages,
    principal: Principal,
    method: &str,
) -> Result<Reply, ServiceError> {
    match method {
        "ModelInfer" => infer::model_infer(call, messages, principal).await,
        "ModelStreamInfer" => Ok(stream::model_stream_infer(call, messages)),
        "ServerMetadata" => {
            let ServerMetadataRequest {} = call.small(&mut messages).await?;
            call.reply(&ServerMetadataResponse {
                name: "tenantry".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                extensions: EXTENSIONS.map(str::to_owned).into(),
            })
        }
        "ModelReady" => {
            let ModelReadyRequest { name, version } = call.small(&mut messages).await?;
            let readiness = call.edge.server.model_ready(&principal, &model_ref(&name)?, given(&version))?;
            call.reply(&ModelReadyResponse { ready: readiness.ready })
        }
        "ModelMetadata" => {
            let ModelMetadataRequest { name, version } = call.small(&mut messages).await?;
            let metadata = call.edge.server.model_metadata(&principal, &model_ref(&name)?, given(&version))?;
            call.reply(&convert::metadata(metadata))
        }
        "ModelStatistics" => {
            let ModelStatisticsRequest { name, version } = call.small(&mut messages).await?;
            let model = given(&name).map(model_ref).transpose()?;
            let all = call.edge.server.model_statistics(&principal, model.as_ref(), given(&version))?;
            call.reply(&ModelStatisticsResponse { model_stats: all.into_iter().map(convert::statistics).collect() })
        }
        "ModelConfig" => {
            let ModelConfigRequest { name, version } = call.small(&mut messages).await?;
            let config = call.edge.server.model_config(&principal, &model_ref(&name)?, given(&version))?;
            call.reply(&ModelConfigResponse { config: Some(convert::config(&config)) })
        }
        "RepositoryIndex" => {
            let RepositoryIndexRequest { ready, .. } = call.small(&mut messages).await?;
            let entries = call.edge.server.repository_index(&principal, ready);
            call.reply(&RepositoryIndexResponse { models: entries.into_iter().map(convert::entry).collect() })
        }
        "RepositoryModelLoad" => load(call, messages, principal).await,
        "RepositoryModelUnload" => unload(call, messages, principal).await,
        "SystemSharedMemoryStatus"
        | "SystemSharedMemoryRegister"
        | "SystemSharedMemoryUnregister"
        | "CudaSharedMemoryStatus"
        | "CudaSharedMemoryRegister"
        | "CudaSharedMemoryUnregister" => Err(ServiceError::new(
            ErrorCode::Unimplemented,
            "this server offers no shared memory with clients; send tensors in the message",
        )),
        _ => Err(unimplemented()),
    }
}

/// Protocol Buffers write an absent text as an empty one.
fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// Has a model loaded and answers when it is.
async fn load(call: Call, mut messages: Messages, principal: Principal) -> Result<Reply, ServiceError> {
    let server = &call.edge.server;
    let mut permit = server.admit_unnamed(&principal, None)?;
    let RepositoryModelLoadRequest { model_name, parameters, .. } = call.small(&mut messages).await?;
    let model = model_ref(&model_name)?;
    server.narrow(&principal, &mut permit, &model)?;
    only(&parameters, &[])?;
    server.repository_load(&principal, &permit, &model, call.timeout()?).await?;
    call.reply(&RepositoryModelLoadResponse {})
}

/// Lets go of a model's idle replicas and answers when they are gone.
async fn unload(call: Call, mut messages: Messages, principal: Principal) -> Result<Reply, ServiceError> {
    let server = &call.edge.server;
    let mut permit = server.admit_unnamed(&principal, None)?;
    let RepositoryModelUnloadRequest { model_name, parameters, .. } = call.small(&mut messages).await?;
    let model = model_ref(&model_name)?;
    server.narrow(&principal, &mut permit, &model)?;
    // No model here has dependents, so their parameter asks for nothing.
    only(&parameters, &["unload_dependents"])?;
    server.repository_unload(&principal, &model).await?;
    call.reply(&RepositoryModelUnloadResponse {})
}

/// Refuses parameters that would change a model.
fn only(parameters: &BTreeMap<String, ModelRepositoryParameter>, known: &[&str]) -> Result<(), ServiceError> {
    match parameters.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(repository::refused(&format!("the parameter `{}`", sanitise(name, SHOWN_NAME_CHARS)))),
    }
}
