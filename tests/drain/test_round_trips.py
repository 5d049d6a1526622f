"""How often a turn asks the servers, which may be far away. A change that asks once more is to be noticed."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import Drain, enqueue_many
from worker.demo import sample
from worker.drain import claims, worker
from worker.judge.batch import judge
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers.settings import Settings


@contextmanager
def watched(redis: Redis) -> Iterator[Counter[str]]:
    """Counts the commands that reach Redis from outside within the block, by name; a transaction is one."""
    seen: Counter[str] = Counter()
    with redis.monitor() as monitor:  # type: ignore[no-untyped-call]

        def listen() -> None:
            inside = False
            for command in monitor.listen():
                name = command["command"].split()[0]
                if name == "ECHO":
                    return
                if command["client_type"] != "lua":
                    seen[name] += not inside
                inside = name == "MULTI" or (inside and name != "EXEC")

        listener = Thread(target=listen)
        listener.start()
        yield seen
        redis.echo("done")
        listener.join()


def asked(redis: Redis, queue: Queue, app: sample.App, drain: Drain, jobs: int) -> Counter[str]:
    enqueue_many(queue, app, jobs)
    with watched(redis) as seen:
        drain()
    return seen


def test_a_turn_asks_redis_to_claim_to_count_and_to_finish(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (claims, worker):
        monkeypatch.setattr(module, "TURN_JOBS", 3)
    asked(redis, queue, app, drain, 1)  # Redis knows the scripts now
    few = asked(redis, queue, app, drain, 6)
    many = asked(redis, queue, app, drain, 36)
    more = many - few
    # An empty queue is asked now and then while the last turns are written, and connections are made.
    assert round(more["EVALSHA"] / 10) == 3
    assert more.keys() <= {"EVALSHA", "HELLO", "CLIENT"}


@contextmanager
def traced(connection: psycopg.Connection) -> Iterator[list[str]]:
    """The names of the messages that go to PostgreSQL within the block."""
    sent: list[str] = []
    with tempfile.TemporaryFile("w+") as file:
        connection.pgconn.trace(file.fileno())
        yield sent
        connection.pgconn.untrace()
        file.seek(0)
        sent += re.findall(r"^[\d .:-]+\tF\t\d+\t(\w+)", file.read(), re.MULTILINE)


def event(app: sample.App, kind: str, number: int = 0) -> dict[str, Any]:
    results = {"delivered": make.result(), "dead": make.unregistered("dead-token")}
    return make.event(app, number, results=[results[kind]])


@pytest.mark.parametrize("kind", ["delivered", "dead"])
def test_a_turn_asks_postgres_once(
    connection: psycopg.Connection, database: str, app: sample.App, kind: str
) -> None:
    tokens = Tokens(Settings(database_url=database))
    record(connection, tokens, [judge([event(app, "dead")])])  # how the table of tokens looks is known now
    with traced(connection) as sent:
        (report,) = record(connection, tokens, [judge([event(app, kind, 1)])])
    assert report.summary["duplicates"] == 0
    assert (sent.count("Sync"), "Query" in sent) == (1, False)


def test_a_turn_of_recorded_events_asks_once_more(
    connection: psycopg.Connection, database: str, app: sample.App
) -> None:
    tokens = Tokens(Settings(database_url=database))
    record(connection, tokens, [judge([event(app, "delivered")])])
    with traced(connection) as sent:
        (report,) = record(connection, tokens, [judge([event(app, "delivered")])])
    assert (report.summary["duplicates"], sent.count("Sync")) == (1, 2)
