"""What `make audit` says of a finding, of none, and where the databases cannot be reached; with stand-ins for both."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from images import audit
from images.offline import tools

CLOSED = "http://127.0.0.1:9"
LOCK = "requirements/uv.txt"  # the smallest
PUBLISHED = {"modified": "2026-11-01T00:00:00Z", "published": "2026-11-01T00:00:00Z", "schema_version": "1.3.1"}


class Osv(ThreadingHTTPServer):
    """The database of Python packages; `known` are the names of those with a vulnerability. None: it is broken."""

    known: frozenset[str] | None = frozenset()


class Handler(BaseHTTPRequestHandler):
    server: Osv

    def answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.answer(200, {})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]["name"]
        if self.server.known is None:
            return self.answer(500, {})
        events = [{"introduced": "0"}, {"fixed": "99"}]
        affected = {
            "package": {"name": asked, "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        found = {"id": "GHSA-test", "summary": "a hole", "affected": [affected], **PUBLISHED}
        return self.answer(200, {"vulns": [found]} if asked in self.server.known else {})

    def log_message(self, *_: Any) -> None:
        """Nothing: pytest shows what matters."""


@pytest.fixture
def osv() -> Iterator[Osv]:
    server = Osv(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def go_database(folder: Path, *modules: str) -> str:
    """The database of Go modules, with a vulnerability of each of these; its address."""
    index = folder / "index"
    index.mkdir(parents=True)
    (folder / "ID").mkdir()
    vulns = [{"id": "GO-2026-0001", "modified": PUBLISHED["modified"], "fixed": "99.0.0"}]
    (index / "db.json").write_text(json.dumps({"modified": PUBLISHED["modified"]}))
    (index / "modules.json").write_text(json.dumps([{"path": module, "vulns": vulns} for module in modules]))
    affected = [
        {
            "package": {"name": module, "ecosystem": "Go"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "99.0.0"}]}],
            "ecosystem_specific": {"imports": [{"path": "os/signal"}]},
        }
        for module in modules
    ]
    entry = {"id": "GO-2026-0001", "details": "a hole", "affected": affected, **PUBLISHED}
    (folder / "ID" / "GO-2026-0001.json").write_text(json.dumps(entry))
    return folder.as_uri()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, osv: Osv, tmp_path: Path) -> Any:
    """Runs the audit of the smallest lock and the smallest Go program."""
    smallest = {"pause": tools.load()["pause"]}
    monkeypatch.setattr(audit, "locks", lambda: [LOCK])
    monkeypatch.setattr(tools, "load", lambda: smallest)

    def ran(osv_url: str = f"http://127.0.0.1:{osv.server_port}", go: str = "") -> int:
        address = go or go_database(tmp_path / "go")
        monkeypatch.setattr("sys.argv", ["audit", "--osv", osv_url, "--go", address])
        return audit.main()

    return ran


def test_where_nothing_is_known_it_ends_with_0(run: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    printed = capfd.readouterr()
    assert f"== {LOCK}\n== pause\n" in printed.out
    assert "No known vulnerabilities found" in printed.err
    assert "No vulnerabilities found" in printed.out


def test_a_finding_is_a_failure_and_says_where(
    run: Any, osv: Osv, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    osv.known = frozenset({"uv"})
    assert run(go=go_database(tmp_path / "known", "stdlib")) == 1
    printed = capfd.readouterr()
    assert "GHSA-test" in printed.out
    assert "GO-2026-0001" in printed.out
    assert printed.err.endswith(f"known vulnerabilities, or not looked at: {LOCK}, pause\n")


def test_what_could_not_be_looked_at_is_a_failure(run: Any, osv: Osv, capfd: pytest.CaptureFixture[str]) -> None:
    osv.known = None
    assert run() == 1
    assert capfd.readouterr().err.endswith(f"known vulnerabilities, or not looked at: {LOCK}\n")


def test_where_a_database_cannot_be_reached_it_says_so_with_a_code_of_its_own(
    run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(osv_url=CLOSED) == audit.UNREACHABLE == 4
    assert f"nothing was looked at: {CLOSED} cannot be reached (" in capfd.readouterr().err
    assert run(go=(tmp_path / "nowhere").as_uri()) == 4
    assert "nowhere cannot be reached (" in capfd.readouterr().err


def test_every_lock_of_an_image_is_looked_at_and_every_go_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit.environments, "program", Path)
    looked_at = [what for what, _ in audit.commands(audit.OSV, audit.GO)]
    for name in ("api", "common", "tracking", "ui", "mlflow", "flows", "dev"):
        assert f"requirements/{name}.txt" in looked_at
    assert set(tools.load()) <= set(looked_at)
