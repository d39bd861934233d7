"""Load by wrk: requests one after another over each of some connections, as fast as they are answered."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load import Load, Request

SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT = 30  # seconds after which wrk counts a request as failed
MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}


def check_installed() -> None:
    """Raises SystemExit where wrk is not installed."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed: apt-get install wrk")


def load(
    base: str,
    requests: Sequence[Request],
    connections: int,
    seconds: int,
    within: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
) -> Load:
    """Send the requests in turn from one thread, on the core that this process is pinned to.

    Args:
        base: http://host:port.
        seconds: whole ones, at least 1.
        within: a command that runs wrk, such as nsenter.
        headers: further ones of each request.

    Raises:
        RuntimeError: what wrk says where it does not run, such as that the server is not there.
    """
    with tempfile.NamedTemporaryFile("wb", suffix=".txt") as file:
        file.writelines(request.path.encode() + b"\t" + request.body + b"\n" for request in requests)
        file.flush()
        command = [*within, "wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={TIMEOUT}s"]
        command += [f"-H{name}: {value}" for name, value in (headers or {}).items()]
        command += ["-s", str(SCRIPT), base, file.name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"wrk failed: {(result.stderr + result.stdout).strip()}")
    try:
        return parse(result.stdout)
    except ValueError as error:
        raise RuntimeError(f"wrk failed: {error}; {result.stderr.strip()}") from error


def parse(report: str) -> Load:
    """What wrk's report says.

    failed are answers of a status other than 2xx and 3xx, and wrk's socket errors. Latencies are as wrk corrects them
    for what its connections did not send while they waited.

    Raises:
        ValueError: it is no report of `wrk --latency`.
    """
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", report, re.MULTILINE)
    p50, p99 = (_latency(report, percent) for percent in (50, 99))
    if not rate:
        raise ValueError(f"this is no report of wrk --latency: {report[:200]!r}")
    refused = re.search(r"^\s*Non-2xx or 3xx responses: (\d+)", report, re.MULTILINE)
    errors = re.search(r"^\s*Socket errors: (.*)$", report, re.MULTILINE)
    failed = int(refused[1]) if refused else 0
    failed += sum(map(int, re.findall(r"\d+", errors[1]))) if errors else 0
    return Load(float(rate[1]), p50, p99, failed)


def _latency(report: str, percent: int) -> float:
    """In milliseconds."""
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m|h) *$", report, re.MULTILINE)
    if not found:
        raise ValueError(f"this is no report of wrk --latency: {report[:200]!r}")
    return float(found[1]) * MILLISECONDS[found[2]]
