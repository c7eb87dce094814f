"""What survives: workers killed under load, keys revoked, the server told to stop or killed."""

import json
import os
import signal
import socket
import threading
import urllib.error
import urllib.request

import pytest

import tiny_onnx
from conftest import MODELS, Api, until


def tensor(name, shape, datatype, data):
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}


PAIR = json.dumps(tensor("x", [1, 2], "FP32", [1, 2])).encode()
FILES = json.dumps(tensor("bytes", [16, 2048], "INT32", [65] * (16 * 2048))).encode()


def gone(pid):
    """Whether a process has ended (one that nobody collected yet has too)."""
    try:
        with open(f"/proc/{pid}/stat") as line:
            return line.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except FileNotFoundError:
        return True


class Load:
    """Clients that ask one after another until told to stop."""

    def __init__(self, api, model, body, clients):
        self.replies, self.stopping = [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(api, model, body)) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, api, model, body):
        while not self.stopping.is_set():
            self.replies.append(api.infer(model, body))

    def count(self, status):
        return sum(reply.status == status for reply in list(self.replies))

    def more(self, status, than):
        until(lambda: self.count(status) > than)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.replies


def test_a_worker_killed_under_load_fails_only_what_ran_in_it(new_server):
    server = new_server()
    acme, globex = server.tenant("acme"), server.tenant("globex")
    assert acme.push("acme", "files", (MODELS / "magika/model.onnx").read_bytes())["state"] == "ready"
    assert globex.push("globex", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    clients = 3
    victim, bystander = Load(acme, "files", FILES, clients), Load(globex, "pairs", PAIR, 2)
    victim.more(200, than=3)
    bystander.more(200, than=10)
    [worker] = server.workers_of("acme")
    others = {w.get("pid") for w in server.status()["workers"]} - {worker["pid"], None}
    answered = victim.count(200)
    os.kill(worker["pid"], signal.SIGKILL)
    victim.more(200, than=answered + 2 * clients)
    bystander.more(200, than=bystander.count(200) + 10)
    failed = [reply for reply in victim.stop() if reply.status != 200]
    assert {reply.status for reply in bystander.stop()} == {200}
    assert len(failed) <= clients, [reply.body for reply in failed]
    for reply in failed:
        assert reply.json["code"] == "model_failed" and "files" in reply.error, reply.body
    status = server.status()
    assert status["worker_deaths"] == 1
    assert others <= {w.get("pid") for w in status["workers"]}
    assert [w["pid"] for w in server.workers_of("acme")] != [worker["pid"]]


def test_a_worker_killed_while_idle_is_replaced_and_nobody_notices(new_server):
    server = new_server()
    acme = server.tenant("acme")
    acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))
    assert acme.infer("pairs", PAIR).status == 200
    [worker] = server.workers_of("acme")
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: server.status()["worker_deaths"] == 1)
    assert acme.infer("pairs", PAIR).status == 200


def test_a_revoked_key_is_refused_at_once(world):
    created = world.acme.new_key("acme", "invoker")
    api = world.server.api(created["key"])
    assert api.get("/v2/models/sums").status == 200
    world.acme.expect("DELETE", f"/admin/v1/tenants/acme/keys/{created['id']}")
    assert api.get("/v2/models/sums").status == 401
    [listed] = [key for key in world.acme.expect("GET", "/admin/v1/tenants/acme/keys")["keys"]
                if key["id"] == created["id"]]
    assert listed["revoked_ms"] and "key" not in listed


def test_roles(world):
    invoker = world.server.api(world.acme.new_key("acme", "invoker")["key"])
    assert invoker.get("/v2/models/sums").status == 200
    assert invoker.call("POST", "/admin/v1/tenants/acme/keys", {"role": "admin"}).status == 403
    assert world.acme.call("POST", "/admin/v1/tenants", {"name": "mine"}).status == 403
    assert world.acme.get("/admin/v1/status").status == 403
    assert world.acme.call("POST", "/admin/v1/tenants/acme/keys", {"role": "platform_admin"}).status in (400, 403)


