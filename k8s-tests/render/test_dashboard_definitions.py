"""The committed dashboards: what their definition makes, valid, explained, and asking for metrics that there are."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import dashboards as definition
import pytest
import yaml
from dashboard_queries import FOLDER, Query, dashboards, metrics, panels, queries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_rules import known, promtool, rules

TUTORIAL = {
    "Requests per minute by status",
    "Median latency",
    "Share of requests under 100 ms",
    "p90 latency",
}
NAMES = sorted(dashboards())
each = pytest.mark.parametrize("name", NAMES)


def loaded(name: str) -> dict[str, Any]:
    return dashboards()[name]


def test_the_committed_files_are_what_the_definition_makes() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == definition.files(), (
        "the dashboards are stale: run `make dashboards` and commit them"
    )


@each
def test_the_schema_library_knows_every_field(name: str) -> None:
    """What it does not know it drops when it reads."""
    register_default_plugins()
    committed = loaded(name)
    read = json.loads(json.dumps(Dashboard.from_json(loaded(name)), cls=JSONEncoder))
    for annotation in committed["annotations"]["list"]:
        for field in definition.ANNOTATION:  # of Prometheus' data source, and in no schema
            del annotation[field]
    assert read == committed


@each
def test_no_panel_lies_on_another(name: str) -> None:
    places: dict[str, set[tuple[int, int]]] = {}
    for panel in loaded(name)["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24, f"{panel['title']}: {at}"
        squares = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        for title, others in places.items():
            assert not squares & others, f"{panel['title']} is on {title}"
        places[panel["title"]] = squares


def test_titles_uids_and_ids_come_once() -> None:
    committed = dashboards().values()
    titles = [panel["title"] for dashboard in committed for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles), sorted(title for title in titles if titles.count(title) > 1)
    assert {dashboard["uid"]: dashboard["title"] for dashboard in committed} == {
        "mlops-model-api": "Model API",
        "mlops-model-quality": "Model quality",
        "mlops-platform": "Platform",
        "mlops-loop": "Loop",
    }
    for dashboard in committed:
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(set(ids)) == len(ids), dashboard["title"]
        rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
        assert len(set(rows)) == len(rows), dashboard["title"]


@each
def test_every_panel_has_a_unit_a_description_and_a_link(name: str) -> None:
    unit_names = {value for value in vars(units).values() if isinstance(value, str)}
    runbooks = {alert.lower() for alert in rules("alert")}
    for panel in panels(loaded(name)):
        assert panel["fieldConfig"]["defaults"]["unit"] in unit_names, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert len(panel["description"]) > 25, panel["title"]
        assert set(re.findall(r"docs/alerts\.md#(\w+)", panel["description"])) <= runbooks, panel["title"]
        (link,) = panel["links"]
        assert link["title"], panel["title"]
        assert re.match(r"http://(api|ui|mlflow|prefect|prometheus)\.localhost:8080(/|$)", link["url"]), panel["title"]


@each
def test_variables_choose_data_source_namespace_and_model(name: str) -> None:
    dashboard = loaded(name)
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "namespace", "model"]
    everything = json.dumps(dashboard["panels"])
    for variable in ("${datasource}", "$namespace", "$model"):
        assert variable in everything, f"nothing asks for {variable}"
    for panel in panels(dashboard):
        for about in (panel, *panel["targets"]):
            assert about["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


@each
def test_colours_are_those_of_the_theme(name: str) -> None:
    """Named ones, which Grafana has a light and a dark shade of, and no fixed background."""
    text = json.dumps(dashboards()[name])
    assert not re.search(r'"#[0-9a-fA-F]{3,8}"|rgba?\(', text)
    colors = set(re.findall(r'"(?:color|fixedColor|iconColor)": "([^"]+)"', text))
    assert colors <= {"green", "orange", "red", "blue", "purple", "text", "transparent"}


def test_the_tutorials_panels_are_there() -> None:
    assert {panel["title"] for panel in panels(loaded("model-api.json"))} >= TUTORIAL


def test_every_query_is_promql(tmp_path: Path) -> None:
    """As recording rules, since promtool of any version reads those."""
    all_queries = queries()
    as_rules = [{"record": f"query:{number}", "expr": query.expr} for number, query in enumerate(all_queries)]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": as_rules}]}))
    done = promtool("check", "rules", "--lint=none", file)
    numbers = {int(number) for number in re.findall(r"query:(\d+)", done.stderr)}
    assert done.returncode == 0, f"{[all_queries[number] for number in numbers]}\n{done.stderr}"
    assert f"{len(all_queries)} rules found" in done.stdout


def test_every_metric_is_one_that_there_is() -> None:
    there_are = known()
    for query in queries():
        assert metrics(query.expr), f"{query}: a selector has no braces, so this test does not see it"
        assert not metrics(query.expr) - there_are, f"{query}: unknown metrics"


def test_every_series_is_of_the_namespace_that_is_chosen() -> None:
    """But for those of rules and alerts, which are of one namespace."""
    without = set(rules("record")) | {"ALERTS", "ALERTS_FOR_STATE"}
    for query in queries("elsewhere"):
        for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", query.expr):
            assert ('namespace="elsewhere"' in matchers) == (name not in without), f"{query}: {name}"


def test_queries_have_no_variable_left() -> None:
    assert len(queries()) > 50
    for query in queries():
        assert not re.search(r"\$[a-zA-Z_{]", query.expr), query
    assert isinstance(queries()[0], Query)


# A made-up hour in half-minutes: version 1 is served, at 600 s an alert becomes true, the training ends at 780 s, and
# version 2 is served from 900 s on. Of four predictions three are setosa; of four requests one is slow, and one fails.
POD, IRIS = 'namespace="mlops", pod="a"', 'model="iris"'
SERIES = {
    f'mlops_model_info{{{POD}, {IRIS}, version="1", serving="onnx", run_id="r"}}': "1x29 _x60",
    f'mlops_model_info{{{POD}, {IRIS}, version="2", serving="onnx", run_id="s"}}': "_x30 1x60",
    f'ALERTS_FOR_STATE{{alertname="FeatureDrift", action="retrain", {IRIS}, feature="x"}}': "_x19 600x20 _x60",
    'mlops_deployment_last_success_timestamp_seconds{namespace="mlops", deployment="train/iris"}': "100x25 780x80",
    f'mlops_predictions_total{{{POD}, {IRIS}, version="2", label="setosa"}}': "_x30 0+3x60",
    f'mlops_predictions_total{{{POD}, {IRIS}, version="2", label="virginica"}}': "_x30 0+1x60",
    f'mlops_requests_total{{{POD}, {IRIS}, version="2", status="200"}}': "0+60x90",
    f'mlops_requests_total{{{POD}, model="", version="", status="503"}}': "0+20x90",
    f'mlops_request_duration_seconds_bucket{{{POD}, {IRIS}, version="2", le="0.1"}}': "0+45x90",
    f'mlops_request_duration_seconds_count{{{POD}, {IRIS}, version="2"}}': "0+60x90",
}
FIGURES: list[tuple[str, str, dict[str, float]]] = [
    ("Requests per minute by status", "40m", {'{status="200"}': 120, '{status="503"}': 40}),
    ("Share of requests under 100 ms", "40m", {"{model='iris'}": 0.75}),
    ("Error ratio", "40m", {"{}": 0.25}),
    (
        "Class mix against training",
        "40m",
        {'{model="iris", label="setosa"}': 0.75, '{model="iris", label="virginica"}': 0.25},
    ),
    ("Drift to trained", "40m", {'{deployment="train/iris", model="iris", namespace="mlops"}': 180}),
    ("Drift to served", "40m", {'{model="iris"}': 300}),
    ("Promotions", "15m30s", {'{model="iris", version="2"}': 1}),
    ("Promotions", "20m", {}),
]


def test_the_figures_are_right(tmp_path: Path) -> None:
    """promtool computes the first query of each panel from made-up series."""
    first = {query.panel: query.expr for query in reversed(queries())}
    expected = [
        {
            "expr": first[panel],
            "eval_time": at,
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
        }
        for panel, at, samples in FIGURES
    ]
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    test = {"interval": "30s", "input_series": series, "promql_expr_test": expected}
    file = tmp_path / "figures.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "30s", "fuzzy_compare": True, "tests": [test]}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_bad_promql_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": [{"record": "query:0", "expr": "sum(up{"}]}]}))
    done = promtool("check", "rules", "--lint=none", file)
    assert done.returncode != 0
    assert "query:0" in done.stderr
