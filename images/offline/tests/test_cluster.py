"""`make cluster` and `make down` on machines where they cannot work: a sentence with the cure, and an exit code."""

from __future__ import annotations

import collections
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from app.testing.docs import ROOT
from images.offline import __main__ as command
from images.offline import cluster, host, paths
from images.offline.__main__ import options
from images.offline.steps import Failure, Log, Steps

DEBIAN = {"ID": "debian", "VERSION_CODENAME": "bookworm", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}


def _run(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "images.offline", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "arguments", "expected"),
    [
        ({"OFFLINE": "maybe"}, [], "OFFLINE=maybe is not one of auto, 0"),
        ({"TOOL_CACHE": "/nowhere"}, [], "TOOL_CACHE=/nowhere is no folder"),
        ({}, ["--config", "missing.yaml"], "missing.yaml cannot be read"),
        ({}, ["--config", "pyproject.toml"], "pyproject.toml is no kind configuration"),
    ],
)
def test_bad_settings_are_named(
    tmp_path: Path, environment: dict[str, str], arguments: list[str], expected: str
) -> None:
    shutil.copytree(ROOT / "images", tmp_path / "images")
    shutil.copy(ROOT / "kind-config.yaml", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    result = _run("up", *arguments, folder=tmp_path, **environment)
    assert result.returncode == 1
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_two_at_once_are_one_too_many(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "images", tmp_path / "images")
    (tmp_path / ".tools").mkdir()
    with (tmp_path / ".tools" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = _run("up", folder=tmp_path)
    assert result.returncode == 1
    assert "another `make cluster`" in result.stderr


def test_a_taken_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(Failure, match=f"port {port} of 127.0.0.1 .* change hostPort"):
            host.check_port("127.0.0.1", port)
    host.check_port("127.0.0.1", port)


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2**40, 2**40 - 2**30, 2**30))
    with pytest.raises(Failure, match=r"has 1\.0 GiB free and a cluster needs \d+: make room"):
        host.check_disk(12)


def test_an_unsupported_distribution_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "os_release", lambda: {"ID": "fedora", "PRETTY_NAME": "Fedora Linux 45"})
    with pytest.raises(Failure, match=r"Fedora Linux 45 is not one .* Install docker\.io mmdebstrap"):
        host.install("docker.io", "mmdebstrap", why="a container engine")
    with pytest.raises(Failure, match="set DEBIAN_MIRROR"):
        host.mirror()


def test_without_root_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "os_release", lambda: DEBIAN)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Failure, match=r"As root: apt-get install docker\.io, or run `sudo make cluster`"):
        host.install("docker.io", why="a container engine")


def test_an_engine_that_is_elsewhere_and_silent_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Failure, match="no engine answers at DOCKER_HOST=unix:///nowhere"):
        host.start_engine(Log(tmp_path / "log"))


@pytest.mark.parametrize(("made", "expected"), [(None, "did not make"), ("other", "another configuration")])
def test_a_cluster_of_that_name_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str | None, expected: str
) -> None:
    config = cluster.read_config(ROOT / "kind-config.yaml")
    monkeypatch.setattr(cluster, "STATE", tmp_path)
    monkeypatch.setattr(cluster, "containers", lambda _: {"mlops-control-plane": "running"})
    monkeypatch.setattr(cluster, "mark", lambda _: made and cluster.Mark(True, made, ""))
    monkeypatch.setattr(cluster, "remove", lambda _: pytest.fail("removed"))
    with pytest.raises(Failure, match=f"{expected}.*`make down` removes it"):
        cluster.find(config, None)


