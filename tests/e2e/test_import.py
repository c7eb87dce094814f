"""`tenantry model import`: folders of other servers become models that answer, and every setting is accounted for."""

import json
import os

import pytest

import tiny_onnx
from test_program import tenantry
from tiny_onnx import FLOAT, data, node, number

SUMS = """
name: "Sums" platform: "onnxruntime_onnx" max_batch_size: 8
input [ { name: "a" data_type: TYPE_FP32 dims: [ 3 ] }, { name: "b" data_type: TYPE_FP32 dims: [ 4 ] } ]
output { name: "sum" data_type: TYPE_FP64 dims: 3 }
output { name: "product" data_type: TYPE_FP32 dims: 3 }
version_policy { latest { num_versions: 2 } }
instance_group { count: 2 kind: KIND_GPU }
dynamic_batching { max_queue_delay_microseconds: 1500 }
response_cache { enable: true }
"""


# Its stages stand in the wrong order, and one names a version by its number there.
CHAIN = """
platform: "ensemble" max_batch_size: 8
input { name: "left" data_type: TYPE_FP32 dims: 3 }
input { name: "right" data_type: TYPE_FP32 dims: 3 }
output { name: "total" data_type: TYPE_FP32 dims: 3 }
ensemble_scheduling { step [
  { model_name: "Sums" model_version: -1 input_map { key: "a" value: "first" } input_map { key: "b" value: "right" }
    output_map { key: "sum" value: "total" } },
  { model_name: "Sums" model_version: 10 input_map { key: "a" value: "left" } input_map { key: "b" value: "right" }
    output_map { key: "sum" value: "first" } } ] }
"""


def with_weights_outside():
    """y = x + w, with w in the file weights/w.bin."""
    place = data(13, data(1, "location") + data(2, "weights/w.bin"))
    weights = number(1, 2) + number(2, FLOAT) + data(8, "w") + place + number(14, 1)
    return tiny_onnx.model([node("Add", ["x", "w"], ["y"])], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], [weights])


def write(place, files):
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


@pytest.fixture
def repository(tmp_path):
    identity, sums = tiny_onnx.identity(FLOAT), tiny_onnx.sum_and_difference()
    (tmp_path / "secret.onnx").write_bytes(identity)
    place = write(tmp_path / "repository", {
        "Sums/config.pbtxt": SUMS,
        "Sums/1/model.onnx": identity,
        "Sums/2/model.onnx": identity,
        "Sums/10/model.onnx": sums,
        "bare/3/model.onnx": with_weights_outside(),
        "bare/3/weights/w.bin": bytes.fromhex("0000803f00000040"),
        "engine/config.pbtxt": 'platform: "tensorrt_plan"',
        "engine/1/model.plan": "plan",
        "both/config.pbtxt": CHAIN,
        "both/1/.keep": "",
    })
    return place


def run(server, api, *arguments, **more):
    return tenantry("model", "import", *map(str, arguments), server=server.url, key=api.key, **more)


def settings(model):
    return {setting["setting"]: (setting["outcome"], setting["note"]) for setting in model["settings"]}


