"""Tiny ONNX models, written as bytes: protobuf by hand, so that the tests need no package for it.

The field numbers are those of onnx.proto3 (ModelProto, GraphProto, NodeProto, ValueInfoProto).
"""

FLOAT, UINT8, INT8, UINT16, INT16, INT32, INT64, STRING, BOOL, FLOAT16, DOUBLE, UINT32, UINT64 = range(1, 14)
BFLOAT16 = 16


def _varint(value):
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _number(field, value):
    return _varint(field << 3) + _varint(value)


def _bytes(field, value):
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _value(name, datatype, shape):
    """A ValueInfoProto; a string in the shape is a named dimension."""
    dims = b"".join(_bytes(1, _bytes(2, d) if isinstance(d, str) else _number(1, d)) for d in shape)
    tensor = _number(1, datatype) + _bytes(2, dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def node(operator, inputs, outputs):
    names = b"".join(_bytes(1, name) for name in inputs) + b"".join(_bytes(2, name) for name in outputs)
    return names + _bytes(4, operator)


def model(nodes, inputs, outputs):
    """`inputs` and `outputs` are (name, datatype, shape); returns the bytes of a file."""
    graph = b"".join(_bytes(1, n) for n in nodes) + _bytes(2, "tiny")
    graph += b"".join(_bytes(11, _value(*i)) for i in inputs) + b"".join(_bytes(12, _value(*o)) for o in outputs)
    return _number(1, 8) + _bytes(2, "tests") + _bytes(7, graph) + _bytes(8, _number(2, 17))


def identity(datatype):
    return model([node("Identity", ["x"], ["y"])], [("x", datatype, ["n", 2])], [("y", datatype, ["n", 2])])


def sum_and_difference():
    nodes = [node("Add", ["a", "b"], ["sum"]), node("Sub", ["a", "b"], ["difference"])]
    tensors = {name: (name, FLOAT, ["n", 3]) for name in ["a", "b", "sum", "difference"]}
    return model(nodes, [tensors["a"], tensors["b"]], [tensors["sum"], tensors["difference"]])
