"""Every rule in Prometheus' own `promtool test rules`: alerts fire when they should, drift is the library's PSI."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import ROOT, named, render_chart
from test_dashboard_definitions import BUILT_IN, GATE, KUBE_STATE, RETRAINER, of_api

from app.registry.reference import psi

ALERTS = {
    *("ApiDown", "ApiErrorRatio", "ApiLatency", "NoModel", "SwapFailed", "ReplicaVersionsDiffer", "FeatureDrift"),
    *("PredictionDrift", "LiveAccuracyLow", "TrainingFailed", "TrainingOverdue", "VolumeNearlyFull", "TargetDown"),
}
RETRAIN = {"FeatureDrift", "PredictionDrift", "LiveAccuracyLow"}
KUBELET = {"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
NS = 'namespace="mlops"'
API = f'{NS},job="mlops-model-api"'
INFO = f'mlops_model_info{{{NS},pod="a",model="iris",version="1"}}'
Series = dict[str, str]

# alert -> (series that make it fire, its labels; series that do not). Values are at each minute, from minute 0 on.
CASES: dict[str, tuple[Series, dict[str, str], Series]] = {
    "ApiDown": (
        {f'up{{{API},pod="a"}}': "0x120", f'up{{{API},pod="b"}}': "0x120"},
        {},
        {f'up{{{API},pod="a"}}': "1x120", f'up{{{API},pod="b"}}': "0x120"},  # one is enough
    ),
    "ApiErrorRatio": (
        {
            f'mlops_requests_total{{{NS},pod="a",model="iris",version="1",status="200"}}': "0+90x120",
            f'mlops_requests_total{{{NS},pod="b",model="iris",version="1",status="500"}}': "0+10x120",
        },
        {"model": "iris"},
        {
            f'mlops_requests_total{{{NS},pod="a",model="iris",version="1",status="200"}}': "0+90x120",
            f'mlops_requests_total{{{NS},pod="b",model="iris",version="1",status="422"}}': "0+90x120",
            f'mlops_requests_total{{{NS},pod="b",model="iris",version="1",status="500"}}': "0+1x120",
        },
    ),
    "ApiLatency": (
        {
            f'mlops_request_duration_seconds_bucket{{{NS},model="iris",version="1",le="0.5"}}': "0+90x120",
            f'mlops_request_duration_seconds_bucket{{{NS},model="iris",version="1",le="1.0"}}': "0+100x120",
            f'mlops_request_duration_seconds_bucket{{{NS},model="iris",version="1",le="+Inf"}}': "0+100x120",
        },
        {},
        {
            f'mlops_request_duration_seconds_bucket{{{NS},model="iris",version="1",le="0.5"}}': "0+100x120",
            f'mlops_request_duration_seconds_bucket{{{NS},model="iris",version="1",le="+Inf"}}': "0+100x120",
        },
    ),
    "NoModel": (
        {f'up{{{API},pod="a"}}': "1x120", f'mlops_model_info{{{NS},pod="a",model="diabetes",version="1"}}': "1x120"},
        {"model": "iris"},
        {f'up{{{API},pod="a"}}': "1x120", INFO: "1x120"},
    ),
    "SwapFailed": (
        # the first failure is the series' first value
        {f'mlops_swap_failures_total{{{NS},pod="a",model="iris",version="2",reason="golden"}}': "_x115 1x5"},
        {"model": "iris", "version": "2", "reason": "golden"},
        {f'mlops_swap_failures_total{{{NS},pod="a",model="iris",version="2",reason="golden"}}': "_x20 1x100"},
    ),
    "ReplicaVersionsDiffer": (
        {INFO: "1x120", f'mlops_model_info{{{NS},pod="b",model="iris",version="2"}}': "1x120"},
        {"model": "iris"},
        # a promotion: for some seconds one has it, and the other not yet
        {INFO: "1x120", f'mlops_model_info{{{NS},pod="b",model="iris",version="2"}}': "_x118 1x2"},
    ),
    "TrainingFailed": (
        {
            f'mlops_deployment_last_failure_timestamp_seconds{{{NS},deployment="train/iris"}}': "2000x120",
            f'mlops_deployment_last_success_timestamp_seconds{{{NS},deployment="train/iris"}}': "1000x120",
        },
        {"deployment": "train/iris"},
        {
            f'mlops_deployment_last_failure_timestamp_seconds{{{NS},deployment="train/iris"}}': "1000x120",
            f'mlops_deployment_last_success_timestamp_seconds{{{NS},deployment="train/iris"}}': "2000x120",
            f'mlops_deployment_last_failure_timestamp_seconds{{{NS},deployment="promote/promote"}}': "3000x120",
        },
    ),
    "TrainingOverdue": (
        # two hours after 1970 begins
        {f'mlops_deployment_last_success_timestamp_seconds{{{NS},deployment="train/iris"}}': "-2700000x120"},
        {"deployment": "train/iris"},
        {f'mlops_deployment_last_success_timestamp_seconds{{{NS},deployment="train/iris"}}': "-86400x120"},
    ),
    "VolumeNearlyFull": (
        {
            f'kubelet_volume_stats_available_bytes{{{NS},persistentvolumeclaim="mlops-mlflow"}}': "9x120",
            f'kubelet_volume_stats_capacity_bytes{{{NS},persistentvolumeclaim="mlops-mlflow"}}': "100x120",
        },
        {"persistentvolumeclaim": "mlops-mlflow"},
        {
            f'kubelet_volume_stats_available_bytes{{{NS},persistentvolumeclaim="mlops-mlflow"}}': "11x120",
            f'kubelet_volume_stats_capacity_bytes{{{NS},persistentvolumeclaim="mlops-mlflow"}}': "100x120",
            'kubelet_volume_stats_available_bytes{namespace="theirs",persistentvolumeclaim="x"}': "0x120",
            'kubelet_volume_stats_capacity_bytes{namespace="theirs",persistentvolumeclaim="x"}': "100x120",
        },
    ),
    "TargetDown": (
        {f'up{{{NS},job="mlops-mlflow",pod="m"}}': "0x120"},
        {"job": "mlops-mlflow", "pod": "m"},
        {
            f'up{{{NS},job="mlops-mlflow",pod="m"}}': "1x115 0x5",
            f'up{{{API},pod="a"}}': "0x120",  # ApiDown is about those
            'up{namespace="theirs",job="theirs"}': "0x120",
        },
    ),
}
SHARES = [0.4, 0.3, 0.2, 0.1, 0.0]


def drift(name: str, label: str, rates: list[float], version: str = "1", pods: int = 2) -> Series:
    """Counters per bucket, of `rates` rows a minute in all, on so many pods; and the training's shares."""
    found = {}
    for i, (rate, share) in enumerate(zip(rates, SHARES, strict=True)):
        labels = f'{NS},model="iris",version="{version}",{label.replace("#", str(i))}'
        counted = {"feature": "mlops_feature_bucket_total", "prediction": "mlops_predictions_total"}[name]
        for pod in "abc"[:pods]:
            found[f'{counted}{{{labels},pod="{pod}"}}'] = f"0+{rate / pods}x120"
            found[f'mlops_{name}_reference_share{{{labels},pod="{pod}"}}'] = f"{share}x120"
    return found


