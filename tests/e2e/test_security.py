"""The doors and the walls: no call of the generated documents goes around the authentication, and no tenant reaches another's things."""

import json
import re

import grpc
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import tiny_onnx
from conftest import ROOT, Server

ADMIN, INFERENCE = (json.loads((ROOT / "docs" / name).read_text()) for name in ["openapi.json", "openapi-inference.json"])
# What says nothing of any tenant, on purpose: liveness and readiness, what the server is, and how it is spoken to.
OPEN = {"/", "/ping", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/openapi.json"}
TABLE = (ROOT / "docs/roles.md").read_text()
OPEN_RPC = {"/inference.GRPCInferenceService/ServerLive", "/inference.GRPCInferenceService/ServerReady",
            "/inference.GRPCInferenceService/ServerMetadata"}
# Those of a tenant; the last one is a role that the tenant made, of all that a role can have.
ROLES = ["admin", "deployer", "invoker", "viewer", "auditor", "everything"]
INFER = {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]} for name in "ab"]}
# A body that would be accepted, for each call that takes one: so that nothing but the caller can be the reason for a refusal.
BODIES = {
    "create_key": {"label": "mine", "role": "admin"},
    "rotate_key": {},
    "set_role": {"actions": ["model.read"]},
    "create_tenant": {"name": "made"},
    "create_organisation": {"name": "made"},
    "update_tenant": {"min_isolation": "confined"},
    "set_alias": {"version": 1},
    "set_deployment": {"version": 1, "generation": 1, "max_replicas": 1},
    "set_tenant_share": {"settings": {"weight": 3}},
    "set_deployment_share": {"settings": {"weight": 3}},
    "set_key_share": {"settings": {"weight": 3}},
    "update_model": {"description": "mine"},
    "set_policy": {"policy": "fifo"},
    "add_price_plan": {"name": "mine", "currency": "EUR", "prices": []},
    "add_tenant_price_plan": {"name": "mine", "currency": "EUR", "prices": []},
    "set_budget": {"meter": "requests", "period": "day", "amount": 0},
}


# What no role of a tenant can have.
PLATFORMS = {"tenant.manage", "billing.manage", "platform.read", "platform.write"}


def actions():
    """All that can be permitted, from the table of roles."""
    return list(dict.fromkeys(re.findall(r"^\| `([\w.]+)` \|", TABLE, re.MULTILINE)))


class Walls:
    """Two tenants; the first has something of every kind."""

    def __init__(self, server):
        self.server, self.admin = server, server.admin
        self.acme, self.globex = server.tenant("acme"), server.tenant("globex")
        assert self.acme.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
        self.acme.expect("PUT", "/admin/v1/tenants/acme/models/sums/aliases/best", {"version": 1})
        self.key = self.acme.new_key("acme", "invoker")
        self.digest = self.acme.expect("GET", "/admin/v1/tenants/acme/models/sums/versions/1")["digest"]
        assert self.acme.infer("sums", INFER).status == 200
        self.acme.expect("PUT", "/admin/v1/tenants/acme/roles/ops", {"actions": ["model.read"]})
        everything = [action for action in actions() if action not in PLATFORMS]
        self.globex.expect("PUT", "/admin/v1/tenants/globex/roles/everything", {"actions": everything})
        self.intruders = {role: server.api(self.globex.new_key("globex", role)["key"]) for role in ROLES}
        self.names = {"tenant": "acme", "owner": "acme", "model": "sums", "number": "1", "version": "1", "alias": "best",
                      "label": "best", "key": self.key["id"], "organisation": "acme", "role": "ops"}
        plan = self.admin.expect("POST", "/admin/v1/tenants/acme/prices", {"name": "own", "currency": "EUR", "prices": []})
        self.acme.expect("PUT", "/admin/v1/tenants/acme/budgets", {"meter": "requests", "period": "day", "amount": 1_000_000})
        self.names |= {"valid_from_ms": str(plan["valid_from_ms"]), "budget": "requests.day"}

    def path(self, template, **names):
        return re.sub(r"\{(\w+)\}", lambda found: {**self.names, **names}[found.group(1)], template)

    def body(self, operation):
        content = operation.get("requestBody", {}).get("content", {})
        if "application/octet-stream" in content and "application/json" not in content:
            return tiny_onnx.identity(tiny_onnx.FLOAT)
        if operation["operationId"] == "create_version":
            return {"artefact": self.digest, "filename": "model.onnx"}
        return BODIES.get(operation["operationId"], {}) if content else None

    def state(self):
        """All that an intruder might have changed, as the platform sees it."""
        return self.bills() + self.things()

    def bills(self):
        """Prices and budgets. What is used of a budget changes as its owner's own calls are served."""
        prices = [self.admin.expect("GET", f"/admin/v1/{whose}prices") for whose in ["", "tenants/acme/"]]
        budgets = self.admin.expect("GET", "/admin/v1/tenants/acme/budgets")["budgets"]
        return json.dumps([prices, [(budget["id"], budget["amount"]) for budget in budgets]])

    def things(self):
        seen = [self.admin.expect("GET", path) for path in [
            "/admin/v1/tenants", "/admin/v1/organisations", "/admin/v1/tenants/acme/roles", "/admin/v1/system/policy", "/admin/v1/tenants/acme/keys",
            "/admin/v1/tenants/acme/models", "/admin/v1/tenants/acme/models/sums", "/admin/v1/tenants/acme/models/sums/versions",
            "/admin/v1/tenants/acme/models/sums/deployment", "/admin/v1/tenants/acme/shares",
            "/admin/v1/tenants/acme/encryption"]]
        # When a key was used last is changed by its use.
        return re.sub(r'"last_used_ms": \d+, ', "", json.dumps(seen, sort_keys=True))


