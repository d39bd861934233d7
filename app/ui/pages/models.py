"""Models: what is in production and what challenges it, every version, every decision, and the next one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import streamlit as st
import yaml

from app.clients.errors import ServiceError
from app.clients.mlflow import (
    CHALLENGER,
    PRODUCTION,
    MlflowClient,
    MlflowError,
    ModelVersion,
    NotFound,
    RegisteredModel,
    Run,
    Unauthorized,
)
from app.registry.gate_metrics import BY_TASK, LOWER_IS_BETTER
from app.registry.ledger import Decision
from app.registry.promotion import history, promote, rollback
from app.runtime.settings import MlflowSettings
from app.ui import elements
from app.ui.mlflow_errors import asking_mlflow
from app.ui.settings import UiSettings

ASK, SAID = "decision asked for", "decision said"
SHOWN_DECISIONS = 10
OUTCOMES = {"promoted": "green", "refused": "red", "unchanged": "gray"}
ALL_METRICS = [name for metrics in BY_TASK.values() for name in metrics]


def page() -> None:
    """The page."""
    (place,) = elements.heading("Models", "Which model version serves, which one is being tried, and who decided that.")
    try:
        registry = elements.registry()
        with asking_mlflow():
            models = {model.name: model for model in registry.models()}
    except ServiceError as problem:
        elements.problem(problem)
        return
    if not models:
        st.info("No model is registered yet. Train one with `mlops train MODEL`.", icon=":material/info:")
        return
    with place:
        name = elements.choose_model(sorted(models))
    # what comes and goes has a place of its own: elements that move are drawn twice for a moment
    with st.container():
        found = _read(registry, models[name])
        _said(name)
    with st.container():
        _cards(found)
    with st.container():
        _decide(found)
    with st.container():
        st.subheader("Versions", anchor=False)
        _table(found)
    st.subheader("Promotion history", anchor=False)
    _history(found)


# -- reading -----------------------------------------------------------------------------------------------------


@dataclass
class Found:
    """What MLflow tells about a model; what it does not tell is missing, and was said."""

    name: str
    aliases: dict[str, str]
    versions: list[ModelVersion] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # by version, of the run that registered it
    decisions: list[Decision] | None = None
    gate: dict[str, Any] = field(default_factory=dict)  # metric, threshold, max_regression

    def at(self, alias: str) -> ModelVersion | None:
        """The version an alias points at."""
        return next((v for v in self.versions if v.version == self.aliases.get(alias)), None)


def _read(registry: MlflowClient, model: RegisteredModel) -> Found:
    found = Found(model.name, model.aliases)
    try:
        with asking_mlflow():
            found.versions = registry.versions(model.name)
    except ServiceError as problem:
        elements.problem(ServiceError(f"The versions are missing. {problem.what}", problem.cure))
    found.metrics = _metrics(registry, model.name, found.versions)
    found.decisions = _decisions(registry, model.name)
    found.gate = _gate(registry, found.at(PRODUCTION) or next(iter(found.versions), None))
    return found


def _metrics(registry: MlflowClient, name: str, versions: list[ModelVersion]) -> dict[str, dict[str, float]]:
    """Metrics by version, of the runs that registered them; those that MLflow does not tell are missing."""
    found: dict[str, dict[str, float]] = {}
    try:
        with asking_mlflow():
            # training logs to the experiment named after the model: one request for all of them
            runs: dict[str, Run] = {run.run_id: run for run in registry.search_runs(name, {})} if versions else {}
            for version in versions:
                try:
                    run = runs.get(version.run_id) or registry.run(version.run_id)
                except NotFound:
                    continue
                found[version.version] = run.metrics
    except ServiceError as problem:
        elements.problem(ServiceError(f"The metrics are missing. {problem.what}", problem.cure))
    return found


def _decisions(registry: MlflowClient, name: str) -> list[Decision] | None:
    """The promotion history, newest first; None, after saying why, where MLflow does not tell it."""
    try:
        with asking_mlflow():
            return history(registry, name)
    except ServiceError as problem:
        elements.problem(ServiceError(f"The promotion history is missing. {problem.what}", problem.cure))
        return None


def _last_try(
    decisions: list[Decision], version: ModelVersion | None, production: ModelVersion | None
) -> Decision | None:
    """The last time the version was measured against what is in production now, on the same rows."""
    for decision in decisions:
        if version and production and (decision.version, decision.previous) == (version.version, production.version):
            return decision
    return None


def _gate(registry: MlflowClient, version: ModelVersion | None) -> dict[str, Any]:
    """The gate the version was registered with: metric, threshold, max_regression; {} where it cannot be read."""
    if version is None:
        return {}
    try:
        with asking_mlflow():
            return _read_gate(registry, version)
    except ServiceError:
        return {}  # only the emphasis of one metric hangs on it


@st.cache_data(show_spinner=False, max_entries=500, hash_funcs={MlflowClient: lambda r: r.uri, ModelVersion: repr})
def _read_gate(registry: MlflowClient, version: ModelVersion) -> dict[str, Any]:
    try:
        mlmodel = yaml.safe_load(registry.read_artifact(f"{registry.bundle_path(version)}/MLmodel"))
    except yaml.YAMLError as error:
        raise ValueError(f"the MLmodel file of version {version.version} is damaged") from error
    return dict(mlmodel["metadata"]["gate"])


# -- showing -----------------------------------------------------------------------------------------------------


def _ordered(metrics: dict[str, float], gate: dict[str, Any]) -> list[str]:
    """The gate's metric first, then the usual ones, then others."""
    first = [str(gate.get("metric", "")), *ALL_METRICS]
    return sorted(metrics, key=lambda name: (first.index(name) if name in first else len(first), name))


