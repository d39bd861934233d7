"""The Grafana dashboards, defined once: `make dashboards` writes them beside this file, and the chart installs them.

They are made by Grafana's own schema library (grafana-foundation-sdk). Queries are about the namespace and the models
that the dashboard's variables choose; recording rules have no namespace.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from grafana_foundation_sdk.builders.bargauge import Panel as BarGauge
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    ThresholdsConfig,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.table import Panel as Table
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common, units
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parent
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")

# How browsers reach the pages that panels link to. The chart replaces them where global.ingress says otherwise.
API = "http://api.localhost:8080/docs"
UI = "http://ui.localhost:8080"
MLFLOW = "http://mlflow.localhost:8080/#/models"
PREFECT = "http://prefect.localhost:8080/runs"
ALERTS = "http://prometheus.localhost:8080/alerts"
# Links of panels: title and address.
API_DOCS = ("The API's documentation", API)
DRIFT_ALERTS = ("Drift alerts", ALERTS)
TRAININGS = ("Trainings in Prefect", PREFECT)
ALERT_LIST = ("Alerts", ALERTS)
TARGETS = ("Prometheus' targets", ALERTS.replace("/alerts", "/targets"))
LIVE_PAGE = ("The page Live", UI)

RATE = "$__rate_interval"
WINDOW = "1h"  # of shares and of accuracy; as monitoring.drift.window
STABLE, SHIFTED = 0.1, 0.25  # PSI; above the second one, monitoring.drift.featurePsi, the platform retrains
NAMESPACE = 'namespace="$namespace"'
MODEL = 'model=~"$model"'
ANY_MODEL = 'model=~"$model|"'  # the empty name, too: requests for models that are not there
TRAINING = 'deployment=~"train/($model)"'
Panel = TimeSeries | Stat | Table | BarGauge
P = TypeVar("P", TimeSeries, Stat, Table, BarGauge)


def of(metric: str, *matchers: str) -> str:
    """A selector of a metric in the chosen namespace."""
    return f"{metric}{{{', '.join((NAMESPACE, *matchers))}}}"


def rule(name: str) -> str:
    """A selector of a recording rule, of the chosen models."""
    return f"{name}{{{MODEL}}}"


def rate(metric: str, *matchers: str) -> str:
    """A counter's rate per second, in the chosen namespace."""
    return f"rate({of(metric, *matchers)}[{RATE}])"


def quantile(share: float) -> str:
    """The duration, in seconds, that this share of the prediction requests stays below, for each model."""
    return f"histogram_quantile({share}, sum by (model, le) ({rate('mlops_request_duration_seconds_bucket', MODEL)}))"


def of_model(expression: str) -> str:
    """`train/iris` in the label `deployment` as `iris` in the label `model`."""
    return f'label_replace({expression}, "model", "$1", "deployment", "train/(.+)")'


def query(expression: str, legend: str = "", now: bool = False) -> Dataquery:
    """One query: over the dashboard's time range, or its value now."""
    made = Dataquery().expr(expression).legend_format(legend).datasource(PROMETHEUS)
    return made.instant() if now else made.range()


def thresholds(*steps: tuple[float, str], base: str = "green") -> ThresholdsConfig:
    """Colours from a value on; `base` is that of what is below the first."""
    all_steps = [Threshold(value=None, color=base), *(Threshold(value=value, color=color) for value, color in steps)]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(all_steps)


def filled(panel: P, title: str, description: str, unit: str, link: tuple[str, str], queries: Iterable[Dataquery]) -> P:
    """What every panel has: a title, what it shows and what to do, a unit, a link (title, address), its queries."""
    panel.title(title).description(description).unit(unit).datasource(PROMETHEUS)
    panel.links([DashboardLink(link[0]).type(DashboardLinkType.LINK).url(link[1]).target_blank(True)])
    for name, each in zip(ascii_uppercase, queries, strict=False):
        panel.with_target(each.ref_id(name))
    return panel


