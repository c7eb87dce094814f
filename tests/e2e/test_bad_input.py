"""What must be refused, with words that help, and without harm to anybody."""

import json
import socket
import threading

import pytest

import tiny_onnx
from conftest import MODELS, until


def one(name="a", **changes):
    return {"name": name, "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3], **changes}


def request(*inputs, **more):
    return {"inputs": list(inputs), **more}


@pytest.mark.parametrize("key", [None, "", "nonsense", "tnty_" + "0" * 32 + "_" + "A" * 43])
def test_an_unknown_key_is_401_with_one_text(world, key):
    api = world.server.api(key)
    known = world.server.api("x").get("/v2/models/sums")
    reply = api.get("/v2/models/sums")
    assert reply.status == 401 and reply.error == known.error
    assert api.infer("sums", request(one())).status == 401
    assert api.get("/admin/v1/tenants").status == 401


def test_another_tenants_model_looks_like_one_that_does_not_exist(world):
    replies = [world.acme.infer(model, request(one())) for model in ["globex/secret", "globex/unknown", "nobody/secret"]]
    texts = [reply.error.replace(m, "M") for reply, m in
             zip(replies, ["globex/secret", "globex/unknown", "nobody/secret"])]
    assert [reply.status for reply in replies] == [404] * 3 and len(set(texts)) == 1
    paths = ["/admin/v1/tenants/globex", "/admin/v1/tenants/globex/models/secret", "/admin/v1/tenants/nobody"]
    assert [world.acme.get(path).status for path in paths] == [404] * 3


WRONG = {
    "shape": (request(one(shape=[1, 4], data=[1, 2, 3, 4]), one("b")), ["`a`", "[1, 4]", "3"]),
    "rank": (request(one(shape=[3]), one("b")), ["`a`"]),
    "datatype": (request(one(datatype="FP64"), one("b")), ["`a`", "FP64", "FP32"]),
    "unknown datatype": (request(one(datatype="FP31"), one("b")), ["`a`", "FP31"]),
    "too few elements": (request(one(data=[1, 2]), one("b")), ["`a`"]),
    "too many elements": (request(one(data=[1, 2, 3, 4]), one("b")), ["`a`"]),
    "missing input": (request(one()), ["`b`"]),
    "extra input": (request(one(), one("b"), one("c")), ["`c`"]),
    "same input twice": (request(one(), one(), one("b")), ["`a`"]),
    "extents that differ": (request(one(shape=[2, 3], data=[1] * 6), one("b")), ["`b`"]),
    "negative extent": (request(one(shape=[-1, 3]), one("b")), ["`a`", "-1", "extent"]),
    "text among numbers": (request(one(data=[1, "2", 3]), one("b")), ["`a`"]),
    "unknown output": (request(one(), one("b"), outputs=[{"name": "z"}]), ["`z`"]),
    "half precision in JSON": (request(one(datatype="FP16"), one("b")), ["FP16"]),
    "no inputs": ({}, ["inputs"]),
    "not an object": ([1, 2], []),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_400_and_says_which_input(world, what):
    body, words = WRONG[what]
    reply = world.acme.infer("sums", body)
    assert reply.status == 400, reply.body
    assert all(word in reply.error for word in words), reply.error
    assert reply.json["code"] == "invalid_argument" and reply.json["request_id"].startswith("req_")


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"\xff\xfe", b"[" * 10_000, b'{"a":' * 10_000,
                                  b'{"inputs":[' + b"[" * 10_000 + b"]" * 10_000 + b"]}",
                                  b'{"inputs":[{"name":"a","shape":[1,3],"datatype":"FP32","data":' + b"[" * 10_000],
                         ids=["empty", "cut off", "null", "not text", "deep lists", "deep objects", "deep in a list",
                              "deep data"])
def test_malformed_json_is_400(world, body):
    assert world.acme.infer("sums", body, {"Content-Type": "application/json"}).status == 400


@pytest.mark.parametrize("value", ["NaN", "1.5", "1e400", "99999999999", "-1e400", "true", "null"])
def test_what_is_no_int_is_400(world, value):
    body = '{"inputs":[{"name":"bytes","shape":[1,2048],"datatype":"INT32","data":[%s%s]}]}' % (value, ",0" * 2047)
    reply = world.acme.infer("platform/file-type", body.encode())
    assert reply.status == 400, reply.body


def binary(size, data):
    header = json.dumps(request(one(data=None, parameters={"binary_data_size": size}), one("b")))
    return header.replace('"data": null, ', "").encode(), data


