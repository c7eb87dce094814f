"""OpenAI's Python client against the demo's sentence model, and the bytes other clients would read."""

import base64
import json
import struct

import numpy as np
import openai
import pytest

from test_pipelines import studio  # noqa: F401 (a fixture)
from test_usage import records


@pytest.fixture
def client(studio):  # noqa: F811
    studio.has("sentences", "minilm/model.onnx", "minilm/tokenizer.json")
    with openai.OpenAI(base_url=f"{studio.server.url}/v1", api_key=studio.api.key, max_retries=0) as made:
        yield made


@pytest.mark.conformance(client="openai", call="models.list", covers="own and shared models")
@pytest.mark.conformance(client="openai", call="models.retrieve", covers="by name and by owner/name")
def test_models_are_listed_and_retrieved(client):
    listed = {model.id: model for model in client.models.list()}
    assert listed["sentences"].owned_by == "studio" and listed["sentences"].object == "model"
    assert client.models.retrieve("studio/sentences").created == listed["sentences"].created


@pytest.mark.conformance(client="openai", call="embeddings.create", covers="a list of texts, base64 and float, usage in tokens")
def test_embeddings_of_texts_are_those_of_the_v2_protocol(client, studio):  # noqa: F811
    texts = ["A cat sleeps on the sofa.", "Grüße aus München"]
    # The client asks for base64 unless told otherwise, and unpacks it.
    answer = client.embeddings.create(model="sentences", input=texts)
    expected = studio.infer("sentences", text=texts)
    np.testing.assert_array_equal(np.array([e.embedding for e in answer.data], dtype=np.float32), expected.as_numpy("embedding"))
    assert [e.index for e in answer.data] == [0, 1] and answer.model == "sentences"
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == expected.as_numpy("token_count").sum()
    floats = client.embeddings.create(model="sentences", input=texts, encoding_format="float")
    np.testing.assert_allclose([e.embedding for e in floats.data], [e.embedding for e in answer.data], rtol=1e-6)


def test_what_shorter_texts_are_filled_up_with_is_on_the_record(client, studio):  # noqa: F811
    asked = client.embeddings.with_raw_response
    long = "The same sentence again, and a second one, and yet another. " * 4
    requests = [asked.create(model="sentences", input=texts).headers["x-request-id"] for texts in [[long, "Short."], [long, long], [long]]]
    found = {record.get("request_id"): record for record in records(studio.api, "studio")}
    uneven, even, single = (found[request] for request in requests)
    assert even["padding_ns"] == single["padding_ns"] == 0 < even["compute_ns"]
    # Of two rows, one is nearly nothing but padding.
    assert 0.3 < uneven["padding_ns"] / (uneven["padding_ns"] + uneven["compute_ns"]) < 0.5


@pytest.mark.conformance(client="openai", call="embeddings.create", covers="token ids and lists of them")
def test_token_ids_mean_what_their_text_means(client):
    from tokenizers import Tokenizer

    from conftest import MODELS
    tokenizer = Tokenizer.from_file(str(MODELS / "minilm/tokenizer.json"))
    tokenizer.no_padding()
    text = "Water, at 20 °C, runs"
    # As they are without what a model puts around them.
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    of_text = client.embeddings.create(model="sentences", input=text)
    for tokens in [ids, [ids]]:
        of_ids = client.embeddings.create(model="sentences", input=tokens)
        np.testing.assert_allclose(of_ids.data[0].embedding, of_text.data[0].embedding, atol=1e-6)
        assert of_ids.usage == of_text.usage


@pytest.mark.conformance(client="openai", call="errors", covers="each status is the exception its users catch")
@pytest.mark.refusal(protocol="OpenAI", what="chat.completions, completions", answer="501",
                     reason="they come with the engine for language models")
def test_errors_are_the_clients_exceptions(client, studio):  # noqa: F811
    with pytest.raises(openai.NotFoundError) as missing:
        client.embeddings.create(model="nothing", input="hi")
    assert missing.value.code == "model_not_found" and missing.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nothing")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.embeddings.create(model="sentences", input="hi", dimensions=5000)
    assert wrong.value.param == "dimensions"
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="sentences", input=["hi", ""])
    stranger = openai.OpenAI(base_url=f"{studio.server.url}/v1", api_key="sk-not-a-real-key", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as unknown:
        stranger.models.list()
    assert unknown.value.code == "invalid_api_key" and unknown.value.request_id.startswith("req_")
    # It is not tried again: the engine is not there a moment later either.
    with pytest.raises(openai.InternalServerError) as absent:
        client.with_options(max_retries=5).chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert absent.value.status_code == 501 and "engine" in absent.value.message


@pytest.mark.conformance(client="openai", call="retries", covers="a refused request is sent again when it was told to be")
def test_a_rate_is_waited_for_by_the_client(studio):  # noqa: F811
    tenant = studio.server.tenant("hasty")
    settings = {"generation": 0, "settings": {"request_rate": {"per_second": 5, "burst": 1}}}
    studio.server.admin.expect("PUT", "/admin/v1/tenants/hasty/share", settings)
    with openai.OpenAI(base_url=f"{studio.server.url}/v1", api_key=tenant.key, max_retries=5) as patient:
        for _ in range(3):
            # Another tenant's, and so unknown; every try counts, and the client waits as long as it is told to.
            with pytest.raises(openai.NotFoundError) as missing:
                patient.embeddings.create(model="nothing", input="hi")
            assert missing.value.response.headers["x-ratelimit-limit-requests"] == "1"
    with openai.OpenAI(base_url=f"{studio.server.url}/v1", api_key=tenant.key, max_retries=0) as hasty:
        with pytest.raises(openai.RateLimitError) as refused:
            for _ in range(100):
                with pytest.raises(openai.NotFoundError):
                    hasty.embeddings.create(model="nothing", input="hi")
    headers = refused.value.response.headers
    assert refused.value.code == "rate_limit_exceeded" and refused.value.type == "requests"
    assert headers["x-should-retry"] == "true" and 0 < int(headers["retry-after-ms"]) <= 200
    assert headers["x-ratelimit-remaining-requests"] == "0" and headers["x-ratelimit-reset-requests"].endswith("ms")


@pytest.mark.conformance(client="curl", call="POST /openai/v1/embeddings", covers="KServe's prefix")
def test_kserves_prefix_and_plain_bytes(client, studio):  # noqa: F811
    body = {"model": "sentences", "input": "hi", "encoding_format": "base64", "user": "somebody"}
    reply = studio.api.call("POST", "/openai/v1/embeddings", body)
    assert reply.status == 200, reply.body
    packed = base64.b64decode(reply.json["data"][0]["embedding"])
    assert abs(sum(x * x for x in struct.unpack(f"<{len(packed) // 4}f", packed)) - 1) < 1e-3
    for header in ["x-request-id", "openai-processing-ms", "openai-version", "openai-organization"]:
        assert reply.headers[header], header
    broken = studio.api.call("POST", "/v1/embeddings", b"{", {"Content-Type": "application/json"})
    assert broken.status == 400 and set(json.loads(broken.body)["error"]) == {"message", "type", "param", "code"}
