"""The CronJobs of charts/backup: beside the service whose volume they read, without rights, onto a volume or to S3."""

from __future__ import annotations

from typing import Any

from chart import Manifest, render_chart, template, title
from profiles import PROFILES

RECIPIENT = PROFILES["backup"]["backup"]["recipient"]


def cron_jobs(values: dict[str, Any], **others: Any) -> dict[str, Manifest]:
    """Component -> CronJob."""
    made = render_chart({"backup": {"enabled": True, **values}, **others})
    return {title(m).removeprefix("CronJob/mlops-backup-"): m for m in made if m["kind"] == "CronJob"}


def pod_of(cron_job: Manifest) -> Any:
    return cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def claims(cron_job: Manifest) -> dict[str, str]:
    volumes = pod_of(cron_job)["volumes"]
    return {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v}


def test_nothing_is_backed_up_unless_somebody_says_so() -> None:
    assert not [m for m in render_chart() if "backup" in m["metadata"]["name"]]


def test_each_runs_beside_the_service_whose_volume_it_mounts() -> None:
    for component, service in (("mlflow", "mlflow"), ("prefect", "prefect-server")):
        cron_job = cron_jobs({})[component]
        assert claims(cron_job) == {"data": f"mlops-{service}", "backups": "mlops-backup"}
        (term,) = pod_of(cron_job)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == service
        assert term["topologyKey"] == "kubernetes.io/hostname"


def test_claims_of_yours_are_those_that_are_backed_up() -> None:
    jobs = cron_jobs(
        {"persistence": {"existingClaim": "archive"}},
        mlflow={"persistence": {"existingClaim": "models"}},
        **{"prefect-server": {"persistence": {"existingClaim": "runs"}}},
    )
    assert claims(jobs["mlflow"]) == {"data": "models", "backups": "archive"}
    assert claims(jobs["prefect"]) == {"data": "runs", "backups": "archive"}


def test_passwords_and_keys_are_read_only_where_there_is_a_key_to_encrypt_them_for() -> None:
    assert set(cron_jobs({})) == {"mlflow", "prefect"}
    jobs = cron_jobs({"recipient": RECIPIENT})
    assert set(jobs) == {"mlflow", "prefect", "secrets"}
    with_secret = {name for name, job in jobs.items() if any("secret" in v for v in pod_of(job)["volumes"])}
    assert with_secret == {"secrets"}
    assert "affinity" not in pod_of(jobs["secrets"]), "a Secret is on no node"
    (mount,) = [m for m in pod_of(jobs["secrets"])["containers"][0]["volumeMounts"] if m["name"] == "data"]
    assert mount["readOnly"] is True


def test_no_backup_has_a_token_of_kubernetes() -> None:
    for job in cron_jobs({"recipient": RECIPIENT}).values():
        assert pod_of(job)["automountServiceAccountToken"] is False


def test_with_s3_there_is_no_volume_and_a_way_to_its_addresses_alone() -> None:
    s3 = {"destination": "s3://bucket/here", "existingSecret": "s3", "egressCIDRs": ["203.0.113.0/24"]}
    made = render_chart({"backup": {"enabled": True, **s3}})
    assert "PersistentVolumeClaim/mlops-backup" not in {title(m) for m in made}
    for job in cron_jobs(s3).values():
        assert "backups" not in claims(job)
        (container,) = pod_of(job)["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert {"name": "MLOPS_BACKUP_DESTINATION", "value": "s3://bucket/here"} in container["env"]
    (policy,) = [m for m in made if title(m) == "NetworkPolicy/mlops-backup"]
    addresses = [
        peer["ipBlock"]["cidr"] for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer
    ]
    assert addresses == ["203.0.113.0/24"]
    assert policy["spec"]["ingress"] == []


def variables(cron_job: Manifest) -> dict[str, Any]:
    (container,) = pod_of(cron_job)["containers"]
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


def test_with_postgresql_its_databases_are_dumped_and_the_volume_of_the_artifacts_is_read() -> None:
    jobs = cron_jobs({}, postgres={"enabled": True})
    assert claims(jobs["mlflow"]) == {"data": "mlops-mlflow", "backups": "mlops-backup"}
    assert "podAffinity" in pod_of(jobs["mlflow"])["affinity"]
    assert claims(jobs["prefect"]) == {"backups": "mlops-backup"}, "Prefect has nothing on its volume"
    assert "affinity" not in pod_of(jobs["prefect"])
    address = "postgresql://mlops:$(MLOPS_BACKUP_{}_URL_PASSWORD)@mlops-postgres:5432/{}"
    assert variables(jobs["mlflow"])["MLOPS_BACKUP_MLFLOW_URL"] == address.format("MLFLOW", "mlflow")
    assert variables(jobs["mlflow"])["MLOPS_BACKUP_MLFLOW_AUTH_URL"] == address.format("MLFLOW_AUTH", "mlflow_auth")
    assert variables(jobs["prefect"])["MLOPS_BACKUP_PREFECT_URL"] == address.format("PREFECT", "prefect")
    password = variables(jobs["prefect"])["MLOPS_BACKUP_PREFECT_URL_PASSWORD"]
    assert password == {"secretKeyRef": {"name": "mlops-credentials", "key": "postgres-password"}}


def test_with_a_postgresql_of_yours_and_s3_no_volume_is_read() -> None:
    s3 = {"artifacts": {"destination": "s3://bucket/mlflow"}, "persistence": {"enabled": False}}
    jobs = cron_jobs({"recipient": RECIPIENT}, mlflow=s3, **{"global": {"databaseSecret": "database"}})
    for component, keys in {"mlflow": {"mlflow-url", "mlflow-auth-url"}, "prefect": {"prefect-url"}}.items():
        assert claims(jobs[component]) == {"backups": "mlops-backup"}
        assert "affinity" not in pod_of(jobs[component])
        given = [value["secretKeyRef"] for value in variables(jobs[component]).values() if "secretKeyRef" in value]
        assert {(ref["name"], ref["key"]) for ref in given} == {("database", key) for key in keys}
    assert not [name for name in variables(jobs["secrets"]) if name.endswith("_URL") and "ENDPOINT" not in name]


def test_backups_that_would_be_gone_with_the_pod_are_refused() -> None:
    done = template({"backup": {"enabled": True, "persistence": {"enabled": False}}})
    assert done.returncode != 0
    assert "backup.persistence.enabled is false" in done.stderr


def test_what_has_no_volume_is_refused_by_its_name() -> None:
    done = template({"backup": {"enabled": True}, "mlflow": {"persistence": {"enabled": False}}})
    assert done.returncode != 0
    assert "mlflow.persistence.enabled is false" in done.stderr


def test_a_volume_is_asked_for_at_once_so_that_nobody_waits_for_it_until_the_first_backup() -> None:
    def jobs(**values: Any) -> dict[str, Manifest]:
        made = render_chart({"backup": {"enabled": True, **values}})
        return {title(m): m for m in made if m["kind"] == "Job" and "backup" in m["metadata"]["name"]}

    ((name, job),) = jobs().items()
    (claim,) = [
        v["persistentVolumeClaim"] for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "backups"
    ]
    assert claim == {"claimName": "mlops-backup"}
    assert set(jobs()) == {name}
    assert set(jobs(image={"tag": "0.3.0"})) != {name}, "the pod of a Job cannot be changed"
    assert not jobs(persistence={"existingClaim": "archive"})
    assert not jobs(destination="s3://bucket/here")
