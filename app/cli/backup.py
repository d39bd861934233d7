"""`mlops backup` and `mlops restore`: of an installation, by Jobs beside its volumes; of the demo's folder."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from app.backup.__main__ import described, summary, written
from app.backup.restore import check, restore
from app.backup.save import Job, save
from app.backup.secrets import decrypted
from app.backup.store import FolderStore, backup_name, checked_name
from app.cli.credentials import BY_KEY, refusal
from app.cli.errors import CommandError
from app.cli.folder_lock import lock_folder
from app.clients.kubernetes_jobs import Ended, JobsClient, last_json

Say = Callable[[str], None]
Answer = dict[str, Any]
T = TypeVar("T")

SERVICES = {"mlflow": "mlflow", "prefect": "prefect-server"}  # component -> the service that must not run meanwhile
AFTERWARDS = "prefect-worker"  # tells Prefect anew what it can run
READY_SECONDS = 300.0
DEMO = "demo"


# -- the demo's folder -------------------------------------------------------------------------------------------------


def backup_folder(folder: Path, destination: Path, say: Say) -> None:
    """Back up a folder of `mlops demo`, whether that runs or not.

    Raises:
        BackupError, CommandError: the backup could not be made.
    """
    name = backup_name(DEMO, datetime.now(UTC))
    if not (folder / "mlflow" / "mlflow.db").exists():
        raise CommandError(f"{folder} is not the folder of a demo: it has no mlflow/mlflow.db", "`make demo` makes it")
    for component in SERVICES:
        say(summary(written(save(Job(component, folder / component, DEMO, name), FolderStore(destination)))))
    say(f"{name} is in {destination}")


def restore_folder(
    folder: Path, destination: Path, name: str, dry_run: bool, confirm: Callable[[], None], say: Say
) -> None:
    """Restore a folder of `mlops demo`, which must not run.

    Raises:
        BackupError, CommandError: nothing was changed.
    """
    store = FolderStore(destination)
    for component in SERVICES:
        contents = check(store, checked_name(name), component)
        say(f"whole: {summary({'file': f'{name} {component}', **described(contents)})}")
    if dry_run:
        say(f"would replace what is in {folder}; nothing was changed")
        return
    confirm()
    folder.mkdir(parents=True, exist_ok=True)
    with closing(lock_folder(folder)):
        for component in SERVICES:
            (folder / component).mkdir(exist_ok=True)
            restored = restore(store, name, component, folder / component)
            say(f"restored {summary({'file': component, 'counts': restored.counts})}")


def list_folder(destination: Path, say: Say) -> None:
    """Print the backups in a folder."""
    _print_entries([[e.backup, e.component, e.size] for e in FolderStore(destination).entries()], str(destination), say)


# -- a cluster ---------------------------------------------------------------------------------------------------------


class Cluster:
    """Backups of a release, by the CronJobs of its chart `backup`.

    Args:
        api: of its namespace, connected.
        release: what the names of its objects begin with.
        say: prints a line.
    """

    def __init__(self, api: JobsClient, release: str, say: Say) -> None:
        self.api, self.release, self.say = api, release, say

    async def backup(self) -> None:
        """Back up all components now, side by side.

        Raises:
            CommandError: one could not be; the others were, where they are named.
        """
        jobs = await self._cron_jobs()
        name = backup_name(_variable(next(iter(jobs.values())), "MLOPS_BACKUP_ORIGIN"), datetime.now(UTC))
        self.say(f"{name}: saving {', '.join(jobs)}")
        if "secrets" not in jobs:
            self.say("without passwords and keys, as no key of yours is known: backup.recipient (docs/operations.md)")

        async def one(component: str) -> CommandError | None:
            try:
                self.say(summary(await self._answer(jobs[component], "save", "--name", name)))
            except CommandError as error:
                return error
            return None

        failed = [error for error in await asyncio.gather(*map(one, jobs)) if error]
        if failed:
            raise CommandError("; ".join(error.message for error in failed))
        self.say(f"`mlops restore {name}` puts it back")

    async def print_list(self) -> None:
        """Print the backups that are kept."""
        jobs = await self._cron_jobs()
        _print_entries(await self._entries(jobs), f"the namespace {self.api.namespace}", self.say)

    async def restore(self, name: str, dry_run: bool, identity: Path | None, confirm: Callable[[], None]) -> None:
        """Check all archives of a backup, then stop what has the files, put them back, and start it again.

        Raises:
            CommandError: the message says whether something was changed.
            BackupError: nothing was changed.
        """
        jobs = await self._cron_jobs()
        checked_name(name)
        kept = {component for backup, component, _ in await self._entries(jobs) if backup == name}
        if not kept:
            raise CommandError(f"there is no backup {name}", "`mlops backup --list` prints those that there are")
        chosen = [component for component in SERVICES if component in kept and component in jobs]
        for component in chosen:
            self.say(f"whole: {summary(await self._answer(jobs[component], 'check', '--name', name))}")
        values = await self._secrets(jobs, name, kept, identity)
        for component in SERVICES:
            if component not in chosen:
                self.say(f"{component} is not in this backup and stays as it is")
        secret, left = await self._changes(jobs, values)
        if values:
            self.say(f"passwords and keys: {len(secret)} of the backup's values are other ones than here")
        for key, reason in left.items():
            self.say(f"{key} stays as it is here: {reason}")
        if dry_run:
            self.say(f"would replace what {' and '.join(SERVICES[c] for c in chosen)} have; nothing was changed")
            return
        confirm()
        await self._replace(jobs, name, chosen, secret)

    async def _replace(self, jobs: dict[str, Answer], name: str, chosen: list[str], secret: dict[str, str]) -> None:
        deployments = {c: (await self.api.deployments(self._labels(SERVICES[c])))[0] for c in chosen}
        self.say(f"stopping {', '.join(deployments.values())}")
        await asyncio.gather(*(self.api.rest(deployments[c], self._labels(SERVICES[c])) for c in chosen))
        failed: list[CommandError] = []
        unknown: list[str] = []
        for component in chosen:
            try:
                answer = await self._answer(jobs[component], "restore", "--name", name)
                self.say(f"restored {summary({**answer, 'file': component})}")
            except Unanswered as error:
                failed.append(error)
                unknown.append(deployments[component])
            except CommandError as error:
                failed.append(error)
        readers: list[str] = []
        if secret and not failed:
            readers = await self._write_secret(jobs, secret)
        started = [d for d in deployments.values() if d not in unknown]
        for deployment in started:
            await self.api.wake(deployment)
        if "prefect" in chosen and not failed:
            readers += await self.api.deployments(self._labels(AFTERWARDS))
        for workload in await self.api.workloads():
            if workload.name in readers and workload.name not in deployments.values():
                await self.api.restart(workload)
        slow = [d for d in started if not await self.api.ready(d, READY_SECONDS)]
        if failed:
            stays = f"; stopped until you restore again: {', '.join(unknown)}" if unknown else ""
            raise CommandError("; ".join(error.message for error in failed) + stays)
        if slow:
            raise CommandError(
                f"restored, but not ready after {READY_SECONDS:.0f} s: {', '.join(slow)}",
                f"`kubectl -n {self.api.namespace} describe pods` says why",
            )
        self.say(f"{name} is restored, and {', '.join(started)} run")

    async def _secrets(
        self, jobs: dict[str, Answer], name: str, kept: set[str], identity: Path | None
    ) -> dict[str, str]:
        """The passwords and keys of a backup; none where nobody asks for them."""
        if identity is None:
            if "secrets" in kept:
                self.say(
                    "passwords and keys stay as they are here; --identity FILE, your private key, restores them, too"
                )
            return {}
        if "secrets" not in kept:
            raise CommandError(
                f"{name} has no passwords and keys in it", "restore without --identity; those here stay as they are"
            )
        answer = await self._answer(next(iter(jobs.values())), "secrets", "--name", name)
        content = decrypted(str(answer["encrypted"]).encode(), identity)
        return {str(key): str(value) for key, value in json.loads(content).items()}

    async def _changes(self, jobs: dict[str, Answer], values: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Of a backup's keys: new values for the Secret, and why others stay."""
        if not values:
            return {}, {}
        name = _variable(next(iter(jobs.values())), "MLOPS_BACKUP_SECRET")
        secret = await self.api.secret(name)
        here = secret.values if secret else {}
        workloads = await self.api.workloads()
        changed = {key: value for key, value in values.items() if key in BY_KEY and here.get(key) != value}
        left = {
            key: refusal(key, name, workloads)
            for key in changed
            if not BY_KEY[key].source and refusal(key, name, workloads) and here.get(key)
        }
        if "postgres-password" in left and not any((name, "postgres-password") in w.reads for w in workloads):
            del left["postgres-password"]  # nobody uses it here
        return {key: value for key, value in changed.items() if key not in left}, left

    async def _write_secret(self, jobs: dict[str, Answer], values: dict[str, str]) -> list[str]:
        """Set keys of the Secret; the names of the workloads that read them."""
        name = _variable(next(iter(jobs.values())), "MLOPS_BACKUP_SECRET")
        while True:
            secret = await self.api.secret(name)
            if secret is None or secret.owner:
                raise CommandError(f"the Secret {name} is not ours to change", "change it where it is kept")
            if await self.api.set_values(name, secret.version, values):
                break
        self.say(f"the Secret {name} has the backup's values of {', '.join(values)}")
        return [w.name for w in await self.api.workloads() if w.reads & {(name, key) for key in values}]

    async def _cron_jobs(self) -> dict[str, Answer]:
        """The CronJobs by component."""
        found = await self.api.cron_jobs(self._labels("backup"))
        if not found:
            raise CommandError(
                f"no backups are set up for the release {self.release} in the namespace {self.api.namespace}",
                f"`helm upgrade {self.release} charts/platform -n {self.api.namespace} --reset-then-reuse-values"
                " --set backup.enabled=true` does",
            )
        return dict(sorted((_variable(job, "MLOPS_BACKUP_COMPONENT"), job) for job in found))

    async def _entries(self, jobs: dict[str, Answer]) -> list[list[Any]]:
        return list((await self._answer(next(iter(jobs.values())), "list"))["entries"])

    async def _answer(self, cron_job: Answer, verb: str, *arguments: str) -> Answer:
        ended = await self.api.run(cron_job, verb, [verb, *arguments, "--json"], self.say)
        answer = last_json(ended.output)
        if answer is None:
            raise Unanswered(ended)
        if "error" in answer:
            raise CommandError(answer["error"], answer["cure"])
        return answer

    def _labels(self, component: str) -> str:
        return f"app.kubernetes.io/component={component},app.kubernetes.io/instance={self.release}"


class Unanswered(CommandError):
    """A Job ended without saying how: it was killed, or never ran."""

    def __init__(self, ended: Ended) -> None:
        last = "\n".join(ended.output.strip().splitlines()[-5:])
        super().__init__(
            f"{ended.job} was ended before it was done ({ended.reason or 'no reason given'})", last or "run it again"
        )


def run(api: JobsClient, command: Callable[[JobsClient], Awaitable[T]]) -> T:
    """What the command returns, from the connection to its end."""

    async def connected() -> T:
        async with api:
            return await command(api)

    return asyncio.run(connected())


def _variable(cron_job: Answer, name: str) -> str:
    container = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    return str(next(variable["value"] for variable in container["env"] if variable["name"] == name))


def _print_entries(entries: Sequence[Sequence[Any]], place: str, say: Say) -> None:
    if not entries:
        say(f"no backups in {place}")
    sizes: dict[str, dict[str, int]] = {}
    for backup, component, size in entries:
        sizes.setdefault(backup, {})[component] = size
    width = max(map(len, sizes), default=0)
    for backup, of in sizes.items():
        say(f"{backup:{width}}  {', '.join(f'{c} {math.ceil(size / 1e5) / 10:g} MB' for c, size in of.items())}")
