"""Answers kept to be given again: off by default, each tenant's its own, charged nothing, gone when something changes."""

import json
import re

import tiny_onnx
from test_program import tenantry

PAIR = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}


def ask(api, model="pairs", **change):
    """The answer and what the server says of how it came about."""
    reply = api.infer(model, json.dumps({**PAIR, **change}).encode(), {"x-tenantry-explain": "1"})
    assert reply.status == 200, reply.body
    return reply.json, json.loads(reply.headers["x-tenantry-timing"])


def how(api, model="pairs", **change):
    return ask(api, model, **change)[1].get("cache")


def keep(api, model, ttl_ms, owner="acme"):
    path = f"/admin/v1/tenants/{owner}/models/{model}/deployment"
    now = api.expect("GET", path)
    fields = ("generation", "version", "min_replicas", "max_replicas", "idle_after_seconds")
    change = {field: now[field] for field in fields if field in now}
    return api.call("PUT", path, {**change, **({} if ttl_ms is None else {"cache_ttl_ms": ttl_ms})})


def metric(server, name, **labels):
    text = server.admin.get("/admin/v1/metrics").body.decode()
    wanted = ",".join(f'{key}="{value}"' for key, value in labels.items())
    found = re.search(rf"^{name}{re.escape('{' + wanted + '}') if labels else ''} (\S+)$", text, re.MULTILINE)
    return float(found.group(1)) if found else None


def test_a_kept_answer_is_given_again_and_takes_no_device_time(new_server):
    server = new_server()
    acme = server.tenant("acme")
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    assert [how(acme), how(acme)] == [None, None], "off unless it is asked for"
    assert metric(server, "tenantry_cache_misses_total", tenant="acme", model="acme/pairs") is None

    assert keep(acme, "pairs", 60_000).json["cache_ttl_ms"] == 60_000
    for impossible in (0, 24 * 3600 * 1000 + 1):
        assert keep(acme, "pairs", impossible).status == 400
    computed, timing = ask(acme, id="first")
    assert timing["cache"] == "miss" and timing["batch_rows"] == 1 and timing["device_us"] > 0
    device_seconds = metric(server, "tenantry_device_time_seconds_total", tenant="acme", model="acme/pairs")
    charged_seconds = metric(server, "tenantry_device_charged_seconds_total", tenant="acme")
    again, timing = ask(acme, id="second")
    assert (computed.pop("id"), again.pop("id")) == ("first", "second") and again == computed
    assert timing["cache"] == "hit" and timing["phase"] == "none"
    assert all(timing[part] == 0 for part in ("queue_us", "batch_wait_us", "device_us", "suspended_us", "batch_rows"))
    assert metric(server, "tenantry_device_time_seconds_total", tenant="acme", model="acme/pairs") == device_seconds
    assert metric(server, "tenantry_device_charged_seconds_total", tenant="acme") == charged_seconds
    # Anything else that is asked is computed: data, type of parameter, what is wanted.
    assert how(acme, inputs=[{**PAIR["inputs"][0], "data": [1, 3]}]) == "miss"
    assert how(acme, inputs=[{**PAIR["inputs"][0], "shape": [2, 2], "data": [1, 2] * 2}]) == "miss"
    assert how(acme, parameters={"k": 1}) == "miss" and how(acme, parameters={"k": "1"}) == "miss"
    assert how(acme, outputs=[{"name": "y"}]) == "miss" and how(acme, outputs=[{"name": "y"}]) == "hit"
    # How long a client waits, and how urgent it is, changes no answer; a sequence's depends on what came before.
    assert how(acme, parameters={"timeout": 9_000_000}) == "hit"
    explained = tenantry("infer", "pairs", "--input", "x=[[1,2]]", "--explain", server=server.url, key=acme.key)
    assert "pairs version 1" in explained
    assert metric(server, "tenantry_cache_hits_total", tenant="acme", model="acme/pairs") == 4
    assert metric(server, "tenantry_cache_misses_total", tenant="acme", model="acme/pairs") == 6
    assert metric(server, "tenantry_cache_bytes") > 0


