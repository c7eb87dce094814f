//! A look at a model file before the runtime sees it: is it ONNX, and is it of a size that somebody can have meant?
//!
//! The runtime builds all of a file's objects first and judges them afterwards, and expands local functions without a
//! bound: a file of two kilobytes can keep it busy for ever. This reader goes over the bytes once, copies nothing and is
//! bounded by the file's length and by [`MAX_FIELDS`]. It does not say that a file is good, only that it is small enough
//! to be asked the question.
//!
//! Field numbers are those of `onnx.proto` (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>). Where protobuf merges a
//! field that comes twice, both are counted.

mod functions;
mod wire;

use tenantry_types::error::sanitise;
use tenantry_types::model::ModelLimits;

use functions::{Body, Functions};
use wire::{Fields, Malformed, Value};

/// The most fields looked at, in all messages together. A node has some twenty; weights are one field, however large.
const MAX_FIELDS: u32 = 8_000_000;
/// How deep graphs may lie in each other (branches, bodies of loops). The runtime's own reader ends at about thirty.
const MAX_GRAPH_DEPTH: u32 = 16;
/// The longest name of the file's in an error, characters.
const SHOWN_CHARS: usize = 100;
/// The runtime's mark for data at an address in memory instead of in a file: never from a stranger.
const MEMORY_MARK: &[u8] = b"*/";

/// Formats that are not ONNX, by the bytes they have at an offset.
const OTHER_FORMATS: &[(usize, &[u8], &str)] = &[
    (4, b"ORTM", "the ORT format"),
    (0, b"PK\x03\x04", "a ZIP archive, such as PyTorch or Keras write"),
    (0, b"\x80\x02", "a Python pickle"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
    (4, b"TFL3", "TensorFlow Lite"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"GGUF", "GGUF"),
];

/// Why a file is not given to the runtime. The texts are for its owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Some other format.
    #[error("it is {0}, and only ONNX is served; export the model as ONNX")]
    OtherFormat(&'static str),
    /// Not protobuf, or not all of it.
    #[error("it is not an ONNX file, or not a whole one")]
    Malformed,
    /// Protobuf without what makes a model.
    #[error("it is not an ONNX file: it has no graph")]
    NoGraph,
    /// More nodes than are served.
    #[error("it has more than {0} nodes, which is the server's limit (`workers.max_model_nodes`)")]
    TooManyNodes(u32),
    /// Functions that call functions, until there are more nodes than are served.
    #[error(
        "its local functions would expand to more than {0} nodes, which is the server's limit (`workers.max_model_nodes`)"
    )]
    FunctionsTooLarge(u32),
    /// A function that calls itself, over others or at once.
    #[error("its local functions call each other in a circle")]
    FunctionsRecursive,
    /// More of everything than a model can need.
    #[error("it has more than {MAX_FIELDS} parts")]
    TooManyFields,
    /// Graphs in graphs.
    #[error("its graphs lie more than {MAX_GRAPH_DEPTH} deep in each other")]
    TooDeep,
    /// Data that did not come with the model.
    #[error("tensor `{tensor}` has its data in `{file}`, which is not among the version's files")]
    ForeignData {
        /// The tensor's name.
        tensor: String,
        /// Where it says its data is.
        file: String,
    },
}

impl From<Malformed> for InspectError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Looks at an ONNX file that comes with external data of these names.
///
/// # Errors
/// See [`InspectError`]: the file's owner's fault.
pub fn inspect<'a>(
    model: &[u8],
    files: impl Iterator<Item = &'a str> + Clone,
    limits: ModelLimits,
) -> Result<(), InspectError> {
    for (offset, magic, format) in OTHER_FORMATS {
        if model.get(*offset..).is_some_and(|rest| rest.starts_with(magic)) {
            return Err(InspectError::OtherFormat(format));
        }
    }
    let mut functions = Functions::default();
    for field in Fields::of(model) {
        if let (25, Value::Bytes(function)) = field? {
            functions.declare(function)?;
        }
    }
    let mut inspector = Inspector { files, functions: &functions, limits, nodes: 0, fields: 0 };
    let (mut main, mut bodies, mut has_graph) = (Body::default(), Vec::new(), false);
    for field in Fields::of(model) {
        inspector.count_field()?;
        match field? {
            (7, Value::Bytes(graph)) => {
                has_graph = true;
                inspector.graph(graph, &mut main, 1)?;
            }
            (25, Value::Bytes(function)) => bodies.push(inspector.function(function)?),
            _ => {}
        }
    }
    if !has_graph {
        return Err(InspectError::NoGraph);
    }
    match functions.expanded(&bodies, &main) {
        None => Err(InspectError::FunctionsRecursive),
        Some(nodes) if nodes > u64::from(limits.max_nodes) => Err(InspectError::FunctionsTooLarge(limits.max_nodes)),
        Some(_) => Ok(()),
    }
}

