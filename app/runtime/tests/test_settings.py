from __future__ import annotations

from typing import ClassVar, Self

import pytest
from pydantic import Field, SecretStr, model_validator

from app.runtime.settings import EnvironmentSettings, MlflowSettings, PrefectSettings, WrongSettings


class Shop(EnvironmentSettings):
    prefix: ClassVar[str] = "SHOP_"

    name: str
    port: int = Field(default=80, ge=0, le=65535)
    low: float = 0.0
    high: float = 1.0
    is_open: bool = False
    key: str = Field(default="", repr=False, max_length=5)
    password: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"SHOP_LOW is {self.low:g}, over SHOP_HIGH, which is {self.high:g}")
        return self


@pytest.fixture(autouse=True)
def _named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_NAME", "tulips")


def test_variables_are_read_when_settings_are_made_and_arguments_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shop() == Shop(name="tulips", port=80)  # type: ignore[call-arg]
    monkeypatch.setenv("SHOP_PORT", "81")
    monkeypatch.setenv("SHOP_IS_OPEN", "true")
    monkeypatch.setenv("PORT", "82")
    shop = Shop(name="roses")
    assert (shop.name, shop.port, shop.is_open) == ("roses", 81, True)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PORT", "x", "SHOP_PORT is 'x': Input should be a valid integer"),
        ("PORT", "", "SHOP_PORT is '': Input should be a valid integer"),
        ("PORT", "70000", "SHOP_PORT is '70000': Input should be less than or equal to 65535"),
        ("LOW", "2", "SHOP_LOW is 2, over SHOP_HIGH, which is 1"),
        ("IS_OPEN", "perhaps", "SHOP_IS_OPEN is 'perhaps': Input should be a valid boolean"),
    ],
)
def test_what_is_wrong_names_the_variable_and_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"SHOP_{variable}", value)
    with pytest.raises(WrongSettings) as error:
        Shop()  # type: ignore[call-arg]
    assert str(error.value).startswith(said)


def test_a_wrong_argument_is_what_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PORT", "81")
    with pytest.raises(WrongSettings, match=r"^SHOP_PORT is -1: "):
        Shop(port=-1)  # type: ignore[call-arg]


def test_all_that_is_wrong_is_said_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_NAME")
    monkeypatch.setenv("SHOP_PORT", "x")
    monkeypatch.setenv("SHOP_KEY", "hunter2")
    with pytest.raises(WrongSettings) as error:
        Shop(sort="red")  # type: ignore[call-arg]
    said = str(error.value).split("; ")
    assert said[0] == "SHOP_NAME must be set"
    assert [problem.split(":")[0] for problem in said[1:]] == ["SHOP_PORT is 'x'", "SHOP_KEY", "SHOP_SORT"]
    assert "hunter2" not in str(error.value) + repr(error.value.__cause__)


@pytest.mark.parametrize(
    ("settings", "variable"),
    [
        (MlflowSettings, "MLFLOW_TRACKING_PASSWORD"),
        (PrefectSettings, "PREFECT_API_AUTH_STRING"),
        (Shop, "SHOP_PASSWORD"),
    ],
)
def test_passwords_are_read_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, settings: type[EnvironmentSettings], variable: str
) -> None:
    monkeypatch.setenv(variable, "hunter2")
    made = settings()
    assert made != settings.model_construct()
    assert "hunter2" not in repr(made)
