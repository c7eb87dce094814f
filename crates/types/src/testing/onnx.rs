//! Tiny ONNX models as bytes: well-behaved ones to compute with, and hostile ones that a server must survive.
//!
//! Field numbers are those of `onnx.proto` (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>).

use super::protobuf::Message;
use crate::{DataType, Dim};

/// The version of the file format; old enough for every runtime we may meet.
const IR_VERSION: i64 = 8;
/// The version of the operator set.
const OPSET: i64 = 17;

/// `y = x`, for any data type (`BYTES` included) and shape.
pub fn identity(datatype: DataType, dims: &[Dim]) -> Vec<u8> {
    Graph::new("identity")
        .input("x", datatype, dims)
        .output("y", datatype, dims)
        .node("Identity", &["x"], &["y"], &[])
        .model()
}

/// `y = x * W` with `x` FP32 `[batch,16]` and `W` twice the 16x16 identity: each output is twice its input. About as
/// small as a model that computes anything gets.
pub fn matmul16() -> Vec<u8> {
    scaled_matmul(16, 2.0)
}

/// `y = x * W` with `x` FP32 `[batch,size]` and `W` the identity times `factor`; the file is `4 * size * size` bytes.
pub fn scaled_matmul(size: u32, factor: f32) -> Vec<u8> {
    let dims = [batch(), Dim::Fixed(u64::from(size))];
    Graph::new("matmul")
        .input("x", DataType::Fp32, &dims)
        .output("y", DataType::Fp32, &dims)
        .tensor(floats("W", &[size, size], &diagonal(size, factor)))
        .node("MatMul", &["x", "W"], &["y"], &[])
        .model()
}

/// `sum = a + b`, FP32 `[batch,n]` each, so that a disagreement about `n` can be shown.
pub fn add() -> Vec<u8> {
    let dims = [batch(), Dim::Named("n".to_owned())];
    Graph::new("add")
        .input("a", DataType::Fp32, &dims)
        .input("b", DataType::Fp32, &dims)
        .output("sum", DataType::Fp32, &dims)
        .node("Add", &["a", "b"], &["sum"], &[])
        .model()
}

/// `y = softmax(x)` over the first axis of FP32 `[batch,4]`: looks as if it could batch, but rows see each other.
pub fn softmax_over_rows() -> Vec<u8> {
    let dims = [batch(), Dim::Fixed(4)];
    Graph::new("softmax_over_rows")
        .input("x", DataType::Fp32, &dims)
        .output("y", DataType::Fp32, &dims)
        .node("Softmax", &["x"], &["y"], &[Attribute::Int("axis", 0)])
        .model()
}

/// `quotient = a / b`, INT64 `[n]` each. `i64::MIN / -1` kills the process that computes it with SIGFPE.
pub fn div_i64() -> Vec<u8> {
    let dims = [Dim::Named("n".to_owned())];
    Graph::new("div")
        .input("a", DataType::Int64, &dims)
        .input("b", DataType::Int64, &dims)
        .output("quotient", DataType::Int64, &dims)
        .node("Div", &["a", "b"], &["quotient"], &[])
        .model()
}

/// `y` = ones of the shape that the INT64 input `shape` `[rank]` asks for: an output as large as the request likes.
pub fn expand() -> Vec<u8> {
    Graph::new("expand")
        .input("shape", DataType::Int64, &[Dim::Named("rank".to_owned())])
        .output("y", DataType::Fp32, &[Dim::Any(())])
        .tensor(floats("one", &[1], &[1.0]))
        .node("Expand", &["one", "shape"], &["y"], &[])
        .model()
}

/// Squares a matrix of ones of the shape that the INT64 input `shape` `[2]` asks for, in one kernel: `y`, FP32 scalar, is
/// the largest element. Of 6,000 by 6,000 it takes seconds, and the runtime looks at its terminate flag between kernels
/// only.
pub fn stubborn_square() -> Vec<u8> {
    Graph::new("stubborn_square")
        .input("shape", DataType::Int64, &[Dim::Fixed(2)])
        .output("y", DataType::Fp32, &[])
        .tensor(floats("one", &[1], &[1.0]))
        .node("Expand", &["one", "shape"], &["x"], &[])
        .node("MatMul", &["x", "x"], &["square"], &[])
        .node("ReduceMax", &["square"], &["y"], &[Attribute::Int("keepdims", 0)])
        .model()
}

