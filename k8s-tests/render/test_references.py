"""What one manifest names, another one is: accounts, volumes, keys of Secrets, addresses, the notes' commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from chart import Manifest, containers, named, notes, operated, pods, render_chart, rendered_text, title
from network import selects
from profiles import PROFILES

from app.cli.credentials import BY_KEY

# The keys of the Secret that the Job makes or global.existingSecret names, and of global.databaseSecret.
KEYS = set(BY_KEY)
DATABASE_KEYS = {"mlflow-url", "mlflow-auth-url", "prefect-url"}
ADDRESS = re.compile(r"(mlops-[a-z-]+):(\d+)")


def names(manifests: list[Manifest], kind: str) -> set[str]:
    return {m["metadata"]["name"] for m in manifests if m["kind"] == kind}


def ports_of(service: Manifest) -> set[int]:
    return {port["port"] for port in service["spec"]["ports"]}


def test_accounts_exist(manifests: list[Manifest]) -> None:
    for name, pod in (pods(manifests) | operated(manifests)).items():
        account = pod["spec"]["serviceAccountName"]
        # `default` is in every namespace; the pod of `helm test` takes it and has no token
        assert account in names(manifests, "ServiceAccount") | {"default"}, f"{name}: serviceAccountName {account}"


def test_each_role_is_bound_to_the_one_pod_that_needs_it(manifests: list[Manifest]) -> None:
    bindings = [m for m in manifests if m["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    for binding in bindings:
        role = binding["roleRef"]
        assert role["apiGroup"] == "rbac.authorization.k8s.io", title(binding)
        assert binding["kind"] == role["kind"] + "Binding", title(binding)
        assert role["name"] == binding["metadata"]["name"] in names(manifests, role["kind"]), title(binding)
        (subject,) = binding["subjects"]
        assert (subject["kind"], subject["namespace"]) == ("ServiceAccount", "mlops"), title(binding)
        everything = pods(manifests) | operated(manifests)
        users = [name for name, pod in everything.items() if pod["spec"]["serviceAccountName"] == subject["name"]]
        assert len(users) == 1, f"{title(binding)} is for {users}"
    roles = [m for m in manifests if m["kind"] in ("Role", "ClusterRole")]
    assert len(roles) == len(bindings)


def test_volumes_exist_and_are_mounted(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        assert mounted == set(volumes), f"{name}: volumes against volumeMounts"
        for container in containers(pod):
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(paths) == len(set(paths)), f"{name}: {container['name']}.volumeMounts {paths}"
        for volume in volumes.values():
            if source := volume.get("configMap"):
                assert source["name"] in names(manifests, "ConfigMap"), f"{name}: volumes[{volume['name']}]"
            if source := volume.get("persistentVolumeClaim"):
                assert source["claimName"] in names(manifests, "PersistentVolumeClaim"), f"{name}: {volume['name']}"
            # a backup has all keys, whatever they are called; others read theirs as variables
            assert ("secret" in volume) == (name == "CronJob/mlops-backup-secrets" and volume["name"] == "data"), name


def test_files_that_are_named_are_in_the_mounted_configuration(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        folders = {
            mount["mountPath"]: named(manifests, "ConfigMap", volume["configMap"]["name"])["data"]
            for volume in pod["spec"].get("volumes", [])
            if "configMap" in volume
            for container in containers(pod)
            for mount in container["volumeMounts"]
            if mount["name"] == volume["name"]
        }
        words = " ".join(
            word for c in containers(pod) for word in map(str, [*c.get("command", []), *c.get("args", [])])
        )
        for folder, files in folders.items():
            for file in re.findall(rf"{folder}/([\w.-]+)", words):
                assert file in files, f"{name}: {folder}/{file}"


def test_keys_of_secrets_exist(profile: str, manifests: list[Manifest]) -> None:
    settings = PROFILES[profile].get("global", {})
    ours = settings.get("existingSecret", "mlops-credentials")
    secrets = {m["metadata"]["name"]: set(m.get("data", {})) for m in manifests if m["kind"] == "Secret"}
    secrets[ours] = KEYS
    if name := settings.get("databaseSecret"):
        secrets[name] = DATABASE_KEYS
    if name := PROFILES[profile].get("prefect-server", {}).get("redis", {}).get("existingSecret"):
        secrets[name] = {"redis-url"}
    for name, container, variable in variables(manifests):
        if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
            where = f"{name}: {container}.env[{variable['name']}]"
            assert reference["name"] in secrets, f"{where}: there is no Secret {reference['name']}"
            assert reference["key"] in secrets[reference["name"]], f"{where}: no key {reference['key']}"
    for name, volume in projected(manifests):
        sources = [source["secret"] for source in volume["projected"]["sources"]]
        assert [source["name"] for source in sources] == ["mlops-api-keys", ours], name
        assert sources[0]["optional"] is True, f"{name}: the Secret is made by the first `mlops keys create`"
        assert {item["key"] for item in sources[1]["items"]} <= KEYS, name
    worker = {variable["name"]: variable.get("value") for name, _, variable in variables(manifests) if "worker" in name}
    prefix = (
        "PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_"  # with it Jobs get a reference, no password
    )
    assert worker[f"{prefix}KEY"] in secrets[worker[f"{prefix}NAME"]]


def test_every_key_of_the_secret_is_used() -> None:
    used = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for _, _, variable in variables(render_chart(PROFILES["postgres"]))
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    for _, volume in projected(render_chart()):
        used |= {item["key"] for source in volume["projected"]["sources"] for item in source["secret"].get("items", [])}
    used.add("mlflow-gate-password")  # of the Jobs of promotions, by the job variable `account`
    # and by what the Prometheus Operator reads
    operator_keys = re.findall(r"\{name: mlops-credentials, key: ([\w-]+)\}", rendered_text())
    assert used | set(operator_keys) | {"pages-password"} == KEYS  # of which Traefik has a hash


def projected(manifests: list[Manifest]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(pod, volume) of every volume that is made of several."""
    for name, pod in pods(manifests).items():
        for volume in pod["spec"].get("volumes", []):
            if "projected" in volume:
                yield name, volume


