from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from app.api import keys as keys_module
from app.api.feedback_token import FeedbackTokens
from app.api.keys import Bucket, Keys
from app.api.main import create_app
from app.api.metrics import Metrics
from app.clients.mlflow import MlflowClient
from app.clients.model_api import WITH_TOKENS
from app.contract.errors import InferRefused, Refused
from app.registry.feedback_store import read
from app.runtime.api_keys import Client, Scope, key_digest, new_key
from app.runtime.processes import Server
from app.runtime.waiting import wait_until
from app.testing.api_keys import add_client, bearer
from app.testing.model_api import KEY, SETOSA, Example, absent_mlflow, cache_bundle, metric, publish, settings

Follow = Callable[..., TestClient]
Strict = tuple[TestClient, dict[str, str]]
SCOPES: tuple[Scope, ...] = ("predict", "feedback", "admin")
DATA = list(SETOSA.values())
INFER = {"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP64", "data": DATA}]}
# Every route that tells of models, by method, path and body.
PREDICT: list[tuple[str, str, Any]] = [
    ("GET", "/predict?" + "&".join(f"{name}={value}" for name, value in SETOSA.items()), None),
    ("POST", "/predict", SETOSA),
    ("POST", "/models/iris/predict", [SETOSA] * 100),
    ("POST", "/invocations", {"dataframe_records": [SETOSA]}),
    ("POST", "/v2/models/iris/infer", INFER),
    ("GET", "/v2", None),
    ("GET", "/v2/models/iris", None),
    ("POST", "/v2/repository/index", {}),
    ("GET", "/model", None),
    ("GET", "/models", None),
    ("GET", "/models/iris", None),
]
OPEN = [
    "/livez",
    "/readyz",
    "/ping",
    "/health",
    "/version",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/iris/ready",
]


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "LOOK_SECONDS", 0.05)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "clients"


@pytest.fixture
def start(full_cache: Path, folder: Path) -> Iterator[Callable[..., TestClient]]:
    """Starts an API that asks for keys; iris is served, MLflow is away."""
    clients: list[TestClient] = []

    def make(required: str = "predict,feedback") -> TestClient:
        values = {"default_model": "iris", "api_keys_required": required, "api_keys_dir": folder}
        client = TestClient(create_app(settings(full_cache, **values), absent_mlflow()))
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def strict(full_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strict]:
    """An API that asks for keys for everything, and the key of a client of-<scope> for each scope."""
    folder = tmp_path_factory.mktemp("keys") / "clients"
    keys: dict[str, str] = {scope: add_client(folder, f"of-{scope}", scope) for scope in SCOPES}
    values = {"default_model": "iris", "api_keys_required": "predict,feedback", "api_keys_dir": folder}
    with TestClient(create_app(settings(full_cache, **values), absent_mlflow())) as client:
        yield client, keys


@pytest.fixture
def storing(
    follow: Follow, mlflow: MlflowClient, model_name: str, examples: dict[str, Example], folder: Path
) -> Callable[..., TestClient]:
    """Starts an API that stores feedback on iris in MLflow, and asks for a key for it."""

    def make(required: str = "feedback") -> TestClient:
        publish(mlflow, model_name, examples["iris"].bundle)
        client = follow(default_model=model_name, api_keys_required=required, api_keys_dir=folder)
        wait_until(lambda: client.get("/readyz").status_code == 200)
        return client

    return make


def labels(client: TestClient, number: int, key: str = "") -> list[dict[str, Any]]:
    """So many labels for so many predictions."""
    headers = WITH_TOKENS | (bearer(key) if key else {})
    answers = client.post("/predict", json=[SETOSA] * number, headers=headers).json()
    return [{"feedback_token": answer["feedback_token"], "label": "setosa"} for answer in answers]


def refusals(client: TestClient, name: str, reason: str) -> float | None:
    return metric(client, "mlops_key_refusals_total", client=name, reason=reason)


