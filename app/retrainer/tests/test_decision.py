"""The rules, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.retrainer.decision import Policy, Retraining, decide, idempotency_key

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
POLICY = Policy(cooldown=3600, cooldown_max=86400, daily_cap=4)


def ago(hours: float, result: str = "promoted", run_id: str = "run") -> Retraining:
    """A retraining that took a minute and ended so long ago."""
    ended = NOW - timedelta(hours=hours)
    return Retraining(run_id, ended - timedelta(minutes=1), ended, result)


def test_the_first_alert_starts_a_retraining() -> None:
    verdict = decide(NOW, POLICY, "", [])
    assert (verdict.outcome, verdict.next, verdict.cooldown) == ("started", "", 0)


def test_one_training_at_a_time_whoever_started_it() -> None:
    verdict = decide(NOW, POLICY, "flow run nightly is running", [])
    assert verdict.outcome == "running"
    assert "flow run nightly is running" in verdict.reason
    unended = Retraining("r7", NOW, None, "running")
    assert decide(NOW, POLICY, "", [unended, ago(30)]).outcome == "running"


def test_a_cooldown_follows_a_retraining_and_says_when_it_is_over() -> None:
    verdict = decide(NOW, POLICY, "", [ago(0.5)])
    assert (verdict.outcome, verdict.next) == ("cooldown", "2026-01-02T12:30:00Z")
    assert "ended 2026-01-02T11:30:00Z as promoted" in verdict.reason
    assert decide(NOW, POLICY, "", [ago(1)]).outcome == "started"


@pytest.mark.parametrize(
    ("results", "hours"),
    [
        (["promoted"], 1),
        (["refused"], 2),
        (["refused", "crashed"], 4),
        (["refused", "refused", "failed"], 8),
        (["refused", "promoted", "refused"], 2),
        (["promoted", "refused", "refused"], 1),
        (["no decision"], 2),
        (["refused"] * 9, 24),
        (["refused"] * 100, 24),
    ],
)
def test_the_cooldown_doubles_with_each_fruitless_one_in_a_row_up_to_its_maximum(
    results: list[str], hours: float
) -> None:
    def past(last: float) -> list[Retraining]:
        return [ago(last + 30 * i, result) for i, result in enumerate(results)]

    verdict = decide(NOW, POLICY, "", past(hours - 0.1))
    assert (verdict.outcome, verdict.cooldown) == ("cooldown", hours * 3600)
    assert decide(NOW, POLICY, "", past(hours)).outcome == "started"


def test_the_daily_cap_holds_until_the_oldest_that_counts_is_a_day_old() -> None:
    past = [ago(hours) for hours in (2, 8, 14, 20, 26)]
    verdict = decide(NOW, POLICY, "", past)
    assert verdict.outcome == "capped"
    assert "4 retrainings in 24 hours, the cap is 4" in verdict.reason
    assert verdict.next == "2026-01-02T15:59:00Z"  # 20 h and a minute ago, and a day
    assert decide(NOW + timedelta(hours=4), POLICY, "", past).outcome == "started"


def test_a_dry_run_starts_nothing_and_other_reasons_go_first() -> None:
    dry = Policy(3600, 86400, 4, dry_run=True)
    assert decide(NOW, dry, "", []).outcome == "dry_run"
    assert decide(NOW, dry, "", [ago(0.5)]).outcome == "cooldown"


def test_the_key_is_that_of_the_last_retraining() -> None:
    assert idempotency_key("iris", []) == "retrain-iris-after-none"
    assert idempotency_key("iris", [ago(1, run_id="b"), ago(9, run_id="a")]) == "retrain-iris-after-b"
    assert idempotency_key("iris", []) != idempotency_key(
        "diabetes", []
    )  # Prefect's keys are those of a flow, which all models share
