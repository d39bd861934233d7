"""Steps with prerequisites, run side by side: each prints how long it took and logs to a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

# How many steps of a kind run at once. A Go build uses all cores by itself.
SLOTS = {"go": 1, "docker": 2, "image": 2, "pull": 3, "": 4}
STILL_EVERY = 20.0  # seconds between two lines of progress


class Failure(Exception):
    """What was wrong, where, and what to do next, in words for the user; printed without a traceback."""


class Log:
    """The log file of one step; its commands write there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)

    def run(
        self,
        command: list[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        retries: int = 0,
    ) -> None:
        """Run a command with its output in this log, again up to `retries` times.

        Raises Failure with the last lines of the output and the log's path.
        """
        words = [str(word) for word in command]
        for left in range(retries, -1, -1):
            with self.path.open("ab") as log:
                log.write(f"$ {' '.join(words)}\n".encode())
                log.flush()
                begin = log.tell()
                try:
                    with subprocess.Popen(
                        words,
                        cwd=cwd,
                        env={**os.environ, **(env or {})},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    ) as process:
                        _running.add(process)
                        code = process.wait()
                        _running.discard(process)
                except FileNotFoundError:
                    raise Failure(f"{words[0]} is not installed") from None
            if code == 0:
                return
            if _stopping.is_set():
                raise Failure("stopped")
            if left:
                time.sleep(2)
        tail = self.path.read_bytes()[begin:].decode(errors="replace").strip().splitlines()[-6:]
        lines = "".join(f"\n    {line}" for line in tail)
        raise Failure(f"`{' '.join(words[:4])} …` ended with {code}. The log is {self.path}; its last lines:{lines}")


_running: set[subprocess.Popen[bytes]] = set()
_stopping = threading.Event()


def stop_children() -> None:
    """Ends the commands of all running steps; what they were making is made again by the next run."""
    _stopping.set()
    for process in list(_running):
        process.terminate()


def stop_on_signals() -> None:
    """Ctrl-C and SIGTERM end the running commands, then this process."""

    def handler(number: int, _: object) -> None:
        stop_children()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)


def output(*command: str | Path) -> str:
    """Standard output of a command; "" when it failed or does not exist."""
    try:
        result = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


@dataclass
class Step:
    """`action` gets a Log. `is_done` is called once the prerequisites are met: True skips the step."""

    name: str
    action: Callable[[Log], object]
    after: tuple[str, ...] = ()
    kind: str = ""
    is_done: Callable[[], bool] = field(default=lambda: False)


class Steps:
    """Runs its steps in the order of their prerequisites; among those that can run, the first added goes first."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.steps: dict[str, Step] = {}
        self.begun = time.monotonic()
        self.skipped = 0

    def add(
        self,
        name: str,
        action: Callable[[Log], object],
        after: Iterable[str] = (),
        kind: str = "",
        is_done: Callable[[], bool] = lambda: False,
    ) -> None:
        """Add a step.

        Args:
            action: what is done, with the step's log.
            after: names of the steps that must be done first.
            kind: of steps of one kind only a few run at the same time.
            is_done: True if there is nothing to do; called once the prerequisites are met.
        """
        self.steps[name] = Step(name, action, tuple(after), kind, is_done)

    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def say(self, text: str) -> None:
        """Print a line with the time since the beginning."""
        seconds = int(self.seconds())
        print(f"{seconds // 60:3d}:{seconds % 60:02d}  {text}", flush=True)

    def _run(self, step: Step) -> None:
        if step.is_done():
            self.skipped += 1
            return
        begun = time.monotonic()
        log = Log(self.logs / f"{''.join(c if c.isalnum() or c in '.-' else '-' for c in step.name)}.log")
        try:
            step.action(log)
        except Failure as failure:
            raise Failure(f"{step.name}: {failure}") from None
        self.say(f"{step.name}: {time.monotonic() - begun:.0f} s")

    def run(self) -> None:
        """Run all steps. Raises the first Failure, after the other running steps were ended."""
        done: set[str] = set()
        waiting = dict(self.steps)
        running: dict[Future[None], Step] = {}
        told = time.monotonic()
        with ThreadPoolExecutor(max_workers=sum(SLOTS.values())) as pool:
            while waiting or running:
                for step in list(waiting.values()):
                    busy = sum(other.kind == step.kind for other in running.values())
                    if busy < SLOTS[step.kind] and done.issuperset(step.after):
                        running[pool.submit(self._run, waiting.pop(step.name))] = step
                if not running:
                    raise RuntimeError(f"no order for {sorted(waiting)}: a prerequisite is missing or circular")
                ended, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in ended:
                    step = running.pop(future)
                    if error := future.exception():
                        stop_children()
                        raise error
                    done.add(step.name)
                if ended:
                    told = time.monotonic()
                elif time.monotonic() - told > STILL_EVERY:
                    told = time.monotonic()
                    self.say(f"  …  {', '.join(step.name for step in running.values())}")


def fail(failure: Failure) -> None:
    """Print what failed and end the process with exit code 1."""
    print(f"\n{failure}", file=sys.stderr)
    raise SystemExit(1)
