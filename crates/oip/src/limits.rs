//! Bounds of this protocol's bodies, beside those of [`tenantry_types::limits`].

/// The most parameters of a request or tensor.
pub const MAX_PARAMETERS: usize = 64;
/// The longest name or text value of a parameter, bytes.
pub const MAX_PARAMETER_BYTES: usize = 16 << 10;
/// The longest request id of a client, bytes.
pub const MAX_ID_BYTES: usize = 1024;
/// The deepest nesting of a JSON value nobody reads (Triton's limit too).
pub const MAX_JSON_DEPTH: usize = 100;
/// How much of a client's text an error repeats, characters.
pub const MAX_ECHO_CHARS: usize = 128;
/// Binary outputs of at most this many bytes together are copied behind the JSON header: one buffer to send costs
/// less than two.
pub const MAX_INLINE_BYTES: usize = 16 << 10;
/// How much of a parameter an error repeats, characters: little enough that the rest of the sentence stays.
pub const MAX_WORD_CHARS: usize = 40;
/// The longest account of a JSON error, characters. The reader's own texts may repeat the client's.
pub const MAX_JSON_MESSAGE_CHARS: usize = 300;
