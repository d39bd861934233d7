"""Each check of the doctor, by breaking what it looks at."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from app.cli.doctor import Finding, examine, examine_pods
from app.clients.kubernetes import KubernetesClient
from app.clients.mlflow import PRODUCTION, MlflowClient
from app.registry.promotion import promote
from app.runtime.processes import Server
from app.runtime.settings import PlatformSettings
from app.testing.definitions import IRIS
from app.testing.kubernetes import fake_kubernetes, write_kubeconfig
from app.testing.prefect import PrefectAdmin
from app.testing.proxy import FaultyProxy, serving
from app.vocabulary import TRAIN_FLOW
from flows.sources import SourceUnavailable
from flows.train import train

CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def peer() -> Iterator[FaultyProxy]:
    """An API that answers as it is told, which the real one cannot be made to do."""
    with serving(FaultyProxy(answers={"/livez": (200, {})})) as made:
        yield made


@pytest.fixture
def settings(registry: MlflowClient, prefect_server: Server, monkeypatch: pytest.MonkeyPatch) -> PlatformSettings:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server.uri)
    return PlatformSettings(api_url=CLOSED, ui_url=CLOSED)


def finding_of(settings: PlatformSettings, check: str, model: str = "") -> Finding:
    """The doctor's finding of one check; where it is not ok there is a cure."""
    (finding,) = [one for one in examine(settings, model) if one.check == check]
    assert finding.ok or finding.cure
    return finding


def model_info(name: str, version: str, failure: str = "") -> dict[str, Any]:
    """What the API says of a version in service, and of the one that it could not load."""
    return {
        "name": name,
        "version": version,
        "run_id": "r",
        "task": "classification",
        "target": "species",
        "classes": ["setosa"],
        "serving": "onnx",
        "serving_reason": "",
        "bundle_sha256": "0",
        "features": [],
        "prediction_reference": {"dtype": "string", "categories": ["setosa", "(other)"], "shares": [1.0, 0.0]},
        "example": {},
        "gate": {"metric": "accuracy", "threshold": 0.5, "max_regression": 0.0},
        "loaded_at": "2026-01-01T00:00:00Z",
        "last_failure": {"version": "2", "reason": failure, "at": "2026-01-01T00:00:00Z"} if failure else None,
        "registry": {"ok": True, "error": "", "checked_at": "2026-01-01T00:00:00Z"},
    }