def _spell(metric: str) -> str:
    return metric.replace("_", " ")


def _cards(found: Found) -> None:
    production, challenger = found.at(PRODUCTION), found.at(CHALLENGER)
    left, right = st.columns(2, gap="medium")
    with left:
        _card("Production", production, found)
    with right:
        _card("Challenger", challenger, found, _last_try(found.decisions or [], challenger, production))


def _card(
    title: str,
    version: ModelVersion | None,
    found: Found,
    tried: Decision | None = None,
) -> None:
    with st.container(border=True, height="stretch"):
        if version is None:
            st.markdown(f"**{title}**")
            missing = {
                "Production": "No version is in production: the API has nothing to serve. Promote one below.",
                "Challenger": "No version is being tried. A version becomes the challenger when it is "
                "checked for promotion, and stays it when it is refused.",
            }
            st.markdown(f":gray[{missing[title]}]")
            return
        st.markdown(f"**{title}** :{'green' if title == 'Production' else 'blue'}-badge[version {version.version}]")
        measured = found.metrics.get(version.version, {})
        # each version's own held-out rows are others: a difference is shown only where the gate took both on the same
        both = tried.metrics if tried else {}
        names = _ordered(measured, found.gate)
        if names:
            columns = st.columns(3)
            for column, name in zip(columns, names[:3], strict=False):
                here, there = both.get(f"candidate_{name}"), both.get(f"production_{name}")
                compared = here is not None and there is not None
                column.metric(
                    _spell(name),
                    elements.number(here if here is not None else measured[name]),
                    delta=f"{here - there:+.4f}" if here is not None and there is not None else None,
                    delta_color="inverse" if name in LOWER_IS_BETTER else "normal",
                    help="On the version's held-out rows"
                    + (", and the difference to production on the same rows." if compared else "."),
                )
        else:
            st.markdown(":gray[Its run has no metrics in MLflow.]")
        links = (
            f"{elements.run_link(version.run_id)} · [in MLflow]({elements.version_url(version.name, version.version)})"
        )
        st.caption(f"{elements.moment(version.created)} · {_serving(version)} · {links}")
        if tried and tried.refused:
            st.caption(f"Refused by the check **{elements.plain(tried.check)}**: {elements.plain(tried.reason)}.")
        if found.gate and title == "Production":
            st.caption(_gate_words(found.gate))


