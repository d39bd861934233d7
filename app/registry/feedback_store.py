"""The feedback store: true labels of predictions, as files in MLflow's artifact store.

Experiment "feedback". Each model has an *open* run (tag mlops.kind "feedback"), and below it a file for each upload,
feedback/<time>-<random>-<hash>.jsonl, with one JSON object per line: id, time, model, version, features, prediction,
label, client (whose key it came with, "" where none was asked for). Dates among the features are days since 1970-01-01
UTC, as models get them. Files are only ever added, so replicas need no agreement; by the hash of the content in its
name, a whole file can be told from one whose upload was cut.

A run that has many files is *compacted*: it is closed (kind "feedback-closed"), its files are written once more as few
large ones into a folder of their own, and when that is complete the tag mlops.compacted names the folder, which readers
read instead. Whoever stores a file looks afterwards whether its run was still open, and stores it again in another if
not; so what was acknowledged is in the run before it is compacted. A killed compaction leaves a closed run, which is
read file by file until the next one. Nothing is deleted: the accounts that write here may not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from app.clients.mlflow import MlflowClient, NotFound, Run

EXPERIMENT = "feedback"
FOLDER = "feedback"
OPEN, CLOSED = "feedback", "feedback-closed"  # values of the tag mlops.kind
COMPACTED_TAG = "mlops.compacted"  # of a closed run: the folder with its few large files
COMPACT_AT = 100  # files of a run
MAX_FILE = 4 * 1024 * 1024  # bytes, about, of a compacted file
READERS = 8  # files that are read at the same time
MAX_RUNS = 50_000  # the most that MLflow lists at once: with 100 files each, 5 million uploads per model
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


def _runs(registry: MlflowClient, model: str, kind: str) -> list[Run]:
    """The model's runs of this kind, oldest first."""
    return registry.search_runs(EXPERIMENT, {"mlops.kind": kind, "mlops.model": model}, MAX_RUNS)[::-1]


def _open_run(registry: MlflowClient, model: str) -> Run:
    """The run that is stored in now: the oldest open one, made where there is none."""
    # Looked up each time: nobody would find what is written below a run that was deleted meanwhile.
    runs = _runs(registry, model, OPEN)
    if not runs:
        experiment = registry.ensure_experiment(EXPERIMENT)
        registry.create_run(experiment, model, {"mlops.kind": OPEN, "mlops.model": model})
        # Two replicas may have made one each: readers read both, and from now on the oldest is used.
        runs = _runs(registry, model, OPEN)
    if not runs:
        raise NotFound(f"the feedback run of {model} was made but cannot be found")
    return runs[0]


def store(registry: MlflowClient, model: str, rows: Iterable[Row]) -> str:
    """Store the rows of one model as one file; when this returns, MLflow has them.

    Returns:
        the file's path below the artifact proxy.

    Raises:
        MlflowError: they may not be stored; storing them again does no harm.
    """
    content = encode(rows)
    while True:
        run = _open_run(registry, model)
        path = f"{registry.artifact_path(run.artifact_uri)}/{FOLDER}/{name(content)}"
        registry.write_artifact(path, content)
        if registry.run(run.run_id).tags.get("mlops.kind") == OPEN:
            return path
        # It was closed meanwhile, and who compacts it may have listed its files before this one was there.


def compact(registry: MlflowClient, model: str) -> int:
    """Compact the model's runs that have many files, and those whose compaction was cut; returns how many it did.

    Any number may do this at once, and be killed: the worst is that rows are stored twice, which readers count once.

    Raises:
        MlflowError: MLflow does not answer.
    """
    done = 0
    for run in _runs(registry, model, OPEN):
        if len(_files(registry, run)) >= COMPACT_AT:
            registry.log(run.run_id, tags={"mlops.kind": CLOSED})
    for run in _runs(registry, model, CLOSED):
        if COMPACTED_TAG not in run.tags:
            _compact_run(registry, run)
            done += 1
    return done


def _compact_run(registry: MlflowClient, run: Run) -> None:
    """Write the files of a closed run as few large ones, then say in its tag where these are."""
    folder = f"compacted-{secrets.token_hex(4)}"
    root = registry.artifact_path(run.artifact_uri)
    waiting: list[bytes] = []
    for _, content in _contents(registry, _files(registry, run)):
        waiting.append(content)
        if sum(map(len, waiting)) >= MAX_FILE:
            _write(registry, f"{root}/{folder}", b"".join(waiting))
            waiting = []
    _write(registry, f"{root}/{folder}", b"".join(waiting))
    registry.log(run.run_id, tags={COMPACTED_TAG: folder})


def _write(registry: MlflowClient, folder: str, content: bytes) -> None:
    registry.write_artifact(f"{folder}/{name(content)}", content)


def _files(registry: MlflowClient, run: Run) -> list[str]:
    """The paths of the run's files: the large ones where it is compacted."""
    folder = f"{registry.artifact_path(run.artifact_uri)}/{run.tags.get(COMPACTED_TAG, FOLDER)}"
    try:
        return [f"{folder}/{file}" for file in registry.list_artifacts(folder)]
    except NotFound:  # the run was made, nothing is stored yet
        return []


def _contents(registry: MlflowClient, files: list[str]) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file that is whole, in their order; a few are read at the same time."""
    with ThreadPoolExecutor(READERS, thread_name_prefix="feedback-reader") as pool:
        for start in range(0, len(files), READERS):
            some = files[start : start + READERS]
            for path, content in zip(some, pool.map(registry.read_artifact, some), strict=True):
                file = path.rsplit("/", 1)[1]
                if is_whole(file, content):
                    yield file, content
                else:
                    log.warning("%s is not whole and was skipped", path)


def read(registry: MlflowClient, model: str) -> list[Row]:
    """All feedback on a model, oldest first: one row per prediction, with the newest label it was given.

    A file that is not whole is skipped with a warning: its writer was never told that it is stored.

    Raises:
        MlflowError: MLflow does not answer.
    """
    # The open ones first: one that is closed in between is found twice, not never.
    runs = {run.run_id: run for kind in (OPEN, CLOSED) for run in _runs(registry, model, kind)}
    files = [file for run in runs.values() for file in _files(registry, run)]
    newest: dict[str, tuple[float, str, Row]] = {}
    for file, content in _contents(registry, files):
        for row in decode(content):
            key = (row["time"], file)
            if row["id"] not in newest or key >= newest[row["id"]][:2]:
                newest[row["id"]] = (*key, row)
    return [row for _, _, row in sorted(newest.values(), key=lambda item: item[:2])]
