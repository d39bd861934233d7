"""Clients that others wrote, against the API as users run it: Triton's, MLflow's own, and one that is generated."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult, aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from app.clients.mlflow import PRODUCTION, MlflowClient
from app.runtime.processes import Server
from app.runtime.waiting import wait_until
from app.testing.api_server import api_server
from app.testing.model_api import Example, publish
from images import environments

CSV = {"Content-Type": "text/csv"}


@pytest.fixture(scope="module")
def models(examples: dict[str, Example], narrow: Example) -> dict[str, Example]:
    """What is in production in this module: the models of all tests, and one of a single feature."""
    return {**examples, "narrow": narrow}


@pytest.fixture(scope="module")
def versions(mlflow_server: Server, models: dict[str, Example]) -> Iterator[dict[str, str]]:
    """The version of each model that is in production, in a real MLflow."""
    mlflow_server.start()
    with MlflowClient(mlflow_server.uri, timeout=30) as registry:

        def withdraw() -> None:
            for model in registry.models():
                if PRODUCTION in model.aliases:
                    registry.delete_alias(model.name, PRODUCTION)

        withdraw()
        yield {name: publish(registry, name, model.bundle) for name, model in models.items()}
        withdraw()


@pytest.fixture(scope="module")
def api(mlflow_server: Server, versions: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API with these models, iris by default."""
    server = api_server(mlflow_server.uri, tmp_path_factory.mktemp("api"), health="/readyz", MLOPS_DEFAULT_MODEL="iris")
    server.start()
    wait_until(lambda: httpx.get(f"{server.uri}/readyz").json()["models"] == versions)
    yield server
    server.stop(10)


@pytest.fixture(scope="module")
def triton(api: Server) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(urlsplit(api.uri).netloc) as client:
        yield client


def tensor(name: str, values: Any, binary: bool = True) -> InferInput:
    values = np.asarray(values)
    made = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def texts(result: InferResult, name: str) -> list[str]:
    """An output of text: Triton's client gives bytes where it came in binary."""
    return [value.decode() if isinstance(value, bytes) else value for value in result.as_numpy(name).tolist()]


