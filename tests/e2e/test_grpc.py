"""The gRPC edge as its public clients speak it: tritonclient (blocking, asyncio and streams), and gRPC's standard services."""

import asyncio
import queue
import urllib.request

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import hostile_onnx
import tiny_onnx
from conftest import PATIENCE_S, until
from test_conformance import DATATYPES

CLIENT, AIO = "tritonclient.grpc", "tritonclient.grpc.aio"


@pytest.fixture
def client(world):
    with triton.InferenceServerClient(world.server.grpc_address) as client:
        yield client


@pytest.fixture
def headers(world):
    return bearer(world.acme.key)


@pytest.fixture
def stub(world):
    with grpc.insecure_channel(world.server.grpc_address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def tensor(name, values, datatype):
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def sums(shift=0):
    a = np.arange(6, dtype=np.float32).reshape(2, 3) + shift
    b = np.full((2, 3), 0.5, dtype=np.float32)
    return a, b, [tensor("a", a, "FP32"), tensor("b", b, "FP32")]


def refused(call):
    with pytest.raises((InferenceServerException, grpc.RpcError)) as error:
        call()
    return error.value


@pytest.mark.conformance(client=CLIENT, call="is_server_live, is_server_ready", covers="without a key")
@pytest.mark.conformance(client=CLIENT, call="is_model_ready", covers="one's own model, another tenant's")
@pytest.mark.conformance(client=CLIENT, call="get_server_metadata", covers="name and extensions")
@pytest.mark.conformance(client=CLIENT, call="get_model_metadata", covers="versions, inputs, outputs, open dimensions")
def test_health_and_metadata(client, headers):
    assert client.is_server_live() and client.is_server_ready()
    server = client.get_server_metadata(headers=headers)
    assert server.name == "tenantry" and "statistics" in server.extensions
    assert client.is_model_ready("sums", headers=headers)
    model = client.get_model_metadata("sums", headers=headers, as_json=True)
    assert model["name"] == "sums" and model["versions"] == ["1"] and model["platform"] == "onnxruntime_onnx"
    assert model["inputs"][0] == {"name": "a", "datatype": "FP32", "shape": ["-1", "3"]}
    assert [output["name"] for output in model["outputs"]] == ["sum", "difference"]
    missing = refused(lambda: client.is_model_ready("globex/secret", headers=headers))
    assert missing.status() == "StatusCode.NOT_FOUND"


@pytest.mark.conformance(client=CLIENT, call="infer", covers="outputs by name and order, id")
def test_outputs_are_selected_and_ordered_and_the_id_is_echoed(client, headers):
    a, b, inputs = sums()
    outputs = [triton.InferRequestedOutput(name) for name in ["difference", "sum"]]
    result = client.infer("sums", inputs, outputs=outputs, request_id="mine-7", headers=headers)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(result.as_numpy("difference"), a - b)
    assert [output.name for output in result.get_response().outputs] == ["difference", "sum"]
    assert result.get_response().id == "mine-7"


@pytest.mark.conformance(client=CLIENT, call="infer", covers="messages compressed with gzip and deflate")
@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_messages(client, headers, algorithm):
    a, b, inputs = sums()
    result = client.infer("sums", inputs, headers=headers, compression_algorithm=algorithm)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


@pytest.mark.conformance(client=CLIENT, call="infer", covers="every number type, extremes included")
@pytest.mark.parametrize("name,onnx,numpy", DATATYPES)
def test_every_number_comes_back_as_it_went(world, client, headers, name, onnx, numpy):
    model = f"grpc-identity-{name.lower()}"
    assert world.acme.push("acme", model, tiny_onnx.identity(onnx))["state"] == "ready"
    limits = None if name == "BOOL" else np.finfo(numpy) if name.startswith("FP") else np.iinfo(numpy)
    x = np.array([[0, 1], [limits.min if limits else 1, limits.max if limits else 0]], dtype=numpy)
    result = client.infer(model, [tensor("x", x, name)], headers=headers)
    np.testing.assert_array_equal(result.as_numpy("y"), x)


@pytest.mark.conformance(client=CLIENT, call="infer", covers="byte strings")
def test_byte_strings(world, client, headers):
    assert world.acme.push("acme", "grpc-identity-bytes", tiny_onnx.identity(tiny_onnx.STRING))["state"] == "ready"
    x = np.array([["", "a"], ["ünïcödé", "x" * 5000]], dtype=object)
    result = client.infer("grpc-identity-bytes", [tensor("x", x, "BYTES")], headers=headers)
    assert [value.decode() for value in result.as_numpy("y").flatten()] == list(x.flatten())


@pytest.mark.conformance(client=CLIENT, call="infer", covers="versions, aliases, another tenant's shared model")
def test_versions_aliases_and_shared_models(world, client, headers):
    acme = world.acme
    for number in [1, 2]:
        model = tiny_onnx.identity(tiny_onnx.FLOAT)
        assert acme.push("acme", "grpc-numbered", model, deploy=number == 1)["number"] == number
    acme.expect("PUT", "/admin/v1/tenants/acme/models/grpc-numbered/aliases/next", {"version": 2})
    x = np.ones((1, 2), dtype=np.float32)
    answered = {}
    for version in ["", "1", "2", "next"]:
        result = client.infer("grpc-numbered", [tensor("x", x, "FP32")], model_version=version, headers=headers)
        answered[version] = result.get_response().model_version
    assert answered == {"": "1", "1": "1", "2": "2", "next": "2"}
    tokens = np.full((1, 2048), 256, dtype=np.int32)
    result = client.infer("platform/file-type", [tensor("bytes", tokens, "INT32")], headers=headers)
    scores = result.as_numpy("target_label")
    assert scores.shape == (1, 214) and abs(scores.sum() - 1.0) < 1e-3


@pytest.mark.conformance(client=CLIENT, call="infer", covers="parameters of every kind")
def test_parameters_of_every_kind_are_taken(client, headers):
    a, b, inputs = sums()
    parameters = {"a bool": True, "an int": -3, "a text": "ü", "a number": 0.5}
    result = client.infer("sums", inputs, headers=headers, parameters=parameters, timeout=60_000_000)
    np.testing.assert_array_equal(result.as_numpy("sum"), a + b)


@pytest.mark.conformance(client=CLIENT, call="infer", covers="tensors of 8 MB")
def test_large_tensors(world, client, headers):
    assert world.acme.push("acme", "grpc-identity-large", tiny_onnx.identity(tiny_onnx.FLOAT))["state"] == "ready"
    x = np.random.default_rng(1).random((1 << 20, 2), dtype=np.float32)
    result = client.infer("grpc-identity-large", [tensor("x", x, "FP32")], headers=headers)
    np.testing.assert_array_equal(result.as_numpy("y"), x)


@pytest.mark.conformance(client=CLIENT, call="get_inference_statistics", covers="the caller's own requests only")
def test_statistics_are_the_callers_own(world, client):
    tokens = tensor("bytes", np.full((1, 2048), 256, dtype=np.int32), "INT32")
    counts = []
    for tenant in ["hooli", "umbrella"]:
        key = bearer(world.server.tenant(tenant).key)
        for _ in range(3):
            client.infer("platform/file-type", [tokens], headers=key)
        [counted] = client.get_inference_statistics("platform/file-type", headers=key).model_stats
        counts.append((counted.inference_count, counted.execution_count, counted.inference_stats.success.count))
        assert counted.inference_stats.compute_infer.ns > 0 and counted.batch_stats[0].batch_size == 1
        names = {model.name for model in client.get_inference_statistics(headers=key).model_stats}
        assert "secret" not in "".join(names) and "platform/file-type" in names
    assert counts == [(3, 3, 3)] * 2


@pytest.mark.conformance(client=CLIENT, call="async_infer", covers="answers by callback")
def test_answers_by_callback(client, headers):
    answers = queue.Queue()
    wanted = {}
    for shift in range(8):
        a, b, inputs = sums(shift)
        wanted[str(shift)] = a + b
        client.async_infer("sums", inputs, lambda result, error: answers.put((result, error)), headers=headers,
                           request_id=str(shift))
    for _ in range(8):
        result, error = answers.get(timeout=PATIENCE_S)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("sum"), wanted.pop(result.get_response().id))
    assert not wanted


