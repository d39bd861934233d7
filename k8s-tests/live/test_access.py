"""Who may do what: Kubernetes API, MLflow and Prefect without or with too small an account, files, secrets."""

from __future__ import annotations

import json
import subprocess
import sys

import httpx
import pytest
from kubernetes import client
from kubernetes.stream import stream
from namespace import wait_for
from release import CONTEXT, Platform
from runs import settled

pytestmark = pytest.mark.quiet

READ = {"get", "list", "watch"}
WRITE = READ | {"create", "update", "patch", "delete"}
MONITORING = "monitoring.coreos.com"
WATCHED = ("alertmanagers", "podmonitors", "probes", "prometheusagents", "prometheuses", "prometheusrules")
WATCHED += ("alertmanagerconfigs", "scrapeconfigs", "servicemonitors", "thanosrulers")
# Account -> (API group, resource) -> verbs, in the platform's namespace.
RIGHTS: dict[str, dict[tuple[str, str], set[str]]] = {
    "prefect-worker": {
        ("batch", "jobs"): READ | {"create", "patch", "delete"},
        ("", "pods"): READ,
        ("", "pods/log"): {"get"},
        ("", "events"): READ,
    },
    "operator": {
        **{(MONITORING, kind): READ | {"update", "patch"} for kind in WATCHED},
        **{(MONITORING, f"{kind}/status"): {"get", "update", "patch"} for kind in WATCHED},
        **{
            (MONITORING, f"{kind}/finalizers"): {"get", "update", "patch"}
            for kind in ("alertmanagers", "prometheusagents", "prometheuses", "thanosrulers")
        },
        ("apps", "statefulsets"): WRITE,
        ("", "configmaps"): WRITE,
        ("", "secrets"): WRITE,
        ("", "services"): WRITE,
        ("", "services/finalizers"): {"update"},
        ("", "pods"): READ | {"delete"},
        ("", "namespaces"): {"get"},
    },
    "prometheus": {
        **{("", resource): READ for resource in ("services", "endpoints", "pods")},
        ("discovery.k8s.io", "endpointslices"): READ,
    },
    "traefik": {
        **{("", resource): READ for resource in ("services", "secrets")},
        ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
        ("networking.k8s.io", "ingresses"): READ,
        ("networking.k8s.io", "ingresses/status"): {"update"},
    },
    "kube-state-metrics": {
        **{("", resource): READ for resource in ("pods", "persistentvolumeclaims")},
        **{("apps", resource): READ for resource in ("deployments", "statefulsets")},
        **{("batch", resource): READ for resource in ("cronjobs", "jobs")},
    },
}
# And in every namespace.
ANYWHERE: dict[str, dict[tuple[str, str], set[str]]] = {
    "prometheus": {("", "nodes"): READ, ("", "nodes/metrics"): {"get"}},
    "traefik": {("", "nodes"): {"list", "watch"}, ("networking.k8s.io", "ingressclasses"): {"list", "watch"}},
}


def rights(platform: Platform, account: str, namespace: str) -> set[tuple[str, str, str]]:
    """(API group, resource, verb) of all that Kubernetes lets an account, `namespace:name`, do in a namespace."""
    api = client.ApiClient(platform.api.configuration)
    api.set_default_header("Impersonate-User", f"system:serviceaccount:{account}")
    body = {"spec": {"namespace": namespace}}
    status = client.AuthorizationV1Api(api).create_self_subject_rules_review(body).status
    assert not status.incomplete, status
    return {
        (group, resource, verb)
        for rule in status.resource_rules
        for group in rule.api_groups
        for resource in rule.resources
        for verb in rule.verbs
    }


def test_accounts_may_do_what_the_role_says_and_nothing_else(platform: Platform) -> None:
    accounts = [a.metadata.name for a in platform.core.list_namespaced_service_account(platform.name).items]
    assert {f"{platform.release}-{name}" for name in RIGHTS} <= set(accounts)
    # what every account of the cluster may: to ask about itself, and nothing that is in a namespace
    anybody = {place: rights(platform, "default:nobody", place) for place in (platform.name, "kube-system")}
    assert not [right for allowed in anybody.values() for right in allowed if right[0] == ""]
    for account in accounts:
        name = account.removeprefix(f"{platform.release}-")
        for place in anybody:
            granted = {**ANYWHERE.get(name, {}), **(RIGHTS.get(name, {}) if place == platform.name else {})}
            expected = {(group, resource, verb) for (group, resource), verbs in granted.items() for verb in verbs}
            assert rights(platform, f"{platform.name}:{account}", place) - anybody[place] == expected, (
                f"{account} in {place}"
            )


# -- accounts of MLflow and Prefect ----------------------------------------------------------------------------------

# What anybody may see: that the server lives, its page without data, and the login.
MLFLOW_OPEN = {"/health", "/version", *(f"/{api}/3.0/mlflow/server-info" for api in ("api", "ajax-api"))}
PREFECT_OPEN = {"/api/health", "/api/ready"}