/// Counts to the INT64 scalar `count` in a loop: about a microsecond a step, so that a request chooses how long its run
/// takes. `total` is an INT64 scalar.
pub fn counting_loop() -> Vec<u8> {
    Graph::new("counting_loop")
        .input("count", DataType::Int64, &[])
        .output("total", DataType::Int64, &[])
        .tensor(scalar_i64("zero", 0))
        .node("Loop", &["count", "", "zero"], &["total"], &[Attribute::Graph("body", loop_body())])
        .model()
}

/// A loop that never ends once it is run with any INT64 scalar `start`.
pub fn endless_loop() -> Vec<u8> {
    Graph::new("endless_loop")
        .input("start", DataType::Int64, &[])
        .output("total", DataType::Int64, &[])
        .tensor(scalar_bool("go", true))
        .node("Loop", &["", "go", "start"], &["total"], &[Attribute::Graph("body", loop_body())])
        .model()
}

/// Thirty functions, each calling the previous one twice: under two kilobytes that no load ever finishes expanding.
pub fn function_bomb() -> Vec<u8> {
    const LEVELS: u32 = 30;
    let function = |level: u32| {
        let inner = if level == 0 {
            Message::new().message(7, &node("Neg", "", &["x"], &["y"], &[]))
        } else {
            let callee = format!("f{}", level - 1);
            Message::new()
                .message(7, &node(&callee, "bomb", &["x"], &["m"], &[]))
                .message(7, &node(&callee, "bomb", &["m"], &["y"], &[]))
        };
        inner
            .data(1, format!("f{level}"))
            .data(4, "x")
            .data(5, "y")
            .message(9, &opset("", OPSET))
            .message(9, &opset("bomb", 1))
            .data(10, "bomb")
    };
    let mut graph =
        Graph::new("bomb").input("x", DataType::Fp32, &[Dim::Fixed(1)]).output("y", DataType::Fp32, &[Dim::Fixed(1)]);
    graph.message = graph.message.message(1, &node(&format!("f{}", LEVELS - 1), "bomb", &["x"], &["y"], &[]));
    graph
        .model_message()
        .message(8, &opset("bomb", 1))
        .each(0..LEVELS, |model, level| model.message(25, &function(level)))
        .into_bytes()
}

/// Two functions that call each other.
pub fn recursive_functions() -> Vec<u8> {
    let function = |name: &str, callee: &str| {
        Message::new()
            .data(1, name)
            .data(4, "x")
            .data(5, "y")
            .message(7, &node(callee, "circle", &["x"], &["y"], &[]))
            .message(9, &opset("circle", 1))
            .data(10, "circle")
    };
    let mut graph =
        Graph::new("circle").input("x", DataType::Fp32, &[Dim::Fixed(1)]).output("y", DataType::Fp32, &[Dim::Fixed(1)]);
    graph.message = graph.message.message(1, &node("one", "circle", &["x"], &["y"], &[]));
    graph
        .model_message()
        .message(8, &opset("circle", 1))
        .message(25, &function("one", "other"))
        .message(25, &function("other", "one"))
        .into_bytes()
}

/// `y = x` over so many nodes, one after the other. FP32 `[1]`.
pub fn chain(nodes: u32) -> Vec<u8> {
    let name = |position: u32| match position {
        0 => "x".to_owned(),
        last if last == nodes => "y".to_owned(),
        between => format!("v{between}"),
    };
    let dims = [Dim::Fixed(1)];
    let mut graph = Graph::new("chain").input("x", DataType::Fp32, &dims).output("y", DataType::Fp32, &dims);
    for position in 0..nodes {
        graph = graph.node("Abs", &[&name(position)], &[&name(position + 1)], &[]);
    }
    graph.model()
}

/// `y = go` or what a graph inside says, and so on: graphs in graphs, `depth` of them with the outermost. BOOL scalars.
pub fn nested_graphs(depth: u32) -> Vec<u8> {
    let leaf = || Graph::new("leaf").output("out", DataType::Bool, &[]).node("Identity", &["go"], &["out"], &[]);
    let mut inner = leaf();
    for _ in 2..depth {
        let branches =
            [Attribute::Graph("then_branch", inner.message), Attribute::Graph("else_branch", leaf().message)];
        inner = Graph::new("branch").output("out", DataType::Bool, &[]).node("If", &["go"], &["out"], &branches);
    }
    let branches = [Attribute::Graph("then_branch", inner.message), Attribute::Graph("else_branch", leaf().message)];
    Graph::new("nested")
        .input("go", DataType::Bool, &[])
        .output("y", DataType::Bool, &[])
        .node("If", &["go"], &["y"], &branches)
        .model()
}