def _gate_words(gate: dict[str, Any]) -> str:
    try:
        name, threshold, margin = str(gate["metric"]), float(gate["threshold"]), float(gate["max_regression"])
    except (KeyError, TypeError, ValueError):
        return ""
    side = "at most" if name in LOWER_IS_BETTER else "at least"
    return (
        f"Gate: {elements.plain(_spell(name))} {side} {elements.number(threshold)}, and no more than "
        f"{elements.number(margin)} worse than production on the same rows."
    )


def _serving(version: ModelVersion) -> str:
    serving = version.tags.get("serving", "")
    return {"onnx": "ONNX", "skops": "skops (slower)"}.get(serving, elements.plain(serving) or "not a bundle")


def _table(found: Found) -> None:
    if not found.versions:
        st.markdown(":gray[No versions to show.]")
        return
    names = _ordered({key: 0.0 for metrics in found.metrics.values() for key in metrics}, found.gate)[:3]
    rows = [
        {
            "Version": int(version.version),
            "Alias": ", ".join(alias for alias, number in found.aliases.items() if number == version.version),
            **{_spell(key): found.metrics.get(version.version, {}).get(key) for key in names},
            "Created": elements.moment(version.created),
            "Serving": version.tags.get("serving", "") or "not a bundle",
            "MLflow": elements.version_url(found.name, version.version),
        }
        for version in found.versions
    ]
    formats = {_spell(key): st.column_config.NumberColumn(format="%.4f") for key in names}
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        height=min(36 * (len(rows) + 1) + 2, 400),
        column_config={
            **formats,
            "Version": st.column_config.NumberColumn(width="small"),
            "MLflow": st.column_config.LinkColumn(display_text="open", width="small"),
        },
    )


def _history(found: Found) -> None:
    name, decisions = found.name, found.decisions
    if decisions is None:
        st.markdown(":gray[Nothing to show.]")
        return
    if not decisions:
        st.markdown(":gray[Nothing was decided about this model yet.]")
        return
    everything = len(decisions) <= SHOWN_DECISIONS or st.toggle(f"All {len(decisions)} decisions", key=f"all {name}")
    shown = decisions if everything else decisions[:SHOWN_DECISIONS]
    st.table(pd.DataFrame([_decision_row(decision) for decision in shown]), border="horizontal", hide_index=True)


def _decision_row(decision: Decision) -> dict[str, str]:
    moved = f"{decision.previous or 'none'} → {decision.version}" if decision.version else "none"
    if decision.outcome != "promoted":
        moved = decision.version or "none"
    check = f" by {elements.plain(decision.check)}" if decision.check else ""
    by = [text for text in (decision.why, decision.cause if decision.cause != decision.why else "") if text]
    return {
        "When": f"[{elements.plain(elements.moment(decision.time))}]({elements.run_url(decision.run_id)})",
        "Action": elements.plain("moved by hand" if decision.action == "outside" else decision.action),
        "Version": elements.plain(moved),
        "Outcome": f":{OUTCOMES.get(decision.outcome, 'gray')}-badge[{elements.plain(decision.outcome)}{check}]",
        "Reason": elements.plain(decision.reason),
        "Who": elements.plain(decision.who or "unknown"),
        "Why, cause": elements.plain("; ".join(by)),
    }


# -- deciding ----------------------------------------------------------------------------------------------------


def _decide(found: Found) -> None:
    name, aliases = found.name, found.aliases
    current = aliases.get(PRODUCTION)
    others = [version.version for version in found.versions if version.version != current]
    start = others.index(aliases[CHALLENGER]) if aliases.get(CHALLENGER) in others else 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        version = st.selectbox(
            "Version to promote",
            others,
            index=start if others else None,
            format_func=lambda number: f"version {number}",
            key=f"candidate {name} {current} {others}",
            placeholder="there is no other version",
            width=220,
        )
        promoting = st.button("Promote", type="primary", icon=":material/arrow_upward:", disabled=version is None)
        returning = st.button("Roll back", icon=":material/undo:", disabled=current is None)
    if promoting:
        st.session_state[ASK] = ("promote", name, version)
    elif returning:
        st.session_state[ASK] = ("rollback", name, None)
    asked = st.session_state.get(ASK)
    if asked and asked[1] == name:
        action, _, wanted = asked
        title = f"Promote version {wanted} of {name}" if action == "promote" else f"Roll back {name}"
        st.dialog(title, on_dismiss=_forget)(_confirm)(action, name, wanted, current)