@pytest.fixture(scope="module")
def walls(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("walls"))
    yield Walls(server)
    server.stop()


def operations(document):
    return [(method.upper(), path, operation) for path, calls in document["paths"].items() for method, operation in calls.items()
            if method in ("get", "put", "post", "patch", "delete")]


def tell(capsys, name, value, goal):
    with capsys.disabled():
        print(f"\nfigure {name} {value} count goal {goal}")


def test_no_route_is_open_to_whoever_has_no_key(walls, capsys):
    revoked = walls.acme.new_key("acme")
    walls.acme.expect("DELETE", f"/admin/v1/tenants/acme/keys/{revoked['id']}")
    before = walls.state()
    good = walls.acme.key
    credentials = [None, "", "Bearer", "Bearer ", f"Basic {good}", good, f"Bearer {good[:-1]}", f"Bearer {good}x",
                   f"Bearer {revoked['key']}", f"Bearer {good} {good}", "Bearer tnty_" + "0" * 32 + "_" + "A" * 43]
    routes, texts = 0, set()
    for method, template, operation in operations(ADMIN) + operations(INFERENCE):
        if template in OPEN:
            continue
        routes += 1
        nobody = walls.server.api(None)
        for credential in credentials:
            headers = {} if credential is None else {"Authorization": credential}
            reply = nobody.call(method, walls.path(template), walls.body({"operationId": "", **operation}), headers)
            assert reply.status == 401, (method, template, credential, reply.status, reply.body)
            # OpenAI's calls say which key it was, as OpenAI does: its last four characters.
            if isinstance(reply.json["error"], str):
                texts.add(reply.json["error"])
    assert len(texts) == 1, texts
    assert walls.state() == before
    tell(capsys, "routes_walked", routes, ">= 70")


