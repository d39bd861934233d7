"""The Open Inference Protocol's gRPC, by Triton's client and by messages that it would not send, against the API as a
process."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pandas as pd
import pytest
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from app.api.asgi import MAX_BINARY_BODY
from app.api.binary_tensors import MAX_BINARY_ROWS
from app.api.inference_proto import generate
from app.api.inference_proto import open_inference_grpc_pb2 as messages
from app.contract import MAX_ID
from app.runtime.processes import Server, free_port
from app.runtime.waiting import wait_until
from app.testing.api_keys import add_client, bearer
from app.testing.api_server import api_server
from app.testing.docs import ROOT, python_block
from app.testing.model_api import SETOSA, Example, metric
from images import environments

MLFLOW = "http://127.0.0.1:9"  # away: models are in the cache
ROWS = np.array([list(SETOSA.values()), [6.7, 3.0, 5.2, 2.3]])
INFER = "/inference.GRPCInferenceService/ModelInfer"
Start = Callable[..., tuple[Server, str]]


@pytest.fixture(scope="module")
def start(full_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts an API with all models; gives it, and where it answers gRPC."""
    servers: list[Server] = []

    def begin(**env: str) -> tuple[Server, str]:
        port = free_port()
        folder = tmp_path_factory.mktemp("api")
        values = {"MLOPS_CACHE_DIR": str(full_cache), "MLOPS_GRPC_PORT": str(port), "MLOPS_DEFAULT_MODEL": "iris"}
        server = api_server(MLFLOW, folder, "/readyz", **{**values, **env})
        server.start()
        servers.append(server)
        return server, f"127.0.0.1:{port}"

    yield begin
    for server in servers:
        server.stop(10)


@pytest.fixture(scope="module")
def api(start: Start) -> tuple[Server, str]:
    return start()


@pytest.fixture(scope="module")
def triton(api: tuple[Server, str]) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(api[1]) as client:
        yield client