def graph(
    title: str, description: str, unit: str, link: tuple[str, str], *queries: Dataquery, width: int = 8
) -> TimeSeries:
    """A graph over time."""
    panel = filled(TimeSeries(), title, description, unit, link, queries).span(width).height(8)
    legend = VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST)
    tooltip = VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
    panel.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs([])).tooltip(tooltip)
    return panel.line_width(1).fill_opacity(10).show_points(common.VisibilityMode.AUTO).axis_soft_min(0)


def limited(panel: TimeSeries, *steps: tuple[float, str]) -> TimeSeries:
    """The graph with its thresholds as lines."""
    style = GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
    return panel.thresholds(thresholds(*steps, base="transparent")).thresholds_style(style)


def stacked(panel: TimeSeries) -> TimeSeries:
    """The graph with its series on top of each other."""
    return panel.stacking(StackingConfig().mode(common.StackingMode.NORMAL).group("A")).fill_opacity(40)


def dashed(panel: TimeSeries, pattern: str) -> TimeSeries:
    """The series whose names match are what the others are to be compared with."""
    style = {"fill": "dash", "dash": [8, 8]}
    values = [DynamicConfigValue("custom.lineStyle", style), DynamicConfigValue("custom.fillOpacity", 0)]
    return panel.override_by_regexp(pattern, values)


def number(
    title: str,
    description: str,
    unit: str,
    link: tuple[str, str],
    *queries: Dataquery,
    colors: ThresholdsConfig | None = None,
    width: int = 4,
) -> Stat:
    """Values as they are now, large."""
    panel = filled(Stat(), title, description, unit, link, queries).span(width).height(6)
    panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.graph_mode(common.BigValueGraphMode.NONE).color_mode(common.BigValueColorMode.VALUE)
    return panel.thresholds(colors or thresholds(base="text"))


def table(
    title: str, description: str, unit: str, link: tuple[str, str], expression: str, value: str, width: int = 12
) -> Table:
    """A row per series: its labels, and its value under the name `value`."""
    values = query(expression, now=True).format(PromQueryFormat.TABLE)
    panel = filled(Table(), title, description, unit, link, [values]).span(width).height(8)
    options = {"excludeByName": {"Time": True}, "renameByName": {"Value": value}}
    return panel.with_transformation(DataTransformerConfig("organize", options=options)).filterable(True)


def bars(
    title: str, description: str, unit: str, link: tuple[str, str], *queries: Dataquery, width: int = 12
) -> BarGauge:
    """A bar per series, as it is now."""
    panel = filled(BarGauge(), title, description, unit, link, queries).span(width).height(8)
    panel.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    return panel.thresholds(thresholds(base="blue")).min(0)


IN_SERVICE = f"max by (model, version) ({of('mlops_model_info', MODEL)})"
# A version that no replica served in the ten minutes before: so neither a restarted pod nor a missed scrape is one.
NEW_VERSION = (
    f"count by (model, version) ({of('mlops_model_info', MODEL)})"
    f" unless count by (model, version) (max_over_time({of('mlops_model_info', MODEL)}[10m] offset 1m))"
)
PROMOTIONS = "Promotions"
# What the schema library has no fields for: what a mark says.
ANNOTATION = {"titleFormat": "{{model}} version {{version}} in service", "tagKeys": "model,version", "step": "1m"}


