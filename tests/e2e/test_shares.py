"""Shares and limits on the real server: set live, kept, refused with reasons and arithmetic."""

import json
import subprocess
import threading

import numpy
import pytest
import tritonclient.http as triton

import tiny_onnx
from conftest import BINARY, MODELS, PATIENCE_S, until
from test_program import tenantry

PAIR = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).encode()
FILES = json.dumps({"inputs": [{"name": "bytes", "shape": [16, 2048], "datatype": "INT32", "data": [65] * (16 * 2048)}]}).encode()


@pytest.fixture
def limited(new_server):
    """A server with one slot for everybody and one dedicated, a tenant and its model."""
    server = new_server("[workers]\nslots = 2\n[[workers.group]]\nname = \"gold\"\nslots = 1\n")
    acme = server.tenant("acme")
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    assert acme.infer("pairs", PAIR).status == 200
    return server, acme


def put(api, path, generation=None, **settings):
    body = {"settings": settings} if generation is None else {"settings": settings, "generation": generation}
    return api.call("PUT", f"/admin/v1/{path}", body)


def test_a_rate_is_set_live_and_refusals_say_which_limit_and_when_to_come_back(limited):
    server, acme = limited
    share = put(server.admin, "tenants/acme/share", request_rate={"per_second": 0.01, "burst": 2})
    assert share.status == 200, share.body
    assert share.json["generation"] == 1 and share.json["effective"]["request_rate"] == {"per_second": 0.01, "burst": 2}
    assert [acme.infer("pairs", PAIR).status for _ in range(2)] == [200, 200]
    refused = acme.infer("pairs", PAIR)
    assert (refused.status, refused.json["code"], refused.json["reason"]) == (429, "resource_exhausted", "request_rate")
    after_ms = int(refused.headers["retry-after-ms"])
    assert 0 < after_ms <= 100_000 and int(refused.headers["Retry-After"]) == -(-after_ms // 1000)
    # Not a byte of a body is read for it: none is sent.
    asked = acme.call("POST", "/v2/models/pairs/infer", b"", {"x-tenantry-explain": "1"})
    timing = json.loads(asked.headers["x-tenantry-timing"])
    assert timing["reason"] == "request_rate" and timing["retry_after_us"] > 0
    with pytest.raises(triton.InferenceServerException, match="requests a second"):
        client = triton.InferenceServerClient(server.address)
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(numpy.zeros((1, 2), numpy.float32))
        client.infer("pairs", [tensor], headers={"Authorization": f"Bearer {acme.key}"})
    metrics = server.admin.get("/admin/v1/metrics").body.decode()
    assert 'tenantry_rejections_total{tenant="acme",model="",reason="request_rate"} 3' in metrics
    # Lifted again, without a restart.
    assert put(server.admin, "tenants/acme/share", generation=1).status == 200
    assert acme.infer("pairs", PAIR).status == 200
    stale = put(server.admin, "tenants/acme/share", generation=1, weight=2)
    assert stale.status == 409 and "generation 2" in stale.error


def test_bodies_and_requests_in_flight_are_bounded_by_tenant_deployment_and_key(limited):
    server, acme = limited
    assert put(server.admin, "tenants/acme/share", max_body_bytes=20).status == 200
    refused = acme.infer("pairs", PAIR)
    assert (refused.status, refused.json["reason"]) == (413, "body_bytes")
    too_large = put(server.admin, "tenants/acme/share", max_body_bytes=1 << 40)
    assert too_large.status == 400 and "http.max_body" in too_large.error

    # A tenant's own admin divides what it has among its models and keys.
    assert put(server.admin, "tenants/acme/share", max_requests=8).status == 200
    key = acme.new_key("acme", "invoker")
    slow = server.api(key["key"])
    limits = put(acme, f"tenants/acme/keys/{key['id']}/share", request_rate={"per_second": 0.01, "burst": 1}, weight=3)
    assert limits.status == 200 and limits.json["effective"]["max_requests"] == 8, limits.body
    assert [slow.infer("pairs", PAIR).status, slow.infer("pairs", PAIR).status] == [200, 429]
    assert acme.infer("pairs", PAIR).status == 200, "another key of the tenant"
    deployment = "tenants/acme/deployments/acme/pairs/share"
    assert put(acme, deployment, request_rate={"per_second": 0.01, "burst": 1}).status == 200
    replies = [acme.infer("pairs", PAIR) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 429] and "for this model" in replies[1].error
    listed = acme.expect("GET", "/admin/v1/tenants/acme/shares")["shares"]
    assert [share["subject"]["kind"] for share in listed] == ["tenant", "deployment", "key"]
    assert listed[1]["subject"]["model"] == "acme/pairs"

    for place, settings in [("tenants/acme/share", {"weight": 2}), (deployment, {"reservation": {"slots": 0.1}}),
                            (deployment, {"max_requests": 9}), (deployment, {"tier": "guaranteed"})]:
        refused = put(acme, place, **settings)
        assert refused.status == 403, (place, settings, refused.body)
    assert put(acme, deployment, tier="best_effort", max_requests=8).status == 200
    # Nobody else's is to be seen, and a revoked key has none.
    globex = server.tenant("globex")
    assert put(globex, deployment, weight=2).status == 404
    assert globex.get("/admin/v1/tenants/acme/shares").status == 404
    acme.expect("DELETE", f"/admin/v1/tenants/acme/keys/{key['id']}")
    assert put(acme, f"tenants/acme/keys/{key['id']}/share", weight=1).status == 404


def test_reservations_that_do_not_fit_are_refused_with_the_arithmetic(limited):
    server, _ = limited
    server.tenant("globex")
    assert put(server.admin, "tenants/acme/share", tier="guaranteed", reservation={"slots": 0.5}).status == 200
    refused = put(server.admin, "tenants/globex/share", reservation={"slots": 0.3})
    assert refused.status == 409, refused.body
    assert "reservations of 0.8 slots do not fit: 1 slots x 0.78 = 0.78" in refused.error and "acme" not in refused.error
    assert put(server.admin, "tenants/globex/share", reservation={"slots": 0.28}).status == 200
    # On slots of its own it has room, and leaves some.
    gold = put(server.admin, "tenants/acme/share", tier="guaranteed", reservation={"slots": 0.7}, slot_group="gold")
    assert gold.status == 200 and gold.json["effective"]["slot_group"] == "gold", gold.body
    assert put(server.admin, "tenants/globex/share", reservation={"slots": 0.78}).status == 200
    unknown = put(server.admin, "tenants/acme/share", slot_group="silver")
    assert unknown.status == 400 and "gold" in unknown.error
    for wrong in [{"weight": 0}, {"reservation": {"slots": -1}}, {"request_rate": {"per_second": 0}}, {"wieght": 1}]:
        assert put(server.admin, "tenants/acme/share", **wrong).status == 400, wrong


def test_a_tenants_keys_learn_no_names_of_groups_or_organisations(limited):
    server, acme = limited
    assert server.admin.call("POST", "/admin/v1/organisations", {"name": "known"}).status < 300
    for role in ("admin", "invoker"):
        key = acme.new_key("acme", role)
        asks = server.api(key["key"])
        # The very same for what there is and what there is not.
        answers = [put(asks, f"tenants/acme/keys/{key['id']}/share", slot_group=name) for name in ("gold", "none")]
        answers += [put(asks, f"tenants/acme/keys/{key['id']}/share", organisation=name) for name in ("known", "none")]
        assert {answer.status for answer in answers} == {403}, [answer.body for answer in answers]
        assert len({answer.error for answer in answers}) == 1 and "gold" not in answers[1].error


def test_organisations_hold_tenants(limited):
    server, acme = limited
    admin = server.admin
    made = admin.expect("POST", "/admin/v1/organisations", {"name": "group"})
    assert made["id"].startswith("org_") and made["tenants"] == []
    assert admin.call("POST", "/admin/v1/organisations", {"name": "group"}).status == 409
    assert put(admin, "tenants/acme/share", organisation="group").json["settings"]["organisation"] == "group"
    assert put(admin, "tenants/acme/share", organisation="nobody").status == 404
    assert put(admin, "organisations/group/share", weight=4).json["effective"]["weight"] == 4
    assert put(admin, "organisations/group/share", reservation={"slots": 0.1}).status == 400
    [listed] = admin.expect("GET", "/admin/v1/organisations")["organisations"]
    assert listed["tenants"] == ["acme"]
    assert admin.call("DELETE", "/admin/v1/organisations/group").status == 409
    assert acme.get("/admin/v1/organisations").status == 403
    assert put(admin, "tenants/acme/share").status == 200
    admin.expect("DELETE", "/admin/v1/organisations/group")
    assert acme.infer("pairs", PAIR).status == 200


def test_the_policy_is_switched_while_requests_run(limited):
    server, acme = limited
    assert server.admin.expect("GET", "/admin/v1/system/policy") == {"policy": "fair"}
    statuses, stopping = [], threading.Event()

    def ask():
        while not stopping.is_set():
            statuses.append(acme.infer("pairs", PAIR).status)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for thread in asking:
        thread.start()
    try:
        for policy in ["fifo", "round-robin", "strict-priority", "fair"]:
            assert server.admin.expect("PUT", "/admin/v1/system/policy", {"policy": policy}) == {"policy": policy}
            answered = len(statuses)
            until(lambda: len(statuses) > answered + 10)
    finally:
        stopping.set()
        for thread in asking:
            thread.join()
    assert set(statuses) == {200}
    assert server.admin.call("PUT", "/admin/v1/system/policy", {"policy": "lottery"}).status == 400
    assert acme.call("PUT", "/admin/v1/system/policy", {"policy": "fifo"}).status == 403


def test_a_request_is_explained_to_whoever_sent_it(limited):
    _, acme = limited
    assert "x-tenantry-timing" not in acme.infer("pairs", PAIR).headers
    timing = json.loads(acme.infer("pairs", PAIR, {"x-tenantry-explain": "1"}).headers["x-tenantry-timing"])
    assert set(timing) == {"admission_us", "queue_us", "batch_wait_us", "device_us", "suspended_us", "batch_rows", "phase"}
    assert timing["device_us"] > 0 and timing["batch_rows"] == 1 and timing["phase"] in ("shared", "reserved")


def test_a_guaranteed_tenant_calls_a_published_model_in_a_worker_of_its_own(limited):
    server, acme = limited
    globex = server.tenant("globex")
    assert server.admin.push("platform", "files", (MODELS / "magika/model.onnx").read_bytes())["state"] == "ready"
    server.admin.share("platform", "files")
    assert [api.infer("platform/files", FILES).status for api in (acme, globex)] == [200, 200]
    assert {w["data_owner"] for w in server.status()["workers"] if w["model_owner"] == "platform"} == {"any"}
    share = put(server.admin, "tenants/acme/share", tier="guaranteed", reservation={"slots": 0.25})
    assert share.json["effective"]["batch_with_others"] is False
    assert acme.infer("platform/files", FILES).status == 200
    assert {w["data_owner"] for w in server.status()["workers"] if w["model_owner"] == "platform"} == {"any", "acme"}
    metrics = server.admin.get("/admin/v1/metrics").body.decode()
    assert 'tenantry_device_charged_seconds_total{tenant="acme"}' in metrics


def test_settings_survive_a_restart_and_a_models_default_timeout_holds(limited):
    server, acme = limited
    assert put(server.admin, "tenants/acme/share", request_rate={"per_second": 0.01, "burst": 1}).status == 200
    server.stop()
    server.start()
    acme = server.api(acme.key)
    assert [acme.infer("pairs", PAIR).status for _ in range(2)] == [200, 429]
    assert put(server.admin, "tenants/acme/share").status == 200
    assert acme.push("acme", "files", (MODELS / "magika/model.onnx").read_bytes())["state"] == "ready"
    deployment = "/admin/v1/tenants/acme/models/files/deployment"
    now = acme.expect("GET", deployment)
    wanted = {"generation": now["generation"], "version": 1, "max_replicas": 1, "default_timeout_ms": 1}
    assert acme.expect("PUT", deployment, wanted)["default_timeout_ms"] == 1
    late = acme.infer("files", FILES)
    assert (late.status, late.json["code"]) == (504, "deadline_exceeded") and late.json["reason"]
    assert acme.infer("files", FILES, {"x-request-timeout-ms": "60000"}).status == 200


def test_the_program_sets_and_shows_shares_and_limits(limited):
    server, acme = limited
    own = lambda *arguments, **more: tenantry(*arguments, server=server.url, key=acme.key, **more)
    run = lambda *arguments, **more: tenantry(*arguments, server=server.url, key=server.admin.key, **more)
    run("organisation", "create", "group")
    shown = run("tenant", "limits", "acme", "--tier", "guaranteed", "--reserve", "0.25", "--rate", "0.01", "--burst", "2",
                "--max-body", "1MiB", "--organisation", "group")
    assert "0.25 slots, 100 ms at once" in shown and "1.0 MiB" in shown and "apart" in shown, shown
    assert "group" in run("organisation", "list") and "weight" in run("organisation", "limits", "group", "--weight", "2")
    # What is not named stays, and what is taken back has its default again.
    changed = json.loads(run("tenant", "limits", "acme", "--unset", "organisation", "--weight", "3", "--json"))
    assert changed["generation"] == 2 and changed["settings"]["weight"] == 3
    assert changed["settings"]["reservation"] == {"slots": 0.25, "burst_ms": 100}
    run("organisation", "rm", "group")
    own("tenant", "limits", "acme", "--model", "pairs", "--max-requests", "5")
    assert "higher role" in own("tenant", "limits", "acme", "--weight", "9", rc=1)
    shown = own("tenant", "show", "acme")
    assert "tenant acme\n" in shown and "tenant acme calling acme/pairs" in shown, shown
    explained = subprocess.run([BINARY, "infer", "pairs", "--input", "x=[[1,2]]", "--explain", "--server", server.url,
                                "--key", acme.key], capture_output=True, text=True, timeout=PATIENCE_S)
    assert explained.returncode == 0 and "device" in explained.stderr and "in a batch of 1 rows" in explained.stderr
    own("infer", "pairs", "--input", "x=[[1,2]]")
    assert "refused by request_rate" in own("infer", "pairs", "--input", "x=[[1,2]]", "--explain", rc=1)
    assert run("policy", "show").startswith("fair") and run("policy", "set", "fifo").startswith("fifo")
    assert json.loads(run("tenant", "limits", "acme", "--reset", "--json"))["settings"] == {}
    deployed = json.loads(own("model", "deploy", "pairs", "--default-timeout", "500ms", "--json"))
    assert deployed["default_timeout_ms"] == 500
    refused = run("tenant", "limits", "acme", "--reserve", "0.9", rc=1)
    assert "a reservation of 0.9 slots does not fit" in refused
