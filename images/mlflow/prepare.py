"""Prepares MLflow's databases before its server starts: this version's tables, and the accounts of the Secret.

It writes to the databases themselves, so the server never runs with other accounts than these. On SQLite nobody else
has them open then; on PostgreSQL several pods may start together, and take turns. A database of a later version is
refused (images/tracking/migration.py). The image has none of the platform's own code.

Accounts: `admin`; `reader` (the API and the pages) reads everything and writes the experiment `feedback`; `trainer`
(the training Jobs) registers; `gate` (the promotion Jobs) moves aliases and writes the experiment `promotions`. What is
granted here is what MLflow can tell apart; account_rules.py draws the line.
"""

from __future__ import annotations

import configparser
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from images.tracking.migration import Database, Schema, must_migrate, prepare, refusals

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

TURN = 0x6D6C6F7073  # the number of the lock, "mlops" in ASCII
FEEDBACK = "feedback"  # the experiment of app/registry/feedback_store.py
PROMOTIONS = "promotions"  # the experiment of app/registry/ledger.py
SQLITE = "sqlite:///"
TRACKING = Schema.of("MLflow", "mlflow", "store/db_migrations/versions")
ACCOUNTS = Schema.of("MLflow", "mlflow", "server/auth/db/migrations/versions", "alembic_version_auth")


@contextmanager
def my_turn(uri: str) -> Iterator[None]:
    """Wait until no other pod prepares the databases, and keep others waiting: by an advisory lock of PostgreSQL.

    Args:
        uri: the tracking database, for SQLAlchemy.
    """
    import sqlalchemy
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(uri)
    try:
        # Asked again and again: a statement that waits would keep CREATE INDEX CONCURRENTLY waiting.
        # Not in a transaction, which PostgreSQL may be told to end when it idles.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not connection.scalar(sqlalchemy.text("SELECT pg_try_advisory_lock(:turn)"), {"turn": TURN}):
                time.sleep(1)
            yield
    finally:
        engine.dispose()  # closes the connection, and with it goes the lock


def upgrade_tracking(engine: Engine) -> None:
    """Create or migrate the tracking database."""
    from mlflow.store.db import utils

    utils._safe_initialize_tables(engine)
    utils._upgrade_db(engine)


def upgrade_accounts(engine: Engine) -> None:
    """Create or migrate the account database."""
    from mlflow.server.auth.db import utils

    utils.migrate_if_needed(engine, "head")


def migrate_files(tracking: str, accounts: str) -> None:
    """Bring databases of SQLite to this version's tables. Raises Refusal where one is of a later version.

    Args:
        tracking, accounts: the databases, for SQLAlchemy.
    """
    chosen = ((tracking, TRACKING, upgrade_tracking), (accounts, ACCOUNTS, upgrade_accounts))
    prepare(
        [Database(Path(uri.removeprefix(SQLITE)), schema, partial(on_file, upgrade)) for uri, schema, upgrade in chosen]
    )


def migrate_postgres(tracking: str, accounts: str) -> None:
    """The same in PostgreSQL; nothing is migrated where one is refused."""
    from mlflow.store.db import utils

    todo = []
    for uri, schema, upgrade in ((tracking, TRACKING, upgrade_tracking), (accounts, ACCOUNTS, upgrade_accounts)):
        engine = utils.create_sqlalchemy_engine_with_retry(uri)
        if must_migrate(schema, revisions(engine, schema), engine.url.render_as_string()):
            todo.append((engine, upgrade))
    for engine, upgrade in todo:
        upgrade(engine)
        engine.dispose()


def on_file(upgrade: Callable[[Engine], None], file: Path) -> None:
    """Have a SQLite database created or migrated."""
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine_with_retry(f"{SQLITE}{file}")
    try:
        upgrade(engine)
    finally:
        engine.dispose()


def revisions(engine: Engine, schema: Schema) -> list[str]:
    """What a database says of its schema; nothing where it is empty."""
    import sqlalchemy

    with engine.connect() as connection:
        if not sqlalchemy.inspect(connection).has_table(schema.table):
            return []
        return list(connection.scalars(sqlalchemy.text(f"SELECT version_num FROM {schema.table}")))  # noqa: S608


def prepare_experiments(uri: str) -> dict[str, str]:
    """Create the platform's experiments where they are missing or deleted.

    Args:
        uri: the tracking database, for SQLAlchemy.

    Returns:
        their ids by name: whoever creates an experiment owns it, so none of these is left to an account.
    """
    from mlflow.entities import ViewType
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking

    store = Tracking(uri, "mlflow-artifacts:/")
    ids = {}
    for name in (FEEDBACK, PROMOTIONS):
        experiments = store.search_experiments(ViewType.ALL, filter_string=f"name = '{name}'")
        if experiments and experiments[0].lifecycle_stage == "deleted":
            store.restore_experiment(experiments[0].experiment_id)
        ids[name] = str(experiments[0].experiment_id if experiments else store.create_experiment(name))
    return ids


def prepare_accounts(uri: str, passwords: dict[str, str], experiments: dict[str, str]) -> None:
    """Create the accounts, or set their passwords anew, and give them their rights.

    Args:
        uri: the account database, for SQLAlchemy.
        passwords: by account.
        experiments: the ids of the platform's experiments, by name.
    """
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore as Accounts

    store = Accounts()
    store.init_db(uri)
    for name, password in passwords.items():
        is_admin = name == "admin"
        if not store.has_user(name):
            store.create_user(name, password, is_admin=is_admin)
        elif not store.authenticate_user(name, password):
            store.update_user(name, password, is_admin=is_admin)
    store.grant_user_permission("reader", "experiment", experiments[FEEDBACK], "EDIT")
    store.grant_user_permission("gate", "experiment", experiments[PROMOTIONS], "EDIT")
    store.grant_user_permission("gate", "registered_model", "*", "MANAGE")  # EDIT may set an alias, not delete one
    for kind in ("experiment", "registered_model"):
        store.grant_user_permission("trainer", kind, "*", "EDIT")


def write_configuration(path: Path, uri: str) -> None:
    """Write the configuration of MLflow's account plugin: every account may read what it was granted no rights on.

    Args:
        uri: the account database, for SQLAlchemy.
    """
    config = configparser.ConfigParser(interpolation=None)
    config["mlflow"] = {
        "default_permission": "READ",
        "database_uri": uri,
        "admin_username": "admin",
        "authorization_function": "account_rules:authenticate",
        # computing a password's hash takes 50 ms, too much for every request
        "auth_cache_ttl_seconds": "60",
    }
    with path.open("w") as file:
        config.write(file)


def main() -> None:
    """Prepare both databases as the environment says."""
    environment = os.environ
    uri = environment["MLOPS_AUTH_DATABASE_URI"]
    passwords = {
        "admin": environment["MLFLOW_AUTH_ADMIN_PASSWORD"],
        "reader": environment["READER_PASSWORD"],
        "trainer": environment["TRAINER_PASSWORD"],
        "gate": environment["GATE_PASSWORD"],
    }
    # First, because importing MLflow's accounts reads it.
    write_configuration(Path(environment["MLFLOW_AUTH_CONFIG_PATH"]), uri)
    tracking = environment["MLFLOW_BACKEND_STORE_URI"]
    with refusals():
        if tracking.startswith(SQLITE):
            migrate_files(tracking, uri)
            prepare_accounts(uri, passwords, prepare_experiments(tracking))
        else:
            with my_turn(tracking):
                migrate_postgres(tracking, uri)
                prepare_accounts(uri, passwords, prepare_experiments(tracking))


if __name__ == "__main__":
    main()