/// Like [`matmul16`], with the weights in a file of their own called `file`: the model, then that file's bytes.
pub fn external_matmul16(file: &str) -> (Vec<u8>, Vec<u8>) {
    let weights: Vec<u8> = diagonal(16, 2.0).iter().flat_map(|value| value.to_le_bytes()).collect();
    let entry = |key: &str, value: &str| Message::new().data(1, key).data(2, value);
    let tensor = Message::new()
        .int(1, 16)
        .int(1, 16)
        .int(2, element_type(DataType::Fp32))
        .data(8, "W")
        .message(13, &entry("location", file))
        .message(13, &entry("offset", "0"))
        .message(13, &entry("length", &weights.len().to_string()))
        .int(14, 1);
    let dims = [batch(), Dim::Fixed(16)];
    let model = Graph::new("external_matmul")
        .input("x", DataType::Fp32, &dims)
        .output("y", DataType::Fp32, &dims)
        .tensor(tensor)
        .node("MatMul", &["x", "W"], &["y"], &[])
        .model();
    (model, weights)
}

/// Uses an operator that does not exist, whose name tries to forge a log line.
pub fn unknown_operator() -> Vec<u8> {
    Graph::new("unknown")
        .input("x", DataType::Fp32, &[Dim::Fixed(1)])
        .output("y", DataType::Fp32, &[Dim::Fixed(1)])
        .node("Foo\n{\"level\":\"info\",\"msg\":\"forged\"}\u{1b}[31m", &["x"], &["y"], &[])
        .model()
}

/// A sequence of tensors as output, which the protocol cannot carry.
pub fn sequence_output() -> Vec<u8> {
    let tensor_type = type_proto(DataType::Fp32, &[Dim::Fixed(1)]);
    let sequence = Message::new().message(4, &Message::new().message(1, &tensor_type));
    let mut graph = Graph::new("sequence").input("x", DataType::Fp32, &[Dim::Fixed(1)]).node(
        "SequenceConstruct",
        &["x"],
        &["s"],
        &[],
    );
    graph.message = graph.message.message(12, &Message::new().data(1, "s").message(2, &sequence));
    graph.model()
}

/// A model that ONNX Runtime 1.31 loads at its higher optimization levels and then cannot run, because its own rewrite
/// `GatherToSliceFusion` breaks it (it takes a start of shape `[1]`, which the kernel accepts, for a scalar). `x` is FP32 `[batch,8]`, `end` an INT64 scalar, `y` the columns before it.
pub fn broken_by_fusion() -> Vec<u8> {
    Graph::new("broken_by_fusion")
        .input("x", DataType::Fp32, &[batch(), Dim::Fixed(8)])
        .input("end", DataType::Int64, &[])
        .output("y", DataType::Fp32, &[batch(), Dim::Any(())])
        .tensor(scalar_i64("start", 0).int(1, 1))
        .tensor(scalar_i64("step", 1))
        .node("Range", &["start", "end", "step"], &["columns"], &[])
        .node("Gather", &["x", "columns"], &["y"], &[Attribute::Int("axis", 1)])
        .model()
}

/// The form of a model that makes embeddings, without the sense: `text` BYTES `[n]`, and for each the same `embedding` FP32
/// `[n,2]`, (0.6, 0.8), of three tokens (`token_count`, INT64 `[n]`).
pub fn embedder() -> Vec<u8> {
    let rows = Dim::Named("n".to_owned());
    Graph::new("embedder")
        .input("text", DataType::Bytes, std::slice::from_ref(&rows))
        .output("embedding", DataType::Fp32, &[rows.clone(), Dim::Fixed(2)])
        .output("token_count", DataType::Int64, &[rows])
        .tensor(floats("vector", &[1, 2], &[0.6, 0.8]))
        .tensor(scalar_i64("width", 2).int(1, 1))
        .tensor(scalar_i64("tokens", 3).int(1, 1))
        .node("Shape", &["text"], &["rows"], &[])
        .node("Concat", &["rows", "width"], &["shape"], &[Attribute::Int("axis", 0)])
        .node("Expand", &["vector", "shape"], &["embedding"], &[])
        .node("Expand", &["tokens", "rows"], &["token_count"], &[])
        .model()
}