def test_told_to_stop_the_server_answers_what_runs_and_ends(new_server):
    server = new_server()
    acme = server.tenant("acme")
    acme.push("acme", "files", (MODELS / "magika/model.onnx").read_bytes())
    assert acme.infer("files", FILES).status == 200
    replies = []
    asking = threading.Thread(target=lambda: replies.append(acme.infer("files", FILES)))
    asking.start()
    until(lambda: server.status()["running_batches"] == 1)
    workers = [worker["pid"] for worker in server.status()["workers"] if "pid" in worker]
    server.signal(signal.SIGTERM)
    asking.join()
    assert replies[0].status == 200
    assert server.wait() == 0
    with pytest.raises(urllib.error.URLError):
        acme.get("/v2/health/live")
    until(lambda: all(gone(pid) for pid in workers))


def test_the_registry_survives_kill_9(new_server):
    server = new_server()
    acme = server.tenant("acme")
    assert acme.push("acme", "pairs", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    # The second version is acknowledged but its registration has hardly begun.
    digest = acme.expect("POST", "/admin/v1/tenants/acme/artefacts?filename=m.onnx",
                         (MODELS / "magika/model.onnx").read_bytes())["digest"]
    new = {"artefact": digest, "filename": "m.onnx"}
    assert acme.expect("POST", "/admin/v1/tenants/acme/models/files/versions", new)["state"] == "registering"
    workers = [worker["pid"] for worker in server.status()["workers"] if "pid" in worker]
    server.signal(signal.SIGKILL)
    server.wait()
    until(lambda: all(gone(pid) for pid in workers))

    server.start()
    acme = Api(server.url, acme.key)
    assert acme.infer("pairs", PAIR).status == 200
    path = "/admin/v1/tenants/acme/models/files/versions/1"
    version = until(lambda: (v := acme.expect("GET", path + "?wait_ms=20000"))["state"] != "registering" and v)
    assert version["state"] == "ready", version
    assert acme.infer("files", FILES).status == 200


def test_an_upload_cut_off_by_kill_9_leaves_nothing(new_server):
    server = new_server()
    acme = server.tenant("acme")
    before = {path for path in server.data.rglob("*") if path.is_file()}
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"POST /admin/v1/tenants/acme/artefacts?filename=m.onnx HTTP/1.1\r\nHost: x\r\n"
                           f"Authorization: Bearer {acme.key}\r\nContent-Length: 100000000\r\n\r\n".encode())
        connection.sendall(b"\0" * 10_000_000)
        until(lambda: any(path.is_file() and path not in before and path.stat().st_size > 0
                          for path in server.data.rglob("*")))
        server.signal(signal.SIGKILL)
        server.wait()
    server.start()
    left = {path for path in server.data.rglob("*") if path.is_file() and "sqlite" not in path.name}
    # Each start has a file of the ledger of its own, and the first upload made the master key.
    assert {path for path in left if path.parent.name != "ledger" and path.name != "master-key"} <= before
    assert Api(server.url, acme.key).expect("GET", "/admin/v1/tenants/acme/models") == {"models": []}


def test_the_log_names_tenant_and_request(new_server):
    server = new_server("[log]\nfilter = \"debug\"\n")
    acme = server.tenant("acme")
    reply = acme.infer("no-such-model", PAIR)
    assert reply.status == 404
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    lines = [json.loads(line) for line in (server.folder / "server.log").read_text().splitlines()]
    about = [json.dumps(line) for line in lines if reply.json["request_id"] in json.dumps(line)]
    assert about and any("acme" in line for line in about), about
    assert all(acme.key not in json.dumps(line) for line in lines)


def test_metrics_name_tenant_and_model_and_nothing_a_client_made_up(world):
    world.acme.infer("made-up-by-a-client", PAIR)
    request = json.dumps({"inputs": [{"name": n, "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]} for n in "ab"]})
    assert world.acme.infer("sums", request.encode()).status == 200
    with urllib.request.urlopen(world.server.metrics_url) as response:
        text = response.read().decode()
    assert 'tenantry_requests_total{tenant="acme",model="acme/sums",code="ok"}' in text
    for name in ["tenantry_request_duration_seconds", "tenantry_queue_wait_seconds",
                 "tenantry_device_time_seconds_total", "tenantry_batch_rows"]:
        assert name in text, name
    assert "made-up" not in text
