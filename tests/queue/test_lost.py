"""Jobs that stand nowhere are found, and put back."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.utils import utcformat

from tests import make
from tests.drain.conftest import (
    JOB,
    QUARANTINE,
    QUEUE,
    Drain,
    Start,
    call,
    drain,
    enqueue_many,
    environment,
    new_worker,
    queue,
    rows,
    start,
    until,
)
from worker.demo import sample
from worker.queue import lost
from worker.queue.keys import places
from worker.queue.lost import Lost, find_lost
from worker.replay import __main__ as replay

__all__ = ["drain", "environment", "new_worker", "queue", "start"]

OLD = utcformat(datetime.now(UTC) - timedelta(hours=1))


@pytest.fixture(autouse=True)
def address(valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_url)


def put(redis: Any, job_id: str = "job", data: bytes | None = None, **fields: str) -> str:
    """The hash of a job, and nothing else."""
    known = {"status": "queued", "origin": "notiflog", "enqueued_at": OLD, "data": data or call([])}
    redis.hset(f"rq:job:{job_id}", mapping={**known, **fields})
    return job_id


@pytest.mark.parametrize("status", ["queued", "started", "deferred", "scheduled"])
@pytest.mark.parametrize("job_id", ["job", "a:b"])
def test_a_job_that_stands_nowhere_is_found(redis: Redis, status: str, job_id: str) -> None:
    put(redis, job_id, status=status)
    assert find_lost(redis, "notiflog") == Lost([job_id.encode()], 1)


#: How a job stands somewhere, by the type of place.
STANDS: dict[str, Callable[[Any, str, str], object]] = {
    "list": lambda redis, key, job_id: redis.rpush(key, job_id),
    "zset": lambda redis, key, job_id: redis.zadd(key, {job_id: 1}),
}


@pytest.mark.parametrize("key", places("notiflog"))
def test_a_job_that_stands_somewhere_is_none(redis: Redis, key: str) -> None:
    put(redis)
    STANDS["list" if key in {QUEUE, f"{QUEUE}:intermediate", QUARANTINE} else "zset"](redis, key, "job")
    assert find_lost(redis, "notiflog").ids == []


@pytest.mark.parametrize("job_id", ["job", "a:b"])
@pytest.mark.parametrize("execution", ["e" * 32, "f" * 32 + "-0-1"])
def test_a_job_that_runs_is_none(redis: Redis, job_id: str, execution: str) -> None:
    put(redis, job_id, status="started")
    redis.zadd("rq:wip:notiflog", {f"{job_id}:{execution}": 1})
    assert find_lost(redis, "notiflog").ids == []


#: What makes a hash no lost job.
OTHERS: dict[str, dict[str, Any]] = {
    "done": {"status": "finished"},
    "failed": {"status": "failed"},
    "made and not enqueued yet": {"status": "created"},
    "of another queue": {"origin": "emails"},
    "enqueued just now": {"enqueued_at": utcformat(datetime.now(UTC) + timedelta(hours=1))},
    "started just now": {"started_at": utcformat(datetime.now(UTC) + timedelta(hours=1))},
    "running": {"last_heartbeat": utcformat(datetime.now(UTC) + timedelta(hours=1))},
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_is_no_lost_job(redis: Redis, other: str) -> None:
    put(redis, **OTHERS[other])
    assert find_lost(redis, "notiflog").ids == []


@pytest.mark.parametrize("key", places("notiflog"))
@pytest.mark.parametrize("kind", ["string", "hash"])
def test_a_place_of_another_type_hides_none(redis: Redis, key: str, kind: str) -> None:
    put(redis)
    redis.set(key, "text") if kind == "string" else redis.hset(key, "a", "b")
    assert find_lost(redis, "notiflog").ids == [b"job"]


def test_keys_of_others_are_passed_over(redis: Redis) -> None:
    redis.set("rq:job:text", "text")
    redis.sadd("rq:job:job:dependents", "other")
    redis.hset("job", "status", "queued")
    put(redis)
    assert find_lost(redis, "notiflog").ids == [b"job"]


def test_a_look_ends_in_time_and_says_how_far_it_came(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost, "_KEYS", 10)
    with redis.pipeline() as pipeline:
        for number in range(2000):
            put(pipeline, f"job-{number}")
        pipeline.execute()
    found = find_lost(redis, "notiflog", 0.02)
    assert 0 <= found.share < 1
    assert len(find_lost(redis, "notiflog").ids) == 2000


def test_a_busy_queue_seems_to_lose_none(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    connection: psycopg.Connection,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Jobs move while the look goes on; what was touched just now is not passed over here."""
    monkeypatch.setattr(lost, "QUIET", -1.0)
    start()
    seemed = []
    for number in range(60):
        enqueue_many(queue, app, 5, first=5 * number)
        seemed += find_lost(redis, "notiflog").ids
    until(lambda: rows(connection) == 300)
    assert seemed == []


def test_replay_lists_it_and_puts_it_back(
    redis: Redis,
    app: sample.App,
    connection: psycopg.Connection,
    drain: Drain,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(redis, data=call([make.event(app)]), status="started", result_ttl="0")
    assert replay.main(["--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["reasons"] == {"lost": 1}
    assert (listed["jobs"][0]["job_id"], listed["jobs"][0]["events"]) == ("job", 1)
    assert replay.main(["--reason", "lost"]) == 0
    assert (redis.lrange(QUEUE, 0, -1), find_lost(redis, "notiflog").ids) == ([b"job"], [])
    drain()
    assert (rows(connection), list(redis.scan_iter("rq:job:*"))) == (1, [])


def test_what_stands_again_meanwhile_is_not_put_back_twice(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(redis)
    found = Lost([b"job"], 1)
    monkeypatch.setattr("worker.queue.stopped.find_lost", lambda *_: found)
    redis.rpush(QUEUE, "job")
    assert replay.main(["--reason", "lost"]) == 0
    assert (redis.lrange(QUEUE, 0, -1), capsys.readouterr().out) == (
        [b"job"],
        "1 were not there any more: somebody else was faster\n",
    )


def test_a_lost_job_can_be_discarded(redis: Redis) -> None:
    put(redis)
    assert replay.main(["--discard", "job"]) == 0
    assert redis.keys() == []


def test_jobs_that_an_older_rq_tidied_away_come_back(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, drain: Drain
) -> None:
    """It takes what it cannot read out of the started registry: all workers were down."""
    jobs = [queue.enqueue(JOB, [make.event(app, number)], description="outcomes") for number in range(10)]
    redis.delete(QUEUE)
    for job in jobs:
        redis.hset(job.key, mapping={"status": "started", "enqueued_at": OLD})
    assert replay.main(["--all"]) == 0
    drain()
    assert rows(connection) == 10