@pytest.mark.conformance(client=CLIENT, call="async_infer(...).cancel", covers="the run ends, the slot is free")
def test_a_cancelled_call_ends_its_run(world, client):
    slow = world.server.tenant("slow")
    assert slow.push("slow", "count", hostile_onnx.counting_loop())["state"] == "ready"
    answers = queue.Queue()
    for_ever = tensor("count", np.array(2 ** 62, dtype=np.int64), "INT64")
    context = client.async_infer("count", [for_ever], lambda result, error: answers.put((result, error)),
                                 headers=bearer(slow.key))
    until(lambda: world.server.status()["running_batches"])
    context.cancel()
    _, error = answers.get(timeout=PATIENCE_S)
    assert error.status() == "StatusCode.CANCELLED"
    cancelled = 'tenantry_requests_total{tenant="slow",model="slow/count",code="cancelled"}'
    until(lambda: metric(world, cancelled) == 1)
    few = tensor("count", np.array(5, dtype=np.int64), "INT64")
    assert client.infer("count", [few], headers=bearer(slow.key)).as_numpy("total") == 5


@pytest.mark.conformance(client=CLIENT, call="infer", covers="client_timeout as the request's deadline")
def test_a_calls_deadline_is_the_requests(world, client):
    late = world.server.tenant("late")
    assert late.push("late", "count", hostile_onnx.counting_loop())["state"] == "ready"
    for_ever = tensor("count", np.array(2 ** 62, dtype=np.int64), "INT64")
    error = refused(lambda: client.infer("count", [for_ever], headers=bearer(late.key), client_timeout=0.5))
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED"
    # Whichever of the two clocks is first, the run ends.
    ended = ['tenantry_requests_total{tenant="late",model="late/count",code="%s"}' % code
             for code in ["deadline_exceeded", "cancelled"]]
    until(lambda: sum(metric(world, line) for line in ended) == 1)


