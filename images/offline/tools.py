"""The Go programs of tools.toml: from PATH, from TOOL_CACHE, or built from the module proxy."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from images.offline import content, host
from images.offline.paths import BIN, KEYS, OFFLINE, TEMPORARY
from images.offline.steps import Failure, Log, output

SUMS = OFFLINE / "tools.sha256"
TEST_TOOLS = ("prometheus", "promtool", "registry")  # what `make test` needs besides
USER_TOOLS = ("kind", "kubectl", "helm", "skaffold")  # what people call themselves
FLAGS = ["-trimpath", "-buildvcs=false", "-mod=readonly"]
# GOGC: the compiler collects less often, a fifth faster for 1 GiB more. kube-router is in no checksum database, its
# go.sum here pins it all the same.
ENV = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOGC": "400", "GONOSUMDB": "github.com/cloudnativelabs/kube-router"}
GO_MINIMUM = (1, 21)  # from here on go fetches the toolchain that go.mod asks for
GO_PLACES = ("go", "/usr/local/go/bin/go")


@dataclass(frozen=True)
class Tool:
    """One entry of tools.toml, see the head of that file."""

    name: str
    package: str
    version: str
    module: str = ""
    stamp: tuple[str, ...] = ()
    flags: str = ""
    compile: str = ""
    tags: str = ""
    prepare: str = ""
    needs: tuple[str, ...] = ()
    minimum: str = ""

    @property
    def folder(self) -> Path:
        """The folder with its go.mod and go.sum."""
        return OFFLINE / "go" / (self.module or self.name)

    @property
    def ldflags(self) -> str:
        """The linker's flags: no symbols, and the version that the program tells."""
        return " ".join(["-s -w", *(f"-X {variable}={self.version}" for variable in self.stamp), self.flags]).strip()

    @property
    def key(self) -> str:
        """The hash of all that it is built from."""
        settings = [word for word in (self.tags, self.prepare) if word]
        return content.key(
            self.package, self.version, self.ldflags, self.compile, content.files(self.folder), *settings
        )

    @property
    def path(self) -> Path:
        """Where the built program is."""
        return BIN / self.name

    def built(self) -> bool:
        """Is the program in .tools/bin, of exactly these sources?"""
        stored = KEYS / self.name
        return self.path.exists() and stored.exists() and stored.read_text() == self.key

    def on_path(self) -> str:
        """Where PATH has this program, outside .tools/bin and at least at the minimum version; "" elsewhere."""
        folders = [folder for folder in os.get_exec_path() if Path(folder) != BIN]
        program = shutil.which(self.name, path=os.pathsep.join(folders)) if self.minimum else None
        if not program:
            return ""
        arguments = ["--version"] if self.name in TEST_TOOLS else ["version"]
        if self.name == "kubectl":
            arguments.append("--client")
        return program if version(output(program, *arguments)) >= version(self.minimum) else ""


def version(text: str) -> tuple[int, ...]:
    """The first version number in a text, (0,) where there is none."""
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in match.groups()) if match else (0,)


def load() -> dict[str, Tool]:
    """The list of tools.toml, by name, in its order."""
    entries = tomllib.loads((OFFLINE / "tools.toml").read_text())
    return {name: Tool(name, **content.tuples(entry)) for name, entry in entries.items()}


def sums() -> dict[str, tuple[str, str]]:
    """File name -> (SHA-256 of the file, key of what it was built from), from tools.sha256."""
    lines = [line.split() for line in SUMS.read_text().splitlines() if line and not line.startswith("#")]
    return {name: (digest, key) for digest, name, key in lines}


def refused(tool: Tool, cache: Path) -> str:
    """Why a program is not taken from TOOL_CACHE; "" when it can be. Its sum is only checked by from_cache."""
    archive = cache / f"{tool.name}.zst"
    if not archive.exists():
        return f"{cache} does not have {archive.name}"
    digest, key = sums().get(archive.name, ("", ""))
    if not digest:
        return f"{archive.name} is not listed in {SUMS.name}"
    if key != tool.key:
        return f"{archive.name} was built from other sources than those in go/{tool.folder.name}"
    return ""


def from_cache(tool: Tool, cache: Path) -> str:
    """Take a program from TOOL_CACHE. Returns "" when it was taken, otherwise why not."""
    if reason := refused(tool, cache):
        return reason
    archive = cache / f"{tool.name}.zst"
    if file_sum(archive) != sums()[archive.name][0]:
        return f"REFUSED {archive}: its sha256 is not the one in {SUMS.name}"
    temporary = TEMPORARY / tool.name
    result = subprocess.run(["zstd", "-q", "-d", "-f", archive, "-o", temporary], capture_output=True, check=False)
    if result.returncode:
        return f"{archive.name} does not decompress: {result.stderr.decode().strip()}"
    _install(tool, temporary)
    return ""


