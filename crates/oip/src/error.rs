//! What can be wrong with a body. Each text says where and what was expected, and repeats client text sanitised only.

use std::fmt;

use tenantry_types::error::sanitise;
use tenantry_types::name::NameError;
use tenantry_types::tensor::MAX_RANK;
use tenantry_types::{DataType, Shape};

use crate::grpc::WireError;
use crate::limits::MAX_ECHO_CHARS;

/// Why a body is not a valid v2 message. Always the sender's fault; sending it again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The header that says how long the JSON part is cannot be right.
    #[error(
        "Inference-Header-Content-Length is `{got}`; expected the length of the JSON part, a whole number in range (0, {body_bytes})"
    )]
    HeaderLength {
        /// What came.
        got: String,
        /// Bytes of the whole body.
        body_bytes: usize,
    },
    /// The JSON part in front of binary tensors is too long.
    #[error("the JSON part has {got} bytes; in front of binary tensors at most {limit} are accepted")]
    HeaderTooLarge {
        /// Bytes announced.
        got: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// Not JSON, or not the JSON that was expected there.
    #[error("the JSON of the body is not valid{place}: {message}")]
    Json {
        /// Which part of it.
        place: Place,
        /// What was found and what was expected.
        message: String,
    },
    /// A tensor that contradicts itself or the body.
    #[error("{kind} `{name}` {problem}")]
    Tensor {
        /// Input or output.
        kind: TensorKind,
        /// The tensor's name, sanitised.
        name: String,
        /// What is wrong with it.
        problem: TensorProblem,
    },
    /// Bytes after the last binary tensor.
    #[error("{count} bytes follow the last binary tensor; the inputs' `binary_data_size` account for none of them")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// Two outputs of the same name.
    #[error("output `{name}` is requested more than once")]
    DuplicateOutput {
        /// The name, sanitised.
        name: String,
    },
    /// Not a Protocol Buffers message, or not the one that was expected there.
    #[error("the message is not a ModelInferRequest: {0}")]
    Message(#[from] WireError),
    /// More of something than is accepted.
    #[error("the message has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// A text that is too long.
    #[error("{what} has more than {limit} bytes")]
    TooLong {
        /// Which.
        what: &'static str,
        /// How many bytes are accepted.
        limit: usize,
    },
    /// A parameter of the wrong kind.
    #[error("parameter `{name}` must be {expected}")]
    Parameter {
        /// The name, sanitised.
        name: String,
        /// What it must be.
        expected: &'static str,
    },
    /// Not one buffer of raw contents for each input.
    #[error("raw_input_contents has {got} entries for {expected} inputs; send one for each, in their order")]
    RawCount {
        /// Entries that came.
        got: usize,
        /// Inputs that came.
        expected: usize,
    },
    /// More comes out of compact contents than is accepted.
    #[error("the inputs have more than {limit_bytes} bytes when decoded")]
    TooLarge {
        /// How many bytes are accepted.
        limit_bytes: usize,
    },
    /// A response names a model in a way no model is named.
    #[error("the response's model name is not one: {0}")]
    ModelName(#[from] NameError),
}

/// Which side of a model a tensor is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorKind {
    /// Goes in.
    Input,
    /// Comes out.
    Output,
}

impl fmt::Display for TensorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "input",
            Self::Output => "output",
        })
    }
}

/// Where in the JSON an error was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The tensor's side and position, when inside of one.
    pub tensor: Option<(TensorKind, usize)>,
    /// The tensor's name, when it was read before the error; sanitised.
    pub name: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tensor, &self.name) {
            (Some((kind, _)), Some(name)) => write!(f, " in {kind} `{name}`"),
            (Some((kind, index)), None) => write!(f, " in {kind}s[{index}]"),
            (None, _) => Ok(()),
        }
    }
}

