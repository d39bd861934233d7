"""Whatever a client sends, the answer says what is wrong with it and where; it is never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.api.row_schema import repeated
from app.testing.model_api import SETOSA, Example

COLOURS = ["red", "green", "blue", "red\0", "RED", "réd"]
FLOAT32_MAX = 3.4028234663852886e38
quick = hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def iris(**changes: str) -> bytes:
    """A row of Iris as JSON text, with some values replaced by other JSON text."""
    values = {name: json.dumps(value) for name, value in SETOSA.items()} | changes
    return ("{" + ",".join(f'"{name}":{value}' for name, value in values.items()) + "}").encode()


def cars(**changes: str) -> bytes:
    """A row of Cars, as `iris`."""
    values = {"colour": '"red"', "doors": "4", "weight": "1000"} | changes
    return ("{" + ",".join(f'"{name}":{value}' for name, value in values.items()) + "}").encode()


def field_errors(response: Any) -> dict[tuple[str | int, ...], str]:
    assert response.status_code == 422, response.text
    return {tuple(item["loc"]): item["msg"] for item in response.json()["detail"]}


@pytest.mark.parametrize(
    "value",
    ['"5.1"', "true", "null", "[5.1]", '{"a": 1}', "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e300", "3.5e38",
     "9" * 400, '""'],
)  # fmt: skip
def test_a_value_that_is_no_number_is_named(client: TestClient, value: str) -> None:
    errors = field_errors(client.post("/predict", content=iris(petal_length=value)))
    assert list(errors) == [("body", "petal_length")]
    assert "a number" in errors["body", "petal_length"]


@pytest.mark.parametrize("value", ["5", "-0.0", "1e-400", "3.4e38", "-3.4e38", "5e0", "123456789012345678901234567890"])
def test_any_finite_number_is_taken(client: TestClient, value: str) -> None:
    assert client.post("/predict", content=iris(petal_length=value)).status_code == 200


@pytest.mark.parametrize("value", ["1.5", "true", '"4"', "null", "9223372036854775808", "1e300", "NaN", "9" * 400])
def test_a_value_that_is_no_whole_number_is_named(client: TestClient, value: str) -> None:
    errors = field_errors(client.post("/models/cars/predict", content=cars(doors=value)))
    assert list(errors) == [("body", "doors")]
    assert "a whole number" in errors["body", "doors"]


@pytest.mark.parametrize("value", ["4.0", "-9223372036854775808", "9223372036854775807"])
def test_any_whole_number_is_taken(client: TestClient, value: str) -> None:
    assert client.post("/models/cars/predict", content=cars(doors=value)).status_code == 200


@pytest.mark.parametrize("value", ["5", "true", "null", '["red"]', '"' + "x" * 100_001 + '"'])
def test_a_value_that_is_no_text_is_named(client: TestClient, value: str) -> None:
    assert list(field_errors(client.post("/models/cars/predict", content=cars(colour=value)))) == [("body", "colour")]


@pytest.mark.parametrize("value", ['"red\\u0000"', '"\\ud83d\\ude00"', '""', '"' + "x" * 100_000 + '"'])
def test_any_text_is_taken(client: TestClient, value: str) -> None:
    assert client.post("/models/cars/predict", content=cars(colour=value)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"nonsense", b"{'a': 1}", b"\xff\xfe\x00", b"\x00", b"[" * 100_000, b'{"a":' * 100_000,
     cars(colour='"\\ud800"'), cars(colour='"\\udc00\\ud800"'), b'"\xed\xa0\x80"', iris() + b"x", b"[" + iris(),
     b"%5B", b"5,"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer", "/invocations", "/feedback"])
def test_a_body_that_is_not_json_is_422(client: TestClient, path: str, body: bytes) -> None:
    errors = field_errors(client.post(path, content=body))
    assert list(errors) == [("body",)]
    assert "empty" in errors["body",] or "not valid JSON" in errors["body",]


@pytest.mark.parametrize("body", [b"null", b"5", b'"text"', b"true", b"[]", b"[5]", b"[[]]", b"{}", b"[{}]", b"NaN"])
@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer", "/invocations", "/feedback"])
def test_json_of_another_form_is_422(client: TestClient, path: str, body: bytes) -> None:
    assert field_errors(client.post(path, content=body))


def test_each_missing_feature_is_named(client: TestClient) -> None:
    errors = field_errors(client.post("/predict", json={"sepal_length": 5.1}))
    assert set(errors) == {("body", name) for name in SETOSA if name != "sepal_length"}


def test_an_extra_field_is_named(client: TestClient) -> None:
    errors = field_errors(client.post("/predict", json={**SETOSA, "petal_lenght": 1}))
    assert "petal_length" in errors["body", "petal_lenght"]


def test_in_an_array_the_row_is_named(client: TestClient) -> None:
    errors = field_errors(client.post("/predict", json=[SETOSA, {**SETOSA, "petal_width": "x"}, 5]))
    assert set(errors) == {("body", 1, "petal_width"), ("body", 2)}


def test_thousands_of_problems_make_a_short_answer(client: TestClient) -> None:
    response = client.post("/predict", json=[{}] * 5000)
    assert len(field_errors(response)) == 21
    assert "19980 more" in response.json()["detail"][-1]["msg"]


@pytest.mark.parametrize(
    "value", ["abc", "", "nan", "inf", "-inf", "Infinity", "1e999", "1e39", "1,5", "0x10", "%00", "%ff", "5;6", "true"]
)
def test_a_query_value_that_is_no_number_is_named(client: TestClient, value: str) -> None:
    query = "&".join(f"{name}={5.1 if name != 'petal_length' else value}" for name in SETOSA)
    assert list(field_errors(client.get(f"/predict?{query}"))) == [("query", "petal_length")]


def test_a_query_is_checked_for_missing_extra_and_double_fields(client: TestClient) -> None:
    assert len(field_errors(client.get("/predict"))) == 4
    assert list(field_errors(client.get("/predict", params={**SETOSA, "colour": "red"}))) == [("query", "colour")]
    errors = field_errors(client.get("/predict", params=[*SETOSA.items(), ("petal_width", 0.2)]))
    assert "more than once" in errors["query", "petal_width"]


@pytest.mark.parametrize("doors", ["4.5", "x", "9223372036854775808", "9" * 5000])
def test_a_query_value_that_is_no_whole_number_is_named(client: TestClient, doors: str) -> None:
    response = client.get("/models/cars/predict", params={"colour": "red", "doors": doors, "weight": 1})
    assert list(field_errors(response)) == [("query", "doors")]


def test_a_query_value_of_a_number_feature_is_parsed(client: TestClient) -> None:
    assert client.get("/models/cars/predict?colour=red&doors=4&weight=1e3").status_code == 200
    assert client.get("/models/cars/predict?colour=red&doors=4.0&weight=%2B1000").status_code == 200


MAX = 1024 * 1024


@pytest.mark.parametrize(
    "path", ["/predict", "/models/slow/predict", "/v2/models/iris/infer", "/invocations", "/feedback"]
)
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_over_the_limit_is_413(client: TestClient, path: str, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b" " * 65536] * 17

    response = client.post(path, content=chunks() if chunked else b" " * (MAX + 1))
    assert response.status_code == 413
    assert "1 MiB" in response.json()["detail"]


def test_a_body_at_the_limit_is_read(client: TestClient) -> None:
    assert client.post("/predict", content=iris().ljust(MAX)).status_code == 200


def test_values_far_out_of_a_models_range_are_no_500(client: TestClient) -> None:
    row = dict.fromkeys(SETOSA, FLOAT32_MAX)
    for name in ("iris", "slow"):
        assert client.post(f"/models/{name}/predict", json=row).status_code in (200, 422)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5) | st.sampled_from([*SETOSA]), inner)
    ),
    max_leaves=20,
)
number = st.floats(-1e30, 1e30, allow_nan=False) | st.integers(-(10**20), 10**20)


@quick
@given(value=anything)
@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer", "/invocations", "/feedback"])
def test_any_json_is_answered_or_refused(client: TestClient, path: str, value: Any) -> None:
    response = client.post(path, content=json.dumps(value).encode())
    assert response.status_code in (200, 422)


@quick
@given(row=st.fixed_dictionaries(dict.fromkeys(SETOSA, number | anything)))
def test_any_values_are_answered_or_refused_by_name(client: TestClient, row: dict[str, Any]) -> None:
    response = client.post("/predict", content=json.dumps(row).encode())
    good = {
        name
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FLOAT32_MAX
    }
    if good == set(SETOSA):
        assert response.status_code == 200
    else:
        assert {location[1] for location in field_errors(response)} == set(SETOSA) - good


@quick
@given(body=st.binary(max_size=200))
@pytest.mark.parametrize("path", ["/predict", "/v2/models/iris/infer", "/invocations", "/feedback"])
def test_any_bytes_are_answered_or_refused(client: TestClient, path: str, body: bytes) -> None:
    assert client.post(path, content=body).status_code in (200, 422)
    assert client.post(path, content=body, headers={"content-type": "text/csv"}).status_code in (200, 422)


@quick
@given(query=st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=60))
def test_any_query_is_refused_in_words(client: TestClient, query: str) -> None:
    assert field_errors(client.get(f"/predict?{query}"))


@quick
@given(row=st.fixed_dictionaries(dict.fromkeys(SETOSA, number)))
def test_any_valid_row_is_answered_as_the_estimator_answers(
    client: TestClient, examples: dict[str, Example], row: dict[str, float]
) -> None:
    answer = client.post("/predict", json=row)
    assert answer.status_code == 200
    assert [answer.json()["prediction"]] == examples["iris"].expected([row])
    assert (
        client.get("/predict", params={k: repr(v) for k, v in row.items()}).json()["prediction"]
        == answer.json()["prediction"]
    )


@quick
@given(
    row=st.fixed_dictionaries(
        {
            "colour": st.sampled_from(COLOURS) | st.text(st.characters(codec="utf-8"), max_size=20),
            "doors": st.integers(-(2**24), 2**24),
            "weight": st.floats(-(2.0**99), 2.0**99, width=32),
        }
    )
)
def test_any_valid_row_of_mixed_types_is_answered_as_the_estimator_answers(
    client: TestClient, examples: dict[str, Example], row: dict[str, Any]
) -> None:
    answer = client.post("/models/cars/predict", json=row)
    assert answer.status_code == 200
    assert [answer.json()["prediction"]] == examples["cars"].expected([row])


@given(names=st.lists(st.sampled_from(["a", "b", "c", "", "é"]) | st.text(max_size=2), max_size=40))
def test_repeated_names_are_those_that_are_counted_twice(names: list[str]) -> None:
    assert repeated(names) == sorted({name for name in names if names.count(name) > 1})


def test_a_column_that_is_twice_among_many_is_named(client: TestClient) -> None:
    columns = [f"c{i}" for i in range(20_000)]
    body = {"dataframe_split": {"columns": [*columns, "c777"], "data": []}}
    assert "the column c777 is there more than once" in next(
        iter(field_errors(client.post("/invocations", json=body)).values())
    )
    query = "&".join(f"{name}=1" for name in [*columns[:2000], "c777"])
    assert list(field_errors(client.get(f"/predict?{query}"))) == [("query", "c777")]
