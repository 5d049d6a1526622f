"""What somebody puts into Redis beside good jobs ends no worker, blocks no maintenance, and is told of."""

import json
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.command import send_shutdown_command
from rq.job import JobStatus

from tests import make
from tests.drain.conftest import (
    FAILED,
    FINISHED,
    INSIDE,
    JOB,
    LEASES,
    QUARANTINE,
    QUEUE,
    STARTED,
    Drain,
    Start,
    call,
    enqueue_many,
    log_table_locked,
    put,
    statuses,
    until,
)
from worker.demo import sample
from worker.drain import DrainWorker
from worker.drain.claims import Timing
from worker.drain.ordinary import OrdinaryPath
from worker.record import brake

Logged = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the worker's times to a tenth."""
    monkeypatch.setattr(DrainWorker, "timing", Timing(lease=1.5, look_around=0.5))


def ended(drain: Drain) -> int:
    """The exit status of a worker."""
    try:
        drain()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


# --- a job that ends its worker --------------------------------------------------------------------------


def test_a_job_that_ends_its_worker_fails_in_the_end_and_no_other_does(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = OrdinaryPath.fail

    def ends_of_it(self: OrdinaryPath, claimed: Any, error: Exception) -> None:
        if claimed.job_id == "killer":
            raise RuntimeError("nobody foresaw this")
        fail(self, claimed, error)

    monkeypatch.setattr(OrdinaryPath, "fail", ends_of_it)
    good = enqueue_many(queue, app, 5)
    put(redis, "killer", call([{}]))
    good += enqueue_many(queue, app, 5, first=5)
    ends = [ended(drain) for _ in range(5)]
    assert ends == [1, 1, 1, 1, 0]
    assert statuses(good) == ["finished"] * 10
    assert (redis.zrange(FAILED, 0, -1), redis.llen(QUEUE), redis.zcard(STARTED)) == ([b"killer"], 0, 0)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_jobs_of_a_worker_that_was_told_to_stop_come_back_any_number_of_times(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
    how: signal.Signals,
) -> None:
    jobs = enqueue_many(queue, app, 3)

    def stop(self: Any, jobs: list[Any]) -> None:
        signal.raise_signal(how)

    with monkeypatch.context() as stopped:
        stopped.setattr("worker.drain.in_hand.InHand.start", stop)
        for _ in range(5):
            drain()
    assert redis.hget(jobs[0].key, "recoveries") is None
    drain()
    assert statuses(jobs) == ["finished"] * 3


# --- keys of another type --------------------------------------------------------------------------------


def test_a_renamed_key_is_told_of_once(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, logged: Logged
) -> None:
    redis.set(QUARANTINE, "text")
    redis.set(FINISHED, "text")
    enqueue_many(queue, app, 1)
    drain()
    drain()
    told = sorted(line["key"] for line in logged() if line["event"] == "key_renamed")
    assert told == [f"{FINISHED}:was-a-string", f"{QUARANTINE}:was-a-string"]


def test_forged_members_of_the_started_registry_end_nothing_and_do_not_stay(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain
) -> None:
    dead = b"f" * 32 + b"-0-0"
    forged: dict[Any, float] = dict.fromkeys([dead, b":" + dead, b"\xff\xfe:" + dead, b"a:b:" + dead], 4e9)
    redis.zadd(STARTED, forged)
    good = enqueue_many(queue, app, 2)
    drain()
    assert (statuses(good), redis.zcard(STARTED)) == (["finished"] * 2, 0)


def test_leases_that_never_end_keep_no_job(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, new_worker: Callable[..., Any]
) -> None:
    put(redis, "lost", call([make.event(app)]), status="started")
    redis.delete(QUEUE)
    redis.zadd(STARTED, {f"lost:{'f' * 32}-0-0": 4e9})
    redis.zadd(LEASES, {"f" * 32: "inf"})
    drain()
    assert statuses([queue.fetch_job("lost")]) == ["finished"]


# --- what waits for RQ's own code -------------------------------------------------------------------------


def test_an_unreadable_dependent_keeps_no_other_waiting(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain
) -> None:
    parent = queue.enqueue(JOB, [make.event(app)])
    children = [queue.enqueue(JOB, [make.event(app, n)], depends_on=parent) for n in (1, 2, 3)]
    redis.hset(children[1].key, "created_at", "yesterday")
    drain()
    assert statuses([parent, children[0], children[2]]) == ["finished"] * 3
    assert redis.lrange(QUARANTINE, 0, -1) == [children[1].id.encode()]


def test_dependents_that_rq_left_behind_are_enqueued_soon(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, impatient: None
) -> None:
    drain()  # maintenance is not due for ten minutes
    (job,) = enqueue_many(queue, app, 1)
    redis.delete(QUEUE)
    job.set_status(JobStatus.READY_TO_ENQUEUE)
    redis.zadd(queue.ready_job_registry.key, {job.id: time.time(), "unreadable!": 1})
    redis.set("rq:clean_registries:notiflog", 1)  # and somebody else's
    drain(burst=False, max_idle_time=2)
    assert statuses([job]) == ["finished"]
    assert redis.lrange(QUARANTINE, 0, -1) == [b"unreadable!"]


@pytest.mark.parametrize(
    "odd",
    [
        {"retry_intervals": '["x"]', "retries_left": "1"},
        {"retry_intervals": "[1e300]", "retries_left": "1"},
        {"retry_intervals": "[]", "retries_left": "1"},
        {"created_at": "yesterday"},
    ],
    ids=str,
)
def test_one_odd_job_keeps_no_other_from_maintenance(
    redis: Redis, queue: Queue, drain: Drain, odd: dict[str, Any]
) -> None:
    for number in range(5):
        put(redis, f"abandoned-{number}", call([]), status="started", retries_left="0")
    put(redis, "odd", call([]), status="started", **odd)
    redis.delete(QUEUE)
    redis.zadd(STARTED, {f"abandoned-{number}:{'e' * 32}": 2 for number in range(5)})
    redis.zadd(STARTED, {f"odd:{'e' * 32}": 1})
    drain()
    assert redis.zcard(FAILED) == 5
    assert redis.lrange(QUARANTINE, 0, -1) == [b"odd"]


# --- commands and schedules -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [b"\xff", b"", b"[]", b"{}", b'{"command": 1}', b'{"command": "stop-job"}', b"[" * 100_000],
    ids=lambda message: repr(message[:12]),
)
def test_a_command_that_cannot_be_read_is_passed_over(redis: Redis, start: Start, message: bytes) -> None:
    worker = start("--name", "commanded")
    until(lambda: redis.hget("rq:worker:commanded", "state") == b"idle")
    redis.publish("rq:pubsub:commanded", message)
    send_shutdown_command(redis, "commanded")
    assert worker.wait() == 0
    for line in worker.output.splitlines():
        json.loads(line)