def test_no_call_of_grpc_is_open_to_whoever_has_no_key(walls):
    with grpc.insecure_channel(walls.server.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        described = database.FindFileContainingSymbol("inference.GRPCInferenceService")
        [service] = [service for service in described.service if service.name == "GRPCInferenceService"]
        walked = 0
        for method in service.method:
            path = f"/inference.GRPCInferenceService/{method.name}"
            if path in OPEN_RPC:
                continue
            walked += 1
            for metadata in [(), (("authorization", "Bearer"),), (("authorization", f"Bearer {walls.acme.key}x"),)]:
                raw = {"request_serializer": None, "response_deserializer": None}
                with pytest.raises(grpc.RpcError) as refused:
                    if method.client_streaming:
                        list(channel.stream_stream(path, **raw)(iter([b""]), metadata=metadata))
                    else:
                        channel.unary_unary(path, **raw)(b"", metadata=metadata)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED, (path, refused.value)
        assert walked >= 9


def refusal(reply, replaced):
    """What an intruder reads, with the names he brought taken out, and what differs in each call."""
    body = re.sub(rb"req_[0-9a-f]{32}", b"", reply.body)
    for name in replaced:
        body = body.replace(name.encode(), b"NAME")
    return reply.status, body


def test_another_tenants_things_do_not_exist(walls, capsys):
    """Every call about a tenant, by another's keys of every role: refused as for a tenant there is not, word for word."""
    before = walls.state()
    attempts, reads = 0, []
    for method, template, operation in operations(ADMIN):
        if "{tenant}" not in template:
            continue
        for role, intruder in walls.intruders.items():
            body = walls.body(operation)
            seen = intruder.call(method, walls.path(template), body)
            absent = intruder.call(method, walls.path(template, tenant="nobody", owner="nobody"), body)
            attempts += 1
            if seen.status != 404 or refusal(seen, ["acme"]) != refusal(absent, ["nobody"]):
                reads.append((role, method, template, seen.status, seen.body, absent.status, absent.body))
    for method, template, operation in operations(INFERENCE):
        if "{model}" not in template:
            continue
        # Nothing but JSON is looked at before the name is.
        body = None if method == "GET" else INFER
        owned = "acme%2Fsums" if template.startswith("/predictions") else "acme/sums"
        for role, intruder in walls.intruders.items():
            for theirs, none in [(owned, owned.replace("sums", "none")), ("sums", "none")]:
                seen = intruder.call(method, walls.path(template, model=theirs), body)
                absent = intruder.call(method, walls.path(template, model=none), body)
                attempts += 1
                if seen.status < 400 or refusal(seen, ["sums"]) != refusal(absent, ["none"]):
                    reads.append((role, method, template, seen.status, seen.body, absent.status, absent.body))
    # What concerns the platform is for the platform.
    for method, template, operation in operations(ADMIN):
        if "{tenant}" in template or template in ("/admin/v1/tenants", "/admin/v1/openapi.json"):
            continue
        for role, intruder in walls.intruders.items():
            reply = intruder.call(method, walls.path(template), walls.body(operation))
            attempts += 1
            if reply.status not in (403, 404) or b"acme" in reply.body.replace(b"`acme`", b""):
                reads.append((role, method, template, reply.status, reply.body))
    assert walls.state() == before
    tell(capsys, "cross_tenant_attempts", attempts, ">= 100")
    tell(capsys, "cross_tenant_reads", len(reads), "== 0")
    assert reads == [], "\n".join(map(str, reads))


def test_lists_and_ids_of_others_lead_nowhere(walls):
    before = walls.state()
    for role, intruder in walls.intruders.items():
        # Lists show one's own only.
        tenants = intruder.expect("GET", "/admin/v1/tenants")["tenants"]
        assert [tenant["name"] for tenant in tenants] == ["globex"]
        for path in ["/v2/models", "/v1/models"]:
            assert b"sums" not in intruder.get(path).body
        assert b"acme" not in intruder.call("POST", "/v2/repository/index", {}).body
        # Ids and digests of others are good for nothing in one's own house either.
        key = walls.key["id"]
        own = "/admin/v1/tenants/globex"
        refused = [intruder.call("DELETE", f"{own}/keys/{key}"), intruder.call("PUT", f"{own}/keys/{key}/share", {"settings": {"weight": 3}, "generation": 0}),
                   intruder.call("POST", f"{own}/models/stolen/versions", {"artefact": walls.digest, "filename": "model.onnx"}),
                   intruder.call("GET", f"{own}/deployments/acme/sums/share"),
                   intruder.call("GET", f"{own}/usage/records?after=" + walls.acme.expect(
                       "GET", "/admin/v1/tenants/acme/usage/records?limit=1")["records"][0]["id"])]
        allowed = {"admin": [404, 404, 404, 404, 404], "invoker": [403, 404, 403, 404, 403],
                   "deployer": [403, 404, 404, 404, 403], "viewer": [403, 404, 403, 404, 403],
                   "auditor": [403, 404, 403, 404, 404], "everything": [404, 404, 404, 404, 404]}[role]
        assert [reply.status for reply in refused] == allowed, [(reply.status, reply.body) for reply in refused]
        assert all(b"acme" not in reply.body.replace(b"acme/sums", b"") for reply in refused)
        if allowed[-1] == 404:
            # As one that there is not.
            made_up = intruder.call("GET", f"{own}/usage/records?after=nod_{'0' * 32}/boo_{'0' * 32}/1")
            assert made_up.status == 404 and made_up.json["error"] == refused[-1].json["error"]
    assert walls.state() == before
    assert walls.server.api(walls.key["key"]).infer("sums", INFER).status == 200


def test_kept_answers_of_others_are_not_there(walls):
    """One published model, one input, two tenants: neither is given the answer that was made for the other."""
    walls.admin.push("platform", "shared-sums", tiny_onnx.sum_and_difference())
    walls.admin.share("platform", "shared-sums")
    deployment = walls.admin.expect("GET", "/admin/v1/tenants/platform/models/shared-sums/deployment")
    walls.admin.expect("PUT", "/admin/v1/tenants/platform/models/shared-sums/deployment",
                       {"generation": deployment["generation"], "version": 1, "max_replicas": 1, "cache_ttl_ms": 60_000})
    explain = {"x-tenantry-explain": "1"}

    def cache(api):
        reply = api.infer("platform/shared-sums", INFER, explain)
        assert reply.status == 200
        return [part for part in json.dumps(dict(reply.headers)).replace("\\", "").split() if "hit" in part or "miss" in part]

    assert "miss" in str(cache(walls.acme)) and "hit" in str(cache(walls.acme))
    assert "miss" in str(cache(walls.intruders["invoker"]))


def table():
    """The golden table: for each relation, action and role the status of a refusal, or `yes`."""
    rows = {}
    relations = dict(zip(["own", "shared", "other"], re.split(r"^## .*$", TABLE, flags=re.MULTILINE)[1:], strict=True))
    for relation, text in relations.items():
        lines = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.strip().splitlines()]
        head, _, *body = lines
        for action, *cells in body:
            rows.update({(relation, action, role): cell for role, cell in zip(head[1:], cells, strict=True)})
    return rows


