"""The rules of charts/monitoring, by promtool: each alert fires when it should and is silent when it should be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from chart import NAMESPACE, ROOT
from dashboard_queries import metrics
from profiles import PROFILES
from prometheus_rules import known, prometheus_rule, promtool, rules

from app.registry.reference import SHARE_FLOOR, psi

ALERTS = {
    *("ApiDown", "ApiErrorRatio", "ApiLatency", "NoModel", "SwapFailed", "ReplicaVersionsDiffer", "FeatureDrift"),
    *("PredictionDrift", "LiveAccuracyLow", "TrainingFailed", "TrainingOverdue", "VolumeNearlyFull", "TargetDown"),
    *("BackupOverdue", "ModelFileBroken", "ModelsRepositoryUnread", "CanaryReturned", "ChallengerFails"),
}
RETRAIN = {"FeatureDrift", "PredictionDrift", "LiveAccuracyLow"}
IRIS = {"model": "iris", "version": "2"}
RUNBOOK = "http://ui.localhost:8080/alerts#"
UP = "1x400"
Series = dict[str, str]


class Alert(NamedTuple):
    """One that fires. `labels` are those besides alertname and namespace."""

    labels: dict[str, str]
    summary: str
    description: str


class Case(NamedTuple):
    """What Prometheus sees, a sample every 15 s, and which alerts of the name fire when."""

    alert: str
    series: Series
    at: dict[str, list[Alert]]


def of(name: str, values: str, **labels: str) -> Series:
    """A series in promtool's notation: `0+5x240` goes up by 5 with each of 240 samples, `_x4` is not there yet.

    `stale` is what Prometheus notes when a target does not tell of a series any more.
    """
    matchers = ", ".join(f'{key}="{value}"' for key, value in {"namespace": NAMESPACE, **labels}.items())
    return {f"{name}{{{matchers}}}": values}


def api(name: str, values: str, pod: str = "a", **labels: str) -> Series:
    return of(name, values, pod=pod, job="mlops-model-api", **labels)


def up(values: str, pod: str = "a", job: str = "mlops-model-api") -> Series:
    return of("up", values, pod=pod, job=job)


def served(version: str = "2", values: str = UP, pod: str = "a", model: str = "iris") -> Series:
    return api("mlops_model_info", values, pod, model=model, version=version, run_id=f"r{version}", serving="onnx")


def challenger(what: str, values: str, pod: str = "a") -> Series:
    return api(f"mlops_challenger_{what}_total", values, pod, model="iris", version="3")


def requests(status: str, values: str, model: str = "iris") -> Series:
    return api("mlops_requests_total", values, model=model, version="2" if model else "", status=status)


def latencies(below: dict[str, str]) -> Series:
    """Requests by upper bound in seconds, as of a histogram."""
    name = "mlops_request_duration_seconds_bucket"
    return {key: v for bound, values in below.items() for key, v in api(name, values, le=bound, **IRIS).items()}


def rows(
    counts: Sequence[float],
    shares: Sequence[float],
    pod: str = "a",
    version: str = "2",
    feature: str = "petal_width",
    missing: str = "",
) -> Series:
    """Counts per bucket of a feature, a minute after the series began, and the shares in training."""
    series: Series = {}
    for bucket, (count, share) in enumerate(zip(counts, shares, strict=True)):
        labels = {"model": "iris", "version": version, "feature": feature, "bucket": str(bucket)}
        series |= api("mlops_feature_bucket_total", f"{missing} 0x3 {count:g}x400", pod, **labels)
        series |= api("mlops_feature_reference_share", f"{missing} {share!r}x400", pod, **labels)
    return series


def predicted(counts: dict[str, float], shares: dict[str, float]) -> Series:
    series: Series = {}
    for label, count in counts.items():
        series |= api("mlops_predictions_total", f"0x3 {count:g}x400", label=label, **IRIS)
        series |= api("mlops_prediction_reference_share", f"{shares[label]!r}x400", label=label, **IRIS)
    return series


def labelled(right: int, wrong: int) -> Series:
    """Feedback."""
    series = api("mlops_feedback_total", f"0x3 {right}x400", correct="true", **IRIS)
    return series | api("mlops_feedback_total", f"0x3 {wrong}x400", correct="false", **IRIS)


def gate(threshold: str) -> Series:
    return api("mlops_gate_threshold", threshold, metric="accuracy", **IRIS)


def ended(what: str, values: str, deployment: str = "train/iris") -> Series:
    name = f"mlops_deployment_last_{what}_timestamp_seconds"
    return of(name, values, pod="r", job="mlops-retrainer", deployment=deployment)


def volume(available: str, claim: str = "mlops-mlflow") -> Series:
    labels = {"job": "kubelet", "node": "n", "persistentvolumeclaim": claim}
    free = of("kubelet_volume_stats_available_bytes", available, **labels)
    return free | of("kubelet_volume_stats_capacity_bytes", "100x400", **labels)


def backup(scheduled: str, successful: str = "", cronjob: str = "mlops-backup-mlflow") -> Series:
    """When a backup was due last, and when it succeeded last."""
    labels = {"cronjob": cronjob, "job": "mlops-kube-state-metrics"}
    due = of("kube_cronjob_status_last_schedule_time", scheduled, **labels)
    return due | (of("kube_cronjob_status_last_successful_time", successful, **labels) if successful else {})


def worker(name: str, values: str, **labels: str) -> Series:
    return of(name, values, pod="worker-1", job="mlops-prefect-worker", **labels)


def promtool_says(folder: Path, *tests: dict[str, Any]) -> str:
    """What promtool has to say against tests of the rendered rules; "" if nothing."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(prometheus_rule()["spec"]))
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": [*tests]}))
    done = promtool("test", "rules", file)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def promtool_agrees(folder: Path, *tests: dict[str, Any]) -> None:
    against = promtool_says(folder, *tests)
    assert not against, against


