"""Tiny ONNX models, written as bytes: protobuf by hand, so that the tests need no package for it.

The field numbers are those of onnx.proto3 (ModelProto, GraphProto, NodeProto, ValueInfoProto).
"""

FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64, STRING, BOOL, FLOAT16, DOUBLE, UINT32, UINT64 = range(1, 14)
BFLOAT16 = 16


def varint(value):
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def data(field, value):
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def value_info(name, datatype, shape):
    """A ValueInfoProto; a string in the shape is a named dimension."""
    dims = b"".join(data(1, data(2, d) if isinstance(d, str) else number(1, d)) for d in shape)
    tensor = number(1, datatype) + data(2, dims)
    return data(1, name) + data(2, data(1, tensor))


def node(operator, inputs, outputs):
    names = b"".join(data(1, name) for name in inputs) + b"".join(data(2, name) for name in outputs)
    return names + data(4, operator)


def graph(nodes, inputs, outputs, initializers=()):
    """`inputs` and `outputs` are (name, datatype, shape), `initializers` messages; returns a GraphProto."""
    message = b"".join(data(1, n) for n in nodes) + data(2, "tiny") + b"".join(data(5, t) for t in initializers)
    return message + b"".join(data(11, value_info(*i)) for i in inputs) + b"".join(data(12, value_info(*o)) for o in outputs)


def model(nodes, inputs, outputs, initializers=()):
    """The bytes of a file with this graph."""
    whole = graph(nodes, inputs, outputs, initializers)
    return number(1, 8) + data(2, "tests") + data(7, whole) + data(8, number(2, 17))


def identity(datatype):
    return model([node("Identity", ["x"], ["y"])], [("x", datatype, ["n", 2])], [("y", datatype, ["n", 2])])


def sum_and_difference():
    nodes = [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])]
    tensors = {name: (name, FLOAT, ["n", 3]) for name in ["a", "b", "sum", "difference"]}
    return model(nodes, [tensors["a"], tensors["b"]], [tensors["sum"], tensors["difference"]])
