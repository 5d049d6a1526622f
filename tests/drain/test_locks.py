"""Somebody's lock keeps waiting what needs the row, and nothing else."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue, SimpleWorker

from tests import make
from tests.drain.conftest import FINISHED, INSIDE, JOB, STARTED, Start, rows, statuses, until
from worker.demo import sample

#: Statements that lock one row of the app's for long, with the parts of the event that need it.
LOCKS = {
    "a user": "select from public.users where id = %b for update",
    "a chapter": "select from public.chapters where id = %b for update",
}


def enqueue(queue: Queue, app: sample.App, n: int = 40) -> list[Any]:
    """Jobs of one event; every tenth is of the first user and the second chapter, all others of neither."""
    events = [
        make.event(
            app,
            number,
            peer_mentor_id=str(app.users[0 if number % 10 == 0 else 1]),
            chapter_id=str(app.chapters[1 if number % 10 == 0 else 0]),
        )
        for number in range(n)
    ]
    jobs: list[Any] = queue.enqueue_many(
        [Queue.prepare_data(JOB, args=([event],), description="outcomes", result_ttl=500) for event in events]
    )
    return jobs


@pytest.mark.parametrize("lock", LOCKS)
def test_a_locked_parent_keeps_its_own_jobs_waiting_and_no_other(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    start: Start,
    connection: psycopg.Connection,
    database: str,
    lock: str,
) -> None:
    jobs = enqueue(queue, app)
    parent = app.users[0] if lock == "a user" else app.chapters[1]
    with psycopg.connect(database, application_name="the app") as holder:
        holder.execute(LOCKS[lock].encode(), [parent])
        worker = start(**INSIDE, TEST_LOOK_AROUND="0.5")
        until(lambda: rows(connection) == 36)
        until(lambda: worker.logged("rows_waiting"))
        until(lambda: (redis.zcard(FINISHED), redis.zcard(STARTED)) == (36, 4))
        (line, *_) = worker.logged("rows_waiting")
        assert (line["table"], line["rows"]) == ("users" if lock == "a user" else "chapters", 4)
        assert "the app, idle in transaction" in line["holders"][0]
    until(lambda: set(statuses(jobs)) == {"finished"})
    assert (rows(connection), redis.zcard(STARTED)) == (40, 0)


def test_a_worker_that_stops_meanwhile_gives_the_waiting_jobs_back(
    redis: Redis, queue: Queue, app: sample.App, start: Start, connection: psycopg.Connection, database: str
) -> None:
    enqueue(queue, app)
    with psycopg.connect(database) as holder:
        holder.execute(LOCKS["a user"].encode(), [app.users[0]])
        worker = start(**INSIDE, TEST_LOOK_AROUND="0.5")
        until(lambda: rows(connection) == 36)
        worker.process.terminate()
        assert worker.wait() == 0
    assert (redis.llen("rq:queue:notiflog"), redis.zcard(STARTED)) == (4, 0)


def test_a_burst_ends_when_the_lock_is_gone(
    queue: Queue, app: sample.App, start: Start, connection: psycopg.Connection, database: str
) -> None:
    enqueue(queue, app)
    with psycopg.connect(database) as holder:
        holder.execute(LOCKS["a user"].encode(), [app.users[0]])
        worker = start("--burst", **INSIDE, TEST_LOOK_AROUND="0.5")
        until(lambda: worker.logged("rows_waiting"))
        assert worker.process.poll() is None
    assert worker.wait() == 0
    assert rows(connection) == 40


def test_under_the_stock_worker_the_job_records_what_it_can_and_comes_back(
    queue: Queue,
    app: sample.App,
    new_worker: Callable[..., Any],
    connection: psycopg.Connection,
    database: str,
) -> None:
    events = [make.event(app, number, peer_mentor_id=str(app.users[number % 2])) for number in range(4)]
    job = queue.enqueue(JOB, events, description="outcomes")
    with psycopg.connect(database) as holder:
        holder.execute(LOCKS["a user"].encode(), [app.users[0]])
        new_worker(SimpleWorker).work(burst=True, max_jobs=1)
        assert (rows(connection), job.get_status(refresh=True)) == (2, "queued")
    new_worker(SimpleWorker).work(burst=True)
    assert (rows(connection), job.get_status(refresh=True)) == (4, "finished")


def test_a_key_that_a_half_open_session_holds_keeps_no_other_waiting(
    queue: Queue, app: sample.App, start: Start, connection: psycopg.Connection, database: str
) -> None:
    enqueue(queue, app)
    with psycopg.connect(database) as holder:
        holder.execute(
            "insert into public.follow_up_notification_log (peer_mentor_id, chapter_id, scenario_rule_id,"
            " delivered_at, delivery_channel, idempotency_key, status)"
            " values (%b, %b, %b, now(), 'fcm', 'key-7', 'failed')",
            [app.users[1], app.chapters[0], app.rules[0]],
        )
        worker = start(**INSIDE, TEST_LOOK_AROUND="0.5")
        until(lambda: rows(connection) == 39)
        until(lambda: worker.logged("rows_waiting"))
        holder.rollback()
    until(lambda: rows(connection) == 40)