# -- who is let in ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"), PREDICT, ids=[f"{method} {path.split('?')[0]}" for method, path, _ in PREDICT]
)
def test_what_tells_of_models_needs_the_scope_predict(strict: Strict, method: str, path: str, body: Any) -> None:
    client, keys = strict
    before = [refusals(client, *of) or 0 for of in (("", "no_key"), ("of-feedback", "scope"))]
    without = client.request(method, path, json=body)
    assert (without.status_code, without.headers["WWW-Authenticate"]) == (401, "Bearer")
    detail = without.json()["detail"]
    assert "no key was sent; send `Authorization: Bearer KEY` with a key that has the scope predict" in detail
    assert "`mlops keys create NAME --scopes predict`" in detail
    lacks = client.request(method, path, json=body, headers=bearer(keys["feedback"]))
    assert lacks.status_code == 403
    assert "of-feedback lacks the scope predict (it has: feedback)" in lacks.json()["detail"]
    of_protocol = path.startswith("/v2")
    shape = InferRefused if of_protocol else Refused
    for refused in (without, lacks):
        assert shape.model_validate(refused.json()).model_dump() == refused.json()
    for scope in ("predict", "admin"):
        assert client.request(method, path, json=body, headers=bearer(keys[scope])).status_code == 200
    assert [refusals(client, "", "no_key"), refusals(client, "of-feedback", "scope")] == [count + 1 for count in before]


@pytest.mark.parametrize("path", OPEN)
def test_health_metrics_and_documentation_need_no_key(strict: Strict, path: str) -> None:
    assert strict[0].get(path).status_code == 200


def test_a_refusal_is_counted_where_all_requests_are(start: Callable[..., TestClient]) -> None:
    client = start()
    assert client.post("/predict", json=SETOSA).status_code == 401
    assert metric(client, "mlops_requests_total", model="", status="401") == 1
    assert metric(client, "http_requests_total", handler="/predict", status="4xx") == 1


def test_feedback_alone_leaves_predictions_open(start: Callable[..., TestClient], folder: Path) -> None:
    key = add_client(folder, "shop", "predict")
    client = start("feedback")
    for method, path, body in PREDICT:
        assert client.request(method, path, json=body).status_code == 200, path
    (label,) = labels(client, 1)
    without = client.post("/feedback", json=label)
    assert without.status_code == 401
    assert "--scopes feedback`" in without.json()["detail"]
    lacks = client.post("/feedback/", json=label, headers=bearer(key))
    assert lacks.status_code == 403
    assert "lacks the scope feedback" in lacks.json()["detail"]


def test_a_key_is_asked_for_before_the_body_is_read(strict: Strict) -> None:
    client, _ = strict
    for path in ("/predict", "/feedback", "/models/nothing/predict"):
        assert client.post(path, content=b"[" * 2_000_000).status_code == 401, path


def test_without_required_keys_none_is_asked_for(client: TestClient) -> None:
    assert client.get("/predict", params=SETOSA, headers={"Authorization": "Bearer nonsense"}).status_code == 200
    assert "security" not in json.dumps(client.get("/openapi.json").json()).lower()


