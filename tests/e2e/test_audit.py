"""The audit trail on the real server: who reads what of what was done."""

import json

import tiny_onnx
from test_program import tenantry


def records(api, tenant, query=""):
    return api.expect("GET", f"/admin/v1/tenants/{tenant}/audit{query}")["records"]


def test_what_is_done_is_told_to_whom_it_concerns(new_server):
    server = new_server()
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    acme.share("acme", "pairs")
    key = acme.new_key("acme", "invoker")
    acme.expect("DELETE", f"/admin/v1/tenants/acme/keys/{key['id']}")
    server.admin.expect("PATCH", "/admin/v1/tenants/acme", {"platform_min_isolation": "confined"})
    refused = acme.call("PUT", "/admin/v1/tenants/acme/models/pairs/aliases/stable", {"version": 9})
    assert refused.status == 404

    told = records(acme, "acme")
    assert [record["action"] for record in told] == [
        "alias.set", "tenant.min_isolation", "key.revoke", "key.create", "model.update", "version.create", "key.create",
        "tenant.create"]
    alias, minimum, revoked, created, shared, version = told[:6]
    assert (alias["outcome"], alias["object"]) == ("not_found", "acme/pairs@stable")
    # The platform's keys are no business of a tenant's.
    assert minimum["actor"] == {"tenant": "platform"} and minimum["detail"] == "platform confined"
    assert revoked["object"] == created["object"] == key["id"] and created["detail"] == "invoker"
    assert revoked["actor"]["tenant"] == "acme" and revoked["actor"]["role"] == "admin" and revoked["actor"]["key"]
    assert (shared["object"], shared["detail"]) == ("acme/pairs", "shared everyone")
    assert version["object"] == "acme/pairs:1" and version["outcome"] == "ok"
    assert key["key"] not in json.dumps(told), "a secret has no place here"

    # Nobody else's, and none for who only asks models.
    assert globex.get("/admin/v1/tenants/acme/audit").status == 404
    assert globex.get("/admin/v1/audit").status == 403
    invoker = server.api(acme.new_key("acme", "invoker")["key"])
    assert invoker.get("/admin/v1/tenants/acme/audit").status == 403
    assert all("acme" not in json.dumps(record) for record in records(globex, "globex"))
    everything = server.admin.expect("GET", "/admin/v1/audit")["records"]
    assert {record.get("tenant") for record in everything} >= {"acme", "globex"}

    page = records(acme, "acme", "?limit=2")
    assert [record["sequence"] for record in page] == sorted((r["sequence"] for r in page), reverse=True)
    older = records(acme, "acme", f"?limit=100&before={page[-1]['sequence']}")
    assert [r["sequence"] for r in page + older] == [r["sequence"] for r in records(acme, "acme")]
    assert records(acme, "acme", f"?since_ms={page[0]['at_ms'] + 60_000}") == []

    shown = tenantry("audit", key=acme.key, server=server.url)
    assert "key.revoke" in shown and "platform" in shown
    listed = json.loads(tenantry("audit", "--since", "1h", "--limit", "3", "--json", key=acme.key, server=server.url))
    assert len(listed["records"]) == 3
    server.admin.expect("DELETE", "/admin/v1/tenants/globex")
    gone = json.loads(tenantry("audit", "--all", "--json", key=server.admin.key, server=server.url))["records"]
    assert gone[0]["action"] == "tenant.delete" and gone[0]["tenant"].startswith("ten_")

    server.stop()
    server.start()
    assert [r["action"] for r in records(server.api(acme.key), "acme")][-1] == "tenant.create"