@pytest.fixture(scope="module")
def http(api: tuple[Server, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api[0].uri, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def channel(api: tuple[Server, str]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(api[1], options=(("grpc.max_send_message_length", -1),)) as channel:
        yield channel


def tensor(name: str, values: Any) -> InferInput:
    values = np.asarray(values)
    made = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values)
    return made


def texts(result: InferResult, name: str) -> list[str]:
    return [value.decode() for value in result.as_numpy(name).tolist()]


def metadata(key: str) -> dict[str, str]:
    """A key as gRPC sends it: its names are in lower case."""
    return {name.lower(): value for name, value in bearer(key).items()}


def request(name: str = "x", datatype: str = "FP64", **contents: Any) -> Any:
    """A request about two rows of iris; contents: what is to be there in place of fp64_contents."""
    message = messages.ModelInferRequest(model_name="iris")
    message.inputs.add(name=name, datatype=datatype, shape=[2, 4])
    for field, values in (contents or {"fp64_contents": ROWS.ravel().tolist()}).items():
        getattr(message.inputs[0].contents, field).extend(values)
    return message


def raw_request(*raw: bytes, datatype: str = "FP64", shape: tuple[int, ...] = (2, 4)) -> Any:
    message = messages.ModelInferRequest(model_name="iris", raw_input_contents=raw)
    message.inputs.add(name="x", datatype=datatype, shape=shape)
    return message


def call(channel: grpc.Channel, message: Any, method: str = "ModelInfer", timeout: float = 30) -> Any:
    """What a message, or bytes, are answered."""
    content = message if isinstance(message, bytes) else message.SerializeToString()
    answer = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(content, timeout=timeout)
    return getattr(messages, f"{method}Response").FromString(answer)


def failure(channel: grpc.Channel, message: Any, method: str = "ModelInfer") -> tuple[grpc.StatusCode, str]:
    """The status that a message, or bytes, are refused with."""
    with pytest.raises(grpc.RpcError) as error:
        call(channel, message, method)
    return error.value.code(), error.value.details()


def test_the_messages_are_those_of_the_proto() -> None:
    for name, content in generate.generated().items():
        assert (generate.FOLDER / name).read_text() == content, f"{name} is not what `make proto` writes"


# -- Triton's client -------------------------------------------------------------------------------------------------


def test_health_and_metadata(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("iris")
    assert triton.is_model_ready("iris", "1")
    assert not triton.is_model_ready("iris", "4711")
    assert not triton.is_model_ready("tulips")
    assert triton.get_server_metadata().name == "mlops-model-api"


@pytest.mark.parametrize("name", ["iris", "cars", "diabetes"])
def test_metadata_is_that_of_http(triton: InferenceServerClient, http: httpx.Client, name: str) -> None:
    by_http, by_grpc = http.get(f"/v2/models/{name}").json(), triton.get_model_metadata(name, as_json=True)
    assert (by_grpc["name"], by_grpc["versions"], by_grpc["platform"]) == (
        name,
        by_http["versions"],
        by_http["platform"],
    )
    for tensors in ("inputs", "outputs"):
        found = [(one["name"], one["datatype"], list(map(int, one["shape"]))) for one in by_grpc[tensors]]
        assert found == [(one["name"], one["datatype"], one["shape"]) for one in by_http[tensors]]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("number", [1, 30, 20_000])  # alone in a batch, in a batch, in a thread
def test_one_tensor(
    triton: InferenceServerClient, http: httpx.Client, examples: dict[str, Example], dtype: str, number: int
) -> None:
    rows = examples["iris"].rows(30)
    values = np.resize(pd.DataFrame(rows).to_numpy(dtype=dtype), (number, 4))
    outputs = [InferRequestedOutput(output) for output in ("probabilities", "label")]
    result = triton.infer("iris", [tensor("x", values)], outputs=outputs, request_id="a request")
    answer = result.get_response()
    assert (answer.id, answer.model_name, answer.model_version) == ("a request", "iris", "1")
    assert answer.parameters["run_id"].string_param == "run-of-iris"
    assert [output.name for output in answer.outputs] == ["probabilities", "label"]
    expected = http.post("/models/iris/predict", json=rows).json()
    assert texts(result, "label") == np.resize([one["prediction"] for one in expected], number).tolist()
    probabilities = np.array([list(one["probabilities"].values()) for one in expected])
    assert result.as_numpy("probabilities") == pytest.approx(np.resize(probabilities, (number, 3)), abs=1e-6)


def test_a_tensor_per_feature(triton: InferenceServerClient, examples: dict[str, Example]) -> None:
    rows = examples["cars"].rows(40)
    frame = pd.DataFrame(rows)
    for doors in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4"):
        columns: dict[str, Any] = {"weight": "f4", "colour": object, "doors": doors}
        inputs = [tensor(name, frame[name].to_numpy().astype(dtype)) for name, dtype in columns.items()]
        result = triton.infer("cars", inputs)
        assert result.as_numpy("label").tolist() == examples["cars"].expected(rows)
        assert result.as_numpy("label").dtype == bool


def test_dates_are_text_and_empty_text_is_a_missing_one(
    triton: InferenceServerClient, examples: dict[str, Example]
) -> None:
    rows = examples["members"].rows(40)
    frame = pd.DataFrame(rows)
    assert frame["last_order_at"].isna().any()
    columns: dict[str, Any] = {"joined": object, "last_order_at": object, "visits": "f8"}
    inputs = [tensor(name, frame[name].fillna("").to_numpy().astype(dtype)) for name, dtype in columns.items()]
    assert texts(triton.infer("members", inputs), "label") == examples["members"].expected(rows)
    inputs[0] = tensor("joined", np.array([""] * len(rows), dtype=object))
    with pytest.raises(InferenceServerException, match=r"inputs\.0\.data\.0\.joined: joined should be a date or time"):
        triton.infer("members", inputs)


def test_a_regression(triton: InferenceServerClient, examples: dict[str, Example]) -> None:
    rows = examples["diabetes"].rows(20)
    result = triton.infer("diabetes", [tensor("x", pd.DataFrame(rows).to_numpy())])
    assert result.as_numpy("value") == pytest.approx(np.array(examples["diabetes"].expected(rows)), rel=1e-4)


def test_all_outputs_and_an_id_where_none_are_asked_for(triton: InferenceServerClient) -> None:
    result = triton.infer("iris", [tensor("x", ROWS)])
    answer = result.get_response()
    assert [output.name for output in answer.outputs] == ["label", "probabilities", "prediction_id"]
    assert len(answer.id) == 36
    ids = texts(result, "prediction_id")
    assert len(set(ids)) == 2
    assert all(len(one.split(".")) == 5 for one in ids)


def test_the_code_of_the_docs_by_the_newest_client(api: tuple[Server, str]) -> None:
    """As `pip install 'tritonclient[grpc]'` has it, with other versions of grpcio and protobuf than the API's."""
    code = python_block(ROOT / "docs" / "operations.md")
    assert "127.0.0.1:8087" in code
    code = code.replace("127.0.0.1:8087", api[1])
    python = environments.program("tritonclient-grpc").with_name("python")
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[b'setosa']\n"


def test_feedback_tokens(triton: InferenceServerClient) -> None:
    result = triton.infer("iris", [tensor("x", ROWS)], headers={"feedback-token": "true"})
    assert len(texts(result, "feedback_token")) == 2
    with pytest.raises(InferenceServerException, match="Feedback-Token is 'yes': send true") as error:
        triton.infer("iris", [tensor("x", ROWS)], headers={"feedback-token": "yes"})
    assert error.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_as_many_rows_as_http_takes_in_binary(triton: InferenceServerClient) -> None:
    values = np.resize(ROWS[:1], (MAX_BINARY_ROWS + 1, 4))
    outputs = [InferRequestedOutput("label")]
    result = triton.infer("iris", [tensor("x", values[1:])], outputs=outputs)
    assert texts(result, "label") == ["setosa"] * MAX_BINARY_ROWS
    with pytest.raises(InferenceServerException, match="send 1 to 100000 rows, not 100001"):
        triton.infer("iris", [tensor("x", values)], outputs=outputs)


@pytest.mark.parametrize(
    ("ask", "status", "why"),
    [
        (lambda c: c.infer("tulips", [tensor("x", ROWS)]), "NOT_FOUND", "there is no model 'tulips'"),
        (lambda c: c.infer("iris", [tensor("x", ROWS)], "4711"), "NOT_FOUND", "version 4711 of iris is not served"),
        (lambda c: c.get_model_metadata("tulips"), "NOT_FOUND", "there is no model 'tulips'"),
        (lambda c: c.infer("iris", [tensor("x", ROWS[:, :3])]), "INVALID_ARGUMENT",
         r"x has the shape \[2, 3\] .* send \[n, 4\]"),
        (lambda c: c.infer("iris", [tensor("sepal_length", ROWS[:, 0])]), "INVALID_ARGUMENT",
         "the input petal_width is missing"),
        (lambda c: c.infer("iris", [tensor("x", ROWS.astype(str).astype(object))]), "INVALID_ARGUMENT",
         "BYTES: send FP64"),
        (lambda c: c.infer("iris", [tensor("x", np.where(ROWS > 6, 1e300, ROWS))]), "INVALID_ARGUMENT",
         "sepal_length"),
        (lambda c: c.infer("iris", [tensor("x", np.where(ROWS > 6, np.nan, ROWS))]), "INVALID_ARGUMENT",
         "body.inputs.0.data.1"),
        (lambda c: c.infer("iris", [tensor("x", ROWS[:0])]), "INVALID_ARGUMENT", "send 1 to 100000 rows, not 0"),
        (lambda c: c.infer("iris", [tensor("x", ROWS)], request_id="x" * (MAX_ID + 1)), "INVALID_ARGUMENT", "body.id"),
        (lambda c: c.infer("iris", [tensor("x", ROWS)], outputs=[InferRequestedOutput("species")]),
         "INVALID_ARGUMENT", "there is no output 'species'; the outputs are: label, probabilities"),
        (lambda c: c.infer("iris", [tensor("x", ROWS)], outputs=[InferRequestedOutput("label", class_count=2)]),
         "INVALID_ARGUMENT", "classification is not spoken here"),
        (lambda c: c.infer("iris", [tensor("x", ROWS)], compression_algorithm="gzip"), "UNIMPLEMENTED", "gzip"),
        (lambda c: c.infer("iris", [InferInput("x", [2, 4], "FP64")]), "INVALID_ARGUMENT",
         "x has no values: send fp64_contents"),
        (lambda c: c.get_model_repository_index(), "UNIMPLEMENTED", "Method not found"),
    ],
)  # fmt: skip
def test_what_was_wrong_is_said(
    triton: InferenceServerClient, ask: Callable[[InferenceServerClient], Any], status: str, why: str
) -> None:
    with pytest.raises(InferenceServerException, match=why) as error:
        ask(triton)
    assert error.value.status() == f"StatusCode.{status}"


# -- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["FP32", "FP64"])
def test_typed_contents_are_answered_in_kind(channel: grpc.Channel, dtype: str) -> None:
    contents: dict[str, Any] = {f"{dtype.lower()}_contents": ROWS.ravel().tolist()}
    answer = call(channel, request(datatype=dtype, **contents))
    assert not answer.raw_output_contents
    label, probabilities, _ = answer.outputs
    assert list(label.contents.bytes_contents) == [b"setosa", b"virginica"]
    assert np.reshape(probabilities.contents.fp64_contents, (2, 3)).sum(axis=1) == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("datatype", "field"),
    [("INT8", "int_contents"), ("INT16", "int_contents"), ("INT32", "int_contents"), ("INT64", "int64_contents"),
     ("UINT8", "uint_contents"), ("UINT16", "uint_contents"), ("UINT32", "uint_contents"),
     ("UINT64", "uint64_contents"), ("FP32", "fp32_contents"), ("FP64", "fp64_contents")],
)  # fmt: skip
def test_typed_contents_of_each_feature(
    channel: grpc.Channel, examples: dict[str, Example], datatype: str, field: str
) -> None:
    rows = examples["cars"].rows(20)
    columns: dict[str, tuple[str, str]] = {
        "doors": (datatype, field), "colour": ("BYTES", "bytes_contents"), "weight": ("FP64", "fp64_contents")
    }  # fmt: skip
    message = messages.ModelInferRequest(model_name="cars", model_version="1", id="7")
    for name, (kind, where) in columns.items():
        values = [row[name].encode() if kind == "BYTES" else row[name] for row in rows]
        added = message.inputs.add(name=name, datatype=kind, shape=[len(rows)])
        getattr(added.contents, where).extend(values)
    answer = call(channel, message)
    assert list(answer.outputs[0].contents.bool_contents) == examples["cars"].expected(rows)
    assert answer.id == "7"


VALUES = ROWS.ravel().tolist()
WRONG: dict[str, tuple[Any, str]] = {
    "garbage": (b"\xff\xfe garbage", "the message is no ModelInferRequest"),
    "text that is not UTF-8": (b"\x0a\x02\xff\xff", "the message is no ModelInferRequest"),
    "no inputs": (messages.ModelInferRequest(model_name="iris"), "body.inputs: "),
    "no shape": (raw_request(ROWS.tobytes(), shape=()), "body.inputs.0.shape"),
    "a shape below zero": (raw_request(ROWS.tobytes(), shape=(-2, 4)), "body.inputs.0.shape"),
    "a huge shape": (raw_request(ROWS.tobytes(), shape=(2**62, 4)), "body.inputs.0.shape"),
    "other values than the shape has": (request(fp64_contents=VALUES[:7]), "has the shape [2, 4] and 7 values"),
    "truncated": (raw_request(ROWS.tobytes()[:-1]), "63 bytes are no whole number of FP64"),
    "a row less": (raw_request(ROWS[:1].tobytes()), "has the shape [2, 4] and 4 values"),
    "no bytes": (raw_request(b""), "has the shape [2, 4] and 0 values"),
    "too many raw": (raw_request(ROWS.tobytes(), b""), "2 raw_input_contents were sent for 1 inputs"),
    "text that is cut": (raw_request(b"\x09\0\0\0ab", datatype="BYTES"), "a text of 9 bytes is cut"),
    "an unknown datatype": (raw_request(ROWS.tobytes(), datatype="FP8"), "x has the datatype FP8: send BOOL"),
    "an unknown datatype, typed": (request(datatype="FP8"), "x has the datatype FP8: send BOOL"),
    "FP16, typed": (request(datatype="FP16"), "FP16 and fp64_contents: send raw_input_contents"),
    "another field": (request(fp32_contents=VALUES), "FP64 and fp32_contents: send fp64_contents"),
    "two fields": (request(fp64_contents=VALUES, int_contents=[1]), "int_contents, fp64_contents: send fp64_contents"),
    "BYTES that are not UTF-8": (request(datatype="BYTES", bytes_contents=[b"\xff"] * 8), "text 0 is not UTF-8"),
    "infinity": (request(fp64_contents=[float("inf"), *VALUES[1:]]), "body.inputs.0.data.0"),
    "BOOL": (request(datatype="BOOL", bool_contents=[True] * 8), "x has the datatype BOOL: send FP64"),
}


@pytest.mark.parametrize("name", WRONG)
def test_messages_that_are_refused(channel: grpc.Channel, name: str) -> None:
    message, why = WRONG[name]
    code, details = failure(channel, message)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert why in details


def test_contents_and_raw_contents(channel: grpc.Channel) -> None:
    message = request()
    message.raw_input_contents.append(ROWS.tobytes())
    assert "x has contents and raw_input_contents: send one" in failure(channel, message)[1]


def test_a_message_over_the_limit(channel: grpc.Channel, http: httpx.Client) -> None:
    code, details = failure(channel, b"\0" * (MAX_BINARY_BODY + 1))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(MAX_BINARY_BODY) in details
    assert "has the shape" in failure(channel, raw_request(bytes(MAX_BINARY_BODY - 1000)))[1]
    assert http.get("/livez").is_success


def test_what_is_said_is_short_enough_for_every_client(channel: grpc.Channel) -> None:
    code, details = failure(channel, messages.ModelMetadataRequest(name="ü" * 30_000), "ModelMetadata")
    assert code == grpc.StatusCode.NOT_FOUND
    assert details.startswith("there is no model 'üüü")
    assert details.endswith(" ...")


@pytest.mark.parametrize("method", ["ModelReady", "ModelMetadata"])
def test_garbage_to_other_methods(channel: grpc.Channel, method: str) -> None:
    assert failure(channel, b"\xff\xfe", method)[0] == grpc.StatusCode.INVALID_ARGUMENT


# -- counts, keys, life and death ------------------------------------------------------------------------------------


def test_each_call_is_counted_once(channel: grpc.Channel, http: httpx.Client) -> None:
    def counted() -> list[float]:
        return [
            metric(http, "http_requests_total", handler=INFER, method="POST", status="2xx") or 0,
            metric(http, "http_requests_total", handler=INFER, method="POST", status="4xx") or 0,
            metric(http, "mlops_requests_total", model="iris", version="1", status="200") or 0,
            metric(http, "mlops_requests_total", model="iris", version="1", status="422") or 0,
            metric(http, "mlops_predictions_total", model="iris", label="setosa") or 0,
        ]

    before = counted()
    for _ in range(3):
        call(channel, request())
    failure(channel, request(datatype="FP8"))
    assert np.subtract(counted(), before).tolist() == [3, 1, 3, 1, 3]


def test_concurrent_calls_get_their_own_answers(triton: InferenceServerClient, examples: dict[str, Example]) -> None:
    rows = examples["iris"].rows(150)
    values, expected = pd.DataFrame(rows).to_numpy(), examples["iris"].expected(rows)

    def ask(i: int) -> list[str]:
        return texts(triton.infer("iris", [tensor("x", values[i : i + 1])]), "label")

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, list(range(len(rows))) * 4))
    assert answers == [[label] for label in expected] * 4


