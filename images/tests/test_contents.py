"""The hash of all that an image is built from, and the commit that is in it: of a checkout of the test's own."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from images import build

COPIED = ("app", "docs", "flows", "images", "requirements", ".dockerignore", "pyproject.toml")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what images are built from, with a git history of one commit."""
    skip = shutil.ignore_patterns("__pycache__", "offline")
    for name in COPIED:
        source = build.ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=skip)
        else:
            shutil.copy(source, tmp_path / name)
    monkeypatch.setattr(build, "ROOT", tmp_path)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> str:
    account = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *account, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "a commit")
    return git(folder, "rev-parse", "HEAD")


def append(path: str, text: str = "# changed\n") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / path).open("a") as file:
            file.write(text)

    return change


def make_executable(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).chmod(0o755)


def tags() -> dict[str, str]:
    return {name: build.content_tag(name) for name in build.names()}


EVERY = {"api", "flows", "mlflow", "prefect", "retrainer", "ui"}


@pytest.mark.parametrize(
    ("change", "images"),
    [
        (append("flows/models/wine.py", "model = 1\n"), {"flows"}),
        (append("flows/train.py"), {"flows"}),
        (append("app/cli/main.py"), {"flows"}),
        (make_executable("app/cli/main.py"), {"flows"}),
        (append("app/retrainer/decision.py"), {"retrainer", "flows"}),
        (append("app/api/predict.py"), {"api"}),
        (append("app/ui/main.py"), {"ui"}),
        (append("app/registry/gate.py"), {"api", "ui", "retrainer", "flows"}),
        (append("requirements/flows.txt"), {"prefect", "retrainer", "flows"}),
        (append("requirements/api.txt"), {"api"}),
        (append("requirements/tracking.txt"), {"mlflow", "prefect", "retrainer", "flows"}),
        (append("images/mlflow/prepare.py"), {"mlflow"}),
        (append("images/mlflow/account_rules.py"), {"mlflow"}),
        (append("images/tracking/migration.py"), {"mlflow", "prefect", "retrainer", "flows"}),
        (append("images/flows/Dockerfile", "ENV A=1\n"), {"flows"}),
        (append("images/install/install"), EVERY),
        (append("images/python/Dockerfile", "ENV A=1\n"), EVERY),
        # what is in no image
        (append("images/mlflow/Dockerfile", "# a comment\n"), set()),
        (append("flows/tests/test_train.py"), set()),
        (append("app/testing/docs.py"), set()),
        (append("images/build.py"), set()),
        (append("requirements/dev.txt"), set()),
        (append("README.md", "text\n"), set()),
    ],
)
def test_a_change_gives_new_tags_to_what_it_is_in(
    checkout: Path, change: Callable[[Path], None], images: set[str]
) -> None:
    before, sha = tags(), build.commit("flows")
    change(checkout)
    assert {name for name, tag in tags().items() if tag != before[name]} == images
    assert build.commit("flows") == (f"{sha}-dirty" if "flows" in images else sha)
    made = commit(checkout)
    assert {name for name, tag in tags().items() if tag != before[name]} == images
    assert build.commit("flows") == (made if "flows" in images else sha)


def test_the_same_files_have_the_same_tag_in_every_folder(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tags()
    other = tmp_path_factory.mktemp("other") / "clone"
    git(checkout, "clone", "-q", ".", str(other))
    monkeypatch.setattr(build, "ROOT", other)
    assert tags() == before
    assert all(tag.startswith(f"{build.version()}-") for tag in before.values()), before
    assert len(set(before.values())) == len(before)


def test_a_file_that_goes_is_a_change(checkout: Path) -> None:
    before = tags()
    (checkout / "flows/models/diabetes.py").unlink()
    assert {name for name, tag in tags().items() if tag != before[name]} == {"flows"}
    made = commit(checkout)
    assert build.commit("flows") == made


def test_without_git_there_is_no_commit(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert build.commit("flows") == ""
    assert tags()


def test_what_dockerfiles_name_is_there_and_all_that_is_copied_counts() -> None:
    for name in build.with_parents(build.names()):
        for source in build.sources(name):
            assert (build.ROOT / source).exists(), f"images/{name}: {source}"
            assert "$" not in source, f"images/{name}: {source}"
    assert {"app/api/main.py", "requirements/api.txt", "app/contract/predictions.py"} <= set(build.inputs("api"))
    assert not [path for path in build.inputs("flows") if "/tests/" in path or "__pycache__" in path]


def imports(file: Path) -> set[str]:
    """Our own modules that a file imports as soon as it is imported itself."""
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_folder = (build.ROOT / node.module.replace(".", "/")).is_dir()
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if is_folder else {node.module}
    return {name for name in found if name.startswith(("app.", "flows."))}


@pytest.mark.parametrize("image", build.names())
def test_an_image_has_what_its_modules_import(image: str) -> None:
    files = {file for name in build.with_parents([image]) for file in build.inputs(name)}
    modules = {file for file in files if file.startswith(("app/", "flows/")) and file.endswith(".py")}
    wanted = {(module, f"{name.replace('.', '/')}.py") for module in modules for name in imports(build.ROOT / module)}
    assert not {(module, file) for module, file in wanted if (build.ROOT / file).exists() and file not in files}


def test_skaffold_watches_what_an_image_is_built_from() -> None:
    artifacts = yaml.safe_load((build.ROOT / "skaffold.yaml").read_text())["build"]["artifacts"]
    assert {artifact["image"] for artifact in artifacts} == {f"mlops/{name}" for name in build.names()}
    for artifact in artifacts:
        name = artifact["image"].removeprefix("mlops/")
        patterns = artifact["custom"]["dependencies"]["paths"]
        watched = {str(path.relative_to(build.ROOT)) for pattern in patterns for path in build.ROOT.glob(pattern)}
        of_code = ["retrainer"] if name == "flows" else []
        wanted = {file for image in [name, *of_code] for file in [build.sources(image)[0], *build.inputs(image)]}
        assert wanted <= watched, f"skaffold.yaml: {artifact['image']} does not watch {sorted(wanted - watched)}"
        assert f"build {name} " in artifact["custom"]["buildCommand"]