def probe(action, tenant, model, name):
    """A call that needs this action, and otherwise nothing that whoever has it has not."""
    admin = f"/admin/v1/tenants/{tenant}"
    known = f"{admin}/models/{model}"
    return {
        "model.infer": ("POST", f"/v2/models/{name}/infer", INFER),
        "model.read": ("GET", f"/v2/models/{name}", None),
        "model.write": ("PATCH", known, {"description": "seen"}),
        "model.share": ("PATCH", known, {"shared_with": ["globex"]}),
        "version.write": ("PUT", f"{known}/aliases/best", {"version": 1}),
        # A generation that it is not at: whoever may is told so.
        "deployment.write": ("PUT", f"{known}/deployment", {"version": 1, "generation": 999, "max_replicas": 1}),
        "tenant.read": ("GET", admin, None),
        "tenant.write": ("PATCH", admin, {"min_isolation": "none"}),
        "tenant.manage": ("PATCH", admin, {"platform_min_isolation": "none"}),
        "key.read": ("GET", f"{admin}/keys", None),
        "key.write": ("POST", f"{admin}/keys", {"role": "viewer", "expires_in_seconds": 60}),
        "role.read": ("GET", f"{admin}/roles", None),
        "role.write": ("PUT", f"{admin}/roles/probe", {"actions": ["tenant.read"]}),
        "share.write": ("PUT", f"{admin}/deployments/{tenant}/{model}/share", {"settings": {"weight": 1}}),
        "usage.read": ("GET", f"{admin}/usage", None),
        "usage.export": ("GET", f"{admin}/usage/records", None),
        "audit.read": ("GET", f"{admin}/audit", None),
        "billing.read": ("GET", f"{admin}/prices", None),
        "budget.write": ("PUT", f"{admin}/budgets", {"meter": "requests", "period": "day", "amount": 1_000_000}),
        "billing.manage": ("POST", f"{admin}/prices", {"name": "probe", "currency": "EUR", "prices": []}),
        "encryption.read": ("GET", f"{admin}/encryption", None),
        "encryption.write": ("POST", f"{admin}/encryption/rotation", None),
        "platform.read": ("GET", "/admin/v1/status", None),
        "platform.write": ("PUT", "/admin/v1/system/policy", {"policy": "fair"}),
    }.get(action)


def test_the_server_does_as_the_table_of_roles_says(new_server, capsys):
    """Each role, each action, one's own things, those shared by another and those of another: as docs/roles.md has it."""
    server = new_server()
    acme, globex, admin = server.tenant("acme"), server.tenant("globex"), server.admin
    for api, tenant in [(acme, "acme"), (globex, "globex"), (admin, "platform")]:
        assert api.push(tenant, "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
        assert api.push(tenant, "lent", tiny_onnx.sum_and_difference())["state"] == "ready"
    acme.expect("PATCH", "/admin/v1/tenants/acme/models/lent", {"shared_with": ["globex", "platform"]})
    keys = {role: server.api(globex.new_key("globex", role)["key"]) for role in ROLES if role != "everything"}
    faults, asked, without = [], 0, set()
    for (relation, action, role), expected in table().items():
        own = "platform" if role == "platform_admin" else "globex"
        api = admin if role == "platform_admin" else keys[role]
        tenant = own if relation == "own" else "acme"
        model = "lent" if relation == "shared" else "sums"
        call = probe(action, tenant, model, model if relation == "own" else f"acme/{model}")
        # Whoever administers the platform looks at what a tenant keeps to itself through the admin API only.
        if (relation, action, role) == ("other", "model.read", "platform_admin"):
            call = ("GET", f"/admin/v1/tenants/{tenant}/models/{model}", None)
        if (relation, action) == ("shared", "model.share"):
            call = (*call[:2], {"shared_with": ["globex", "platform"]})
        if call is None:
            without.add(action)
            continue
        asked += 1
        reply = api.call(*call)
        allowed = reply.status < 400 or (action == "deployment.write" and reply.status == 409)
        if (expected == "yes") != allowed or (not allowed and str(reply.status) != expected):
            faults.append((relation, action, role, expected, reply.status, reply.body))
    tell(capsys, "role_table_cells", asked, ">= 200")
    assert faults == [], "\n".join(map(str, faults))
    assert without == set(), without
