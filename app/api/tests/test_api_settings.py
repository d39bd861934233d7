from __future__ import annotations

import stat
from pathlib import Path

import pytest

from app.api.settings import ApiSettings
from app.runtime.settings import WrongSettings


def test_the_environment_is_read_when_settings_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ApiSettings().port == 8086
    monkeypatch.setenv("MLOPS_PORT", "9000")
    monkeypatch.setenv("MLOPS_DEFAULT_MODEL", "iris")
    assert (ApiSettings().port, ApiSettings().default_model) == (9000, "iris")


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "x"), ("PORT", "70000"), ("POLL_SECONDS", "0"), ("POLL_SECONDS", "nan")]
)
def test_a_setting_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"MLOPS_{name}", value)
    with pytest.raises(WrongSettings, match=f"MLOPS_{name} is"):
        ApiSettings()


def test_a_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    settings = ApiSettings(cache_dir=tmp_path / "new")
    key = settings.token_key()
    assert len(key) == 64
    assert ApiSettings(cache_dir=tmp_path / "new").token_key() == key
    assert stat.S_IMODE((tmp_path / "new" / "feedback.key").stat().st_mode) == 0o600
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["feedback.key"]


def test_a_configured_key_is_used_and_not_shown(tmp_path: Path) -> None:
    settings = ApiSettings(cache_dir=tmp_path, feedback_key="secret" * 6 + "\n")
    assert settings.token_key() == b"secret" * 6
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("key", ["secret", "x" * 31])
def test_a_short_key_is_refused_with_the_command_that_makes_one(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="at least 32 are needed; `openssl rand -hex 32`") as error:
        ApiSettings(cache_dir=tmp_path, feedback_key=key).token_key()
    assert key not in str(error.value)
