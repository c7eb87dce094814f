"""Minimums of isolation on the real server: a barrier is left out, and who demands more than is left is not served."""

import json

import pytest

import tiny_onnx
from conftest import until
from test_program import tenantry

PAIR = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).encode()


@pytest.fixture
def confined(new_server):
    """A server whose workers have no root of their own, so that they are `confined` at most; two tenants, a model each."""
    server = new_server('[workers]\nwithout = ["root", "namespaces"]\n')
    tenants = server.tenant("acme"), server.tenant("globex")
    for api, name in zip(tenants, ("acme", "globex")):
        assert api.push(name, "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
        assert api.infer("pairs", PAIR).status == 200
    level = server.status()["isolation"]["level"]
    if level != "confined":
        pytest.skip(f"workers here are `{level}` without namespaces")
    return server, *tenants


def test_a_tenant_that_demands_more_is_refused_until_it_demands_less(confined):
    server, acme, globex = confined
    changed = acme.expect("PATCH", "/admin/v1/tenants/acme", {"min_isolation": "isolated"})
    assert changed["isolation"] == {"in_force": "confined", "minimum": "isolated", "platform_minimum": "none",
                                    "own_minimum": "isolated"}
    until(lambda: not server.workers_of("acme"))
    refused = acme.infer("pairs", PAIR)
    assert (refused.status, refused.json["code"], refused.json["reason"]) == (503, "isolation_below_minimum", "isolation")
    assert "`confined`" in refused.error and "`isolated`" in refused.error and "globex" not in refused.error
    ready = acme.get("/v2/models/pairs/ready")
    assert ready.status == 503 or not ready.json["ready"], ready.body
    digest = acme.expect("POST", "/admin/v1/tenants/acme/artefacts?filename=m.onnx", tiny_onnx.sum_and_difference())["digest"]
    pushed = acme.call("POST", "/admin/v1/tenants/acme/models/new/versions", {"artefact": digest, "filename": "m.onnx"})
    assert (pushed.status, pushed.json["code"]) == (503, "isolation_below_minimum")
    # What is not there is not there, whatever is demanded; and nobody else is concerned.
    assert acme.infer("nothing", PAIR).status == 404
    assert acme.infer("globex/pairs", PAIR).status == 404
    assert globex.infer("pairs", PAIR).status == 200
    assert globex.call("PATCH", "/admin/v1/tenants/acme", {"min_isolation": "none"}).status == 404
    assert acme.call("PATCH", "/admin/v1/tenants/acme", {"platform_min_isolation": "none"}).status == 403
    assert acme.call("PATCH", "/admin/v1/tenants/acme", {"min_isolation": "some"}).status == 400
    assert server.status()["isolation"]["models_below_minimum"] == 1

    acme.expect("PATCH", "/admin/v1/tenants/acme", {"min_isolation": "confined"})
    assert acme.infer("pairs", PAIR).status == 200


def test_the_command_line_sets_and_shows_minimums(confined):
    server, acme, globex = confined
    shown = tenantry("tenant", "set", "globex", "--platform-min-isolation", "full", key=server.admin.key, server=server.url)
    assert "isolation confined, at least full (platform full, own none)" in shown, shown
    assert globex.infer("pairs", PAIR).status == 503
    assert "at least full" in tenantry("tenant", "show", "globex", key=globex.key, server=server.url)
    tenantry("tenant", "set", "globex", "--platform-min-isolation", "none", key=server.admin.key, server=server.url)
    assert globex.infer("pairs", PAIR).status == 200

    acme.share("acme", "pairs")
    assert globex.infer("acme/pairs", PAIR).status == 200
    assert "at least isolated" in tenantry("model", "set", "pairs", "--min-isolation", "isolated", key=acme.key, server=server.url)
    assert [api.infer("acme/pairs", PAIR).status for api in (acme, globex)] == [503, 503]
    assert "`isolated`" in tenantry("model", "show", "pairs", key=acme.key, server=server.url)
    status = tenantry("status", key=server.admin.key, server=server.url)
    assert "at least none demanded by the settings" in status and "1 models are not run" in status


def test_the_minimum_outlives_the_server(confined):
    server, acme, _ = confined
    acme.expect("PATCH", "/admin/v1/tenants/acme/models/pairs", {"min_isolation": "isolated"})
    server.stop()
    server.start()
    acme = server.api(acme.key)
    assert acme.infer("pairs", PAIR).json["code"] == "isolation_below_minimum"
    assert acme.expect("GET", "/admin/v1/tenants/acme/models/pairs")["min_isolation"] == "isolated"
