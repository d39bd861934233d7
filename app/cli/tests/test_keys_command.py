"""`mlops keys`: in a folder and in a Secret, what the API makes of it, and many at once."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.api.errors import Refusal
from app.api.keys import Keys, KnownClient
from app.api.metrics import Metrics
from app.cli.keys import create, revoke, rotate
from app.cli.main import main
from app.runtime.api_keys import BUILT_IN, Client, is_key, key_digest, new_key
from app.testing.api_keys import bearer
from app.testing.kubernetes import FakeKubernetes, fake_kubernetes

SECRET = "ours-api-keys"  # noqa: S105


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with fake_kubernetes(tmp_path / "config") as cluster:
        cluster.add_workload("deployments", "model-api", {"feedback-key": "ours"}, mounts=SECRET)
        yield cluster


@pytest.fixture(params=["a folder", "a Secret"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[str], Callable[[], dict[str, str]]]:
    """The options that name a place, and what is there."""
    if request.param == "a folder":
        folder = tmp_path / "new" / "clients"
        return ["--dir", str(folder)], lambda: {path.name: path.read_text() for path in folder.iterdir()}
    cluster: FakeKubernetes = request.getfixturevalue("cluster")
    return ["--namespace", "team", "--name", SECRET], lambda: cluster.values(SECRET)


def keys(command: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["keys", command, *words])


def admitted(texts: dict[str, str], key: str, folder: Path) -> KnownClient | None:
    """What the API itself says to a key for predictions, with these clients."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)
    known = Keys(folder, ["predict"], Metrics())
    known.look()
    headers = [(name.lower().encode(), value.encode()) for name, value in bearer(key).items()]
    try:
        return known.admit({"headers": headers}, "predict")
    except Refusal:
        return None


def test_the_life_of_a_key(place: tuple[list[str], Callable[[], dict[str, str]]], tmp_path: Path) -> None:
    where, texts = place
    made = keys("create", "shop", "--scopes", "predict, feedback", "--requests-per-second", "50", *where)
    assert made.exit_code == 0, made.output
    first = made.stdout.strip()
    assert is_key(first), "it stands alone on standard output"
    assert "made the client shop in" in made.stderr
    assert first not in made.stderr
    assert json.loads(texts()["shop"]) == {
        "scopes": ["predict", "feedback"], "sha256": [key_digest(first)],
        "requests_per_second": 50, "feedback_per_day": 10_000,
    }  # fmt: skip
    known = admitted(texts(), first, tmp_path / "1")
    assert known
    assert known.name == "shop"

    second = keys("rotate", "shop", *where).stdout.strip()
    assert is_key(second)
    assert second != first
    assert admitted(texts(), first, tmp_path / "2")
    assert admitted(texts(), second, tmp_path / "3")
    listed = keys("list", *where)
    assert listed.stdout == "shop  predict,feedback  2 keys, 50 requests a second, 10000 labels a day\n"
    third = keys("rotate", "shop", *where)
    assert third.exit_code == 1
    assert "has 2 keys already; when nobody sends the older one any more, `mlops keys retire shop`" in third.stderr

    assert keys("retire", "shop", *where).exit_code == 0
    assert not admitted(texts(), first, tmp_path / "4")
    assert admitted(texts(), second, tmp_path / "5")
    again = keys("retire", "shop", *where)
    assert again.exit_code == 1
    assert "the client shop has one key; `mlops keys rotate shop`" in again.stderr

    assert keys("revoke", "shop", *where).exit_code == 0
    assert texts() == {}
    assert keys("list", *where).stdout == ""
    gone = keys("rotate", "shop", *where)
    assert gone.exit_code == 1
    assert "there is no client shop; there is none; `mlops keys create shop` makes it" in gone.stderr