# -- what is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "no key was sent"),
        ([b""], "has no key"),
        ([b"Basic YWRtaW46eA=="], "is not `Bearer KEY`"),
        ([b"KEY"], "is not `Bearer KEY`"),
        ([b"Bearer"], "has no key"),
        ([b"Bearer "], "has no key"),
        ([b"Bearer mlops_short"], "no key of this API"),
        ([b"Bearer KEY KEY"], "no key of this API"),
        ([b"Bearer KEY,"], "no key of this API"),
        ([b"Bearer KEYx"], "no key of this API"),
        ([b"Bearer KEY\n"], "no key of this API"),
        (["Bearer schlüssel".encode()], "no key of this API"),
        ([b"Bearer \xff\xfe\x00"], "no key of this API"),
        ([b"Bearer " + b"k" * 10_000], "no key of this API"),
        ([b"Bearer KEY", b"Bearer KEY"], "more than one header"),
        ([b"Bearer OTHER"], "not known"),
    ],
)
def test_what_is_no_key_is_refused_with_a_reason(
    strict: Strict, caplog: pytest.LogCaptureFixture, sent: list[bytes], message: str
) -> None:
    client, keys = strict
    key, other = keys["predict"], new_key()
    headers = [
        (b"authorization", value.replace(b"KEY", key.encode()).replace(b"OTHER", other.encode())) for value in sent
    ]
    answer = client.get("/predict", params=SETOSA, headers=headers)
    assert answer.status_code == 401
    assert message in answer.json()["detail"]
    text = answer.text + caplog.text + client.get("/metrics").text
    assert not [secret for secret in (key, other, "YWRtaW46eA", "schl", "kkkk") if secret in text]


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_the_scheme_is_read_as_http_has_it(strict: Strict, form: str) -> None:
    client, keys = strict
    answer = client.get("/predict", params=SETOSA, headers={"Authorization": form.format(keys["predict"])})
    assert answer.status_code == 200


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_client_that_asks_too_often_is_told_when_to_come_back(start: Callable[..., TestClient], folder: Path) -> None:
    slow = add_client(folder, "slow", "predict", requests_per_second=0.01)
    other = add_client(folder, "other", "predict", requests_per_second=1000)
    client = start()
    assert client.get("/predict", params=SETOSA, headers=bearer(slow)).status_code == 200
    refused = client.get("/models", headers=bearer(slow))
    assert refused.status_code == 429
    assert 90 < int(refused.headers["Retry-After"]) <= 100
    assert "the limit of the client slow is 0.01 requests a second: send it again in" in refused.json()["detail"]
    assert refusals(client, "slow", "requests") == 1
    assert client.get("/predict", params=SETOSA, headers=bearer(other)).status_code == 200


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    bucket = Bucket(2, 0.5, lambda: now[0])
    assert [bucket.take(), bucket.take()] == [None, None]
    assert bucket.take() == 2.0
    now[0] = 1.5
    assert bucket.take() == 0.5
    now[0] = 2.0
    assert bucket.take() is None
    now[0] = 1000.0
    assert bucket.left() == 2
    assert bucket.take(5) == 0.0, "more than it holds is never taken, and it is full"
    assert bucket.left() == 2


def test_labels_of_a_day_are_limited_and_none_is_stored_beyond(
    storing: Callable[..., TestClient], mlflow: MlflowClient, folder: Path, model_name: str
) -> None:
    key = add_client(folder, "shop", "feedback", feedback_per_day=5)
    client = storing()
    items = labels(client, 8)
    assert client.post("/feedback", json=items, headers=bearer(key)).status_code == 429, "more than a day's at once"
    assert client.post("/feedback", json=items[:3], headers=bearer(key)).status_code == 201
    refused = client.post("/feedback", json=items[3:6], headers=bearer(key))
    assert refused.status_code == 429
    assert (
        "the limit of the client shop is 5 labels a day, of which 2 are left: nothing was stored;"
        in refused.json()["detail"]
    )
    assert 17_000 < int(refused.headers["Retry-After"]) <= 17_280, "the time until there is room for one more"
    assert refusals(client, "shop", "labels") == 2
    assert client.post("/feedback", json=[*items[3:5], {"label": 1}], headers=bearer(key)).status_code == 422
    assert client.post("/feedback", json=items[3:5], headers=bearer(key)).status_code == 201
    assert client.post("/feedback", json=items[5], headers=bearer(key)).status_code == 429
    stored = read(mlflow, model_name)
    tokens = FeedbackTokens(KEY.encode())
    assert {row["id"] for row in stored} == {tokens.open(item["feedback_token"]).prediction_id for item in items[:5]}
    assert {row["client"] for row in stored} == {"shop"}


def test_labels_that_cannot_be_stored_are_not_counted(start: Callable[..., TestClient], folder: Path) -> None:
    key = add_client(folder, "shop", "feedback", feedback_per_day=1)
    client = start("feedback")  # without MLflow
    (label,) = labels(client, 1)
    statuses = [client.post("/feedback", json=label, headers=bearer(key)).status_code for _ in range(2)]
    assert statuses == [503, 503]


