"""What the committed dashboards ask Prometheus, for tests: each query as it is sent when a dashboard is opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
# What Grafana fills in; the model variable's "All" is `.+`.
VARIABLES = {"model": ".+", "__rate_interval": "2m", "__range": "3h"}
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{")


class Query(NamedTuple):
    """`dashboard` is a uid; `panel` a title, or the name of an annotation."""

    dashboard: str
    panel: str
    expr: str


def dashboards() -> dict[str, dict[str, Any]]:
    """File name -> dashboard, as committed."""
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Those that show something: all but the rows."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries(namespace: str = "mlops") -> list[Query]:
    """Every query of every panel and annotation. Raises KeyError for a variable that this does not know."""
    values = {**VARIABLES, "namespace": namespace}

    def filled(expression: str) -> str:
        # `$1` is a group of label_replace
        return re.sub(r"\$([a-z_]\w*)", lambda match: values[match[1]], expression)

    return [
        Query(dashboard["uid"], name, filled(expression))
        for dashboard in dashboards().values()
        for name, expression in [
            *((panel["title"], target["expr"]) for panel in panels(dashboard) for target in panel["targets"]),
            *((annotation["name"], annotation["expr"]) for annotation in dashboard["annotations"]["list"]),
        ]
    ]


def metrics(expression: str) -> set[str]:
    """The metrics that a query selects; every selector here has braces."""
    return set(SELECTOR.findall(expression))