def dashboard(uid: str, title: str, description: str, *parts: Row | Panel) -> Dashboard:
    """A dashboard with variables, links to the others and promotions as marks; panels go from left to right."""
    everything = VariableOption(text="All", value="$__all")
    made = Dashboard(title).uid(uid).description(description).tags(["mlops"]).readonly()
    made.time("now-3h", "now").refresh("30s").timezone(common.TimeZoneBrowser).tooltip(DashboardCursorSync.CROSSHAIR)
    made.with_variable(
        DatasourceVariable("datasource").label("Data source").type("prometheus").description("The Prometheus to ask")
    )
    made.with_variable(
        _variable(
            "namespace", "Namespace", "The namespace of the release", "label_values(mlops_registry_up, namespace)"
        )
    )
    model_values = f"label_values({of('mlops_model_info')}, model)"
    made.with_variable(
        _variable("model", "Model", "The models in service", model_values)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(everything)
    )
    others = DashboardLink("Dashboards").type(DashboardLinkType.DASHBOARDS).tags(["mlops"]).as_dropdown(True)
    made.link(others.include_vars(True).keep_time(True))
    made.annotation(
        AnnotationQuery().name(PROMOTIONS).datasource(PROMETHEUS).enable(True).icon_color("purple").expr(NEW_VERSION)
    )
    for part in parts:
        if isinstance(part, Row):
            made.with_row(part)
        else:
            made.with_panel(part)
    return made


def _variable(name: str, label: str, description: str, values: str) -> QueryVariable:
    made = QueryVariable(name).label(label).description(description).datasource(PROMETHEUS)
    made.query({"query": values, "refId": "Variable"}).refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    return made.sort(VariableSort.ALPHABETICAL_ASC)


def _model_api_requests() -> list[Row | Panel]:
    counted = rate("mlops_requests_total", ANY_MODEL)
    total = f"sum by (model) ({rate('mlops_request_duration_seconds_count', MODEL)})"
    below = rate("mlops_request_duration_seconds_bucket", MODEL, 'le="0.1"')
    failed = rate("mlops_requests_total", ANY_MODEL, 'status=~"5.."')
    return [
        Row("Requests"),
        stacked(
            graph(
                "Requests per minute by status",
                "Prediction requests of all replicas. 4xx is a caller's mistake, 5xx is ours: docs/operations.md,"
                " The API.",
                units.RequestsPerMinute,
                API_DOCS,
                query(f"sum by (status) ({counted}) * 60", "{{status}}"),
                width=12,
            )
        ),
        graph(
            "Median latency",
            "Half of the prediction requests take less, body included, without the way through the ingress.",
            units.Seconds,
            API_DOCS,
            query(quantile(0.5), "{{model}}"),
            width=12,
        ),
        graph(
            "Share of requests under 100 ms",
            "Of the prediction requests. A share that falls while the rate rises asks for more replicas"
            " (model-api.autoscaling).",
            units.PercentUnit,
            API_DOCS,
            query(f"sum by (model) ({below}) / {total}", "{{model}}"),
            width=12,
        ).max(1),
        graph(
            "p90 latency",
            "Nine of ten prediction requests take less.",
            units.Seconds,
            API_DOCS,
            query(quantile(0.9), "{{model}}"),
            width=12,
        ),
        graph(
            "p99 latency",
            "99 of 100 prediction requests take less. The alert ApiLatency is about it: docs/alerts.md#apilatency.",
            units.Seconds,
            ("Alerts", ALERTS),
            query(quantile(0.99), "{{model}}"),
            width=12,
        ),
        graph(
            "Error ratio",
            "Share of the prediction requests that end in 5xx. Alert ApiErrorRatio: docs/alerts.md#apierrorratio.",
            units.PercentUnit,
            ("Alerts", ALERTS),
            query(f"(sum({failed}) or vector(0)) / sum({counted})", "5xx"),
            width=12,
        ),
    ]