/// The body of the loops above: passes the condition on and adds one to the carried number.
fn loop_body() -> Message {
    Graph::new("body")
        .input("iteration", DataType::Int64, &[])
        .input("go_in", DataType::Bool, &[])
        .input("total_in", DataType::Int64, &[])
        .output("go_out", DataType::Bool, &[])
        .output("total_out", DataType::Int64, &[])
        .tensor(scalar_i64("one", 1))
        .node("Identity", &["go_in"], &["go_out"], &[])
        .node("Add", &["total_in", "one"], &["total_out"], &[])
        .message
}

fn batch() -> Dim {
    Dim::Named("batch".to_owned())
}

fn diagonal(size: u32, value: f32) -> Vec<f32> {
    (0..size).flat_map(|row| (0..size).map(move |column| if row == column { value } else { 0.0 })).collect()
}

struct Graph {
    message: Message,
}

impl Graph {
    fn new(name: &str) -> Self {
        Self { message: Message::new().data(2, name) }
    }

    fn input(self, name: &str, datatype: DataType, dims: &[Dim]) -> Self {
        Self { message: self.message.message(11, &value_info(name, datatype, dims)) }
    }

    fn output(self, name: &str, datatype: DataType, dims: &[Dim]) -> Self {
        Self { message: self.message.message(12, &value_info(name, datatype, dims)) }
    }

    fn tensor(self, tensor: Message) -> Self {
        Self { message: self.message.message(5, &tensor) }
    }

    fn node(self, operator: &str, inputs: &[&str], outputs: &[&str], attributes: &[Attribute]) -> Self {
        Self { message: self.message.message(1, &node(operator, "", inputs, outputs, attributes)) }
    }

    fn model_message(self) -> Message {
        Message::new()
            .int(1, IR_VERSION)
            .data(2, "tenantry-testing")
            .message(7, &self.message)
            .message(8, &opset("", OPSET))
    }

    fn model(self) -> Vec<u8> {
        self.model_message().into_bytes()
    }
}

enum Attribute {
    Int(&'static str, i64),
    Graph(&'static str, Message),
}

fn node(operator: &str, domain: &str, inputs: &[&str], outputs: &[&str], attributes: &[Attribute]) -> Message {
    Message::new()
        .each(inputs, |node, name| node.data(1, name))
        .each(outputs, |node, name| node.data(2, name))
        .data(4, operator)
        .data(7, domain)
        .each(attributes, |node, attribute| {
            node.message(
                5,
                &match attribute {
                    Attribute::Int(name, value) => Message::new().data(1, name).int(3, *value).int(20, 2),
                    Attribute::Graph(name, graph) => Message::new().data(1, name).message(6, graph).int(20, 5),
                },
            )
        })
}

fn opset(domain: &str, version: i64) -> Message {
    Message::new().data(1, domain).int(2, version)
}

fn type_proto(datatype: DataType, dims: &[Dim]) -> Message {
    let shape = Message::new().each(dims, |shape, dim| {
        shape.message(
            1,
            &match dim {
                Dim::Fixed(extent) => Message::new().int(1, i64::try_from(*extent).unwrap_or(i64::MAX)),
                Dim::Named(name) => Message::new().data(2, name),
                Dim::Any(()) => Message::new(),
            },
        )
    });
    Message::new().message(1, &Message::new().int(1, element_type(datatype)).message(2, &shape))
}

fn value_info(name: &str, datatype: DataType, dims: &[Dim]) -> Message {
    Message::new().data(1, name).message(2, &type_proto(datatype, dims))
}

fn floats(name: &str, dims: &[u32], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Message::new()
        .each(dims, |tensor, dim| tensor.int(1, i64::from(*dim)))
        .int(2, element_type(DataType::Fp32))
        .data(8, name)
        .data(9, raw)
}

fn scalar_i64(name: &str, value: i64) -> Message {
    Message::new().int(2, element_type(DataType::Int64)).data(8, name).data(9, value.to_le_bytes())
}

fn scalar_bool(name: &str, value: bool) -> Message {
    Message::new().int(2, element_type(DataType::Bool)).data(8, name).data(9, [u8::from(value)])
}

/// `TensorProto.DataType`.
const fn element_type(datatype: DataType) -> i64 {
    match datatype {
        DataType::Fp32 => 1,
        DataType::Uint8 => 2,
        DataType::Int8 => 3,
        DataType::Uint16 => 4,
        DataType::Int16 => 5,
        DataType::Int32 => 6,
        DataType::Int64 => 7,
        DataType::Bytes => 8,
        DataType::Bool => 9,
        DataType::Fp16 => 10,
        DataType::Fp64 => 11,
        DataType::Uint32 => 12,
        DataType::Uint64 => 13,
        DataType::Bf16 => 16,
    }
}
