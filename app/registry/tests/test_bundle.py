import io
import json
import random
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.neighbors import RadiusNeighborsClassifier
from sklearn.preprocessing import FunctionTransformer

from app.clients.mlflow import MlflowClient
from app.registry import bundle
from app.registry.bundle import (
    HELD_OUT,
    BundleError,
    fetch_bundle,
    file_sha256,
    read_bundle,
    read_gate_file,
    verify_sums,
    write_sums,
)
from app.registry.predictor import SkopsPredictor, load_predictor
from app.registry.skops_file import SkopsFileError

FLIPS = 300


def test_a_bundle_says_what_the_model_is(iris_bundle: Path) -> None:
    iris = read_bundle(iris_bundle)
    assert [(f.name, f.dtype) for f in iris.features] == [
        (name, "double") for name in ("sepal_length", "sepal_width", "petal_length", "petal_width")
    ]
    assert iris.classes == ("setosa", "versicolor", "virginica")
    assert iris.serving == "onnx"
    assert set(iris.reference.features) == set(iris.example)


def test_a_bundle_from_before_the_gate_asked_for_rows_in_the_shadow_is_read(bundle_copy: Path) -> None:
    path = bundle_copy / "MLmodel"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "min_shadow_rows" not in line and "max_disagreement" not in line))
    assert len(path.read_text().splitlines()) == len(lines) - 2
    write_sums(bundle_copy)
    gate = read_bundle(bundle_copy).gate
    assert (gate.min_shadow_rows, gate.max_disagreement) == (0, 1.0)


def test_what_is_served_is_what_the_estimator_says(iris_bundle: Path, iris_fitted: Any, iris_rows: Any) -> None:
    rows = iris_rows[1].drop(columns="species")
    served = load_predictor(read_bundle(iris_bundle)).predict(rows.to_numpy().tolist())
    assert served.labels == iris_fitted.predict(rows).tolist()
    np.testing.assert_allclose(np.asarray(served.probabilities), iris_fitted.predict_proba(rows), atol=1e-5)


def test_every_flipped_byte_is_refused(iris_bundle: Path, bundle_copy: Path) -> None:
    """One bit anywhere in any file, the sums themselves included."""
    expected = verify_sums(iris_bundle)
    files = sorted(path for path in bundle_copy.rglob("*") if path.is_file())
    dice, refused = random.Random(1), 0  # noqa: S311
    for i in range(FLIPS):
        path = files[i % len(files)]
        whole = path.read_bytes()
        position = dice.randrange(len(whole))
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << dice.randrange(8)]) + whole[position + 1 :])
        with pytest.raises(BundleError):
            read_bundle(bundle_copy, expected)
        refused += 1
        path.write_bytes(whole)
    assert refused == FLIPS
    assert read_bundle(bundle_copy, expected)


def test_a_missing_a_foreign_and_a_truncated_file_are_named(bundle_copy: Path) -> None:
    (bundle_copy / "extra.bin").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"extra\.bin is not listed"):
        read_bundle(bundle_copy)
    (bundle_copy / "extra.bin").unlink()
    model = bundle_copy / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match=r"model\.onnx was altered"):
        read_bundle(bundle_copy)
    model.unlink()
    with pytest.raises(BundleError, match=r"model\.onnx is missing"):
        read_bundle(bundle_copy)
    (bundle_copy / "SHA256SUMS").unlink()
    with pytest.raises(BundleError, match="SHA256SUMS is missing"):
        read_bundle(bundle_copy)


def test_a_model_that_answers_golden_rows_differently_is_refused(bundle_copy: Path) -> None:
    golden = json.loads((bundle_copy / "golden.json").read_text())
    golden["outputs"][3] = "virginica" if golden["outputs"][3] == "setosa" else "setosa"
    (bundle_copy / "golden.json").write_text(json.dumps(golden))
    write_sums(bundle_copy)
    with pytest.raises(BundleError, match="golden rows are answered differently: row 3"):
        load_predictor(read_bundle(bundle_copy))


