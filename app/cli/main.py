"""The `mlops` command. Exit codes: 0 done, 1 failed, 2 wrong use, 3 a promotion was refused."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import click

from app.backup.errors import BackupError
from app.cli.errors import CommandError
from app.clients.errors import ServiceError
from app.clients.mlflow import MlflowClient
from app.clients.model_api import ModelApiClient
from app.runtime.settings import PlatformSettings, WrongSettings

REFUSED = 3


class Commands(click.Group):
    """Turns the platform's own errors into one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; ClickException where a service is away or refuses, or a setting or backup does not do."""
        try:
            return super().invoke(ctx)
        except (ServiceError, WrongSettings) as error:
            raise click.ClickException(str(error)) from error
        except BackupError as error:
            raise CommandError(error.what, error.cure) from error


def _who() -> str:
    try:
        return getpass.getuser()
    except OSError:  # a container's uid without a name
        return "unknown"


who_option = click.option(
    "--who", default=_who, show_default="your user name", help="Name of who decides, for the promotion ledger."
)
why_option = click.option("--why", default="", help="Reason of the decision, for the promotion ledger.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, register, promote, serve and watch scikit-learn models."""


@main.command()
@click.argument("model", default="iris")
@click.option("--once", is_flag=True, help="Stop once the first prediction is verified.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(".mlops"),
    show_default=True,
    help="Folder of databases, artifacts and logs; the next demo goes on with it.",
)
@click.option("--mlflow-port", default=5000, show_default=True, help="Port of MLflow.")
@click.option("--prefect-port", default=4200, show_default=True, help="Port of Prefect.")
@click.option("--api-port", default=8086, show_default=True, help="Port of the model API.")
@click.option("--ui-port", default=8501, show_default=True, help="Port of the pages.")
def demo(model: str, once: bool, folder: Path, **ports: int) -> None:
    """Run the whole loop on this machine until Ctrl-C: servers, training, promotion, API and pages."""
    from app.cli.demo import Demo

    Demo(model, folder, {name.removesuffix("_port"): port for name, port in ports.items()}).run(once=once)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a repository for model files of yours: one model, a test of all, a README."""
    from app.cli.new_repository import new_repository

    for line in new_repository(folder):
        _print(line)


@main.command()
@click.argument("name")
@click.option("--csv", required=True, help="Path or URL of a CSV (or Parquet) file with the rows.")
@click.option("--target", required=True, help="Column to predict.")
def new(name: str, csv: str, target: str) -> None:
    """Write the model file NAME.py for a table, into the first folder of MLOPS_MODELS_PATH, or flows/models."""
    from app.cli.new_model import folder_of_new_models, new_model

    for line in new_model(name, csv, target, folder_of_new_models()):
        _print(line)


@main.command()
@click.argument("model")
@click.option(
    "--source",
    help="CSV or Parquet file, or folder of Parquet (path or URL), to train on instead of the model's own data.",
)
@click.option("--seed", default=42, show_default=True, help="Seed of the estimator.")
@click.option("--feedback", is_flag=True, help="Train on the labels that were sent for predictions, too.")
@click.option("--trust-feedback", is_flag=True, help="Even where they contradict what the model answered.")
@click.option("--no-promote", is_flag=True, help="Register the version only.")
@click.option("--wait", default=0.0, help="Seconds to wait until MLflow and Prefect answer.")
@click.option("--result", type=click.Path(path_type=Path), help="JSON file to write the result to.")
@who_option
def train(
    model: str,
    source: str | None,
    seed: int,
    feedback: bool,
    trust_feedback: bool,
    no_promote: bool,
    wait: float,
    result: Path | None,
    who: str,
) -> None:
    """Train MODEL here, as a Prefect flow run; register the version and promote it if it is good enough."""
    settings = PlatformSettings()
    settings.export()
    from app.runtime.processes import wait_for_url
    from flows.bundle_writer import RegistrationError
    from flows.catalog import load_model
    from flows.feedback import FeedbackRefused
    from flows.model import ModelFileError
    from flows.sources import DatasetError, SourceUnavailable
    from flows.train import train as train_flow

    try:
        load_model(model)
    except ModelFileError as error:
        raise CommandError(str(error)) from error
    for name, url in (("MLflow", f"{settings.mlflow_url}/health"), ("Prefect", f"{settings.prefect_url}/health")):
        if not wait_for_url(url, wait):
            raise CommandError(f"{name} does not answer at {url}", "start it with `make demo`")
    try:
        trained = train_flow(
            model,
            source=source,
            seed=seed,
            feedback=feedback,
            trust_feedback=trust_feedback,
            promote=not no_promote,
            who=who,
            cause="mlops train",
        )
    except (DatasetError, SourceUnavailable, RegistrationError, FeedbackRefused) as error:
        raise CommandError(str(error)) from error
    if result:
        result.write_text(json.dumps(trained))
    _print(f"registered version {trained['version']} of {model}")
    if trained["decision"]:
        _report(trained["decision"])


@main.command()
@click.argument("model")
@click.option("--version", help="Version to promote; by default the newest.")
@click.option("--allow-signature-change", is_flag=True, help="Promote it even if requests that work today would fail.")
@click.option(
    "--canary",
    type=float,
    metavar="SHARE",
    help="Keep production, and let the version answer this share of the requests, below 1; 0 ends the canary.",
)
@who_option
@why_option
def promote(
    model: str, version: str | None, allow_signature_change: bool, canary: float | None, who: str, why: str
) -> None:
    """Put a version of MODEL into production if it passes the gate of its model file, or beside it as a canary."""
    from dataclasses import asdict

    from app.registry.canary import end as end_canary
    from app.registry.promotion import promote as promote_version
    from flows.catalog import load_model
    from flows.model import ModelFileError

    if canary is not None and not 0 <= canary < 1:
        raise click.BadParameter(f"{canary:g} is not from 0 to below 1", param_hint="--canary")
    if canary == 0 and version:
        raise click.UsageError("--canary 0 ends the canary that there is: leave --version out")
    if canary is not None and allow_signature_change:
        raise click.UsageError("a canary answers production's requests: leave --allow-signature-change out")
    with MlflowClient() as registry:
        if canary == 0:
            _report(asdict(end_canary(registry, model, who=who, why=why)))
            return
        try:
            definition = load_model(model).definition
        except ModelFileError as error:
            raise CommandError(str(error)) from error
        decision = promote_version(
            registry,
            model,
            version,
            definition=definition,
            who=who,
            why=why,
            allow_signature_change=allow_signature_change,
            canary=canary,
        )
    _report(asdict(decision))


@main.command()
@click.argument("model")
@who_option
@why_option
def rollback(model: str, who: str, why: str) -> None:
    """Return MODEL to the version before."""
    from dataclasses import asdict

    from app.registry.promotion import rollback as rollback_version

    with MlflowClient() as registry:
        _report(asdict(rollback_version(registry, model, who=who, why=why)))


@main.command()
@click.argument("model")
@click.argument("version", required=False)
@click.option("--shadow", default=1.0, show_default=True, help="Share of production's rows, above 0 and at most 1.")
@click.option("--end", is_flag=True, help="Let no version predict in the shadow any more.")
@who_option
@why_option
def challenge(model: str, version: str | None, shadow: float, end: bool, who: str, why: str) -> None:
    """Let VERSION of MODEL predict copies of production's rows, in the shadow; nobody gets its answers."""
    from app.registry.challenger import challenge as begin_challenge
    from app.registry.challenger import end_challenge

    if end == bool(version):
        raise click.UsageError("name a VERSION, or --end")
    if not 0 < shadow <= 1:
        raise click.BadParameter(f"{shadow:g} is not above 0 and at most 1", param_hint="--shadow")
    with MlflowClient() as registry:
        if version:
            begin_challenge(registry, model, version, shadow, who=who, why=why)
            _print(f"version {version} of {model} is the challenger, of a share of {shadow:g}")
        else:
            end_challenge(registry, model, who=who, why=why)
            _print(f"{model} has no challenger any more")


@main.command()
@click.argument("model")
@click.option("--limit", default=20, show_default=True, help="How many decisions to print.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def history(model: str, limit: int, as_json: bool) -> None:
    """Print every decision about MODEL, newest first."""
    from dataclasses import asdict

    from app.registry.ledger import Ledger

    with MlflowClient() as registry:
        decisions = Ledger(registry, model).history(limit)
    if as_json:
        _print(json.dumps([asdict(decision) for decision in decisions], indent=2))
        return
    for d in decisions:
        when = datetime.fromtimestamp(d.time).strftime("%Y-%m-%d %H:%M:%S")
        verdict = f"{d.outcome} ({d.check})" if d.check else d.outcome
        _print(f"{when}  {d.action:9} {d.previous or '-':>4} -> {d.version or '-':4} {verdict:22} {d.who}: {d.reason}")


@main.command()
@click.argument("prediction_id")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")
def whence(prediction_id: str, as_json: bool) -> None:
    """Print where the prediction with this id came from: version, training, data, code, and who promoted it."""
    from dataclasses import asdict

    from app.cli.whence import described
    from app.registry.whence import whence as whence_of

    with MlflowClient() as registry:
        try:
            source = whence_of(registry, prediction_id)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    if as_json:
        _print(json.dumps(asdict(source), indent=2))
        return
    for label, text in described(source):
        _print(f"{label:11} {text}")


@main.command()
@click.argument("model")
@click.argument("values", nargs=-1, metavar="FEATURE=VALUE...")
def predict(model: str, values: tuple[str, ...]) -> None:
    """Ask the API for one prediction of MODEL: mlops predict iris sepal_length=5.1 ..."""
    settings = PlatformSettings()
    malformed = [value for value in values if "=" not in value]
    if malformed:
        raise click.UsageError(f"{malformed[0]!r} is not FEATURE=VALUE")
    row = [(name, value) for name, _, value in (pair.partition("=") for pair in values)]
    with ModelApiClient(settings.api_url, settings.timeout, key=settings.api_key) as api:
        _print(api.predict_text(model, row).model_dump_json(indent=2, exclude_none=True))


context_option = click.option(
    "--context", default="", help="Context of the kubeconfig; by default the current one, or in a pod its own account."
)


@main.command()
@click.argument("model", default="")
@click.option("-n", "--namespace", default="", help="Look for pods that cannot start, too, in this namespace.")
@context_option
def doctor(model: str, namespace: str, context: str) -> None:
    """Check every service and the loop between them; says what is wrong and what to do. MODEL: only that one."""
    PlatformSettings().export()
    from app.cli.doctor import examine, examine_pods
    from app.clients.kubernetes import KubernetesClient

    failed = 0
    pods = examine_pods(KubernetesClient(namespace, context)) if namespace else ()
    for finding in chain(pods, examine(PlatformSettings(), model)):
        _print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:24} {finding.detail}")
        if not finding.ok:
            failed += 1
            _print(f"      {'':24} -> {finding.cure}")
    if failed:
        raise CommandError(f"{failed} check{'s' if failed > 1 else ''} failed")


@main.command()
@click.argument("model")
@click.option("--seconds", default=600.0, show_default=True, help="How long the training may take.")
@click.option("--retrain", is_flag=True, help="Make its inputs drift afterwards, and wait for what the retrainer does.")
def loop(model: str, seconds: float, retrain: bool) -> None:
    """Run the loop once on the platform as it is: train, gate, promote, predict, scrape; prints each stage's time."""
    settings = PlatformSettings()
    settings.export()
    from app.cli.loop import Loop

    for stage in Loop(settings, model, seconds, retrain).run():
        _print(f"{stage.name:8} {stage.seconds:6.1f} s  {stage.detail}")


@main.command()
@click.argument("model")
@click.option(
    "--shift", default=1.5, show_default=True, help="How far to shift, in standard deviations of each feature."
)
@click.option(
    "--features",
    default="",
    help="Features to shift, such as sepal_length,petal_length; by default all that are numbers.",
)
@click.option("--rows", default=600, show_default=True, type=click.IntRange(1, 100_000), help="How many rows to send.")
@click.option("--feedback", is_flag=True, help="Feed the true labels back, so that a retraining can become better.")
@click.option("--seed", default=0, show_default=True, help="Seed of the choice of rows.")
@click.option("--url", help="Address of the model API; by default that of MLOPS_API_URL.")
def drift(model: str, shift: float, features: str, rows: int, feedback: bool, seed: int, url: str | None) -> None:
    """Make MODEL's inputs drift: send the API shifted rows of the model's own data, for which FeatureDrift fires."""
    settings = PlatformSettings()
    from app.cli.drift import send, shifted
    from flows.catalog import load_model
    from flows.model import ModelFileError

    try:
        definition = load_model(model)
    except ModelFileError as error:
        raise CommandError(str(error)) from error
    names = [name.strip() for name in features.split(",") if name.strip()]
    frame = shifted(definition, rows, shift, names, seed)
    with ModelApiClient(url or settings.api_url, max(settings.timeout, 30), key=settings.api_key) as api:
        for line in send(api, definition, frame, feedback):
            _print(line)


@main.group()
def credentials() -> None:
    """Make or rotate the passwords and keys of an installation on Kubernetes."""


def _secret_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which the commands find the Secret."""
    for option in (
        click.option("--name", default="mlops-credentials", show_default=True, help="Name of the Secret."),
        click.option("-n", "--namespace", default="mlops", show_default=True, help="Its namespace."),
    ):
        command = option(command)
    return command


@credentials.command()
@_secret_options
@context_option
@click.option("--wait", default=0.0, help="Seconds to wait until Kubernetes answers.")
def create(name: str, namespace: str, context: str, wait: float) -> None:
    """Make the Secret in the cluster, or add the keys that it lacks; a value that is there stays."""
    from app.cli.credentials import create, run
    from app.clients.kubernetes import KubernetesClient

    _print(run(KubernetesClient(namespace, context, retry_for=wait), lambda api: create(api, name)))


@credentials.command()
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "everything", is_flag=True, help="Rotate all keys that can be.")
@_secret_options
@context_option
def rotate(keys: tuple[str, ...], everything: bool, name: str, namespace: str, context: str) -> None:
    """Give KEYs new values, and what is made from them; then restart the pods that read them."""
    from app.cli.credentials import BY_KEY, rotate, run
    from app.clients.kubernetes import KubernetesClient

    if everything == bool(keys):
        raise click.UsageError(f"name the keys to rotate, or say --all; the keys are: {', '.join(BY_KEY)}")
    for line in run(KubernetesClient(namespace, context), lambda api: rotate(api, name, keys)):
        _print(line)


@credentials.command("print")
@_secret_options
def print_secret(name: str, namespace: str) -> None:
    """Print a Secret with new values for all keys, for `kubectl create -f -`, kubeseal or a vault; asks no cluster."""
    from app.cli.credentials import printed

    click.echo(printed(name, namespace), nl=False)


@main.group()
def keys() -> None:
    """Make, change, rotate or revoke the keys of the model API's clients: in the cluster, or here with --dir."""


def _place_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which the commands find the clients."""
    for option in (
        context_option,
        click.option("--name", "secret", default="mlops-api-keys", show_default=True, help="Name of the Secret."),
        click.option("-n", "--namespace", default="mlops", show_default=True, help="Its namespace."),
        click.option(
            "--dir",
            "folder",
            type=click.Path(path_type=Path),
            help="Folder of the clients, in place of the Secret: MLOPS_API_KEYS_DIR of an API on this machine.",
        ),
    ):
        command = option(command)
    return command


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options for how much a client may send."""
    rate = click.option(
        "--requests-per-second",
        type=click.FloatRange(0, max=1e6),
        help="How many requests it may send to each pod, 0 for any number, as a new client may.",
    )
    labels = click.option(
        "--feedback-per-day",
        type=click.IntRange(0),
        help="How many labels it may send to each pod, 0 for any number; 10000 for a new client.",
    )
    return rate(labels(command))


@keys.command("create")
@click.argument("client")
@click.option("--scopes", required=True, help="What it may do, such as predict,feedback; admin for everything.")
@_limit_options
@_place_options
def create_key(
    client: str, scopes: str, requests_per_second: float | None, feedback_per_day: int | None, **place: Any
) -> None:
    """Make CLIENT and print its key, this once: only a hash of it is kept."""
    from app.cli.keys import Place, client_with, create
    from app.runtime.api_keys import new_key

    key = new_key()
    where = Place(**place)
    where.edit(create(client, client_with(key, scopes, requests_per_second or 0, feedback_per_day)))
    _print_key(key, f"made the client {client} in {where}. {where.delay}")
    if warning := where.warning():
        click.echo(f"Warning: {warning}", err=True)


@keys.command("change")
@click.argument("client")
@click.option("--scopes", help="What it may do from now on, such as predict,feedback.")
@_limit_options
@_place_options
def change_client(
    client: str, scopes: str | None, requests_per_second: float | None, feedback_per_day: int | None, **place: Any
) -> None:
    """Give CLIENT other scopes or limits; what is not named stays, and its keys do."""
    from app.cli.keys import Place, change

    if scopes is None and requests_per_second is None and feedback_per_day is None:
        raise click.UsageError("say what to change: --scopes, --requests-per-second or --feedback-per-day")
    where = Place(**place)
    where.edit(change(client, scopes, requests_per_second, feedback_per_day))
    _print(f"changed the client {client}. {where.delay}")


@keys.command("list")
@_place_options
def list_keys(**place: Any) -> None:
    """Print the clients, with what each may do; no key, as none is kept."""
    from app.cli.keys import Place, table

    for line in table(Place(**place).read()):
        _print(line)


@keys.command("rotate")
@click.argument("client")
@_place_options
def rotate_key(client: str, **place: Any) -> None:
    """Give CLIENT another key beside the one it has, and print it; both work until the older one is retired."""
    from app.cli.keys import Place, rotate
    from app.runtime.api_keys import new_key

    key = new_key()
    where = Place(**place)
    where.edit(rotate(client, key))
    _print_key(key, f"{client} has two keys now; `mlops keys retire {client}` takes the older one away. {where.delay}")


@keys.command("retire")
@click.argument("client")
@_place_options
def retire_key(client: str, **place: Any) -> None:
    """Take the older of its two keys away from CLIENT."""
    from app.cli.keys import Place, retire

    where = Place(**place)
    where.edit(retire(client))
    _print(f"{client} has the newer key alone. {where.delay}")


@keys.command("revoke")
@click.argument("client")
@_place_options
def revoke_keys(client: str, **place: Any) -> None:
    """Remove CLIENT with its keys."""
    from app.cli.keys import Place, revoke

    where = Place(**place)
    where.edit(revoke(client))
    _print(f"removed the client {client} from {where}. {where.delay}")


def _print_key(key: str, what: str) -> None:
    """The key alone on standard output, for programs."""
    click.echo(what, err=True)
    _print(key)


def _backup_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options by which the commands find what to back up, and where backups are."""
    for option in (
        click.option(
            "--to",
            "destination",
            type=click.Path(path_type=Path),
            default=Path("mlops-backups"),
            show_default=True,
            help="With --folder: the folder that has the backups.",
        ),
        click.option("--folder", type=click.Path(path_type=Path), help="Of the demo in this folder, such as .mlops."),
        click.option("--release", default="mlops", show_default=True, help="What the names of the release begin with."),
        click.option("-n", "--namespace", default="mlops", show_default=True, help="Its namespace."),
        context_option,
    ):
        command = option(command)
    return command


@main.command()
@click.option("--list", "listed", is_flag=True, help="Print the backups that are kept, and make none.")
@click.option(
    "--new-identity",
    type=click.Path(path_type=Path),
    help="Make a key of yours instead: the private half in this new file; prints the public half, backup.recipient.",
)
@_backup_options
def backup(
    listed: bool,
    new_identity: Path | None,
    namespace: str,
    release: str,
    context: str,
    folder: Path | None,
    destination: Path,
) -> None:
    """Back up what MLflow and Prefect keep, now, while they run: in the cluster, or of a demo's folder."""
    from app.backup.secrets import new_identity as make_identity
    from app.cli import backup as backups

    if new_identity:
        _print(make_identity(new_identity))
    elif folder:
        if listed:
            backups.list_folder(destination, _print)
        else:
            backups.backup_folder(folder, destination, _print)
    else:
        _on_cluster(namespace, context, release, lambda cluster: cluster.print_list() if listed else cluster.backup())


@main.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Check the backup and say what would be replaced; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--identity",
    type=click.Path(path_type=Path),
    help="File with your private age key: restores passwords and keys, too. It stays on this machine.",
)
@_backup_options
def restore(
    name: str,
    dry_run: bool,
    yes: bool,
    identity: Path | None,
    namespace: str,
    release: str,
    context: str,
    folder: Path | None,
    destination: Path,
) -> None:
    """Check the backup NAME, then put it in the place of what is there: in the cluster, or in a demo's folder."""
    from app.cli import backup as backups

    def confirm() -> None:
        if not yes:
            click.confirm("This replaces what is there now. Go on?", abort=True)

    if folder:
        backups.restore_folder(folder, destination, name, dry_run, confirm, _print)
    else:
        _on_cluster(namespace, context, release, lambda cluster: cluster.restore(name, dry_run, identity, confirm))


def _on_cluster(namespace: str, context: str, release: str, command: Callable[[Any], Any]) -> None:
    from app.cli.backup import Cluster, run
    from app.clients.kubernetes_jobs import JobsClient

    run(JobsClient(namespace, context, timeout=30, retry_for=60), lambda api: command(Cluster(api, release, _print)))


def _report(decision: dict[str, Any]) -> None:
    """Print a decision; a refused one ends the command with exit code 3."""
    at = f" (check: {decision['check']})" if decision["check"] else ""
    version = f" version {decision['version']}" if decision["version"] else ""
    outcome = "done" if decision["action"] == "rollback" and not at else decision["outcome"]
    _print(f"{decision['action']} {decision['model']}{version}: {outcome}{at}: {decision['reason']}")
    if decision["outcome"] == "refused":
        sys.exit(REFUSED)


def _print(text: str) -> None:
    click.echo(text)
