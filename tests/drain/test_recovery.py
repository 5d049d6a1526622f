"""A dead worker's jobs run again elsewhere, soon; a slow worker's do not."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue, RateLimit, Repeat, Retry
from rq.group import Group
from rq.job import Job

from tests import make
from tests.drain.conftest import (
    FAILED,
    INSIDE,
    JOB,
    LEASES,
    QUEUE,
    STARTED,
    Drain,
    Start,
    call,
    enqueue_many,
    failure,
    log_table_locked,
    put,
    rows,
    statuses,
    until,
    waiting_writers,
)
from worker.demo import sample
from worker.drain import DrainWorker
from worker.drain.claims import Claims, Timing

Logged = Callable[[], list[dict[str, Any]]]


def end_waiting(connection: psycopg.Connection) -> None:
    """End the sessions that wait for a lock: a dead client's would still write, a paused one's hold keys."""
    connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    )


def test_a_killed_workers_jobs_are_taken_over_within_30_seconds() -> None:
    timing = Timing()
    assert timing.lease + timing.look_around < 30


def test_jobs_of_a_killed_worker_run_on_another(
    redis: Redis, queue: Queue, app: sample.App, database: str, start: Start, connection: psycopg.Connection
) -> None:
    jobs = enqueue_many(queue, app, 600)
    with log_table_locked(database):
        victim = start()
        until(lambda: waiting_writers(connection) == 2)
        until(lambda: redis.zcard(STARTED) == 600)  # two turns in flight, the third claimed
        start()
        victim.send(signal.SIGKILL)
        victim.wait()
        end_waiting(connection)
    until(lambda: rows(connection) == 600, 60)  # far within RQ's own minutes, on a busy machine too
    until(lambda: statuses(jobs) == ["finished"] * 600)
    assert redis.zcard(STARTED) == 0


def grouped(queue: Queue, events: list[Any]) -> Job:
    (job,) = Group.create(queue.connection).enqueue_many(queue, [Queue.prepare_data(JOB, args=(events,))])
    return job


#: Ways to enqueue a job that takes RQ's ordinary path.
ORDINARY: dict[str, Callable[[Queue, list[Any]], Job]] = {
    "of a group": grouped,
    "to repeat": lambda queue, events: queue.enqueue(JOB, events, repeat=Repeat(times=1)),
    "with a rate limit": lambda queue, events: queue.enqueue(JOB, events, rate_limit=RateLimit("limit", 1)),
    "that depended on another": lambda queue, events: queue.enqueue(JOB, events, depends_on=["gone"]),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_so_do_jobs_of_the_ordinary_path(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    start: Start,
    connection: psycopg.Connection,
    kind: str,
) -> None:
    job = ORDINARY[kind](queue, [make.event(app)])
    with log_table_locked(database):
        victim = start(**INSIDE, TEST_LEASE="3")
        until(lambda: waiting_writers(connection))
        start(**INSIDE, TEST_LEASE="3")
        victim.send(signal.SIGKILL)
        victim.wait()
        end_waiting(connection)
    until(lambda: statuses([job]) == ["finished"])
    assert (rows(connection), redis.zcard(STARTED)) == (1, 0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the worker's times to a tenth."""
    monkeypatch.setattr(DrainWorker, "timing", Timing(lease=1.5, look_around=0.5))


def dead(redis: Redis, queue: Queue, new_worker: Callable[..., Any], **options: Any) -> list[str]:
    """Claim a turn as a worker does that is killed right afterwards; returns the job ids."""
    worker = new_worker(name="dead")
    claims = Claims(worker, worker.timing)
    turn = claims.claim(256)
    redis.delete(LEASES)  # as if its time were up
    return [job.job_id for job in turn.jobs]


def test_a_takeover_says_so_and_leaves_no_trace(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    new_worker: Callable[..., Any],
    drain: Drain,
    logged: Logged,
    connection: psycopg.Connection,
) -> None:
    jobs = enqueue_many(queue, app, 20)
    assert len(dead(redis, queue, new_worker)) == 20
    drain()
    taken = [line["jobs"] for line in logged() if line["event"] == "jobs_taken_over"]
    assert (taken, statuses(jobs), rows(connection)) == ([20], ["finished"] * 20, 20)
    left = [key for key in redis.scan_iter() if b"execution" in key or b"lease" in key or b"wip" in key]
    assert left == []


