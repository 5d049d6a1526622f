"""A job that cannot be read is set aside with one loud line; the worker lives, and the next jobs run."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import (
    FINISHED,
    INTERMEDIATE,
    QUARANTINE,
    QUEUE,
    STARTED,
    Drain,
    call,
    enqueue_many,
    put,
    rows,
    statuses,
)
from worker.demo import sample

Logged = Callable[[], list[dict[str, Any]]]

#: Values on which RQ's own reading of a job's hash fails, by field. RQ's worker ends on each of them.
UNREADABLE: dict[str, list[bytes]] = {
    "timeout": [b"soon", b"1h", b"1.5", b"inf", b"nan", b"1e400", b"9" * 30, b"\xff"],
    "status": [b"dancing", b"\xff"],
    "origin": [b"\xff"],
    "created_at": [b"yesterday", b"2026-99-99T00:00:00Z", b"2026-02-30T00:00:00.5Z", b"2026-01-01T00:00:00"],
    "enqueued_at": [b"0"],
    "started_at": [b"now"],
    "ended_at": [b"0000-01-01T00:00:00Z"],
    "last_heartbeat": [b"2026-01-01T00:00:00.1234567Z"],
    "description": [b"\xff\xfe"],
    "worker_name": [b"\xff"],
    "retries_left": [b"many"],
    "number_of_retries": [b"1.0"],
    "retry_intervals": [b"{", b"[1,,2]", b"\xff", b'["x"]', b"[[1]]", b"[null]", b"[true]", b"[]", b"[-1]"],
    "repeat_intervals": [b"[01]", b'["x"]', b"[1e300]", b"[NaN]", b"[Infinity]", b"[]"],
    "repeats_left": [b"x", b"1000", b"999999999999"],
    "result_ttl": [b"x", b"1.5", b"\xff"],
    "failure_ttl": [b"x"],
    "ttl": [b"x"],
    "success_callback_timeout": [b"x", b""],
    "failure_callback_timeout": [b"x"],
    "stopped_callback_timeout": [b"x"],
    "enqueue_at_front": [b"yes", b""],
    "enqueue_at_front_on_retry": [b"yes"],
    "allow_dependency_failures": [b"yes"],
    "dependency_ids": [b"[{]", b"\xff", b"[1]", b"[null]", b'["a b"]', b'["\\ud800"]'],
    "rate_limit_concurrency": [b"x"],
    "group_id": [b"\xff"],
    "\udcff": [b"a field's name that is not text"],
}
BAD_HASHES = [
    (f"{number}-{field}", field.encode(errors="surrogateescape"), value)
    for field, values in UNREADABLE.items()
    for number, value in enumerate(values)
]


#: The claim writes these anew, so they do no harm.
REWRITTEN = {"status", "started_at", "last_heartbeat", "worker_name"}


def quarantined(redis: Any) -> list[str]:
    return sorted(job_id.decode(errors="replace") for job_id in redis.lrange(QUARANTINE, 0, -1))


def lines(logged: Logged) -> list[str]:
    return sorted(line["job"] for line in logged() if line["event"] == "job_quarantined")


#: A turn reads these, and nothing else of a job but its data.
READ_BY_TURNS = {"result_ttl", "repeats_left", "group_id", "recoveries"}

Path = dict[str, Any]
TURN: Path = {}
ORDINARY: Path = {"group_id": "group"}


def put_bad(redis: Redis, app: sample.App, path: Path) -> dict[str, str]:
    """A job with a good event for each bad hash; returns their names by id."""
    for number, (_, field, value) in enumerate(BAD_HASHES):
        put(redis, f"bad-{number}", call([make.event(app, 100 + number)]), **path)
        redis.hset(f"rq:job:bad-{number}", mapping={field: value})
    return {f"bad-{number}": name for number, (name, *_) in enumerate(BAD_HASHES)}


def field(name: str) -> str:
    return name.partition("-")[2]


@pytest.mark.parametrize(
    ("path", "does_harm"),
    [(TURN, READ_BY_TURNS.__contains__), (ORDINARY, lambda name: name not in REWRITTEN)],
    ids=["turn", "ordinary"],
)
def test_unreadable_fields(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    drain: Drain,
    logged: Logged,
    path: Path,
    does_harm: Callable[[str], bool],
) -> None:
    first = enqueue_many(queue, app, 1)
    by_id = put_bad(redis, app, path)
    last = enqueue_many(queue, app, 1, first=1)

    drain()

    expected = sorted(name for name in by_id.values() if does_harm(field(name)))
    assert sorted(by_id[job_id] for job_id in quarantined(redis)) == expected
    assert sorted(by_id[job_id] for job_id in lines(logged)) == expected
    assert statuses(first + last) == ["finished", "finished"]


def test_a_turn_records_the_events_of_a_job_whose_other_fields_are_unreadable(
    redis: Redis, app: sample.App, drain: Drain, connection: psycopg.Connection
) -> None:
    harmless = [name for name in put_bad(redis, app, TURN).values() if field(name) not in READ_BY_TURNS]
    drain()
    assert (rows(connection), redis.zcard(FINISHED)) == (len(harmless), len(harmless))


@pytest.mark.parametrize("name", ["timeout", "description", "created_at"])
def test_an_unreadable_job_that_fails_is_set_aside(
    redis: Redis, drain: Drain, logged: Logged, name: str
) -> None:
    put(redis, "bad", call([{}]))
    redis.hset("rq:job:bad", mapping={name: UNREADABLE[name][0]})
    drain()
    assert (quarantined(redis), lines(logged), redis.zcard(STARTED)) == (["bad"], ["bad"], 0)


#: Job ids in the queue whose job is not a hash, or that are no job ids.
ODD_IDS: dict[str, Callable[[Redis, bytes], object]] = {
    "a-string": lambda redis, key: redis.set(key, "text"),
    "a-list": lambda redis, key: redis.rpush(key, "text"),
    "a-stream": lambda redis, key: redis.xadd(key, {"field": "text"}),
    "white space": lambda redis, key: redis.hset(key, mapping={"data": call([])}),
    "with:colon": lambda redis, key: redis.hset(key, mapping={"data": call([])}),
    "\udcff\udcfe": lambda redis, key: redis.hset(key, mapping={"data": call([])}),
}


def make_odd(redis: Redis, name: str) -> bytes:
    job_id = name.encode(errors="surrogateescape")
    ODD_IDS[name](redis, b"rq:job:" + job_id)
    return job_id


@pytest.mark.parametrize(
    ("place", "kept"), [(QUEUE, "a-"), (INTERMEDIATE, "")], ids=["queue", "intermediate"]
)
def test_ids_without_a_readable_hash(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, logged: Logged, place: str, kept: str
) -> None:
    """A turn runs a job whose id alone is odd, see `test_odd_ids`; RQ's maintenance cannot."""
    ids = [make_odd(redis, name) for name in ODD_IDS]
    redis.rpush(place, *ids)
    good = enqueue_many(queue, app, 1)
    drain()
    expected = sorted(job_id.decode(errors="replace") for job_id in ids if job_id.startswith(kept.encode()))
    assert (quarantined(redis), lines(logged), statuses(good)) == (expected, expected, ["finished"])


