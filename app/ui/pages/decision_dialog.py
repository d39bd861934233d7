"""What is decided on the page Models, canaries too: the buttons, the dialog that confirms, the message afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from app.clients.errors import ServiceError
from app.clients.mlflow import CHALLENGER, PRODUCTION, MlflowClient, MlflowError, Unauthorized
from app.registry import canary as canaries
from app.registry.ledger import Decision
from app.registry.promotion import noted_definition, promote, rollback
from app.runtime.settings import MlflowSettings
from app.ui.elements import show_error
from app.ui.formatting import escape_markdown
from app.ui.mlflow_errors import readable_mlflow_errors
from app.ui.pages.model_overview import ModelOverview
from app.ui.settings import UiSettings

PENDING, LAST = "decision to confirm", "last decision"  # keys of the visitor's session
CAUSE = "the page Models"  # in the ledger


@dataclass(frozen=True)
class PendingDecision:
    """What a visitor is about to decide.

    version: to promote, None for a rollback, or the canary that is to end; production: the version there.
    """

    action: Literal["promote", "rollback", "end canary"]
    model: str
    version: str | None
    production: str | None


def show_last_decision(model: str) -> None:
    """Show what came of the decision that the visitor has just made about the model, once."""
    decision: Decision | None = st.session_state.pop(LAST, None)  # by the next click it may be old news
    if decision is None or decision.model != model:
        return
    version, reason = escape_markdown(decision.version), escape_markdown(decision.reason)
    if decision.outcome == "promoted":
        st.success(f"Version {version} is in production: {reason}.", icon=":material/check:")
    elif decision.outcome == "started":
        st.success(f"Version {version} is the canary: {reason}.", icon=":material/check:")
    elif decision.outcome == "ended":
        st.success(f"Version {version} is the canary no more: {reason}.", icon=":material/check:")
    elif decision.refused:
        what = f"Version {version} was" if decision.version else "That was"
        check = escape_markdown(decision.check)
        st.error(f"{what} refused by the check **{check}**: {reason}.", icon=":material/block:")
    else:
        st.info(f"Nothing to do: {reason}.", icon=":material/info:")


def show_decision_buttons(overview: ModelOverview) -> None:
    """Show the buttons that promote a version or roll production back, and the dialog that they open."""
    name, aliases = overview.name, overview.aliases
    production = aliases.get(PRODUCTION)
    candidates = [version.version for version in overview.versions if version.version != production]
    start = candidates.index(aliases[CHALLENGER]) if aliases.get(CHALLENGER) in candidates else 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        version = st.selectbox(
            "Version to promote",
            candidates,
            index=start if candidates else None,
            format_func=lambda number: f"version {number}",
            key=f"candidate {name} {production} {candidates}",
            placeholder="there is no other version",
            width=220,
        )
        promoting = st.button("Promote", type="primary", icon=":material/arrow_upward:", disabled=version is None)
        returning = st.button("Roll back", icon=":material/undo:", disabled=production is None)
        ending = overview.canary and st.button("End the canary", icon=":material/close:")
    if promoting:
        st.session_state[PENDING] = PendingDecision("promote", name, version, production)
    elif returning:
        st.session_state[PENDING] = PendingDecision("rollback", name, None, production)
    elif ending and overview.canary:
        st.session_state[PENDING] = PendingDecision("end canary", name, overview.canary[0], production)
    pending: PendingDecision | None = st.session_state.get(PENDING)
    if pending and pending.model == name:
        titles = {
            "promote": f"Promote version {pending.version} of {name}",
            "rollback": f"Roll back {name}",
            "end canary": f"End the canary of {name}",
        }
        st.dialog(titles[pending.action], on_dismiss=_forget_pending)(_confirm)(pending)


def _forget_pending() -> None:
    st.session_state.pop(PENDING, None)


def _confirm(pending: PendingDecision) -> None:
    """The content of the dialog."""
    st.markdown(_explanation(pending))
    who = st.text_input("Your name", key="who", persist_state="session")
    why = st.text_input("Why", key="why", placeholder="for the promotion history")
    allow_signature_change = pending.action == "promote" and st.checkbox(
        "Allow a changed signature", help="Requests with today's features will then fail: every caller must be ready."
    )
    canary = _ask_for_share() if pending.action == "promote" and pending.production else None
    account = _ask_for_account()
    left, right = st.columns(2)
    labels = {"promote": "Yes, promote", "rollback": "Yes, roll back", "end canary": "Yes, end the canary"}
    confirmed = left.button(labels[pending.action], type="primary", width="stretch", key="confirm")
    if right.button("Cancel", width="stretch", key="cancel"):
        _forget_pending()
        st.rerun()
    if not confirmed:
        return
    if not who.strip():
        st.error("Fill in your name: the promotion history keeps who decided.", icon=":material/error:")
        return
    if canary and allow_signature_change:
        st.error("A canary answers production's requests: its signature must be the same.", icon=":material/error:")
        return
    try:
        decision = _decide(pending, account, who.strip(), why.strip(), allow_signature_change, canary)
    except ServiceError as error:
        show_error(error)
        return
    st.session_state[LAST] = decision
    _forget_pending()
    st.rerun()


def _explanation(pending: PendingDecision) -> str:
    production = escape_markdown(pending.production or "none")
    if pending.action == "promote":
        return (
            f"Version {escape_markdown(pending.version)} is checked first: its files, its answers, its signature, and "
            f"its metric on the held-out rows against production (version {production}). It goes into production "
            "only if it passes."
        )
    if pending.action == "end canary":
        return (
            f"Version {escape_markdown(pending.version or '')} answers no requests any more; production (version "
            f"{production}) answers them all."
        )
    return (
        f"Production leaves version {production} and returns to the version before. That version's files and answers "
        "are checked first."
    )


def _ask_for_share() -> float | None:
    """The share of the requests that the version is to answer beside production; None for all of them."""
    percent = st.number_input(
        "Percent of the requests",
        min_value=1,
        max_value=100,
        value=100,
        help="Below 100 production stays, and the version answers this share of the requests beside it, as a canary. "
        "Each replica of the API returns it to production by itself when it fails.",
    )
    return percent / 100 if percent < 100 else None


def _decide(
    pending: PendingDecision,
    account: tuple[str, str] | None,
    who: str,
    why: str,
    allow_signature_change: bool,
    canary: float | None,
) -> Decision:
    """Promote or roll back, start or end a canary, and say who decided. Raises ServiceError."""
    try:
        with st.spinner("Checking the version"), readable_mlflow_errors(), _deciding_client(account) as registry:
            if pending.action == "rollback":
                return rollback(registry, pending.model, who=who, why=why, cause=CAUSE)
            if pending.action == "end canary":
                return canaries.end(registry, pending.model, who=who, why=why, cause=CAUSE)
            definition = noted_definition(registry.model(pending.model))
            if definition is None:
                raise MlflowError(
                    f"no version of {pending.model} was judged by its model file yet, and what that asks for is not "
                    "known to this page",
                    cure=f"Promote with `prefect deployment run promote/promote -p model={pending.model}`.",
                )
            return promote(
                registry,
                pending.model,
                pending.version,
                definition=definition,
                who=who,
                why=why,
                cause=CAUSE,
                allow_signature_change=allow_signature_change,
                canary=canary,
            )
    except ServiceError as error:
        if account and isinstance(error.__cause__, Unauthorized):
            raise _account_refused(account[0]) from error
        raise
    except OSError as error:
        raise ServiceError(
            f"The version's files could not be stored for the checks: {error}.",
            "Set MLOPS_CACHE_DIR to a folder that can be written.",
        ) from error


def _ask_for_account() -> tuple[str, str] | None:
    """User and password of an account that may decide; None where MLflow asks for no account."""
    if not MlflowSettings().mlflow_tracking_username:
        return None
    left, right = st.columns(2)
    user = left.text_input("MLflow account", value="admin", key="account")
    password = right.text_input("Password", type="password", key="password")
    return user, password


def _deciding_client(account: tuple[str, str] | None) -> MlflowClient:
    if account is None:
        return MlflowClient()
    if not all(account):
        raise MlflowError("fill in account and password: the account of this page may only read")
    return MlflowClient(username=account[0], password=account[1])


def _account_refused(user: str) -> ServiceError:
    """The error for an account that MLflow refuses: the visitor who typed it can set no variables of this process."""
    cure = "Try the password again. The account `admin` may decide; whoever runs this platform has its password."
    namespace, _, secret = UiSettings().admin_secret.partition("/")
    if secret:
        command = (
            f"kubectl -n {namespace} get secret {secret} -o jsonpath='{{.data.mlflow-admin-password}}' | base64 -d"
        )
        cure += f" In the cluster, this command prints it: `{command}`"
    return ServiceError(f"MLflow refused the account {user} with this password, or it may not decide.", cure)
