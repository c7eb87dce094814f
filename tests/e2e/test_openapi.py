"""Both OpenAPI documents against the real server: whatever fits them is answered as they say (schemathesis)."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

import tiny_onnx
from conftest import Server

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
# The same calls in every run; what has been found is a test of its own by then.
EXAMPLES = settings(max_examples=15, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck))


class Playground:
    """A server that may be left in any state, with names for the documents' parameters that name something."""

    def __init__(self, server):
        self.server, self.api = server, server.tenant("acme")
        assert self.api.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
        self.headers = {"Authorization": f"Bearer {self.api.key}"}

    def schema(self, path):
        loaded = schemathesis.openapi.from_dict(self.api.expect("GET", path))
        loaded.config.update(base_url=self.server.url)
        return loaded


@pytest.fixture(scope="session")
def playground(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("playground"))
    yield Playground(server)
    server.stop()


@pytest.fixture(scope="session")
def inference(playground):
    return playground.schema("/v2/openapi.json")


@pytest.fixture(scope="session")
def admin(playground):
    return playground.schema("/admin/v1/openapi.json")


def call(case, playground):
    # Half of the calls are for what is there.
    known = {"model": "sums", "version": "1", "tenant": "acme", "owner": "acme", "number": 1}
    if case.meta is None or case.meta.generation.time * 1e9 % 2 < 1:
        case.path_parameters = {**(case.path_parameters or {}), **{k: v for k, v in known.items() if k in (case.path_parameters or {})}}
    response = case.call(headers=playground.headers)
    # What is not there says so; what is broken would be another 5xx.
    assert response.status_code < 500 or response.status_code == 501, response.text
    case.validate_response(response, checks=CHECKS)


@schemathesis.pytest.from_fixture("inference").parametrize()
@EXAMPLES
def test_inference_answers_as_its_document_says(case, playground):
    call(case, playground)


@schemathesis.pytest.from_fixture("admin").parametrize()
@EXAMPLES
def test_admin_answers_as_its_document_says(case, playground):
    call(case, playground)