def predictions(api: Server, name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the API itself answers for rows."""
    return httpx.post(f"{api.uri}/models/{name}/predict", json=rows).raise_for_status().json()


# -- Triton ----------------------------------------------------------------------------------------------------------


def test_triton_health_and_metadata(triton: InferenceServerClient, versions: dict[str, str]) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("iris")
    assert triton.is_model_ready("iris", versions["iris"])
    assert not triton.is_model_ready("iris", "4711")
    assert not triton.is_model_ready("tulips")
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data", "model_repository"]
    metadata = triton.get_model_metadata("iris", versions["iris"])
    assert metadata["versions"] == [versions["iris"]]
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, 4]}]
    index = triton.get_model_repository_index()
    assert {(entry["name"], entry["version"], entry["state"]) for entry in index} == {
        (name, version, "READY") for name, version in versions.items()
    }


@pytest.mark.parametrize("name", ["features", "predict", "input-0", "sepal_length"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("binary", [True, False])
def test_triton_sends_one_tensor(
    triton: InferenceServerClient, api: Server, examples: dict[str, Example], name: str, dtype: str, binary: bool
) -> None:
    rows = examples["iris"].rows(30)
    outputs = [InferRequestedOutput(output, binary_data=binary) for output in ("probabilities", "label")]
    values = pd.DataFrame(rows).to_numpy(dtype=dtype)
    result = triton.infer("iris", [tensor(name, values, binary)], outputs=outputs, request_id="a request")
    assert result.get_response()["id"] == "a request"
    assert [output["name"] for output in result.get_response()["outputs"]] == ["probabilities", "label"]
    expected = predictions(api, "iris", rows)
    assert texts(result, "label") == [answer["prediction"] for answer in expected]
    probabilities = [list(answer["probabilities"].values()) for answer in expected]
    assert result.as_numpy("probabilities") == pytest.approx(np.array(probabilities), abs=1e-6)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("wide", [True, False])
def test_triton_sends_a_tensor_per_feature(
    triton: InferenceServerClient, examples: dict[str, Example], versions: dict[str, str], binary: bool, wide: bool
) -> None:
    rows = examples["cars"].rows(40)
    frame = pd.DataFrame(rows)
    columns: dict[str, Any] = {"weight": "f4", "colour": object, "doors": "i8"}
    arrays = {name: frame[name].to_numpy().astype(dtype) for name, dtype in columns.items()}
    inputs = [tensor(name, array[:, None] if wide else array, binary) for name, array in arrays.items()]
    result = triton.infer("cars", inputs, versions["cars"], outputs=[InferRequestedOutput("label", binary_data=binary)])
    assert result.as_numpy("label").tolist() == examples["cars"].expected(rows)
    assert result.as_numpy("label").dtype == bool


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", ["petal_length", "anything"])
@pytest.mark.parametrize("wide", [True, False])
def test_triton_sends_a_single_feature(
    triton: InferenceServerClient, narrow: Example, binary: bool, name: str, wide: bool
) -> None:
    rows = narrow.rows(40)
    values = pd.DataFrame(rows).to_numpy(dtype="f8")
    result = triton.infer("narrow", [tensor(name, values if wide else values[:, 0], binary)])
    assert texts(result, "label") == narrow.expected(rows)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_asks_for_a_regression(
    triton: InferenceServerClient, examples: dict[str, Example], binary: bool
) -> None:
    rows = examples["diabetes"].rows(20)
    values = pd.DataFrame(rows).to_numpy()
    result = triton.infer("diabetes", [tensor("x", values, binary)])
    assert result.as_numpy("value") == pytest.approx(np.array(examples["diabetes"].expected(rows)), rel=1e-4)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_asks_for_no_output_by_name(
    triton: InferenceServerClient, examples: dict[str, Example], binary: bool
) -> None:
    """Its client then asks for all in binary, in a request that is JSON too."""
    values = pd.DataFrame(examples["iris"].rows(3)).to_numpy()
    result = triton.infer("iris", [tensor("features", values, binary)])
    outputs = result.get_response()["outputs"]
    assert [output["name"] for output in outputs] == ["label", "probabilities", "prediction_id"]
    assert all("binary_data_size" in output["parameters"] and "data" not in output for output in outputs)
    assert len(set(texts(result, "prediction_id"))) == 3


def test_triton_sends_many_rows_at_once(triton: InferenceServerClient, examples: dict[str, Example]) -> None:
    values = np.tile(pd.DataFrame(examples["iris"].rows(100)).to_numpy(dtype="f4"), (200, 1))
    asked = [triton.async_infer("iris", [tensor("x", part)]) for part in np.split(values, 4)]
    labels = [texts(one.get_result(), "label") for one in asked]
    assert labels[0] == examples["iris"].expected(examples["iris"].rows(100)) * 50
    assert labels == labels[:1] * 4


def test_tritons_other_client(api: Server, examples: dict[str, Example]) -> None:
    rows = examples["iris"].rows(5)

    async def ask() -> list[str]:
        async with aio.InferenceServerClient(urlsplit(api.uri).netloc) as client:
            assert await client.is_model_ready("iris")
            assert await client.get_model_repository_index()
            return texts(await client.infer("iris", [tensor("x", pd.DataFrame(rows).to_numpy())]), "label")

    assert asyncio.run(ask()) == examples["iris"].expected(rows)


ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("ask", "status", "why"),
    [
        (lambda c, t: c.infer("tulips", [t("x", ROWS)]), "404", "there is no model 'tulips'"),
        (lambda c, t: c.infer("iris", [t("x", ROWS)], "4711"), "404", "version 4711 of iris is not served"),
        (lambda c, t: c.infer("iris", [t("x", ROWS[:, :3])]), "422", r"x has the shape \[2, 3\] .* send \[n, 4\]"),
        (lambda c, t: c.infer("iris", [t("sepal_length", ROWS[:, 0])]), "422", "the input petal_width is missing"),
        (lambda c, t: c.infer("iris", [t("x", ROWS.astype(str).astype(object))]), "422", "BYTES: send FP64"),
        (lambda c, t: c.infer("iris", [t("x", np.where(ROWS > 6, 1e300, ROWS))]), "422", "sepal_length"),
        (lambda c, t: c.infer("cars", [t("x", ROWS[:, :3])]), "422", "one input for each of: colour, doors, weight"),
        (lambda c, t: c.infer("iris", [t("x", ROWS)], outputs=[InferRequestedOutput("species")]), "422",
         "there is no output 'species'; the outputs are: label, probabilities"),
        (lambda c, t: c.infer("iris", [t("x", ROWS)], outputs=[InferRequestedOutput("label", class_count=2)]), "422",
         "classification is not spoken here"),
        (lambda c, t: c.infer("iris", [t("x", ROWS)], request_compression_algorithm="gzip"), "400",
         "Content-Encoding is 'gzip': send the body uncompressed"),
        (lambda c, t: c.infer("iris", [t("x", ROWS)], request_compression_algorithm="deflate"), "400",
         "Content-Encoding is 'deflate': send the body uncompressed"),
        (lambda c, _: c.infer("iris", [InferInput("x", [2, 4], "FP64")]), "422", "the tensor has no values: send data"),
        (lambda c, _: c.get_model_config("iris"), "404", "there is no GET /v2/models/iris/config here"),
        (lambda c, _: c.load_model("iris"), "400", "the alias production in MLflow says: run `mlops promote iris`"),
        (lambda c, _: c.unload_model("iris"), "400", "the alias production in MLflow says"),
        (lambda c, _: c.get_inference_statistics(), "404", "there is no model 'stats'"),
    ],
)  # fmt: skip
def test_triton_is_told_what_was_wrong(
    triton: InferenceServerClient, binary: bool, ask: Callable[..., Any], status: str, why: str
) -> None:
    with pytest.raises(InferenceServerException, match=why) as failure:
        ask(triton, lambda name, values: tensor(name, values, binary))
    assert failure.value.status() == status


# -- MLflow ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scoring(api: Server) -> ScoringServerClient:
    url = urlsplit(api.uri)
    return ScoringServerClient(url.hostname, url.port)


@pytest.fixture
def pyfunc(mlflow_server: Server, versions: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Loads a model as MLflow's users do, from the version in production."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    mlflow.set_tracking_uri(mlflow_server.uri)
    return lambda name: mlflow.pyfunc.load_model(f"models:/{name}@{PRODUCTION}")


def test_mlflows_client_finds_the_server(scoring: ScoringServerClient) -> None:
    scoring.ping()
    scoring.wait_server_ready(timeout=5)
    assert scoring.get_version() == mlflow.__version__


def test_mlflows_client_asks(scoring: ScoringServerClient, examples: dict[str, Example]) -> None:
    rows = examples["iris"].rows(20)
    frame, expected = pd.DataFrame(rows), examples["iris"].expected(rows)
    for data in (frame, frame[frame.columns[::-1]], frame.to_numpy(), frame.to_numpy().tolist(), rows):
        answer = scoring.invoke(data)
        assert answer.get_predictions()[0].tolist() == expected
        assert answer.get_predictions("ndarray").tolist() == expected
    assert scoring.invoke(frame, params={"temperature": 0.5})["predictions"] == expected


def test_mlflows_client_is_told_what_was_wrong(scoring: ScoringServerClient, examples: dict[str, Example]) -> None:
    with pytest.raises(Exception, match=r"error code 422, .*petal_width is missing: send a number"):
        scoring.invoke(pd.DataFrame(examples["iris"].rows(2)).drop(columns="petal_width"))


def test_pyfunc_gives_the_answers_of_the_api(
    pyfunc: Callable[[str], Any], api: Server, examples: dict[str, Example]
) -> None:
    rows = examples["iris"].rows(50)
    answers = predictions(api, "iris", rows)
    by_mlflow = pyfunc("iris").predict(pd.DataFrame(rows))
    assert list(by_mlflow["label"]) == [answer["prediction"] for answer in answers]
    rows = examples["diabetes"].rows(50)
    (values,) = dict(pyfunc("diabetes").predict(pd.DataFrame(rows))).values()
    expected = [answer["prediction"] for answer in predictions(api, "diabetes", rows)]
    assert np.ravel(values) == pytest.approx(expected, rel=1e-5)


FORMS: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
    "split": lambda frame: {"json": {"dataframe_split": frame.to_dict(orient="split")}},
    "split, columns in another order": lambda frame: {
        "json": {"dataframe_split": frame[frame.columns[::-1]].to_dict(orient="split")}
    },
    "records": lambda frame: {"json": {"dataframe_records": frame.to_dict(orient="records")}},
    "instances, rows": lambda frame: {"json": {"instances": frame.to_dict(orient="records")}},
    "instances, columns": lambda frame: {"json": {"instances": frame.to_dict(orient="list")}},
    "inputs, columns": lambda frame: {"json": {"inputs": frame.to_dict(orient="list")}},
    "inputs, rows": lambda frame: {"json": {"inputs": frame.to_dict(orient="records")}},
    "params": lambda frame: {"json": {"dataframe_split": frame.to_dict(orient="split"), "params": {"temperature": 1}}},
    "params that are none": lambda frame: {"json": {"dataframe_split": frame.to_dict(orient="split"), "params": 5}},
    "CSV": lambda frame: {"content": frame.to_csv(index=False), "headers": CSV},
    "CSV with the index, as in MLflow's documentation": lambda frame: {"content": frame.to_csv(), "headers": CSV},
    "CSV with its encoding": lambda frame: {
        "content": frame.to_csv(index=False), "headers": {"Content-Type": "text/csv; charset=utf-8"}
    },
    "JSON with its encoding": lambda frame: {
        "content": f'{{"dataframe_split": {frame.to_json(orient="split")}}}',
        "headers": {"Content-Type": "application/json; charset=UTF-8"},
    },
}  # fmt: skip
NOT_TAKEN: dict[str, Callable[[pd.DataFrame], dict[str, Any]]] = {
    "MLflow 1: split": lambda frame: {
        "content": frame.to_json(orient="split"), "headers": {"Content-Type": "application/json; format=pandas-split"}
    },
    "another encoding": lambda frame: {
        "content": frame.to_csv(index=False), "headers": {"Content-Type": "text/csv; charset=latin-1"}
    },
    "two formats": lambda frame: {
        "json": {"inputs": frame.to_dict(orient="list"), "instances": frame.to_dict(orient="list")}
    },
    "split with more in it": lambda frame: {"json": {"dataframe_split": {**frame.to_dict(orient="split"), "x": 1}}},
    "bare rows": lambda frame: {"json": frame.to_dict(orient="records")},
}  # fmt: skip


@pytest.fixture
def mlflows_server(pyfunc: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """MLflow's own scoring server, which serves the same version."""
    monkeypatch.setenv(scoring_server._MLFLOW_IS_IN_SERVING_ENVIRONMENT.name, "true")  # as it does itself, for good
    return TestClient(scoring_server.init(pyfunc("iris")))


@pytest.mark.parametrize("form", FORMS)
def test_mlflows_formats_are_answered_as_by_its_own_server(
    api: Server, mlflows_server: TestClient, examples: dict[str, Example], form: str
) -> None:
    rows = examples["iris"].rows(10)
    request = FORMS[form](pd.DataFrame(rows))
    theirs, ours = mlflows_server.post("/invocations", **request), httpx.post(f"{api.uri}/invocations", **request)
    assert (theirs.status_code, ours.status_code) == (200, 200), (theirs.text, ours.text)
    assert ours.json()["predictions"] == examples["iris"].expected(rows)
    assert [answer["label"] for answer in theirs.json()["predictions"]] == ours.json()["predictions"]


@pytest.mark.parametrize("form", NOT_TAKEN)
def test_what_mlflows_own_server_refuses_is_refused(
    api: Server, mlflows_server: TestClient, examples: dict[str, Example], form: str
) -> None:
    request = NOT_TAKEN[form](pd.DataFrame(examples["iris"].rows(10)))
    theirs, ours = mlflows_server.post("/invocations", **request), httpx.post(f"{api.uri}/invocations", **request)
    assert 400 <= theirs.status_code < 500
    assert ours.status_code == (415 if theirs.status_code == 415 else 422), (theirs.text, ours.text)


# -- a client made of /openapi.json ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generated(api: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What openapi-python-client makes of /openapi.json, with a client of this API as `ours`."""
    folder = tmp_path_factory.mktemp("generated")
    document, config, package = folder / "openapi.json", folder / "config.yaml", folder / "generated_client"
    document.write_bytes(httpx.get(f"{api.uri}/openapi.json").content)
    config.write_text("post_hooks: []\n")
    options: list[str | Path] = ["--meta", "none", "--path", document, "--config", config, "--output-path", package]
    program = environments.program("openapi-python-client")
    made = subprocess.run([program, "generate", *options], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    warnings = [line for line in (made.stdout + made.stderr).splitlines() if line.startswith("WARNING")]
    assert warnings == ["WARNING parsing POST /invocations within mlflow."]  # of its CSV; JSON is there
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        client: Any = import_module("generated_client")
        client.ours = client.Client(base_url=api.uri)
        yield client


def call(generated: Any, operation: str, **arguments: Any) -> Any:
    """What a function of the generated client returns. operation: such as "predict.get_predict"."""
    return import_module(f"{generated.__name__}.api.{operation}").sync(client=generated.ours, **arguments)


def test_a_generated_client_predicts(generated: Any, api: Server, examples: dict[str, Example]) -> None:
    shapes, rows = import_module(f"{generated.__name__}.models"), examples["iris"].rows(3)
    body = [shapes.IrisRow(**row) for row in rows]
    expected = predictions(api, "iris", rows)
    one = call(generated, "predict.get_predict", **rows[0])
    several = call(generated, "predict.post_models_iris_predict", body=body)
    answers = [one, call(generated, "predict.post_predict", body=body[0]), *several]
    assert [type(answer) for answer in answers] == [shapes.IrisPrediction] * 5
    for answer, by_hand in zip(answers, [expected[0], expected[0], *expected], strict=True):
        assert answer.prediction == by_hand["prediction"]
        assert answer.probabilities.to_dict() == by_hand["probabilities"]


def test_a_generated_client_sends_labels(generated: Any, examples: dict[str, Example]) -> None:
    shapes, row = import_module(f"{generated.__name__}.models"), examples["iris"].rows(1)[0]
    asks = shapes.PostPredictFeedbackToken.TRUE
    answer = call(generated, "predict.post_predict", body=shapes.IrisRow(**row), feedback_token=asks)
    label = shapes.TokenFeedback(feedback_token=answer.feedback_token, label=answer.prediction.value)
    stored = call(generated, "feedback.post_feedback", body=label)
    assert (stored.stored, stored.correct) == (True, True)


def test_a_generated_client_speaks_the_protocols(
    generated: Any, examples: dict[str, Example], versions: dict[str, str]
) -> None:
    shapes, rows = import_module(f"{generated.__name__}.models"), examples["iris"].rows(3)
    data = [list(row.values()) for row in rows]
    tensor = shapes.InputTensor(name="x", shape=[3, 4], datatype="FP64", data=data)
    answer = call(generated, "v2.infer_iris", body=shapes.InferRequest(inputs=[tensor]))
    assert answer.outputs[0].data == examples["iris"].expected(rows)
    tensor.shape = [3, 5]
    refused = call(generated, "v2.infer_iris", body=shapes.InferRequest(inputs=[tensor]))
    assert isinstance(refused, shapes.InferInvalid)
    assert "send [n, 4]" in refused.error
    index = call(generated, "v2.repository_index_v2_repository_index_post")
    assert {entry.name: entry.version for entry in index} == versions
    records = shapes.PostInvocationsJsonBodyType1(dataframe_records=[shapes.IrisRow(**row) for row in rows])
    assert call(generated, "mlflow.post_invocations", body=records).predictions == examples["iris"].expected(rows)