def test_a_date_that_is_no_feature_is_named_and_versions_from_before_have_none(bundle_copy: Path) -> None:
    mlmodel = yaml.safe_load((bundle_copy / "MLmodel").read_text())
    del mlmodel["metadata"]["dates"]
    (bundle_copy / "MLmodel").write_text(yaml.safe_dump(mlmodel))
    write_sums(bundle_copy)
    assert {feature.dtype for feature in read_bundle(bundle_copy).features} == {"double"}
    for dates, message in ((["born"], "the date 'born' is no double of the signature"), ("petal_width", "MLmodel")):
        mlmodel["metadata"]["dates"] = dates
        (bundle_copy / "MLmodel").write_text(yaml.safe_dump(mlmodel))
        write_sums(bundle_copy)
        with pytest.raises(BundleError, match=message):
            read_bundle(bundle_copy)


@pytest.mark.parametrize("content", [b"", b"not onnx"])
def test_a_model_file_that_is_none_is_refused(bundle_copy: Path, content: bytes) -> None:
    (bundle_copy / "model.onnx").write_bytes(content)
    write_sums(bundle_copy)
    with pytest.raises(BundleError, match=r"model\.onnx is refused"):
        load_predictor(read_bundle(bundle_copy))


def test_mlflow_itself_loads_the_version(registry: MlflowClient, new_version: Any, iris_rows: Any) -> None:
    version = new_version()
    mlflow.set_tracking_uri(registry.uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.version}")
    rows = iris_rows[1].drop(columns="species")
    assert list(loaded.predict(rows)["label"])[:1] == [iris_rows[1]["species"].iloc[0]]


def test_what_onnx_cannot_express_is_served_by_skops(registry: MlflowClient, new_version: Any, tmp_path: Path) -> None:
    version = new_version(RadiusNeighborsClassifier(2.0))
    boosting = fetch_bundle(registry, version, tmp_path)
    assert boosting.serving == "skops"
    assert boosting.serving_reason
    assert version.tags["serving"] == "skops"
    predictor = load_predictor(boosting)
    assert isinstance(predictor, SkopsPredictor)
    assert predictor.predict(boosting.golden.rows).labels == boosting.golden.outputs


def test_skops_files_with_code_from_elsewhere_are_refused(tmp_path: Path) -> None:
    from skops import io

    io.dump(FunctionTransformer(json.dumps), tmp_path / "estimator.skops")
    with pytest.raises(SkopsFileError, match=r"function json\.dumps.*Use a transformer of scikit-learn"):
        SkopsPredictor(tmp_path / "estimator.skops", [])


def test_a_damaged_cache_is_downloaded_again(registry: MlflowClient, new_version: Any, tmp_path: Path) -> None:
    version = new_version()
    first = fetch_bundle(registry, version, tmp_path / "c")
    (first.path / "model.onnx").write_bytes(b"half")
    again = fetch_bundle(registry, version, tmp_path / "c")
    assert load_predictor(again)


def test_a_bundle_is_hashed_while_it_is_downloaded(
    registry: MlflowClient, new_version: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = new_version()
    hashed: list[Path] = []

    def noted(path: Path) -> str:
        hashed.append(path)
        return file_sha256(path)

    monkeypatch.setattr(bundle, "file_sha256", noted)
    fetch_bundle(registry, version, tmp_path)
    assert not hashed
    fetch_bundle(registry, version, tmp_path)
    assert len(hashed) == len(bundle.FILES - bundle.GATE_ONLY), "a bundle from the cache is read and hashed"


def test_altered_files_in_mlflow_never_reach_the_cache(
    registry: MlflowClient, new_version: Any, tmp_path: Path
) -> None:
    version = new_version()
    registry.write_artifact(f"{registry.bundle_path(version)}/reference.json", b"{}")
    with pytest.raises(BundleError, match=r"reference\.json was altered"):
        fetch_bundle(registry, version, tmp_path / "c")
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file()]


def test_held_out_rows_are_under_the_checksum_and_are_not_downloaded_to_serve(
    registry: MlflowClient, new_version: Any, iris_rows: Any, tmp_path: Path
) -> None:
    version = new_version()
    bundle = fetch_bundle(registry, version, tmp_path)
    assert HELD_OUT not in [path.name for path in bundle.path.iterdir()]
    whole = read_gate_file(registry, version, bundle, HELD_OUT)
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(whole)), iris_rows[1])
    registry.write_artifact(f"{registry.bundle_path(version)}/{HELD_OUT}", whole + b" ")
    with pytest.raises(BundleError, match=r"held_out\.parquet of version 1 was altered"):
        read_gate_file(registry, version, bundle, HELD_OUT)
