//! The one small set of error codes every edge speaks, and the one table that maps them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What went wrong, as a client's program may act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong; sending it again does not help.
    InvalidArgument,
    /// No credential, or one that is unknown, expired or revoked.
    Unauthenticated,
    /// The credential is good but may not do this.
    PermissionDenied,
    /// The thing does not exist, or the caller may not know that it does.
    NotFound,
    /// A thing of that name exists already.
    AlreadyExists,
    /// The desired state moved on since the caller read it.
    Conflict,
    /// The body is larger than the limit.
    TooLarge,
    /// The caller's own limit or backlog; try again later.
    ResourceExhausted,
    /// The machine cannot serve this now; try again later.
    Unavailable,
    /// Workers here are kept apart less well than somebody concerned demands; it stays so until barriers or demands change.
    IsolationBelowMinimum,
    /// The request's time ran out.
    DeadlineExceeded,
    /// The client went away.
    Cancelled,
    /// The protocol has it, this server does not.
    Unimplemented,
    /// The model's worker died, hung or broke the protocol while it computed this request.
    ModelFailed,
    /// This model's workers died over this very input; it is refused for a while.
    PoisonInput,
    /// A fault of the server.
    Internal,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 16] = [
        Self::InvalidArgument,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Conflict,
        Self::TooLarge,
        Self::ResourceExhausted,
        Self::Unavailable,
        Self::IsolationBelowMinimum,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Unimplemented,
        Self::ModelFailed,
        Self::PoisonInput,
        Self::Internal,
    ];

    /// The one table: code, name, HTTP status, gRPC status (google.rpc.Code), whether trying again can help.
    const fn row(self) -> (&'static str, u16, u8, bool) {
        match self {
            Self::InvalidArgument => ("invalid_argument", 400, 3, false),
            Self::Unauthenticated => ("unauthenticated", 401, 16, false),
            Self::PermissionDenied => ("permission_denied", 403, 7, false),
            Self::NotFound => ("not_found", 404, 5, false),
            Self::AlreadyExists => ("already_exists", 409, 6, false),
            Self::Conflict => ("conflict", 409, 10, true),
            Self::TooLarge => ("too_large", 413, 8, false),
            Self::ResourceExhausted => ("resource_exhausted", 429, 8, true),
            Self::Unavailable => ("unavailable", 503, 14, true),
            Self::IsolationBelowMinimum => ("isolation_below_minimum", 503, 9, false),
            Self::DeadlineExceeded => ("deadline_exceeded", 504, 4, true),
            Self::Cancelled => ("cancelled", 499, 1, false),
            Self::Unimplemented => ("unimplemented", 501, 12, false),
            Self::ModelFailed => ("model_failed", 500, 13, true),
            Self::PoisonInput => ("poison_input", 422, 3, false),
            Self::Internal => ("internal", 500, 13, true),
        }
    }

    /// The name in machine-readable fields and metric labels.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status.
    pub const fn http_status(self) -> u16 {
        self.row().1
    }

    /// The gRPC status code.
    pub const fn grpc_code(self) -> u8 {
        self.row().2
    }

    /// Whether the same request may succeed later.
    pub const fn is_retryable(self) -> bool {
        self.row().3
    }
}

/// An error as it leaves the service: safe to show to the caller, whoever that is.
///
/// The message never carries a path, another tenant's name or anything of the server's inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ServiceError {
    /// What a program acts on.
    pub code: ErrorCode,
    /// What a person reads: what was wrong, what was expected, what to do next.
    pub message: String,
    /// When trying again makes sense, for refusals.
    pub retry_after: Option<Duration>,
    /// Which limit refused it, a word for programs; absent where no limit did.
    pub reason: Option<&'static str>,
}

impl ServiceError {
    /// An error without a retry hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, reason: None }
    }

    /// [`ErrorCode::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }

    /// [`ErrorCode::Internal`]; the message must still be fit for a stranger, so the cause belongs in the log.
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "internal error; the server's log has the details under this request's id")
    }

    /// The same error with a hint when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The same error with the limit that caused it.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }
}

/// Makes text from an engine or a worker fit to show: control characters become spaces, length is capped.
///
/// The bound is in characters, so that a multi-byte text is never cut inside a character.
pub fn sanitise(text: &str, max_chars: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(max_chars));
    let mut chars = text.chars().map(|c| if c.is_control() || is_format(c) { ' ' } else { c });
    clean.extend(chars.by_ref().take(max_chars));
    if chars.next().is_some() {
        clean.push('…');
    }
    clean
}

/// Characters that change how their neighbours are shown (bidirectional overrides, zero-width marks).
fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name_and_an_error_status() {
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(ErrorCode::ALL.iter().all(|code| (400..600).contains(&code.http_status()) && code.grpc_code() != 0));
    }

    #[test]
    fn sanitised_text_has_no_control_characters_and_is_capped() {
        assert_eq!(sanitise("Foo\n{\"level\":\"info\"}\x1b[31m", 200), "Foo {\"level\":\"info\"} [31m");
        assert_eq!(sanitise("ééééé", 3), "ééé…");
        assert_eq!(sanitise("a\u{202e}b", 9), "a b");
        assert_eq!(sanitise("abc", 3), "abc");
    }
}