def test_what_was_committed_before_the_kill_is_not_written_twice(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    new_worker: Callable[..., Any],
    drain: Drain,
    connection: psycopg.Connection,
    logged: Logged,
) -> None:
    jobs = enqueue_many(queue, app, 5)
    drain()
    assert rows(connection) == 5
    for job in jobs:
        queue.push_job_id(job.id)
    dead(redis, queue, new_worker)
    drain()
    duplicates = sum(line["duplicates"] for line in logged() if line["event"] == "outcomes_recorded")
    assert (rows(connection), duplicates) == (5, 5)


@pytest.mark.parametrize("path", ["turn", "ordinary"])
def test_a_slow_workers_jobs_are_not_taken_over(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    start: Start,
    connection: psycopg.Connection,
    path: str,
) -> None:
    jobs = enqueue_many(queue, app, 3) if path == "turn" else [grouped(queue, [make.event(app)])]
    with log_table_locked(database):
        slow = start("--burst", "--name", "slow", **INSIDE, TEST_LEASE="3")
        until(lambda: waiting_writers(connection))
        healthy = start("--name", "healthy", **INSIDE, TEST_LEASE="3")
        time.sleep(4.5)  # longer than a lease
        assert redis.zcard(STARTED) == len(jobs)
    assert slow.wait() == 0
    assert (slow.logged("jobs_taken_over"), healthy.logged("jobs_taken_over")) == ([], [])
    assert {redis.hget(job.key, "worker_name") for job in jobs} == {b"slow"}
    assert redis.hget("rq:worker:slow", "successful_job_count") == b"%d" % len(jobs)
    assert statuses(jobs) == ["finished"] * len(jobs)


@pytest.mark.parametrize("kind", ["good", "bad", "with a dependent"])
def test_a_stalled_worker_does_not_finish_what_was_taken_over(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    start: Start,
    drain: Drain,
    connection: psycopg.Connection,
    kind: str,
) -> None:
    job = queue.enqueue(JOB, [make.event(app), {}] if kind == "bad" else [make.event(app)])
    if kind == "with a dependent":
        queue.enqueue(JOB, [], depends_on=job)
    with log_table_locked(database):
        worker = start("--burst", "--name", "stalled")
        until(lambda: waiting_writers(connection))
        worker.send(signal.SIGSTOP)  # as a paused virtual machine
        end_waiting(connection)
    redis.delete(LEASES)
    drain()
    worker.send(signal.SIGCONT)
    assert worker.wait() == 0
    counts = redis.hmget("rq:worker:stalled", "successful_job_count", "failed_job_count")
    assert (counts, len(job.results())) == ([None, None], 1)


def test_a_claim_whose_answer_was_lost_is_found_again(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    new_worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DrainWorker, "timing", Timing(look_around=0.1))
    jobs = enqueue_many(queue, app, 5)
    worker = new_worker()
    original = Claims.claim
    lost: list[Any] = []

    def claim(self: Claims, most: int) -> Any:
        if not lost:
            lost.append(original(self, most))
            time.sleep(0.2)  # until the next look around
            return original(self, most)
        return original(self, most)

    monkeypatch.setattr(Claims, "claim", claim)
    worker.work(burst=False, max_idle_time=1)
    assert (len(lost[0].jobs), statuses(jobs), redis.zcard(STARTED)) == (5, ["finished"] * 5, 0)


