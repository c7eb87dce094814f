//! Bounds that hold everywhere, related to each other at compile time.

/// The largest inference body unless the configuration says otherwise, bytes.
pub const DEFAULT_MAX_BODY_BYTES: usize = 64 << 20;
/// The largest JSON part of an inference body that also carries binary tensors, bytes.
pub const MAX_JSON_HEADER_BYTES: usize = 1 << 20;
/// The largest model upload unless the configuration says otherwise, bytes.
pub const DEFAULT_MAX_MODEL_BYTES: u64 = 2 << 30;
/// The most nodes of a model unless the configuration says otherwise; exports of large language models have some ten
/// thousand.
pub const DEFAULT_MAX_MODEL_NODES: u32 = 100_000;
/// The most files in an uploaded archive: with the optimised form's, their descriptors fit one message of a Unix socket
/// (the kernel's `SCM_MAX_FD`, 253).
pub const MAX_ARCHIVE_FILES: usize = 252;
/// The largest tensor that is carried from one request of a sequence to the next, bytes.
pub const MAX_STATE_BYTES: u64 = 64 << 10;
/// The most inputs or outputs of a model.
pub const MAX_TENSORS: usize = 64;
/// The longest text from an engine that reaches a client, characters.
pub const MAX_ENGINE_MESSAGE_CHARS: usize = 500;
/// The longest tensor name.
pub const MAX_TENSOR_NAME_BYTES: usize = 256;

const _: () = assert!(MAX_JSON_HEADER_BYTES < DEFAULT_MAX_BODY_BYTES);
