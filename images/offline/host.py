"""The container engine, and what else comes from the host's packages."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from images.offline.paths import LOGS, ROOT, STATE, TEMPORARY
from images.offline.steps import Failure, Log, output

PACKAGES = ("docker.io", "docker-cli", "docker-buildx", "containerd", "runc", "iptables", "mmdebstrap", "zstd")
ENGINE_PID = STATE / "dockerd.pid"
SYSTEMD = Path("/run/systemd/system")
# GiB that a first run takes, the engine's images and Go's caches together
DISK = 12
DISK_FROM_SOURCE = 25
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = ("bookworm", "trixie")  # Debian releases that the engine is installed on


def os_release() -> dict[str, str]:
    """/etc/os-release as a mapping."""
    return platform.freedesktop_os_release()


def is_debian() -> bool:
    """Whether this machine runs Debian itself, not a derivative."""
    return os_release().get("ID") == "debian"


def mirror() -> str:
    """The Debian archive to build base images from: DEBIAN_MIRROR, else what this Debian installs from itself.

    Raises Failure where neither is known.
    """
    if named := os.environ.get("DEBIAN_MIRROR"):
        return named.rstrip("/")
    for line in output("apt-get", "indextargets", "--format", "$(SITE)|$(RELEASE)|$(CREATED_BY)").splitlines():
        site, release, created_by = line.split("|")
        if (
            is_debian()
            and created_by == "Packages"
            and "security" not in release
            and release.startswith((*SUITES, "stable"))
        ):
            return site.rstrip("/")
    raise Failure(
        "which Debian archive to take packages from is not known on "
        f"{os_release().get('PRETTY_NAME')}: set DEBIAN_MIRROR to the address of one"
    )


def install(*packages: str, why: str) -> None:
    """Install Debian packages, from trixie on bookworm too. The host's own apt sources stay as they are.

    bookworm's runc cannot start privileged containers on hosts without CAP_SYS_RESOURCE, and it has no buildx.

    Raises Failure with what to install where this is no Debian or not run by root.
    """
    suite = os_release().get("VERSION_CODENAME", "")
    wanted = " ".join(packages)
    if not is_debian() or suite not in SUITES:
        name = os_release().get("PRETTY_NAME", "this distribution")
        raise Failure(
            f"{why}: missing, and {name} is not one that this installs on. Install {wanted}, then run it again"
        )
    if os.geteuid() != 0:
        raise Failure(f"{why}: missing. As root: apt-get install {wanted}, or run `sudo make cluster`")
    folder = TEMPORARY / f"apt-{packages[0]}"
    (folder / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    suites = ["trixie"] if suite == "trixie" else ["trixie", suite]
    keyring = f"\nSigned-By: {KEYRING}" if KEYRING.exists() else ""
    sources = folder / "debian.sources"
    sources.write_text(
        "\n\n".join(f"Types: deb\nURIs: {mirror()}\nSuites: {s}\nComponents: main{keyring}" for s in suites) + "\n"
    )
    options = [
        *("-o", f"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=/dev/null"),
        *("-o", f"Dir::State::lists={folder / 'lists'}", "-o", "APT::Sandbox::User=root"),
        *("-o", "Acquire::Retries=3", "-o", "Dpkg::Options::=--force-unsafe-io", "-o", "DPkg::Lock::Timeout=120"),
        *("-o", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"),
        *("-o", "Acquire::IndexTargets::deb::Translations::DefaultEnabled=false"),
    ]
    log = Log(LOGS / f"apt-{packages[0]}.log")
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    log.run(["apt-get", *options, "update", "-q"], env=environment, retries=1)
    install = ["install", "-y", "-q", "--no-install-recommends", "-t", "trixie"]
    log.run(["apt-get", *options, *install, *packages], env=environment, retries=1)


def engine_answers() -> bool:
    """Whether a container engine answers now."""
    return bool(output("docker", "version", "--format", "{{.Server.Version}}"))


def engine_installed() -> bool:
    """Does an engine answer, or is there one to start?"""
    return engine_answers() or bool(shutil.which("dockerd"))


def builders_missing() -> list[str]:
    """The packages that the offline path needs besides an engine."""
    missing = [name for name in ("mmdebstrap", "zstd") if not shutil.which(name)]
    return missing if output("docker", "buildx", "version") else [*missing, "docker-buildx"]


def start_engine(log: Log) -> None:
    """A container engine that answers: the running one, else a started one, else an installed one.

    Raises Failure when there is none and this cannot change it.
    """
    if engine_answers():
        return
    if not shutil.which("dockerd"):
        if address := os.environ.get("DOCKER_HOST"):
            raise Failure(f"no engine answers at DOCKER_HOST={address}: start it, or unset DOCKER_HOST")
        install(*PACKAGES, why="a container engine")
    if engine_answers():  # the package's own service
        return
    if os.geteuid() != 0:
        raise Failure("the container engine does not answer: start Docker, or run `sudo make cluster`")
    STATE.mkdir(parents=True, exist_ok=True)
    if SYSTEMD.is_dir():
        log.run(["systemctl", "start", "docker"])
        ENGINE_PID.write_text("systemd")
    else:
        _remove_stale_pid_files()
        with log.path.open("ab") as file:
            process = subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        ENGINE_PID.write_text(str(process.pid))
    deadline = time.monotonic() + 60
    while not engine_answers():
        if time.monotonic() > deadline:
            stop_engine()
            raise Failure(f"the engine was started and does not answer after 60 s. Its log is {log.path}")
        time.sleep(0.2)


def _remove_stale_pid_files() -> None:
    """A killed engine or a restarted machine leaves them, and the number may by now be another process's."""
    for file, name in (
        (Path("/run/docker.pid"), "dockerd"),
        (Path("/run/docker/containerd/containerd.pid"), "containerd"),
    ):
        if file.exists() and process_name(file.read_text().strip()) != name:
            file.unlink()