def variables(manifests: list[Manifest]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(pod, container, entry) of every environment variable."""
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            for variable in container.get("env", []):
                yield name, container["name"], variable


def test_variables_come_once_and_after_those_they_use(manifests: list[Manifest]) -> None:
    for name, pod in pods(manifests).items():
        for container in containers(pod):
            known: list[str] = []
            for variable in container.get("env", []):
                where = f"{name}: {container['name']}.env[{variable['name']}]"
                assert variable["name"] not in known, f"{where} comes twice"
                for used in re.findall(r"\$\((\w+)\)", variable.get("value", "")):
                    assert used in known, f"{where} uses {used}, which is not there yet"
                known.append(variable["name"])


def test_addresses_are_those_of_services(manifests: list[Manifest]) -> None:
    """In variables, commands, ConfigMaps and Traefik's routes, `mlops-<chart>:<port>` is a Service's."""
    services = {m["metadata"]["name"]: ports_of(m) for m in manifests if m["kind"] == "Service"}
    services["mlops-prometheus"] = {9090}  # which the operator's chart brings
    seen = set()
    for manifest in manifests:
        for name, port in ADDRESS.findall(yaml.safe_dump(manifest, width=1000)):
            assert int(port) in services.get(name, set()), f"{title(manifest)}: {name}:{port} is no Service"
            seen.add(name)
    assert seen >= {"mlops-mlflow", "mlops-prefect-server", "mlops-model-api"}


def test_scaling_and_disruption_are_about_a_deployment_that_is_there(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] == "HorizontalPodAutoscaler":
            target = manifest["spec"]["scaleTargetRef"]
            assert named(manifests, target["kind"], target["name"])["apiVersion"] == target["apiVersion"]
        if manifest["kind"] == "PodDisruptionBudget":
            labels = [pod["metadata"]["labels"] for pod in pods(manifests).values()]
            chosen = [pod_labels for pod_labels in labels if selects(manifest["spec"]["selector"], pod_labels)]
            of = title(manifest).partition("/mlops-")[2]
            assert [pod_labels["app.kubernetes.io/component"] for pod_labels in chosen] == [of], title(manifest)


def test_commands_of_the_notes_name_what_is_there(profile: str, manifests: list[Manifest]) -> None:
    # `helm install --dry-run` knows of no CRDs, and the notes nothing of who watches
    values = {key: value for key, value in PROFILES[profile].items() if key != "monitoring"}
    text = notes(values)
    for service, port in re.findall(r"svc/(\S+) (\d+)", text):
        assert int(port) in ports_of(named(manifests, "Service", service)), f"NOTES.txt: svc/{service} {port}"
    for kind, name in re.findall(r"\b(deployment)/(\S+)", text):
        assert named(manifests, kind.capitalize(), name), f"NOTES.txt: {kind}/{name}"
    secrets = {values.get("global", {}).get("existingSecret", "mlops-credentials")}
    for secret, key in re.findall(r"get secret (\S+) -o jsonpath='\{\.data\.([\w-]+)\}'", text):
        assert secret in secrets, f"NOTES.txt: secret {secret}"
        assert key in KEYS, f"NOTES.txt: {key}"
    with_pages = profile not in ("development", "backup", "backup of postgres")
    pages = ["ui", "model-api", "mlflow", "prefect-server", *(["grafana"] if with_pages else [])]
    assert re.findall(r"port-forward svc/mlops-(\S+)", text) == pages
    for host in {m["spec"]["rules"][0]["host"] for m in manifests if m["kind"] == "Ingress"}:
        assert f"//{host}" in text or "prometheus" in host, "NOTES.txt"  # these notes know nothing of who watches
    if not with_pages:  # there is no ingress
        assert "localhost:8080" not in text
        assert "curl 'http://localhost:8086/predict?" in text