def given(series: Series) -> dict[str, Any]:
    return {"interval": "15s", "input_series": [{"series": k, "values": v} for k, v in series.items()]}


def expected(name: str, at: str, alerts: list[Alert]) -> dict[str, Any]:
    entries = []
    for alert in alerts:
        labels = {"namespace": NAMESPACE, "severity": severity(name), **alert.labels}
        labels |= {"action": "retrain"} if name in RETRAIN else {}
        annotations = {"summary": alert.summary, "description": alert.description}
        annotations |= {"part_of": "mlops", "runbook_url": f"{RUNBOOK}{name.lower()}"}
        entries.append({"exp_labels": labels, "exp_annotations": annotations})
    return {"alertname": name, "eval_time": at, "exp_alerts": entries}


def severity(name: str) -> str:
    return "critical" if name in {"ApiDown", "ApiErrorRatio", "NoModel"} else "warning"


API_DOWN = Alert(
    {"job": "mlops-model-api"},
    "No pod of the model API answers",
    "Prometheus reaches no pod of mlops-model-api in mlops, or there is none. Nobody gets a prediction.",
)
ERRORS = Alert(
    {"model": "iris"},
    "10% of the requests to iris fail",
    "For five minutes, more than 0.05 of the requests to iris were answered with a status of 5xx; now it is 10%.",
)
SLOW = Alert(
    {"model": "iris"},
    "The slowest requests to iris take 950ms",
    "For ten minutes, one in a hundred requests to iris took longer than 0.5 s; now it is 950ms.",
)
NO_MODEL = Alert(
    {"model": "iris"},
    "No version of iris is in service",
    "The model API answers, but none of its pods has had a version of iris, the default model, for ten minutes.",
)
STAYS_OUT = Alert(
    {**IRIS, "reason": "golden"},
    "Version 2 of iris does not get into service (golden)",
    "It is in production in MLflow, but pods of the model API did not take it up: golden failed. The version before"
    " stays in service.",
)
CHALLENGER_FAILS = Alert(
    {"model": "iris", "version": "3"},
    "The challenger of iris, version 3, fails",
    "Pods of the model API cannot load it beside production, or it failed on rows of requests, which the gate counts as"
    " answered otherwise. Nobody gets its answers; production's do not depend on it.",
)
DIFFERENT = Alert(
    {"model": "iris"},
    "2 versions of iris are in service at once",
    "Pods of the model API have served different versions of iris for three minutes: the answer depends on which one is"
    " asked.",
)
RETURNED = Alert(
    {"model": "iris", "version": "3"},
    "Version 3 of iris, the canary, was returned",
    "It failed on requests or could not be loaded, so pods of the model API took it out of service. Production answers"
    " its requests. `mlops promote iris --canary 0` ends the canary.",
)
TRAINING_FAILED = Alert(
    {"model": "iris", "deployment": "train/iris"},
    "The last training of iris failed",
    "A run of train/iris failed or crashed at 1970-01-01 00:01:00 +0000 UTC, and none has succeeded since. The version"
    " in service stays.",
)
OVERDUE = Alert(
    {"model": "iris", "deployment": "train/iris"},
    "iris was last trained 31d 0h 15m 0s ago",
    "No run of train/iris has succeeded for more than 30 days.",
)
BROKEN = Alert(
    {"model": "iris"},
    "The model file iris.py cannot be used",
    "Trainings of iris fail with the reason, which the description of train/iris on Prefect has, too. The version in"
    " service stays, and so do all other models.",
)
REPOSITORY = "https://git.example.com/models"
UNREAD = Alert(
    {"repository": REPOSITORY},
    "The repository of model files was last read 17m 0s ago",
    f"{REPOSITORY} cannot be read or registered. Runs that read their model files from it fail; the versions in service"
    " stay.",
)
FULL = Alert(
    {"persistentvolumeclaim": "mlops-mlflow"},
    "Only 5% of the volume mlops-mlflow is free",
    "The volume of the claim mlops-mlflow in mlops has less free than 0.1 of its size. When it is full, what writes to"
    " it fails.",
)


