"""What was measured: as a table, as JSON and as a chart."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import Load
from bench.machine import as_text
from bench.serving import CASES, Case, Plan, Result, Round
from bench.targets import OURS

QUIET = 0.1  # share of the cores that others may use
CHARTED = (Case(1, 16), Case(100, 16))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; its first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


# -- figures ---------------------------------------------------------------------------------------------------------


def medians(result: Result) -> Round:
    """The median over a result's rounds of each figure; what failed is the sum."""
    rounds = result.rounds
    at_rate = [measured.at_rate for measured in rounds if measured.at_rate]
    return Round(
        start=median(measured.start for measured in rounds),
        memory=median(measured.memory for measured in rounds),
        loads={case: _median([measured.loads[case] for measured in rounds]) for case in CASES},
        at_rate=_median(at_rate) if at_rate else None,
        others=median(measured.others for measured in rounds),
    )


def _median(loads: Sequence[Load]) -> Load:
    figures: tuple[Callable[[Load], float], ...] = (
        lambda load: load.rate,
        lambda load: load.p50,
        lambda load: load.p99,
    )
    rate, p50, p99 = (median(map(figure, loads)) for figure in figures)
    return Load(rate, p50, p99, sum(load.failed for load in loads))


def noise(results: Sequence[Result]) -> str:
    """That others used the cores, where they did; else ""."""
    shares = [measured.others for result in results for measured in result.rounds]
    if not shares or median(shares) <= QUIET:
        return ""
    return (
        f"Others used {median(shares):.0%} of the cores, up to {max(shares):.0%}: these figures are not to be quoted."
    )


def ratios(results: Sequence[Result]) -> dict[str, dict[Case, float]]:
    """By server and case: how many times as many requests the API answers, by the medians; {} without the API."""
    measured = {result.target.name: medians(result) for result in results if result.rounds}
    if OURS not in measured:
        return {}
    ours = measured[OURS].loads
    return {name: {case: ours[case].rate / of.loads[case].rate for case in CASES} for name, of in measured.items()}


# -- the table -------------------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """One row per server: for each case requests per second, the API's ratio to them, p50 and p99; memory and start."""
    head = ["server", *map(str, CASES), "p99 at 1,000/s", "memory", "start"]
    to_each = ratios(results)
    rows = []
    for result in results:
        label = _with_versions(f"**{result.target.label}**", result.target.versions())
        if not result.rounds:
            rows.append([label, f"not measured: {result.reason}".replace("|", "\\|"), *[""] * (len(head) - 2)])
            continue
        figures = medians(result)
        ratio = to_each.get(result.target.name, {})
        rows.append(
            [
                label,
                *(
                    _cell(figures.loads[case], None if result.target.name == OURS else ratio.get(case))
                    for case in CASES
                ),
                f"{figures.at_rate.p99:.2f} ms{_failures(figures.at_rate)}" if figures.at_rate else "",
                f"{figures.memory:,.0f} MB",
                f"{figures.start:.2f} s",
            ]
        )
    return markdown([head, *rows])


LEGEND = (
    "A cell: requests/s, (how many times as many the API's POST /predict answers), p50 / p99. "
    "Start: to the first prediction, the API's from its cache. Memory: RSS of all processes after the load."
)


def _cell(load: Load, ratio: float | None) -> str:
    times = f" ({_ratio(ratio)})" if ratio is not None else ""
    return f"{_rate(load.rate)}/s{times}, {_ms(load.p50)} / {_ms(load.p99)} ms{_failures(load)}"


def _failures(load: Load) -> str:
    return f", {load.failed:,} FAILED" if load.failed else ""


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def _ms(milliseconds: float) -> str:
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 1 else 2
    return f"{milliseconds:.{digits}f}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"


def _with_versions(label: str, versions: str) -> str:
    return f"{label} ({versions})" if versions else label


# -- the README's table ----------------------------------------------------------------------------------------------

BEGIN, END = "<!-- by make bench -->", "<!-- end -->"