def test_scopes_and_limits_change_and_keys_stay(
    place: tuple[list[str], Callable[[], dict[str, str]]], tmp_path: Path
) -> None:
    where, texts = place
    key = keys("create", "shop", "--scopes", "feedback", "--feedback-per-day", "500", *where).stdout.strip()
    assert not admitted(texts(), key, tmp_path / "1")
    done = keys("change", "shop", "--scopes", "predict,feedback", "--requests-per-second", "5", *where)
    assert done.exit_code == 0, done.output
    assert json.loads(texts()["shop"]) == {
        "scopes": ["predict", "feedback"], "sha256": [key_digest(key)],
        "requests_per_second": 5, "feedback_per_day": 500,
    }  # fmt: skip
    assert admitted(texts(), key, tmp_path / "2")
    keys("change", "shop", "--feedback-per-day", "0", *where)
    assert keys("list", *where).stdout == "shop  predict,feedback  1 key, 5 requests a second\n"
    keys("change", "shop", "--scopes", "predict", *where)
    assert keys("list", *where).stdout == "shop  predict           1 key, 5 requests a second\n"
    keys("change", "shop", "--scopes", "predict,feedback", *where)
    assert "10000 labels a day" in keys("list", *where).stdout, "as of a new client with this scope"
    keys("change", "shop", "--scopes", "admin", *where)
    assert keys("list", *where).stdout == "shop  admin             1 key\n"
    for words, message in (
        ((), "say what to change"),
        (("--scopes", "all"), "there is no scope 'all'; the scopes are"),
        (("--scopes", ""), "no scope is named"),
        (("--requests-per-second", "3"), "the scope admin has no limits"),
    ):
        refused = keys("change", "shop", *words, *where)
        assert refused.exit_code != 0
        assert message in refused.output
    assert "there is no client other" in keys("change", "other", "--scopes", "admin", *where).output


def test_others_stay_as_they_are(place: tuple[list[str], Callable[[], dict[str, str]]]) -> None:
    where, texts = place
    keys("create", "a", "--scopes", "predict", *where)
    keys("create", "b", "--scopes", "admin", *where)
    before = texts()
    assert keys("revoke", "b", *where).exit_code == 0
    keys("create", "c", "--scopes", "feedback", "--feedback-per-day", "0", *where)
    after = texts()
    assert set(after) == {"a", "c"}
    assert after["a"] == before["a"]
    assert json.loads(before["a"])["feedback_per_day"] is None
    assert json.loads(before["b"]) == {
        **json.loads(before["a"]),
        "scopes": ["admin"],
        "sha256": json.loads(before["b"])["sha256"],
    }
    assert json.loads(after["c"])["feedback_per_day"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["create", "admin", "--scopes", "predict"], "the client admin is the platform's own; its key is api-key"),
        (["rotate", "worker"], "`mlops credentials rotate worker-api-key`"),
        (["create", "a b", "--scopes", "predict"], "'a b' cannot be the name of a client; take up to 63 letters"),
        (["create", "..data", "--scopes", "predict"], "cannot be the name of a client"),
        (["create", "../x", "--scopes", "predict"], "cannot be the name of a client"),
        (["create", "é", "--scopes", "predict"], "cannot be the name of a client"),
        (["create", "n" * 64, "--scopes", "predict"], "cannot be the name of a client"),
        (["create", "a", "--scopes", "predict,everything"], "there is no scope 'everything'; the scopes are: predict"),
        (["create", "a", "--scopes", ","], "no scope is named; the scopes are: predict, feedback, admin"),
        (["create", "a", "--scopes", "admin", "--requests-per-second", "5"], "the scope admin has no limits"),
        (["create", "a", "--scopes", "predict", "--feedback-per-day", "5"], "is of the scope feedback"),
        (["create", "a", "--scopes", "predict", "--requests-per-second", "-1"], "Invalid value for"),
        (
            ["create", "a", "--scopes", "predict", "--requests-per-second", "nan"],
            "requests_per_second: Input should be",
        ),
        (["create", "there", "--scopes", "predict"], "there is a client there already; `mlops keys change there`"),
        (["rotate", "broken"], "what is known of the client broken is broken: sha256: Field required"),
        (["retire", "nobody"], "there is no client nobody; those are: broken, there"),
        (["revoke", "../there"], "there is no client ../there"),
    ],
)
def test_what_is_refused_changes_nothing(tmp_path: Path, words: list[str], message: str) -> None:
    folder = tmp_path / "clients"
    folder.mkdir()
    (folder / "there").write_text(Client(scopes=["predict"], sha256=["0" * 64]).text())
    (folder / "broken").write_text('{"scopes": ["predict"]}')
    before = {path.name: path.read_text() for path in folder.iterdir()}
    done = keys(*words, "--dir", str(folder))
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert "mlops_" not in done.output
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_a_broken_client_is_listed_and_can_be_revoked(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"\xff")
    assert "broken  broken, so the API refuses its keys: Invalid JSON" in keys("list", "--dir", str(tmp_path)).stdout
    assert keys("revoke", "broken", "--dir", str(tmp_path)).exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_files_are_for_nobody_else(tmp_path: Path) -> None:
    keys("create", "shop", "--scopes", "predict", "--dir", str(tmp_path))
    assert stat.S_IMODE((tmp_path / "shop").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing = keys("list", "--dir", str(tmp_path / "none"))
    assert missing.exit_code == 1
    assert f"the folder {tmp_path / 'none'} cannot be read" in missing.stderr
    (tmp_path / "file").write_text("")
    for command in (["list"], ["create", "a", "--scopes", "predict"]):
        done = keys(*command, "--dir", str(tmp_path / "file"))
        assert done.exit_code == 1
        assert f"the folder {tmp_path / 'file'} cannot be" in done.stderr


def test_many_at_once_lose_nothing_in_a_folder(tmp_path: Path) -> None:
    from app.cli.keys import Place

    place = Place(tmp_path, "", "", "")
    start = threading.Barrier(8)

    def make(i: int) -> None:
        start.wait()
        place.edit(create(f"c{i}", Client(scopes=["predict"], sha256=[f"{i:064x}"])))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(8)))
    assert set(place.read()) == {f"c{i}" for i in range(8)}
    outcomes: list[str] = []

    def turn(_: int) -> None:
        start.wait()
        try:
            place.edit(rotate("c0", new_key()))
            outcomes.append("rotated")
        except Exception as error:
            outcomes.append(str(error)[:12])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(turn, range(8)))
    assert sorted(set(outcomes)) == ["rotated", "the client c"]
    assert outcomes.count("rotated") == 1, "there is room for one key more"
    place.edit(revoke("c0"))
    assert "c0" not in place.read()