def test_the_admin_has_no_limits_and_is_named_in_the_rows(
    storing: Callable[..., TestClient], mlflow: MlflowClient, folder: Path, model_name: str
) -> None:
    key = add_client(folder, "people", "admin")
    client = storing("predict,feedback")
    items = labels(client, 20, key)
    for item in items:
        assert client.post("/feedback", json=item, headers=bearer(key)).status_code == 201
    assert {row["client"] for row in read(mlflow, model_name)} == {"people"}


# -- the folder ------------------------------------------------------------------------------------------------------


def test_keys_come_and_go_without_a_restart(start: Callable[..., TestClient], folder: Path) -> None:
    client = start()

    def status(key: str) -> int:
        return client.get("/predict", params=SETOSA, headers=bearer(key)).status_code

    first = add_client(folder, "shop", "predict")
    wait_until(lambda: status(first) == 200)
    second = new_key()
    both = Client(scopes=["predict"], sha256=[key_digest(first), key_digest(second)])
    (folder / "shop").write_text(both.text())
    wait_until(lambda: status(second) == 200)
    assert status(first) == 200
    (folder / "shop").write_text(Client(scopes=["predict"], sha256=[key_digest(second)]).text())
    wait_until(lambda: status(first) == 401)
    assert status(second) == 200
    (folder / "shop").unlink()
    wait_until(lambda: status(second) == 401)


def test_a_limit_is_not_filled_by_a_change_of_others(start: Callable[..., TestClient], folder: Path) -> None:
    slow = add_client(folder, "slow", "predict", requests_per_second=0.001)
    client = start()
    assert client.get("/predict", params=SETOSA, headers=bearer(slow)).status_code == 200
    other = add_client(folder, "other", "predict")
    wait_until(lambda: client.get("/predict", params=SETOSA, headers=bearer(other)).status_code == 200)
    assert client.get("/predict", params=SETOSA, headers=bearer(slow)).status_code == 429


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda _: None, "there is no folder"), (lambda folder: folder.mkdir(), "is empty"),
     (lambda folder: folder.write_text(""), "cannot be read: Not a directory")],
    ids=["missing", "empty", "a file"],
)  # fmt: skip
def test_no_folder_or_an_empty_one_is_said(
    start: Callable[..., TestClient], folder: Path, make: Callable[[Path], object], message: str
) -> None:
    make(folder)
    client = start()
    answer = client.post("/predict", json=SETOSA, headers=bearer(new_key()))
    assert answer.status_code == 401
    assert "this API knows no key yet" in answer.json()["detail"]
    assert message in answer.json()["detail"]
    if folder.is_file():
        folder.unlink()
    key = add_client(folder, "first", "predict")
    wait_until(lambda: client.post("/predict", json=SETOSA, headers=bearer(key)).status_code == 200)


GOOD = {"scopes": ["predict"], "sha256": ["0" * 64]}


BROKEN: list[tuple[Any, str]] = [
    (b"", "Invalid JSON"),
    (b"\xff\xfe", "Invalid JSON"),
    (b'{"scopes": ["predict"], "sha', "Invalid JSON"),
    (b"[]", "should be an object"),
    ({"scopes": ["predict"]}, "sha256: Field required"),
    ({**GOOD, "scopes": []}, "scopes: "),
    ({**GOOD, "scopes": ["everything"]}, "scopes.0: "),
    ({**GOOD, "scopes": ["predict", "predict"]}, "scopes has something twice"),
    ({**GOOD, "sha256": []}, "sha256: "),
    ({**GOOD, "sha256": ["0" * 64, "1" * 64, "2" * 64]}, "sha256: "),
    ({**GOOD, "sha256": ["x" * 64]}, "sha256.0: "),
    ({**GOOD, "requests_per_second": 0}, "requests_per_second: "),
    ({**GOOD, "requests_per_second": "5"}, "requests_per_second: "),
    ({**GOOD, "feedback_per_day": -1}, "feedback_per_day: "),
    ({**GOOD, "feedback_per_day": 1.5}, "feedback_per_day: "),
    ({**GOOD, "scopes": ["admin"], "feedback_per_day": 5}, "the scope admin has no limits"),
    ({**GOOD, "more": 1}, "more: "),
    (json.dumps(GOOD).replace("}", ', "requests_per_second": NaN}').encode(), "requests_per_second: "),
    (json.dumps(GOOD).encode() + b" " * 20_000, "more than 10000 bytes"),
]


