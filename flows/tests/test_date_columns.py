"""Columns of dates in training data, from rows alone; test_train_dates.py has them with real servers."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from app.dates import days_of
from flows import dataset
from flows.date_columns import as_days
from flows.feedback import select
from flows.model import Gate, Model, ModelFileError, Sql, TimeSplit
from flows.sources import DatasetError, read

N = 60
DAYS = [f"2026-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(N)]


def members(**columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"joined": pd.Series(DAYS, dtype="str"), "visits": np.arange(N) % 7 / 2})
    return frame.assign(**columns, leaves=np.where(np.arange(N) % 2, "yes", "no"))


def model(frame: pd.DataFrame | None = None, **fields: Any) -> Model:
    own = members() if frame is None else frame
    made = Model("classification", "leaves", lambda: own, lambda seed: None, Gate("accuracy", 0.5), name="members")
    return replace(made, **fields)


EXPECTED = [days_of(day) for day in DAYS]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series(DAYS, dtype="str"),
        pd.Series(DAYS, dtype="object"),
        pd.Series([f"{day} 00:00:00" for day in DAYS]),
        pd.Series([f"{day}T02:00:00+02:00" if i % 2 else f"{day}T00:00Z" for i, day in enumerate(DAYS)]),
        pd.Series(pd.to_datetime(DAYS)),
        pd.Series(pd.to_datetime(DAYS).as_unit("ns")),
        pd.Series(pd.to_datetime(DAYS).as_unit("s")),
        pd.Series(pd.to_datetime(DAYS, utc=True).tz_convert("Europe/Vienna")),
        pd.Series([date.fromisoformat(day) for day in DAYS]),
        pd.Series([date.fromisoformat(day) for day in DAYS], dtype=pd.ArrowDtype(pa.date32())),
        pd.Series(pd.to_datetime(DAYS)).astype("timestamp[us][pyarrow]"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_dates_of_every_type_are_found_and_are_days(column: pd.Series) -> None:
    frame = members(joined=column)
    rows, dates = dataset.validate_and_find_dates(model(frame), frame)
    assert dates == ("joined",)
    assert rows["joined"].dtype == "float64"
    assert rows["joined"].tolist() == EXPECTED
    assert dataset.validate(model(), frame)["joined"].tolist() == EXPECTED  # where load() has text


def test_days_are_those_that_the_api_makes_of_the_text() -> None:
    texts = [f"{year}-07-03T{hour:02}:17:23.{hour:06}" for year in range(1850, 2200, 7) for hour in range(24)]
    expected = [days_of(text) for text in texts]
    for column in (
        pd.Series(texts),
        pd.Series(pd.to_datetime(texts)),
        pd.Series(pd.to_datetime(texts)).dt.as_unit("ns"),
    ):
        assert as_days(column).tolist() == expected


def test_years_that_nanoseconds_do_not_reach_are_read() -> None:
    texts = ["0001-01-01", "1600-01-01", "2300-01-01T12:00", "9999-12-31"]
    days = [-719_162.0, -135_140.0, 120_530.5, 2_932_896.0]
    assert as_days(pd.Series(texts)).tolist() == days
    assert as_days(pd.Series(np.array(texts, dtype="datetime64[s]"))).tolist() == days
    moments = np.array(["-0001-01-01", "200000-01-01", "2026-03-01"], dtype="datetime64[s]")
    with pytest.raises(DatasetError, match=r"in row 0, .* in row 1: a date or time such as .*the years 1 to 9999"):
        as_days(pd.Series(moments, name="joined"))


def test_gaps_make_it_nullable() -> None:
    frame = members()
    frame.loc[3, "joined"] = None
    rows, dates = dataset.validate_and_find_dates(model(frame), frame)
    assert dates == ("joined",)
    assert np.isnan(rows["joined"][3])
    assert dataset.nullable_features(model(frame), rows) == ("joined",)
    with pytest.raises(DatasetError, match=r"'joined' has 1 empty values \(NaN\), the first in row 3"):
        dataset.validate(model(), frame)


def test_a_column_of_which_some_are_no_dates_is_text_unless_the_model_file_says_so() -> None:
    bad = [*DAYS]
    bad[5], bad[7], bad[8], bad[9] = "yesterday", "2026-02-30", "n/a", "5"
    frame = members(joined=bad)
    rows, dates = dataset.validate_and_find_dates(model(frame), frame)
    assert (dates, rows["joined"][5]) == ((), "yesterday")
    named = (
        r"'joined' has 'yesterday' in row 5, '2026-02-30' in row 7, 'n/a' in row 8 and 1 more: a date or time such as"
    )
    with pytest.raises(DatasetError, match=named):
        dataset.validate(model(frame, dates=("joined",)), frame)
    with pytest.raises(DatasetError, match=named):  # found in load(), wrong in the source
        dataset.validate(model(), frame)
    with pytest.raises(DatasetError, match=r"'joined' has 20513 in row 0, .* and 57 more"):
        dataset.validate(model(), members(joined=20513))


@pytest.mark.parametrize(
    "text", ["2026", "202603", "2026-03", "12:00", "01.03.2026", "5"], ids=lambda text: f"text like {text}"
)
def test_other_text_stays_text(text: str) -> None:
    frame = members(joined=text)
    assert dataset.validate_and_find_dates(model(frame), frame)[1] == ()


def test_the_model_file_can_say_that_there_are_none() -> None:
    for other in (model(dates=()), model(categories=("joined",))):
        rows, dates = dataset.validate_and_find_dates(other, members())
        assert dates == ()
        assert rows["joined"].tolist() == DAYS
    times = members(joined=pd.to_datetime(DAYS))
    with pytest.raises(DatasetError, match=r"datetime64.*dates \(as far as dates= of the model file names them\)"):
        dataset.validate(model(times, dates=()), times)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dates": "joined"}, r"dates is 'joined', not a tuple of names: \('joined',\)"),
        ({"dates": ("joined",), "categories": ("joined",)}, "'joined' is in dates and in categories"),
    ],
)
def test_a_model_file_that_cannot_be_is_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        model(**fields)


def test_what_is_no_feature_is_named() -> None:
    for name in ("leaves", "born"):
        with pytest.raises(DatasetError, match=f"dates of members names '{name}', which is no feature"):
            dataset.validate(model(dates=(name,)), members())


def test_a_target_that_is_a_date_is_refused_with_a_cure() -> None:
    frame = members().drop(columns="leaves").assign(leaves=pd.to_datetime(DAYS))
    for own in (frame, frame.assign(leaves=DAYS)):
        with pytest.raises(DatasetError, match="target 'leaves' is a date, which cannot be predicted: have load"):
            dataset.validate(model(own), own)


def test_the_date_that_splits_the_rows_may_be_a_feature() -> None:
    by_time = model(split=TimeSplit("joined", is_feature=True))
    rows, dates = dataset.validate_and_find_dates(by_time, members())
    training, held_out = dataset.split(by_time, rows)
    assert dates == ("joined",)
    assert training["joined"].max() < held_out["joined"].min()
    apart = model(split=TimeSplit("joined"))
    assert dataset.validate_and_find_dates(apart, members())[1] == ()


def test_a_database_and_parquet_give_dates(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = members(joined=pd.to_datetime(DAYS))
    with sqlite3.connect(tmp_path / "rows.db") as database:
        frame.to_sql("members", database, index=False)
    monkeypatch.setenv("MLOPS_DATA_URL", f"sqlite:///{tmp_path}/rows.db")
    frame.to_parquet(tmp_path / "rows.parquet")
    days = members(joined=[date.fromisoformat(day) for day in DAYS])
    days.to_parquet(tmp_path / "days.parquet")
    members().to_csv(tmp_path / "rows.csv", index=False)
    sources: list[str | Sql] = [str(tmp_path / name) for name in ("rows.parquet", "days.parquet", "rows.csv")]
    for source in [*sources, Sql("select * from members")]:
        own = read(source)
        rows, dates = dataset.validate_and_find_dates(model(own), own)
        assert dates == ("joined",)
        assert rows["joined"].tolist() == EXPECTED


def test_feedback_is_read_again_from_days_and_from_the_text_of_before() -> None:
    rows, dates = dataset.validate_and_find_dates(model(), members())
    training, held_out = dataset.split(model(), rows)

    def stored(joined: Any) -> dict[str, Any]:
        features = {"joined": joined, "visits": 9.0}
        return {"client": "app", "features": features, "label": "yes", "prediction": "yes"}

    fits = [stored(20000.25), stored("2024-10-04T06:00:00Z")]
    unfit = [stored(joined) for joined in ("soon", 1.7e9, None, True)]
    feedback = select(model(), training, held_out, [*fits, *unfit], dates=dates)
    used = pd.concat([feedback.training, feedback.comparison])
    assert used["joined"].tolist() == [20000.25, 20000.25]
    assert feedback.left_out == {"joined should be datetime": 4}
    grading = stored(float(held_out["joined"].iloc[0]))
    grading["features"]["visits"] = float(held_out["visits"].iloc[0])
    assert "held-out" in next(iter(select(model(), training, held_out, [grading], dates=dates).left_out))