def _model_api_versions() -> list[Row | Panel]:
    versions = ("Versions and promotions", MLFLOW)
    return [
        Row("Versions"),
        table(
            "Versions in service",
            "What the replicas answer with, and how many do. One line per model, but for the seconds of a"
            " promotion; else the alert ReplicaVersionsDiffer fires: docs/alerts.md#replicaversionsdiffer.",
            units.Short,
            versions,
            f"count by (model, version, serving, run_id) ({of('mlops_model_info', MODEL)})",
            "replicas",
        ),
        number(
            "Swaps",
            "Versions that the replicas took into service since they started, added up.",
            units.Short,
            versions,
            query(f"sum by (model) ({of('mlops_swaps_total', MODEL)})", "{{model}}", now=True),
        ),
        number(
            "Refused versions",
            "Versions that stayed out since the replicas started: a download, a checksum or a golden row failed,"
            " and the version before stays in service. docs/alerts.md#swapfailed.",
            units.Short,
            versions,
            query(f"sum({of('mlops_swap_failures_total', MODEL)}) or vector(0)", "refused", now=True),
            colors=thresholds((1, "red")),
        ),
        number(
            "Replicas that reach MLflow",
            "Share of the API's pods that reach the registry. The others serve on from their cache:"
            " docs/operations.md.",
            units.PercentUnit,
            versions,
            query(f"avg({of('mlops_registry_up')})", "reach it", now=True),
            colors=thresholds((1, "green"), base="red"),
        ),
    ]


def _model_api_replicas() -> list[Row | Panel]:
    api_pod = f"and on (namespace, pod) {of('mlops_registry_up')}"
    return [
        Row("Replicas"),
        graph(
            "Requests per second by route",
            "All requests of the API, probes and scrapes included.",
            units.RequestsPerSecond,
            API_DOCS,
            query(f"sum by (handler) ({rate('http_requests_total')})", "{{handler}}"),
        ),
        graph(
            "CPU by replica",
            "Cores in use. One worker per pod uses one core at most; from 700m on average the autoscaler adds a pod.",
            units.Short,
            API_DOCS,
            query(f"{rate('process_cpu_seconds_total')} {api_pod}", "{{pod}}"),
        ),
        graph(
            "Memory by replica",
            "Resident memory of the API's process; model-api.resources.limits.memory is where the pod is killed.",
            units.BytesIEC,
            API_DOCS,
            query(f"{of('process_resident_memory_bytes')} {api_pod}", "{{pod}}"),
        ),
    ]


def model_api() -> Dashboard:
    """Requests, latency and the versions in service."""
    return dashboard(
        "mlops-model-api",
        "Model API",
        "How many predictions are asked for, and how fast they come.",
        *_model_api_requests(),
        *_model_api_versions(),
        *_model_api_replicas(),
    )


def _model_quality_drift() -> list[Row | Panel]:
    served = f"increase({of('mlops_predictions_total', MODEL)}[{WINDOW}]) and on (model, version) {IN_SERVICE}"
    reference = f"{of('mlops_prediction_reference_share', MODEL)} and on (model, version) {IN_SERVICE}"
    return [
        Row("Drift"),
        limited(
            graph(
                "Feature drift",
                f"Population stability index of each feature over the last hour, all replicas: below {STABLE}"
                f" stable, above {SHIFTED} shifted, and then the model is retrained. Nothing while there are too few"
                " rows (monitoring.drift.minRows). docs/alerts.md#featuredrift.",
                units.Short,
                LIVE_PAGE,
                query(rule("mlops:feature_psi"), "{{model}} {{feature}}"),
                width=12,
            ),
            (STABLE, "orange"),
            (SHIFTED, "red"),
        ),
        limited(
            graph(
                "Prediction drift",
                f"The same index for what is predicted. Above {SHIFTED} the model is retrained."
                " docs/alerts.md#predictiondrift.",
                units.Short,
                LIVE_PAGE,
                query(rule("mlops:prediction_psi"), "{{model}} version {{version}}"),
                width=12,
            ),
            (STABLE, "orange"),
            (SHIFTED, "red"),
        ),
        graph(
            "Rows that drift is computed from",
            "Predicted rows of the last hour. Below monitoring.drift.minRows (200) there is no index.",
            units.Short,
            LIVE_PAGE,
            query(f"max by (model, version) ({rule('mlops:feature_rows')})", "{{model}} version {{version}}"),
            width=12,
        ),
        dashed(
            graph(
                "Class mix against training",
                "Share of each label among the predictions of the last hour, and dashed its share in the training"
                " data. Of a regression, the labels are buckets of values.",
                units.PercentUnit,
                LIVE_PAGE,
                query(
                    f"sum by (model, label) ({served}) / on (model) group_left () sum by (model) ({served})",
                    "{{model}} {{label}}",
                ),
                query(f"max by (model, label) ({reference})", "{{model}} {{label}} in training"),
                width=12,
            ),
            "/ in training$/",
        ),
    ]