def test_a_repository_is_imported_answers_and_is_there_the_second_time(new_server, repository):
    server = new_server()
    acme = server.tenant("acme")
    report = json.loads(run(server, acme, repository, "--json"))
    models = {model["source"]: model for model in report["models"]}
    assert {name: model["outcome"] for name, model in models.items()} == {
        "Sums": "imported", "bare": "imported", "engine": "skipped", "both": "imported"}
    assert "tensorrt_plan" in models["engine"]["reason"]
    assert settings(models["both"])["ensemble_scheduling"][0] == "applied"
    assert settings(models["both"])["max_batch_size"] == ("ignored", "each stage has its own")

    sums = models["Sums"]
    assert [(v["source"], v["number"], v["outcome"]) for v in sums["versions"]] == [(2, 1, "created"), (10, 2, "created")]
    assert (sums["model"], sums["left_out"], sums["deployed"]) == ("acme/sums", [1], 2)
    became = settings(sums)
    assert became["max_batch_size"] == ("applied", "max_batch 8")
    assert became["dynamic_batching.max_queue_delay_microseconds"] == ("applied", "max_batch_delay_ms 2, rounded up")
    assert became["instance_group.kind"][0] == "ignored"
    assert became["input a"] == ("compared", "as the model has it")
    assert became["input b"] == ("differs", "the model has FP32[-1,3]")
    assert became["output sum"][0] == "differs" and "no such output" in became["output product"][1]
    assert became["output difference"][0] == "differs"
    deployment = acme.expect("GET", "/admin/v1/tenants/acme/models/sums/deployment")
    assert (deployment["version"], deployment["max_replicas"], deployment["cache_ttl_ms"]) == (2, 2, 3_600_000)
    version = acme.expect("GET", "/admin/v1/tenants/acme/models/sums/versions/2")
    assert version["settings"] == {"max_batch": 8, "max_batch_delay_ms": 2}
    assert version["tags"] == {"triton_version": "10", "imported_from": "triton"}

    def tensor(name, values):
        return {"name": name, "shape": [1, len(values)], "datatype": "FP32", "data": values}

    def answer(model, *inputs):
        reply = acme.infer(model, json.dumps({"inputs": inputs}).encode())
        assert reply.status == 200, reply.body
        return {output["name"]: output["data"] for output in reply.json["outputs"]}

    assert answer("sums", tensor("a", [1, 2, 3]), tensor("b", [4, 4, 4])) == {"sum": [5, 6, 7], "difference": [-3, -2, -1]}
    assert answer("bare", tensor("x", [10, 10])) == {"y": [11, 12]}, "with the weights from the file beside it"

    left, right = tensor("left", [1, 2, 3]), tensor("right", [10, 10, 10])
    assert answer("both", left, right) == {"total": [21, 22, 23]}

    again = {model["source"]: model for model in json.loads(run(server, acme, repository, "--json"))["models"]}
    assert {name: model["outcome"] for name, model in again.items()} == {
        "Sums": "exists", "bare": "exists", "engine": "skipped", "both": "exists"}
    assert [(v["number"], v["outcome"]) for v in again["Sums"]["versions"]] == [(1, "exists"), (2, "exists")]
    versions = acme.expect("GET", "/admin/v1/tenants/acme/models/sums/versions")["versions"]
    assert len(versions) == 2
    assert acme.expect("GET", "/admin/v1/tenants/acme/models/sums/deployment") == deployment
    # Other settings make another version of the same files.
    write(repository, {"Sums/config.pbtxt": SUMS.replace("max_batch_size: 8", "max_batch_size: 4")})
    [changed] = json.loads(run(server, acme, repository / "Sums", "--no-deploy", "--json"))["models"]
    assert [(v["number"], v["outcome"]) for v in changed["versions"]] == [(3, "created"), (4, "created")]
    assert "deployed" not in changed
    assert acme.expect("GET", "/admin/v1/tenants/acme/models/sums/deployment")["version"] == 2


def test_a_dry_run_asks_no_server_and_says_what_would_become_of_everything(repository):
    shown = tenantry("model", "import", str(repository), "--dry-run")
    assert "Sums (Triton) would be imported as sums" in shown and "engine (Triton) skipped" in shown, shown
    assert "version 10: 1 files" in shown and "not served there, so not imported: versions [1]" in shown
    assert "once it is registered" in shown
    report = json.loads(tenantry("model", "import", str(repository / "bare"), "--name", "else", "--dry-run", "--json"))
    [bare] = report["models"]
    assert report["dry_run"] and (bare["model"], bare["outcome"], bare["versions"][0]["files"]) == ("else", "planned", 2)


