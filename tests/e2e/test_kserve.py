"""KServe's own Python client, both protocols over HTTP and gRPC."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SUMS = {"sum": [[0.5, 1.5, 2.5], [3.5, 4.5, 5.5]], "difference": [[-0.5, 0.5, 1.5], [2.5, 3.5, 4.5]]}


@pytest.mark.conformance(client="kserve", call="InferenceRESTClient, v1", covers="liveness, model readiness, infer")
@pytest.mark.conformance(client="kserve", call="InferenceRESTClient, v2", covers="liveness, readiness, infer as JSON and binary")
@pytest.mark.conformance(client="kserve", call="InferenceGRPCClient", covers="liveness, readiness, infer with typed and raw contents")
def test_every_call_of_kserves_client(world):
    calls = Path(__file__).with_name("kserve_calls.py")
    command = [sys.executable, calls, world.server.url, world.server.grpc_address, world.acme.key]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = {line.pop("call"): line for line in map(json.loads, done.stdout.splitlines())}
    refused = {"v2 infer with a wrong key": 401, "grpc infer without a key": "UNAUTHENTICATED"}
    for call, status in refused.items():
        answer = seen.pop(call)
        assert answer["status"] == status and "missing or invalid key" in answer["text"], answer
    assert {call: line["answer"] for call, line in seen.items()} == {
        "v1 is_server_live": True, "v1 is_model_ready": True,
        "v1 infer": {"predictions": [{"sum": [2, 3, 4], "difference": [0, 1, 2]}]},
        "v2 is_server_live": True, "v2 is_server_ready": True,
        "v2 is_model_ready": True, "v2 is_model_ready of none": False,
        "v2 infer": SUMS, "v2 infer binary": SUMS,
        "grpc is_server_live": True, "grpc is_server_ready": True, "grpc is_model_ready": True,
        "grpc infer": SUMS, "grpc infer binary": SUMS,
    }