def test_clients_that_go_away_harm_nobody(api: tuple[Server, str], channel: grpc.Channel, http: httpx.Client) -> None:
    large = raw_request(np.resize(ROWS, (MAX_BINARY_ROWS, 4)).tobytes(), shape=(MAX_BINARY_ROWS, 4))
    infer = channel.unary_unary(INFER)
    calls = [infer.future(large.SerializeToString()) for _ in range(8)]
    time.sleep(0.05)
    for one in calls:
        one.cancel()
    with pytest.raises(grpc.RpcError) as error:
        call(channel, large, timeout=0.002)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    with grpc.insecure_channel(api[1]) as gone:
        gone.unary_unary(INFER).future(large.SerializeToString())
    host, port = api[1].split(":")
    for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(sent)
    wait_until(lambda: call(channel, request()).outputs)
    assert http.get("/livez").is_success
    assert not metric(http, "http_requests_total", handler=INFER, status="5xx")


def test_keys(start: Start, tmp_path: Path) -> None:
    headers = metadata(add_client(tmp_path / "keys", "reader", "predict", requests_per_second=2))
    other = metadata(add_client(tmp_path / "keys", "sender", "feedback"))
    env = {"MLOPS_API_KEYS_REQUIRED": "predict", "MLOPS_API_KEYS_DIR": str(tmp_path / "keys")}
    server, address = start(**env)

    def refused(headers: dict[str, str] | None) -> tuple[str, str]:
        with pytest.raises(InferenceServerException) as error:
            client.infer("iris", [tensor("x", ROWS)], headers=headers)
        return error.value.status().removeprefix("StatusCode."), error.value.message()

    with InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("iris")
        assert refused(None)[0] == "UNAUTHENTICATED"
        assert refused({"authorization": "Bearer nothing"})[0] == "UNAUTHENTICATED"
        code, why = refused(other)
        assert code == "PERMISSION_DENIED"
        assert "lacks the scope predict" in why
        with pytest.raises(InferenceServerException, match="no key was sent"):
            client.get_model_metadata("iris")
        with pytest.raises(InferenceServerException, match="no key was sent"):
            client.get_server_metadata()
        assert client.infer("iris", [tensor("x", ROWS)], headers=headers)
        assert client.get_model_metadata("iris", headers=headers)
        assert refused(headers)[0] == "RESOURCE_EXHAUSTED"
        with grpc.insecure_channel(address) as channel:
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(INFER)(b"")
            assert ("www-authenticate", "Bearer") in [tuple(one) for one in error.value.trailing_metadata()]
    with httpx.Client(base_url=server.uri) as http:
        assert metric(http, "mlops_key_refusals_total", client="sender", reason="scope") == 1


