"""What a training makes of feedback: the true labels that were sent for predictions.

Whoever may send feedback would otherwise say what the model learns, and be the judge of it too. So its rows train and
never grade: the held-out rows, by which the gate goes, are of the model's own data alone. They are a share of what is
trained on at most, no client crowds out the others, and a client who contradicts production in nearly all it sends
stops the training until a person has looked.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import pandas as pd

from app.dates import FIRST, LAST, days_of, is_date
from app.registry.feedback_store import Row
from app.registry.predictor import plain_rows
from app.vocabulary import Label
from flows.dataset import PANDAS, column_kind, nullable_features, row_order
from flows.model import Model

# The newest labels of a client by which it is judged, and how few of them tell nothing.
MAX_JUDGED, MIN_JUDGED = 500, 20
FAR = 3.0  # a regression's value contradicts when it is further off than this many standard deviations of the target


class FeedbackRefused(ValueError):
    """A client's feedback contradicts production so much that a person has to look before it is trained on."""


@dataclass(frozen=True)
class Feedback:
    """The feedback that a training uses, as rows of features and target in the model's own types.

    training: rows to train on; comparison: rows to tell by whether a retraining gained something, which are not
    trained on.
    left_out: reason -> how many rows are not used.
    """

    training: pd.DataFrame
    comparison: pd.DataFrame
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """For the metrics of the run."""
        return {
            "feedback_rows": len(self.training),
            "feedback_rows_to_compare": len(self.comparison),
            "feedback_rows_left_out": sum(self.left_out.values()),
        }


class _Usable(NamedTuple):
    """A row that fits the model. values: in the model's types; predicted: what the version in service answered."""

    client: str
    values: dict[str, Any]
    predicted: Label


def select(
    model: Model,
    training: pd.DataFrame,
    held_out: pd.DataFrame,
    rows: Sequence[Row],
    trusted: bool = False,
    dates: Collection[str] = (),
) -> Feedback:
    """The feedback to train with.

    It is older than the model file: a feature may have been added, a class removed or a type changed since. Values are
    cast where nothing is lost by it (3.0 to 3), features that the model no longer has are dropped, and what still does
    not fit is left out. So is what a held-out row is about.

    Args:
        training, held_out: the model's own data, validated and split.
        rows: as stored, oldest first.
        trusted: whether a person has looked at it, so that it may contradict production.
        dates: the features that are dates, which are days since 1970-01-01 UTC here and in what is stored.

    Raises:
        FeedbackRefused: a client's labels contradict production's answers; it says whose, how often, and what to do.
    """
    left_out: Counter[str] = Counter()
    usable = _usable(model, pd.concat([training, held_out]), held_out, rows, left_out, dates)
    if not trusted:
        _check_agreement(model, training, usable)
    share = model.feedback.max_share
    order = row_order(_frame(training, [row.values for row in usable]), model.split_seed)
    kept_aside = (order < model.holdout * 2.0**64).tolist()
    number = int(len(training) * share / (1 - share))
    to_train = _newest([row for row, aside in zip(usable, kept_aside, strict=True) if not aside], number)
    to_compare = _newest([row for row, aside in zip(usable, kept_aside, strict=True) if aside], len(held_out))
    surplus = len(usable) - len(to_train) - len(to_compare)
    if surplus:
        left_out[f"it is older than what makes up {share:.0%} of the training rows (feedback.max_share)"] = surplus
    return Feedback(
        training=_frame(training, [row.values for row in to_train]),
        comparison=_frame(training, [row.values for row in to_compare]),
        left_out=dict(left_out),
    )


def _newest(rows: list[_Usable], number: int) -> list[_Usable]:
    """The newest rows, a turn for each client: one who sends much takes no place of one who sends little."""
    by_client: defaultdict[str, list[_Usable]] = defaultdict(list)
    for row in reversed(rows):
        by_client[row.client].append(row)
    turns = (row for turn in zip_longest(*by_client.values()) for row in turn if row)
    return [row for row, _ in zip(turns, range(number), strict=False)]


