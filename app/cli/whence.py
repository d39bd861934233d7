"""`mlops whence`: what is printed of where a prediction came from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from app.registry.whence import Whence


def described(source: Whence) -> Iterator[tuple[str, str]]:
    """What is known, as pairs of a label and a text; what is not known is left out."""
    yield "predicted", f"{_moment(source.time)} by {source.model} version {source.version}, replica {source.replica}"
    if source.promotion:
        decision = source.promotion
        reason = f": {decision.why}" if decision.why else ""
        yield "in service", f"since {_moment(decision.time)}, by {decision.who or 'somebody'}{reason}"
    else:
        yield "in service", "by a decision that the ledger does not have: `mlops history` has all it knows"
    yield "trained", f"{_moment(source.registered)}, MLflow's run {source.run_id}"
    yield from (
        (label, text)
        for label, text in (
            ("because of", source.cause),
            ("flow run", source.flow_run_id),
            ("model file", source.models_commit and f"commit {source.models_commit} of {source.models_repository}"),
            ("data", source.dataset_sha256 and f"sha256 {source.dataset_sha256}"),
            ("code", source.git_sha and f"commit {source.git_sha}"),
            ("image", source.image),
            ("served by", source.serving),
        )
        if text
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