def test_ids_without_a_readable_hash_right_behind_a_job_of_the_ordinary_path(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain
) -> None:
    # RQ's own dequeueing goes on to the next id by itself when the first was set aside.
    put(redis, "bad", call([]), group_id="group", created_at="yesterday")
    redis.rpush(QUEUE, make_odd(redis, "a-string"))
    good = enqueue_many(queue, app, 1)
    drain()
    assert (quarantined(redis), statuses(good)) == (["a-string", "bad"], ["finished"])


def test_unreadable_hash_in_the_intermediate_queue(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, logged: Logged
) -> None:
    put(redis, "bad", call([]), status="dancing")
    redis.lmove(QUEUE, INTERMEDIATE)
    good = enqueue_many(queue, app, 1)
    drain()
    assert (quarantined(redis), lines(logged), statuses(good)) == (["bad"], ["bad"], ["finished"])


HOLDER = "f" * 32
DEAD_TURN = f"{HOLDER}-0-0"


@pytest.mark.parametrize(
    ("execution", "bad"), [("e" * 32, ["bad"]), (DEAD_TURN, [])], ids=["of RQ's path", "of a turn"]
)
@pytest.mark.parametrize("problem", [{"created_at": "x"}, {"description": b"\xff"}])
def test_unreadable_hash_in_the_started_registry(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    drain: Drain,
    logged: Logged,
    execution: str,
    bad: list[str],
    problem: dict[str, Any],
) -> None:
    # Its worker died long ago; a turn reads nothing of the hash that is bad. An abandoned good job behind it
    # must not have to wait for ever.
    put(redis, "bad", call([]), **problem)
    put(redis, "abandoned", call([]), status="started")
    redis.delete(QUEUE)
    redis.zadd(STARTED, {f"bad:{execution}": 1, f"abandoned:{'e' * 32}": 2})
    good = enqueue_many(queue, app, 1)
    drain()
    assert (quarantined(redis), lines(logged), statuses(good)) == (bad, bad, ["finished"])
    assert (redis.zcard(STARTED), redis.hget("rq:job:abandoned", "status")) == (0, b"failed")


@pytest.mark.parametrize(
    "member", [b"\xff\xff:" + DEAD_TURN.encode(), b"no-execution", b"a:b:" + DEAD_TURN.encode(), b":", b""]
)
@pytest.mark.parametrize("score", [1, 9999999999])
@pytest.mark.filterwarnings("ignore:Composite key must contain:DeprecationWarning")
def test_odd_members_of_the_started_registry(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, member: bytes, score: int
) -> None:
    redis.zadd(STARTED, {member: score})
    good = enqueue_many(queue, app, 1)
    drain()
    assert statuses(good) == ["finished"]


def lost(redis: Any, key: str, change: dict[str, Any] | None) -> None:
    """A dead worker's job in the started registry, its hash changed, or (None) no hash but text."""
    if change is None:
        redis.set(key, "text")
    else:
        redis.hset(key, mapping={"status": "started", "data": call([]), **change})


@pytest.mark.parametrize("change", [None, {"recoveries": "often"}, {"recoveries": 2**63 - 1}])
def test_a_dead_workers_job_that_cannot_be_taken_over(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, change: dict[str, Any] | None
) -> None:
    lost(redis, "rq:job:bad", change)
    redis.zadd(STARTED, {f"bad:{DEAD_TURN}": 9999999999})
    good = enqueue_many(queue, app, 1)
    drain()
    assert statuses(good) == ["finished"]
    assert redis.zscore(STARTED, f"bad:{DEAD_TURN}") is None


def test_a_dead_workers_job_whose_hash_is_gone_leaves_nothing(redis: Redis, drain: Drain) -> None:
    redis.zadd(STARTED, {f"gone:{DEAD_TURN}": 9999999999})
    drain()
    assert (redis.zcard(STARTED), redis.exists("rq:job:gone"), redis.llen(QUEUE)) == (0, 0, 0)


@pytest.mark.parametrize("size", [16 << 20, (16 << 20) + 1])
def test_a_job_larger_than_any_of_ours_is_set_aside_unread(redis: Redis, drain: Drain, size: int) -> None:
    put(redis, "large", b"x" * size, compressed=False)
    drain()
    assert quarantined(redis) == (["large"] if size > 16 << 20 else [])