def _model_quality_feedback() -> list[Row | Panel]:
    gate = of("mlops_gate_threshold", MODEL, 'metric=~"accuracy|balanced_accuracy|.+_macro"')
    error_gate = of("mlops_gate_threshold", MODEL, 'metric!~"accuracy|balanced_accuracy|.+_macro|r2"')
    return [
        Row("Feedback"),
        dashed(
            graph(
                "Live accuracy",
                "Share of right predictions among those whose true label was sent to /feedback in the last hour;"
                " dashed what the gate asks of a new version, in the gate's own metric."
                " docs/alerts.md#liveaccuracylow.",
                units.PercentUnit,
                LIVE_PAGE,
                query(rule("mlops:live_accuracy"), "{{model}} version {{version}}"),
                query(f"max by (model, metric) ({gate})", "{{model}} gate ({{metric}})"),
            ).max(1),
            "/ gate /",
        ),
        dashed(
            graph(
                "Live mean absolute error",
                "Of a regression, over the labels of the last hour, in the target's unit; dashed what the gate asks"
                " of a new version, in the gate's own metric.",
                units.Short,
                LIVE_PAGE,
                query(
                    f"sum by (model) (increase({of('mlops_feedback_absolute_error_sum', MODEL)}[{WINDOW}]))"
                    f" / sum by (model) (increase({of('mlops_feedback_absolute_error_count', MODEL)}[{WINDOW}]))",
                    "{{model}}",
                ),
                query(f"max by (model, metric) ({error_gate})", "{{model}} gate ({{metric}})"),
            ),
            "/ gate /",
        ),
        stacked(
            graph(
                "Labels fed back per minute",
                "Right (true) and wrong (false) predictions, as the true labels arrive.",
                units.CountsPerMinute,
                LIVE_PAGE,
                query(f"sum by (correct) ({rate('mlops_feedback_total', MODEL)}) * 60", "{{correct}}"),
            )
        ),
    ]


def _model_quality_versions() -> list[Row | Panel]:
    versions = ("Model versions in MLflow", MLFLOW)
    return [
        Row("Versions"),
        stacked(
            graph(
                "Replicas by version",
                "How many replicas answer with which version: a promotion is where one takes over from another.",
                units.Short,
                versions,
                query(f"count by (model, version) ({of('mlops_model_info', MODEL)})", "{{model}} version {{version}}"),
                width=12,
            )
        ),
        bars(
            "Predictions by version",
            "Predicted rows since the replicas started; versions that are out of service keep their count.",
            units.Short,
            versions,
            query(
                f"sum by (model, version) ({of('mlops_predictions_total', MODEL)})",
                "{{model}} version {{version}}",
                now=True,
            ),
        ),
    ]


def model_quality() -> Dashboard:
    """Drift and accuracy of the versions in service."""
    return dashboard(
        "mlops-model-quality",
        "Model quality",
        "Whether what is asked and answered is still like training.",
        *_model_quality_drift(),
        *_model_quality_feedback(),
        *_model_quality_versions(),
    )