def test_services_that_are_away(settings: PlatformSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "MLOPS_API_URL" in finding_of(settings, "api").cure
    assert "MLOPS_UI_URL" in finding_of(settings, "pages").cure
    monkeypatch.setenv("PREFECT_API_URL", f"{CLOSED}/api")
    assert "PREFECT_API_URL" in finding_of(settings, "prefect").cure
    monkeypatch.setenv("MLFLOW_TRACKING_URI", CLOSED)
    assert "MLFLOW_TRACKING_URI" in finding_of(settings, "mlflow").cure
    assert [f.check for f in examine(settings)] == ["mlflow", "prefect", "api", "pages", "model files"]


def test_services_that_are_there(settings: PlatformSettings, peer: FaultyProxy) -> None:
    settings.api_url = settings.ui_url = peer.url
    peer.answers["/_stcore/health"] = (200, "ok")
    for check in ("mlflow", "prefect", "api", "pages", "artifact store"):
        assert finding_of(settings, check).ok


def test_an_artifact_store_that_cannot_be_written(settings: PlatformSettings, mlflow_server: Server) -> None:
    store = Path(mlflow_server.logs) / "artifacts"
    aside = store.rename(store.with_name("aside"))
    store.write_text("a file where the folder was")
    try:
        finding = finding_of(settings, "artifact store")
        assert not finding.ok
        assert "disk full" in finding.cure
    finally:
        store.unlink()
        aside.rename(store)


def test_a_model_that_is_not_registered(settings: PlatformSettings) -> None:
    finding = finding_of(settings, "models", "nothing-like-it")
    assert not finding.ok
    assert "mlops train nothing-like-it" in finding.cure


def test_no_version_in_production(settings: PlatformSettings, name: str, new_version: Any) -> None:
    new_version()
    assert f"mlops promote {name}" in finding_of(settings, f"{name}: production", name).cure


def test_a_good_version_in_production(
    settings: PlatformSettings, registry: MlflowClient, name: str, new_version: Any
) -> None:
    new_version()
    promote(registry, name, definition=IRIS, who="test")
    assert finding_of(settings, f"{name}: production", name).detail == "version 1, served by onnx"
    assert finding_of(settings, f"{name}: ledger", name).ok


def test_altered_files_of_production(
    settings: PlatformSettings, registry: MlflowClient, name: str, new_version: Any
) -> None:
    version = new_version()
    promote(registry, name, definition=IRIS, who="test")
    registry.write_artifact(f"{registry.bundle_path(version)}/model.onnx", b"other")
    finding = finding_of(settings, f"{name}: production", name)
    assert "model.onnx was altered" in finding.detail
    assert f"mlops rollback {name}" in finding.cure


def test_an_alias_that_was_moved_by_hand(
    settings: PlatformSettings, registry: MlflowClient, name: str, new_version: Any
) -> None:
    for _ in range(2):
        new_version()
    promote(registry, name, "1", definition=IRIS, who="test")
    registry.set_alias(name, PRODUCTION, "2")
    finding = finding_of(settings, f"{name}: ledger", name)
    assert finding.detail == "The alias production is at version 2, the promotion ledger says 1."


def test_an_api_that_serves_another_version(
    settings: PlatformSettings, registry: MlflowClient, peer: FaultyProxy, name: str, new_version: Any
) -> None:
    for _ in range(2):
        new_version()
    promote(registry, name, "1", definition=IRIS, who="test")
    promote(registry, name, "2", definition=IRIS, who="test")
    settings.api_url = peer.url
    peer.answers[f"/models/{name}"] = (404, {"detail": "not served"})
    assert "answered 404" in finding_of(settings, f"{name}: serving", name).detail
    peer.answers[f"/models/{name}"] = (200, model_info(name, "1", failure="the golden rows differ"))
    finding = finding_of(settings, f"{name}: serving", name)
    assert "serves version 1, in production is 2: the golden rows differ" in finding.detail


def test_an_api_that_answers_wrongly(
    settings: PlatformSettings, registry: MlflowClient, peer: FaultyProxy, name: str, new_version: Any
) -> None:
    new_version()
    promote(registry, name, definition=IRIS, who="test")
    settings.api_url = peer.url
    peer.answers[f"/models/{name}/predict"] = (
        200, {"prediction": "tulip", "model": name, "version": "1", "run_id": "r", "prediction_id": "p"}
    )  # fmt: skip
    peer.answers[f"/models/{name}"] = (200, model_info(name, "1"))
    finding = finding_of(settings, f"{name}: prediction", name)
    assert "'tulip'" in finding.detail
    assert f"mlops rollback {name}" in finding.cure


def test_deployments(settings: PlatformSettings, prefect_server: Server, name: str, new_version: Any) -> None:
    new_version()
    check = f"{name}: deployment"
    assert "no deployment" in finding_of(settings, check, name).detail
    with PrefectAdmin(prefect_server.uri, attempts=20) as prefect:
        deployment = prefect.deploy(TRAIN_FLOW, name, {"model": name})
        assert "Nothing runs what is scheduled" in finding_of(settings, check, name).detail
        prefect.request("POST", "/deployments/get_scheduled_flow_runs", {"deployment_ids": [deployment]})
        assert finding_of(settings, check, name).ok
        prefect.request("POST", f"/deployments/{deployment}/pause_deployment")
        finding = finding_of(settings, check, name)
    assert not finding.ok
    assert f"prefect deployment schedule resume train/{name}" in finding.cure


def test_a_last_training_that_failed(
    settings: PlatformSettings, registry: MlflowClient, prefect_server: Server, tmp_path: Path
) -> None:
    with temporary_settings({PREFECT_API_URL: prefect_server.uri, PREFECT_LOGGING_TO_API_ENABLED: False}):
        train("iris", promote=False)
        assert finding_of(settings, "iris: last training", "iris").ok
        with pytest.raises(SourceUnavailable):
            train.with_options(retries=0)("iris", source=str(tmp_path / "missing.parquet"))
    finding = finding_of(settings, "iris: last training", "iris")
    assert "missing.parquet" in finding.detail
    assert "/runs/flow-run/" in finding.cure


def test_the_command_fails_when_a_check_does(settings: PlatformSettings) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "doctor"], capture_output=True, text=True, env={"PATH": ""}, timeout=120
    )
    assert done.returncode == 1
    assert "Start it with `make demo`" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_port_that_speaks_something_else(
    settings: PlatformSettings, peer: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.answers["/"] = (404, "nothing of ours")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", peer.url)
    monkeypatch.setenv("PREFECT_API_URL", f"{peer.url}/api")
    settings.ui_url = peer.url
    for check in ("mlflow", "prefect", "pages"):
        assert not finding_of(settings, check).ok


def test_a_broken_model_file(settings: PlatformSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "iris" in finding_of(settings, "model files").detail
    (tmp_path / "tulip.py").write_text("import nothing_like_it")
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path))
    finding = finding_of(settings, "model files")
    assert not finding.ok
    assert "tulip" in finding.detail
    assert "No module named 'nothing_like_it'" in finding.detail