def process_name(pid: str) -> str:
    """The program name of a process, "" when there is none."""
    try:
        return Path(f"/proc/{int(pid)}/comm").read_text().strip()
    except (OSError, ValueError):
        return ""


def stop_engine() -> bool:
    """Stop the engine if `make cluster` of this checkout started it. Says whether it did."""
    if not ENGINE_PID.exists():
        return False
    started = ENGINE_PID.read_text().strip()
    ENGINE_PID.unlink()
    if started == "systemd":
        subprocess.run(["systemctl", "stop", "docker.socket", "docker"], check=False, capture_output=True)
        return True
    if process_name(started) != "dockerd":
        return False
    os.kill(int(started), signal.SIGTERM)
    deadline = time.monotonic() + 30
    while process_name(started) == "dockerd" and time.monotonic() < deadline:
        time.sleep(0.1)
    if process_name(started) == "dockerd":
        os.kill(int(started), signal.SIGKILL)
    return True


def check_disk(needed: int) -> None:
    """Raises Failure when there is too little space for a first run."""
    places = {ROOT, Path("/var/lib/docker") if Path("/var/lib/docker").exists() else Path("/var/lib")}
    for place in places:
        free = shutil.disk_usage(place).free / 2**30
        if free < needed:
            raise Failure(
                f"{place} has {free:.1f} GiB free and a cluster needs {needed}: make room (`docker system prune`)"
            )


def check_port(address: str, port: int) -> None:
    """Raises Failure when something listens on a port that kind has to map."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            owner = output("sh", "-c", f"ss -Hltnp 'sport = :{port}' 2>/dev/null | grep -o 'users:.*'")
            why = ", ".join(filter(None, (error.strerror, owner)))
            raise Failure(
                f"port {port} of {address} cannot be mapped to the cluster ({why}): "
                "stop what listens there, or change hostPort in the kind configuration"
            ) from None
