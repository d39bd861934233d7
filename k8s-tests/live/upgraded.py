"""The platform after one upgrade, with all settings that tests need besides those of `make up`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backups import KEY, RECIPIENT, documented
from kept import Kept, kept
from models_repository import ModelsRepository
from namespace import Namespace
from release import CHART, CONTEXT, Platform, run

UPGRADE = (
    "helm upgrade mlops charts/platform -n mlops --reset-then-reuse-values"
    f" --set backup.enabled=true --set backup.recipient={RECIPIENT}"
)


@dataclass(frozen=True)
class Upgraded:
    """The platform with backups, gRPC, and models of a repository, where the worker looks for news every second.

    identity: the private key of the backups; recipient: its public half.
    settings_before: the release's values before, as a file.
    before, after: what people and trainings had made, before the upgrade and after it.
    """

    platform: Platform
    models: ModelsRepository
    identity: Path
    recipient: str
    settings_before: Path
    before: Kept
    after: Kept


@contextmanager
def upgrade(platform: Platform, git: Namespace, folder: Path) -> Iterator[Upgraded]:
    """Upgrade the platform as docs/operations.md says, with backups, gRPC and a repository; and back.

    Args:
        git: the namespace that git's daemon is to run in.
        folder: for what this machine needs of it.
    """
    settings_before, identity = folder / "values.json", folder / "key.txt"
    settings_before.write_text(_settings(platform))
    words = documented(f"mlops backup --new-identity {KEY}", key=identity)
    recipient = run([sys.executable, "-m", "app.cli", *words[1:]]).strip()
    models = ModelsRepository(folder / "models", git)
    repository = {"url": models.url, "path": "models", "pollSeconds": 1}
    options = [f"--set=prefect-worker.models.git.{key}={value}" for key, value in repository.items()]
    options += ["--set=model-api.grpc.enabled=true"]
    options += ["--set=prefect-server.retentionDays=80"]  # so that this server is replaced, too
    before = kept(platform, folder)
    run([*documented(UPGRADE, recipient=recipient), *options, "--kube-context", CONTEXT, "--timeout", "10m"])
    platform.ready()
    try:
        after = kept(platform, folder)
        yield Upgraded(platform, models, identity, recipient, settings_before, before, after)
    finally:
        if json.loads(_settings(platform)) != json.loads(settings_before.read_text()):
            options = ["--reset-values", "--values", str(settings_before), "--timeout", "10m"]
            platform.helm("upgrade", platform.release, CHART, *options)
            platform.ready()


def _settings(platform: Platform) -> str:
    return platform.helm("get", "values", platform.release, "--output", "json")
