"""Programs come from PATH, from TOOL_CACHE with the right sum, or are built; never from anything else."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from images.offline import content, paths, tools
from images.offline.steps import Failure, Log


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tools.Tool:
    """The pause program, with its sources and .tools in a folder of the test."""
    shutil.copytree(paths.OFFLINE / "go" / "pause", tmp_path / "go" / "pause")
    (tmp_path / "tmp").mkdir()
    for name, value in (("BIN", "bin"), ("KEYS", "keys"), ("TEMPORARY", "tmp"), ("OFFLINE", "."), ("SUMS", "sums")):
        monkeypatch.setattr(tools, name, tmp_path / value)
    return tools.Tool("pause", ".", "v3.10.2")


def _cache(folder: Path, tool: tools.Tool, program: bytes = b"#!/bin/sh\necho cached\n") -> Path:
    """A TOOL_CACHE with an archive of the tool and its sum in the list."""
    if not shutil.which("zstd"):
        pytest.skip("zstd is not installed")
    folder.mkdir()
    (folder / "pause").write_bytes(program)
    subprocess.run(["zstd", "-q", "--rm", folder / "pause", "-o", folder / "pause.zst"], check=True)
    digest = hashlib.sha256((folder / "pause.zst").read_bytes()).hexdigest()
    tools.SUMS.write_text(f"# sums\n{digest}  pause.zst  {tool.key}\n")
    return folder


def test_a_cached_program_is_taken(tool: tools.Tool, tmp_path: Path) -> None:
    assert tools.from_cache(tool, _cache(tmp_path / "cache", tool)) == ""
    assert tool.built()
    assert subprocess.run([tool.path], capture_output=True, check=True).stdout == b"cached\n"


def test_a_cached_program_with_a_wrong_sum_is_refused(tool: tools.Tool, tmp_path: Path) -> None:
    cache = _cache(tmp_path / "cache", tool)
    subprocess.run(["sh", "-c", "echo evil | zstd -q -f -o pause.zst"], cwd=cache, check=True)
    assert "REFUSED" in tools.from_cache(tool, cache)
    assert not tool.path.exists()


def test_a_truncated_download_is_refused(tool: tools.Tool, tmp_path: Path) -> None:
    cache = _cache(tmp_path / "cache", tool)
    archive = cache / "pause.zst"
    archive.write_bytes(archive.read_bytes()[:-4])
    assert "REFUSED" in tools.from_cache(tool, cache)


def test_a_cached_program_of_other_sources_is_not_taken(tool: tools.Tool, tmp_path: Path) -> None:
    cache = _cache(tmp_path / "cache", tool)
    (tool.folder / "main.go").write_text("package main\n\nfunc main() {}\n")
    assert "other sources" in tools.from_cache(tool, cache)


def test_an_unlisted_or_missing_archive_is_not_taken(tool: tools.Tool, tmp_path: Path) -> None:
    cache = _cache(tmp_path / "cache", tool)
    tools.SUMS.write_text("")
    assert "not listed" in tools.from_cache(tool, cache)
    (cache / "pause.zst").unlink()
    assert "does not have" in tools.from_cache(tool, cache)


def _pack(tool: tools.Tool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `make tool-cache` does, where pause is the only program."""
    monkeypatch.setattr(tools, "load", lambda: {"pause": tool})
    tools.pack(tool, folder)
    tools.write_sums(folder)


