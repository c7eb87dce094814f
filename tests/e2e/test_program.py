"""The program `tenantry` as people use it."""

import json
import os
import re
import signal
import subprocess

import pytest

from conftest import BINARY, LIBRARY, MODELS, PATIENCE_S, ROOT
import tiny_onnx


def tenantry(*arguments, key=None, server=None, rc=0, **environment):
    command = [BINARY, *arguments] + (["--server", server] if server else []) + (["--key", key] if key else [])
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TENANTRY_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT,
                          env={**clean, **environment})
    assert done.returncode == rc, (command, done.stdout, done.stderr)
    return done.stdout if rc == 0 else done.stderr


def test_the_demo_answers_and_its_lines_can_be_pasted():
    with subprocess.Popen([BINARY, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as demo:
        try:
            lines = []
            for line in demo.stdout:
                lines.append(line.rstrip())
                if "runs until Ctrl-C" in line:
                    break
            text = "\n".join(lines)
            assert "Rust source" in text and "% safe" in text and "speech from 1.0 s" in text, text
            pasted = {}
            for about, line in zip(lines, lines[1:]):
                if line.startswith("curl"):
                    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE_S)
                    assert done.returncode == 0 and done.stdout, (line, done)
                    pasted[about.removeprefix("# ")] = done.stdout
            assert len(pasted) == 9
            for about, answer in pasted.items():
                assert ('"error"' in answer) == ("no such thing" in about), (about, answer)
            answer = lambda words: next(json.loads(text)["outputs"] for about, text in pasted.items() if words in about)
            assert answer("how safe")[0]["data"][0] == "safe" and answer("how safe")[1]["data"][0] > 0.9
            assert [round(second) for second in answer("somebody speaks")[0]["data"]] == [1, 2, 3, 4]
            assert answer("meaning of a sentence")[1]["shape"] == [1, 384]
            demo.send_signal(signal.SIGINT)
            assert demo.wait(PATIENCE_S) == 0
        finally:
            demo.kill()


def test_the_demo_gives_the_answers_the_models_give():
    answers = json.loads(tenantry("demo", "--once", "--json"))
    assert {a["file"]: a["label"] for a in answers["files"]} == {
        "demo.rs": "rust", "Cargo.toml": "toml", "totals.py": "python", "page.html": "html",
        "landscape.png": "png", "phrases.wav": "wav"}
    # The same sentences through the same model by the Python packages; the int8 kernels of processors differ a little.
    closest, farthest = answers["sentences"][0], answers["sentences"][-1]
    assert (closest["one"], closest["other"]) == ("A cat is sleeping on the sofa.", "A kitten naps on the couch.")
    assert abs(closest["closeness"] - CLOSEST) < 0.05 and farthest["closeness"] < 0.1
    assert answers["pictures"][0]["safe"] > 0.99
    [sound] = answers["sounds"]
    assert [[round(t) for t in segment] for segment in sound["speech"]] == [[1, 2], [3, 4]]
    assert answers["private"]["status"] == 404


CLOSEST = 0.74


def test_doctor_finds_what_is_there_and_says_how_to_get_what_is_not(tmp_path):
    report = json.loads(tenantry("doctor", "--json", TENANTRY_ONNXRUNTIME=str(LIBRARY)))
    assert report["ok"] and any("1.31.1" in check["detail"] for check in report["checks"])
    missing = subprocess.run([BINARY, "doctor", "--json"], capture_output=True, text=True, cwd=tmp_path,
                             env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    report = json.loads(missing.stdout)
    assert missing.returncode == 1 and "xtask fetch" in report["checks"][0]["hint"]


@pytest.mark.parametrize("what", ["cut off", "text", "another library"])
def test_a_wrong_library_is_a_clear_error(tmp_path, what):
    library = tmp_path / "libonnxruntime.so"
    if what == "cut off":
        library.write_bytes(LIBRARY.read_bytes()[:1_000_000])
    elif what == "text":
        library.write_text("not a library")
    else:
        library.symlink_to("/lib/x86_64-linux-gnu/libm.so.6")
    done = subprocess.run([BINARY, "doctor", "--json"], capture_output=True, text=True, timeout=PATIENCE_S, cwd=tmp_path,
                          env={"TENANTRY_ONNXRUNTIME": str(library), "PATH": os.environ["PATH"]})
    report = json.loads(done.stdout)
    [worker] = [check for check in report["checks"] if check["name"] == "worker"]
    assert done.returncode == 1 and worker["state"] == "failed"
    assert "panicked" not in done.stdout + done.stderr
    assert re.search("truncated|ELF|too short|not an? |library", worker["detail"]), worker


def test_a_model_from_push_to_removal(server, tmp_path):
    admin = server.admin.key
    run = lambda *arguments, **more: tenantry(*arguments, server=server.url, key=admin, **more)
    run("tenant", "create", "initech")
    key = run("key", "create", "initech", "--role", "admin", "--label", "ci", "--expires", "90d").strip()
    own = lambda *arguments, **more: tenantry(*arguments, server=server.url, key=key, **more)
    path = tmp_path / "sums.onnx"
    path.write_bytes(tiny_onnx.sum_and_difference())
    pushed = json.loads(own("model", "push", "sums", str(path), "--tag", "team=maths", "--quality", "accuracy=0.98",
                            "--about", "adds and subtracts", "--json"))
    assert pushed["state"] == "ready" and pushed["tags"] == {"team": "maths"} and pushed["quality"] == {"accuracy": 0.98}
    assert "adds and subtracts" in own("model", "list", "--search", "adds")
    shown = own("model", "show", "sums")
    assert "initech/sums version 1 (ready, deployed)" in shown and "a FP32 [n, 3]" in shown and "ONNX Runtime" in shown
    assert "1.5" in own("infer", "sums", "--input", "a=[[1,2,3]]", "--input", "b=[[0.5,0,0]]", "--output", "sum")
    raw = tmp_path / "a.f32"
    raw.write_bytes(b"\0" * 24)
    answer = own("infer", "sums", "--input", f"a=@{raw}", "--input", f"b=@{raw}", "--json")
    assert json.loads(answer)["outputs"][0]["shape"] == [2, 3]
    request = tmp_path / "request.json"
    request.write_text(answer.replace('"sum"', '"a"').replace('"difference"', '"b"').replace("outputs", "inputs"))
    assert "[2,3]" in own("infer", "sums", "--request", str(request))
    own("model", "alias", "sums", "stable", "1")
    assert "version 1" in own("infer", "sums", "--version", "stable", "--input", f"a=@{raw}", "--input", f"b=@{raw}")
    own("model", "alias", "sums", "stable", "--remove")
    assert "version 1, 1 to 2 replicas" in own("model", "deploy", "sums", "1", "--min-replicas", "1", "--max-replicas", "2")
    assert "every tenant" in own("model", "share", "sums")
    assert "--yes" in own("model", "rm", "sums", rc=1)
    own("model", "rm", "sums", "--yes")
    assert "does not exist" in own("model", "show", "sums", rc=1)
    assert "role" in own("tenant", "create", "other", rc=1)
    assert "ready" in run("status")
    run("tenant", "rm", "initech", "--yes")
    assert "401" in own("model", "list", rc=1) or "key" in own("model", "list", rc=1)


def test_mistakes_say_what_to_do_next(server):
    assert "tenantry serve" in tenantry("tenant", "list", server="http://127.0.0.1:9", rc=1)
    assert "TENANTRY_KEY" in tenantry("tenant", "list", server=server.url, rc=1)
    assert "not accepted" in tenantry("tenant", "list", server=server.url, key="x", rc=1)
    assert "cannot read" in tenantry("model", "push", "platform/m", "/no/such/file", server=server.url, key=server.admin.key, rc=1)


def test_the_reference_of_the_configuration_is_current():
    assert tenantry("config", "reference") == (ROOT / "docs/configuration.md").read_text()