def _platform_at_a_glance() -> list[Row | Panel]:
    running = of("kube_pod_status_phase", 'phase=~"Pending|Running|Unknown"') + " == 1"
    ready = of("kube_pod_status_ready", 'condition="true"')
    cpu, memory = (
        f"{of('kube_pod_container_resource_requests', resource)} and on (namespace, pod) ({running})"
        for resource in ('resource="cpu"', 'resource="memory"')
    )
    return [
        Row("At a glance"),
        number(
            "Targets up",
            "Share of what Prometheus scrapes that answers. docs/alerts.md#targetdown.",
            units.PercentUnit,
            TARGETS,
            query(f"avg({of('up')})", "up", now=True),
            colors=thresholds((1, "green"), base="red"),
        ),
        number(
            "Alerts that fire",
            "Each has a section in docs/alerts.md.",
            units.Short,
            ALERT_LIST,
            query('count(ALERTS{alertstate="firing", alertname!="Watchdog"}) or vector(0)', "firing", now=True),
            colors=thresholds((1, "orange")),
        ),
        number(
            "Pods that are ready",
            "Of those that should run on; Jobs that ended do not count.",
            units.PercentUnit,
            TARGETS,
            query(f"avg({ready} and on (namespace, pod) ({running}))", "ready", now=True),
            colors=thresholds((1, "green"), base="orange"),
        ),
        number(
            "Restarts",
            "Of containers, in the chosen time. `kubectl -n mlops describe pod` says why.",
            units.Short,
            TARGETS,
            query(f"sum(increase({of('kube_pod_container_status_restarts_total')}[$__range]))", "restarts", now=True),
            colors=thresholds((1, "orange")),
        ),
        number(
            "CPU requested",
            "Cores that are reserved for the pods that are there.",
            units.Short,
            TARGETS,
            query(f"sum({cpu})", "cores", now=True),
        ),
        number(
            "Memory requested",
            "Memory that is reserved for the pods that are there.",
            units.BytesIEC,
            TARGETS,
            query(f"sum({memory})", "memory", now=True),
        ),
    ]


def _platform_pods() -> list[Row | Panel]:
    running = of("kube_pod_status_phase", 'phase=~"Pending|Running|Unknown"') + " == 1"
    cpu, memory = (
        f"{of('kube_pod_container_resource_requests', resource)} and on (namespace, pod) ({running})"
        for resource in ('resource="cpu"', 'resource="memory"')
    )
    return [
        Row("Pods"),
        stacked(
            graph(
                "Pods by phase",
                "Trainings come and go as Jobs: they are Succeeded for the ten minutes that they are kept.",
                units.Short,
                TARGETS,
                query(f"sum by (phase) ({of('kube_pod_status_phase')}) > 0", "{{phase}}"),
            )
        ),
        graph(
            "Restarts by pod",
            "Restarts of the pod's containers since it was made.",
            units.Short,
            TARGETS,
            query(f"sum by (pod) ({of('kube_pod_container_status_restarts_total')})", "{{pod}}"),
        ),
        graph(
            "Deployments: missing replicas",
            "Wanted less available. For long above zero: `kubectl -n mlops get pods`.",
            units.Short,
            TARGETS,
            query(
                f"{of('kube_deployment_spec_replicas')} - {of('kube_deployment_status_replicas_available')}",
                "{{deployment}}",
            ),
        ),
        bars(
            "CPU requested by pod",
            "Cores that are reserved for it.",
            units.Short,
            TARGETS,
            query(f"sum by (pod) ({cpu})", "{{pod}}", now=True),
            width=8,
        ),
        bars(
            "Memory requested by pod",
            "Memory that is reserved for it.",
            units.BytesIEC,
            TARGETS,
            query(f"sum by (pod) ({memory})", "{{pod}}", now=True),
            width=8,
        ),
        graph(
            "Memory in use",
            "Resident memory of the processes that say so in their metrics.",
            units.BytesIEC,
            TARGETS,
            query(of("process_resident_memory_bytes"), "{{pod}}"),
        ),
    ]