BACKUP_OVERDUE = Alert(
    {"cronjob": "mlops-backup-mlflow"},
    "The backup mlops-backup-mlflow has not succeeded",
    "The backup mlops-backup-mlflow in mlops was due more than an hour ago and has not succeeded since. Older"
    " backups are kept until one does.",
)


def target_down(job: str, pod: str) -> Alert:
    return Alert(
        {"job": job, "pod": pod},
        f"Prometheus does not reach {pod}",
        f"The pod {pod} of {job} in mlops has not answered with its metrics for five minutes.",
    )


FEATURE = [0.1] * 10
SHIFTED = [0, 0, 0, 5, 5, 10, 20, 40, 60, 100]  # rows of a feature whose deciles were these buckets
AS_TRAINED = [24] * 10
LABELS = {"setosa": 1 / 3, "versicolor": 1 / 3, "virginica": 1 / 3}
ONE_LABEL = {"setosa": 20, "versicolor": 20, "virginica": 200}
FEATURE_DRIFT = Alert(
    {**IRIS, "feature": "petal_width"},
    "petal_width of iris is not like in training",
    f"The values of petal_width that version 2 of iris was asked in the last 1h have a population stability index of"
    f" {psi(FEATURE, SHIFTED):.2f}, more than 0.25. The retrainer trains the model anew.",
)
PREDICTION_DRIFT = Alert(
    IRIS,
    "The predictions of iris are not spread like the labels in training",
    f"What version 2 of iris predicted in the last 1h has a population stability index of"
    f" {psi(list(LABELS.values()), list(ONE_LABEL.values())):.2f}, more than 0.25. The retrainer trains the model"
    " anew.",
)
LOW = Alert(
    IRIS,
    "iris is right in only 75% of the cases that were checked",
    "Of the predictions by version 2 of iris whose true label came in the last 1h, 75% were right: less than the"
    " version's own gate asks for. The retrainer trains the model anew.",
)

