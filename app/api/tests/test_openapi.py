from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.api.main import create_app
from app.testing.model_api import SETOSA, absent_mlflow, settings


def test_every_endpoint_does_as_its_description_says(full_cache: Path) -> None:
    app = create_app(settings(full_cache, default_model="iris"), absent_mlflow())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    checks = [or_503, status_code_conformance, content_type_conformance, response_schema_conformance]
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    assert len(operations) > 20
    for operation in operations:

        @hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case: Any) -> None:
            case.call_and_validate(checks=checks)

        conforms()


def or_503(context: Any, response: Any, case: Any) -> None:
    """MLflow is away in this test, which feedback must say."""
    if response.status_code != 503:
        not_a_server_error(context, response, case)


def test_the_models_own_fields_are_described(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    paths = document["paths"]
    query = paths["/predict"]["get"]["parameters"]
    assert [parameter["name"] for parameter in query if parameter["in"] == "query"] == list(SETOSA)
    assert {parameter["schema"]["type"] for parameter in query if parameter["in"] == "query"} == {"number"}
    cars = paths["/models/cars/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert cars["schema"]["anyOf"][0] == {"$ref": "#/components/schemas/cars_row"}
    row = document["components"]["schemas"]["cars_row"]
    kinds = {name: item["type"] for name, item in row["properties"].items()}
    assert kinds == {"colour": "string", "doors": "integer", "weight": "number"}
    assert client.post("/models/cars/predict", json=cars["example"]).status_code == 200


def test_all_endpoints_are_described(client: TestClient) -> None:
    paths = set(client.get("/openapi.json").json()["paths"])
    for path in (
        "/predict",
        "/models/{name}",
        "/v2/models/iris/infer",
        "/invocations",
        "/feedback",
        "/livez",
        "/readyz",
    ):
        assert path in paths
    page = client.get("/docs")
    assert page.status_code == 200
    own = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert own
    assert [url for url in own if client.get(url).status_code != 200] == []  # no CDN: it works without internet
    assert client.get("/", follow_redirects=False).headers["location"] == "docs"


def test_without_a_model_the_rest_is_described(empty_client: TestClient) -> None:
    paths = empty_client.get("/openapi.json").json()["paths"]
    assert "/feedback" in paths
    assert "/predict" not in paths
