from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flows import dataset
from flows.catalog import load_model
from flows.sources import DatasetError, SourceUnavailable

iris = load_model("iris")


@pytest.fixture
def frame() -> pd.DataFrame:
    return iris.load()


def test_good_data_comes_back_as_it_is(frame: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(dataset.validate(iris, frame), frame)


def test_the_order_of_columns_and_further_ones_do_not_matter(frame: pd.DataFrame) -> None:
    shuffled = frame[frame.columns[::-1]].assign(note="x")
    pd.testing.assert_frame_equal(dataset.validate(iris, shuffled), frame)


def test_whole_numbers_are_taken_for_fractions(frame: pd.DataFrame) -> None:
    whole = frame.assign(sepal_length=frame["sepal_length"].astype(int))
    assert dataset.validate(iris, whole)["sepal_length"].dtype == "float64"


def _with(frame: pd.DataFrame, column: str, value: Any) -> pd.DataFrame:
    changed = frame.copy()
    changed.loc[3, column] = value
    return changed


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.drop(columns="petal_width"), "column 'petal_width' is missing"),
        (lambda f: f.drop(columns="species"), "column 'species' is missing"),
        (lambda f: f.assign(sepal_length="long"), "column 'sepal_length' has the type str, double is needed"),
        (lambda f: _with(f, "sepal_width", np.nan), r"'sepal_width' has 1 empty values \(NaN\), the first in row 3"),
        (lambda f: _with(f, "sepal_width", np.inf), "'sepal_width': .*infinite"),
        (lambda f: _with(f, "species", None), "'species' has 1 empty values"),
        (lambda f: f.head(20), "20 rows, the model iris needs at least 50"),
        (lambda f: f.head(0), "0 rows"),
        (lambda f: f.assign(species="setosa"), "the single class 'setosa'"),
        (lambda f: _with(f, "species", "rosa"), "the class 'rosa' of 'species' has 1 rows"),
        (lambda f: pd.DataFrame(), "column 'sepal_length' is missing"),
    ],
)
def test_bad_data_is_refused_with_the_reason(frame: pd.DataFrame, spoil: object, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        dataset.validate(iris, spoil(frame))  # type: ignore[operator]


def test_all_bad_columns_are_named_at_once(frame: pd.DataFrame) -> None:
    with pytest.raises(DatasetError, match=r"petal_width.*; .*sepal_length|sepal_length.*; .*petal_width"):
        dataset.validate(iris, frame.drop(columns="petal_width").assign(sepal_length="x"))


def _gappy(frame: pd.DataFrame) -> pd.DataFrame:
    return _with(frame, "sepal_width", np.nan)


def test_values_may_be_missing_where_the_models_own_data_lacks_some(frame: pd.DataFrame) -> None:
    gappy = replace(iris, load=lambda: _gappy(frame))
    assert dataset.nullable_features(gappy, gappy.load()) == ("sepal_width",)
    other = _with(_gappy(frame), "species", "setosa")
    pd.testing.assert_frame_equal(dataset.validate(gappy, other), other)
    with pytest.raises(
        DatasetError, match=r"'petal_width' has 1 empty values.*nullable=\('petal_width',\) in the model"
    ):
        dataset.validate(gappy, _with(other, "petal_width", np.nan))


def test_values_may_be_missing_where_the_model_file_says_so(frame: pd.DataFrame) -> None:
    lenient = replace(iris, nullable=("sepal_width",))
    validated = dataset.validate(lenient, _gappy(frame))
    assert validated["sepal_width"].isna().sum() == 1
    assert dataset.nullable_features(lenient, frame) == ("sepal_width",)


def test_the_target_is_never_missing(frame: pd.DataFrame) -> None:
    gappy = replace(iris, load=lambda: _with(frame, "species", None))
    with pytest.raises(DatasetError, match="'species' has 1 empty values"):
        dataset.validate(gappy, gappy.load())


def test_whole_numbers_that_lack_values_are_fractions(frame: pd.DataFrame) -> None:
    whole = frame["sepal_length"].round().astype("Int64")
    whole[2] = None
    gappy = replace(iris, load=lambda: frame.assign(sepal_length=whole))
    assert dataset.validate(gappy, gappy.load())["sepal_length"].dtype == "float64"
    with pytest.raises(DatasetError, match="'sepal_length' may be without a value, so it cannot be int64"):
        dataset.validate(
            replace(gappy, nullable=("sepal_length",), load=lambda: frame.assign(sepal_length=1)), gappy.load()
        )


@pytest.mark.parametrize(
    ("nullable", "reason"), [(("colour",), "names 'colour', which is no feature"), (("species",), "is no feature")]
)
def test_only_features_are_nullable(frame: pd.DataFrame, nullable: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        dataset.validate(replace(iris, nullable=nullable), frame)


def test_a_column_without_any_value_is_refused(frame: pd.DataFrame) -> None:
    empty = frame.assign(sepal_width=np.nan)
    with pytest.raises(DatasetError, match="'sepal_width' has no value in any row"):
        dataset.validate(replace(iris, nullable=("sepal_width",)), empty)


def test_true_and_false_that_lack_values_are_refused_with_the_cure(frame: pd.DataFrame) -> None:
    odd = frame.assign(ripe=pd.Series([True, None] * (len(frame) // 2), dtype=object))
    with pytest.raises(DatasetError, match=r'"ripe"\]\.astype\("float64"\)'):
        dataset.validate(replace(iris, load=lambda: odd), odd)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_csv_and_parquet_are_read(frame: pd.DataFrame, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"more.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    read, origin = dataset.load(iris, str(path))
    assert origin == str(path)
    pd.testing.assert_frame_equal(dataset.validate(iris, read), frame)


def test_a_missing_source_may_be_tried_again_and_a_wrong_one_not(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        dataset.load(iris, str(tmp_path / "none.csv"))
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        dataset.load(iris, "http://127.0.0.1:9/none.csv")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"\.csv and \.parquet"):
        dataset.load(iris, str(tmp_path / "a.txt"))
    for name in ("empty.csv", "half.parquet"):
        (tmp_path / name).write_bytes(b"" if name.endswith("csv") else b"PAR1half")
        with pytest.raises(DatasetError, match="not a whole"):
            dataset.load(iris, str(tmp_path / name))


def test_the_split_is_stratified_and_repeatable(frame: pd.DataFrame) -> None:
    train, held_out = dataset.split(iris, frame)
    pd.testing.assert_frame_equal(held_out, dataset.split(iris, frame.copy())[1])
    assert set(held_out["species"].value_counts()) <= {12, 13}  # a quarter of 50; equal rows stay together
    assert len(train) + len(held_out) == 150
    assert not held_out.equals(dataset.split(replace(iris, split_seed=1), frame)[1])


def test_held_out_rows_are_not_trained_on_when_the_data_grows(frame: pd.DataFrame) -> None:
    shuffled = frame.sample(frac=1, random_state=3)
    _, before = dataset.split(iris, shuffled.head(120))
    train, _ = dataset.split(iris, shuffled)
    moved = before.merge(train.drop_duplicates(), how="inner")
    assert len(moved) <= len(before) * 0.2
    assert train.merge(dataset.split(iris, shuffled)[1], how="inner").empty  # no row is on both sides


def test_the_fingerprint_knows_values_types_and_names(frame: pd.DataFrame) -> None:
    same = dataset.fingerprint(frame)
    assert dataset.fingerprint(frame.copy()) == same
    assert dataset.fingerprint(_with(frame, "sepal_width", 3.3)) != same
    assert dataset.fingerprint(frame.rename(columns={"sepal_width": "w"})) != same