def _forget() -> None:
    st.session_state.pop(ASK, None)


def _confirm(action: str, name: str, version: str | None, current: str | None) -> None:
    if action == "promote":
        st.markdown(
            f"Version {elements.plain(version)} is checked first: its files, its answers, its signature, and its "
            f"metric on the held-out rows against production (version {elements.plain(current or 'none')}). "
            "Only if it passes does it go into production."
        )
    else:
        st.markdown(
            f"Production leaves version {elements.plain(current)} and returns to the version before. That version's "
            "files and answers are checked first."
        )
    who = st.text_input("Your name", key="who", persist_state="session")
    why = st.text_input("Why", key="why", placeholder="for the promotion history")
    changed = action == "promote" and st.checkbox(
        "Allow a changed signature", help="Requests with today's features will then fail: every caller must be ready."
    )
    account = _account()
    sure, no = st.columns(2)
    label = "Promote" if action == "promote" else "Roll back"
    confirmed = sure.button(f"Yes, {label.lower()}", type="primary", width="stretch", key="confirm")
    if no.button("Cancel", width="stretch", key="cancel"):
        _forget()
        st.rerun()
    if confirmed:
        if not who.strip():
            st.error("Fill in your name: the promotion history keeps who decided.", icon=":material/error:")
            return
        try:
            with st.spinner("Checking the version"), asking_mlflow(), _acting(account) as registry:
                who, why, cause = who.strip(), why.strip(), "the page Models"
                if action == "promote":
                    decision = promote(
                        registry, name, version, who=who, why=why, cause=cause, allow_signature_change=changed
                    )
                else:
                    decision = rollback(registry, name, who=who, why=why, cause=cause)
        except ServiceError as problem:
            if account and isinstance(problem.__cause__, Unauthorized):
                problem = _not_taken(account[0])
            elements.problem(problem)
            return
        except OSError as error:
            cure = "Set MLOPS_CACHE_DIR to a folder that can be written."
            elements.problem(ServiceError(f"The version could not be kept for checking: {error}.", cure))
            return
        st.session_state[SAID] = decision
        _forget()
        st.rerun()


def _account() -> tuple[str, str] | None:
    """Where MLflow wants an account, the pages' own may only read: one that may decide is asked for."""
    own = MlflowSettings()
    if not own.mlflow_tracking_username:
        return None
    left, right = st.columns(2)
    user = left.text_input("MLflow account", value="admin", key="account")
    password = right.text_input("Password", type="password", key="password")
    return user, password


def _acting(account: tuple[str, str] | None) -> MlflowClient:
    if account is None:
        return MlflowClient()
    if not all(account):
        raise MlflowError("fill in account and password: moving a model version needs rights that this page lacks")
    return MlflowClient(username=account[0], password=account[1])


def _not_taken(user: str) -> ServiceError:
    """What to say of an account that MLflow refuses: who typed it in can set no variables of this process."""
    cure = "Try the password again. The account `admin` may decide; its password is with those who run this platform."
    namespace, _, secret = UiSettings().admin_secret.partition("/")
    if secret:
        read = f"kubectl -n {namespace} get secret {secret} -o jsonpath='{{.data.mlflow-admin-password}}' | base64 -d"
        cure += f" In the cluster this reads it: `{read}`"
    return ServiceError(f"MLflow did not take the account {user} with this password, or it may not decide.", cure)


def _said(name: str) -> None:
    """What came of the last decision made here."""
    decision: Decision | None = st.session_state.pop(SAID, None)  # once: by the next click it may be old news
    if decision is None or decision.model != name:
        return
    version, reason = elements.plain(decision.version), elements.plain(decision.reason)
    if decision.outcome == "promoted":
        st.success(f"Version {version} is in production: {reason}.", icon=":material/check:")
    elif decision.refused:
        what = f"Version {version} was" if decision.version else "That was"
        st.error(
            f"{what} refused by the check **{elements.plain(decision.check)}**: {reason}.", icon=":material/block:"
        )
    else:
        st.info(f"Nothing to do: {reason}.", icon=":material/info:")
