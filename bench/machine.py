"""What figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
SERVER_CORE, CLIENT_CORE = 0, 1


def describe() -> dict[str, str]:
    """Processor, cores, kernel, Python, commit, time and load of this moment, for people."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load average": ", ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def as_text(description: dict[str, str]) -> str:
    """What `describe` gave, on one line."""
    return "; ".join(f"{name}: {value}" for name, value in description.items())


def busy() -> float:
    """The share of the busier of both cores that is in use for half a second, 0 to 1; with what a hypervisor takes."""
    percent = psutil.cpu_percent(interval=0.5, percpu=True)
    return max(percent[SERVER_CORE], percent[CLIENT_CORE]) / 100


def check_cores() -> None:
    """Raises SystemExit where server and client cannot have a core each."""
    missing = {SERVER_CORE, CLIENT_CORE} - os.sched_getaffinity(0)
    if missing:
        raise SystemExit(f"core {min(missing)} cannot be used: the server and wrk are pinned to cores 0 and 1")


def _processor() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"
