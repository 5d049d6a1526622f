"""What PostgreSQL is like, beyond what a worker asks before it starts."""

from collections.abc import Iterator
from contextlib import closing, suppress

import psycopg
from psycopg.conninfo import make_conninfo

from .. import NAME
from ..command import count
from ..record import reservations
from ..retain import expiry
from ..servers import drift, postgres
from ..servers.drift import Drift
from ..servers.finding import Finding
from ..servers.findings import database_findings, unwritable
from ..servers.migrations import ledgers_are_closed, pending
from ..servers.settings import Settings
from ..servers.token_findings import future_registrations
from ..servers.token_shape import usable_shape


def database(settings: Settings) -> Iterator[Finding]:
    """Connects as the worker does, and changes nothing."""
    url = make_conninfo(settings.database_url, connect_timeout=5)
    try:
        with closing(postgres.connect(url)) as connection:
            connection.execute("select 1")  # a pooler answers before it has a server
            where = connection.info
            text = f"database {where.dbname} at {where.host} as {where.user}"
            yield Finding("postgres.reachable", "ok", text)
            yield from unwritable(connection)
            yield from database_findings(connection, settings)
            yield from _future_registrations(connection, settings)
            yield from _missing(connection)
            yield from _retention(connection, settings)
            with postgres.transaction(connection, sealed=True):
                found = drift.look(connection)
            yield _exposed(found)
            yield _migrations(connection, found)
            yield _pooler(connection, url)
    except psycopg.Error as error:
        fault = postgres.judge(error)
        yield Finding("postgres.reachable", "problem", fault.text, fault.remedy)


def _missing(connection: psycopg.Connection) -> Iterator[Finding]:
    with suppress(psycopg.DatabaseError):  # the role may not look: nobody reserves as it does
        prompts, age = reservations.missing(connection)
        if prompts:
            text = (
                f"reserved and never reported: {count(prompts, 'prompt')}, the oldest {age // 3600:,} h ago"
            )
            remedy = "did a scheduler die between sending and enqueueing? `history.outstanding` lists them"
            yield Finding("postgres.outstanding", "warning", text, remedy)


def _retention(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    if not settings.retain:
        return
    if problems := [problem.partition(": ") for problem in expiry.problems(connection)]:
        text = f"NOTIFLOG_RETAIN is set, but {'; '.join(text for text, _, _ in problems)}"
        remedy = "; ".join(remedy for _, _, remedy in problems)
        yield Finding("postgres.retention", "problem", text, remedy)
    else:
        text = f"the role may delete outcomes after {settings.retain.days} days"
        yield Finding("postgres.retention", "ok", text)


def _future_registrations(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    for table in dict.fromkeys(settings.tokens.values()):
        with suppress(psycopg.DatabaseError):  # said above: it cannot be read, or is too large to be in time
            shape = usable_shape(connection, table)
            with postgres.transaction(connection):
                connection.execute("select set_config('statement_timeout', '5s', true)")
                if finding := future_registrations(connection, shape):
                    yield finding


def _exposed(found: Drift) -> Finding:
    if found.exposed:
        return Finding("postgres.exposed", "problem", "; ".join(found.exposed), drift.REMEDY)
    return Finding("postgres.exposed", "ok", "nobody may do more than the migrations grant")


def _migrations(connection: psycopg.Connection, found: Drift) -> Finding:
    if ledgers_are_closed(connection):
        text = f"their owner can tell, with `python -m {NAME}.migrate --check`; this role may not look"
        return Finding("postgres.migrations", "ok", text)
    if names := [migration.name for migration in pending(connection)]:
        text = f"pending: {', '.join(names)}"
        return Finding("postgres.migrations", "problem", text, f"run `python -m {NAME}.migrate`")
    if found.missing:
        text = f"applied, and not there: {', '.join(found.missing)}"
        return Finding("postgres.migrations", "problem", text, drift.REMEDY)
    return Finding("postgres.migrations", "ok", "all applied")


def _pooler(connection: psycopg.Connection, url: str) -> Finding:
    """How the connection reaches its server process; all of these are fine."""
    with closing(postgres.connect(url)) as other:
        mine, others = set(), set()
        for _ in range(3):
            mine.add(_process(connection))
            others.add(_process(other))
    # Only in transaction mode does one client see several processes, or two clients the same.
    if len(mine) > 1 or mine & others:
        text = "a pooler in transaction mode"
    elif mine != {connection.info.backend_pid}:
        text = "a pooler in session mode"
    else:
        text = "none"
    return Finding("postgres.pooler", "ok", text)


def _process(connection: psycopg.Connection) -> int:
    (process,) = connection.execute("select pg_backend_pid()").fetchone() or (0,)
    return int(process)