@pytest.mark.parametrize("there", [False, True], ids=["no Secret yet", "a Secret"])
def test_of_two_at_once_in_a_cluster_none_is_lost(cluster: FakeKubernetes, there: bool) -> None:
    if there:
        cluster.add_secret(SECRET, {"old": Client(scopes=["predict"], sha256=["0" * 64]).text()})
    cluster.together = threading.Barrier(2)

    def make(name: str) -> Result:
        return keys("create", name, "--scopes", "predict", "--namespace", "team", "--name", SECRET)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(make, ("a", "b")))
    assert [result.exit_code for result in results] == [0, 0], [result.output for result in results]
    assert cluster.conflicts == 1
    assert set(cluster.values(SECRET)) == {"a", "b"} | ({"old"} if there else set())


def test_a_secret_that_no_pod_reads_is_warned_of(cluster: FakeKubernetes) -> None:
    where = ["--scopes", "predict", "--namespace", "team", "--name"]
    assert "Warning" not in keys("create", "a", *where, SECRET).stderr
    odd = keys("create", "a", *where, "mlops-api-keys")
    assert odd.exit_code == 0
    assert "Warning: no pod in the namespace team reads the Secret mlops-api-keys." in odd.stderr
    cluster.refused = {"GET deployments"}
    assert "Warning" not in keys("create", "b", *where, "mlops-api-keys").stderr, "who may not look is told nothing"


def test_a_secret_that_others_keep_is_left_to_them(cluster: FakeKubernetes) -> None:
    cluster.add_secret(SECRET, {}, owner="vault")
    done = keys("create", "a", "--scopes", "predict", "--namespace", "team", "--name", SECRET)
    assert done.exit_code == 1
    assert "is kept by ExternalSecret/vault, which would undo the change" in done.stderr
    cluster.refused = {"PATCH secrets"}
    del cluster.secrets[SECRET]["metadata"]["ownerReferences"]
    done = keys("create", "a", "--scopes", "predict", "--namespace", "team", "--name", SECRET)
    assert "Kubernetes refused to change the Secret ours-api-keys (403)" in done.stderr
    assert "mlops_" not in done.output


def test_the_platforms_own_clients_are_those_of_the_credentials() -> None:
    from app.cli.credentials import BY_KEY, missing

    values = missing({})
    for name, key in BUILT_IN.items():
        assert BY_KEY[f"api-client-{name}"].source == key
        client = Client.model_validate_json(values[f"api-client-{name}"])
        assert is_key(values[key])
        assert client.sha256 == [key_digest(values[key])]
    assert Client.model_validate_json(values["api-client-worker"]).scopes == ["predict", "feedback"]
