"""The fast route answers what FastAPI and pydantic alone would: status, body and what is counted."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from app.api.main import create_app
from app.api.router import Router
from app.api.row_decoder import Row
from app.api.served_model import ServedModel
from app.api.state import State
from app.api.tensors import DATATYPES
from app.registry.predictor import Predictions
from app.registry.reference import bucket_counts
from app.testing.model_api import Example, absent_mlflow, cache_bundle, settings
from app.testing.plain_api import plain_app

AT_ONCE = 24  # requests, so that there are batches
# What a client may send in place of a value, as JSON.
ODD = (
    "null", "true", "false", '""', '"5.1"', '"setosa"', "[]", "[1]", "{}", "0", "-0.0", "1", "5.0", "-7", "1e3", "1E+2",
    "5.5", "3.4e38", "3.5e38", "-3.5e38", "1e400", "-1e400", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "2147483648", "1" + "0" * 400, "NaN", "Infinity", "-Infinity", "01", "+1", ".5", "5.",
    "0x1", '"\\u00e9"', '"\\ud83d\\ude00"', '"\\ud800"', '"a\\u0000b"', '"tab\tinside"', '"\\x"', "'red'", "red",
    "1 2", "1e-400", "1.7976931348623157e308", "5e-324", "0.1e1", "4.0000000000000001",
    '"2026-03-01"', '"2026-03-01 10:00"', '"2026-03-01T10:00:00.5+02:00"', '"2026-02-30"', '"0001-01-01T00:00+01:00"',
)  # fmt: skip
EXTRA = (
    "", '"id": "a", ', '"id": null, ', '"parameters": {"a": 1}, ', '"parameters": null, ', '"id": 5, ',
    '"outputs": [{"name": "x"}], ', '"outputs": [{"name": "prediction_id"}], ', '"outputs": 5, ', '"more": 1, ',
)  # fmt: skip
# The first four are read as JSON.
CONTENT_TYPES = (
    "application/json", "application/json; charset=UTF-8", "text/plain", "", "application/json; charset=utf-16",
    "application/json; format=pandas-split", "application/vnd.apache.parquet", "text/csv",
)  # fmt: skip


class Sent(NamedTuple):
    """A request of this test. name: of the model that the body is for."""

    path: str
    body: bytes
    name: str
    content_type: str = "application/json"


class Requests:
    """Makes requests, good ones and such with a mistake."""

    def __init__(self, examples: dict[str, Example], models: dict[str, ServedModel], seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.rows = {name: example.rows(60) for name, example in examples.items()}
        self.models = models

    def make(self) -> Sent:
        name = self.random.choice(list(self.rows))
        form = self.random.choice([self.predict, self.predict, self.invocations, self.infer])
        sent = form(name)
        if self.random.random() < 0.06:
            return sent._replace(body=self.broken(sent.body))
        return sent

    def predict(self, name: str) -> Sent:
        path = f"/models/{name}/predict"
        if self.random.random() < 0.5:
            return Sent(path, self.row(name).encode(), name)
        return Sent(path, self.array([self.row(name) for _ in range(self.count())]).encode(), name)

    def invocations(self, _: str) -> Sent:
        name, form = "iris", self.random.choice(["records", "split", "instances", "inputs", "columns", "csv", "two"])
        rows = [self.row(name) for _ in range(self.count())]
        lists = [self.values(name) for _ in range(self.count())]
        columns = list(self.rows[name][0])
        if self.random.random() < 0.2:
            self.random.shuffle(columns)
        if form == "csv":
            lines = [",".join(columns), *(value.strip("[]") for value in lists)]
            if self.random.random() < 0.2:  # the index, which pandas writes
                lines = [f"{i or ''},{line}" for i, line in enumerate(lines)]
            text = "\n".join(lines)
            kind = self.pick(["text/csv", "text/csv; charset=utf-8", *CONTENT_TYPES], 0.1)
            return Sent("/invocations", text.encode("utf-8", "surrogatepass"), name, kind)
        content = {
            "records": f'{{"dataframe_records": {self.array(rows)}}}',
            "split": f'{{"dataframe_split": {{"columns": {json.dumps(columns)}, "data": {self.array(lists)}}}}}',
            "instances": f'{{"instances": {self.array(self.random.choice([rows, lists]))}}}',
            "inputs": f'{{"inputs": {self.array(lists)}, "params": {{"a": 1}}}}',
            "columns": json.dumps({"inputs": {key: [row[key] for row in self.rows[name][:3]] for key in columns}}),
            "two": f'{{"inputs": {self.array(lists)}, "instances": {self.array(lists)}}}',
        }[form]
        kind = self.pick(list(CONTENT_TYPES), 0.1)
        return Sent("/invocations", content.encode("utf-8", "surrogatepass"), name, kind)

    def infer(self, name: str) -> Sent:
        rows = self.random.sample(self.rows[name], self.random.choice([1, 1, 2, 7]))
        features, n = self.models[name].bundle.features, len(rows)
        if self.random.random() < 0.5:
            matrix = self.pick(["features", "predict", "x", features[0].name], 0.3)
            shape = self.random.choice([[n, len(features)], [n]]) if len(features) == 1 else [n, len(features)]
            data = [row[feature.name] for row in rows for feature in features]
            inputs = [self.tensor(matrix, shape, "FP64", data)]
        else:
            shape = self.random.choice([[n], [n, 1]])
            inputs = [self.tensor(f.name, shape, DATATYPES[f.dtype], [row[f.name] for row in rows]) for f in features]
            if self.random.random() < 0.1:
                inputs.append(self.random.choice(inputs))
            self.random.shuffle(inputs)
        body = f'{{{self.pick(list(EXTRA), 0.3)}"inputs": [{", ".join(inputs)}]}}'
        return Sent(f"/v2/models/{name}/infer", body.encode("utf-8", "surrogatepass"), name)

    def tensor(self, name: str, shape: list[int], datatype: str, data: list[Any]) -> str:
        texts = [self.value(value) for value in data]
        datatype = self.pick([datatype, "FP32", "INT64", "BOOL", "BYTES", "FP8"], 0.1)
        shape = self.pick([shape, [len(data)], [], [0], [-1, 1], [1, 1, 1]], 0.1)
        flat = self.pick([f"[{', '.join(texts)}]", f"[[{', '.join(texts)}]]", "[]", "5"], 0.1)
        return f'{{"name": {json.dumps(name)}, "shape": {json.dumps(shape)}, "datatype": "{datatype}", "data": {flat}}}'

    # -- parts ---------------------------------------------------------------------------------------------------

    def pick(self, choices: list[Any], odd: float) -> Any:
        """The first, or with this probability any other."""
        return self.random.choice(choices[1:]) if self.random.random() < odd else choices[0]

    def count(self) -> int:
        return self.random.choice([0, 1, 1, 2, 3, 5, 17, 60])

    def value(self, value: Any) -> str:
        return self.random.choice(ODD) if self.random.random() < 0.01 else json.dumps(value)

    def row(self, name: str) -> str:
        row = self.random.choice(self.rows[name])
        fields = [(key, self.value(value)) for key, value in row.items()]
        if self.random.random() < 0.06:
            key, value = self.random.choice(fields)
            self.random.choice([
                lambda: fields.remove((key, value)),
                lambda: fields.append((key, self.random.choice(ODD))),
                lambda: fields.append(("colour_of_money", "1")),
                lambda: fields.append(("", "1")),
                lambda: self.random.shuffle(fields),
            ])()  # fmt: skip
        space = self.random.choice(["", " ", "\n", "\r\n\t"])
        return space + "{" + ", ".join(f"{json.dumps(key)}:{space}{value}" for key, value in fields) + "}" + space

    def values(self, name: str) -> str:
        values = [self.value(value) for value in self.random.choice(self.rows[name]).values()]
        if self.random.random() < 0.03:
            values.pop() if self.random.random() < 0.5 else values.append("1")
        return f"[{', '.join(values)}]"

    def array(self, items: list[str]) -> str:
        if items and self.random.random() < 0.04:
            items = [*items, self.random.choice(ODD)]
        return f"[{', '.join(items)}]"

    def broken(self, body: bytes) -> bytes:
        at = self.random.randrange(len(body) + 1)
        return self.random.choice([
            body[:at], body[at:], b"", body + b"}", body + b" x", b"\xef\xbb\xbf" + body, b"/* a */" + body,
            body[:at] + b"\xff" + body[at:], body[:at] + b"," + body[at:], body.replace(b":", b"", 1), b"[" * 300,
            b"null", b"[null]",
        ])  # fmt: skip


@pytest.fixture
def models(examples: dict[str, Example], narrow: Example) -> dict[str, Example]:
    """The models of all tests, and one of a single feature."""
    return {**examples, "narrow": narrow}


@pytest.fixture
def app(models: dict[str, Example], tmp_path: Path) -> Router:
    """All these models, iris by default, MLflow away."""
    for name, model in models.items():
        cache_bundle(tmp_path, name, model.bundle)
    return create_app(settings(tmp_path, default_model="iris"), absent_mlflow())


def state_of(app: Router) -> State:
    assert isinstance(app.state, State)
    return app.state


def models_of(app: Router) -> dict[str, ServedModel]:
    return state_of(app).models.current


def run(app: Router, work: Callable[[httpx.AsyncClient, httpx.AsyncClient], Awaitable[None]]) -> list[Any]:
    """Let the work talk to the app and to the plain one; returns what the plain one predicted."""
    predicted: list[tuple[str, list[Row], Predictions]] = []

    async def go() -> None:
        async with app.lifespan(app):
            plain = plain_app(state_of(app).models, predicted)
            async with (
                httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://fast") as fast_client,
                httpx.AsyncClient(transport=httpx.ASGITransport(plain), base_url="http://plain") as plain_client,
            ):
                await work(fast_client, plain_client)

    asyncio.run(go())
    return predicted


def without_ids(body: bytes) -> Any:
    """The answer in a form in which 1 and 1.0 differ, as does another order of fields."""
    content = json.loads(body)
    if isinstance(content, dict) and "outputs" in content:
        content["id"] = content["id"] if len(content["id"]) < 36 else ""
        for output in content["outputs"]:
            if output["name"] == "prediction_id":
                output["data"] = [""] * len(output["data"])
    for answer in content if isinstance(content, list) else [content]:
        if "prediction_id" in answer:
            answer["prediction_id"] = ""
        if "prediction_ids" in answer:
            answer["prediction_ids"] = [""] * len(answer["prediction_ids"])
    return repr(content)


@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_requests_are_answered_alike(app: Router, models: dict[str, Example], seed: int) -> None:
    statuses: Counter[tuple[str, int]] = Counter()

    async def compare(fast: httpx.AsyncClient, plain: httpx.AsyncClient) -> None:
        made = Requests(models, models_of(app), seed)
        for _ in range(50):
            some = [made.make() for _ in range(AT_ONCE)]
            got = await asyncio.gather(*(send(fast, sent) for sent in some))
            for sent, answer in zip(some, got, strict=True):
                expected = await send(plain, sent)
                assert answer.status_code == expected.status_code, (sent, answer.text, expected.text)
                assert without_ids(answer.content) == without_ids(expected.content), sent
                statuses[sent.path.rsplit("/", 1)[-1], answer.status_code] += 1

    predicted = run(app, compare)
    for path in ("predict", "invocations", "infer"):
        assert statuses[path, 200] > 50
        assert statuses[path, 422] > 20
    for name, served in models_of(app).items():
        rows = [row for model, some, _ in predicted if model == name for row in some]
        labels = [label for model, _, some in predicted if model == name for label in some.labels]
        columns = [*zip(*rows, strict=True), tuple(labels)]
        references = [reference for _, reference in served.meter.references]
        expected = [bucket_counts(*pair).tolist() for pair in zip(references, columns, strict=True)]
        assert served.meter.counts() == expected, f"what was counted of {name}"
    assert sum(statuses.values()) == sum(
        sum(counts.statuses.values()) for counts in state_of(app).metrics.requests.of_predictions().values()
    )


async def send(client: httpx.AsyncClient, sent: Sent) -> httpx.Response:
    return await client.post(sent.path, content=sent.body, headers={"Content-Type": sent.content_type})
