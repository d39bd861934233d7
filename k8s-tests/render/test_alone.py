"""Each chart of charts/ without the platform, as from its folder."""

from __future__ import annotations

import pytest
import yaml
from chart import CHART, KUBERNETES, NAMESPACE, OPERATOR, RELEASE, Loader, helm, render_chart, title
from validity import VERSIONS, invalid

CHARTS = sorted(path.parent.name for path in CHART.glob("charts/*/Chart.yaml"))
PLATFORM = ({"postgres": {"enabled": True}}, {"backup": {"enabled": True}})


@pytest.mark.parametrize("name", CHARTS)
def test_helm_lint(name: str) -> None:
    done = helm("lint", "--strict", str(CHART / "charts" / name))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [name for name in CHARTS if name != "lib"])
def test_helm_template(name: str) -> None:
    options = ("--namespace", NAMESPACE, "--kube-version", KUBERNETES, "--api-versions", OPERATOR)
    done = helm("template", RELEASE, str(CHART / "charts" / name), *options)
    assert done.returncode == 0, done.stderr
    assert "level=WARN" not in done.stderr
    made = [manifest for manifest in yaml.load_all(done.stdout, Loader) if manifest]
    assert not [problem for manifest in made if (problem := invalid(manifest, VERSIONS[-1]))]
    # the same objects, but for what depends on other charts
    whole = {title(m) for values in PLATFORM for m in render_chart(values)}
    assert {title(m) for m in made} <= whole
    workloads = {title(m) for m in made if m["kind"] in ("Deployment", "StatefulSet", "CronJob", "Prometheus")}
    assert workloads, name


def test_the_platform_has_the_fragments_once() -> None:
    done = helm("template", RELEASE, str(CHART), "--api-versions", OPERATOR)
    assert done.returncode == 0, done.stderr
    assert "level=" not in done.stderr, "helm found something to say, such as of links"
