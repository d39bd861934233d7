"""The `mlops` command. Exit codes: 0 done, 1 failed, 2 wrong use, 3 a promotion was refused."""

from __future__ import annotations

import getpass
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import httpx

from app.clients.mlflow import MlflowClient, MlflowError
from app.runtime.settings import PlatformSettings

REFUSED = 3


class Commands(click.Group):
    """Turns the platform's own errors into one line on standard error."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MlflowError as error:
            raise click.ClickException(str(error)) from error


def _who() -> str:
    try:
        return getpass.getuser()
    except OSError:  # a container's uid without a name
        return "unknown"


who_option = click.option("--who", default=_who, show_default="your user name", help="Who decided, for the ledger.")
why_option = click.option("--why", default="", help="Why, for the ledger.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, register, promote, serve and watch scikit-learn models."""


@main.command()
@click.argument("model", default="iris")
@click.option("--once", is_flag=True, help="Stop after the first prediction was verified.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=Path(".mlops"),
    show_default=True,
    help="Databases, artifacts, logs.",
)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--prefect-port", default=4200, show_default=True)
@click.option("--api-port", default=8086, show_default=True)
@click.option("--ui-port", default=8501, show_default=True)
def demo(model: str, once: bool, folder: Path, **ports: int) -> None:
    """Run the whole loop on this machine until Ctrl-C: servers, training, promotion, API and pages."""
    from app.cli.demo import Demo, DemoError

    try:
        Demo(model, folder, {name.removesuffix("_port"): port for name, port in ports.items()}).run(once=once)
    except DemoError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("model")