def _check_agreement(model: Model, own: pd.DataFrame, rows: list[_Usable]) -> None:
    spread = float(own[model.target].std()) if model.task == "regression" else 0.0
    total, against = Counter[str](), Counter[str]()
    for row in reversed(rows):
        if total[row.client] == MAX_JUDGED:
            continue
        total[row.client] += 1
        against[row.client] += _contradicts(row.values[model.target], row.predicted, spread)
    limit = model.feedback.max_disagreement
    refused = [
        f"{against[client]} of the last {total[client]} labels of {_named(client)}"
        for client in sorted(total)
        if total[client] >= MIN_JUDGED and against[client] > limit * total[client]
    ]
    if refused:
        raise FeedbackRefused(
            f"{' and '.join(refused)} contradict what {model.name} answered; more than {limit:.0%} "
            "(feedback.max_disagreement of the model file) is for a person to look at. If they are right, train with "
            f"trust_feedback=true (`mlops train {model.name} --feedback --trust-feedback`). If they are wrong, add the "
            f'client to the model file: feedback=FeedbackRules(ignore=("NAME",)), and revoke its key'
        )


def _contradicts(label: Label, predicted: Any, spread: float) -> bool:
    if not spread:
        return bool(label != predicted)
    return isinstance(predicted, int | float) and abs(float(label) - predicted) > FAR * spread


def _named(client: str) -> str:
    return f"the client {client!r}" if client else "clients without a key"


# -- rows in the model's types ---------------------------------------------------------------------------------------


class _DoesNotFit(Exception):
    """Why a row of feedback cannot be trained on."""


def _usable(
    model: Model,
    own: pd.DataFrame,
    held_out: pd.DataFrame,
    rows: Sequence[Row],
    left_out: Counter[str],
    dates: Collection[str],
) -> list[_Usable]:
    """The rows that fit the model, oldest first; counts the others in left_out, by reason."""
    kinds = {str(name): kind for name, dtype in own.dtypes.items() if (kind := column_kind(dtype))}
    kinds |= dict.fromkeys(dates, "datetime")
    classes = set(own[model.target]) if model.task == "classification" else None
    features = [name for name in kinds if name != model.target]
    nullable = nullable_features(model, own)
    grading = set(map(tuple, plain_rows(held_out[features])))
    usable = []
    for row in rows:
        client = row.get("client", "")
        try:
            if client in model.feedback.ignore:
                raise _DoesNotFit(f"the model file ignores {_named(client)}")
            missing = dict.fromkeys(nullable)
            values = _fit(model, kinds, classes, {**missing, **row["features"], model.target: row["label"]}, nullable)
            if tuple(values[name] for name in features) in grading:
                raise _DoesNotFit("its features are those of a held-out row, which grades")
        except _DoesNotFit as reason:
            left_out[str(reason)] += 1
        else:
            usable.append(_Usable(client, values, row["prediction"]))
    return usable


def _fit(
    model: Model,
    kinds: dict[str, str],
    classes: set[Any] | None,
    values: dict[str, Any],
    nullable: Collection[str],
) -> dict[str, Any]:
    """The values that the model wants, in its types; None for missing ones."""
    fitted: dict[str, Any] = {}
    for name, kind in kinds.items():
        if name not in values:
            raise _DoesNotFit(f"it has no {name}")
        if values[name] is None and name in nullable:
            fitted[name] = None
            continue
        fitted[name] = _cast_value(values[name], kind)
        if name == model.target and classes is not None and (fitted[name] is None or fitted[name] not in classes):
            raise _DoesNotFit(f"the label is no class of {name} any more")
        if fitted[name] is None:
            raise _DoesNotFit(f"{name} should be {kind}")
    return fitted


def _cast_value(value: Any, kind: str) -> Any:
    """The value in the type of a signature's name, or None where that would change it."""
    if kind == "string":
        return value if isinstance(value, str) else None
    if kind == "datetime":
        return _cast_date(value)
    if kind == "boolean" or isinstance(value, bool):
        return value if kind == "boolean" and isinstance(value, bool) else None
    if not isinstance(value, int | float):
        return None
    if kind == "double":
        return float(value) if abs(value) <= sys.float_info.max else None
    return int(value) if abs(value) < 2**63 and value == int(value) else None


def _cast_date(value: Any) -> float | None:
    """A date as it is stored, in days, or as text, where the feature was text then."""
    if isinstance(value, str):
        return days_of(value) if is_date(value) else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and FIRST <= value <= LAST else None


def _frame(like: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows with the columns of another frame, in its types."""
    # a column at a time: pandas would guess a type from the values, and take text for a category's codes
    return pd.DataFrame(
        {
            name: pd.Series([row[str(name)] for row in rows], dtype=PANDAS[column_kind(dtype)])
            for name, dtype in like.dtypes.items()
        }
    )