def metric(world, line):
    with urllib.request.urlopen(world.server.metrics_url) as response:
        lines = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if not line.startswith("#"))
    return float(lines.get(line, 0))


@pytest.mark.conformance(client=CLIENT, call="async_stream_infer", covers="order, errors between answers, the final flag")
def test_a_stream_answers_in_order_and_survives_errors(client, headers):
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
    for number in range(20):
        _, _, inputs = sums(number)
        client.async_stream_infer("no-such-model" if number == 7 else "sums", inputs, request_id=str(number),
                                  enable_empty_final_response=number % 2 == 0)
    for number in range(20):
        result, error = answers.get(timeout=PATIENCE_S)
        if number == 7:
            assert result is None and "no-such-model" in error.message()
            continue
        assert error is None and result.get_response().id == str(number)
        a, b, _ = sums(number)
        np.testing.assert_array_equal(result.as_numpy("sum"), a + b)
        said = result.get_response().parameters.get("triton_final_response")
        assert (said is not None and said.bool_param) == (number % 2 == 0)
    client.stop_stream()


@pytest.mark.conformance(client=CLIENT, call="stop_stream", covers="with cancel_requests, while a request runs")
def test_a_stream_that_is_dropped_ends_what_runs(world, client):
    gone = world.server.tenant("gone")
    assert gone.push("gone", "count", hostile_onnx.counting_loop())["state"] == "ready"
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), headers=bearer(gone.key))
    client.async_stream_infer("count", [tensor("count", np.array(2 ** 62, dtype=np.int64), "INT64")])
    until(lambda: world.server.status()["running_batches"])
    client.stop_stream(cancel_requests=True)
    cancelled = 'tenantry_requests_total{tenant="gone",model="gone/count",code="cancelled"}'
    until(lambda: metric(world, cancelled) == 1)


@pytest.mark.conformance(client=AIO, call="infer", covers="many at a time on one channel")
@pytest.mark.conformance(client=AIO, call="get_model_metadata, is_model_ready", covers="one's own model")
@pytest.mark.conformance(client=AIO, call="stream_infer", covers="requests from an iterator")
def test_asyncio(world, headers):
    async def go():
        async with triton_aio.InferenceServerClient(world.server.grpc_address) as client:
            assert await client.is_model_ready("sums", headers=headers)
            assert (await client.get_model_metadata("sums", headers=headers)).platform == "onnxruntime_onnx"
            asked = [sums(shift) for shift in range(50)]
            results = await asyncio.gather(*(client.infer("sums", inputs, headers=headers) for _, _, inputs in asked))
            for (a, b, _), result in zip(asked, results):
                np.testing.assert_array_equal(result.as_numpy("sum"), a + b)

            async def requests():
                for number, (_, _, inputs) in enumerate(asked):
                    yield {"model_name": "sums", "inputs": inputs, "request_id": str(number)}

            number = 0
            async for result, error in client.stream_infer(requests(), headers=headers):
                assert error is None and result.get_response().id == str(number)
                number += 1
            assert number == len(asked)

    asyncio.run(go())


