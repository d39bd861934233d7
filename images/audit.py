"""Known vulnerabilities of what images and programs are made of, for `make audit`.

pip-audit looks at the locks that images are installed from, govulncheck at the Go programs of images/offline.

Exit codes:
    0: nothing is known.
    1: something is known, or could not be looked at.
    4: a database cannot be reached from here, so nothing was looked at.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from images import build, environments
from images.build import ROOT
from images.offline import tools

UNREACHABLE = 4
SECONDS = 15
OSV = "https://api.osv.dev/v1"
GO = "https://vuln.go.dev"
PROBES = {"osv": "vulns/OSV-2020-111", "go": "index/db.json"}  # of each database, a small file that is always there
Command = list[str]


def unreachable(osv: str, go: str) -> Iterator[str]:
    """Why a database cannot be asked, for each that cannot."""
    for base, path in ((osv, PROBES["osv"]), (go, PROBES["go"])):
        try:
            with urllib.request.urlopen(f"{base}/{path}", timeout=SECONDS):  # noqa: S310
                pass
        except urllib.error.HTTPError as error:
            yield f"{base} answers {error.code}"
        except (OSError, ValueError) as error:
            yield f"{base} cannot be reached ({getattr(error, 'reason', error)})"


def locks() -> list[str]:
    """The locks that images are installed from, and that of the tests."""
    images = build.with_parents(build.names())
    sources = {source for image in images for source in build.sources(image)}
    return sorted({"requirements/dev.txt", *(source for source in sources if source.startswith("requirements/"))})


def commands(osv: str, go: str) -> Iterator[tuple[str, Command]]:
    """What is looked at, and the command that does, run in the checkout."""
    for lock in locks():
        program = str(environments.program("pip-audit"))
        service = ["--vulnerability-service", "osv", "--osv-url", f"{osv}/query", "--progress-spinner", "off"]
        yield lock, [program, "--strict", "--require-hashes", "--disable-pip", *service, "--requirement", lock]
    run = [tools.go_command(), "run", "-C", str(ROOT / "images/offline/go/audit"), "golang.org/x/vuln/cmd/govulncheck"]
    for tool in tools.load().values():
        tags = ["-tags", tool.tags] if tool.tags else []
        yield tool.name, [*run, "-db", go, "-scan", "package", "-C", str(tool.folder), *tags, tool.package]


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m images.audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--osv", default=OSV, help="the database of Python packages")
    parser.add_argument("--go", default=GO, help="the database of Go modules")
    options = parser.parse_args()
    reasons = list(unreachable(options.osv, options.go))
    if reasons:
        print(f"nothing was looked at: {'; '.join(reasons)}. Run it where both can be reached", file=sys.stderr)
        return UNREACHABLE
    # govulncheck asks the `go` on PATH which standard library is used; without one it finds nothing in it
    folder = Path(shutil.which(tools.go_command()) or "").parent
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    failed = []
    for what, command in commands(options.osv, options.go):
        print(f"== {what}", flush=True)
        if subprocess.run(command, cwd=ROOT, env=environment).returncode:
            failed.append(what)
    if failed:
        print(f"known vulnerabilities, or not looked at: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
