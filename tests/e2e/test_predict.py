"""TensorFlow Serving's, KServe's and TorchServe's calls, as their users' curl lines make them."""

import base64
import json
import math
import subprocess

import pytest

import tiny_onnx


def curl(world, *arguments):
    """What a user types, with the key; returns the status and the body."""
    url = arguments[-1]
    command = ["curl", "-sS", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {world.acme.key}", *arguments[:-1],
               world.server.url + url]
    body, status = subprocess.run(command, capture_output=True, check=True).stdout.rsplit(b"\n", 1)
    return int(status), body


@pytest.mark.conformance(client="curl", call="POST /v1/models/NAME:predict", covers="TF Serving: rows and columns, versions, status, metadata")
@pytest.mark.conformance(client="curl", call="GET /v1/models/NAME", covers="TF Serving and KServe v1: status and readiness")
def test_tensorflow_servings_lines(world):
    rows = {"instances": [{"a": [1, 2, 3], "b": [1, 1, 1]}, {"a": [4, 5, 6], "b": [2, 2, 2]}]}
    status, body = curl(world, "-d", json.dumps(rows), "/v1/models/sums:predict")
    assert status == 200 and json.loads(body) == {"predictions": [
        {"sum": [2, 3, 4], "difference": [0, 1, 2]}, {"sum": [6, 7, 8], "difference": [2, 3, 4]}]}
    columns = {"signature_name": "serving_default", "inputs": {"a": [[1, 2, 3]], "b": [[1, 1, 1]]}}
    status, body = curl(world, "-X", "POST", "-d", json.dumps(columns), "/v1/models/sums/versions/1:predict")
    assert status == 200 and json.loads(body) == {"outputs": {"sum": [[2, 3, 4]], "difference": [[0, 1, 2]]}}

    status, body = curl(world, "/v1/models/sums")
    known = json.loads(body)
    assert known["model_version_status"] == [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    # KServe's readiness is in the same object.
    assert known["name"] == "sums" and known["ready"] is True
    status, body = curl(world, "/v1/models/sums/metadata")
    signature = json.loads(body)["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["a"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signature["inputs"]["a"]["tensor_shape"]["dim"]] == ["-1", "3"]


@pytest.mark.conformance(client="curl", call="POST /v1/models/NAME/labels/LABEL:predict", covers="TF Serving: labels are aliases")
def test_labels_are_aliases(world):
    assert world.acme.push("acme", "labelled", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    world.acme.expect("PUT", "/admin/v1/tenants/acme/models/labelled/aliases/stable", {"version": 1})
    status, body = curl(world, "-d", '{"instances": [[NaN, -Infinity]]}', "/v1/models/labelled/labels/stable:predict")
    [[nan, infinity]] = json.loads(body)["predictions"]
    assert status == 200 and math.isnan(nan) and infinity == -math.inf
    status, body = curl(world, "-d", '{"instances": [[1, 2]]}', "/v1/models/labelled/labels/canary:predict")
    assert status == 404 and "canary" in json.loads(body)["error"]


@pytest.mark.conformance(client="curl", call="POST /v1/models/NAME:predict", covers="TF Serving: base64")
def test_bytes_are_base64_where_they_are_no_text(world):
    assert world.acme.push("acme", "texts", tiny_onnx.identity(tiny_onnx.STRING))["state"] == "ready"
    raw = base64.b64encode(b"\xff\x00").decode()
    status, body = curl(world, "-d", json.dumps({"instances": [["plain", {"b64": raw}]]}), "/v1/models/texts:predict")
    assert status == 200
    assert json.loads(body)["predictions"] == [[{"b64": base64.b64encode(b"plain").decode()}, {"b64": raw}]]


@pytest.mark.conformance(client="curl", call="POST /predictions/NAME", covers="TorchServe: raw bodies and JSON")
def test_torchserves_lines(world, tmp_path):
    assert subprocess.run(["curl", "-sS", world.server.url + "/ping"], capture_output=True).stdout == b'{"status":"Healthy"}'
    instance = tmp_path / "instance.json"
    instance.write_text(json.dumps({"a": [1, 2, 3], "b": [1, 1, 1]}))
    for send in [["-T", instance], ["-X", "POST", "--data-binary", f"@{instance}"]]:
        status, body = curl(world, *send, "-H", "Content-Type: application/json", "/predictions/sums")
        assert status == 200 and json.loads(body) == {"sum": [2, 3, 4], "difference": [0, 1, 2]}
    # Without a type, the bytes of the only input.
    status, body = curl(world, "-T", instance, "/predictions/sums/1")
    assert status == 400 and "2" in json.loads(body)["error"]


@pytest.mark.refusal(protocol="HTTP", what="classify, regress, explain", answer="501",
                     reason="they are of signatures of TensorFlow and of explainers, which no ONNX model has")
@pytest.mark.parametrize("verb", ["classify", "regress", "explain"])
def test_what_has_no_place_here_says_why(world, verb):
    status, body = curl(world, "-d", "{}", f"/v1/models/sums:{verb}")
    assert status == 501 and verb in json.loads(body)["error"]