def typed(datatype, field, values, shape=(1, 2), model="secret"):
    contents = service_pb2.InferTensorContents(**{field: values})
    given = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=shape, contents=contents)
    return service_pb2.ModelInferRequest(model_name=model, inputs=[given])


@pytest.mark.conformance(client="grpcio", call="ModelInfer", covers="typed contents, answered in typed contents")
def test_typed_contents_are_answered_in_kind(world, stub):
    key = [("authorization", f"Bearer {world.globex.key}")]
    answer = stub.ModelInfer(typed("FP32", "fp32_contents", [1.5, -2.0]), metadata=key)
    assert list(answer.outputs[0].contents.fp32_contents) == [1.5, -2.0] and not answer.raw_output_contents


@pytest.mark.refusal(protocol="gRPC", what="`contents` beside `raw_input_contents`", answer="INVALID_ARGUMENT",
                     reason="The protocol forbids it: which of the two would count?")
@pytest.mark.refusal(protocol="gRPC", what="FP16 and BF16 in typed contents", answer="INVALID_ARGUMENT",
                     reason="The protocol has no field for them; they travel raw.")
@pytest.mark.refusal(protocol="gRPC", what="numbers out of their type's range", answer="INVALID_ARGUMENT",
                     reason="Cutting 300 down to a UINT8 would compute with something nobody sent.")
def test_contents_that_contradict_are_refused(world, stub):
    key = [("authorization", f"Bearer {world.globex.key}")]
    mixed = typed("FP32", "fp32_contents", [1.5, -2.0])
    mixed.raw_input_contents.append(bytes(8))
    cases = [(mixed, "send one of them"), (typed("FP16", "fp32_contents", [1, 2]), "raw_input_contents"),
             (typed("UINT8", "uint_contents", [1, 300]), "out of the range"),
             (typed("FP32", "fp32_contents", [1.5]), "needs 2"), (typed("FP32", "int_contents", [1, 2]), "fp32_contents")]
    for request, text in cases:
        error = refused(lambda: stub.ModelInfer(request, metadata=key))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT and text in error.details(), error.details()


@pytest.mark.refusal(protocol="gRPC", what="shared memory of client and server", answer="UNIMPLEMENTED",
                     reason="A region's name would reach across tenants; tensors travel in the message.")
@pytest.mark.refusal(protocol="gRPC", what="trace and log settings", answer="UNIMPLEMENTED",
                     reason="They are the whole server's, and a tenant is one of many. Timing: `x-tenantry-explain`.")
def test_what_is_not_offered_says_so(client, headers):
    for call in [client.get_system_shared_memory_status, client.get_cuda_shared_memory_status, client.get_trace_settings,
                 client.get_log_settings]:
        assert refused(lambda: call(headers=headers)).status() == "StatusCode.UNIMPLEMENTED"


@pytest.mark.refusal(protocol="gRPC", what="the classification extension", answer="INVALID_ARGUMENT",
                     reason="Labels and their order are the model's: a pipeline step gives them.")
def test_classification_is_refused(client, headers):
    _, _, inputs = sums()
    outputs = [triton.InferRequestedOutput("sum", class_count=2)]
    error = refused(lambda: client.infer("sums", inputs, outputs=outputs, headers=headers))
    assert error.status() == "StatusCode.INVALID_ARGUMENT" and "classification" in error.message()


def test_errors_have_their_status_and_say_what_to_do(world, client, stub, headers):
    _, _, inputs = sums()
    missing = refused(lambda: client.infer("no-such-model", inputs, headers=headers))
    theirs = refused(lambda: client.infer("globex/secret", inputs, headers=headers))
    assert missing.status() == theirs.status() == "StatusCode.NOT_FOUND"
    assert missing.message().replace("no-such-model", "X") == theirs.message().replace("globex/secret", "X")
    wrong = refused(lambda: client.infer("sums", inputs[:1], headers=headers))
    assert wrong.status() == "StatusCode.INVALID_ARGUMENT" and "`b`" in wrong.message()
    for key in [None, bearer("nonsense")]:
        nobody = refused(lambda: client.infer("sums", inputs, headers=key))
        assert nobody.status() == "StatusCode.UNAUTHENTICATED"
    error = refused(lambda: stub.ModelReady(service_pb2.ModelReadyRequest(name="no"), metadata=tuple(headers.items())))
    metadata = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata())
    assert metadata["x-request-id"].startswith("req_") and metadata["error-code"] == "not_found"


