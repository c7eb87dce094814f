"""Models and inputs that nobody means well with: their owner reads why, and a neighbour notices nothing.

Beside every one of them runs another tenant under load, whose every request must be answered.
"""

import json
import struct

import pytest

import hostile_onnx
import tiny_onnx
from conftest import until
from test_life import PAIR, Load, tensor
from test_shares import put

CONFIG = """
[workers]
memory = "512MiB"
register_timeout = "8s"
load_timeout = "4s"
run_timeout = "10s"
"""
SMALLEST = -(2 ** 63)


class Street:
    """A server with somebody who is up to something, and a neighbour."""

    def __init__(self, server):
        self.server = server
        self.mallory, self.globex = server.tenant("mallory"), server.tenant("globex")
        assert self.globex.push("globex", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
        assert self.globex.infer("pairs", PAIR).status == 200

    def push(self, name, content, **settings):
        return self.mallory.push("mallory", name, content, settings=settings)

    def version(self, name):
        return self.mallory.expect("GET", f"/admin/v1/tenants/mallory/models/{name}/versions/1")

    def worker(self):
        [worker] = self.server.workers_of("globex")
        return worker["pid"]


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    from conftest import Server
    server = Server(tmp_path_factory.mktemp("hostile"), CONFIG)
    yield Street(server)
    server.stop()


@pytest.fixture
def neighbour(street):
    """The neighbour's load: it goes on through the test and after it, and nothing of it fails or moves."""
    load, worker = Load(street.globex, "pairs", PAIR, 2), street.worker()
    load.more(200, than=5)
    yield load
    load.more(200, than=load.count(200) + 5)
    replies = load.stop()
    assert {reply.status for reply in replies} == {200}, [reply.body for reply in replies if reply.status != 200]
    assert street.worker() == worker


REFUSED = {
    "function-bomb": (hostile_onnx.function_bomb(), "functions would expand to more than"),
    "too-many-nodes": (hostile_onnx.chain(100_001), "more than 100000 nodes"),
    "endless-loop": (hostile_onnx.endless_loop(), "longer than its limit of 8s"),
    "etc-passwd": (hostile_onnx.data_elsewhere("/etc/passwd"), "`/etc/passwd`, which is not among the version's files"),
    "out-of-the-folder": (hostile_onnx.data_elsewhere("../../etc/passwd"), "which is not among the version's files"),
    "address-in-memory": (hostile_onnx.data_elsewhere("*/_ORT_MEM_ADDR_/*"), "which is not among the version's files"),
    "truncated": (hostile_onnx.divide()[:60], "not an ONNX file, or not a whole one"),
    "random-bytes": (hostile_onnx.random_bytes(1), "not an ONNX file"),
    "pickle": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x94", "a Python pickle"),
    "pytorch": (b"PK\x03\x04" + bytes(100), "PyTorch"),
    "ort-format": (b"\x20\0\0\0ORTM" + bytes(100), "the ORT format"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_file_is_refused_with_its_reason(street, neighbour, name):
    content, expected = REFUSED[name]
    version = street.push(name, content)
    assert version["state"] == "refused" and expected in version["reason"], version
    assert "\n" not in version["reason"] and len(version["reason"]) <= 600
    # Its owner reads at the model, too, that it is not ready; nobody else learns that it exists.
    assert street.mallory.get(f"/v2/models/{name}/ready").status == 503
    assert street.globex.get(f"/v2/models/{name}/ready").status == 404


def test_thousands_of_nodes_are_served(street, neighbour):
    version = street.push("thousands", hostile_onnx.chain(2_000))
    assert version["state"] == "ready", version
    reply = street.mallory.infer("thousands", json.dumps(tensor("x", [1], "FP32", [-2])).encode())
    assert reply.json["outputs"][0]["data"] == [2]


def test_a_name_in_a_file_forges_no_line_of_the_log(street, neighbour):
    version = street.push("forger", hostile_onnx.forged_log_line())
    assert version["state"] == "refused" and "Foo" in version["reason"], version
    assert "\n" not in version["reason"] and "\x1b" not in version["reason"]
    for line in (street.server.folder / "server.log").read_text().splitlines():
        assert json.loads(line).get("message") != "forged" and "\x1b" not in line, line


def longs(**inputs):
    return json.dumps({"inputs": [{"name": name, "shape": [len(values)] if isinstance(values, list) else [],
                                   "datatype": "INT64", "data": values if isinstance(values, list) else [values]}
                                  for name, values in inputs.items()]}).encode()


def test_an_input_that_ends_its_worker_twice_is_refused_and_others_are_answered(street, neighbour):
    assert street.push("division", hostile_onnx.divide())["state"] == "ready"
    poison = longs(a=[SMALLEST], b=[-1])
    for _ in range(2):
        reply = street.mallory.infer("division", poison)
        assert (reply.status, reply.json["code"]) == (500, "model_failed"), reply.body
        assert "signal 8 (arithmetic error" in reply.error
    deaths = street.server.status()["worker_deaths"]
    for _ in range(3):
        reply = street.mallory.infer("division", poison)
        assert (reply.status, reply.json["code"]) == (422, "poison_input"), reply.body
        assert "died 2 times over it" in reply.error and "signal 8" in reply.error
        assert 500 < int(reply.headers["retry-after"]) <= 600
    assert street.mallory.infer("division", longs(a=[7], b=[-1])).json["outputs"][0]["data"] == [-7]
    assert street.server.status()["worker_deaths"] == deaths
    residency = street.version("division")["residency"]
    assert "signal 8" in residency["last_failure"] and "quarantine_reason" not in residency


def test_a_run_without_end_is_ended_and_the_input_refused(street, neighbour):
    assert street.push("counting", hostile_onnx.counting_loop(), max_run_ms=300)["state"] == "ready"
    for _ in range(2):
        reply = street.mallory.infer("counting", longs(count=2 ** 62))
        assert (reply.status, reply.json["code"]) == (500, "model_failed"), reply.body
        assert "longer than its limit of 300ms" in reply.error
    assert street.mallory.infer("counting", longs(count=2 ** 62)).status == 422
    assert street.mallory.infer("counting", longs(count=3)).json["outputs"][0]["data"] == [3]


def test_16_gib_for_one_answer_are_an_error_that_names_memory(street, neighbour):
    """Where the limit is a control group's, the worker dies of it, and the input is refused after the second time; where it
    is on the address space, the allocation fails and the worker goes on."""
    assert street.push("hungry", hostile_onnx.allocate())["state"] == "ready"
    assert street.mallory.infer("hungry", longs(shape=[1])).status == 200
    for attempt in range(3):
        reply = street.mallory.infer("hungry", longs(shape=[4 << 30]))
        assert reply.status in ((500,) if attempt < 2 else (500, 422)), reply.body
        assert "memory" in reply.error.lower(), reply.body
    assert street.mallory.infer("hungry", longs(shape=[2])).status == 200


def test_16_gib_in_the_file_are_an_error_of_every_run(street, neighbour):
    """The runtime would compute them when it loads the model, and again when it runs it; neither is possible."""
    version = street.push("glutton", hostile_onnx.allocate_at_load(4 << 30))
    if version["state"] == "refused":
        assert "memory" in version["reason"].lower(), version
        return
    reply = street.mallory.infer("glutton", json.dumps(tensor("x", [1], "FP32", [1])).encode())
    assert reply.status == 500 and "memory" in reply.error.lower(), reply.body


def test_a_model_whose_kernels_cannot_be_ended_is_killed_quarantined_and_not_ready(street, neighbour):
    assert street.push("stubborn", hostile_onnx.long_kernel(), max_run_ms=1000)["state"] == "ready"
    url = "/v2/models/stubborn/ready"
    assert street.mallory.get(url).status == 200
    # The first multiplication is over within the limit, the second takes seconds.
    rows = 7_000
    for value in (1.0, 2.0, 3.0):
        # Each another input, so that none is to blame.
        raw = struct.pack("<f", value) * rows
        header = json.dumps({"inputs": [{"name": "x", "shape": [rows, 1], "datatype": "FP32",
                                         "parameters": {"binary_data_size": len(raw)}}]}).encode()
        reply = street.mallory.infer("stubborn", header + raw, {"Inference-Header-Content-Length": str(len(header))})
        assert (reply.status, reply.json["code"]) == (500, "model_failed"), reply.body
        assert "longer than its limit of 1s" in reply.error
    ready = street.mallory.get(url)
    assert ready.status == 503 and "longer than its limit of 1s" in ready.json["reason"], ready.body
    residency = street.version("stubborn")["residency"]
    assert "longer than its limit" in residency["quarantine_reason"] and residency["quarantine_ms"] > 0
    refused = street.mallory.infer("stubborn", json.dumps(tensor("x", [1, 1], "FP32", [1])).encode())
    assert refused.status == 503 and int(refused.headers["retry-after"]) >= 1, refused.body
    # It is tried again when the time is over.
    until(lambda: street.mallory.get(url).status == 200)
    assert street.mallory.infer("stubborn", json.dumps(tensor("x", [1, 1], "FP32", [1])).encode()).status == 200


def test_what_one_caller_does_to_a_shared_model_is_no_other_callers_business(street, neighbour):
    platform = street.server.admin
    assert street.globex.push("globex", "shared", hostile_onnx.divide())["state"] == "ready"
    street.globex.share("globex", "shared")
    for first in range(3):
        reply = street.mallory.infer("globex/shared", longs(a=[first, SMALLEST], b=[1, -1]))
        assert reply.status == 500, reply.body
    assert street.mallory.get("/v2/models/globex/shared/ready").status == 503
    other = street.globex.get("/v2/models/shared/ready")
    assert other.status == 200 and "reason" not in other.json, other.body
    assert street.globex.infer("shared", longs(a=[7], b=[2])).json["outputs"][0]["data"] == [3]
    assert platform.get("/v2/health/live").status == 200


def test_a_tenants_workers_can_be_bounded_more_tightly_than_the_servers(street, neighbour):
    if street.server.status()["isolation"]["level"] != "full":
        pytest.skip("no control groups here: a bound of address space stops the runtime before it is loaded")
    limits = {"memory_bytes": 96 << 20, "max_processes": 64, "max_cpus": 1.5}
    trudy = street.server.tenant("trudy")
    refused = put(street.server.admin, "tenants/trudy/share", worker={"memory_bytes": 1 << 20})
    assert refused.status == 400 and "`worker.memory` is at least 64 MiB" in refused.error, refused.body
    assert put(trudy, "tenants/trudy/share", worker=limits).status == 403
    held = put(street.server.admin, "tenants/trudy/share", worker=limits)
    assert held.json["effective"]["worker"] == limits, held.body
    # Two matrices of 61 MiB.
    rows = [1.0] * 4_000
    large = json.dumps(tensor("x", [len(rows), 1], "FP32", rows)).encode()
    assert trudy.push("trudy", "bounded", hostile_onnx.long_kernel())["state"] == "ready"
    reply = trudy.infer("bounded", large)
    assert (reply.status, reply.json["code"]) == (500, "model_failed"), reply.body
    assert "more memory than its limit of 96 MiB" in reply.error
    # Within the server's limit it is nothing.
    assert street.mallory.push("mallory", "bounded", hostile_onnx.long_kernel())["state"] == "ready"
    assert street.mallory.infer("bounded", large).status == 200