def test_hits_count_for_limits_and_refused_requests_are_not_kept(new_server):
    server = new_server()
    acme = server.tenant("acme")
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    assert keep(acme, "pairs", 60_000).status == 200
    wrong = {"inputs": [{**PAIR["inputs"][0], "datatype": "INT64"}]}
    assert [acme.infer("pairs", json.dumps(wrong).encode()).status for _ in range(2)] == [400, 400]
    assert how(acme) == "miss"
    rate = {"settings": {"request_rate": {"per_second": 0.01, "burst": 2}, "max_cache_bytes": 1 << 20}}
    assert server.admin.call("PUT", "/admin/v1/tenants/acme/share", rate).json["effective"]["max_cache_bytes"] == 1 << 20
    assert [how(acme), how(acme)] == ["hit", "hit"]
    refused = acme.infer("pairs", json.dumps(PAIR).encode())
    assert (refused.status, refused.json["reason"]) == (429, "request_rate")
    # A quota of nothing keeps nothing, and nobody but tenants has one.
    none = {"generation": 1, "settings": {"max_cache_bytes": 0}}
    assert server.admin.call("PUT", "/admin/v1/tenants/acme/share", none).status == 200
    assert [how(acme), how(acme)] == [None, None]
    of_deployment = acme.call("PUT", "/admin/v1/tenants/acme/deployments/acme/pairs/share",
                              {"settings": {"max_cache_bytes": 5}})
    assert of_deployment.status == 400 and "max_cache_bytes" in of_deployment.error


def test_tenants_share_a_model_and_never_an_answer(new_server):
    server = new_server("[limits]\nmax_cache = \"16KiB\"\n")
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    acme.share("acme", "pairs")
    assert keep(acme, "pairs", 60_000).status == 200
    assert [how(acme), how(globex, "acme/pairs"), how(acme), how(globex, "acme/pairs")] == ["miss", "miss", "hit", "hit"]
    # One fills its quota, many times over; the other's is as it was.
    for number in range(40):
        assert how(globex, "acme/pairs", inputs=[{**PAIR["inputs"][0], "data": [number, -1]}]) == "miss"
    assert how(acme) == "hit" and how(globex, "acme/pairs") == "miss", "the longest unused made room"
    assert metric(server, "tenantry_cache_evicted_bytes_total", tenant="globex") > 0
    assert metric(server, "tenantry_cache_evicted_bytes_total", tenant="acme") is None
    # A tenant that goes takes its answers and its series along.
    before = metric(server, "tenantry_cache_bytes")
    server.admin.expect("DELETE", "/admin/v1/tenants/globex")
    assert 0 < metric(server, "tenantry_cache_bytes") < before
    assert metric(server, "tenantry_cache_evicted_bytes_total", tenant="globex") is None


def test_a_change_of_the_deployment_starts_anew(new_server):
    server = new_server()
    acme = server.tenant("acme")
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    run = lambda *arguments: tenantry("model", "deploy", "pairs", *arguments, server=server.url, key=acme.key)
    assert "answers kept for 10m" in run("--cache", "10m")
    assert [how(acme), how(acme)] == ["miss", "hit"]
    assert "answers kept" not in run("--no-cache")
    assert metric(server, "tenantry_cache_bytes") == 0 and how(acme) is None
    run("--cache", "10m")
    assert [how(acme), how(acme)] == ["miss", "hit"], "what was kept before is not found again"
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT), description="new")["state"] == "ready"
    assert [how(acme), how(acme)] == ["miss", "hit"], "of the new version"
    records = acme.expect("GET", "/admin/v1/tenants/acme/audit")["records"]
    assert any("answers kept for 10m" in json.dumps(record) for record in records)
    acme.expect("DELETE", "/admin/v1/tenants/acme/models/pairs")
    assert metric(server, "tenantry_cache_bytes") == 0