def pod(phase: str, **containers: dict[str, Any]) -> dict[str, Any]:
    """A pod of the stand-in: the status of its containers by name, `prepare` being an init container."""
    statuses = [
        {"name": name, "image": "x", "imageID": "x", "ready": False, "restartCount": 0, **status}
        for name, status in containers.items()
    ]
    first = [status for status in statuses if status["name"] == "prepare"]
    rest = [status for status in statuses if status["name"] != "prepare"]
    return {"status": {"phase": phase, "initContainerStatuses": first, "containerStatuses": rest}}


def ended(code: int, message: str = "") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": message}}


def waits(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason}}


def pods_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **pods: dict[str, Any]) -> list[Finding]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with fake_kubernetes(tmp_path / "config") as cluster:
        cluster.pods = {name: {**pod, "metadata": {"name": name}} for name, pod in pods.items()}
        return list(examine_pods(KubernetesClient("team")))


def test_a_pod_that_refuses_to_start_is_named_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentence = "MLflow's database has the schema revision f: run `kubectl set env`"
    refused = {"state": waits("CrashLoopBackOff"), "lastState": ended(1, f"Traceback\n{sentence}\n")}
    mlflow = pod("Pending", prepare=refused, mlflow={"state": waits("PodInitializing")})
    (finding,) = pods_found(tmp_path, monkeypatch, mlflow=mlflow)
    assert not finding.ok
    assert finding.detail == f"mlflow, container prepare: CrashLoopBackOff. {sentence}"
    assert finding.cure == "`kubectl -n team describe pod mlflow` says more."


def test_pods_that_start_run_or_are_done_are_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = pods_found(
        tmp_path,
        monkeypatch,
        starting=pod("Pending", prepare={"state": ended(0)}, main={"state": waits("ContainerCreating")}),
        running=pod("Running", main={"state": {"running": {}}, "lastState": ended(1, "once")}),
        training=pod("Failed", main={"state": ended(1, "of yesterday")}),
    )
    assert finding.ok, finding


def test_a_kubernetes_that_does_not_answer_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    write_kubeconfig(tmp_path / "config", CLOSED)
    (finding,) = examine_pods(KubernetesClient("team"))
    assert not finding.ok
    assert "Kubernetes does not answer" in finding.detail