def _platform_volumes() -> list[Row | Panel]:
    return [
        Row("Volumes"),
        bars(
            "Volume claims: size",
            "What each claim asks for. The alert VolumeNearlyFull is about what is free:"
            " docs/alerts.md#volumenearlyfull.",
            units.BytesIEC,
            ALERT_LIST,
            query(
                f"sum by (persistentvolumeclaim) ({of('kube_persistentvolumeclaim_resource_requests_storage_bytes')})",
                "{{persistentvolumeclaim}}",
                now=True,
            ),
        ),
        table(
            "Volume claims: phase",
            "Bound is as it should be. Pending: no storage class serves the claim (global.storageClass).",
            units.Short,
            TARGETS,
            f"sum by (persistentvolumeclaim, phase) ({of('kube_persistentvolumeclaim_status_phase')}) == 1",
            "claims",
        ),
    ]


def _platform_flow_runs() -> list[Row | Panel]:
    runs = ("Flow runs in Prefect", PREFECT)
    flows = 'deployment=~".+/($model|promote|rollback)"'
    return [
        Row("Flow runs"),
        stacked(
            graph(
                "Flow runs by state",
                "Prefect's runs of the last seven days. Failed and Crashed say why in Prefect."
                " docs/alerts.md#trainingfailed.",
                units.Short,
                runs,
                query(f"sum by (state) ({of('mlops_flow_runs', flows)})", "{{state}}"),
            )
        ),
        graph(
            "Flow run duration",
            "Of the last completed run of each deployment.",
            units.Seconds,
            runs,
            query(of("mlops_flow_run_duration_seconds", flows), "{{deployment}}"),
        ),
        graph(
            "Time since the last success",
            "Of each deployment. docs/alerts.md#trainingoverdue.",
            units.DurationSeconds,
            runs,
            query(f"time() - {of('mlops_deployment_last_success_timestamp_seconds', flows)}", "{{deployment}}"),
        ),
    ]


def platform() -> Dashboard:
    """Pods, volumes and flow runs."""
    return dashboard(
        "mlops-platform",
        "Platform",
        "What runs, what it asks for, and what Prefect made of its runs.",
        *_platform_at_a_glance(),
        *_platform_pods(),
        *_platform_volumes(),
        *_platform_flow_runs(),
    )


def _loop_time_of_each_stage() -> list[Row | Panel]:
    succeeded = of_model(of("mlops_deployment_last_success_timestamp_seconds", TRAINING))
    drifted = f'max by (model) (last_over_time(ALERTS_FOR_STATE{{action="retrain", {MODEL}}}[$__range]))'
    serving = f"min_over_time(timestamp({of('mlops_model_info', MODEL)})[$__range:30s])"
    seen = f"max by (model) (min by (model, version) ({serving}))"
    return [
        Row("Time of each stage"),
        number(
            "Training",
            "Duration of the last training run that completed: load, fit, evaluate, register and promote. Its tasks"
            " are in Prefect.",
            units.Seconds,
            TRAININGS,
            query(of("mlops_flow_run_duration_seconds", TRAINING), "{{deployment}}", now=True),
        ),
        number(
            "Promotion",
            "Duration of the last promotion that was a flow run of its own; a training's is in its own duration.",
            units.Seconds,
            TRAININGS,
            query(of("mlops_flow_run_duration_seconds", 'deployment=~"promote/.+"'), "{{deployment}}", now=True),
        ),
        number(
            "Drift to trained",
            "From the alert's condition becoming true to the end of the training that came after, in the chosen"
            " time. The alert's own `for` and Alertmanager's 10 s are in it.",
            units.Seconds,
            DRIFT_ALERTS,
            query(f"({succeeded} - on (model) group_left () {drifted}) > 0", "{{model}}", now=True),
        ),
        number(
            "Drift to served",
            "From the alert's condition becoming true to the first replica that answers with a newer version, in"
            " the chosen time, to within a scrape. Nothing where the gate refused it.",
            units.Seconds,
            DRIFT_ALERTS,
            query(f"({seen} - on (model) {drifted}) > 0", "{{model}}", now=True),
        ),
        number(
            "Age of the last success",
            "Since the last training that completed. docs/alerts.md#trainingoverdue.",
            units.DurationSeconds,
            TRAININGS,
            query(
                f"time() - {of('mlops_deployment_last_success_timestamp_seconds', TRAINING)}",
                "{{deployment}}",
                now=True,
            ),
        ),
        number(
            "Age of the last failure",
            "Since the last training that failed. docs/alerts.md#trainingfailed.",
            units.DurationSeconds,
            TRAININGS,
            query(
                f"time() - {of('mlops_deployment_last_failure_timestamp_seconds', TRAINING)}",
                "{{deployment}}",
                now=True,
            ),
        ),
    ]


