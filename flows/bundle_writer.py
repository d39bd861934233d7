"""Writes the bundle of a fitted estimator; `app.registry.bundle` says what is in it, and reads it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types.schema import ColSpec, Schema, TensorSpec
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.pipeline import Pipeline

from app.dates import text_of
from app.registry.bundle import FEEDBACK, HELD_OUT, read_bundle, write_sums
from app.registry.predictor import estimator_predictions, load_predictor, plain_rows
from app.registry.reference import categorical_reference, numeric_reference
from app.vocabulary import ColumnReference, Dtype, Feature, Gate, GoldenRows, Reference, Task
from flows.model import Model
from flows.onnx_export import export

GOLDEN_ROWS = 32
PARITY_ROWS = 10_000
REQUIREMENTS = [f"{name}=={version(name)}" for name in ("onnx", "onnxruntime", "numpy", "pandas")]
FOR_SEVERAL_TARGETS = (ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain)


class RegistrationError(Exception):
    """The estimator cannot be served, so it is not registered."""


@dataclass(frozen=True)
class FittedModel:
    """A fitted estimator, and what serving and the gate must know of it.

    features: what it was fitted on, shape (n_rows, n_features): the source of the reference statistics.
    labels: the target of these rows, shape (n_rows,).
    target: the name of the predicted column.
    example: one row of features, shape (1, n_features), shown to users; by default the first of `features`.
    nullable: the features that a row may be without, besides those that lack values in `features`.
    categories: the features that may have no other values than those in `features`.
    dates: the features that are days since 1970-01-01 UTC in `features`, float64, and dates for those who ask.
    """

    estimator: Any
    features: pd.DataFrame
    labels: pd.Series
    task: Task
    target: str
    gate: Gate
    example: pd.DataFrame | None = None
    nullable: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, estimator: Any, rows: pd.DataFrame, example: pd.DataFrame | None = None) -> FittedModel:
        """The estimator as one of this model, fitted on rows that hold the features and the target."""
        features, labels = rows.drop(columns=model.target), rows[model.target]
        about = (model.task, model.target, model.gate, example, model.nullable, model.categories)
        return cls(estimator, features, labels, *about)

    def may_lack(self, feature: str) -> bool:
        """Whether a row may be without a value of the feature."""
        return feature in self.nullable or bool(self.features[feature].isna().any())

    def only_values(self) -> dict[str, list[str]]:
        """For each of `categories`, all values that it may have, sorted."""
        return {name: sorted(map(str, self.features[name].dropna().unique())) for name in self.categories}


def build_bundle(
    folder: Path, fitted: FittedModel, held_out: pd.DataFrame | None = None, feedback: pd.DataFrame | None = None
) -> str:
    """Write the bundle of a fitted estimator into an empty or missing folder, and try it as the API would.

    Args:
        held_out: the rows to measure it on, features and target; without them it can be served, and no gate passes it.
        feedback: rows of feedback that it was not trained on, features and target.

    Returns:
        the sum of SHA256SUMS, hex.

    Raises:
        RegistrationError: the estimator can be served neither through ONNX nor through skops.
    """
    fitted = replace(fitted, estimator=served_estimator(fitted.estimator))
    signature = _signature(fitted)
    features = [
        Feature(item["name"], "datetime" if item["name"] in fitted.dates else item["type"], not item["required"])
        for item in signature.inputs.to_dict()
    ]
    sample = fitted.features.sample(min(PARITY_ROWS, len(fitted.features)), random_state=0)
    compared = pd.concat([sample, *_without_values(fitted, features, sample)], ignore_index=True)
    model, reason = export(fitted.estimator, features, compared, fitted.task)
    _write_model(folder, model, signature, _metadata(fitted, "onnx" if model else "skops", reason))
    from skops import io as skops  # imported here: it looks at all of scikit-learn and scipy, for most of a second

    skops.dump(fitted.estimator, folder / "estimator.skops")

    example = fitted.features.head(1) if fitted.example is None else fitted.example
    golden = pd.concat([example, sample.head(GOLDEN_ROWS - 1)], ignore_index=True)
    _write_json(folder / "reference.json", asdict(_reference(fitted, features)))
    _write_json(folder / "golden.json", asdict(_golden_rows(fitted.estimator, golden)))
    sent = {"columns": list(fitted.features.columns), "data": plain_rows(_as_sent(example, fitted.dates))}
    _write_json(folder / "input_example.json", sent)
    if held_out is not None:
        held_out.to_parquet(folder / HELD_OUT, index=False)
    if feedback is not None and len(feedback):
        feedback.to_parquet(folder / FEEDBACK, index=False)
    digest = write_sums(folder)
    try:
        load_predictor(read_bundle(folder, digest))
    except Exception as error:
        raise RegistrationError(f"the version would not be served: {error}") from error
    return digest


def _as_sent(rows: pd.DataFrame, dates: tuple[str, ...]) -> pd.DataFrame:
    """Rows of features as a client sends them: dates are text."""
    return rows.assign(**{name: rows[name].map(text_of, na_action="ignore") for name in dates})


def _without_values(fitted: FittedModel, features: list[Feature], rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Some of the rows without a value of each feature that may be missing.

    Raises:
        RegistrationError: the estimator does not take such rows.
    """
    for feature in features:
        if not feature.nullable:
            continue
        lacking = rows.head(GOLDEN_ROWS).copy()
        lacking[feature.name] = lacking[feature.name].mask(lacking[feature.name].notna())
        try:
            fitted.estimator.predict(lacking)
        except ValueError as error:
            raise RegistrationError(
                f"a row may be without {feature.name} (nullable), and the estimator does not take it: {error}"
            ) from error
        yield lacking


