"""Both OpenAPI documents against the real server: whatever fits them is answered as they say (schemathesis)."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

import tiny_onnx
from conftest import ROOT, Server

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
# The same calls in every run; what has been found is a test of its own by then.
EXAMPLES = settings(max_examples=20, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck))


def operations(name):
    document = schemathesis.openapi.from_path(ROOT / "docs" / name)
    found = [result.ok() for result in document.get_all_operations()]
    # The document itself is documented as a text.
    return [pytest.param(call, id=call.label) for call in found if not call.label.endswith("openapi.json")]


class Playground:
    """A server that may be left in any state, and names for the documents' parameters that name something there."""

    known = {"tenant": "acme", "owner": "acme", "model": "sums", "version": "1", "number": 1, "alias": "best", "label": "best"}

    def __init__(self, server):
        self.server = server
        api = server.tenant("acme")
        assert api.push("acme", "sums", tiny_onnx.sum_and_difference())["state"] == "ready"
        api.expect("PUT", "/admin/v1/tenants/acme/models/sums/aliases/best", {"version": 1})

    def check(self, case, key):
        # Names made up by chance are mostly nobody's; every second call is for what is there.
        if len(str(case.body)) % 2:
            given_names = case.path_parameters or {}
            case.path_parameters = {name: self.known.get(name, value) for name, value in given_names.items()}
        response = case.call(base_url=self.server.url, headers={"Authorization": f"Bearer {key}"})
        # What is not there says so; another 5xx is something broken.
        assert response.status_code < 500 or response.status_code == 501, (case.as_curl_command(), response.text)
        case.validate_response(response, checks=CHECKS)


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("playground"))
    yield Playground(server)
    server.stop()


@pytest.mark.parametrize("operation", operations("openapi-inference.json"))
def test_inference_answers_as_its_document_says(operation, playground):
    key = playground.server.admin.new_key("acme", "invoker")["key"]

    @EXAMPLES
    @given(case=operation.as_strategy())
    def answers(case):
        playground.check(case, key)

    answers()


@pytest.mark.parametrize("operation", operations("openapi.json"))
def test_admin_answers_as_its_document_says(operation, playground):
    # A key of the platform's that may go with what is done here; the tenant is made anew if it did.
    if playground.server.admin.get("/admin/v1/tenants/acme").status == 404:
        playground.__init__(playground.server)

    @EXAMPLES
    @given(case=operation.as_strategy())
    def answers(case):
        playground.check(case, playground.server.admin.key)

    answers()