def _loop_watch() -> list[Row | Panel]:
    return [
        Row("Watch"),
        limited(
            graph(
                "Highest drift",
                "The largest index of any feature or of the predictions. docs/alerts.md#featuredrift.",
                units.Short,
                DRIFT_ALERTS,
                query(f"max by (model) ({rule('mlops:feature_psi')})", "{{model}} features"),
                query(f"max by (model) ({rule('mlops:prediction_psi')})", "{{model}} predictions"),
            ),
            (SHIFTED, "red"),
        ),
        stacked(
            graph(
                "Alerts that ask for a retraining",
                "Pending: the condition is true, but not for long enough. Firing: Alertmanager tells the retrainer.",
                units.Short,
                DRIFT_ALERTS,
                query(
                    f'count by (alertname, alertstate, model) (ALERTS{{action="retrain", {MODEL}}})',
                    "{{model}} {{alertname}} {{alertstate}}",
                ),
            )
        ),
        stacked(
            graph(
                "What became of alerts",
                "What the retrainer did with each alert it was told of: started a run, or not, as one is running"
                " (running), the cooldown or the daily cap says no (cooldown, capped), or it may not (dry_run).",
                units.Short,
                TRAININGS,
                query(f"sum by (model, outcome) ({of('mlops_retrain_total', MODEL)})", "{{model}} {{outcome}}"),
            )
        ),
    ]


def _loop_retrain_and_serve() -> list[Row | Panel]:
    versions = ("Registered versions", MLFLOW)
    return [
        Row("Retrain and serve"),
        stacked(
            graph(
                "Training runs by state",
                "Runs of the last seven days. docs/alerts.md#trainingfailed.",
                units.Short,
                TRAININGS,
                query(f"sum by (state) ({of('mlops_flow_runs', TRAINING)})", "{{state}}"),
            )
        ),
        graph(
            "Cooldown",
            "For so long no alert starts another training. It doubles with each retraining that gave nothing"
            " better, up to retrainer.cooldownMax.",
            units.DurationSeconds,
            TRAININGS,
            query(of("mlops_retrain_cooldown_seconds", MODEL), "{{model}}"),
        ),
        stacked(
            graph(
                "Swap: replicas by version",
                "After a promotion every replica takes the new version up within model-api.pollSeconds and the time"
                " of the download.",
                units.Short,
                versions,
                query(f"count by (model, version) ({of('mlops_model_info', MODEL)})", "{{model}} version {{version}}"),
            )
        ),
    ]


def loop() -> Dashboard:
    """The time of each stage, from drift to a new version in service."""
    return dashboard(
        "mlops-loop",
        "Loop",
        "Drift, alert, training, promotion, swap: how long each stage takes.",
        *_loop_time_of_each_stage(),
        *_loop_watch(),
        *_loop_retrain_and_serve(),
    )


DASHBOARDS: tuple[Callable[[], Dashboard], ...] = (model_api, model_quality, platform, loop)


def text(made: Dashboard) -> str:
    """A dashboard as Grafana reads it."""
    content: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder))
    for number, panel in enumerate(content["panels"], 1):
        panel["id"] = number
    for annotation in content["annotations"]["list"]:
        annotation.update(ANNOTATION)
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def files() -> dict[str, str]:
    """File name -> content, of every dashboard."""
    return {f"{make.__name__.replace('_', '-')}.json": text(make()) for make in DASHBOARDS}


if __name__ == "__main__":
    for name, content in files().items():
        (FOLDER / name).write_text(content)