@pytest.mark.parametrize(("offline", "expected"), [(False, []), (True, ["--set=grafana.enabled=false"])])
def test_an_offline_cluster_gets_no_grafana_and_is_told_so(
    offline: bool, expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert options(offline) == expected
    assert ("installing without it" in capsys.readouterr().out) == bool(expected)


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize("file", ["kind-config.yaml", "kind-config-multinode.yaml"])
def test_cgroupfs_is_for_cgroup_v1_alone(file: str, offline: bool) -> None:
    config = cluster.read_config(ROOT / file)
    one, two = (yaml.safe_load(cluster.kind_config(config, offline, version)) for version in "12")
    kubelet = {"kind": "KubeletConfiguration", "cgroupDriver": "cgroupfs"}
    assert kubelet in [yaml.safe_load(patch) for patch in one["kubeadmConfigPatches"]]
    assert kubelet not in [yaml.safe_load(patch) for patch in two["kubeadmConfigPatches"]]
    runtime = "io.containerd.cri.v1.runtime" if offline else "io.containerd.grpc.v1.cri"
    patches = [tomllib.loads(patch)["plugins"][runtime] for patch in one["containerdConfigPatches"]]
    driver = {"containerd": {"runtimes": {"runc": {"options": {"SystemdCgroup": False}}}}}
    assert driver in patches
    assert "SystemdCgroup" not in str(two)
    written = yaml.safe_load(config.path.read_text())
    assert (one["nodes"], one["name"]) == (two["nodes"], two["name"]) == (written["nodes"], written["name"])


def test_nodes_of_both_kinds_look_for_registries_where_they_are_told() -> None:
    """Our node image has it in its configuration, kind's is told."""
    config = cluster.read_config(ROOT / "kind-config.yaml")
    configuration = tomllib.loads((paths.OFFLINE / "node/root/etc/containerd/config.toml").read_text())
    assert configuration["plugins"]["io.containerd.cri.v1.images"]["registry"]["config_path"] == cluster.CERTS
    patch = yaml.safe_load(cluster.kind_config(config, False, "2"))["containerdConfigPatches"][0]
    assert tomllib.loads(patch)["plugins"]["io.containerd.grpc.v1.cri"]["registry"]["config_path"] == cluster.CERTS


def test_a_half_made_cluster_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    (tmp_path / "creating-mlops").touch()
    monkeypatch.setattr(cluster, "STATE", tmp_path)
    monkeypatch.setattr(cluster, "containers", lambda _: {"mlops-control-plane": "created"})
    monkeypatch.setattr(cluster, "mark", lambda _: None)
    monkeypatch.setattr(cluster, "remove", removed.append)
    assert cluster.find(cluster.read_config(ROOT / "kind-config.yaml"), None) is None
    assert removed == ["mlops"]


def test_both_configurations_are_the_same_but_for_the_nodes() -> None:
    one, three = (cluster.read_config(ROOT / name) for name in ("kind-config.yaml", "kind-config-multinode.yaml"))
    assert (one.nodes, three.nodes) == (1, 3)
    assert (one.name, one.ports) == (three.name, three.ports) == ("mlops", (("127.0.0.1", 8080),))


def test_a_failed_step_names_its_log_and_stops_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    steps = Steps(tmp_path)
    steps.add("first", lambda log: log.run(["sh", "-c", "echo it broke; exit 3"]))
    steps.add("second", lambda _: ran.append("second"), after=["first"])
    with pytest.raises(Failure, match=r"(?s)first: `sh -c .*ended with 3.*first\.log.*it broke"):
        steps.run()
    assert ran == []
    assert "it broke" in (tmp_path / "first.log").read_text()


def test_steps_run_after_what_they_need_and_skip_what_is_there(tmp_path: Path) -> None:
    ran: list[str] = []
    steps = Steps(tmp_path)
    steps.add("last", lambda _: ran.append("last"), after=["middle"])
    steps.add("middle", lambda _: ran.append("middle"), after=["there"])
    steps.add("there", lambda _: ran.append("there"), is_done=lambda: True)
    steps.run()
    assert ran == ["middle", "last"]
    assert steps.skipped == 1


def test_shell_is_shellcheck_clean() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    scripts = [name for name in tracked if (ROOT / name).is_file() and _is_shell(ROOT / name)]
    assert ".ci/run" in scripts
    assert len(scripts) >= 5
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed; CI has it")
    subprocess.run(["shellcheck", *scripts], cwd=ROOT, check=True)


def _is_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().startswith((b"#!/bin/bash", b"#!/bin/sh", b"#!/usr/bin/env bash"))


def test_paths_are_of_this_checkout() -> None:
    assert paths.ROOT == ROOT
    assert paths.TOOLS == ROOT / ".tools"


def test_skaffold_is_told_where_grafana_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (env := tmp_path / "skaffold.env").write_text("SKAFFOLD_TAIL=false\n")
    monkeypatch.setattr(command, "SKAFFOLD_ENV", env)
    for _ in range(2):
        command.tell_skaffold(grafana=False)
        assert env.read_text().splitlines() == ["SKAFFOLD_TAIL=false", command.NO_GRAFANA]
    command.tell_skaffold(grafana=True)
    assert env.read_text() == "SKAFFOLD_TAIL=false\n"
    (profile,) = yaml.safe_load((ROOT / "skaffold.yaml").read_text())["profiles"]
    assert profile["activation"] == [{"env": command.NO_GRAFANA}]
    env.unlink()
    command.tell_skaffold(grafana=True)
    assert not env.exists(), "there is nothing to say"