def served_estimator(estimator: Any) -> Any:
    """What is kept of a fitted estimator: what alone predicts.

    That is of a search the best one that it found, and of estimators for several targets, if there is one target, its
    own.
    """
    if isinstance(estimator, Pipeline):
        last = served_estimator(estimator[-1])
        return estimator if last is estimator[-1] else Pipeline([*estimator.steps[:-1], (estimator.steps[-1][0], last)])
    if hasattr(estimator, "best_estimator_"):
        return served_estimator(estimator.best_estimator_)
    if isinstance(estimator, FOR_SEVERAL_TARGETS) and len(estimator.estimators_) == 1:
        return served_estimator(estimator.estimators_[0])
    return estimator


def _signature(fitted: FittedModel) -> ModelSignature:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whole numbers cannot hold NaN: it is refused anyway
        inferred = infer_signature(fitted.features, np.asarray(fitted.estimator.predict(fitted.features.head(5))))
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(spec.type, spec.name, required=not fitted.may_lack(spec.name)) for spec in inferred.inputs
    ]
    return ModelSignature(Schema(columns), inferred.outputs)


def _metadata(fitted: FittedModel, serving: str, reason: str) -> dict[str, Any]:
    """What the file MLmodel says of the model, beside its signature."""
    return {
        "task": fitted.task,
        "target": fitted.target,
        "classes": np.asarray(fitted.estimator.classes_).tolist() if fitted.task == "classification" else [],
        "serving": serving,
        "serving_reason": reason,
        "categories": fitted.only_values(),
        "dates": list(fitted.dates),
        "gate": asdict(fitted.gate),
    }


def _write_model(
    folder: Path, model: onnx.ModelProto | None, signature: ModelSignature, metadata: dict[str, Any]
) -> None:
    """Write MLmodel, and the ONNX model where there is one."""
    if model is None:
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.models.Model(signature=signature, metadata=metadata).save(folder / "MLmodel")
        return
    mlflow.onnx.save_model(
        model,
        folder,
        signature=signature,
        metadata=metadata,
        onnx_execution_providers=["CPUExecutionProvider"],
        pip_requirements=REQUIREMENTS,  # given, or MLflow starts a Python process to find them out
    )


def _reference(fitted: FittedModel, features: list[Feature]) -> Reference:
    return Reference(
        features={
            feature.name: _column_reference(fitted.features[feature.name], feature.dtype, feature.nullable)
            for feature in features
        },
        prediction=_column_reference(fitted.labels, "string" if fitted.task == "classification" else "double"),
    )


def _column_reference(column: pd.Series, dtype: Dtype, nullable: bool = False) -> ColumnReference:
    if dtype in ("string", "boolean"):
        return categorical_reference(column.to_numpy(), dtype, nullable)
    return numeric_reference(column.to_numpy(), dtype, nullable)


def _golden_rows(estimator: Any, rows: pd.DataFrame) -> GoldenRows:
    predictions = estimator_predictions(estimator, rows)
    return GoldenRows(plain_rows(rows), predictions.labels, predictions.probabilities)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, allow_nan=False))
