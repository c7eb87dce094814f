"""Encryption in transit on the real server, as OpenSSL, curl, tritonclient and our own client see it."""

import json
import os
import signal
import ssl
import subprocess

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import tiny_onnx
from conftest import BINARY, LIBRARY, PATIENCE_S, until
from test_program import tenantry


def openssl(*arguments, rc=0):
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, errors="replace",
                          timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
    assert rc is None or done.returncode == rc, done.stderr
    return done.stdout + done.stderr


class Authority:
    """Signs certificates for this machine."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.certificate, self.key = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.certificate)

    def sign(self, name, alternative="IP:127.0.0.1"):
        certificate, key, request, extensions = (str(self.folder / f"{name}.{end}") for end in ("crt", "key", "csr", "ext"))
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", key, "-out", request)
        with open(extensions, "w", encoding="ascii") as file:
            file.write(f"subjectAltName={alternative}\n")
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial", "-days", "2",
                "-extfile", extensions, "-out", certificate)
        return certificate, key


@pytest.fixture
def authority(tmp_path, monkeypatch):
    made = Authority(tmp_path, "authority")
    # Python's own client, which the other helpers use, trusts it, too.
    monkeypatch.setenv("SSL_CERT_FILE", made.certificate)
    return made


def table(pair, **more):
    keys = {"certificate": pair[0], "key": pair[1], **more}
    return "[http.tls]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


def address(server):
    return server.url.removeprefix("https://")


def s_client(where, authority, *arguments, rc=0):
    return openssl("s_client", "-connect", where, "-CAfile", authority.certificate, "-verify_return_error", *arguments, rc=rc)


def curl(*arguments):
    return subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=PATIENCE_S)


def test_everybodys_clients_speak_to_it_encrypted(new_server, authority):
    server = new_server(table(authority.sign("server")))
    assert server.url.startswith("https://") and server.metrics_url.startswith("http://")
    for where in (address(server), server.grpc_address):
        for option, version in (("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")):
            said = s_client(where, authority, option)
            assert f"New, {version}" in said and "Verify return code: 0 (ok)" in said, said
        # The lowest level of security, or OpenSSL itself would refuse.
        for option in ("-tls1", "-tls1_1"):
            said = s_client(where, authority, option, "-cipher", "ALL:@SECLEVEL=0", rc=1)
            # It is the server that refuses.
            assert "SSL alert number" in said and "Cipher is (NONE)" in said, said
    assert "ALPN protocol: h2" in s_client(server.grpc_address, authority, "-alpn", "h2")
    for asked, spoken in (("h2,http/1.1", "h2"), ("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")):
        assert f"ALPN protocol: {spoken}" in s_client(address(server), authority, "-alpn", asked)

    ready = f"{server.url}/v2/health/ready"
    assert curl("--cacert", authority.certificate, ready).stdout == '{"ready":true}'
    assert curl("--cacert", "/dev/null", ready).returncode in (60, 77)
    assert curl(ready.replace("https", "http")).returncode != 0

    acme = server.tenant("acme")
    assert acme.push("acme", "sums", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    headers = {"authorization": f"Bearer {acme.key}"}
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    with tritonclient.grpc.InferenceServerClient(
            server.grpc_address, ssl=True, root_certificates=authority.certificate) as client:
        metadata = client.get_model_metadata("sums", headers=headers)
        given = tritonclient.grpc.InferInput(metadata.inputs[0].name, [3, 2], "FP32")
        given.set_data_from_numpy(values)
        answer = client.infer("sums", [given], headers=headers)
        assert np.array_equal(answer.as_numpy(metadata.outputs[0].name), values)
    with tritonclient.http.InferenceServerClient(
            address(server), ssl=True, ssl_options={"ca_certs": authority.certificate}) as client:
        given = tritonclient.http.InferInput(metadata.inputs[0].name, [3, 2], "FP32")
        given.set_data_from_numpy(values)
        answer = client.infer("sums", [given], headers=headers)
        assert np.array_equal(answer.as_numpy(metadata.outputs[0].name), values)

    assert "acme" in tenantry("tenant", "list", "--ca", authority.certificate, key=acme.key, server=server.url)
    assert "acme" in tenantry("tenant", "list", key=acme.key, server=server.url, TENANTRY_CA=authority.certificate)
    assert "--ca" in tenantry("tenant", "list", key=acme.key, server=server.url, rc=1)


def test_http_2_is_spoken_with_clients_that_do(new_server, authority, tmp_path):
    server = new_server(table(authority.sign("server")))
    acme = server.tenant("acme")
    key = ("-H", f"authorization: Bearer {acme.key}")

    def spoken(*arguments, path):
        """Which HTTP it was, the status, and what was answered."""
        done = curl("--cacert", authority.certificate, "-w", "\n%{http_version} %{http_code}", *arguments, server.url + path)
        assert done.returncode == 0, done
        answer, _, end = done.stdout.rpartition("\n")
        return (*end.split(), answer)

    assert spoken("--http2", path="/v2/health/ready") == ("2", "200", '{"ready":true}')
    assert spoken("--http1.1", path="/v2/health/ready") == ("1.1", "200", '{"ready":true}')
    version, status, head = spoken("--http2", "--head", path="/v2/health/ready")
    assert (version, status) == ("2", "200") and "content-length: 14" in head, head

    # What is refused before its body has come is told so, and does not have to be sent.
    large = tmp_path / "large"
    large.write_bytes(bytes(16 << 20))
    for wrong in ((), ("-H", "authorization: Bearer tnty_wrong")):
        version, status, refused = spoken("--http2", *wrong, "--data-binary", f"@{large}", path="/v2/models/sums/infer")
        assert (version, status) == ("2", "401") and "unauthenticated" in refused, refused
    large.write_bytes(bytes(65 << 20))
    version, status, refused = spoken("--http2", *key, "--data-binary", f"@{large}", path="/v2/models/sums/infer")
    assert (version, status) == ("2", "413") and "too_large" in refused, refused

    # A model goes up, its answer comes down: some MiB each way.
    model = tmp_path / "model.onnx"
    model.write_bytes(tiny_onnx.identity(tiny_onnx.FLOAT))
    uploaded = spoken("--http2", *key, "--data-binary", f"@{model}",
                      path="/admin/v1/tenants/acme/artefacts?filename=model.onnx")
    assert uploaded[:2] == ("2", "201"), uploaded
    assert acme.push("acme", "sums", model.read_bytes())["state"] == "ready"
    name = json.loads(spoken("--http2", *key, path="/v2/models/sums")[2])["inputs"][0]["name"]
    values = np.arange(1 << 20, dtype=np.float32).reshape(-1, 2)
    asked = json.dumps({"inputs": [{"name": name, "shape": list(values.shape), "datatype": "FP32",
                                    "parameters": {"binary_data_size": values.nbytes}}],
                        "parameters": {"binary_data_output": True}}).encode()
    body, answer, headers = tmp_path / "body", tmp_path / "answer", tmp_path / "headers"
    body.write_bytes(asked + values.tobytes())
    version, status, _ = spoken("--http2", *key, "-H", f"inference-header-content-length: {len(asked)}", "-D", headers,
                                "-o", answer, "--data-binary", f"@{body}", path="/v2/models/sums/infer")
    assert (version, status) == ("2", "200"), answer.read_bytes()[:500]
    length = dict(line.split(": ") for line in headers.read_text().splitlines() if ": " in line)
    data = answer.read_bytes()[int(length["inference-header-content-length"]):]
    assert np.array_equal(np.frombuffer(data, np.float32), values.ravel())


def test_http_2_in_plain_text_needs_a_client_that_knows(world):
    url = f"{world.server.url}/v2/health/ready"
    for option, version in (("--http2-prior-knowledge", "2"), ("--http2", "1.1"), ("--http1.1", "1.1")):
        done = curl(option, "-w", " %{http_version}", url)
        assert done.stdout == f'{{"ready":true}} {version}', done
    assert curl("--http2-prior-knowledge", f"{world.server.metrics_url}/metrics").returncode != 0


def test_a_certificate_is_exchanged_while_the_server_runs(new_server, authority):
    certificate, key = authority.sign("server")
    server = new_server(table((certificate, key)))
    host, port = address(server).split(":")

    def served():
        return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))

    def der(path):
        with open(path, encoding="ascii") as file:
            return ssl.PEM_cert_to_DER_cert(file.read())

    first = der(certificate)
    assert served() == first
    # In place, under a new key.
    authority.sign("server")
    assert der(certificate) != first
    server.signal(signal.SIGHUP)
    until(lambda: served() == der(certificate))
    second = der(certificate)
    os.truncate(certificate, 10)
    server.signal(signal.SIGHUP)
    until(lambda: "stays in force" in (server.folder / "server.log").read_text())
    assert served() == second and server.admin.get("/v2/health/ready").status == 200


def test_clients_show_a_certificate_where_it_is_required(new_server, authority, tmp_path):
    clients = Authority(tmp_path, "clients")
    pair = authority.sign("server")
    shown, key = clients.sign("batch", "URI:spiffe://example.org/batch")
    server = new_server(table(pair, client_ca=clients.certificate, client_auth="required"))
    tenants, trust = f"{server.url}/admin/v1/tenants", ("--cacert", authority.certificate)
    assert curl(*trust, tenants).returncode != 0
    stranger = authority.sign("stranger")
    assert curl(*trust, "--cert", stranger[0], "--key", stranger[1], tenants).returncode != 0
    # It comes on top of the key.
    for version in ("--http2", "--http1.1"):
        assert '"unauthenticated"' in curl(*trust, version, "--cert", shown, "--key", key, tenants).stdout
    admin = (server.data / "admin.key").read_text().strip()
    made = curl(*trust, "--cert", shown, "--key", key, "-H", f"Authorization: Bearer {admin}", "-d", '{"name": "acme"}', tenants)
    assert '"acme"' in made.stdout, made
    fingerprint = openssl("x509", "-in", shown, "-noout", "-fingerprint", "-sha256").split("=")[1].strip()
    assert fingerprint.replace(":", "").lower() in (server.folder / "server.log").read_text()


def test_plain_text_is_for_this_machine_unless_asked_for(tmp_path):
    def serve(*arguments):
        command = [BINARY, "serve", "--data-dir", tmp_path / "data", "--listen", "0.0.0.0:0", "--grpc-listen", "127.0.0.1:0",
                   "--metrics-listen", "127.0.0.1:0", *arguments]
        environment = {**os.environ, "TENANTRY_ONNXRUNTIME": str(LIBRARY), "ORT_DISABLE_TELEMETRY": "1"}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)

    with serve() as refused:
        said = refused.communicate(timeout=PATIENCE_S)[1]
    assert refused.returncode == 1 and "plain text" in said and "http.plain_text = true" in said, said
    with serve("--plain-text") as allowed:
        assert '"ready":true' in allowed.stdout.readline()
        allowed.terminate()
        said = allowed.communicate(timeout=PATIENCE_S)[1]
    assert allowed.returncode == 0 and "PLAIN TEXT" in said, said