def _install(tool: Tool, program: Path) -> None:
    program.chmod(0o755)
    for folder in (BIN, KEYS):
        folder.mkdir(parents=True, exist_ok=True)
    (KEYS / tool.name).unlink(missing_ok=True)
    program.replace(tool.path)
    (KEYS / tool.name).write_text(tool.key)


def go_command() -> str:
    """The Go to build with. Installed from packages on Debian; elsewhere a Failure that says what is missing."""
    for candidate in GO_PLACES:
        if version(output(candidate, "version")) >= GO_MINIMUM:
            return candidate
    host.install("golang-go", why="Go 1.21 or newer, to build what TOOL_CACHE does not have")
    return "go"


def build(tool: Tool, log: Log) -> None:
    """Build a program into .tools/bin from the module proxy (or GOPROXY). Half-built ones never get there."""
    temporary = TEMPORARY / tool.name
    go = go_command()
    compiler = f"-gcflags=all=-dwarf=false {tool.compile}"  # the linker drops debug information anyway
    flags = [*FLAGS, compiler, "-tags", tool.tags, "-ldflags", tool.ldflags]
    if tool.prepare:
        flags.append(_prepare(tool, go, log))
    log.run([go, "build", *flags, "-o", temporary, tool.package], cwd=tool.folder, env=ENV, retries=2)
    shutil.rmtree(_copy(tool), ignore_errors=True)
    _install(tool, temporary)


def _copy(tool: Tool) -> Path:
    """Where the sources of a program are prepared; with the packages of web pages, half a GiB."""
    return TEMPORARY / f"{tool.name}-sources"


def _prepare(tool: Tool, go: str, log: Log) -> str:
    """Have a program's script add to a copy of its module. Returns the flag that makes go build from that copy.

    What the copy has in common with Go's module cache is compiled once for both.
    """
    for command in tool.needs:
        if not shutil.which(command):
            host.install(command, why=f"{command}, to build {tool.name}")
    list_module = ["list", "-mod=readonly", "-tags", tool.tags, "-f", "{{.Module.Path}} {{.Module.Dir}}", tool.package]
    log.run([go, *list_module], cwd=tool.folder, env=ENV, retries=2)  # this fetches it, too
    module, source = output(go, list_module[0], "-C", tool.folder, *list_module[1:]).split()
    copy = _copy(tool)
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    for folder, _, _ in os.walk(copy):
        os.chmod(folder, 0o700)  # the module cache is read-only
    log.run(["bash", tool.folder / tool.prepare], cwd=copy, retries=1)
    for ending in ("mod", "sum"):
        shutil.copy(tool.folder / f"go.{ending}", TEMPORARY / f"{tool.name}.{ending}")
    modfile = TEMPORARY / f"{tool.name}.mod"
    log.run([go, "mod", "edit", f"-replace={module}={copy}", modfile])
    return f"-modfile={modfile}"


def link_kubectl() -> None:
    """kubectl is part of hyperkube where that is there anyway."""
    link = BIN / "kubectl"
    if not link.is_symlink():
        link.unlink(missing_ok=True)
        link.symlink_to("hyperkube")


def pack(tool: Tool, cache: Path) -> None:
    """Compress a program of .tools/bin into an archive of the folder, unless that is there and of today's sources.

    Raises Failure where the archive is of other sources, or of unknown ones, and .tools/bin has nothing better: its sum
    would vouch for a program that these sources do not make.
    """
    archive = cache / f"{tool.name}.zst"
    if archive.exists() and not refused(tool, cache) and file_sum(archive) == sums()[archive.name][0]:
        return
    if tool.built() and not tool.path.is_symlink():
        archive.unlink(missing_ok=True)
        subprocess.run(["zstd", "-q", "-19", "-T0", tool.path, "-o", archive], check=True)
        print(f"packed {archive.name}")
    elif archive.exists():
        raise Failure(
            f"{archive} is not listed in {SUMS.name} as built from today's sources, and .tools/bin has no program that "
            "is: delete it, or build the program with `OFFLINE=1 make cluster` first"
        )


def file_sum(path: Path) -> str:
    """The SHA-256 of a file, hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_sums(cache: Path) -> None:
    """Write tools.sha256 for the archives of a folder; `pack` has made sure that they are of today's sources."""
    tools = load()
    lines = [
        "# What TOOL_CACHE may hold: sha256, file, key of its sources. `make tool-cache` writes this.",
        *(
            f"{file_sum(cache / f'{name}.zst')}  {name}.zst  {tool.key}"
            for name, tool in sorted(tools.items())
            if (cache / f"{name}.zst").exists()
        ),
    ]
    SUMS.write_text("\n".join(lines) + "\n")