def mlflow_routes() -> list[tuple[str, str]]:
    """(method, path) of every route of MLflow's server of this version, with examples for parameters."""
    code = """
import json, os, re, tempfile
folder = tempfile.mkdtemp()
os.environ.update(MLFLOW_BACKEND_STORE_URI=f"sqlite:///{folder}/m.db", MLFLOW_FLASK_SERVER_SECRET_KEY="x" * 32,
    _MLFLOW_SERVER_FILE_STORE=f"sqlite:///{folder}/m.db", _MLFLOW_SERVER_ARTIFACT_ROOT=folder,
    _MLFLOW_SERVER_SERVE_ARTIFACTS="true")
from mlflow.server import app
rules = [(m, re.sub("<[^>]+>", "1", r.rule)) for r in app.url_map.iter_rules() for m in r.methods - {"HEAD", "OPTIONS"}]
print("ROUTES" + json.dumps(sorted(set(rules))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "ROUTES" in done.stdout, done.stderr
    return [(m, p) for m, p in json.loads(done.stdout.split("ROUTES")[1])]


def _open_routes(http: httpx.Client, routes: list[tuple[str, str]]) -> set[str]:
    """Routes that neither ask for an account nor are missing."""
    open_paths = set()
    for method, path in routes:
        status = http.request(method, path).status_code
        if status not in (401, 403, 404, 405):
            open_paths.add(path)
    return open_paths


@pytest.mark.parametrize("password", ["", "wrong"])
def test_every_route_of_mlflow_asks_for_an_account(platform: Platform, password: str) -> None:
    routes = mlflow_routes()
    assert len(routes) > 100
    with platform.client("mlflow", account=False) as http:
        if password:
            routes = routes[::10]  # MLflow hashes the password each time, as slowly as it should
            http.auth = httpx.BasicAuth("admin", password)
        assert _open_routes(http, routes) <= MLFLOW_OPEN


@pytest.mark.parametrize("password", ["", "wrong"])
def test_every_route_of_prefect_asks_for_an_account(platform: Platform, password: str) -> None:
    with platform.client("prefect") as http:
        described = http.get("/openapi.json")
        paths = described.raise_for_status().json()["paths"]
    routes = [
        (method.upper(), path.replace("{", "").replace("}", "")) for path, item in paths.items() for method in item
    ]
    assert len(routes) > 100
    with platform.client("prefect", account=False) as http:
        if password:
            http.auth = httpx.BasicAuth("admin", password)
        assert _open_routes(http, routes) <= PREFECT_OPEN


def _mlflow_as(platform: Platform, account: str) -> httpx.Client:
    http = platform.client("mlflow", account=False)
    http.auth = httpx.BasicAuth(account, platform.credentials[f"mlflow-{account}-password"])
    return http


def test_the_reader_reads_everything_and_writes_only_feedback(platform: Platform) -> None:
    api = "/api/2.0/mlflow"
    with _mlflow_as(platform, "reader") as http:
        version = http.get(f"{api}/registered-models/alias", params={"name": "iris", "alias": "production"})
        assert version.status_code == 200, version.text
        iris = http.get(f"{api}/experiments/get-by-name", params={"experiment_name": "iris"}).json()["experiment"]
        feedback = http.get(f"{api}/experiments/get-by-name", params={"experiment_name": "feedback"}).json()[
            "experiment"
        ]
        alias = {"name": "iris", "alias": "production", "version": "1"}
        for method, path, body in (
            ("POST", "registered-models/alias", alias),
            ("DELETE", "registered-models/delete", {"name": "iris"}),
            ("POST", "runs/create", {"experiment_id": iris["experiment_id"]}),
            ("POST", "experiments/delete", {"experiment_id": iris["experiment_id"]}),
            ("POST", "experiments/create", {"name": "the-readers"}),
            ("POST", "users/create", {"username": "more", "password": "x" * 20}),
        ):
            answer = http.request(method, f"{api}/{path}", json=body)
            assert answer.status_code == 403, f"{path}: {answer.status_code} {answer.text[:200]}"
        run = http.post(f"{api}/runs/create", json={"experiment_id": feedback["experiment_id"]})
        assert run.status_code == 200, run.text
        made = {"run_id": run.json()["run"]["info"]["run_id"]}
        assert http.post(f"{api}/runs/delete", json=made).status_code == 403
    with _mlflow_as(platform, "admin") as http:
        assert http.post(f"{api}/runs/delete", json=made).status_code == 200


@pytest.mark.parametrize("prefix", ["api", "ajax-api"])
def test_the_trainer_moves_no_alias_and_changes_nothing_that_is_registered(platform: Platform, prefix: str) -> None:
    """images/tests/test_mlflow_accounts.py has the whole list."""
    alias = {"name": "iris", "alias": "production", "version": "1"}
    with _mlflow_as(platform, "trainer") as http:
        found = http.get(f"/{prefix}/2.0/mlflow/registered-models/alias", params=alias).json()["model_version"]
        decision = {"mlops.kind": "decision", "mlops.model": "iris"}
        answer = http.get(f"/{prefix}/2.0/mlflow/experiments/get-by-name", params={"experiment_name": "promotions"})
        promotions = answer.json()["experiment"]["experiment_id"]
        tags = [{"key": key, "value": value} for key, value in decision.items()]
        for method, path, body in (
            ("POST", "registered-models/alias", alias),
            ("DELETE", "registered-models/alias", {"name": "iris", "alias": "production"}),
            ("POST", "registered-models/set-tag", {"name": "iris", "key": "mlops.definition", "value": "{}"}),
            ("POST", "model-versions/set-tag", {**alias, "key": "bundle_sha256", "value": "0" * 64}),
            ("POST", "runs/log-batch", {"run_id": found["run_id"], "tags": tags}),
            ("POST", "runs/create", {"experiment_id": promotions, "tags": tags}),
        ):
            answer = http.request(method, f"/{prefix}/2.0/mlflow/{path}", json=body)
            assert answer.status_code == 403, f"{path}: {answer.status_code} {answer.text[:200]}"
            assert "`trainer` may not do this" in answer.json()["message"], answer.text
        files = found["source"].removeprefix("mlflow-artifacts:/")
        written = http.put(f"/{prefix}/2.0/mlflow-artifacts/artifacts/{files}/model.onnx", content=b"other")
        assert written.status_code == 403, written.text
        assert http.get(f"/{prefix}/2.0/mlflow/registered-models/alias", params=alias).json()["model_version"] == found


def test_the_gate_registers_nothing(platform: Platform) -> None:
    with _mlflow_as(platform, "gate") as http:
        for path, body in (
            ("registered-models/create", {"name": "the-gates"}),
            ("model-versions/create", {"name": "iris", "source": "mlflow-artifacts:/0/x"}),
            ("experiments/create", {"name": "the-gates"}),
        ):
            answer = http.post(f"/api/2.0/mlflow/{path}", json=body)
            assert answer.status_code == 403, f"{path}: {answer.status_code} {answer.text[:200]}"


def test_the_trainer_manages_no_accounts(platform: Platform) -> None:
    with _mlflow_as(platform, "trainer") as http:
        made = http.post("/api/2.0/mlflow/users/create", json={"username": "more", "password": "x" * 20})
        assert made.status_code == 403, made.text
        changed = http.patch("/api/2.0/mlflow/users/update-password", json={"username": "admin", "password": "x" * 20})
        assert changed.status_code == 403, changed.text


# -- secrets and pods ------------------------------------------------------------------------------------------------


def test_no_secret_is_shown_anywhere(platform: Platform) -> None:
    secrets = {
        key: value.removeprefix("admin:")
        for key, value in platform.credentials.items()
        if not key.endswith("-username")
    }
    shown: dict[str, str] = {}
    get = ["kubectl", "--context", CONTEXT, "-n", platform.name, "get", "-o", "yaml"]
    for kind in ("pods", "jobs", "configmaps", "deployments", "events"):
        shown[kind] = subprocess.run([*get, kind], capture_output=True, text=True, check=True).stdout
    shown["helm get values"] = platform.helm("get", "values", platform.release, "--all")
    shown["helm get notes"] = platform.helm("get", "notes", platform.release)
    for pod in platform.core.list_namespaced_pod(platform.name).items:
        for container in [*(pod.spec.init_containers or []), *pod.spec.containers]:
            try:
                log = platform.core.read_namespaced_pod_log(pod.metadata.name, platform.name, container=container.name)
            except client.ApiException:
                continue  # it has not started
            shown[f"log of {pod.metadata.name}/{container.name}"] = log
    assert len(shown) > 10
    assert not [(place, key) for place, text in shown.items() for key, value in secrets.items() if value in text]


LOOK = """
import json, os, pathlib
def writable(folder):
    try:
        pathlib.Path(folder, ".probe").touch()
        return True
    except OSError:
        return False
print(json.dumps({"uid": os.getuid(), "writes": [f for f in ("/", "/srv", "/opt/venv", "/usr") if writable(f)],
    "token": os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token")}))
"""


@pytest.mark.parametrize("component", ["mlflow", "prefect-server", "prefect-worker", "model-api", "ui", "retrainer"])
def test_pods_are_nobody_on_a_read_only_root(platform: Platform, component: str) -> None:
    wait_for(lambda: settled(platform, component), f"{component}, which another test may have restarted", 240)
    pod = platform.pods(component)[0].metadata.name
    printed = stream(
        platform.core.connect_get_namespaced_pod_exec,
        *(pod, platform.name),
        command=["python", "-c", LOOK],
        stdout=True,
        stderr=True,
    )
    answer = json.loads(printed.replace("'", '"').replace("True", "true").replace("False", "false"))
    assert answer == {"uid": 10001, "writes": [], "token": component == "prefect-worker"}