def scheduled(redis: Redis, queue: Queue, app: sample.App) -> Any:
    """A good job between bad ones, all due."""
    put(redis, "bad", call([]), created_at="yesterday")
    put(redis, "worse", call([]), retry_intervals="{")
    redis.delete(QUEUE)
    odd: dict[Any, float] = {"bad": 1, "worse": 3, b"\xff": 4, "no job": 5}
    redis.zadd("rq:scheduled:notiflog", odd)
    job = queue.enqueue_in(timedelta(seconds=0), JOB, [make.event(app)])
    redis.zadd("rq:scheduled:notiflog", {job.id: 2})
    return job


def test_a_bad_scheduled_job_keeps_no_burst_from_the_good_ones(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, logged: Logged
) -> None:
    job = scheduled(redis, queue, app)
    drain(with_scheduler=True)
    assert statuses([job]) == ["finished"]
    assert sorted(redis.lrange(QUARANTINE, 0, -1)) == [b"bad", b"no job", b"worse", b"\xff"]


def test_a_bad_scheduled_job_does_not_end_the_scheduler(
    redis: Redis, queue: Queue, app: sample.App, start: Start
) -> None:
    job = scheduled(redis, queue, app)  # before there is a scheduler, which would take them one by one
    worker = start("--with-scheduler")
    until(lambda: statuses([job]) == ["finished"], 60)
    again = queue.enqueue_in(timedelta(seconds=0), JOB, [make.event(app, 1)])
    until(lambda: statuses([again]) == ["finished"], 60)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert "Traceback" not in worker.output


# --- what the brake counts --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "counted"),
    [({}, 1), ({"recoveries": "1"}, 0), ({"counted": "1"}, 0)],
    ids=["new", "taken over", "given back"],
)
def test_the_brake_counts_the_answers_of_a_job_once(
    redis: Redis, app: sample.App, drain: Drain, fields: dict[str, Any], counted: int
) -> None:
    put(redis, "job", call([make.event(app)]), **fields)
    drain()
    assert brake.recent(redis, "sends")["fcm"].alive == counted


def test_a_job_that_is_given_back_is_marked_as_counted_until_it_is_done(
    redis: Redis, queue: Queue, app: sample.App, start: Start, database: str
) -> None:
    (job,) = enqueue_many(queue, app, 1)
    with log_table_locked(database):
        worker = start(**INSIDE, TEST_LAST_WRITES="0.1")
        until(lambda: brake.recent(redis, "sends")["fcm"].alive)
        worker.send(signal.SIGTERM)
        worker.wait()
    assert (statuses([job]), redis.hget(job.key, "counted")) == (["queued"], b"1")
    assert start("--burst").wait() == 0
    assert (statuses([job]), redis.hget(job.key, "counted")) == (["finished"], None)
    assert brake.recent(redis, "sends")["fcm"].alive == 1