def test_labels_and_states_become_a_manifest(new_server, tmp_path):
    server = new_server()
    acme = server.tenant("acme")
    counter = tiny_onnx.model(
        [node("Add", ["x", "held"], ["y"]), node("Identity", ["y"], ["next"])],
        [("x", FLOAT, ["n", 2]), ("held", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2]), ("next", FLOAT, ["n", 2])])
    output = 'output { name: "y" data_type: TYPE_FP32 dims: 2 label_filename: "labels.txt" }'
    place = write(tmp_path / "repository", {
        "animal/config.pbtxt": 'platform: "onnxruntime_onnx" max_batch_size: 4 ' + output,
        "animal/labels.txt": "cat\ndog\n",
        "animal/1/model.onnx": tiny_onnx.identity(FLOAT),
        "counter/config.pbtxt": 'backend: "onnxruntime" max_batch_size: 1 sequence_batching { state {'
                                ' input_name: "held" output_name: "next" data_type: TYPE_FP32 dims: 2 } }',
        "counter/1/model.onnx": counter,
    })
    models = {model["source"]: model for model in json.loads(run(server, acme, place, "--json"))["models"]}
    assert settings(models["animal"])["output y.label_filename"][0] == "applied"
    assert settings(models["counter"])["sequence_batching.state held"][0] == "applied"

    def ask(model, values, **parameters):
        inputs = [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": values}]
        reply = acme.infer(model, json.dumps({"inputs": inputs, "parameters": parameters}).encode())
        assert reply.status == 200, reply.body
        return {output["name"]: output["data"] for output in reply.json["outputs"]}

    assert ask("animal", [0.25, 0.75]) == {"y": [0.25, 0.75], "y_label": ["dog"]}
    assert ask("counter", [1, 2], sequence_id=5, sequence_start=True) == {"y": [1, 2]}
    assert ask("counter", [1, 2], sequence_id=5) == {"y": [2, 4]}
    assert ask("counter", [1, 2]) == {"y": [1, 2]}, "of no sequence"


def test_what_cannot_be_imported_fails_and_hurts_nothing_else(new_server, repository):
    server = new_server()
    acme = server.tenant("acme")
    only = run(server, acme, repository / "engine", rc=1)
    assert "nothing could be imported" in only
    assert "there is no model acme/sums" in run(server, acme, repository / "both", rc=1)
    assert "--name names one" in run(server, acme, repository, "--name", "x", rc=1)
    assert "no folder of models" in run(server, acme, repository / "Sums" / "1", rc=1)
    write(repository, {"broken/1/model.onnx": b"no model", "syntax/config.pbtxt": "input {"})
    write(repository, {"outside/config.pbtxt": 'backend: "onnxruntime" default_model_filename: "../../../secret.onnx"'})
    write(repository, {"outside/1/model.onnx": tiny_onnx.identity(FLOAT)})
    (repository / "linked/1").mkdir(parents=True)
    os.symlink("../../../secret.onnx", repository / "linked/1/model.onnx")
    failed = run(server, acme, repository, rc=1)
    assert "3 of 8 models could not be imported" in failed
    models = {model["name"] for model in acme.expect("GET", "/admin/v1/tenants/acme/models")["models"]}
    assert {"sums", "bare"} <= models and not {"outside", "linked", "syntax"} & models
    assert "refused" in tenantry("model", "show", "broken", server=server.url, key=acme.key)
    # Somebody else's tenant is not there.
    assert "does not exist" in run(server, acme, repository / "bare", "--name", "platform/bare", rc=1)


def test_an_mlflow_model_is_imported(new_server, tmp_path):
    server = new_server()
    acme = server.tenant("acme")
    signature = json.dumps([{"name": "x", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}])
    place = write(tmp_path / "churn", {
        "MLmodel": f"flavors:\n  onnx:\n    data: model.onnx\n    onnx_session_options:\n      intra_op_num_threads: 1\n"
                   f"run_id: abc\nsignature:\n  inputs: '{signature}'\n",
        "model.onnx": tiny_onnx.identity(FLOAT),
        "conda.yaml": "name: x\n",
    })
    [model] = json.loads(run(server, acme, place, "--json"))["models"]
    assert (model["kind"], model["model"], model["outcome"], model["deployed"]) == ("mlflow", "acme/churn", "imported", 1)
    assert settings(model)["input x"] == ("compared", "as the model has it")
    version = acme.expect("GET", "/admin/v1/tenants/acme/models/churn/versions/1")
    assert version["settings"] == {"threads": 1} and version["tags"]["mlflow_run_id"] == "abc"
    assert [file["name"] for file in version["files"]] == ["model.onnx"]
