"""Earlier RQs take any text for a job's id, RQ 3 does not: such a job is recorded under another."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests import make
from tests.drain.conftest import (
    FAILED,
    LEASES,
    QUARANTINE,
    STARTED,
    Drain,
    Start,
    call,
    log_table_locked,
    put,
    rows,
    until,
    waiting_writers,
)
from worker.demo import sample
from worker.replay import __main__ as replay

Logged = Callable[[], list[dict[str, Any]]]

IDS = [
    "outcomes:2026-W47:1",
    "a:b",
    "week.47",
    "chapters/1",
    "a b",
    "line\nfeed",
    "M\u00fcller",
    "x" * 300 + "!",
    "{tag}",
    "*",
]


def jobs(redis: Any) -> list[bytes]:
    return sorted(redis.scan_iter("rq:job:*"))


@pytest.mark.parametrize("job_id", IDS)
def test_is_recorded_and_leaves_nothing(
    redis: Any,
    app: sample.App,
    connection: psycopg.Connection,
    drain: Drain,
    logged: Logged,
    job_id: str,
) -> None:
    put(redis, job_id, call([make.event(app)]), result_ttl="0")
    drain()
    assert rows(connection) == 1
    assert (jobs(redis), redis.zcard(STARTED), redis.llen(QUARANTINE)) == ([], 0, 0)
    (line,) = [line for line in logged() if line["event"] == "job_renamed"]
    assert line["was"] == job_id


@pytest.mark.parametrize(
    "path", [{}, {"group_id": "group"}, {"repeats_left": "1", "repeat_intervals": "[0]"}]
)
def test_goes_every_path(
    redis: Any, app: sample.App, connection: psycopg.Connection, drain: Drain, path: Any
) -> None:
    put(redis, "a:b", call([make.event(app)]), **path)
    drain()
    assert (rows(connection), redis.zcard(STARTED), redis.llen(QUARANTINE)) == (1, 0, 0)


def test_several_of_one_turn_stay_apart(
    redis: Any, app: sample.App, connection: psycopg.Connection, drain: Drain
) -> None:
    for number, job_id in enumerate(IDS):
        put(redis, job_id, call([make.event(app, number)]), result_ttl="0")
    drain()
    assert (rows(connection), jobs(redis)) == (len(IDS), [])


def test_a_failed_one_can_be_replayed(
    redis: Any,
    valkey_url: str,
    app: sample.App,
    connection: psycopg.Connection,
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    put(redis, "a:b", call([make.event(app, chapter_id=make.stranger())]))
    drain()
    ((failed),) = redis.zrange(FAILED, 0, -1)
    assert (failed.startswith(b"renamed-"), jobs(redis)) == (True, [b"rq:job:" + failed])
    connection.execute("insert into public.chapters (id) values (%s)", [make.stranger()])
    assert replay.main(["--all"]) == 0
    drain()
    assert (rows(connection), redis.zcard(FAILED)) == (1, 0)


def test_one_that_was_set_aside_is_replayed_under_a_new_id(
    redis: Any,
    valkey_url: str,
    app: sample.App,
    connection: psycopg.Connection,
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)
    put(redis, "a:b", call([make.event(app)]), result_ttl="0")
    redis.rename("rq:queue:notiflog", QUARANTINE)
    assert replay.main(["--all"]) == 0
    ((key),) = jobs(redis)
    assert key.removeprefix(b"rq:job:") == redis.lindex("rq:queue:notiflog", 0) != b"a:b"
    drain()
    assert (rows(connection), jobs(redis), redis.llen(QUARANTINE)) == (1, [], 0)


def test_comes_back_from_a_worker_that_was_killed(
    redis: Any, app: sample.App, database: str, connection: psycopg.Connection, start: Start, drain: Drain
) -> None:
    put(redis, "a:b", call([make.event(app)]), result_ttl="0")
    with log_table_locked(database):
        worker = start()
        until(lambda: waiting_writers(connection) == 1)
        worker.process.kill()
        worker.wait()
    redis.delete(LEASES)
    drain()
    assert (rows(connection), jobs(redis), redis.zcard(STARTED)) == (1, [], 0)


def test_is_set_aside_where_others_wait_for_it(redis: Any, app: sample.App, drain: Drain) -> None:
    put(redis, "a:b", call([make.event(app)]))
    redis.sadd("rq:job:a:b:dependents", "other")
    drain()
    assert redis.lrange(QUARANTINE, 0, -1) == [b"a:b"]