struct Inspector<'f, F> {
    files: F,
    functions: &'f Functions<'f>,
    limits: ModelLimits,
    nodes: u32,
    fields: u32,
}

impl<'n, F: Iterator<Item = &'n str> + Clone> Inspector<'_, F> {
    fn count_field(&mut self) -> Result<(), InspectError> {
        self.fields += 1;
        if self.fields > MAX_FIELDS { Err(InspectError::TooManyFields) } else { Ok(()) }
    }

    /// Every field of a message that carries bytes.
    fn each(
        &mut self,
        message: &[u8],
        mut take: impl FnMut(&mut Self, u32, &[u8]) -> Result<(), InspectError>,
    ) -> Result<(), InspectError> {
        for field in Fields::of(message) {
            self.count_field()?;
            if let (number, Value::Bytes(bytes)) = field? {
                take(self, number, bytes)?;
            }
        }
        Ok(())
    }

    /// A `FunctionProto`.
    fn function(&mut self, function: &[u8]) -> Result<Body, InspectError> {
        let mut body = Body::default();
        self.each(function, |inspector, number, bytes| match number {
            7 => inspector.node(bytes, &mut body, 1),
            11 => inspector.attribute(bytes, &mut body, 1),
            _ => Ok(()),
        })?;
        Ok(body)
    }

    /// A `GraphProto`.
    fn graph(&mut self, graph: &[u8], body: &mut Body, depth: u32) -> Result<(), InspectError> {
        if depth > MAX_GRAPH_DEPTH {
            return Err(InspectError::TooDeep);
        }
        self.each(graph, |inspector, number, bytes| match number {
            1 => inspector.node(bytes, body, depth),
            5 => inspector.tensor(bytes),
            15 => inspector.sparse_tensor(bytes),
            _ => Ok(()),
        })
    }

    /// A `NodeProto`.
    fn node(&mut self, node: &[u8], body: &mut Body, depth: u32) -> Result<(), InspectError> {
        self.nodes += 1;
        if self.nodes > self.limits.max_nodes {
            return Err(InspectError::TooManyNodes(self.limits.max_nodes));
        }
        self.each(node, |inspector, number, bytes| match number {
            5 => inspector.attribute(bytes, body, depth),
            _ => Ok(()),
        })?;
        let called = functions::called(node)?;
        body.add(self.functions.find(&called));
        Ok(())
    }

    /// An `AttributeProto`.
    fn attribute(&mut self, attribute: &[u8], body: &mut Body, depth: u32) -> Result<(), InspectError> {
        self.each(attribute, |inspector, number, bytes| match number {
            5 | 10 => inspector.tensor(bytes),
            6 | 11 => inspector.graph(bytes, body, depth + 1),
            22 | 23 => inspector.sparse_tensor(bytes),
            _ => Ok(()),
        })
    }

    /// A `SparseTensorProto`: values and indices.
    fn sparse_tensor(&mut self, sparse: &[u8]) -> Result<(), InspectError> {
        self.each(sparse, |inspector, number, bytes| match number {
            1 | 2 => inspector.tensor(bytes),
            _ => Ok(()),
        })
    }

    /// A `TensorProto`: its data may lie in the version's own files and nowhere else.
    fn tensor(&mut self, tensor: &[u8]) -> Result<(), InspectError> {
        let (mut name, mut foreign) = (&b""[..], None);
        for field in Fields::of(tensor) {
            self.count_field()?;
            match field? {
                (8, Value::Bytes(text)) => name = text,
                (13, Value::Bytes(entry)) => foreign = self.foreign_location(entry)?.or(foreign),
                _ => {}
            }
        }
        let shown = |bytes: &[u8]| sanitise(&String::from_utf8_lossy(bytes), SHOWN_CHARS);
        match foreign {
            Some(file) => Err(InspectError::ForeignData { tensor: shown(name), file: shown(file) }),
            None => Ok(()),
        }
    }

    /// The location in a `StringStringEntryProto` of external data, unless it is one of the version's files.
    fn foreign_location<'t>(&mut self, entry: &'t [u8]) -> Result<Option<&'t [u8]>, InspectError> {
        let (mut is_location, mut value) = (false, &b""[..]);
        for field in Fields::of(entry) {
            self.count_field()?;
            match field? {
                (1, Value::Bytes(key)) => is_location = key == b"location",
                (2, Value::Bytes(text)) => value = text,
                _ => {}
            }
        }
        let mut files = self.files.clone();
        let own = !value.starts_with(MEMORY_MARK) && files.any(|file| file.as_bytes() == value);
        Ok(Some(value).filter(|_| is_location && !own))
    }
}

#[cfg(test)]
mod tests;
