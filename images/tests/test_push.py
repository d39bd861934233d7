"""`make push`, as far as it goes without a container engine; k8s-tests/live/test_push.py has the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from images import build, chart, push, registry
from images.build import ROOT
from images.offline.steps import Failure, Log

TO = "registry.example.com/team"
DIGEST = "sha256:" + "0a" * 32


class Engine:
    """Stands for the engine and the registry: what is built, pulled and pushed, and what is there."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.built: list[str] = []
        self.pushed: list[str] = []
        self.tells = True

    def build(self, name: str, _: object, __: Log) -> None:
        self.built.append(name)

    def push(self, reference: str, to: str) -> None:
        self.pushed.append(to)
        self.there[to] = f"sha256:{len(self.there):064x}"

    def digest(self, reference: str) -> str:
        return self.there.get(reference, "") if self.tells else ""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Engine:
    engine = Engine()
    monkeypatch.setattr(build, "build", engine.build)
    monkeypatch.setattr(registry, "push", engine.push)
    monkeypatch.setattr(registry, "digest", engine.digest)
    monkeypatch.setattr(push, "output", lambda *_: "is there")
    monkeypatch.setattr(push, "LOGS", tmp_path)
    monkeypatch.chdir(tmp_path)
    return engine


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """The values file that `python -m images.push` writes."""
    monkeypatch.setattr(sys, "argv", ["push", *words])
    monkeypatch.setattr(push, "stop_on_signals", lambda: None)
    push.main()
    written: dict[str, Any] = yaml.safe_load(push.VALUES.read_text())
    return written


def test_our_images_go_to_the_registry_by_tags_of_content(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = run(monkeypatch, f"{TO}/")
    assert values.pop("global") == {"imageRegistry": TO}
    of_charts = {
        "backup": "flows",
        "mlflow": "mlflow",
        "model-api": "api",
        "prefect-server": "prefect",
        "prefect-worker": "flows",
        "retrainer": "retrainer",
        "ui": "ui",
    }
    assert values.keys() == of_charts.keys()
    for name, image in of_charts.items():
        tag = build.content_tag(image)
        digest = engine.there[f"{TO}/mlops/{image}:{tag}"]
        assert values[name]["image"] == {"repository": f"mlops/{image}", "tag": tag, "digest": digest}
    assert len(engine.pushed) == len(set(of_charts.values()))
    assert set(engine.built) == {*build.names(), *build.PARENTS}
    assert f"helm upgrade --install mlops charts/platform -n mlops --create-namespace -f {push.VALUES}" in (
        capsys.readouterr().out
    )


def test_what_is_there_is_neither_built_nor_pushed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(monkeypatch, TO)
    engine.built.clear()
    engine.pushed.clear()
    assert run(monkeypatch, TO) == first
    assert not engine.built
    assert not engine.pushed


def test_after_a_new_model_one_image_is_pushed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(monkeypatch, TO)
    engine.pushed.clear()
    tag_of = build.content_tag
    monkeypatch.setattr(build, "content_tag", lambda name: "0.1.0-new" if name == "flows" else tag_of(name))
    second = run(monkeypatch, TO)
    assert engine.pushed == [f"{TO}/mlops/flows:0.1.0-new"]
    assert [name for name in first if first[name] != second[name]] == ["backup", "prefect-worker"]


def test_a_mirror_has_all_images_of_the_chart(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    values = run(monkeypatch, TO, "--mirror")
    assert values["global"] == {"imageRegistry": TO, "mirrorRegistry": TO}
    for place, image in chart.images().items():
        entry: Any = values
        for key in place:
            entry = entry[key]
        assert entry["digest"] == engine.there[f"{TO}/{entry['repository']}:{entry['tag']}"], place
        if image.registry:
            assert (entry["repository"], entry["tag"]) == (image.repository, image.tag)
    assert f"{TO}/prometheus/prometheus:{values['monitoring']['prometheus']['image']['tag']}" in engine.pushed


def test_charts_that_are_not_installed_are_left_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    values = run(monkeypatch, TO, "--mirror", "--without=grafana", "--without=postgres")
    assert not {"grafana", "postgres"} & values.keys()
    assert not [target for target in engine.pushed if "grafana" in target or "postgres" in target]


def test_a_registry_that_tells_no_digest_gets_tags_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.tells = False
    values = run(monkeypatch, TO)
    assert values["ui"]["image"] == {"repository": "mlops/ui", "tag": build.content_tag("ui"), "digest": ""}
    assert f"does not tell the digest of {TO}/mlops/ui:" in capsys.readouterr().out


def test_files_that_change_meanwhile_are_not_pushed_by_the_old_tag(engine: Engine, tmp_path: Path) -> None:
    part = push.Part(("ui", "image"), build.tag("ui"), "mlops/ui", "0.1.0-old", "ui")
    with pytest.raises(Failure, match="changed meanwhile"):
        push.send(part, part.target(TO), Log(tmp_path / "log"))
    assert not engine.pushed


def test_an_image_that_cannot_be_pulled_is_named_with_what_to_do(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(push, "output", lambda *_: "")
    monkeypatch.setattr(Log, "run", lambda *_, **__: (_ for _ in ()).throw(Failure("no such host")))
    part = push.Part(("grafana", "image"), "docker.io/grafana/grafana:1", "grafana/grafana", "1")
    with pytest.raises(Failure, match=r"grafana:1 cannot be pulled: WITHOUT=grafana .* no such host"):
        push.send(part, part.target(TO), Log(tmp_path / "log"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "make push REGISTRY=registry.example.com/team"),
        (["https://registry.example.com"], "REGISTRY=https://registry.example.com is no registry"),
        ([TO, "--mirror", "--without=grafna"], "WITHOUT=grafna is not one of: grafana, monitoring, postgres, traefik"),
    ],
)
def test_a_wrong_option_is_refused_by_name(words: list[str], message: str) -> None:
    command = [sys.executable, "-B", "-m", "images.push", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


def test_the_values_are_read_as_yaml_has_them() -> None:
    found = {}

    def collect(value: Any, place: tuple[str, ...]) -> None:
        if isinstance(value, dict):
            if value.get("repository"):
                found[place] = chart.Image(value["registry"], value["repository"], value["tag"])
            for key, inner in value.items():
                collect(inner, (*place, key))

    for path in chart.CHART.glob("charts/*/values.yaml"):
        collect(yaml.safe_load(path.read_text()), (path.parent.name,))
    assert chart.images() == found
    assert len(found) >= 14


def test_the_digest_is_what_buildx_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = f"Name:      {TO}/mlops/ui:1\nMediaType: application/vnd.oci.image.manifest.v1+json\nDigest:    {DIGEST}"
    monkeypatch.setattr(registry, "output", lambda *_: printed)
    assert registry.digest(f"{TO}/mlops/ui:1") == DIGEST
    monkeypatch.setattr(registry, "output", lambda *_: "")
    assert registry.digest(f"{TO}/mlops/ui:1") == ""


def test_the_readme_says_what_make_push_prints() -> None:
    text = (ROOT / "README.md").read_text()
    assert push.INSTALL in text
    assert re.search(r"^/images-values\.yaml$", (ROOT / ".gitignore").read_text(), re.MULTILINE)
