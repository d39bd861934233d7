"""Model files in a git repository, from real servers: git's own daemon, and one over HTTP that asks for a token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.runtime.processes import free_port
from app.testing.git import Repository, git_daemon, git_over_http
from flows import repository
from flows.catalog import load_model, model_names
from flows.repository import RepositoryError, RepositorySettings, RepositoryUnavailable

MODEL = """
from flows.model import Gate, Model

model = Model("regression", "y", load=None, estimator=None, gate=Gate("r2", {threshold}))
"""


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "served" / "models")
    made.commit({"models/house.py": MODEL.format(threshold=0.5), "data/rows.csv": "y\n1\n"})
    return made


@pytest.fixture
def url(models: Repository, tmp_path: Path) -> Iterator[str]:
    with git_daemon(tmp_path / "served", tmp_path) as address:
        yield f"{address}/models"


def settings(url: str, **others: str) -> RepositorySettings:
    return RepositorySettings(url=url, path="models", **others)  # type: ignore[arg-type]


def test_the_newest_commit_of_a_branch_a_tag_and_by_default(models: Repository, url: str) -> None:
    first = models.git("rev-parse", "HEAD")
    models.git("tag", "-a", "v1", "-m", "the first")
    models.git("branch", "old")
    second = models.commit({"models/house.py": MODEL.format(threshold=0.6)})
    assert repository.newest_commit(settings(url)) == second
    assert repository.newest_commit(settings(url, ref="main")) == second
    assert repository.newest_commit(settings(url, ref="old")) == first
    assert repository.newest_commit(settings(url, ref="v1")) == first, "the commit, not the annotated tag"
    assert repository.newest_commit(settings(url, ref=first)) == first


def test_a_ref_that_does_not_exist_names_those_that_do(url: str) -> None:
    with pytest.raises(RepositoryError, match=r"no branch or tag 'mian'; branches: main; set .*git.ref"):
        repository.newest_commit(settings(url, ref="mian"))


def test_the_newest_files_are_current_and_the_old_ones_go(models: Repository, url: str, tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    first = repository.update(settings(url), folder)
    assert "0.5" in (folder / "current" / "models" / "house.py").read_text()
    second = models.commit({"models/house.py": MODEL.format(threshold=0.6), "models/new.py": MODEL.format(threshold=1)})
    assert repository.update(settings(url), folder) == second
    assert "0.6" in (folder / "current" / "models" / "house.py").read_text()
    assert (folder / "current" / "models" / "new.py").is_file()
    assert not (folder / first).exists()
    assert sorted(path.name for path in folder.iterdir()) == sorted([second, "current"])


def test_a_run_reads_the_commit_it_was_registered_with_though_the_branch_went_on(
    models: Repository, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOPS_MODELS_PATH", str(tmp_path / "other"))
    for name in ("MLOPS_MODELS_COMMIT", "MLOPS_MODELS_REPOSITORY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    first = repository.newest_commit(settings(url))
    models.commit({"models/house.py": MODEL.format(threshold=0.9)})
    ((name, arguments),) = repository.pull_step(settings(url), first).items()
    assert name == "flows.repository.pull_models"
    repository.pull_models(**arguments)
    assert load_model("house").gate.threshold == 0.5
    assert os.environ["MLOPS_MODELS_COMMIT"] == first
    assert os.environ["MLOPS_MODELS_REPOSITORY"] == url
    assert os.environ["MLOPS_MODELS_PATH"].endswith(f"{os.pathsep}{tmp_path / 'other'}")
    assert "house" in model_names()


def test_a_commit_that_a_rewritten_history_lost_is_named(models: Repository, url: str, tmp_path: Path) -> None:
    lost = models.commit({"models/house.py": MODEL.format(threshold=0.9)})
    models.git("reset", "-q", "--hard", "HEAD~1")
    models.git("reflog", "expire", "--expire=now", "--all")
    models.git("gc", "-q", "--prune=now")
    with pytest.raises(RepositoryError, match=f"has no commit {lost}: its history was rewritten"):
        repository.checkout(settings(url), lost, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_no_such_folder_is_named_and_what_was_current_stays(url: str, tmp_path: Path) -> None:
    first = repository.update(settings(url), tmp_path / "worker")
    with pytest.raises(RepositoryError, match=r"no folder 'modles' at .*; set .*git.path"):
        repository.update(settings(url).model_copy(update={"path": "modles"}), tmp_path / "worker")
    assert (tmp_path / "worker" / "current").readlink().name == first


def test_what_is_no_repository_and_who_is_away_are_told_apart(models: Repository, url: str) -> None:
    refusals = (RepositoryError, RepositoryUnavailable)  # a daemon may close before its answer is read
    with pytest.raises(refusals, match=r"access denied or repository not exported|is there such a repository"):
        repository.newest_commit(settings(url + "-not"))
    with (
        git_over_http(models.folder, ("git", "token")) as address,
        pytest.raises(RepositoryError, match="is no repository, or none that may be read"),
    ):
        repository.newest_commit(settings(address.replace("models", "other"), password="token"))  # noqa: S106
    with pytest.raises(RepositoryUnavailable, match="does not answer"):
        repository.newest_commit(settings(f"git://127.0.0.1:{free_port()}/models"))
    with pytest.raises(RepositoryUnavailable, match="does not answer"):
        repository.newest_commit(settings(f"http://127.0.0.1:{free_port()}/models"))


@pytest.mark.parametrize("address", ["ssh://git@example.com/models", "git@example.com:models", "/models", "file:///x"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(RepositoryError, match="it begins with https://"):
        repository.newest_commit(settings(address))


def test_an_account_in_the_address_is_refused_without_repeating_it() -> None:
    with pytest.raises(RepositoryError, match=r"on example.com holds an account") as refused:
        repository.newest_commit(settings("https://ada:secret@example.com/models"))
    assert "secret" not in str(refused.value).replace("credentialsSecret", "")


def test_a_private_repository_takes_its_token_and_no_other(models: Repository, tmp_path: Path) -> None:
    with git_over_http(models.folder, ("git", "the-token")) as address:
        commit = repository.update(settings(address, password="the-token"), tmp_path / "worker")  # noqa: S106
        assert commit == models.git("rev-parse", "HEAD")
        for password in ("", "another"):
            with pytest.raises(RepositoryError, match="asks for an account, or refuses this one") as refused:
                repository.newest_commit(settings(address, password=password))
            assert "another" not in str(refused.value)


def test_runs_that_start_at_once_do_not_disturb_each_other(url: str, tmp_path: Path) -> None:
    commit = repository.newest_commit(settings(url))
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda n: repository.checkout(settings(url), commit, tmp_path / str(n)), range(8)))
    assert all((folder / "house.py").is_file() for folder in folders)
