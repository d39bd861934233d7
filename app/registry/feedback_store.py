"""The feedback store: true labels of predictions, as small files in MLflow's artifact store.

Experiment "feedback", one run per model named after it, below it feedback/<time>-<random>-<hash>.jsonl with one JSON
object per line: id, time, model, version, features, prediction, label. Files are only ever added, so replicas need no
agreement; by the hash of the content in its name, a whole file can be told from one whose upload was cut.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from app.clients.mlflow import MlflowClient, NotFound

EXPERIMENT = "feedback"
FOLDER = "feedback"
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}-[0-9a-f]{8}-([0-9a-f]{16})\.jsonl")

log = logging.getLogger("mlops.feedback")

Row = dict[str, Any]


def encode(rows: Iterable[Row]) -> bytes:
    """Rows as JSON lines."""
    return b"".join(json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n" for row in rows)


def decode(content: bytes) -> list[Row]:
    """The rows of a file that `encode` wrote."""
    return [json.loads(line) for line in content.splitlines()]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def name(content: bytes, at: datetime | None = None) -> str:
    """A file name that no other file has, and that fits this content only.

    Args:
        at: the time that the name begins with, by default now.
    """
    stamp = (at or datetime.now(UTC)).strftime("%Y%m%dT%H%M%S.%f")
    return f"{stamp}-{secrets.token_hex(4)}-{_hash(content)}.jsonl"


def is_whole(file: str, content: bytes) -> bool:
    """Whether the content is the one whose hash is in the file's name."""
    match = _NAME.fullmatch(file)
    return bool(match) and match[1] == _hash(content)  # type: ignore[index]


def _folders(registry: MlflowClient, model: str) -> list[str]:
    runs = registry.search_runs(EXPERIMENT, {"mlops.kind": "feedback", "mlops.model": model})
    return [f"{registry.artifact_path(run.artifact_uri)}/{FOLDER}" for run in reversed(runs)]


def store(registry: MlflowClient, model: str, rows: Iterable[Row]) -> str:
    """Store the rows of one model as one file; when this returns, MLflow has them.

    Returns:
        the file's path below the artifact proxy.

    Raises:
        MlflowError: they may not be stored; storing them again does no harm.
    """
    content = encode(rows)
    # Looked up each time: nobody would find what is written below a run that was deleted meanwhile.
    folders = _folders(registry, model)
    if not folders:
        experiment = registry.ensure_experiment(EXPERIMENT)
        registry.create_run(experiment, model, {"mlops.kind": "feedback", "mlops.model": model})
        # Two replicas may have made one each: readers read both, and from now on the oldest is used.
        folders = _folders(registry, model)
    if not folders:
        raise NotFound(f"the feedback run of {model} was made but cannot be found")
    path = f"{folders[0]}/{name(content)}"
    registry.write_artifact(path, content)
    return path


def read(registry: MlflowClient, model: str) -> list[Row]:
    """All feedback on a model, oldest first: one row per prediction, with the newest label it was given.

    A file that is not whole is skipped with a warning: its writer was never told that it is stored.

    Raises:
        MlflowError: MLflow does not answer.
    """
    newest: dict[str, tuple[float, str, Row]] = {}
    for folder in _folders(registry, model):
        try:
            files = registry.list_artifacts(folder)
        except NotFound:  # the run was made, nothing is stored yet
            continue
        for file in files:
            content = registry.read_artifact(f"{folder}/{file}")
            if not is_whole(file, content):
                log.warning("%s/%s is not whole and was skipped", folder, file)
                continue
            for row in decode(content):
                key = (row["time"], file)
                if row["id"] not in newest or key >= newest[row["id"]][:2]:
                    newest[row["id"]] = (*key, row)
    return [row for _, _, row in sorted(newest.values(), key=lambda item: item[:2])]