def test_broken_files_are_left_out_loudly_and_the_others_work(
    start: Callable[..., TestClient], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_client(folder, "good", "predict")
    for i, (content, _) in enumerate(BROKEN):
        (folder / f"broken{i}").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with caplog.at_level(logging.ERROR, "mlops.keys"):
        client = start()
    lines = {line.split()[2]: line for line in map(logging.LogRecord.getMessage, caplog.records) if "left out" in line}
    for i, (content, message) in enumerate(BROKEN):
        start_of_line = f"the client broken{i} is left out, its keys are refused: {folder}/broken{i}: "
        assert lines[f"broken{i}"].startswith(start_of_line), content
        assert message in lines[f"broken{i}"], content
    assert len(lines) == len(BROKEN)
    assert client.get("/predict", params=SETOSA, headers=bearer(key)).status_code == 200


def test_other_names_and_the_same_key_twice_are_left_out(
    start: Callable[..., TestClient], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_client(folder, "a", "predict")
    for name in ("b", "n" * 64, "with space", "-x"):
        (folder / name).write_bytes((folder / "a").read_bytes())
    (folder / "c").mkdir()
    (folder / "d").symlink_to("d")
    (folder / "e").symlink_to("nowhere")
    (folder / "..data").write_text("none of ours")
    with caplog.at_level(logging.ERROR, "mlops.keys"):
        client = start()
    assert "/b: the client a has the same key" in caplog.text
    assert "/c: " in caplog.text
    assert "/d: [Errno 40] Too many levels of symbolic links" in caplog.text
    assert caplog.text.count("a name is up to 63") == 3
    assert "..data" not in caplog.text
    assert client.get("/predict", params=SETOSA, headers=bearer(key)).status_code == 200


def kubernetes_secret(folder: Path, number: int, texts: dict[str, str]) -> None:
    """Write the folder as the kubelet does: a new folder, ..data moved to it in one step, links, the old one away."""
    made = folder / f"..{number}"
    made.mkdir(parents=True)
    for name, text in texts.items():
        (made / name).write_text(text)
    (folder / "..data_tmp").symlink_to(made.name)
    (folder / "..data_tmp").replace(folder / "..data")
    for name in texts:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for old in folder.iterdir():
        if old.is_symlink() and old.name != "..data" and old.name not in texts:
            old.unlink()
        elif old.is_dir() and not old.is_symlink() and old != made:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()


def test_whenever_the_folder_is_read_a_client_that_stays_is_known(folder: Path) -> None:
    """Looks as quickly as swaps, so that many a look falls into one."""
    key = new_key()
    stays = Client(scopes=["predict"], sha256=[key_digest(key)]).text()
    other = Client(scopes=["predict"], sha256=[key_digest(new_key())]).text()
    kubernetes_secret(folder, 0, {"stays": stays})
    keys = Keys(folder, ["predict"], Metrics())
    keys.look()
    swapping = threading.Event()

    def swap() -> None:
        for number in range(1, 400):
            kubernetes_secret(folder, number, {"stays": stays, f"other-{number % 7}": other})
        swapping.set()

    request = {"headers": [(b"authorization", f"Bearer {key}".encode())]}
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(swap)
        while not swapping.is_set():
            keys.look()
            assert keys.admit(request, "predict")
        done.result()
    keys.look()
    assert set(keys.clients) == {"stays", f"other-{399 % 7}"}


def test_what_is_read_of_a_folder_that_changes_meanwhile_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the kubelet removes the old files between the look at a link and the reading of what it leads to."""
    key = new_key()
    stays = Client(scopes=["predict"], sha256=[key_digest(key)]).text()
    kubernetes_secret(folder, 0, {"stays": stays})
    keys = Keys(folder, ["predict"], Metrics())
    keys.look()
    kubernetes_secret(folder, 1, {"stays": stays})

    def swapped(path: Path) -> Client:
        monkeypatch.undo()
        kubernetes_secret(folder, 2, {"stays": stays, "late": json.dumps(GOOD)})
        raise FileNotFoundError(path)

    monkeypatch.setattr(keys_module, "_client_of", swapped)
    request = {"headers": [(b"authorization", f"Bearer {key}".encode())]}
    for expected in ({"stays"}, {"stays", "late"}):
        keys.look()
        assert set(keys.clients) == expected
        assert keys.admit(request, "predict")


def test_a_mounted_secret_that_is_swapped_while_requests_run_fails_none(
    process: Callable[..., Server], examples: dict[str, Example], tmp_path: Path, folder: Path
) -> None:
    """A process of its own, which looks every two seconds."""
    cache_bundle(tmp_path / "cache", "iris", examples["iris"].bundle)
    key, late = new_key(), new_key()
    stays = Client(scopes=["predict"], sha256=[key_digest(key)]).text()
    kubernetes_secret(folder, 0, {"stays": stays})
    environment = {"MLOPS_API_KEYS_REQUIRED": "predict, feedback", "MLOPS_API_KEYS_DIR": str(folder)}
    server = process(MLFLOW_TRACKING_URI="http://127.0.0.1:9", **environment)
    assert server.process
    stop = threading.Event()

    def ask() -> set[int]:
        with httpx.Client(base_url=server.uri, headers=bearer(key)) as client:
            statuses = set()
            while not stop.is_set():
                statuses.add(client.get("/predict", params=SETOSA).status_code)
        return statuses

    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.uri, headers=bearer(late)) as client:
        asking = pool.submit(ask)
        try:
            for number in range(1, 10):
                kubernetes_secret(folder, number, {"stays": stays, f"other-{number}": "broken"})
            new = Client(scopes=["predict"], sha256=[key_digest(late)]).text()
            kubernetes_secret(folder, 100, {"stays": stays, "late": new})
            wait_until(lambda: client.get("/predict", params=SETOSA).status_code == 200)
        finally:
            stop.set()
        assert asking.result() == {200}
    log = "\n".join(server.process.lines())
    assert "clients with keys: late, stays" in log
    assert key not in log + server.process.tail(1000)
    assert late not in log


def test_a_wrong_setting_ends_the_process_in_words(process: Callable[..., Server]) -> None:
    with pytest.raises(RuntimeError, match="the API cannot start") as error:
        process(MLOPS_API_KEYS_REQUIRED="predict,everything")
    assert "MLOPS_API_KEYS_REQUIRED is 'predict,everything'" in str(error.value)
    assert "'predict' or 'feedback'" in str(error.value)


# -- the documentation -----------------------------------------------------------------------------------------------


def test_the_documentation_says_which_routes_need_a_key(start: Callable[..., TestClient], folder: Path) -> None:
    add_client(folder, "shop", "predict")
    client = start()
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    operations = [
        (path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()
    ]
    assert len(operations) > 20
    for path, method, operation in operations:
        answer = client.request(method, path.format(name="iris", version="1"))
        needs_key = operation.get("security") == [{"key": []}]
        assert (answer.status_code == 401) == needs_key, f"{method} {path}"
        assert needs_key == ({"401", "403", "429"} <= set(operation["responses"])), f"{method} {path}"


def test_the_documentation_asks_for_keys_where_they_are_required(start: Callable[..., TestClient]) -> None:
    paths = start("feedback").get("/openapi.json").json()["paths"]
    assert [path for path, item in paths.items() for operation in item.values() if "security" in operation] == [
        "/feedback"
    ]
