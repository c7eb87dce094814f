//! Tensors as the protocol names them, and signatures with the check the engine does not do.
//!
//! Data types and their names follow the Open Inference Protocol v2 ("Tensor Data Types"), plus `BF16`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// A tensor's extents, outermost first.
pub type Shape = SmallVec<[u64; 4]>;

/// The most dimensions a tensor may have.
pub const MAX_RANK: usize = 16;

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 binary16.
    Fp16,
    /// bfloat16.
    Bf16,
    /// IEEE 754 binary32.
    Fp32,
    /// IEEE 754 binary64.
    Fp64,
    /// Byte strings, each after its length as a little-endian u32.
    Bytes,
}

impl DataType {
    /// Every data type.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes per element; `None` for [`DataType::Bytes`], whose elements vary.
    pub const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The inverse of `self as u8`.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is not the name of a data type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown datatype; expected one of BOOL, [U]INT8/16/32/64, FP16, BF16, FP32, FP64, BYTES")]
pub struct ParseDataTypeError;

impl FromStr for DataType {
    type Err = ParseDataTypeError;
    fn from_str(text: &str) -> Result<Self, ParseDataTypeError> {
        Self::ALL.into_iter().find(|datatype| datatype.as_str() == text).ok_or(ParseDataTypeError)
    }
}

/// The number of elements of a shape (1 for a scalar); `None` if it does not fit 64 bits.
pub fn element_count(shape: &[u64]) -> Option<u64> {
    // A zero anywhere makes the count zero even where the other extents would overflow.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_u64, |count, extent| count.checked_mul(*extent))
}

/// One extent of a tensor's declared shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// Always this many.
    Fixed(u64),
    /// Chosen by the request; the same name means the same extent in all inputs.
    Named(String),
    /// Chosen by the request.
    Any(()),
}

impl Dim {
    /// As the protocol's metadata shows it: -1 where the request chooses.
    pub fn as_protocol(&self) -> i64 {
        match self {
            Self::Fixed(extent) => i64::try_from(*extent).unwrap_or(i64::MAX),
            Self::Named(_) | Self::Any(()) => -1,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(extent) => write!(f, "{extent}"),
            Self::Named(name) => f.write_str(name),
            Self::Any(()) => f.write_str("?"),
        }
    }
}

/// A tensor as the model declares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The name in the model.
    pub name: String,
    /// The element type.
    pub datatype: DataType,
    /// The extents, outermost first.
    pub dims: Vec<Dim>,
}

impl TensorSpec {
    fn dims_text(&self) -> String {
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        format!("[{}]", dims.join(","))
    }
}

/// What goes into a model and what comes out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Signature {
    /// The inputs, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
}

/// An input as a request declares it, without its data.
#[derive(Debug, Clone, Copy)]
pub struct InputView<'a> {
    /// The name the request gave.
    pub name: &'a str,
    /// The element type the request gave.
    pub datatype: DataType,
    /// The extents the request gave.
    pub shape: &'a [u64],
    /// How many bytes of data came with it.
    pub data_bytes: usize,
}

/// How a request's inputs do not fit a signature. The text says which input and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A declared input is absent.
    #[error("input `{name}` is missing; the model expects {expected}")]
    Missing {
        /// The absent input.
        name: String,
        /// The names the model declares.
        expected: String,
    },
    /// An input the model does not have.
    #[error("unknown input `{name}`; the model expects {expected}")]
    Unknown {
        /// The name the request gave.
        name: String,
        /// The names the model declares.
        expected: String,
    },
    /// The same input twice.
    #[error("input `{name}` is given more than once")]
    Duplicate {
        /// The repeated name.
        name: String,
    },
    /// The wrong element type.
    #[error("input `{name}` has datatype {got}; expected {expected}")]
    DataType {
        /// The input.
        name: String,
        /// What came.
        got: DataType,
        /// What the model declares.
        expected: DataType,
    },
    /// The wrong rank or a wrong fixed extent.
    #[error("input `{name}` has shape {got:?}; expected {expected}")]
    Shape {
        /// The input.
        name: String,
        /// What came.
        got: Vec<u64>,
        /// What the model declares.
        expected: String,
    },
    /// Two inputs disagree about a named extent.
    #[error("input `{name}` has {got} for dimension `{dim}`, but input `{other}` has {expected}")]
    NamedDim {
        /// The later input.
        name: String,
        /// The dimension's name.
        dim: String,
        /// Its extent in the later input.
        got: u64,
        /// The earlier input.
        other: String,
        /// Its extent in the earlier input.
        expected: u64,
    },
    /// The data is not as long as shape and element type say.
    #[error("input `{name}` has {got} bytes of data; shape {shape:?} of {datatype} needs {expected}")]
    DataLength {
        /// The input.
        name: String,
        /// Bytes that came.
        got: usize,
        /// The request's shape.
        shape: Vec<u64>,
        /// The request's element type.
        datatype: DataType,
        /// Bytes needed.
        expected: u64,
    },
    /// The shape asks for more elements than fit 64 bits.
    #[error("input `{name}` has shape {shape:?}, which is too large")]
    Overflow {
        /// The input.
        name: String,
        /// The request's shape.
        shape: Vec<u64>,
    },
    /// A requested output the model does not have.
    #[error("unknown output `{name}`; the model has {expected}")]
    UnknownOutput {
        /// The name the request gave.
        name: String,
        /// The names the model declares.
        expected: String,
    },
}

