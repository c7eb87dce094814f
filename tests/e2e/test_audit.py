"""The audit trail on the real server: who reads what of what was done, and that nobody changes it unseen."""

import hashlib
import json
import sqlite3

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
        "alias.set", "tenant.min_isolation", "key.revoke", "key.create", "model.update", "version.create",
        "artefact.upload", "key.create", "tenant.create"]
    alias, minimum, revoked, created, shared, version, upload = told[:7]
    assert upload["object"] in version["detail"] and upload["detail"].endswith(" bytes")
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


def encoded(record):
    """What a record's hash covers, made again from an export as crates/store/src/audit/chain.rs describes it."""
    def number(value):
        return value.to_bytes(8, "big", signed=True)

    def text(value):
        return number(len(value.encode())) + value.encode()

    def maybe(form, value):
        return b"\0" if value is None else b"\1" + form(value)

    actor = record["actor"]
    role = "unknown" if actor.get("unknown") else actor.get("role")
    maybes = [actor.get("tenant_id"), actor.get("key"), role, record.get("tenant_id")]
    texts = [record["action"], record["object"], record["outcome"], record["detail"], record.get("source", "")]
    return (b"tenantry audit record 1" + number(record["sequence"]) + number(record["at_ms"])
            + b"".join(maybe(text, value) for value in maybes) + b"".join(map(text, texts))
            + maybe(number, record.get("generation")) + text(record["previous"]))


def test_a_changed_record_is_found(new_server):
    server = new_server()
    acme = server.tenant("acme")
    acme.new_key("acme", "invoker")

    def exported(*arguments, key=server.admin.key):
        lines = tenantry("audit", "export", *arguments, key=key, server=server.url).splitlines()
        return [json.loads(line) for line in lines]

    assert "records verified, 1 to" in tenantry("audit", "verify", key=server.admin.key, server=server.url)
    trail = exported("--all")
    assert [record["sequence"] for record in trail] == list(range(1, len(trail) + 1))
    assert [record["previous"] for record in trail[1:]] == [record["hash"] for record in trail[:-1]]
    assert [hashlib.sha256(encoded(record)).hexdigest() for record in trail] == [record["hash"] for record in trail]
    found = json.loads(tenantry("audit", "verify", "--json", key=server.admin.key, server=server.url))
    assert (found["verified"], found["hash"], "broken" in found) == (len(trail), trail[-1]["hash"], False)
    assert exported("--all", "--after", str(trail[1]["sequence"]))[0] == trail[2]
    created = next(record for record in trail if record["action"] == "key.create" and record["tenant"] == "acme")
    assert created["source"] == "127.0.0.1" and created["generation"] > 0
    # A tenant has his own records, and cannot verify everybody's.
    own = exported(key=acme.key)
    assert own and {record["tenant"] for record in own} == {"acme"}
    assert not any("tenant_id" in record or "tenant_id" in record["actor"] for record in own)
    assert acme.get("/admin/v1/audit/verification").status == 403

    server.stop()
    with sqlite3.connect(next(server.folder.rglob("tenantry.sqlite"))) as database:
        database.execute("UPDATE audit SET object = 'x' || substr(object, 2) WHERE sequence = 2")
    database.close()
    server.start()
    said = tenantry("audit", "verify", key=server.admin.key, server=server.url, rc=1)
    assert "record 2 is not what was written: it was changed" in said
    found = server.admin.expect("GET", "/admin/v1/audit/verification")
    assert found["broken"] == {"sequence": 2, "problem": "hash_differs"} and found["verified"] == 1


def test_refused_accesses_are_told_of(new_server):
    server = new_server()
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert globex.get("/admin/v1/tenants/acme/keys").status == 404
    assert globex.get("/admin/v1/status").status == 403
    key = acme.new_key("acme", "invoker")
    invoker = server.api(key["key"])
    assert invoker.get("/admin/v1/tenants/acme/keys").status == 403
    wrong = server.api(key["key"][:-4] + "aaaa")
    assert wrong.get("/admin/v1/tenants/acme/keys").status == 401
    assert server.api("nonsense").get("/v2/models/acme/m").status == 401
    # What is not there in one's own is no refused access.
    assert acme.get("/admin/v1/tenants/acme/models/nothing").status == 404

    def refused(records):
        return [record for record in records if record["action"] == "access.refused"]

    everything = refused(server.admin.expect("GET", "/admin/v1/audit")["records"])
    told = {(record["object"], record["outcome"]): record for record in everything}
    probed = told["GET /admin/v1/tenants/acme/keys", "not_found"]
    assert probed["actor"]["tenant"] == "globex" and "tenant" not in probed and probed["source"] == "127.0.0.1"
    assert told["GET /admin/v1/status", "permission_denied"]["tenant"] == "globex"
    assert told["GET /admin/v1/tenants/acme/keys", "permission_denied"]["actor"]["key"] == key["id"]
    assert told["authentication", "unauthenticated"]["actor"]["unknown"]
    assert not any("/models/nothing" in record["object"] for record in everything)
    # Whose key was tried reads of it; whose things were looked for does not know by whom.
    own = refused(records(acme, "acme"))
    assert [record["outcome"] for record in own] == ["unauthenticated", "permission_denied"]
    assert own[0]["actor"] == {"key": key["id"], "unknown": True}
    assert "acme" not in json.dumps(records(globex, "globex"))

    # However often it is tried, few records are made of it.
    before = len(everything)
    for _ in range(100):
        assert wrong.get("/admin/v1/tenants/acme/keys").status == 401
    after = refused(server.admin.expect("GET", "/admin/v1/audit?limit=1000")["records"])
    assert len(after) - before < 50 and any(record["outcome"] == "left_out" for record in after)
