"""`mlops new`: writes a model file for a table: its task, its types, a Pipeline that fits them, and a gate."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from pandas.api.types import is_bool_dtype, is_float_dtype, is_integer_dtype, is_numeric_dtype

from app.cli.errors import CommandError
from app.vocabulary import Task
from flows import dataset, sources
from flows.catalog import MODELS, NAME, load_model, model_names
from flows.date_columns import holds_dates
from flows.model import ModelFileError
from flows.trial import trial

MAX_CLASSES = 20  # whole numbers with more values are a quantity
MAX_CATEGORIES = 100  # of a column of text; with more it is text or a name
WORDS = 3  # on average, from which on a column is text
MARGIN = 0.05  # how much worse than now a version may be at first: of accuracy, or of the error as a share
KINDS = ("numbers", "categories", "texts")  # of features
LINE = 100  # characters of a list of names
UNNAMED = "Unnamed: "  # pandas' name of the column of its index


@dataclass
class Table:
    """The columns of a table by what they are.

    numbers, categories, texts: the features; lacking: those of them that lack values.
    flags: true or false, of which some are missing: they are made fractions.
    dates: those of the numbers that are dates in the table.
    left_out: columns that tell nothing, with the reason.
    """

    target: str
    task: Task
    numbers: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)
    flags: list[str] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def folder_of_new_models() -> Path:
    """Where a new model file belongs: the first folder of MLOPS_MODELS_PATH, else flows/models."""
    first = os.environ.get("MLOPS_MODELS_PATH", "").split(os.pathsep)[0]
    return Path(first) if first else MODELS


def new_model(name: str, csv: str, target: str, folder: Path) -> Iterator[str]:
    """Write the file `name`.py for a CSV, fit the model once, and set its gate by how good it is.

    Args:
        csv: a source, as `flows.sources.read` takes it; a CSV has a header line.
        target: the column to predict.
        folder: where the file goes.

    Yields:
        what was found, a line each.

    Raises:
        CommandError: the name is taken or no name, the CSV cannot be read, or nothing can be learned of it.
    """
    path = folder / f"{name}.py"
    if not NAME.fullmatch(name):
        raise CommandError(f"{name!r} is no name of a model", "take small letters, digits, - and _, a letter first")
    if path.exists():
        raise CommandError(f"{path} is there already", "take another name, or remove it")
    if name in model_names():  # in another folder, which may be looked at first
        raise CommandError(f"there is a model {name} already", "take another name")
    try:
        frame = sources.read(csv)
    except (sources.DatasetError, sources.SourceUnavailable) as error:
        raise CommandError(str(error)) from error
    table = examine(frame, target)
    yield f"{len(frame)} rows, a {table.task} of {target}"
    for kind in KINDS:
        if names := getattr(table, kind):
            yield f"{kind}: {', '.join(f'{one} (some are missing)' if one in table.lacking else one for one in names)}"
    if table.dates:
        yield f"dates, which count as numbers: {', '.join(table.dates)}"
    for column, reason in table.left_out.items():
        yield f"left out: {column}, {reason}"
    folder.mkdir(parents=True, exist_ok=True)
    source = csv if "://" in csv else os.path.relpath(Path(csv).resolve(), folder.resolve())
    try:
        path.write_text(text_of(table, source, 0.0 if table.task == "classification" else math.inf))
        tried = trial(name)
        threshold = _threshold(table.task, tried.value)
        path.write_text(text_of(table, source, threshold))
        load_model(name)
    except (dataset.DatasetError, ModelFileError, ValueError) as error:
        path.unlink(missing_ok=True)
        raise CommandError(f"nothing can be learned of {csv}: {error}") from error
    yield (
        f"{tried.metric} on held-out rows: {tried.value:.4g}, and {tried.baseline:.4g} without any feature; "
        f"the gate: {threshold:g}"
    )
    yield f"wrote {path}; next: mlops train {name}"


def examine(frame: pd.DataFrame, target: str) -> Table:
    """What the columns of a table are.

    Raises:
        CommandError: there is no such target, or no column to predict it from.
    """
    if target not in frame.columns:
        raise CommandError(f"there is no column {target!r}", f"the columns are: {', '.join(map(str, frame.columns))}")
    if frame[target].isna().any():
        raise CommandError(f"{frame[target].isna().sum()} rows have no {target}", "remove them from the file")
    values = frame[target]
    if holds_dates(values):
        raise CommandError(
            f"the target {target!r} is a date, which cannot be predicted",
            "add a column with a number to the file, such as the days until it, and leave the date out",
        )
    is_quantity = is_float_dtype(values.dtype) or (
        is_integer_dtype(values.dtype) and values.nunique() > min(MAX_CLASSES, len(values) // 10)
    )
    table = Table(target, "regression" if is_quantity else "classification")
    for name in map(str, frame.columns.drop(target)):
        _place(table, name, frame[name])
    if not (table.numbers or table.categories or table.texts):
        raise CommandError("no column is left to predict from", "the file needs columns besides the target")
    return table


def _place(table: Table, name: str, column: pd.Series) -> None:
    """Put a column where it belongs."""
    there = column.dropna()
    distinct = there.nunique()
    if name.startswith(UNNAMED) or (is_integer_dtype(column.dtype) and distinct == len(column) and _counts(column)):
        table.left_out[name] = "which counts the rows"
    elif distinct < 2:
        table.left_out[name] = "which has a single value" if distinct else "which has none"
    elif holds_dates(column):
        table.numbers.append(name)
        table.dates.append(name)
    elif is_numeric_dtype(column.dtype) and not is_bool_dtype(column.dtype):
        table.numbers.append(name)
    elif is_bool_dtype(column.dtype) or there.map(lambda value: isinstance(value, bool)).all():
        table.numbers.append(name)
        if len(there) < len(column):
            table.flags.append(name)
    elif there.map(lambda value: len(str(value).split())).mean() >= WORDS:
        table.texts.append(name)
    elif distinct <= MAX_CATEGORIES and distinct < len(column) / 2:
        table.categories.append(name)
    else:
        table.left_out[name] = f"which has {distinct} different values: a name, not a category"
    if name not in table.left_out and name not in table.texts and len(there) < len(column):
        table.lacking.add(name)


def _counts(column: pd.Series) -> bool:
    """Whether whole numbers follow one another, as those of rows do."""
    return bool((column.diff().dropna() == 1).all())


def _metric(task: Task) -> str:
    return "accuracy" if task == "classification" else "rmse"


def _threshold(task: Task, score: float) -> float:
    """What a version must reach: a little worse than now, in two or three digits."""
    if task == "classification":
        return max(0.0, math.floor((score - MARGIN) * 100) / 100)
    return float(f"{score * (1 + MARGIN) or 1e-9:.3g}")


# -- the file --------------------------------------------------------------------------------------------------------


def text_of(table: Table, source: str, threshold: float) -> str:
    """The model file of a table. source: a URL, or the CSV's path as seen from the file's folder."""
    body = "\n\n\n".join([_imports(table, source), _load(table, source), _estimator(table), _model(table, threshold)])
    return f'"""{table.target}, from {_what(table)}."""\n\n{body}\n'


def _what(table: Table) -> str:
    counts = [
        (len(getattr(table, kind)), kind, one) for kind, one in zip(KINDS, ("number", "category", "text"), strict=True)
    ]
    return " and ".join(f"{count} {kind if count > 1 else one}" for count, kind, one in counts if count)


def _imports(table: Table, source: str) -> str:
    lines = ["import pandas as pd", "from sklearn.compose import ColumnTransformer"]
    last = "Classifier" if table.task == "classification" else "Regressor"
    if not table.texts:
        lines.append(f"from sklearn.ensemble import RandomForest{last}")
    else:
        lines.append("from sklearn.feature_extraction.text import TfidfVectorizer")
    if set(table.lacking) & {*table.numbers, *table.categories}:
        lines.append("from sklearn.impute import SimpleImputer")
    if table.texts:
        lines.append(f"from sklearn.linear_model import {'LogisticRegression' if last == 'Classifier' else 'Ridge'}")
    lines.append("from sklearn.pipeline import make_pipeline")
    steps = [
        name for name, is_used in (("OneHotEncoder", table.categories), ("StandardScaler", _scaled(table))) if is_used
    ]
    if steps:
        lines.append(f"from sklearn.preprocessing import {', '.join(steps)}")
    lines += ["", *(["from flows import sources"] if _reader(source) == "sources.read" else [])]
    lines.append("from flows.model import Gate, Model")
    paths = [] if "://" in source else ["from pathlib import Path", ""]
    constants = [f"DATA = {'' if '://' in source else 'Path(__file__).parent / '}{_quoted(source)}"]
    constants += [f"{kind.upper()} = {_listed(names)}" for kind in KINDS if (names := getattr(table, kind))]
    return "\n".join([*paths, *lines, "", *constants])


def _quoted(text: str) -> str:
    return repr(text) if '"' in text and "'" not in text else json.dumps(text, ensure_ascii=False)


def _listed(names: list[str]) -> str:
    """A list of names, on one line or on one each."""
    quoted = list(map(_quoted, names))
    line = f"[{', '.join(quoted)}]"
    return line if len(line) <= LINE else "[\n" + "".join(f"    {name},\n" for name in quoted) + "]"


def _tuple(names: list[str]) -> str:
    """A tuple of names, on one line."""
    return f"({', '.join(map(_quoted, names))}{',' * (len(names) == 1)})"


def _reader(source: str) -> str:
    """What reads a source in the file: pandas, where it can."""
    if source.startswith("s3:"):
        return "sources.read"
    return "pd.read_csv" if source.split("?", 1)[0].lower().endswith(".csv") else "pd.read_parquet"


def _scaled(table: Table) -> bool:
    """Whether numbers are scaled: for linear models, which texts are learned by."""
    return bool(table.texts and table.numbers)


def _load(table: Table, source: str) -> str:
    columns = ", ".join(f"*{kind.upper()}" for kind in KINDS if getattr(table, kind))
    lines = [
        "def load() -> pd.DataFrame:",
        '    """The rows of the file."""',
        f"    frame = {_reader(source)}(DATA)",
    ]
    for name in map(_quoted, table.flags):
        lines.append(f'    frame[{name}] = frame[{name}].astype("float64")  # some are missing')
    if table.texts:
        lines.append('    frame[TEXTS] = frame[TEXTS].fillna("")')
    return "\n".join([*lines, f"    return frame[[{columns}, {_quoted(table.target)}]]"])


def _estimator(table: Table) -> str:
    parts, made = [], []
    if table.numbers:
        steps = ['SimpleImputer(strategy="median")'] if table.lacking & set(table.numbers) else []
        steps += ["StandardScaler()"] if _scaled(table) else []
        numbers = f"make_pipeline({', '.join(steps)})" if len(steps) > 1 else steps[0] if steps else '"passthrough"'
        parts.append(f'("numbers", {numbers}, NUMBERS)')
    if table.categories:
        encoder = 'OneHotEncoder(handle_unknown="ignore")'
        if table.lacking & set(table.categories):
            made.append(f'    categories = make_pipeline(SimpleImputer(strategy="most_frequent"), {encoder})')
            encoder = "categories"
        parts.append(f'("categories", {encoder}, CATEGORIES)')
    parts += [f"({_quoted(name)}, TfidfVectorizer(), {_quoted(name)})" for name in table.texts]
    is_classifier = table.task == "classification"
    if table.texts:
        last = "LogisticRegression(max_iter=1000, random_state=seed)" if is_classifier else "Ridge(random_state=seed)"
    else:
        last = f"RandomForest{'Classifier' if is_classifier else 'Regressor'}(n_estimators=100, random_state=seed)"
    about = "Categories that are not known yet count as none of those that are." if table.categories else "A Pipeline."
    return "\n".join(
        [
            "def estimator(seed: int):",
            f'    """{about}"""',
            *made,
            "    columns = ColumnTransformer(",
            "        [",
            *(f"            {part}," for part in parts),
            "        ]",
            "    )",
            f"    return make_pipeline(columns, {last})",
        ]
    )


def _model(table: Table, threshold: float) -> str:
    shown = repr(threshold) if math.isfinite(threshold) else 'float("inf")'
    lacking = [name for kind in KINDS for name in getattr(table, kind) if name in table.lacking]
    lines = [
        "model = Model(",
        f'    task="{table.task}",',
        f"    target={_quoted(table.target)},",
        "    load=load,",
        "    estimator=estimator,",
        f'    gate=Gate(metric="{_metric(table.task)}", threshold={shown}),',
        *([f"    dates={_tuple(table.dates)},"] if table.dates else []),
        *([f"    nullable={_tuple(lacking)},"] if lacking else []),
        ")",
    ]
    return "\n".join(lines)