FEATURE, PREDICTION = 'feature="bmi",bucket="#"', 'label="#"'
SHIFTED, STABLE = [0, 0, 2, 4, 4], [4, 3, 2, 1, 0]  # rows a minute
FEEDBACK = f'mlops_feedback_total{{{NS},pod="a",model="iris",version="1",correct='
THRESHOLD = f'mlops_gate_threshold{{{NS},pod="a",model="iris",version="1",metric="accuracy"}}'
CASES["FeatureDrift"] = (
    {INFO: "1x120", **drift("feature", FEATURE, SHIFTED)},
    {"model": "iris", "version": "1", "feature": "bmi"},
    {INFO: "1x120", **drift("feature", FEATURE, STABLE)},
)
CASES["PredictionDrift"] = (
    {INFO: "1x120", **drift("prediction", PREDICTION, SHIFTED)},
    {"model": "iris", "version": "1"},
    {INFO: "1x120", **drift("prediction", PREDICTION, STABLE)},
)
CASES["LiveAccuracyLow"] = (
    {INFO: "1x120", THRESHOLD: "0.85x120", FEEDBACK + '"true"}': "0+8x120", FEEDBACK + '"false"}': "0+2x120"},
    {"model": "iris", "version": "1"},
    {INFO: "1x120", THRESHOLD: "0.85x120", FEEDBACK + '"true"}': "0+9x120", FEEDBACK + '"false"}': "0+1x120"},
)