CASES = {
    "API down": Case("ApiDown", up("1x4 0x40"), {"4m": [], "5m": [API_DOWN]}),
    "API without pods": Case("ApiDown", {}, {"2m45s": [], "3m15s": [API_DOWN]}),
    "API with one pod of two": Case("ApiDown", up("0x40") | up(UP, "b"), {"9m": []}),
    "API restarted": Case("ApiDown", up("1x4 0x8 1x40"), {"2m": [], "5m": []}),
    "errors": Case("ApiErrorRatio", requests("200", "0+9x80") | requests("500", "0+1x80"), {"4m": [], "9m": [ERRORS]}),
    "few errors": Case("ApiErrorRatio", requests("200", "0+99x80") | requests("500", "0+1x80"), {"15m": []}),
    "callers' errors": Case("ApiErrorRatio", requests("422", "0+9x80"), {"15m": []}),
    "one burst of errors": Case(
        "ApiErrorRatio",
        requests("200", "0x80") | requests("500", "0x20 30x60"),
        {f"{minute}m": [] for minute in range(4, 15)},
    ),
    "errors while there is no model": Case("ApiErrorRatio", requests("503", "0+9x80", model=""), {"15m": []}),
    "slow": Case(
        "ApiLatency", latencies({"0.5": "0+90x80", "1": "0+100x80", "+Inf": "0+100x80"}), {"9m": [], "12m": [SLOW]}
    ),
    "fast": Case("ApiLatency", latencies({"0.5": "0+100x80", "1": "0+100x80", "+Inf": "0+100x80"}), {"12m": []}),
    "no model": Case("NoModel", up(UP) | up(UP, "b") | served(model="cars"), {"9m": [], "11m": [NO_MODEL]}),
    "first training": Case("NoModel", up(UP) | served(values="_x34 1x80"), {"9m": [], "15m": []}),
    "no model, since no API": Case("NoModel", up("0x80"), {"15m": []}),
    "swap failed": Case(
        "SwapFailed",
        served("1") | api("mlops_swap_failures_total", "_x4 1 2 3 3 3 4x400", reason="golden", **IRIS),
        {"1m": [], "4m": [STAYS_OUT], "16m": [STAYS_OUT], "30m": []},
    ),
    "swap succeeded the second time": Case(
        "SwapFailed",
        served("1", "1x6 stale")
        | served("2", "_x7 1x80")
        | api("mlops_swap_failures_total", "_x4 1 2 2x80", reason="download", **IRIS),
        {f"{minute}m": [] for minute in range(1, 12)},
    ),
    "swap failed in one of two pods": Case(
        "SwapFailed",
        served("1") | served("2", pod="b") | api("mlops_swap_failures_total", "1 2 2 3x80", reason="golden", **IRIS),
        {"4m": [STAYS_OUT]},
    ),
    "canary returned by one of two pods": Case(
        "CanaryReturned",
        api("mlops_canary_returned", "0x400", model="iris", version="3")
        | api("mlops_canary_returned", "0x4 1x40 stale", "b", model="iris", version="3"),
        {"1m30s": [], "3m": [RETURNED], "13m": []},
    ),
    "canary that answers": Case(
        "CanaryReturned", api("mlops_canary_returned", "0x80", model="iris", version="3"), {"15m": []}
    ),
    "a challenger fails on rows": Case(
        "ChallengerFails",
        challenger("failed_rows", "0x7 12x400") | challenger("failed_rows", "0x400", "b"),
        {"1m": [], "4m": [CHALLENGER_FAILS], "20m": []},
    ),
    "a challenger cannot be loaded": Case(
        "ChallengerFails", challenger("load_failures", "_x4 1 2 3x400"), {"1m": [], "4m": [CHALLENGER_FAILS]}
    ),
    "a challenger is loaded the second time": Case(
        "ChallengerFails",
        challenger("load_failures", "_x4 1 2 2x400") | challenger("failed_rows", "_x5 0x400"),
        {f"{minute}m": [] for minute in range(1, 12)},
    ),
    "versions differ": Case("ReplicaVersionsDiffer", served("1") | served("2", pod="b"), {"2m": [], "4m": [DIFFERENT]}),
    "promotion": Case(
        "ReplicaVersionsDiffer",
        served("1", "1x20 stale")
        | served("2", "_x21 1x80")
        | served("2", "_x18 1x80", "b")
        | served("1", "1x17 stale", "b"),
        {f"{minute}m": [] for minute in range(3, 12)},
    ),
    "two models": Case("ReplicaVersionsDiffer", served("1") | served("2", model="cars"), {"9m": []}),
    "feature drift": Case(
        "FeatureDrift",
        served() | rows(SHIFTED, FEATURE) | rows(AS_TRAINED, FEATURE, feature="petal_length"),
        {"1m": [], "3m": [FEATURE_DRIFT], "59m": [FEATURE_DRIFT], "70m": []},
    ),
    "no feature drift": Case("FeatureDrift", served() | rows(AS_TRAINED, FEATURE), {"3m": [], "59m": []}),
    "too few rows": Case(
        "FeatureDrift", served() | rows([n * 199 / 240 for n in SHIFTED], FEATURE), {"3m": [], "59m": []}
    ),
    "drift, then a pod restarts": Case(
        "FeatureDrift",
        served(values="1x40 stale stale 1x80") | rows(SHIFTED, FEATURE),
        {at: [FEATURE_DRIFT] for at in ("9m", "10m15s", "10m30s", "10m45s", "11m", "12m")},
    ),
    "drift, then a promotion": Case(
        "FeatureDrift",
        served("2", "1x40 stale")
        | served("3", "_x41 1x80")
        | rows(SHIFTED, FEATURE)
        | rows([0] * 10, FEATURE, version="3", missing="_x41"),
        {"9m": [FEATURE_DRIFT], "12m": [], "20m": []},
    ),
    "prediction drift": Case(
        "PredictionDrift", served() | predicted(ONE_LABEL, LABELS), {"1m": [], "3m": [PREDICTION_DRIFT], "70m": []}
    ),
    "no prediction drift": Case(
        "PredictionDrift", served() | predicted(dict.fromkeys(LABELS, 80), LABELS), {"3m": [], "59m": []}
    ),
    "low accuracy": Case(
        "LiveAccuracyLow", served() | gate("0.85x400") | labelled(75, 25), {"1m": [], "3m": [LOW], "70m": []}
    ),
    "accuracy as asked for": Case("LiveAccuracyLow", served() | gate("0.75x400") | labelled(75, 25), {"3m": []}),
    "low accuracy of few": Case("LiveAccuracyLow", served() | gate("0.85x400") | labelled(74, 25), {"3m": []}),
    "low accuracy, no gate": Case("LiveAccuracyLow", served() | labelled(75, 25), {"3m": []}),
    "training failed": Case(
        "TrainingFailed",
        ended("success", "30x400") | ended("failure", "_x4 60x400"),
        {"1m30s": [], "3m": [TRAINING_FAILED]},
    ),
    "first training failed": Case("TrainingFailed", ended("failure", "60x400"), {"3m": [TRAINING_FAILED]}),
    "training succeeded again": Case(
        "TrainingFailed",
        ended("success", "30x20 300x400") | ended("failure", "60x400"),
        {"3m": [TRAINING_FAILED], "6m": []},
    ),
    "promotion failed": Case("TrainingFailed", ended("failure", "60x400", "promote/promote"), {"3m": []}),
    "training overdue": Case("TrainingOverdue", ended("success", "-2678400x400"), {"5m": [], "15m": [OVERDUE]}),
    "training due": Case("TrainingOverdue", ended("success", "-2505600x400"), {"15m": []}),
    "model file broken": Case(
        "ModelFileBroken", worker("mlops_model_file_broken", "1x8 stale", model="iris"), {"90s": [BROKEN], "4m": []}
    ),
    "no model file broken": Case("ModelFileBroken", up(UP), {"15m": []}),
    "repository unread": Case(
        "ModelsRepositoryUnread",
        worker("mlops_models_repository_read_timestamp_seconds", "0x400", repository=REPOSITORY),
        {"15m": [], "17m": [UNREAD]},
    ),
    "repository read": Case(
        "ModelsRepositoryUnread",
        worker("mlops_models_repository_read_timestamp_seconds", "0+15x400", repository=REPOSITORY),
        {"60m": []},
    ),
    "volume nearly full": Case(
        "VolumeNearlyFull", volume("5x400") | volume("50x400", "mlops-postgres"), {"4m": [], "6m": [FULL]}
    ),
    "volume with room": Case("VolumeNearlyFull", volume("11x400"), {"15m": []}),
    "target down": Case(
        "TargetDown",
        up("1x4 0x80", "mlflow-1", "mlops-mlflow") | up(UP, "worker-1", "mlops-prefect-server"),
        {"5m": [], "7m": [target_down("mlops-mlflow", "mlflow-1")]},
    ),
    "one pod of the API down": Case(
        "TargetDown", up("0x80") | up(UP, "b"), {"4m": [], "6m": [target_down("mlops-model-api", "a")]}
    ),
    "API down, which is ApiDown's": Case("TargetDown", up("0x80") | up("0x80", "b"), {"15m": []}),
    "backup failed": Case(
        "BackupOverdue", backup(scheduled="100x8 1800x400", successful="130x400"), {"60m": [], "63m": [BACKUP_OVERDUE]}
    ),
    "backup never succeeded": Case("BackupOverdue", backup(scheduled="100x400"), {"59m": [], "61m": [BACKUP_OVERDUE]}),
    "backup done": Case("BackupOverdue", backup(scheduled="100x400", successful="130x400"), {"90m": []}),
    "a CronJob of somebody else": Case("BackupOverdue", backup(scheduled="100x400", cronjob="reports"), {"90m": []}),
    "target of somebody else": Case("TargetDown", up("0x80", "c", "others"), {"15m": []}),
}


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_not() -> None:
    fire = {case.alert for case in CASES.values() if any(case.at.values())}
    silent = {case.alert for case in CASES.values() if not any(case.at.values())}
    assert fire == silent == ALERTS == set(rules("alert"))