/// What is wrong with one tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorProblem {
    /// The shape's product does not fit.
    #[error("has shape {0:?}, which is too large")]
    ShapeTooLarge(Shape),
    /// Neither form of data is there.
    #[error("has neither `data` nor the parameter `binary_data_size`")]
    NoData,
    /// Both forms of data are there.
    #[error("has both `data` and the parameter `binary_data_size`; send one of them")]
    BothData,
    /// Binary data in a body without the header that says where it starts.
    #[error("has `binary_data_size`, but the request lacks the header Inference-Header-Content-Length")]
    BinaryWithoutHeader,
    /// Data in shared memory.
    #[error("asks for shared memory, which this server does not offer; send the data in the body")]
    SharedMemory,
    /// The classification extension.
    #[error("asks for classification, which this server does not offer; request the plain output")]
    Classification,
    /// The body ends before the tensor does.
    #[error("announces {announced} bytes of binary data, but only {left} bytes of the body are left")]
    Truncated {
        /// What `binary_data_size` says.
        announced: u64,
        /// What is there.
        left: usize,
    },
    /// Shape and element type ask for another number of bytes.
    #[error("announces {announced} bytes of binary data; shape {shape:?} of {datatype} needs {expected}")]
    BinarySize {
        /// What `binary_data_size` says.
        announced: u64,
        /// The tensor's shape.
        shape: Shape,
        /// The tensor's element type.
        datatype: DataType,
        /// What they need.
        expected: u64,
    },
    /// A `BOOL` byte that is neither 0 nor 1.
    #[error("has the byte {got} at element {index}; expected 0 or 1 for BOOL")]
    BoolByte {
        /// Which element.
        index: u64,
        /// The byte.
        got: u8,
    },
    /// A `BYTES` element that does not end inside the data.
    #[error(
        "is cut off in element {index}: expected {expected} BYTES elements, each after its length as 4 bytes, little-endian"
    )]
    BytesTruncated {
        /// Which element.
        index: u64,
        /// How many the shape asks for.
        expected: u64,
    },
    /// Data after the last `BYTES` element.
    #[error("has {count} bytes after its last element; expected {expected} BYTES elements")]
    BytesTrailing {
        /// How many bytes.
        count: usize,
        /// How many elements the shape asks for.
        expected: u64,
    },
    /// An element type that JSON cannot carry.
    #[error("is {0}, which has no JSON form; send it as binary data (`binary_data_size`)")]
    NoJsonForm(DataType),
    /// Not the name of an element type.
    #[error("has the datatype `{got}`; expected one of BOOL, [U]INT8/16/32/64, FP16, BF16, FP32, FP64, BYTES")]
    UnknownDataType {
        /// What came, sanitised.
        got: String,
    },
    /// A shape that is none.
    #[error("has a shape with a negative extent or more than {MAX_RANK} of them")]
    Extents,
    /// Contents that are not a message.
    #[error("has contents that cannot be read: {0}")]
    Contents(#[from] WireError),
    /// Contents twice.
    #[error("has contents more than once")]
    RepeatedContents,
    /// Both forms of data in one message.
    #[error("has contents beside the message's raw_input_contents; send one of them")]
    MixedContents,
    /// Raw contents of another length than shape and element type ask for.
    #[error("has {got} bytes in raw_input_contents; shape {shape:?} of {datatype} needs {expected}")]
    RawSize {
        /// Bytes that came.
        got: usize,
        /// The tensor's shape.
        shape: Shape,
        /// The tensor's element type.
        datatype: DataType,
        /// What they need.
        expected: u64,
    },
    /// An element type without typed contents.
    #[error("is {0}, which has no typed contents; send it in raw_input_contents")]
    RawOnly(DataType),
    /// Elements in another type's field.
    #[error("has contents of another type; the elements of {datatype} go in {expected}")]
    WrongContents {
        /// The tensor's element type.
        datatype: DataType,
        /// The field they go in.
        expected: &'static str,
    },
    /// Another number of elements than the shape says.
    #[error("has {got} elements in its contents; shape {shape:?} needs {expected}")]
    ContentsCount {
        /// How many came (or "more than" as many as expected).
        got: String,
        /// The tensor's shape.
        shape: Shape,
        /// What it needs.
        expected: u64,
    },
    /// An element out of range.
    #[error("has {got} at element {index} of its contents, which is out of the range of {datatype}")]
    ContentsElement {
        /// Which element, counted in row-major order from 0.
        index: u64,
        /// What came.
        got: String,
        /// The tensor's element type.
        datatype: DataType,
    },
    /// More comes out of compact contents than is accepted.
    #[error("has more than {limit_bytes} bytes when decoded")]
    TooLarge {
        /// How many bytes are accepted.
        limit_bytes: usize,
    },
    /// Not an array.
    #[error("has `data` that is not an array; expected an array of {datatype} elements")]
    NotAnArray {
        /// The tensor's element type.
        datatype: DataType,
    },
    /// More brackets than the shape has extents.
    #[error("has `data` nested deeper than its {rank} dimensions")]
    TooDeep {
        /// The tensor's rank.
        rank: usize,
    },
    /// Another number of elements than the shape says.
    #[error("has {got} elements in `data`; shape {shape:?} needs {expected}")]
    Count {
        /// How many came (or "more than" as many as expected).
        got: String,
        /// The tensor's shape.
        shape: Shape,
        /// What it needs.
        expected: u64,
    },
    /// An element of the wrong kind or out of range.
    #[error("has {got} at element {index} of `data`; expected {expected}")]
    Element {
        /// Which element, counted in row-major order from 0.
        index: u64,
        /// What came, sanitised.
        got: String,
        /// What the element type takes.
        expected: &'static str,
    },
}

