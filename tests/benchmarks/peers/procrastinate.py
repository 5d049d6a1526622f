"""procrastinate: jobs are rows of the same PostgreSQL, in their own schema, deleted once they have ended.

It runs them in the threads that asyncio has: 4 more than there are cores, which it cannot be told otherwise.
"""

from collections.abc import Sequence
from typing import Any

import psycopg
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector

from .work import DATABASE_URL, Events, Servers, record

COMMAND = (
    *("procrastinate", "--app", "tests.benchmarks.peers.procrastinate.app", "--log-level", "error"),
    *("worker", "--concurrency", "8", "--delete-jobs", "successful"),
)
_SCHEMA = "procrastinate"
_IN_ITS_SCHEMA = {"options": f"-c search_path={_SCHEMA}"}

# Connections for 8 jobs, for fetching, and for being notified of new ones.
app = App(connector=PsycopgConnector(conninfo=DATABASE_URL, kwargs=_IN_ITS_SCHEMA, max_size=10))
_task = app.task(name="record")(record)


def enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    """By the hundred in one statement, into empty tables."""
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(f"drop schema if exists {_SCHEMA} cascade")
        connection.execute(f"create schema {_SCHEMA}")
    connector = SyncPsycopgConnector(conninfo=servers.database_url, kwargs=_IN_ITS_SCHEMA)
    with app.replace_connector(connector) as near, near.open():
        near.schema_manager.apply_schema()
        for start in range(0, len(jobs), 100):
            arguments: list[dict[str, Any]] = [{"events": events} for events in jobs[start : start + 100]]
            _task.batch_defer(*arguments)
