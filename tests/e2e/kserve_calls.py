"""Every call of KServe's client, in a process of its own: its messages and tritonclient's have the same names, which one process
cannot have twice. Prints one JSON object a call. Usage: kserve_calls.py URL GRPC_ADDRESS KEY"""

import asyncio
import json
import sys

import grpc
import httpx
import numpy as np
from kserve import InferInput, InferRequest, InferenceGRPCClient, InferenceRESTClient, InferOutput, InferResponse
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.full((2, 3), 0.5, dtype=np.float32)


def show(call, **seen):
    print(json.dumps({"call": call, **seen}))


def sums(binary):
    inputs = [InferInput(name, list(values.shape), "FP32") for name, values in [("a", A), ("b", B)]]
    for made, values in zip(inputs, [A, B]):
        made.set_data_from_numpy(values, binary_data=binary)
    outputs = [RequestedOutput(name, parameters={"binary_data": binary}) for name in ["sum", "difference"]]
    return InferRequest(model_name="sums", infer_inputs=inputs, request_id="mine", request_outputs=outputs)


def values(response):
    assert isinstance(response, InferResponse) and response.id == "mine"
    assert all(isinstance(output, InferOutput) for output in response.outputs)
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


async def rest(url, headers):
    v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
    show("v1 is_server_live", answer=await v1.is_server_live(url))
    show("v1 is_model_ready", answer=await v1.is_model_ready(url, "sums", headers))
    rows = {"instances": [{"a": [1, 2, 3], "b": [1, 1, 1]}]}
    show("v1 infer", answer=await v1.infer(url, rows, "sums", headers))
    v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
    show("v2 is_server_live", answer=await v2.is_server_live(url))
    show("v2 is_server_ready", answer=await v2.is_server_ready(url))
    show("v2 is_model_ready", answer=await v2.is_model_ready(url, "sums", headers))
    show("v2 is_model_ready of none", answer=await v2.is_model_ready(url, "nothing", headers))
    show("v2 infer", answer=values(await v2.infer(url, sums(False), "sums", dict(headers))))
    show("v2 infer binary", answer=values(await v2.infer(url, sums(True), "sums", dict(headers))))
    try:
        await v2.infer(url, sums(False), "sums", {"authorization": "Bearer wrong"})
    except httpx.HTTPStatusError as error:
        show("v2 infer with a wrong key", status=error.response.status_code, text=str(error))


async def over_grpc(address, headers):
    metadata = tuple(headers.items())
    async with InferenceGRPCClient(address) as client:
        show("grpc is_server_live", answer=await client.is_server_live())
        show("grpc is_server_ready", answer=await client.is_server_ready())
        show("grpc is_model_ready", answer=await client.is_model_ready("sums", headers=metadata))
        show("grpc infer", answer=values(await client.infer(sums(False), headers=metadata)))
        show("grpc infer binary", answer=values(await client.infer(sums(True), headers=metadata)))
        try:
            await client.infer(sums(False))
        except grpc.RpcError as error:
            show("grpc infer without a key", status=error.code().name, text=error.details())


def main():
    url, address, key = sys.argv[1:]
    headers = {"authorization": f"Bearer {key}"}
    asyncio.run(rest(url, headers))
    asyncio.run(over_grpc(address, headers))


main()
