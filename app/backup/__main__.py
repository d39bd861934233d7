"""`python -m app.backup`: what the Jobs in the cluster run. Each has one service's volume and the place for archives.

The environment says where these are. With --json the last line that is printed is for `mlops backup`, errors too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.backup.archive import Contents
from app.backup.errors import BackupError
from app.backup.restore import check, encrypted_secrets, restore
from app.backup.save import DATABASES, Job, Saved, save
from app.backup.store import backup_name, checked_name, file_name, store


def main() -> None:
    """Run one command; exit code 1 where it cannot be done."""
    arguments = _arguments()
    try:
        answer = run(arguments)
    except BackupError as error:
        answer = {"error": error.what, "cure": error.cure}
    if arguments.json:
        print(json.dumps(answer), flush=True)  # noqa: T201
    elif "error" not in answer:
        print("\n".join(lines(answer)), flush=True)  # noqa: T201
    if "error" in answer:
        sys.exit(1 if arguments.json else f"{answer['error']}; {answer['cure']}")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command answers.

    Raises:
        BackupError: it cannot be done.
    """
    environment = os.environ
    kept = store(environment["MLOPS_BACKUP_DESTINATION"], environment.get("MLOPS_BACKUP_ENDPOINT_URL", ""))
    if arguments.command == "list":
        return {"entries": [[entry.backup, entry.component, entry.size] for entry in kept.entries()]}
    origin, component = environment["MLOPS_BACKUP_ORIGIN"], environment["MLOPS_BACKUP_COMPONENT"]
    data = Path(environment["MLOPS_BACKUP_DATA"])
    variables = [database.variable for database in DATABASES[component]]
    urls = {variable: environment[variable] for variable in variables if environment.get(variable)}
    if arguments.command == "save":
        due = backup_name(origin, _scheduled(environment.get("MLOPS_BACKUP_JOB", "")))
        name = checked_name(arguments.name or due)
        if not arguments.name and any(entry.file == file_name(name, component) for entry in kept.entries()):
            # a pod that was killed at the very end is made again
            return {"file": file_name(name, component), **described(check(kept, name, component, urls))}
        job = Job(
            component,
            data,
            origin,
            name,
            int(environment["MLOPS_BACKUP_LAST"]),
            int(environment["MLOPS_BACKUP_DAYS"]),
            environment.get("MLOPS_BACKUP_RECIPIENT", ""),
            urls,
        )
        return written(save(job, kept))
    name = checked_name(arguments.name)
    if arguments.command == "check":
        return {"file": file_name(name, component), **described(check(kept, name, component, urls))}
    if arguments.command == "secrets":
        return {"encrypted": encrypted_secrets(kept, name)}
    restored = restore(kept, name, component, data, urls)
    return {"file": file_name(name, component), **described(restored.contents), "counts": restored.counts}


def written(saved: Saved) -> dict[str, Any]:
    """What is said of an archive that was just made."""
    return {
        "file": saved.file,
        "size": saved.size,
        "seconds": round(saved.seconds, 1),
        "removed": saved.removed,
        **described(saved.contents),
    }


def described(contents: Contents) -> dict[str, Any]:
    """What is said of an archive: its header, its files' number and bytes, its counts."""
    return {
        **asdict(contents.header),
        "files": len(contents.members),
        "bytes": contents.size,
        "counts": contents.counts,
    }


def lines(answer: dict[str, Any]) -> Iterator[str]:
    """An answer for people."""
    for backup, component, size in answer.get("entries", []):
        yield f"{file_name(backup, component)}  {size} bytes"
    if "file" in answer:
        yield summary(answer)
        yield from (f"removed the older backup {backup}" for backup in answer.get("removed", []))


def summary(answer: dict[str, Any]) -> str:
    """One line about an archive: its name, what is in it, and where that is known size and time."""
    counted = ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in answer["counts"].items())
    size = f" ({answer['size'] / 1e6:.1f} MB in {answer['seconds']:g} s)" if "size" in answer else ""
    return f"{answer['file']}{size}: {counted}"


def _scheduled(job: str) -> datetime:
    """When a CronJob's Job was due, which the end of its name says in minutes: the same for all components."""
    minutes = re.search(r"-(\d{8})$", job)  # until the year 2160
    return datetime.fromtimestamp(int(minutes[1]) * 60, UTC) if minutes else datetime.now(UTC)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.backup", description=__doc__)
    parser.add_argument("command", choices=["save", "list", "check", "restore", "secrets"])
    parser.add_argument("--name", default="", help="of the backup")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON, as the last line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