def summary(written: dict[str, Any]) -> str:
    """A short table of what `as_json` gave, fastest first, and the machine. Of the API it has POST /predict alone."""
    one, hundred = map(str, CHARTED)
    measured = {
        name: server
        for name, server in written["servers"].items()
        if server["median"] and not name.startswith(f"{OURS}-")
    }
    rows = []
    for name, server in sorted(measured.items(), key=lambda item: -item[1]["median"]["loads"][one]["rate"]):
        figures, times = server["median"], server["api is faster by"]
        mark = "**" if name == OURS else ""
        row = [_with_versions(server["label"], server["versions"].partition(",")[0])]
        for case in (one, hundred):
            row += [f"{_rate(figures['loads'][case]['rate'])}/s", "" if mark or not times else _ratio(times[case])]
        row += [f"{_ms(figures['loads'][one]['p99'])} ms", f"{figures['memory']:,.0f} MB", f"{figures['start']:.1f} s"]
        rows.append([f"{mark}{cell}{mark}" if cell else "" for cell in row])
    head = ["", "1 row", "API", "100 rows", "API", "p99, 1 row", "memory", "start"]
    return f"{markdown([head, *rows])}\n\n{as_text(written['machine'])}"


def quote(page: Path, written: dict[str, Any]) -> None:
    """Put the summary between the two marks of a page of Markdown. Raises ValueError where it has none."""
    text = page.read_text()
    begin = text.index(BEGIN) + len(BEGIN)
    end = text.index(END, begin)
    page.write_text(f"{text[:begin]}\n\n{summary(written)}\n\n{text[end:]}")


# -- JSON ------------------------------------------------------------------------------------------------------------


def as_json(results: Sequence[Result], plan: Plan, machine: dict[str, str]) -> dict[str, Any]:
    """Everything: the medians, and each round.

    Rates are in requests/s, latencies in ms, memory in MB, start in s; others is the share of the cores that
    others used just before a round.
    """
    to_each = ratios(results)
    return {
        "machine": machine,
        "plan": asdict(plan),
        "servers": {
            result.target.name: {
                "label": result.target.label,
                "versions": result.target.versions(),
                "reason": result.reason,
                "median": _round(medians(result)) if result.rounds else None,
                "api is faster by": {str(case): round(x, 3) for case, x in to_each.get(result.target.name, {}).items()},
                "rounds": [_round(measured) for measured in result.rounds],
            }
            for result in results
        },
    }


def _round(measured: Round) -> dict[str, Any]:
    return {
        "start": round(measured.start, 3),
        "memory": round(measured.memory, 1),
        "loads": {str(case): _load(load) for case, load in measured.loads.items()},
        "others": round(measured.others, 3),
        "at 1,000/s": _load(measured.at_rate) if measured.at_rate else None,
    }


def _load(load: Load) -> dict[str, float]:
    return {"rate": round(load.rate, 1), "p50": round(load.p50, 3), "p99": round(load.p99, 3), "failed": load.failed}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write it, into a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


# -- the chart -------------------------------------------------------------------------------------------------------


def chart(results: Sequence[Result], machine: dict[str, str], path: Path) -> None:
    """Draw the requests per second of two cases, on logarithmic axes, as a PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    measured = sorted(
        ((result.target, medians(result)) for result in results if result.rounds),
        key=lambda pair: pair[1].loads[CHARTED[0]].rate,
    )
    labels = [target.label for target, _ in measured]
    colours = ["#2f6fde" if target.name.startswith(OURS) else "#b5bcc8" for target, _ in measured]
    figure, axes = plt.subplots(1, len(CHARTED), figsize=(12, 0.42 * len(measured) + 1.5), sharey=True)
    for axis, case in zip(axes, CHARTED, strict=True):
        rates = [figures.loads[case].rate for _, figures in measured]
        bars = axis.barh(labels, rates, color=colours)
        axis.bar_label(bars, [_rate(rate) for rate in rates], padding=4, fontsize=9)
        axis.set_xscale("log")
        axis.set_xlim(min(rates) / 3, max(rates) * 4)
        axis.set_title(str(case), fontsize=11)
        axis.set_xlabel("requests/s on one core, logarithmic")
        axis.spines[["top", "right"]].set_visible(False)
    figure.text(0.01, 0.01, f"{machine['processor']}, {machine['date']}", fontsize=8, color="#667080")
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
