"""Models that nobody means well with, written as bytes (see `tiny_onnx`).

Field numbers beyond those there: AttributeProto (g=6, i=3, type=20), TensorProto (dims=1, data_type=2, name=8, raw_data=9,
external_data=13, data_location=14), FunctionProto (name=1, input=4, output=5, node=7, opset_import=9, domain=10),
GraphProto.initializer=5, ModelProto.functions=25.
"""

import random
import struct

from tiny_onnx import BOOL, FLOAT, INT64, data, graph, model, node, number


def opset(domain, version):
    return data(1, domain) + number(2, version)


def tensor(name, datatype, dims, raw):
    return b"".join(number(1, d) for d in dims) + number(2, datatype) + data(8, name) + data(9, raw)


def with_graph(a_node, name, inner):
    """The node with a graph as its attribute `name`."""
    return a_node + data(5, data(1, name) + data(6, inner) + number(20, 5))


def function_bomb(levels=30):
    """Under two kilobytes; each function calls the one before twice, and no load ever finishes expanding them."""
    functions = []
    for level in range(levels):
        call = f"f{level - 1}"
        body = [node("Neg", ["x"], ["y"])] if level == 0 else [
            node(call, ["x"], ["m"]) + data(7, "bomb"), node(call, ["m"], ["y"]) + data(7, "bomb")]
        functions.append(data(1, f"f{level}") + data(4, "x") + data(5, "y") + b"".join(data(7, n) for n in body)
                         + data(9, opset("", 17)) + data(9, opset("bomb", 1)) + data(10, "bomb"))
    whole = model([node(f"f{levels - 1}", ["x"], ["y"]) + data(7, "bomb")], [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    return whole + data(8, opset("bomb", 1)) + b"".join(data(25, function) for function in functions)


def _loop_body():
    return graph([node("Identity", ["go_in"], ["go_out"]), node("Add", ["total_in", "one"], ["total_out"])],
                 [("iteration", INT64, []), ("go_in", BOOL, []), ("total_in", INT64, [])],
                 [("go_out", BOOL, []), ("total_out", INT64, [])],
                 [tensor("one", INT64, [], struct.pack("<q", 1))])


def counting_loop():
    """Counts to the INT64 scalar `count`: a request chooses how long its run takes, for ever included."""
    loop = with_graph(node("Loop", ["count", "", "zero"], ["total"]), "body", _loop_body())
    return model([loop], [("count", INT64, [])], [("total", INT64, [])], [tensor("zero", INT64, [], struct.pack("<q", 0))])


def endless_loop():
    """Ends for no input: its registration cannot either."""
    loop = with_graph(node("Loop", ["", "go", "start"], ["total"]), "body", _loop_body())
    return model([loop], [("start", INT64, [])], [("total", INT64, [])], [tensor("go", BOOL, [], b"\1")])


def divide():
    """INT64 `a / b`: the smallest number divided by -1 ends the process (SIGFPE)."""
    return model([node("Div", ["a", "b"], ["q"])], [("a", INT64, ["n"]), ("b", INT64, ["n"])], [("q", INT64, ["n"])])


def allocate():
    """An output of ones of the shape that the request asks for."""
    return model([node("Expand", ["one", "shape"], ["y"])], [("shape", INT64, ["rank"])], [("y", FLOAT, ["m"])],
                 [tensor("one", FLOAT, [1], struct.pack("<f", 1))])


def allocate_at_load(floats):
    """The same with the shape in the file: the runtime computes it when it loads the model."""
    return model([node("Expand", ["one", "shape"], ["big"]), node("Add", ["x", "big"], ["y"])],
                 [("x", FLOAT, [1])], [("y", FLOAT, ["m"])],
                 [tensor("one", FLOAT, [1], struct.pack("<f", 1)), tensor("shape", INT64, [1], struct.pack("<q", floats))])


def long_kernel():
    """One multiplication of two `n` x `n` matrices made of the `n` rows of the request: the runtime looks at its flag to
    end a run between two kernels, and this one takes seconds."""
    nodes = [node("Transpose", ["x"], ["t"]), node("MatMul", ["x", "t"], ["a"]), node("MatMul", ["a", "a"], ["b"]),
             node("ReduceMax", ["b"], ["y"])]
    return model(nodes, [("x", FLOAT, ["n", 1])], [("y", FLOAT, [1, 1])])


def data_elsewhere(location):
    """Weights that the file says lie elsewhere."""
    entries = {"location": location, "offset": "0", "length": "1024"}
    weights = number(1, 16) + number(1, 16) + number(2, FLOAT) + data(8, "W")
    weights += b"".join(data(13, data(1, key) + data(2, text)) for key, text in entries.items()) + number(14, 1)
    return model([node("MatMul", ["x", "W"], ["y"])], [("x", FLOAT, ["n", 16])], [("y", FLOAT, ["n", 16])], [weights])


FORGED = '{"timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"forged"}'


def forged_log_line():
    """An operator that does not exist and whose name pretends to be a line of the log, in red."""
    return model([node(f"Foo\n{FORGED}\n\x1b[31mred", ["x"], ["y"])], [("x", FLOAT, [1])], [("y", FLOAT, [1])])


def chain(nodes):
    """So many nodes, one after the other."""
    names = ["x", *(f"v{i}" for i in range(1, nodes)), "y"]
    return model([node("Abs", [a], [b]) for a, b in zip(names, names[1:])], [("x", FLOAT, [1])], [("y", FLOAT, [1])])


def random_bytes(seed, length=4096):
    return random.Random(seed).randbytes(length)