impl Signature {
    /// Whether requests can be joined along a first dimension: every input and output has one and none fixes it.
    pub fn has_batch_axis(&self) -> bool {
        let open = |spec: &TensorSpec| spec.dims.first().is_some_and(|dim| !matches!(dim, Dim::Fixed(_)));
        !self.inputs.is_empty() && self.inputs.iter().all(open) && self.outputs.iter().all(open)
    }

    /// The position of a declared input.
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| spec.name == name)
    }

    /// The position of a declared output.
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| spec.name == name)
    }

    /// Checks a request's inputs: all of them, each once, right element type, rank, fixed and named extents, and as
    /// many bytes of data as the shape needs (`BYTES` data is checked by its reader). The runtime itself does not
    /// compare named extents across inputs.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self, inputs: &[InputView<'_>]) -> Result<(), SignatureError> {
        let mut named: SmallVec<[(&str, u64, &str); 8]> = SmallVec::new();
        for (index, input) in inputs.iter().enumerate() {
            let name = || crate::error::sanitise(input.name, 128);
            let spec = self
                .inputs
                .iter()
                .find(|spec| spec.name == input.name)
                .ok_or_else(|| SignatureError::Unknown { name: name(), expected: names(&self.inputs) })?;
            if inputs.iter().take(index).any(|earlier| earlier.name == input.name) {
                return Err(SignatureError::Duplicate { name: name() });
            }
            if spec.datatype != input.datatype {
                return Err(SignatureError::DataType { name: name(), got: input.datatype, expected: spec.datatype });
            }
            let wrong_shape =
                || SignatureError::Shape { name: name(), got: input.shape.to_vec(), expected: spec.dims_text() };
            if spec.dims.len() != input.shape.len() {
                return Err(wrong_shape());
            }
            for (dim, extent) in spec.dims.iter().zip(input.shape) {
                match dim {
                    Dim::Fixed(expected) if expected != extent => return Err(wrong_shape()),
                    Dim::Fixed(_) | Dim::Any(()) => {}
                    Dim::Named(dim) => match named.iter().find(|(known, _, _)| known == dim) {
                        Some((_, expected, other)) if expected != extent => {
                            return Err(SignatureError::NamedDim {
                                name: name(),
                                dim: dim.clone(),
                                got: *extent,
                                other: (*other).to_owned(),
                                expected: *expected,
                            });
                        }
                        Some(_) => {}
                        None => named.push((dim, *extent, input.name)),
                    },
                }
            }
            let overflow = || SignatureError::Overflow { name: name(), shape: input.shape.to_vec() };
            let count = element_count(input.shape).ok_or_else(overflow)?;
            if let Some(bytes) = input.datatype.element_bytes() {
                let expected = count.checked_mul(bytes as u64).ok_or_else(overflow)?;
                if expected != input.data_bytes as u64 {
                    return Err(SignatureError::DataLength {
                        name: name(),
                        got: input.data_bytes,
                        shape: input.shape.to_vec(),
                        datatype: input.datatype,
                        expected,
                    });
                }
            }
        }
        match self.inputs.iter().find(|spec| inputs.iter().all(|input| input.name != spec.name)) {
            Some(spec) => Err(SignatureError::Missing { name: spec.name.clone(), expected: names(&self.inputs) }),
            None => Ok(()),
        }
    }

    /// The position of a requested output.
    ///
    /// # Errors
    /// [`SignatureError::UnknownOutput`] with the names there are.
    pub fn check_output(&self, name: &str) -> Result<usize, SignatureError> {
        self.output_index(name).ok_or_else(|| SignatureError::UnknownOutput {
            name: crate::error::sanitise(name, 128),
            expected: names(&self.outputs),
        })
    }
}

fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<String> =
        specs.iter().map(|spec| format!("`{}` ({} {})", spec.name, spec.datatype, spec.dims_text())).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