@pytest.mark.parametrize("size,data", [(12, b"\0" * 11), (12, b"\0" * 13), (11, b"\0" * 11), (2**63, b""), (-1, b"")])
def test_binary_data_that_is_cut_off_or_left_over_is_400(world, size, data):
    header, data = binary(size, data)
    reply = world.acme.infer("sums", header + data, {"Inference-Header-Content-Length": str(len(header))})
    assert reply.status == 400, reply.body


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999999", "1", str(2**64), ""])
def test_a_header_length_that_lies_is_400(world, length):
    header, data = binary(12, b"\0" * 12)
    reply = world.acme.infer("sums", header + data, {"Inference-Header-Content-Length": length})
    assert reply.status == 400, reply.body


def test_a_body_that_does_not_unpack_is_400(world):
    for encoding in ["gzip", "deflate"]:
        reply = world.acme.infer("sums", b"not compressed", {"Content-Encoding": encoding})
        assert reply.status == 400, reply.body


def raw_exchange(server, head):
    """Sends a head only and returns what comes back, while the body is still owed."""
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode())
        return connection.recv(65536).decode()


def test_too_large_is_413_before_it_is_read(world):
    reply = raw_exchange(world.server, (
        "POST /v2/models/sums/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n"
        f"Authorization: Bearer {world.acme.key}\r\n\r\n"))
    assert reply.startswith("HTTP/1.1 413"), reply


def test_a_stranger_is_refused_before_its_body_is_read(world):
    reply = raw_exchange(world.server, "POST /v2/models/sums/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    assert reply.startswith("HTTP/1.1 401"), reply


def file_types(rows):
    return request({"name": "bytes", "shape": [rows, 2048], "datatype": "INT32", "data": [65] * (rows * 2048)})


def test_a_deadline_that_passes_is_504(world):
    reply = world.acme.infer("platform/file-type", file_types(16), {"x-request-timeout-ms": "1"})
    assert reply.status == 504, reply.body
    assert reply.json["code"] == "deadline_exceeded"


def test_a_full_queue_is_429_with_a_hint_and_the_other_tenant_is_served(new_server):
    server = new_server("[limits]\nmax_queued_tasks = 2\n[workers]\nslots = 2\n")
    acme, globex = server.tenant("acme"), server.tenant("globex")
    acme.push("acme", "slow", (MODELS / "magika/model.onnx").read_bytes(), settings={"max_batch": 1})
    globex.push("globex", "fast", tiny_onnx.identity(tiny_onnx.FLOAT))
    x = request({"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]})
    body = json.dumps(file_types(16)).encode()
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(acme.infer("slow", body))) for _ in range(12)]
    for thread in threads:
        thread.start()
    until(lambda: any(reply.status == 429 for reply in list(replies)) or len(replies) == len(threads))
    assert globex.infer("fast", x).status == 200
    for thread in threads:
        thread.join()
    refused = [reply for reply in replies if reply.status == 429]
    assert refused and {reply.status for reply in replies} == {200, 429}
    for reply in refused:
        assert int(reply.headers["Retry-After"]) >= 1 and int(reply.headers["retry-after-ms"]) >= 1
        assert reply.json["code"] == "resource_exhausted"


HOSTILE = {
    "empty": b"",
    "text": b"this is not a model",
    "cut off": None,
    "an HTML page": b"<!doctype html><html></html>",
    "control characters": b"\x08\x08\x12\x20\x1b[31m" + b"\n" * 100,
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_no_model_is_refused_with_a_reason(world, what):
    content = HOSTILE[what] if HOSTILE[what] is not None else tiny_onnx.sum_and_difference()[:-40]
    version = world.acme.push("acme", "hostile", content)
    assert version["state"] == "refused" and version["reason"]
    assert all(ord(c) >= 32 for c in version["reason"]) and "/" + "proc" not in version["reason"]
    assert world.acme.infer("hostile", request(one())).status in (404, 503)
    assert world.acme.infer("sums", request(one(), one("b"))).status == 200


def test_bad_requests_leave_nothing_behind(world):
    def resident_kib():
        with open(f"/proc/{world.server.process.pid}/status") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    bodies = [json.dumps(body).encode() for body, _ in WRONG.values()] + [b"[" * 100_000, b"{" * 100_000]
    for body in bodies:
        world.acme.infer("sums", body)
    before = resident_kib()
    for _ in range(50):
        for body in bodies:
            assert world.acme.infer("sums", body).status == 400
    assert resident_kib() - before < 16 * 1024
    assert world.server.status()["queued_tasks"] == 0