@pytest.mark.parametrize("title", CASES)
def test_an_alert_fires_when_it_should(title: str, tmp_path: Path) -> None:
    case = CASES[title]
    tests = {**given(case.series), "alert_rule_test": [expected(case.alert, at, fire) for at, fire in case.at.items()]}
    promtool_agrees(tmp_path, tests)


def test_what_happens_in_another_namespace_is_not_ours(tmp_path: Path) -> None:
    """With a kube-prometheus-stack, everybody's series are in one Prometheus."""
    tests = []
    for case in CASES.values():
        if case.alert != "ApiDown":  # it fires where no API runs
            other_series = {
                key.replace(f'namespace="{NAMESPACE}"', 'namespace="other"'): v for key, v in case.series.items()
            }
            tests.append({**given(other_series), "alert_rule_test": [expected(case.alert, at, []) for at in case.at]})
    other_series = {k.replace(f'"{NAMESPACE}"', '"other"'): v for k, v in up(UP).items()}
    tests.append({**given(other_series | up("0x80")), "alert_rule_test": [expected("ApiDown", "5m", [API_DOWN])]})
    promtool_agrees(tmp_path, *tests)


def test_a_platform_that_was_just_installed_is_quiet(tmp_path: Path) -> None:
    """Its first training takes four minutes, and people ask the API meanwhile."""
    series = up("_x2 0x4 1x80") | up("_x4 0x4 1x80", "b") | up("_x2 0x10 1x80", "m", "mlops-mlflow")
    series |= up("_x2 0x10 1x80", "p", "mlops-prefect-server") | up("_x2 0x6 1x80", "r", "mlops-retrainer")
    series |= requests("503", "_x6 0+2x12 24x80", model="") | requests("404", "_x6 0x80", model="")
    series |= served(values="_x22 1x80") | served(values="_x24 1x80", pod="b") | gate("_x22 0.85x80")
    series |= requests("200", "_x22 0+1x80") | requests("500", "_x22 0x80") | rows([0] * 10, FEATURE, missing="_x22")
    series |= ended("success", "_x20 300x80")
    quiet = [expected(name, f"{minute}m", []) for name in sorted(ALERTS) for minute in range(16)]
    promtool_agrees(tmp_path, {**given(series), "alert_rule_test": quiet})


