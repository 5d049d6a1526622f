"""Connections to PostgreSQL, the settings of a transaction, and what its faults mean for a job."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict

from .. import NAME
from .settings import ConfigError

#: Seconds after which PostgreSQL ends a statement of ours.
STATEMENT_TIMEOUT = 60

# In every transaction, and never outside one: behind a transaction pooler a plain SET would reach other
# clients. The limits end a wait for a lock or for a half-open session's uncommitted key; all are below RQ's
# default job timeout of 180 s. Constraints are checked where they are broken: at the commit nobody could tell
# which row it was. The rest is what a role, a database or a server may have set otherwise, and
# what would change a result: how times, numbers and bytes are written and read, rows that row level security
# hides without an error, a commit that a crash undoes (only `off` is: the other values stay as they are).
# Not the search path: the triggers of the app find their tables by it.
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
         when 'off' then 'on' else pg_catalog.current_setting('synchronous_commit') end, true);
set constraints all immediate
"""

# Faults that pass by themselves, by SQLSTATE class or code.
_TRANSIENT = (
    "08",  # connection exception
    "25006",  # read-only: a failover is under way
    "25P03",  # idle in transaction too long: the network stalled
    "25P04",  # transaction_timeout, where somebody has set one
    "40",  # deadlock, serialization failure
    "53",  # out of connections, memory or disk
    "55P03",  # lock not available within lock_timeout
    "57",  # shutdown, crash recovery, cancelled by statement_timeout
    "58",  # system error, I/O
)

# What an unreachable server says that will not get better by waiting; a failed connect has no SQLSTATE, only
# words. What stands in quotation marks is not repeated: in the wrong place of the URL it may be the password.
_PERMANENT_CONNECT = re.compile(
    "|".join(
        (
            "password authentication failed",
            "no password supplied",
            "no pg_hba.conf entry",
            'database ".*" does not exist',
            'role ".*" does not exist',
            "certificate verify failed",
            "does not match host name",
            "(root )?certificate file",
            "private key file",
            "SSL was required",
            "weak sslmode",  # beside sslrootcert=system
            'definition of service ".*" not found',
            "unsupported startup parameter",
            "invalid",  # a port, an sslmode, ... in the URL
        )
    )
)

_REMEDIES = {
    "42P01": f"a table is missing: run `python -m {NAME}.migrate`, and check NOTIFLOG_TOKEN_TABLE",
    "42703": "a column is missing: check NOTIFLOG_TOKEN_COLUMN and NOTIFLOG_TOKEN_REGISTERED_COLUMN",
    "42501": "the role of DATABASE_URL lacks a privilege or a row level security policy: "
    "log in as a member of notiflog_worker, and grant it select and delete on the token table",
    "28P01": "wrong user or password in DATABASE_URL",
    "3D000": "the database named in DATABASE_URL does not exist",
}


class DatabaseFault(Exception):
    """PostgreSQL refused for a reason that stays until somebody acts; says the remedy, and no data."""


def connect(database_url: str) -> psycopg.Connection:
    """Open a connection in autocommit mode, safe behind a transaction pooler.

    Raises psycopg.OperationalError; `database_url` must be parseable (`config` has checked it).
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
    connection = psycopg.connect(
        **{**defaults, **parameters, **always},  # type: ignore[arg-type]
        autocommit=True,
        prepare_threshold=None,
    )
    # Part of BEGIN. The level of a role or server may be another, under which a key that somebody commits
    # meanwhile ends the transaction.
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    return connection


@contextmanager
def transaction(connection: psycopg.Connection) -> Iterator[None]:
    """Run the block in one transaction with time limits, and with the settings that results depend on."""
    with connection.transaction():
        connection.execute(_LIMITS)
        yield


def is_transient(error: psycopg.Error) -> bool:
    """Whether trying again later may help. Judged by SQLSTATE: psycopg's classes mix both kinds."""
    if error.sqlstate:
        return error.sqlstate.startswith(_TRANSIENT)
    # Without SQLSTATE: the connection was lost, or could not be made; libpq only has words for why.
    return isinstance(error, psycopg.OperationalError) and not _PERMANENT_CONNECT.search(str(error))


def explain(error: psycopg.Error) -> str:
    """A sentence for logs and job results: PostgreSQL's own message may quote rows, this never does."""
    if error.sqlstate:
        name = " ".join(
            filter(None, (error.diag.table_name, error.diag.column_name, error.diag.constraint_name))
        )
        what = f"{type(error).__name__} (SQLSTATE {error.sqlstate}{', ' + name if name else ''})"
        return f"{what}: {_REMEDIES.get(error.sqlstate, 'see the PostgreSQL log')}"
    found = _PERMANENT_CONNECT.search(str(error))
    words = re.sub(' ".*"', "", found[0]) if found else "no connection"
    return f"{type(error).__name__}: {words}: check DATABASE_URL and whether the server is up"
