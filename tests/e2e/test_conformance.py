"""The Open Inference Protocol as its public Python client speaks it."""

import gzip
import json
import struct
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

import tiny_onnx

CLIENT = "tritonclient.http"


@pytest.fixture
def client(world):
    with triton.InferenceServerClient(world.server.address, network_timeout=60.0) as client:
        yield client


@pytest.fixture
def headers(world):
    return {"Authorization": f"Bearer {world.acme.key}"}


def tensor(name, values, datatype, binary=True):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def sums(binary=True):
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    b = np.full((2, 3), 0.5, dtype=np.float32)
    return a, b, [tensor("a", a, "FP32", binary), tensor("b", b, "FP32", binary)]


@pytest.mark.conformance(client=CLIENT, call="is_server_live, is_server_ready", covers="without a key")
@pytest.mark.conformance(client=CLIENT, call="is_model_ready", covers="one's own model")
@pytest.mark.conformance(client=CLIENT, call="get_server_metadata", covers="name and extensions")
@pytest.mark.conformance(client=CLIENT, call="get_model_metadata", covers="versions, inputs, outputs, open dimensions")
def test_health_and_metadata(client, headers):
    assert client.is_server_live() and client.is_server_ready()
    server = client.get_server_metadata(headers=headers)
    assert server["name"] == "tenantry" and "binary_tensor_data" in server["extensions"]
    assert client.is_model_ready("sums", headers=headers)
    model = client.get_model_metadata("sums", headers=headers)
    assert model["name"] == "sums" and model["versions"] == ["1"] and model["platform"] == "onnxruntime_onnx"
    assert model["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": [-1, 3]}
    assert [output["name"] for output in model["outputs"]] == ["sum", "difference"]


@pytest.mark.conformance(client=CLIENT, call="infer", covers="JSON and binary tensors in both directions")
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_binary_in_both_directions(client, headers, binary_in, binary_out):
    a, b, inputs = sums(binary_in)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ["difference", "sum"]]
    result = client.infer("sums", inputs, outputs=outputs, headers=headers)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)


@pytest.mark.conformance(client=CLIENT, call="infer", covers="bodies compressed with gzip and deflate, both ways")
@pytest.mark.parametrize("into", [None, "gzip", "deflate"])
@pytest.mark.parametrize("out", [None, "gzip", "deflate"])
def test_compressed_bodies(client, headers, into, out):
    a, b, inputs = sums()
    result = client.infer("sums", inputs, headers=headers, request_compression_algorithm=into,
                          response_compression_algorithm=out)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


@pytest.mark.conformance(client=CLIENT, call="infer", covers="outputs by name and order")
def test_outputs_are_selected_and_ordered(client, headers):
    _, _, inputs = sums()
    only = client.infer("sums", inputs, outputs=[triton.InferRequestedOutput("difference")], headers=headers)
    assert [output["name"] for output in only.get_response()["outputs"]] == ["difference"]
    everything = client.infer("sums", inputs, headers=headers)
    assert [output["name"] for output in everything.get_response()["outputs"]] == ["sum", "difference"]


@pytest.mark.conformance(client=CLIENT, call="infer", covers="id")
def test_the_request_id_is_echoed(client, headers):
    _, _, inputs = sums()
    assert client.infer("sums", inputs, request_id="mine-7", headers=headers).get_response()["id"] == "mine-7"


@pytest.mark.conformance(client=CLIENT, call="infer", covers="versions, aliases")
def test_versions_and_aliases(world, client, headers):
    acme = world.acme
    for number in [1, 2]:
        assert acme.push("acme", "numbered", tiny_onnx.identity(tiny_onnx.FLOAT), deploy=number == 1)["number"] == number
    acme.expect("PUT", "/admin/v1/tenants/acme/models/numbered/aliases/next", {"version": 2})
    x = np.ones((1, 2), dtype=np.float32)
    answered = {}
    for version in ["", "1", "2", "next"]:
        result = client.infer("numbered", [tensor("x", x, "FP32")], model_version=version, headers=headers)
        answered[version] = result.get_response()["model_version"]
    assert answered == {"": "1", "1": "1", "2": "2", "next": "2"}
    with pytest.raises(InferenceServerException) as missing:
        client.infer("numbered", [tensor("x", x, "FP32")], model_version="3", headers=headers)
    assert missing.value.status() == "404"


@pytest.mark.conformance(client=CLIENT, call="infer", covers="another tenant's shared model")
def test_a_model_of_another_tenant_is_reached_by_its_owner_and_name(client, headers):
    tokens = np.full((1, 2048), 256, dtype=np.int32)
    result = client.infer("platform/file-type", [tensor("bytes", tokens, "INT32")], headers=headers)
    scores = result.as_numpy("target_label")
    assert scores.shape == (1, 214) and abs(scores.sum() - 1.0) < 1e-3
    assert result.get_response()["model_name"] == "platform/file-type"
    assert client.is_model_ready("platform/file-type", headers=headers)


