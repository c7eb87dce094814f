//! `Content-Encoding` and `Accept-Encoding` of inference bodies.

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use tenantry_oip::compression::{Coding, InflateError};
use tenantry_types::{ErrorCode, ServiceError};

/// JSON replies of at least this size are compressed for clients that ask for it, bytes.
pub(crate) const MIN_COMPRESSED_BYTES: usize = 1024;

/// How the body is compressed.
pub(crate) fn of_content(headers: &HeaderMap) -> Result<Option<Coding>, ServiceError> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let coding =
        if values.next().is_some() { Err(InflateError::UnknownCoding) } else { Coding::of_content(text(value)) };
    coding.map_err(|error| refuse(&error))
}

/// How the client wants a reply compressed.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<Coding> {
    Coding::accepted(text(headers.get(ACCEPT_ENCODING)?))
}

/// A value that is not text names no coding.
fn text(value: &http::HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// The error of a body that cannot be inflated.
pub(crate) fn refuse(error: &InflateError) -> ServiceError {
    let code = match error {
        InflateError::TooLarge { .. } => ErrorCode::TooLarge,
        InflateError::UnknownCoding | InflateError::Corrupt(_) => ErrorCode::InvalidArgument,
    };
    ServiceError::new(code, error.to_string())
}