def test_a_claim_whose_answer_was_lost_at_the_end_goes_back(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    new_worker: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = enqueue_many(queue, app, 5)
    original = Claims.claim

    def claim(self: Claims, most: int) -> Any:
        original(self, most)
        return original(self, most)  # as if the first answer had got lost: now the queue looks empty

    monkeypatch.setattr(Claims, "claim", claim)
    new_worker().work(burst=True)
    assert (statuses(jobs), queue.count, redis.zcard(STARTED)) == (["queued"] * 5, 5, 0)


def give_up(redis: Redis, queue: Queue, drain: Drain, new_worker: Callable[..., Any], times: int) -> None:
    """Let a job's worker die again and again."""
    for _ in range(times):
        dead(redis, queue, new_worker)
        worker = new_worker(name="next")
        Claims(worker, worker.timing).recover([])


def test_a_job_taken_over_too_often_ends_in_the_failed_registry(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    drain: Drain,
    new_worker: Callable[..., Any],
    logged: Logged,
) -> None:
    put(redis, "killer", call([make.event(app)]))
    give_up(redis, queue, drain, new_worker, 3)
    dead(redis, queue, new_worker)
    good = enqueue_many(queue, app, 2, first=1)
    drain()
    given_up = [line["jobs"] for line in logged() if line["event"] == "jobs_given_up"]
    assert (given_up, statuses(good)) == ([1], ["finished"] * 2)
    assert (redis.zscore(FAILED, "killer") is not None, redis.zcard(STARTED)) == (True, 0)
    (job,) = [queue.fetch_job("killer")]
    assert job is not None
    assert "AbandonedJobError" in failure(job)


def test_a_job_that_was_given_up_is_said_once_and_fails_soon(
    redis: Redis,
    queue: Queue,
    drain: Drain,
    new_worker: Callable[..., Any],
    logged: Logged,
    impatient: None,
) -> None:
    put(redis, "killer", call([]))
    give_up(redis, queue, drain, new_worker, 3)
    dead(redis, queue, new_worker)
    redis.set("rq:clean_registries:notiflog", 1, px=1000)  # maintenance is somebody else's at first
    drain(burst=False, max_idle_time=2)
    assert [line["jobs"] for line in logged() if line["event"] == "jobs_given_up"] == [1]


def test_a_job_that_kills_workers_takes_no_other_job_along(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    start: Start,
    connection: psycopg.Connection,
) -> None:
    # The kill: a worker that dies while it judges a certain event. Every time its jobs are taken over.
    jobs = enqueue_many(queue, app, 30)
    put(redis, "killer", call([make.event(app, 1000, skipped="kill", results=[])]))
    jobs += enqueue_many(queue, app, 30, first=30)
    for _ in range(6):
        worker = start("--burst", **INSIDE, TEST_DIES_OF="kill")
        code = worker.wait()
        redis.delete(LEASES)
        if code == 0:
            break
        assert code == -signal.SIGKILL, worker.output
    assert statuses(jobs) == ["finished"] * 60
    assert redis.hget("rq:job:killer", "status") == b"failed"


def test_an_abandoned_job_with_retries_left_runs_again(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain
) -> None:
    # As RQ's own path leaves it when its worker was killed.
    job = queue.enqueue(JOB, [make.event(app)], retry=Retry(max=1))
    redis.delete(QUEUE)
    redis.hset(job.key, "status", "started")
    redis.zadd(STARTED, {f"{job.id}:{'e' * 32}": time.time() - 1})
    drain()
    assert statuses([job]) == ["finished"]


def test_a_job_under_suspicion_waits_for_the_turns_before_it(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    drain: Drain,
    logged: Logged,
    connection: psycopg.Connection,
    impatient: None,
) -> None:
    (first,) = enqueue_many(queue, app, 1)
    put(redis, "suspect", call([make.event(app, 1)]), recoveries="1")
    lock = log_table_locked(database)
    lock.__enter__()

    def release() -> None:
        until(lambda: redis.zcard(STARTED) == 2)
        time.sleep(2)  # some looks around
        lock.__exit__(None, None, None)

    releasing = threading.Thread(target=release)
    releasing.start()
    drain()
    releasing.join()
    suspect = queue.fetch_job("suspect")
    assert suspect is not None
    assert [line for line in logged() if line["event"] == "jobs_taken_over"] == []
    assert (statuses([first, suspect]), len(suspect.results()), rows(connection)) == (["finished"] * 2, 1, 2)


def test_jobs_claimed_but_not_judged_go_back_when_the_worker_ends(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = enqueue_many(queue, app, 5)

    def end(_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr("worker.drain.turn.judge_good", end)
    with pytest.raises(SystemExit):
        drain()
    assert (statuses(jobs), queue.count, redis.zcard(STARTED)) == (["queued"] * 5, 5, 0)
