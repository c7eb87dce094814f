//! A request and its answer as the service sees them: no HTTP, no JSON, no engine.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use crate::{DataType, ModelRef, Shape};

/// Bytes as they were received: a chain of buffers, never joined before the one copy into the arena.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    parts: SmallVec<[Bytes; 1]>,
    len: usize,
}

impl Payload {
    /// A payload of no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a buffer at the end.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    /// Total bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The buffers in order.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// Splits off the first `at` bytes; `None` (and nothing changed) if there are not so many. No byte is copied.
    pub fn split_to(&mut self, at: usize) -> Option<Self> {
        if at > self.len {
            return None;
        }
        let mut front = Self::new();
        let mut rest: SmallVec<[Bytes; 1]> = SmallVec::new();
        for mut part in self.parts.drain(..) {
            let missing = at - front.len;
            if missing == 0 {
                rest.push(part);
            } else if part.len() <= missing {
                front.push(part);
            } else {
                front.push(part.split_to(missing));
                rest.push(part);
            }
        }
        self.parts = rest;
        self.len -= at;
        Some(front)
    }

    /// The bytes in one buffer: free of cost when they already are, a copy otherwise.
    pub fn to_contiguous(&self) -> Bytes {
        match self.parts.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            parts => parts.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(part: Bytes) -> Self {
        let len = part.len();
        if len == 0 { Self::new() } else { Self { parts: smallvec![part], len } }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(part: Vec<u8>) -> Self {
        Bytes::from(part).into()
    }
}

/// A tensor with its data: row-major, little-endian; `BYTES` elements each after a u32 length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// The name in the model.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The extents, outermost first.
    pub shape: Shape,
    /// The elements.
    pub data: Payload,
}

/// A request's or tensor's parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum ParameterValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above those of [`Self::Int`].
    Uint(u64),
    /// A number.
    Double(f64),
    /// A text.
    String(String),
}

/// Parameters in the order they came.
pub type Parameters = Vec<(String, ParameterValue)>;

/// How urgent a request is among the caller's own: 1 goes first, [`Priority::LEVELS`] last. It means nothing to others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// How many levels there are.
    pub const LEVELS: u8 = 9;

    /// Of what a client says: 0, and what is beyond the levels, is the default, as in Triton.
    pub fn from_client(level: u64) -> Self {
        match u8::try_from(level) {
            Ok(level @ 1..=Self::LEVELS) => Self(level),
            _ => Self::default(),
        }
    }

    /// From 1 to [`Priority::LEVELS`].
    pub const fn level(self) -> u8 {
        self.0
    }

    /// Whether it is what a request has whose client says nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Priority {
    /// In the middle, so that some can be less urgent, too.
    fn default() -> Self {
        Self(Self::LEVELS.div_ceil(2))
    }
}

/// A request's inputs.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Each with its name.
    Named(Vec<Tensor>),
    /// The bytes of the only input; name, type and shape follow from the model's signature.
    Raw(Payload),
}

/// An output the client asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRequest {
    /// The name in the model.
    pub name: String,
}

/// One inference, decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct InferRequest {
    /// The model as the client named it.
    pub model: ModelRef,
    /// The version or alias as the client named it.
    pub version: Option<String>,
    /// The client's own id, echoed.
    pub id: Option<String>,
    /// What the protocol calls parameters, unknown ones included.
    pub parameters: Parameters,
    /// The inputs.
    pub inputs: Inputs,
    /// The outputs wanted, in this order; empty means all.
    pub outputs: Vec<OutputRequest>,
    /// How long the client will wait, from arrival.
    pub timeout: Option<Duration>,
    /// Its place among the caller's own requests.
    pub priority: Priority,
}

impl InferRequest {
    /// A request for every output of the deployed version, with nothing else to it.
    pub fn new(model: ModelRef, inputs: Inputs) -> Self {
        Self {
            model,
            version: None,
            id: None,
            parameters: Vec::new(),
            inputs,
            outputs: Vec::new(),
            timeout: None,
            priority: Priority::default(),
        }
    }

    /// Bytes of tensor data, as queues count them.
    pub fn data_bytes(&self) -> usize {
        match &self.inputs {
            Inputs::Named(tensors) => tensors.iter().map(|tensor| tensor.data.len()).sum(),
            Inputs::Raw(payload) => payload.len(),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct InferResponse {
    /// The model as the client named it.
    pub model: ModelRef,
    /// The version that answered: its number inside the model.
    pub version: String,
    /// The client's own id.
    pub id: Option<String>,
    /// The outputs, in the order asked for.
    pub outputs: Vec<Tensor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(parts: &[&'static str]) -> Payload {
        let mut payload = Payload::new();
        for part in parts {
            payload.push(Bytes::from_static(part.as_bytes()));
        }
        payload
    }

    #[test]
    fn a_client_without_a_word_is_in_the_middle() {
        let level = |client: u64| Priority::from_client(client).level();
        assert_eq!((level(1), level(9)), (1, 9));
        assert_eq!([level(0), level(10), level(256 + 1), level(u64::MAX)], [5; 4]);
        assert!(Priority::from_client(5).is_default());
    }

    #[test]
    fn splitting_a_chain_keeps_every_byte_in_order() {
        let whole = "abcdefghij";
        for at in 0..=whole.len() {
            let mut rest = chain(&["abc", "", "def", "ghij"]);
            let front = rest.split_to(at).unwrap();
            assert_eq!((front.len(), rest.len()), (at, whole.len() - at));
            assert_eq!(front.to_contiguous(), &whole.as_bytes()[..at]);
            assert_eq!(rest.to_contiguous(), &whole.as_bytes()[at..]);
        }
    }

    #[test]
    fn splitting_too_far_changes_nothing() {
        let mut payload = chain(&["ab"]);
        assert!(payload.split_to(3).is_none());
        assert_eq!(payload.len(), 2);
    }
}