impl DecodeError {
    /// Whether it is the amount that is refused, not the form.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. })
    }

    /// A problem with the tensor `name`, which may hold anything.
    pub(crate) fn tensor(kind: TensorKind, name: &str, problem: TensorProblem) -> Self {
        Self::Tensor { kind, name: echo(name), problem }
    }
}

/// Client text as an error may repeat it.
pub(crate) fn echo(text: &str) -> String {
    sanitise(text, MAX_ECHO_CHARS)
}

/// Why a message cannot be written in the form asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// An element type that JSON cannot carry.
    #[error(
        "`{name}` is {datatype}, which has no JSON form; ask for it as binary data (`binary_data` or `binary_data_output`)"
    )]
    NoJsonForm {
        /// The tensor.
        name: String,
        /// Its element type.
        datatype: DataType,
    },
    /// A NaN or an infinity.
    #[error(
        "`{name}` has a NaN or an infinity at element {index}, which JSON cannot carry; ask for it as binary data (`binary_data` or `binary_data_output`)"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// Which element.
        index: usize,
    },
    /// A `BYTES` element that is not UTF-8.
    #[error(
        "`{name}` has bytes that are not UTF-8 text at element {index}, which JSON cannot carry; ask for it as binary data (`binary_data` or `binary_data_output`)"
    )]
    NotText {
        /// The tensor.
        name: String,
        /// Which element.
        index: usize,
    },
    /// The data does not fit the tensor's own type and shape: a fault of whoever made the tensor.
    #[error("`{name}` has data that does not fit its datatype and shape")]
    Malformed {
        /// The tensor.
        name: String,
    },
    /// A parameter that JSON cannot carry.
    #[error("parameter `{name}` is a NaN or an infinity")]
    Parameter {
        /// The parameter.
        name: String,
    },
    /// More bytes than a gRPC message can have.
    #[error("the answer has more bytes than a gRPC message can carry")]
    TooLarge,
    /// A raw request that wants to carry more than its one tensor.
    #[error("a raw request carries the data of one tensor and nothing else")]
    RawCarriesDataOnly,
}

impl EncodeError {
    /// Whether another form of the reply would have worked: then it is the client's choice, not the server's fault.
    pub fn is_choice_of_form(&self) -> bool {
        matches!(self, Self::NoJsonForm { .. } | Self::NotFinite { .. } | Self::NotText { .. })
    }
}