def recorded(at: str, values: dict[str, float], absent: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Expectations: expressions of recorded series -> value, to a millionth; and those of which there is nothing."""
    checks = [
        {
            "expr": f"sum(abs({expr} - {value!r}) < bool 0.000001)",
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for expr, value in values.items()
    ]
    return checks + [{"expr": f"count({expr})", "eval_time": at, "exp_samples": []} for expr in absent]


RECORDED: dict[str, tuple[Series, list[dict[str, Any]]]] = {
    "PSI as in the registry": (
        served() | rows(SHIFTED, FEATURE) | predicted(ONE_LABEL, LABELS),
        recorded(
            "5m",
            {
                f'mlops:feature_psi{{namespace="{NAMESPACE}", model="iris", version="2", feature="petal_width"}}': psi(
                    FEATURE, SHIFTED
                ),
                f'mlops:prediction_psi{{namespace="{NAMESPACE}", model="iris", version="2"}}': psi(
                    list(LABELS.values()), list(ONE_LABEL.values())
                ),
                'mlops:feature_rows{model="iris", version="2", feature="petal_width"}': 240,
            },
        ),
    ),
    "buckets that are empty in training": (
        served() | rows([50, 150, 50], [0.0, 1.0, 0.0]),
        recorded("5m", {"mlops:feature_psi": psi([0.0, 1.0, 0.0], [50, 150, 50])}),
    ),
    "one bucket": (served() | rows([300], [1.0]), recorded("5m", {"mlops:feature_psi": 0})),
    "too few rows": (
        served() | rows([99, 100], [0.5, 0.5]),
        recorded("5m", {"mlops:feature_rows": 199}, ["mlops:feature_psi", "mlops:feature_share"]),
    ),
    "just enough rows": (
        served() | rows([150, 50], [0.5, 0.5]),
        recorded("5m", {"mlops:feature_rows": 200, "mlops:feature_psi": psi([0.5, 0.5], [150, 50])}),
    ),
    "replicas are summed": (
        served() | served(pod="b") | rows([100, 0, 20], [0.2, 0.3, 0.5]) | rows([0, 70, 30], [0.2, 0.3, 0.5], "b"),
        recorded("5m", {"mlops:feature_rows": 220, "mlops:feature_psi": psi([0.2, 0.3, 0.5], [100, 70, 50])}),
    ),
    "a pod that is gone counts as long as the window": (
        served()
        | rows([150, 50], [0.5, 0.5])
        | served(pod="b", values="1x60 stale")
        | {key: value.replace("x400", "x60 stale") for key, value in rows([0, 100], [0.5, 0.5], "b").items()},
        recorded("20m", {"round(mlops:feature_rows, 10)": 300}),
    ),
    "a counter that was reset": (
        served()
        | api("mlops_feature_bucket_total", "0x4 100x4 0x4 60x400", feature="x", bucket="0", **IRIS)
        | api("mlops_feature_bucket_total", "0x4 30x4 0x4 50x400", feature="x", bucket="1", **IRIS)
        | api("mlops_feature_reference_share", "0.5x400", feature="x", bucket="0", **IRIS)
        | api("mlops_feature_reference_share", "0.5x400", feature="x", bucket="1", **IRIS),
        recorded("10m", {"mlops:feature_rows": 240, "mlops:feature_psi": psi([0.5, 0.5], [160, 80])}),
    ),
    "a version that is not in service": (
        served("2") | rows(AS_TRAINED, FEATURE) | rows(SHIFTED, FEATURE, version="1"),
        recorded("5m", {"count(mlops:feature_psi)": 1}, ['mlops:feature_psi{version="1"}', "mlops:feature_rows > 240"]),
    ),
    "a version that was in service longer than the window": (
        served() | rows(SHIFTED, FEATURE),
        recorded("70m", {"mlops:feature_rows": 0}, ["mlops:feature_psi"]),
    ),
    "live accuracy": (
        served() | labelled(90, 30),
        recorded("5m", {"mlops:live_accuracy": 0.75}, ['mlops:live_accuracy{version!="2"}']),
    ),
    "live accuracy of few": (served() | labelled(90, 9), recorded("5m", {}, ["mlops:live_accuracy"])),
    "settings": ({}, recorded("0m", {'mlops:drift_settings{window="1h", min_rows="200"}': 1})),
}


@pytest.mark.parametrize("title", RECORDED)
def test_recorded_figures_are_right(title: str, tmp_path: Path) -> None:
    series, tests = RECORDED[title]
    promtool_agrees(tmp_path, {**given(series), "promql_expr_test": tests})


def test_recorded_labels_are_those_that_pages_and_dashboards_ask_for(tmp_path: Path) -> None:
    of_version = f'namespace="{NAMESPACE}", model="iris", version="2"'
    labels = {
        "mlops:feature_rows": f'{of_version}, feature="petal_width"',
        "mlops:feature_psi": f'{of_version}, feature="petal_width"',
        "mlops:prediction_psi": of_version,
        "mlops:live_accuracy": of_version,
        "mlops:drift_settings": 'window="1h", min_rows="200"',
    }
    tests = [
        {"expr": f"{name} * 0", "eval_time": "5m", "exp_samples": [{"labels": f"{{{expected}}}", "value": 0}]}
        for name, expected in labels.items()
    ]
    series = served() | rows(SHIFTED, FEATURE) | predicted(ONE_LABEL, LABELS) | labelled(90, 30)
    promtool_agrees(tmp_path, {**given(series), "promql_expr_test": tests})


def test_promtool_sees_a_wrong_figure(tmp_path: Path) -> None:
    series, _ = RECORDED["PSI as in the registry"]
    wrong = recorded("5m", {"mlops:feature_psi": psi(FEATURE, SHIFTED) + 0.001})
    assert "mlops:feature_psi" in promtool_says(tmp_path, {**given(series), "promql_expr_test": wrong})


def test_the_rules_are_rules(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(prometheus_rule()["spec"]))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_promtool_the_tests_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssertionError, match="`make test` builds it"):
        promtool("--version")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_what_it_is_and_where_help_is(name: str) -> None:
    rule = rules("alert")[name]
    assert rule["labels"]["severity"] == severity(name)
    assert rule["labels"].get("action") == ("retrain" if name in RETRAIN else None)
    assert set(rule["annotations"]) == {"summary", "description", "part_of", "runbook_url"}
    assert rule["annotations"]["description"].endswith(".")
    assert rule["annotations"]["runbook_url"] == RUNBOOK + name.lower()
    assert name.lower() in anchors(ROOT / "docs" / "alerts.md"), f"docs/alerts.md has no section {name}"


@pytest.mark.parametrize(
    ("values", "url"),
    [
        (PROFILES["external"], "https://ui.ml.example.com/alerts#apidown"),
        ({"monitoring": {"runbookUrl": "https://wiki.example.com/a/"}}, "https://wiki.example.com/a/apidown"),
    ],
)
def test_a_runbook_is_on_the_pages_or_where_a_setting_says(values: dict[str, Any], url: str) -> None:
    assert rules("alert", values)["ApiDown"]["annotations"]["runbook_url"] == url


def every_rule() -> list[dict[str, Any]]:
    return [*rules("alert").values(), *rules("record").values()]


def test_every_metric_is_one_that_there_is() -> None:
    there_are = known()
    for rule in every_rule():
        assert not metrics(rule["expr"]) - there_are, f"{rule['expr']}: unknown metrics"


def test_every_selector_is_of_the_releases_namespace() -> None:
    for rule in every_rule():
        selectors = re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", rule["expr"])
        for name, matchers in selectors:
            assert f'namespace="{NAMESPACE}"' in matchers, f"{rule['expr']}: {name}"
        # a selector without braces would be one that the lines above do not see
        mentioned = re.findall(r"\b(?:mlops|kubelet|kube)[_:][\w:]+|\bup\b", re.sub(r'"[^"]*"', "", rule["expr"]))
        assert len(mentioned) == len(selectors), f"{rule['expr']}: a selector without braces"


THRESHOLDS = {
    "drift/window": (
        "2h",
        ["mlops:feature_rows", "mlops:feature_share", "mlops:live_accuracy", "mlops:drift_settings"],
    ),
    "drift/minRows": (1000000, ["mlops:feature_share", "mlops:prediction_share", "mlops:drift_settings"]),
    "drift/featurePsi": (0.33, ["FeatureDrift"]),
    "drift/predictionPsi": (0.33, ["PredictionDrift"]),
    "rules/errorRatio": (0.33, ["ApiErrorRatio"]),
    "rules/latencyP99Seconds": (0.33, ["ApiLatency"]),
    "rules/accuracyMinRows": (77, ["mlops:live_accuracy"]),
    "rules/trainingMaxAgeDays": (77, ["TrainingOverdue"]),
    "rules/volumeFreeRatio": (0.33, ["VolumeNearlyFull"]),
}


@pytest.mark.parametrize("path", THRESHOLDS)
def test_thresholds_are_values(path: str) -> None:
    value, names = THRESHOLDS[path]
    section, name = path.split("/")
    values = {"monitoring": {section: {name: value}}}
    before, after = rules("alert") | rules("record"), rules("alert", values) | rules("record", values)
    for rule in names:
        compared = [{key: one[rule].get(key) for key in ("expr", "labels")} for one in (before, after)]
        assert compared[0] != compared[1], f"{rule} does not go by monitoring.{section}.{name}"
        assert str(value) in str(compared[1]), rule


def test_every_threshold_is_tested() -> None:
    values = yaml.safe_load((ROOT / "charts/platform/charts/monitoring/values.yaml").read_text())
    assert set(THRESHOLDS) == {f"{section}/{name}" for section in ("drift", "rules") for name in values[section]}


def test_the_interval_and_the_release_label_are_values() -> None:
    manifest = prometheus_rule({"monitoring": {"interval": 60, "prometheusRule": {"labels": {"release": "stack"}}}})
    assert {group["interval"] for group in manifest["spec"]["groups"]} == {"60s"}
    assert manifest["metadata"]["labels"]["release"] == "stack"
    assert "release" not in prometheus_rule()["metadata"]["labels"]


def test_no_model_is_about_the_default_model() -> None:
    rule = rules("alert", {"global": {"defaultModel": "diabetes"}})["NoModel"]
    assert 'model="diabetes"' in rule["expr"]
    assert rule["labels"]["model"] == "diabetes"


def test_empty_buckets_count_as_in_the_registry() -> None:
    assert f", {SHARE_FLOOR:.4f})" in re.sub(r"\s+", " ", rules("record")["mlops:feature_share"]["expr"]).replace(
        " )", ")"
    )
