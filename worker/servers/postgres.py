"""Connections to PostgreSQL, and the settings of a transaction."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict

from . import round_trip
from .faults import explain, is_transient, judge
from .refusals import no_connection
from .round_trip import Statement
from .settings import ConfigError

#: What its faults mean is asked here, too.
__all__ = [
    "STATEMENT_TIMEOUT",
    "DatabaseFault",
    "Statement",
    "at_once",
    "connect",
    "explain",
    "is_transient",
    "judge",
    "transaction",
]

#: Seconds after which PostgreSQL ends a statement of ours.
STATEMENT_TIMEOUT = 60

# In every transaction, and never outside one: behind a transaction pooler a plain SET would reach other
# clients. The limits end a wait for a lock or for a half-open session's uncommitted key; all are below RQ's
# default job timeout of 180 s. Constraints are checked where they are broken: at the commit nobody could tell
# which row it was. The rest is what a role, a database or a server may have set otherwise, and
# what would change a result: how times, numbers and bytes are written and read, rows that row level security
# hides without an error, a commit that a crash undoes (only `off` is: the other values stay as they are).
# Not the search path, see `transaction`.
_LIMITS = f"""
select pg_catalog.set_config('lock_timeout', '2s', true),
       pg_catalog.set_config('statement_timeout', '{STATEMENT_TIMEOUT}s', true),
       pg_catalog.set_config('idle_in_transaction_session_timeout', '60s', true),
       pg_catalog.set_config('datestyle', 'ISO, MDY', true),
       pg_catalog.set_config('intervalstyle', 'postgres', true),
       pg_catalog.set_config('timezone', 'UTC', true),
       pg_catalog.set_config('bytea_output', 'hex', true),
       pg_catalog.set_config('extra_float_digits', '1', true),
       pg_catalog.set_config('standard_conforming_strings', 'on', true),
       pg_catalog.set_config('row_security', 'on', true),
       pg_catalog.set_config('synchronous_commit', case pg_catalog.current_setting('synchronous_commit')
         when 'off' then 'on' else pg_catalog.current_setting('synchronous_commit') end, true)
"""
_CHECK_AT_ONCE = "set constraints all immediate"

_SEAL = "select pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"


class DatabaseFault(Exception):
    """PostgreSQL refused for a reason that stays until somebody acts; says the remedy, and no data."""


def connect(database_url: str) -> psycopg.Connection:
    """Open a connection in autocommit mode, safe behind a transaction pooler.

    Raises NoConnection, a psycopg.OperationalError. `database_url` must be parseable, see `read_settings`.
    """
    try:
        parameters = conninfo_to_dict(database_url)
    except psycopg.ProgrammingError:
        raise ConfigError("the database URL cannot be parsed") from None  # libpq quotes it, password and all
    defaults = {
        "application_name": "notiflog",
        "connect_timeout": 10,
        # A host that vanishes closes nothing: without these a worker would wait for it for hours.
        "tcp_user_timeout": 30_000,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    # Whatever the address says: without it a server of encoding SQL_ASCII would give bytes for text.
    always = {"client_encoding": "utf8"}
    try:
        connection = psycopg.connect(
            **{**defaults, **parameters, **always},  # type: ignore[arg-type]
            autocommit=True,
            prepare_threshold=None,
        )
    except (psycopg.Error, UnicodeError) as error:  # the latter from a host that no name can be
        raise no_connection(error, parameters) from None
    # Part of BEGIN. The level of a role or server may be another, under which a key that somebody commits
    # meanwhile ends the transaction.
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    return connection


@contextmanager
def transaction(connection: psycopg.Connection, *, sealed: bool = False) -> Iterator[None]:
    """Run the block in one transaction with time limits, and with the settings that results depend on.

    `sealed`: bare names mean PostgreSQL's own objects, so that no function or operator that somebody put into
    `public` is called in their place. Not where triggers of the app run: they find their tables by the path.
    """
    with connection.transaction():
        connection.execute(f"{_LIMITS};{_CHECK_AT_ONCE}")
        if sealed:
            connection.execute(_SEAL)
        yield


def at_once(
    connection: psycopg.Connection, statements: Sequence[Statement], answers: list[list[Any]] | None = None
) -> list[list[Any]]:
    """Run statements in a transaction like `transaction`, all of it in one round trip.

    Returns the rows of each statement, as tuples of texts. `answers`: gets them, too, as far as they came
    before one failed. Raises psycopg.Error with nothing written.
    """
    begin = [Statement("BEGIN ISOLATION LEVEL READ COMMITTED"), Statement(_LIMITS), Statement(_CHECK_AT_ONCE)]
    found: list[list[Any]] = []
    try:
        round_trip.run(connection, [*begin, *statements, Statement("COMMIT")], found)
    finally:
        mine = found[len(begin) : len(begin) + len(statements)]
        if answers is not None:
            answers += mine
    return mine
