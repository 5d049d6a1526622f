"""Every script, with each of the keys it shares of each wrong type: no job is lost, and the work goes on."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from tests.drain.conftest import (
    FAILED,
    FINISHED,
    LEASES,
    QUARANTINE,
    QUEUE,
    STARTED,
    Drain,
    enqueue_many,
    put,
    statuses,
)
from worker.demo import sample
from worker.drain import DrainWorker
from worker.drain.claimed import Done
from worker.drain.claims import Claims
from worker.queue.repair import discard, requeue
from worker.queue.stopped import stopped_jobs

#: Ways to put something of a type there.
TYPES: dict[str, Callable[[Redis, str], Any]] = {
    "string": lambda redis, key: redis.set(key, "x"),
    "list": lambda redis, key: redis.rpush(key, "x"),
    "set": lambda redis, key: redis.sadd(key, "x"),
    "hash": lambda redis, key: redis.hset(key, "x", "y"),
    "zset": lambda redis, key: redis.zadd(key, {"x": 1}),
    "stream": lambda redis, key: redis.xadd(key, {"x": "y"}),
}


def spoil(redis: Redis, key: str, kind: str) -> None:
    """Put something of another type there; whatever stood there before is kept aside for the test."""
    redis.delete(key)
    TYPES[kind](redis, key)


def everywhere(redis: Redis) -> list[str]:
    """The ids of jobs in all lists and registries there are, renamed ones too; forged entries left out."""
    found: list[Any] = []
    for key in redis.scan_iter("rq:*"):
        if key.startswith((b"rq:job:", b"rq:worker", b"rq:notiflog:leases", b"rq:notiflog:renamed")):
            continue
        kind = redis.type(key)
        if kind == b"list":
            found += redis.lrange(key, 0, -1)
        elif kind == b"zset":
            members: list[Any] = redis.zrange(key, 0, -1)
            found += [member.partition(b":")[0] for member in members]
    return sorted(each.decode() for each in found if each != b"x")


@pytest.fixture
def claims(new_worker: Callable[..., Any]) -> Claims:
    worker: DrainWorker = new_worker()
    return Claims(worker, worker.timing)


#: Keys that claiming shares with others; the queue itself, spoiled, holds no job.
CLAIM = [STARTED, LEASES, QUARANTINE]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", CLAIM)
def test_claiming_loses_no_job(
    redis: Redis, queue: Queue, app: sample.App, claims: Claims, key: str, kind: str
) -> None:
    jobs = enqueue_many(queue, app, 5)
    put(redis, "not a job!", None)
    spoil(redis, key, kind)
    turn = claims.claim(100)
    assert [job.job_id for job in turn.jobs] == [job.id for job in jobs]
    assert everywhere(redis) == sorted(["not a job!", *(job.id for job in jobs)])


def test_a_job_that_was_to_expire_does_not_while_it_is_claimed(
    redis: Redis, queue: Queue, app: sample.App, claims: Claims
) -> None:
    (job,) = enqueue_many(queue, app, 1, ttl=60)
    claims.claim(1)
    assert redis.ttl(job.key) == -1


def test_a_job_that_ran_before_does_not_expire_while_it_is_claimed(
    redis: Redis, queue: Queue, app: sample.App, claims: Claims, drain: Drain
) -> None:
    (job,) = enqueue_many(queue, app, 1, result_ttl=60)
    drain()
    queue.enqueue_job(Job.fetch(job.id, connection=redis))
    assert redis.ttl(job.key) > 0
    claims.claim(1)
    assert redis.ttl(job.key) == -1


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", [FINISHED, LEASES])
def test_finishing_loses_no_job(
    redis: Redis, queue: Queue, app: sample.App, claims: Claims, key: str, kind: str
) -> None:
    jobs = enqueue_many(queue, app, 3, result_ttl=500)
    turn = claims.claim(100)
    spoil(redis, key, kind)
    assert claims.finish([Done(job, 500, "") for job in turn.jobs], 0.0, 0.0, {}) == set()
    assert statuses(jobs) == ["finished"] * 3
    assert set(queue.finished_job_registry.get_job_ids(cleanup=False)) >= {job.id for job in jobs}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", [QUEUE, LEASES])
def test_giving_back_loses_no_job(
    redis: Redis, queue: Queue, app: sample.App, claims: Claims, key: str, kind: str
) -> None:
    jobs = enqueue_many(queue, app, 3)
    turn = claims.claim(100)
    spoil(redis, key, kind)
    assert claims.release([job.member for job in turn.jobs]).queued == 3
    assert set(everywhere(redis)) >= {job.id for job in jobs}
    assert set(queue.job_ids) >= {job.id for job in jobs}


@pytest.mark.parametrize("kind", TYPES)
def test_setting_aside_loses_no_job(
    redis: Redis, queue: Queue, app: sample.App, claims: Claims, kind: str
) -> None:
    (job,) = enqueue_many(queue, app, 1)
    turn = claims.claim(1)
    spoil(redis, QUARANTINE, kind)
    claims.quarantine(turn.jobs[0])
    assert everywhere(redis) == [job.id]


@pytest.mark.parametrize("act", [requeue, discard])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("key", [QUEUE, QUARANTINE])
def test_replaying_and_discarding_lose_no_job(
    redis: Redis, queue: Queue, app: sample.App, act: Any, key: str, kind: str
) -> None:
    (job,) = enqueue_many(queue, app, 1)
    redis.delete(QUEUE)
    redis.zadd(FAILED, {job.id: 2_000_000_000})
    redis.hset(job.key, "status", "failed")
    stopped = list(stopped_jobs(redis))
    spoil(redis, key, kind)
    assert act(redis, stopped) == ["requeued" if act is requeue else "discarded"]
    assert everywhere(redis) == ([job.id] if act is requeue else [])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "beside", ["rq:results:{}", "rq:job:{}:dependents", "rq:job:{}:dependencies", "rq:executions:{}"]
)
def test_what_stands_beside_one_job_stops_no_other(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, beside: str, kind: str
) -> None:
    jobs = enqueue_many(queue, app, 10, result_ttl=500)
    spoil(redis, beside.format(jobs[4].id), kind)
    drain()
    good = [job for job in jobs if job is not jobs[4]]
    assert statuses(good) == ["finished"] * 9
    assert queue.count == 0


def test_a_lease_of_a_clock_that_was_ahead_has_ended(
    redis: Redis, queue: Queue, app: sample.App, claims: Claims, drain: Drain
) -> None:
    jobs = enqueue_many(queue, app, 3)
    claims.claim(100)
    leases: list[Any] = redis.zrange(LEASES, 0, -1)
    redis.zadd(LEASES, dict.fromkeys(leases, redis.time()[0] + 3600))
    drain()
    assert statuses(jobs) == ["finished"] * 3