def test_no_model_is_unavailable(start: Start, tmp_path: Path) -> None:
    port = free_port()
    server = api_server(MLFLOW, tmp_path, MLOPS_GRPC_PORT=str(port))
    server.start()
    try:
        with InferenceServerClient(f"127.0.0.1:{port}") as client:
            assert client.is_server_live()
            assert not client.is_server_ready()
            assert not client.is_model_ready("iris")
            with pytest.raises(InferenceServerException, match="no model is loaded yet") as error:
                client.infer("iris", [tensor("x", ROWS)])
            assert error.value.status() == "StatusCode.UNAVAILABLE"
    finally:
        server.stop(10)


def test_a_termination_answers_what_is_under_way(start: Start) -> None:
    server, address = start()
    assert server.process
    large = raw_request(np.resize(ROWS, (MAX_BINARY_ROWS, 4)).tobytes(), shape=(MAX_BINARY_ROWS, 4))
    begun = threading.Barrier(5)

    def send() -> str:
        with grpc.insecure_channel(address, options=(("grpc.max_receive_message_length", -1),)) as channel:
            call(channel, request())
            future = channel.unary_unary(INFER).future(large.SerializeToString(), timeout=30)
            time.sleep(0.02)
            begun.wait()
            try:
                return str(len(messages.ModelInferResponse.FromString(future.result()).raw_output_contents))
            except grpc.RpcError as error:
                return str(error.code())

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(send) for _ in range(4)]
        begun.wait()
        server.process.signal(signal.SIGTERM)
        answers = [future.result() for future in futures]
    assert server.process.process.wait(30) in (0, -signal.SIGTERM)
    assert answers == ["3"] * 4
    with grpc.insecure_channel(address) as channel:
        assert failure(channel, request())[0] == grpc.StatusCode.UNAVAILABLE


def test_a_port_in_use_ends_it_in_words(start: Start) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"the API cannot start: MLOPS_GRPC_PORT: 127.0.0.1:{port}") as error:
            start(MLOPS_GRPC_PORT=str(port))
    assert "Traceback" not in str(error.value)
