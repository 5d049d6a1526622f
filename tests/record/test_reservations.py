"""What the worker does about reservations: tidies what is over, and counts what is missing."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from rq import Queue

from tests import make
from tests.drain.conftest import Drain, drain, new_worker, queue, statuses
from worker import history
from worker.demo import sample
from worker.jobs import tidy_reservations
from worker.judge.batch import judge
from worker.record import reservations
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers.settings import Settings

__all__ = ["drain", "new_worker", "queue"]

KEYS = ["recorded", "waiting", "old"]


@pytest.fixture
def reserved(connection: psycopg.Connection, database: str, app: sample.App) -> psycopg.Connection:
    """Three reservations: one recorded since, one two hours old, one of which nobody will hear any more."""
    assert history.reserve(connection, KEYS) == set(KEYS)
    events = [make.event(app, idempotency_key="recorded")]
    record(connection, Tokens(Settings(database_url=database)), [judge(events)])
    for key, age in (("waiting", timedelta(hours=2)), ("old", timedelta(days=15))):
        connection.execute(
            "update notiflog.reservations set reserved_at = reserved_at - %(age)s,"
            " held_until = held_until - %(age)s where idempotency_key = %(key)s",
            {"age": age, "key": key},
        )
    return connection


def left(connection: psycopg.Connection) -> list[Any]:
    return [
        key for (key,) in connection.execute("select idempotency_key from notiflog.reservations order by 1")
    ]


def test_what_is_recorded_or_given_up_is_deleted(reserved: psycopg.Connection) -> None:
    assert (reservations.tidy(reserved), left(reserved)) == (2, ["waiting"])


def test_what_is_held_again_is_kept_however_old(reserved: psycopg.Connection) -> None:
    assert history.reserve(reserved, ["old"]) == {"old"}
    assert (reservations.tidy(reserved), left(reserved)) == (1, ["old", "waiting"])


def test_however_many_are_over(reserved: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reservations, "BATCH", 1)
    assert (reservations.tidy(reserved), left(reserved)) == (2, ["waiting"])


def test_what_is_missing_is_counted_with_its_age(reserved: psycopg.Connection) -> None:
    reserved.execute("delete from notiflog.reservations where idempotency_key = 'old'")
    prompts, age = reservations.missing(reserved)
    assert (prompts, age // 3600) == (1, 2)


def test_without_the_table_there_is_nothing_to_do(connection: psycopg.Connection) -> None:
    connection.execute("drop table notiflog.reservations cascade")
    assert (reservations.tidy(connection), reservations.missing(connection)) == (0, (0, 0))


def test_the_job_runs_under_the_draining_worker(
    queue: Queue, drain: Drain, reserved: psycopg.Connection, new_worker: Callable[..., Any]
) -> None:
    job = queue.enqueue(tidy_reservations)
    drain()
    assert (statuses([job]), left(reserved)) == (["finished"], ["waiting"])