@pytest.mark.refusal(protocol="gRPC", what="a message over `http.max_body`", answer="RESOURCE_EXHAUSTED",
                     reason="By its announced length, before it is read.")
def test_limits_are_refused_with_a_hint(new_server):
    server = new_server('[http]\nmax_body = "64KiB"\n[limits]\nmax_requests = 1\n')
    acme = server.tenant("acme")
    assert acme.push("acme", "count", hostile_onnx.counting_loop())["state"] == "ready"
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        key = [("authorization", f"Bearer {acme.key}")]
        large = service_pb2.ModelInferRequest(model_name="count", raw_input_contents=[bytes(70_000)])
        error = refused(lambda: stub.ModelInfer(large, metadata=key))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "65536 bytes" in error.details()
        assert dict(error.trailing_metadata())["error-code"] == "too_large"

        def count(to):
            return typed("INT64", "int64_contents", [to], shape=(), model="count")
        request = count(2 ** 62)
        request.inputs[0].name = "count"
        running = stub.ModelInfer.future(request, metadata=key)
        until(lambda: acme.infer("count", {"inputs": []}).status == 429)
        error = refused(lambda: stub.ModelInfer(request, metadata=key))
        metadata = dict(error.trailing_metadata())
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and metadata["error-reason"] == "concurrency"
        assert int(metadata["retry-after-ms"]) > 0
        running.cancel()


@pytest.mark.conformance(client="grpcio-health-checking", call="Check", covers="the server, the service, an unknown one")
@pytest.mark.conformance(client="grpcio-health-checking", call="Watch", covers="hears of the end")
def test_the_standard_health_service(new_server):
    server = new_server()
    with grpc.insecure_channel(server.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ["", "inference.GRPCInferenceService"]:
            reply = health.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        unknown = refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="nothing")))
        assert unknown.code() == grpc.StatusCode.NOT_FOUND
        watched = health.Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        server.signal(15)
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert refused(lambda: next(watched)).code() == grpc.StatusCode.UNAVAILABLE
    assert server.wait() == 0


@pytest.mark.conformance(client="grpcio-reflection", call="ServerReflectionInfo", covers="services, then a call by what it says")
def test_reflection_describes_the_service_well_enough_to_call_it(world):
    from google.protobuf.message_factory import GetMessageClass
    with grpc.insecure_channel(world.server.grpc_address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(database.get_services())
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        method = service.FindMethodByName("ModelMetadata")
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        call = channel.unary_unary(f"/{service.full_name}/{method.name}", request.SerializeToString, response.FromString)
        answer = call(request(name="sums"), metadata=[("authorization", f"Bearer {world.acme.key}")])
        assert [tensor.name for tensor in answer.outputs] == ["sum", "difference"]


def test_the_messages_are_those_of_tritons_own_description(world):
    """Every field of ours has the number, type and label that it has in the client's compiled descriptors."""
    with grpc.insecure_channel(world.server.grpc_address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        ours = pool.FindServiceByName("inference.GRPCInferenceService")
        theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        compared = set()

        def compare(mine, original):
            if mine.full_name in compared:
                return
            compared.add(mine.full_name)
            for field in mine.fields:
                known = original.fields_by_name[field.name]
                assert (field.number, field.type, field.is_repeated) == (known.number, known.type, known.is_repeated), field.full_name
                if field.message_type:
                    compare(field.message_type, known.message_type)
                if field.enum_type:
                    assert field.enum_type.values_by_name.keys() <= known.enum_type.values_by_name.keys()

        for method in ours.methods:
            original = theirs.methods_by_name[method.name]
            assert (method.client_streaming, method.server_streaming) == (original.client_streaming, original.server_streaming)
            compare(method.input_type, original.input_type)
            compare(method.output_type, original.output_type)
        assert len(compared) > 40
