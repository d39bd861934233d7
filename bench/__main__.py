"""`make bench`: the figures of the README, measured here.

By default the API beside other servers (bench/targets.py): twenty minutes on two quiet cores. Results are written into
bench/results, and the README's table is made of them; those of --quick and --only, which are not to be quoted, into
.mlops/bench/results.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench import demo, goals, ingress, machine, platform, report, scaling, serving, swap, wrk, zoo
from bench.models import iris, mlflow_in
from bench.targets import ENVIRONMENTS, TARGETS, Target

RESULTS = Path(__file__).parent / "results"
SWAPS, SWAPS_QUICK = 20, 2


def main() -> None:
    """Measure what the options name, and print it."""
    options = _options()
    results = ENVIRONMENTS / "results" if options.quick or options.only else RESULTS
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        figures: list[tuple[str, str, str]] = []

        def add(what: str, figure: str, goal: str) -> None:
            figures.append((what, figure, goal))
            _tell(f"{what}: {figure}")

        if options.demo:
            demo.measure(add, folder)
        if options.platform:
            platform.measure(add, folder, options.fresh)
        if figures:
            print(report.markdown([("what", "measured", "goal"), *figures]))
        if options.zoo:
            _zoo(results)
        elif options.ingress:
            _ingress(results)
        elif options.scaling or options.swap or not figures:
            _servers(options, folder, results)


def _servers(options: argparse.Namespace, folder: Path, results: Path) -> None:
    """Measure servers, or how the API's rate changes."""
    wrk.check_installed()
    machine.check_cores()
    os.environ["MLOPS_CACHE_DIR"] = str(folder / "gate")
    # `mlflow models serve` looks for uvicorn on the PATH
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    with mlflow_in(folder):
        _tell("training")
        model = iris(folder)
        os.sched_setaffinity(0, {machine.CLIENT_CORE})
        description = machine.describe()
        if options.swap:
            swaps = swap.measure(model, SWAPS_QUICK if options.quick else SWAPS, folder, _tell)
            print(swaps.table())
            report.write_json(results / "swap.json", swap.as_json(swaps, description))
        elif options.scaling:
            sizes = scaling.QUICK if options.quick else scaling.Sizes()
            curves = scaling.measure(model, sizes, folder, _tell)
            print(scaling.table(curves))
            report.write_json(results / "scaling.json", scaling.as_json(curves, description))
        else:
            plan = serving.QUICK if options.quick else serving.Plan()
            measured = serving.measure(options.only or TARGETS, model, plan, folder, _tell)
            text = [report.table(measured), report.LEGEND]
            if reached := goals.goals(measured):
                text.append(report.markdown([goals.HEAD, *(goal.row() for goal in reached)]))
            if noise := report.noise(measured):
                text.append(noise)
            text.append(machine.as_text(description))
            print("\n\n".join(text))
            written = report.as_json(measured, plan, description)
            report.write_json(results / "serving.json", written)
            (results / "serving.md").write_text("\n\n".join(["# The API beside other servers", *text]) + "\n")
            report.chart(measured, description, results / "serving.png")
            if results == RESULTS:
                report.quote(machine.ROOT / "README.md", written)


def _zoo(results: Path) -> None:
    """Try every estimator."""
    measured = zoo.measure(zoo.pipelines(), _tell)
    description = machine.describe()
    text = zoo.as_markdown(measured, description)
    print(text)
    report.write_json(results / "zoo.json", zoo.as_json(measured, description))
    (results / "zoo.md").write_text(text + "\n")


def _ingress(results: Path) -> None:
    """Measure the API of the cluster."""
    wrk.check_installed()
    comparisons = ingress.measure(_tell)
    print(ingress.table(comparisons))
    report.write_json(results / "ingress.json", ingress.as_json(comparisons, machine.describe()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short measurements, to see that everything runs")
    parser.add_argument("--only", type=_targets, metavar="NAME,NAME", help="these servers: " + ", ".join(_by_name()))
    parser.add_argument("--scaling", action="store_true", help="instead: the API against rows, features, trees, ...")
    parser.add_argument("--swap", action="store_true", help="instead: the API while it changes to another version")
    parser.add_argument("--zoo", action="store_true", help="instead: every estimator, and what serves it")
    parser.add_argument(
        "--ingress", action="store_true", help="instead: the API of `make up` with and without its ingress"
    )
    parser.add_argument("--demo", action="store_true", help="instead: time `make demo` on a fresh clone")
    parser.add_argument("--platform", action="store_true", help="instead: measure the platform of `make up`")
    parser.add_argument(
        "--fresh", action="store_true", help="with --platform: take it down first, with all of its data"
    )
    return parser.parse_args()


def _targets(names: str) -> list[Target]:
    unknown = set(names.split(",")) - set(_by_name())
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is not one of {', '.join(_by_name())}")
    return [_by_name()[name] for name in names.split(",")]


def _by_name() -> dict[str, Target]:
    return {target.name: target for target in TARGETS}


def _tell(what: str) -> None:
    sys.stderr.write(f"  {what}\n")


if __name__ == "__main__":
    main()