@click.option("--source", help="CSV or Parquet path or URL instead of the model's own data.")
@click.option("--seed", default=42, show_default=True, help="Of the estimator.")
@click.option("--feedback", is_flag=True, help="Add the stored feedback rows to the data.")
@click.option("--no-promote", is_flag=True, help="Register only.")
@click.option("--wait", default=0.0, help="Seconds to wait for MLflow and Prefect to come up.")
@click.option("--result", type=click.Path(path_type=Path), help="Write what came of it to this JSON file.")
@who_option
def train(
    model: str,
    source: str | None,
    seed: int,
    feedback: bool,
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
    from flows.dataset import DatasetError, SourceUnavailable
    from flows.model import ModelFileError
    from flows.train import train as train_flow

    try:
        load_model(model)
    except ModelFileError as error:
        raise click.ClickException(str(error)) from error
    for name, url in (("MLflow", f"{settings.mlflow_url}/health"), ("Prefect", f"{settings.prefect_url}/health")):
        if not wait_for_url(url, wait):
            raise click.ClickException(f"{name} does not answer at {url}; start it with `make demo`")
    try:
        done = train_flow(
            model, source=source, seed=seed, feedback=feedback, promote=not no_promote, who=who, cause="mlops train"
        )
    except (DatasetError, SourceUnavailable, RegistrationError) as error:
        raise click.ClickException(str(error)) from error
    if result:
        result.write_text(json.dumps(done))
    _say(f"registered version {done['version']} of {model}")
    if done["decision"]:
        _report(done["decision"])


@main.command()
@click.argument("model")
@click.option("--version", help="By default the newest.")
@click.option("--allow-signature-change", is_flag=True, help="Even if requests of today would fail.")
@who_option
@why_option
def promote(model: str, version: str | None, allow_signature_change: bool, who: str, why: str) -> None:
    """Put a version of MODEL into production if it passes the gate."""
    from dataclasses import asdict

    from app.registry.promotion import promote as promote_version

    with MlflowClient() as registry:
        decision = promote_version(
            registry, model, version, who=who, why=why, allow_signature_change=allow_signature_change
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
@click.option("--limit", default=20, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def history(model: str, limit: int, as_json: bool) -> None:
    """Every decision about MODEL, newest first."""
    from dataclasses import asdict

    from app.registry.ledger import Ledger

    with MlflowClient() as registry:
        decisions = Ledger(registry, model).history(limit)
    if as_json:
        _say(json.dumps([asdict(decision) for decision in decisions], indent=2))
        return
    for d in decisions:
        when = datetime.fromtimestamp(d.time).strftime("%Y-%m-%d %H:%M:%S")
        verdict = f"{d.outcome} ({d.check})" if d.check else d.outcome
        _say(f"{when}  {d.action:8} {d.previous or '-':>4} -> {d.version or '-':4} {verdict:22} {d.who}: {d.reason}")


@main.command()
@click.argument("model")
@click.argument("values", nargs=-1, metavar="FEATURE=VALUE...")
def predict(model: str, values: tuple[str, ...]) -> None:
    """Ask the API for one prediction of MODEL: mlops predict iris sepal_length=5.1 ..."""
    settings = PlatformSettings()
    wrong = [value for value in values if "=" not in value]
    if wrong:
        raise click.UsageError(f"{wrong[0]!r} is not FEATURE=VALUE")
    try:
        answer = httpx.get(
            f"{settings.api_url}/models/{model}/predict",
            params=[tuple(value.split("=", 1)) for value in values],  # type: ignore[misc]
            timeout=settings.timeout,
        )
    except httpx.HTTPError as error:
        raise click.ClickException(
            f"the API at {settings.api_url} does not answer ({error}); start it with `make demo`, or set MLOPS_API_URL"
        ) from error
    if answer.status_code == 422:
        problems = answer.json()["detail"]
        lines = [f"{item['loc'][-1]}: {item['msg']}" for item in problems] if isinstance(problems, list) else [problems]
        raise click.ClickException("; ".join(lines))
    if answer.is_error:
        raise click.ClickException(answer.json().get("detail", answer.text))
    _say(json.dumps(answer.json(), indent=2))


@main.command()
@click.argument("model", default="")
def doctor(model: str) -> None:
    """Check every service and the loop between them; says what is wrong and what to do. MODEL: only that one."""
    PlatformSettings().export()
    from app.cli.doctor import examine

    failed = 0
    for finding in examine(PlatformSettings(), model):
        _say(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check:24} {finding.detail}")
        if not finding.ok:
            failed += 1
            _say(f"      {'':24} -> {finding.cure}")
    if failed:
        raise click.ClickException(f"{failed} check{'s' if failed > 1 else ''} failed")


@main.command()
@click.argument("model")
@click.option("--seconds", default=600.0, show_default=True, help="How long the training may take.")
@click.option("--retrain", is_flag=True, help="Then make its inputs drift, and wait for what the retrainer does.")
def loop(model: str, seconds: float, retrain: bool) -> None:
    """Run the loop once on the platform as it is: train, gate, promote, predict, scrape; prints each stage's time."""
    settings = PlatformSettings()
    settings.export()
    from app.cli.loop import Loop, LoopError

    try:
        for stage in Loop(settings, model, seconds, retrain).run():
            _say(f"{stage.name:8} {stage.seconds:6.1f} s  {stage.detail}")
    except LoopError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("model")
@click.option("--shift", default=1.5, show_default=True, help="In standard deviations of each feature.")
@click.option(
    "--features", default="", help="Which to shift, such as sepal_length,petal_length; by default all numbers."
)
@click.option("--rows", default=600, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--feedback", is_flag=True, help="Feed the true labels back, so that a retraining can become better.")
@click.option("--seed", default=0, show_default=True, help="Of the choice of rows.")
@click.option("--url", help="The API; by default MLOPS_API_URL.")
def drift(model: str, shift: float, features: str, rows: int, feedback: bool, seed: int, url: str | None) -> None:
    """Make MODEL's inputs drift: send the API shifted rows of the model's own data, which FeatureDrift tells of."""
    settings = PlatformSettings()
    from app.cli.drift import DriftError, send, shifted
    from flows.catalog import load_model
    from flows.model import ModelFileError

    try:
        definition = load_model(model)
        frame = shifted(definition, rows, shift, [name.strip() for name in features.split(",") if name.strip()], seed)
        with httpx.Client(base_url=url or settings.api_url, timeout=max(settings.timeout, 30)) as api:
            for line in send(api, definition, frame, feedback):
                _say(line)
    except (DriftError, ModelFileError) as error:
        raise click.ClickException(str(error)) from error


def _report(decision: dict[str, Any]) -> None:
    """Print a decision; a refused one ends the command with exit code 3."""
    at = f" (check: {decision['check']})" if decision["check"] else ""
    version = f" version {decision['version']}" if decision["version"] else ""
    outcome = "done" if decision["action"] == "rollback" and not at else decision["outcome"]
    _say(f"{decision['action']} {decision['model']}{version}: {outcome}{at}: {decision['reason']}")
    if decision["outcome"] == "refused":
        sys.exit(REFUSED)


def _say(text: str) -> None:
    click.echo(text)
