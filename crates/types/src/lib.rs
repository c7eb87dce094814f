//! The words of the house: identifiers, time, tensors and signatures, limits and error codes.
//!
//! Every other crate depends on this one and it depends on none of ours. Nothing here does IO, reads a clock or
//! rolls dice: an identifier is made from a timestamp and random bytes that the caller brings.
#![forbid(unsafe_code)]

pub mod access;
pub mod digest;
pub mod domain;
pub mod error;
pub mod id;
pub mod infer;
pub mod level;
pub mod limits;
pub mod model;
pub mod name;
pub mod share;
pub mod tensor;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod usage;

pub use access::{Action, ActionSet, CustomRole, Role, Scope};
pub use digest::Digest;
pub use domain::{DataOwner, TrustDomain};
pub use error::{ErrorCode, ServiceError};
pub use id::{
    BatchId, BootId, DeploymentId, KeyId, ModelId, NodeId, OrganisationId, PlacementId, ReplicaId, RequestId, SlotId,
    TaskId, TenantId, VersionId, WorkerId,
};
pub use infer::{
    InferRequest, InferResponse, Inputs, OutputRequest, ParameterValue, Parameters, Payload, Priority, Tensor,
};
pub use level::Level;
pub use name::{ModelName, ModelRef, OrganisationName, RoleName, TenantName};
pub use share::{ShareSettings, ShareSubject};
pub use tensor::{DataType, Dim, Shape, Signature, SignatureError, TensorSpec};
pub use time::MonotonicTime;