DATATYPES = [("BOOL", tiny_onnx.BOOL, np.bool_), ("UINT8", tiny_onnx.UINT8, np.uint8), ("UINT16", tiny_onnx.UINT16, np.uint16),
             ("UINT32", tiny_onnx.UINT32, np.uint32), ("UINT64", tiny_onnx.UINT64, np.uint64), ("INT8", tiny_onnx.INT8, np.int8),
             ("INT16", tiny_onnx.INT16, np.int16), ("INT32", tiny_onnx.INT32, np.int32), ("INT64", tiny_onnx.INT64, np.int64),
             ("FP16", tiny_onnx.FLOAT16, np.float16), ("FP32", tiny_onnx.FLOAT, np.float32), ("FP64", tiny_onnx.DOUBLE, np.float64)]


@pytest.mark.conformance(client=CLIENT, call="infer", covers="every number type, extremes included")
@pytest.mark.parametrize("name,onnx,numpy", DATATYPES)
def test_every_number_comes_back_as_it_went(world, client, headers, name, onnx, numpy):
    model = f"identity-{name.lower()}"
    assert world.acme.push("acme", model, tiny_onnx.identity(onnx))["state"] == "ready"
    limits = None if name == "BOOL" else np.finfo(numpy) if name.startswith("FP") else np.iinfo(numpy)
    x = np.array([[0, 1], [limits.min if limits else 1, limits.max if limits else 0]], dtype=numpy)
    for binary in [True, False] if name != "FP16" else [True]:
        outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
        # A copy: the client adds the length of a binary request to the headers it is given.
        result = client.infer(model, [tensor("x", x, name, binary)], outputs=outputs, headers=dict(headers))
        np.testing.assert_array_equal(result.as_numpy("y"), x)


@pytest.mark.conformance(client=CLIENT, call="infer", covers="byte strings")
@pytest.mark.parametrize("binary", [True, False])
def test_byte_strings(world, client, headers, binary):
    if binary:
        assert world.acme.push("acme", "identity-bytes", tiny_onnx.identity(tiny_onnx.STRING))["state"] == "ready"
    x = np.array([["", "a"], ["ünïcödé", "x" * 5000]], dtype=object)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer("identity-bytes", [tensor("x", x, "BYTES", binary)], outputs=outputs, headers=headers)
    got = [value.decode() if isinstance(value, bytes) else value for value in result.as_numpy("y").flatten()]
    assert got == list(x.flatten())


def test_a_raw_request_is_one_tensor(world):
    # The signature is [n,2]; the open extent follows from the size.
    row = np.array([1.5, -2.0], dtype="<f4").tobytes()
    reply = world.globex.infer("secret", row, {"Inference-Header-Content-Length": "0"})
    assert reply.status == 200, reply.body
    length = int(reply.headers["Inference-Header-Content-Length"])
    assert json.loads(reply.body[:length])["outputs"][0]["shape"] == [1, 2]
    assert reply.body[length:] == row


def test_binary_and_json_inputs_in_one_request(world):
    a = np.array([[1, 2, 3]], dtype="<f4").tobytes()
    request = json.dumps({
        "inputs": [{"name": "a", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": len(a)}},
                   {"name": "b", "shape": [1, 3], "datatype": "FP32", "data": [[1, 1, 1]]}],
        "outputs": [{"name": "sum"}, {"name": "difference", "parameters": {"binary_data": True}}]}).encode()
    reply = world.acme.infer("sums", request + a, {"Inference-Header-Content-Length": str(len(request))})
    length = int(reply.headers["Inference-Header-Content-Length"])
    first, second = json.loads(reply.body[:length])["outputs"]
    assert first["data"] == [2, 3, 4] and second["parameters"]["binary_data_size"] == 12
    assert struct.unpack("<3f", reply.body[length:]) == (0, 1, 2)


@pytest.mark.parametrize("encoding,compress", [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_plain_http_clients_may_compress(world, encoding, compress):
    request = {"inputs": [{"name": n, "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]} for n in ["a", "b"]]}
    body = compress(json.dumps(request).encode())
    reply = world.acme.infer("sums", body, {"Content-Encoding": encoding, "Content-Type": "application/json"})
    assert reply.json["outputs"][0]["data"] == [2, 4, 6]


@pytest.mark.conformance(client=CLIENT, call="infer", covers="errors as the client's exceptions")
def test_errors_are_the_clients_exceptions(client, headers):
    _, _, inputs = sums()
    with pytest.raises(InferenceServerException) as missing:
        client.infer("no-such-model", inputs, headers=headers)
    assert missing.value.status() == "404" and "no-such-model" in missing.value.message()
    with pytest.raises(InferenceServerException) as wrong:
        client.infer("sums", inputs[:1], headers=headers)
    assert wrong.value.status() == "400" and "`b`" in wrong.value.message()
    assert not client.is_model_ready("no-such-model", headers=headers)
