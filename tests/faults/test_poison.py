"""One key of Redis spoiled at a time: the worker lives, every good event is recorded, and no job is lost.

Beside plain jobs one fails, one has a dependent, one is of a group, and one was a dead worker's. By default
each key is spoiled in one way, with `python -m tests.faults.poison` in every way.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.group import Group

from tests import make
from tests.drain.conftest import JOB, QUEUE, STARTED, Drain, call, drain, new_worker, put, queue
from worker.demo import sample
from worker.queue.keys import RENAMED, kinds_beside, shared_kinds
from worker.record import brake, counters

__all__ = ["drain", "new_worker", "queue"]

#: Ways to put a value of a type there.
TYPES: dict[str, Callable[[Any, str], object]] = {
    "string": lambda redis, key: redis.set(key, b"\xff"),
    "list": lambda redis, key: redis.rpush(key, b"\xff"),
    "set": lambda redis, key: redis.sadd(key, b"\xff"),
    "hash": lambda redis, key: redis.hset(key, mapping={b"\xff": b"\xff"}),
    "zset": lambda redis, key: redis.zadd(key, {b"\xff": 1}),
    "stream": lambda redis, key: redis.xadd(key, {b"\xff": b"\xff"}),
}
DEAD = "f" * 32 + "-0-0"
#: The right type, but nothing that RQ or we would put there.
ODD: dict[str, Callable[[Any, str], object]] = {
    "list": lambda redis, key: redis.rpush(key, b"\xff\xfe", b"", b"no such job", b"a" * 5000),
    "set": lambda redis, key: redis.sadd(key, b"\xff\xfe", b"", b"no such job", b"rq:worker:none"),
    "hash": lambda redis, key: redis.hset(
        key, mapping={b"\xff": b"\xff", b"fcm:dead": b"x", b"data": b"\xff"}
    ),
    "zset": lambda redis, key: redis.zadd(
        key, {b"\xff\xfe": 1, b"": 2, b":": 3, b"\xff:" + DEAD.encode(): 4e9, DEAD: "inf", f"none:{DEAD}": 5}
    ),
    "stream": lambda redis, key: redis.xadd(
        key, {b"\xff": b"\xff"}, id="18446744073709551615-18446744073709551615"
    ),
}


class Case(NamedTuple):
    """A key, and what is put there: `odd`, or another type than `right`."""

    key: str
    right: str
    put: str

    def spoil(self, redis: Redis) -> None:
        redis.delete(self.key) if self.put != "odd" else None
        (ODD[self.right] if self.put == "odd" else TYPES[self.put])(redis, self.key)


JOBS = ("kept", "discarded", "rejected", "parent", "child", "grouped", "dead")


def keys() -> dict[str, str]:
    """Every key that a run reads or writes, with its right type; the queue itself, spoiled, holds no job."""
    found = shared_kinds("notiflog") | {RENAMED: "list", "rq:worker:poisoned:executions": "set"}
    del found[QUEUE]
    for job_id in JOBS:
        found |= kinds_beside(job_id) | {f"rq:job:{job_id}": "hash"}
    found |= {f"{brake.key('sends')}:{unit}:now": "hash" for unit in ("minute", "hour")}
    found |= {counters.KEY: "hash", f"{counters.KEY}:day:now": "hash"}
    return found


ALL = [
    Case(key, right, put)
    for key, right in keys().items()
    for put in (*(kind for kind in TYPES if kind != right), "odd")
]
# Of each key one, and over all keys every way.
SOME = [[case for case in ALL if case.key == key][at % 6] for at, key in enumerate(keys())]


def event(app: sample.App, job_id: str) -> dict[str, Any]:
    return make.event(app, JOBS.index(job_id), idempotency_key=job_id)


def enqueue(redis: Redis, queue: Queue, app: sample.App) -> None:
    """One job of each kind."""
    queue.enqueue(JOB, [event(app, "kept")], job_id="kept", result_ttl=500)
    queue.enqueue(JOB, [event(app, "discarded")], job_id="discarded", result_ttl=0)
    queue.enqueue(JOB, [event(app, "rejected"), {}], job_id="rejected")
    queue.enqueue(JOB, [event(app, "parent")], job_id="parent")
    queue.enqueue(JOB, [event(app, "child")], job_id="child", depends_on="parent")
    grouped = Queue.prepare_data(JOB, args=([event(app, "grouped")],), job_id="grouped")
    Group.create(redis).enqueue_many(queue, [grouped])
    put(redis, "dead", call([event(app, "dead")]), worker_name="died")
    redis.lrem(QUEUE, 1, "dead")
    redis.zadd(STARTED, {f"dead:{DEAD}": 4e9})


def at_now(redis: Any, key: str) -> str:
    """Some keys are named by the time."""
    seconds = redis.time()[0]
    for unit, length in (("minute", 60), ("hour", 3600), ("day", 86400)):
        key = key.replace(f"{unit}:now", f"{unit}:{seconds // length}")
    return key


def standing(redis: Any) -> set[str]:
    """The ids of jobs in any list or registry, also in renamed ones."""
    found: set[bytes] = set()
    for key in redis.scan_iter("rq:*"):
        match redis.type(key):
            case b"list":
                found |= set(redis.lrange(key, 0, -1))
            case b"zset":
                found |= {member.partition(b":")[0] for member in redis.zrange(key, 0, -1)}
    return {job_id.decode(errors="replace") for job_id in found}


@pytest.mark.parametrize(
    "case",
    ALL if os.environ.get("NOTIFLOG_TEST_POISON") == "all" else SOME,
    ids=lambda case: f"{case.key} {case.put}",
)
@pytest.mark.filterwarnings("ignore:Composite key must contain:DeprecationWarning")
def test_a_spoiled_key(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, connection: psycopg.Connection, case: Case
) -> None:
    enqueue(redis, queue, app)
    case = case._replace(key=at_now(redis, case.key))
    before = standing(redis)
    case.spoil(redis)
    overwritten = before - standing(redis)

    drain(name="poisoned")
    drain(name="the-next")  # of what comes back

    rows = connection.execute("select idempotency_key from public.follow_up_notification_log").fetchall()
    recorded = {key for (key,) in rows}
    of_the_key = {job_id for job_id in JOBS if case.key == f"rq:job:{job_id}"}
    # Whoever deletes what RQ knows of a child has to enqueue it again.
    of_the_child = {"child"} if case.key in CHILDS_KEYS else set()
    excused = overwritten | of_the_key | of_the_child
    assert recorded >= set(JOBS) - excused
    assert recorded | standing(redis) >= set(JOBS) - overwritten
    assert not redis.llen(QUEUE)


#: What makes RQ know that the child waits, and for whom.
CHILDS_KEYS = (
    "rq:job:parent",
    "rq:job:parent:dependents",
    "rq:job:child:dependencies",
    "rq:deferred:notiflog",
)