def test_an_old_archive_is_not_given_the_key_of_new_sources(
    tool: tools.Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = _cache(tmp_path / "cache", tool)
    before = tools.SUMS.read_text().splitlines()[-1]
    _pack(tool, cache, monkeypatch)
    assert tools.SUMS.read_text().splitlines()[-1] == before
    (tool.folder / "main.go").write_text("package main\n\nfunc main() {}\n")
    with pytest.raises(Failure, match="not listed in sums as built from today's sources"):
        _pack(tool, cache, monkeypatch)
    assert tools.SUMS.read_text().splitlines()[-1] == before
    assert "other sources" in tools.from_cache(tool, cache)


def test_an_old_archive_is_packed_anew_from_a_program_of_todays_sources(
    tool: tools.Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = _cache(tmp_path / "cache", tool)
    (tool.folder / "main.go").write_text("package main\n\nfunc main() {}\n")
    new = tmp_path / "new"
    new.write_text("#!/bin/sh\necho new\n")
    tools._install(tool, new)
    _pack(tool, cache, monkeypatch)
    tool.path.unlink()
    assert tools.from_cache(tool, cache) == ""
    assert subprocess.run([tool.path], capture_output=True, check=True).stdout == b"new\n"


def test_an_archive_that_was_altered_is_not_listed_anew(
    tool: tools.Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = _cache(tmp_path / "cache", tool)
    subprocess.run(["sh", "-c", "echo evil | zstd -q -f -o pause.zst"], cwd=cache, check=True)
    with pytest.raises(Failure, match="not listed"):
        _pack(tool, cache, monkeypatch)


def test_a_script_adds_to_a_copy_of_the_sources(tool: tools.Tool, tmp_path: Path) -> None:
    if not any(map(shutil.which, tools.GO_PLACES)):
        pytest.skip("go is not installed")
    made = dataclasses.replace(tool, name="made", package="example.com/made", prepare="pages.sh")
    files = {
        "go.mod": "module mlops/made\ngo 1.21\nrequire example.com/made v0.0.0\nreplace example.com/made => ./made\n",
        "go.sum": "",
        "pages.sh": "echo built >pages/index",
        "made/go.mod": "module example.com/made\ngo 1.21\n",
        "made/main.go": 'package main\nimport "example.com/made/pages"\nfunc main() { print(pages.Index) }\n',
        "made/pages/pages.go": 'package pages\nimport _ "embed"\n//go:embed index\nvar Index string\n',
    }
    for name, text in files.items():
        (made.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (made.folder / name).write_text(text)
    before = made.key
    tools.build(made, Log(tmp_path / "log"))
    assert subprocess.run([made.path], capture_output=True, check=True).stderr == b"built\n"
    assert made.key == before, "what the script made is beside its sources"
    (made.folder / "pages.sh").write_text("echo changed >pages/index")
    assert not made.built()


@pytest.mark.parametrize("name", ["go.mod", "main.go"])
def test_changed_sources_are_built_again(tool: tools.Tool, tmp_path: Path, name: str) -> None:
    tools.from_cache(tool, _cache(tmp_path / "cache", tool))
    assert tool.built()
    with (tool.folder / name).open("a") as file:
        file.write("\n// changed\n")
    assert not tool.built()


def test_a_program_that_vanished_is_built_again(tool: tools.Tool, tmp_path: Path) -> None:
    tools.from_cache(tool, _cache(tmp_path / "cache", tool))
    tool.path.unlink()
    assert not tool.built()


@pytest.mark.parametrize(("says", "used"), [("kind v0.99.0 go1.26", True), ("kind v0.30.9", False), ("rubbish", False)])
def test_path_is_preferred_when_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, used: bool
) -> None:
    program = tmp_path / "kind"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{paths.BIN}:{tmp_path}:/bin")
    assert bool(tools.load()["kind"].on_path()) == used


def test_every_program_is_pinned() -> None:
    """Each has a go.mod and, where it has dependencies, a go.sum; its version is the one go.mod has."""
    for tool in tools.load().values():
        module = (tool.folder / "go.mod").read_text()
        assert "require" not in module or (tool.folder / "go.sum").stat().st_size > 0, tool.name
        if "/" in tool.package and not tool.package.startswith("."):
            version = tool.version.removeprefix("v")
            major, minor, patch = version.split(".")
            wanted = [f"v{number}.{minor}.{patch}" for number in (major, "0", "1", "2")]
            wanted.append(f"v0.{major}{minor:0>2}.{patch}")  # Prometheus 3.16.0 is v0.316.0 as a module
            assert any(one in module for one in wanted), tool.name


def test_listed_sums_belong_to_todays_sources() -> None:
    """A changed go.mod needs a new archive: its old line would never be used again."""
    known = tools.load()
    for archive, (digest, key) in tools.sums().items():
        tool = known[archive.removesuffix(".zst")]
        assert len(digest) == 64
        assert key == tool.key, f"{archive}: run `make tool-cache DIR=…` and commit tools.sha256"


def test_a_key_is_of_names_modes_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    keys = {content.key(content.files(tmp_path))}
    (tmp_path / "a").chmod(0o755)
    keys.add(content.key(content.files(tmp_path)))
    (tmp_path / "a").write_text("2")
    keys.add(content.key(content.files(tmp_path)))
    (tmp_path / "a").rename(tmp_path / "b")
    keys.add(content.key(content.files(tmp_path)))
    assert len(keys) == 4


def test_what_make_wants_by_itself_can_be_made_so() -> None:
    wanted = re.findall(r"\$\(CLUSTER\) tool (\S+)", (paths.ROOT / "Makefile").read_text())
    assert wanted
    assert set(wanted) <= {*tools.USER_TOOLS, *tools.TEST_TOOLS}