def groups(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = named(render_chart(values), "PrometheusRule", "mlops-monitoring")["spec"]["groups"]
    return found


def rules(values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [rule for group in groups(values) for rule in group["rules"]]


def alerts(values: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules(values) if "alert" in rule}


def promtool(folder: Path, *tests: dict[str, Any], values: dict[str, Any] | None = None) -> None:
    """Run `promtool test rules`; fails with what it says."""
    program = shutil.which("promtool")
    assert program, "promtool is missing: install Prometheus (Debian: apt-get install prometheus)"
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups(values)}))
    suite = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": list(tests)}
    (folder / "tests.yaml").write_text(json.dumps(suite))
    done = subprocess.run([program, "test", "rules", "tests.yaml"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def case(series: Series, *, alert: str = "", expected: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": numbers} for name, numbers in series.items()],
        "alert_rule_test": [{"eval_time": "2h", "alertname": alert, "exp_alerts": expected or []}],
    }


def value(query: str, expected: dict[str, float], series: Series, at: str = "2h") -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": numbers} for name, numbers in series.items()],
        "promql_expr_test": [
            {"expr": query, "eval_time": at, "exp_samples": [{"labels": n, "value": v} for n, v in expected.items()]}
        ],
    }


def test_there_are_thirteen_and_each_has_a_test() -> None:
    assert set(alerts()) == set(CASES) == ALERTS


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_it_is_silent_when_it_should_be(name: str, tmp_path: Path) -> None:
    promtool(tmp_path, case(CASES[name][2], alert=name))


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_it_fires_when_it_should(name: str, tmp_path: Path) -> None:
    """Once, with its labels; and what people read has the names in it, and no number of twenty digits."""
    series, labels, _ = CASES[name]
    rule = alerts()[name]
    program = shutil.which("promtool")
    assert program, "promtool is missing: install Prometheus (Debian: apt-get install prometheus)"
    # promtool compares annotations, too: those it got are read from what it says against none
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups()}))
    test = case(series, alert=name, expected=[{"exp_labels": rule["labels"] | labels, "exp_annotations": {"x": "y"}}])
    suite = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "tests.yaml").write_text(json.dumps(suite))
    said = subprocess.run([program, "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True)
    got = (said.stdout + said.stderr).partition("got:")[2]
    fired = re.findall(r"Labels:\{(.*?)\}\s+Annotations:\{(.*?)\}\s*\n?\s*\]", got, re.DOTALL)
    assert len(fired) == 1, said.stdout + said.stderr
    found = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', fired[0][0]))
    assert found == {"alertname": name, **rule["labels"], **labels}
    told = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', fired[0][1]))
    assert set(told) == {"summary", "description", "runbook_url"}
    for text in (told["summary"], told["description"]):
        assert "{{" not in text
        assert "<no value>" not in text
        assert not re.search(r"\d{7}|\d\.\d{5}", text), text
    for label in ("model", "deployment", "persistentvolumeclaim"):
        if label in labels:
            assert labels[label] in told["summary"], told["summary"]


@pytest.mark.parametrize(("kind", "label"), [("feature", FEATURE), ("prediction", PREDICTION)])
@pytest.mark.parametrize("rates", [SHIFTED, STABLE, [2, 2, 2, 2, 2], [10, 0, 0, 0, 0]])
def test_the_index_is_the_librarys(kind: str, label: str, rates: list[float], tmp_path: Path) -> None:
    """Of the sum over two replicas."""
    labels = '{feature="bmi", model="iris", namespace="mlops", version="1"}'
    if kind == "prediction":
        labels = '{model="iris", namespace="mlops", version="1"}'
    name = f"mlops:{kind}_psi"
    # promtool compares to the last digit but one or two: round both
    query = f"round({name}, 0.000001)"
    expected = round(psi(SHARES, rates), 6)
    promtool(tmp_path, value(query, {labels: expected}, {INFO: "1x120", **drift(kind, label, rates)}))


@pytest.mark.parametrize(
    ("series", "why"),
    [
        ({INFO: "1x120", **drift("feature", FEATURE, [r / 4 for r in SHIFTED])}, "150 rows in the window are too few"),
        ({INFO: "1x120", **drift("feature", FEATURE, SHIFTED, version="7")}, "version 7 is not in service"),
        (drift("feature", FEATURE, SHIFTED), "nothing is in service"),
    ],
)
def test_there_is_no_index(series: Series, why: str, tmp_path: Path) -> None:
    promtool(tmp_path, value("mlops:feature_psi", {}, series), case(series, alert="FeatureDrift"))


def test_a_restarted_replica_makes_no_drift(tmp_path: Path) -> None:
    """Its counters begin at 0 again."""
    series = drift("feature", FEATURE, STABLE)
    restarted = {n: re.sub(r"0\+([\d.]+)x120", r"0+\1x90 0+\1x30", v) for n, v in series.items()}
    assert restarted != series
    promtool(tmp_path, case({INFO: "1x120", **restarted}, alert="FeatureDrift"))


def test_when_a_new_version_is_in_service_the_alert_is_over(tmp_path: Path) -> None:
    """Though the window still has the rows that the one before was asked about."""
    series = {
        INFO: "1x118",
        f'mlops_model_info{{{NS},pod="a",model="iris",version="2"}}': "_x119 1x2",
        **drift("feature", FEATURE, SHIFTED),
    }
    series[INFO] = "1x117 stale"
    promtool(tmp_path, case(series, alert="FeatureDrift"))


def test_thresholds_are_values(tmp_path: Path) -> None:
    drifted = {INFO: "1x120", **drift("feature", FEATURE, SHIFTED)}
    for values in ({"drift": {"featurePsi": 20}}, {"drift": {"minRows": 5000}}):
        promtool(tmp_path, case(drifted, alert="FeatureDrift"), values={"monitoring": values})
    for name, values in (
        ("ApiErrorRatio", {"errorRatio": 0.2}),
        ("ApiLatency", {"latencySeconds": 2}),
        ("LiveAccuracyLow", {"accuracyMinRows": 1000}),
        ("TrainingOverdue", {"trainingMaxAgeDays": 60}),
        ("VolumeNearlyFull", {"volumeFreeRatio": 0.05}),
    ):
        promtool(tmp_path, case(CASES[name][0], alert=name), values={"monitoring": {"rules": values}})


def test_every_alert_says_what_why_and_what_to_do() -> None:
    sections = re.findall(r"^#+ (\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert rule["labels"]["namespace"] == "mlops", f"{name}: an existing stack's Alertmanager routes by it"
        assert (rule["labels"].get("action") == "retrain") == (name in RETRAIN), name
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}", name
        assert name in sections, f"docs/operations.md has no section {name}"


def test_links_can_lead_to_your_copy_of_the_documentation() -> None:
    url = "https://git.example.com/ml/platform/docs/operations.md"
    found = alerts({"monitoring": {"rules": {"runbooks": url}}})
    assert found["ApiDown"]["annotations"]["runbook_url"] == f"{url}#apidown"


def test_every_metric_exists_and_is_of_this_namespace() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = of_api() | recorded | RETRAINER | KUBE_STATE | KUBELET | BUILT_IN | GATE
    for rule in rules():
        for metric, labels in re.findall(r"([a-z_:]+)\{([^}]*)\}", rule["expr"]):
            assert metric in known, f"{rule.get('alert') or rule['record']}: {metric}"
            assert NS in labels, f"{rule.get('alert') or rule['record']}: {metric}{{{labels}}}"
        assert "${" not in str(rule), rule
