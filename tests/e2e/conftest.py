"""A real server for the tests: the built binary, on free ports, in a folder of its own."""

import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import tiny_onnx

pytest_plugins = ["conformance"]

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/release/tenantry"
MODELS = ROOT / ".cache/models"
LIBRARY = ROOT / ".cache/onnxruntime/1.31.1/libonnxruntime.so.1.31.1"
# Nothing here should take so long; it keeps a broken server from hanging the run.
PATIENCE_S = 120


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


class Api:
    """Calls with one key; every status is an answer, none an exception."""

    def __init__(self, url, key=None):
        self.url, self.key = url, key

    def call(self, method, path, body=None, headers=None):
        headers = dict(headers or {})
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        if body is not None and not isinstance(body, bytes):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        request = urllib.request.Request(self.url + path, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return Reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, error.read())

    def get(self, path):
        return self.call("GET", path)

    def expect(self, method, path, body=None):
        reply = self.call(method, path, body)
        assert reply.status < 300, (reply.status, reply.body)
        return reply.json if reply.body else None

    def push(self, tenant, model, content, **settings):
        """Uploads, registers, waits; returns the version."""
        digest = self.expect("POST", f"/admin/v1/tenants/{tenant}/artefacts?filename=model.onnx", content)["digest"]
        versions = f"/admin/v1/tenants/{tenant}/models/{model}/versions"
        version = self.expect("POST", versions, {"artefact": digest, "filename": "model.onnx", **settings})
        while version["state"] == "registering":
            version = self.expect("GET", f"{versions}/{version['number']}?wait_ms=20000")
        return version

    def share(self, tenant, model):
        self.expect("PATCH", f"/admin/v1/tenants/{tenant}/models/{model}", {"shared": "everyone"})

    def new_key(self, tenant, role="admin"):
        return self.expect("POST", f"/admin/v1/tenants/{tenant}/keys", {"label": "test", "role": role})

    def infer(self, model, request, headers=None):
        return self.call("POST", f"/v2/models/{model}/infer", request, headers)


class Server:
    def __init__(self, folder, config=""):
        self.folder = Path(folder)
        self.data = self.folder / "data"
        self.config = self.folder / "tenantry.toml"
        self.config.write_text(config)
        self.process = None
        self.start()

    def start(self):
        self.log = open(self.folder / "server.log", "ab")
        environment = {**os.environ, "TENANTRY_ONNXRUNTIME": str(LIBRARY), "ORT_DISABLE_TELEMETRY": "1"}
        command = [BINARY, "serve", "--config", self.config, "--data-dir", self.data, "--listen", "127.0.0.1:0",
                   "--metrics-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--ready-file", self.folder / "ready"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, env=environment, cwd=self.folder)
        # The line comes when requests are accepted; none comes if the server could not start.
        line = self.process.stdout.readline()
        assert line, "the server did not start:\n" + (self.folder / "server.log").read_text()
        ready = json.loads(line)
        assert ready == json.loads((self.folder / "ready").read_text())
        self.url, self.metrics_url, self.grpc_address = ready["url"], ready["metrics_url"], ready["grpc_address"]
        self.address = self.url.removeprefix("http://")

    @property
    def admin(self):
        return Api(self.url, (self.data / "admin.key").read_text().strip())

    def api(self, key):
        return Api(self.url, key)

    def tenant(self, name):
        """Creates a tenant; returns its API with an admin's key."""
        self.admin.expect("POST", "/admin/v1/tenants", {"name": name})
        return Api(self.url, self.admin.new_key(name)["key"])

    def status(self):
        return self.admin.expect("GET", "/admin/v1/status")

    def workers_of(self, data_owner):
        return [w for w in self.status()["workers"] if w["data_owner"] == data_owner and w["state"] == "ready"]

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(PATIENCE_S)

    def stop(self):
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.wait()
        self.process.stdout.close()
        self.log.close()


def until(condition):
    """Asks until it is so. Each question costs a request or a look, so this is no busy loop worth speaking of."""
    patience = threading.Event()
    timer = threading.Timer(PATIENCE_S, patience.set)
    timer.start()
    try:
        while not patience.is_set():
            value = condition()
            if value:
                return value
            patience.wait(0.01)
        raise AssertionError("it did not come to be so")
    finally:
        timer.cancel()


@pytest.fixture(scope="session")
def binary():
    return BINARY


@pytest.fixture
def new_server(tmp_path):
    """Starts servers of the test's own and stops them afterwards."""
    servers = []

    def start(config=""):
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(Server(folder, config))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for all tests that leave it as it is, with two tenants and a few models."""
    started = Server(tmp_path_factory.mktemp("shared"))
    yield started
    started.stop()


class World:
    """The shared server's tenants and models."""

    def __init__(self, server):
        self.server = server
        self.acme, self.globex = server.tenant("acme"), server.tenant("globex")
        self.platform = server.admin
        assert self.acme.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
        assert self.globex.push("globex", "secret", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
        magika = (MODELS / "magika/model.onnx").read_bytes()
        assert self.platform.push("platform", "file-type", magika)["state"] == "ready"
        self.platform.share("platform", "file-type")


@pytest.fixture(scope="session")
def world(server):
    return World(server)
