//! The `predict` protocol of TensorFlow Serving's REST API and KServe's v1: nested JSON lists instead of named tensors.
//!
//! A body has either `instances`, one value or object of values for each row, answered by `predictions`; or `inputs`, one
//! value or object of values for the whole batch, answered by `outputs` ("RESTful API", `g3doc/api_rest.md`). Types are not
//! said: they, and how deep lists may be, come from the model's signature. What is decided here beyond that page:
//!
//! - `NaN`, `Infinity` and `-Infinity` are read for floats, bare or quoted, and written bare, as Python does.
//! - Bytes are text or `{"b64": ".."}`. An output is written as the latter if its name ends in `_bytes`, or if any of its
//!   elements is not text.
//! - `FP16` and `BF16` have no JSON form, as in the v2 protocol.

pub(crate) mod nested;
mod request;
pub(crate) mod values;

pub use request::{Predict, decode_instance, decode_predict};
pub use values::{PredictFormat, encode_predict};

use tenantry_types::DataType;

use crate::error::echo;

/// Why a body is not a valid predict request, or an answer has no such form. The sender's choice in both cases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PredictError {
    /// Not JSON, or not the JSON that was expected there.
    #[error("the JSON of the body is not valid: {0}")]
    Json(String),
    /// Neither form, or both.
    #[error("the body must have either `instances` (one entry a row) or `inputs` (whole tensors)")]
    OneForm,
    /// Another signature than the only one there is.
    #[error("the model has no signature `{0}`; leave `signature_name` out, or send `serving_default`")]
    Signature(String),
    /// No rows.
    #[error("`instances` must have at least one entry")]
    NoInstances,
    /// Rows for a model that has none.
    #[error("input `{0}` has no dimension for rows; send `inputs` instead of `instances`")]
    NoRows(String),
    /// Bare values for a model with several inputs.
    #[error("the model has {0} inputs; give each by its name, as an object")]
    NamesNeeded(usize),
    /// A name the model does not have.
    #[error("{place} has `{name}`, which is no input of the model; expected {expected}")]
    Unknown {
        /// Which entry.
        place: String,
        /// The name, sanitised.
        name: String,
        /// The names there are.
        expected: String,
    },
    /// A name given twice.
    #[error("{place} has `{name}` more than once")]
    Duplicate {
        /// Which entry.
        place: String,
        /// The name.
        name: String,
    },
    /// An input that is not there.
    #[error("{place} lacks input `{name}`")]
    Missing {
        /// Which entry.
        place: String,
        /// The name.
        name: String,
    },
    /// A parameter that is none.
    #[error("`{name}` is {got}, expected {expected}")]
    Field {
        /// Its name, sanitised.
        name: String,
        /// What came, sanitised.
        got: String,
        /// What would have been right.
        expected: &'static str,
    },
    /// A value that is not of its input.
    #[error("input `{name}` {problem}")]
    Input {
        /// The input.
        name: String,
        /// What is wrong with it.
        problem: NestedProblem,
    },
    /// An output that is not one entry a row.
    #[error(
        "output `{name}` has shape {shape:?}, which is not one entry for each of the {rows} instances; send `inputs`, whose answer keeps outputs whole"
    )]
    NotRows {
        /// The output.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
        /// How many rows were sent.
        rows: u64,
    },
    /// An element type without a JSON form.
    #[error("`{name}` is {datatype}, which has no JSON form; use the v2 protocol and binary data")]
    NoJsonForm {
        /// The tensor.
        name: String,
        /// Its element type.
        datatype: DataType,
    },
    /// The data of an answer does not fit its type and shape: a fault of whoever made it.
    #[error("`{name}` has data that does not fit its datatype and shape")]
    Malformed {
        /// The output.
        name: String,
    },
}

impl PredictError {
    /// Whether another request would have worked, unlike [`PredictError::Malformed`].
    pub fn is_senders(&self) -> bool {
        !matches!(self, Self::Malformed { .. })
    }
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NestedProblem {
    /// More brackets than dimensions.
    #[error("is nested deeper than its {rank} dimensions ({dims})")]
    TooDeep {
        /// How many dimensions it has.
        rank: usize,
        /// Which.
        dims: String,
    },
    /// Fewer brackets than dimensions.
    #[error("has {got} where a list was expected; it has {rank} dimensions ({dims})")]
    TooShallow {
        /// The value, sanitised.
        got: String,
        /// How many dimensions it has.
        rank: usize,
        /// Which.
        dims: String,
    },
    /// Lists of different lengths side by side.
    #[error("has lists of {got} and of {expected} entries in dimension {axis}; they must be equal")]
    Ragged {
        /// The dimension, from 0.
        axis: usize,
        /// The length of the earlier list.
        expected: u64,
        /// The length of the later one.
        got: u64,
    },
    /// An element of the wrong kind or out of range.
    #[error("has {got} at element {index}; expected {expected}")]
    Element {
        /// Which element, in row-major order from 0.
        index: u64,
        /// What came, sanitised.
        got: String,
        /// What the element type takes.
        expected: &'static str,
    },
    /// An element type without a JSON form.
    #[error("is {0}, which has no JSON form; use the v2 protocol and binary data")]
    NoJsonForm(DataType),
}

/// Client text as an error may repeat it, quoted by the caller.
fn shown(text: &str) -> String {
    echo(text)
}

#[cfg(test)]
mod tests;
