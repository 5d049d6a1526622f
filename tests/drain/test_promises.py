"""What RQ promises about any worker holds for the draining one."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from redis import Redis
from rq import Queue, Repeat, Retry
from rq.group import Group
from rq.rate_limit import RateLimit
from rq.suspension import resume, suspend
from rq.utils import as_text

from tests import make
from tests.drain.conftest import (
    FAILED,
    FINISHED,
    INSIDE,
    INTERMEDIATE,
    JOB,
    LEASES,
    QUARANTINE,
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
from worker.demo import sample, sandbox
from worker.drain import DrainWorker
from worker.drain.claims import TURN_JOBS, Timing
from worker.record import store

Logged = Callable[[], list[dict[str, Any]]]


Closed = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def closed(
    database: str, environment: dict[str, str], postgres: sandbox.Postgres, server_directory: Path
) -> Closed:
    """Take the way to the server away from the worker, as if the server were not there."""
    way = server_directory / f"way-{uuid4().hex[:8]}"
    way.symlink_to(postgres.directory)
    environment["DATABASE_URL"] = make_conninfo(database, host=str(way))

    @contextmanager
    def close() -> Iterator[None]:
        way.unlink()
        yield
        way.symlink_to(postgres.directory)

    return close


def rq(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of RQ's own."""
    return subprocess.run(
        [Path(sys.executable).with_name("rq"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def turns(logged: list[dict[str, Any]]) -> list[int]:
    return [line["jobs"] for line in logged if line["event"] == "outcomes_recorded"]


# --- one bad job among many ---------------------------------------------------------------------------------


def test_bad_jobs_fail_alone_with_their_own_message(
    queue: Queue, app: sample.App, drain: Drain, connection: psycopg.Connection
) -> None:
    good = enqueue_many(queue, app, 50)
    bad = {
        "[0] $.delivery_channel: expected 'fcm' or 'apns'": [make.event(app, 100, delivery_channel="sms")],
        "[0] $.chapter_id: there is no such chapter": [make.event(app, 101, chapter_id=make.stranger())],
        "[1] $.attempted_at: expected a time": [
            make.event(app, 102),
            make.event(app, 103, attempted_at="now"),
        ],
    }
    failed = [queue.enqueue(JOB, events) for events in bad.values()]
    good += enqueue_many(queue, app, 50, first=50)
    drain()
    assert [failure(job)[:30] for job in failed] == [message[:30] for message in bad]
    assert (statuses(good), rows(connection)) == (["finished"] * 100, 101)


def test_a_job_that_cannot_be_written_fails_alone_and_says_where(
    queue: Queue, app: sample.App, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = store.write

    def broken(*args: Any) -> store.Recorded:
        if any(outcome.idempotency_key == "key-1" for outcome in args[2]):
            raise TypeError("about token-1")
        return write(*args)

    monkeypatch.setattr(store, "write", broken)
    jobs = enqueue_many(queue, app, 3)
    drain()
    assert statuses(jobs) == ["finished", "failed", "finished"]
    problem = r".*the job cannot be written: TypeError in test_promises\.py, line \d+"
    assert re.fullmatch(problem, failure(jobs[1]))


@pytest.mark.parametrize("events", [[{}], "events"], ids=["rejected", "no list"])
def test_retries_are_not_spent_on_what_would_be_rejected_again(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, events: Any
) -> None:
    job = queue.enqueue(JOB, events, retry=Retry(max=3))
    drain()
    assert (statuses([job]), len(job.results()), redis.zcard(FAILED)) == (["failed"], 1, 1)


def test_a_job_deleted_while_it_waited_is_passed_over(queue: Queue, app: sample.App, drain: Drain) -> None:
    jobs = enqueue_many(queue, app, 4)
    queue.connection.delete(jobs[0].key, jobs[2].key)
    drain()
    assert statuses([jobs[1], jobs[3]]) == ["finished"] * 2


def test_a_job_deleted_while_it_ran_does_not_come_back(
    redis: Redis, queue: Queue, app: sample.App, database: str, start: Start, connection: psycopg.Connection
) -> None:
    jobs = enqueue_many(queue, app, 3)
    with log_table_locked(database):
        worker = start("--burst")
        until(lambda: waiting_writers(connection))
        jobs[1].delete()
    assert worker.wait() == 0
    assert (redis.exists(jobs[1].key), statuses([jobs[0], jobs[2]])) == (0, ["finished"] * 2)


# --- the ends of a worker -----------------------------------------------------------------------------------


def test_burst_ends_with_an_empty_queue(queue: Queue, app: sample.App, start: Start) -> None:
    jobs = enqueue_many(queue, app, 600)
    assert (start("--burst").wait(), statuses(jobs)) == (0, ["finished"] * 600)


@pytest.mark.parametrize("most", [1, 3, 300, 1000])
def test_max_jobs_is_exact(queue: Queue, app: sample.App, drain: Drain, most: int) -> None:
    enqueue_many(queue, app, 400)
    worker = drain(max_jobs=most)
    (done,) = worker.connection.hmget(worker.key, "successful_job_count")
    assert (int(done), queue.count) == (min(most, 400), 400 - min(most, 400))


def test_max_jobs_counts_jobs_of_the_ordinary_path_too(queue: Queue, app: sample.App, drain: Drain) -> None:
    enqueue_many(queue, app, 2)
    Group.create(queue.connection).enqueue_many(queue, [Queue.prepare_data(JOB, args=([],))] * 3)
    enqueue_many(queue, app, 2, first=2)
    drain(max_jobs=4)
    assert queue.count == 3


@pytest.mark.parametrize("most", [1, 2, 3])
def test_max_jobs_runs_a_sweep_that_it_took(queue: Queue, app: sample.App, drain: Drain, most: int) -> None:
    sweep = queue.enqueue("worker.jobs.sweep_tokens")
    jobs = enqueue_many(queue, app, 3)
    drain(max_jobs=most)
    assert (statuses([sweep]), queue.count) == (["finished"], 4 - most)
    assert statuses(jobs[: most - 1]) == ["finished"] * (most - 1)


def test_max_idle_time_ends_an_idle_worker(queue: Queue, app: sample.App, drain: Drain) -> None:
    jobs = enqueue_many(queue, app, 2)
    begun = time.monotonic()
    drain(burst=False, max_idle_time=1)
    assert statuses(jobs) == ["finished"] * 2
    assert 1 <= time.monotonic() - begun < 5


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends_at_once(redis: Redis, start: Start, how: signal.Signals) -> None:
    worker = start()
    until(lambda: redis.smembers("rq:workers"))
    until(lambda: b"idle" in [redis.hget(key, "state") for key in redis.smembers("rq:workers")])
    begun = time.monotonic()
    worker.send(how)
    assert worker.wait() == 0
    assert time.monotonic() - begun < 3


def worker_name(redis: Redis) -> str:
    """The name of the one worker there is."""
    (key,) = redis.smembers("rq:workers")
    return str(as_text(key)).removeprefix("rq:worker:")


def test_a_warm_shutdown_loses_nothing(
    redis: Redis, queue: Queue, app: sample.App, database: str, start: Start, connection: psycopg.Connection
) -> None:
    jobs = enqueue_many(queue, app, 3000)
    with log_table_locked(database):
        worker = start()
        until(lambda: waiting_writers(connection) > 0)
        worker.send(signal.SIGTERM)
        until(lambda: redis.hexists(f"rq:worker:{worker_name(redis)}", "shutdown_requested_date"))
    assert worker.wait() == 0
    assert 0 < queue.count < 3000, "the signal came before or after the work"
    assert (redis.zcard(STARTED), redis.llen(INTERMEDIATE), redis.zcard(LEASES)) == (0, 0, 0)
    assert rows(connection) + queue.count == redis.zcard(FINISHED) + queue.count == len(jobs)


def test_a_job_cancelled_while_it_ran_is_not_given_back(
    redis: Redis, queue: Queue, app: sample.App, start: Start, closed: Closed
) -> None:
    jobs = enqueue_many(queue, app, 2)
    with closed():
        worker = start()
        until(lambda: redis.zcard(STARTED) == 2)
        jobs[0].cancel()
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    assert (statuses(jobs), queue.job_ids, redis.zcard(STARTED)) == (["canceled", "queued"], [jobs[1].id], 0)


def test_a_job_enqueued_anew_under_the_id_of_one_that_runs_is_not_lost(
    redis: Redis, queue: Queue, app: sample.App, database: str, start: Start, connection: psycopg.Connection
) -> None:
    old = queue.enqueue(JOB, [make.event(app)], job_id="fixed", result_ttl=0)
    with log_table_locked(database):
        worker = start("--burst")
        until(lambda: waiting_writers(connection))
        worker.send(signal.SIGSTOP)  # it shall not see the new one before the old one is finished
        old.delete()
        queue.enqueue(JOB, [make.event(app, 1)], job_id="fixed", result_ttl=0)
    worker.send(signal.SIGCONT)
    assert worker.wait() == 0
    assert (rows(connection), queue.count, redis.zcard(STARTED)) == (2, 0, 0)


def test_a_job_deleted_before_it_fails_leaves_nothing(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    start: Start,
    connection: psycopg.Connection,
) -> None:
    job = queue.enqueue(JOB, [make.event(app), {}])
    with log_table_locked(database):
        worker = start("--burst")
        until(lambda: waiting_writers(connection))
        job.delete()
    assert worker.wait() == 0
    assert (worker.logged("job_quarantined"), redis.llen(QUARANTINE)) == ([], 0)
    assert (redis.exists(job.key), redis.zcard(STARTED), redis.zcard(FAILED)) == (0, 0, 0)


def test_a_lasting_database_fault_on_the_ordinary_path_stops_the_worker(
    queue: Queue, app: sample.App, start: Start, connection: psycopg.Connection
) -> None:
    datas = [Queue.prepare_data(JOB, args=([make.event(app, number)],)) for number in range(3)]
    jobs = Group.create(queue.connection).enqueue_many(queue, datas)
    with psycopg.connect(connection.info.dsn) as holder:
        holder.execute("lock table public.follow_up_notification_log in exclusive mode")
        worker = start("--burst")
        until(lambda: waiting_writers(connection))
        holder.execute("alter table public.follow_up_notification_log rename to elsewhere")
    assert worker.wait() == 1
    assert "python -m worker.migrate" in worker.logged("worker_stopped")[0]["problem"]
    assert sorted(statuses(jobs)) == ["failed", "queued", "queued"]


def test_a_warm_shutdown_gives_back_what_cannot_be_written(
    redis: Redis, queue: Queue, app: sample.App, start: Start, closed: Closed
) -> None:
    jobs = enqueue_many(queue, app, 300)
    with closed():
        worker = start()
        until(lambda: len(worker.logged("database_unavailable")) > 2)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    assert (statuses(jobs), queue.count) == (["queued"] * 300, 300)
    assert (redis.zcard(STARTED), redis.keys("rq:execution*")) == (0, [])


def test_a_cold_shutdown_gives_back_at_once(
    redis: Redis, queue: Queue, app: sample.App, database: str, start: Start, connection: psycopg.Connection
) -> None:
    jobs = enqueue_many(queue, app, 600)
    with log_table_locked(database):
        worker = start()
        until(lambda: waiting_writers(connection) == 2)
        worker.send(signal.SIGTERM)
        time.sleep(1.2)  # a second one within a second counts as the same
        worker.send(signal.SIGTERM)
        begun = time.monotonic()
        assert worker.wait() == 0
        assert time.monotonic() - begun < 4
    assert (statuses(jobs), redis.zcard(STARTED), rows(connection)) == (["queued"] * 600, 0, 0)


@pytest.mark.parametrize("moment", ["fetching", "maintenance", "judging"])
def test_a_signal_at_an_awkward_moment_stops_the_worker_and_loses_no_job(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    Group.create(redis).enqueue_many(queue, [Queue.prepare_data(JOB, args=([],))] * 2)
    enqueue_many(queue, app, 2)
    target, name = {
        "fetching": (DrainWorker.job_class, "restore"),
        "maintenance": (DrainWorker, "clean_registries"),
        "judging": (DrainWorker, "execute_job"),
    }[moment]
    original = getattr(target, name)
    raised = threading.Event()

    def raising(*arguments: Any, **options: Any) -> Any:
        if not raised.is_set():
            raised.set()
            signal.raise_signal(signal.SIGTERM)
        return original(*arguments, **options)

    monkeypatch.setattr(target, name, raising)
    drain(burst=False, max_idle_time=20)
    assert (raised.is_set(), redis.llen(INTERMEDIATE), redis.zcard(STARTED)) == (True, 0, 0)
    assert queue.count + redis.zcard(FINISHED) == 4
    assert (queue.count > 0, redis.llen(QUARANTINE), redis.zcard(FAILED)) == (True, 0, 0)


# --- RQ's commands ------------------------------------------------------------------------------------------


def test_rq_info_shows_the_worker(redis: Redis, environment: dict[str, str], start: Start) -> None:
    start("--name", "worker-1")
    until(lambda: redis.hget("rq:worker:worker-1", "state") == b"idle")
    for worker_class in ("worker.drain.DrainWorker", "rq.worker.Worker"):
        shown = rq(
            {**environment, "RQ_WORKER_CLASS": worker_class}, "info", "--url", environment["REDIS_URL"]
        )
        assert re.search(r"worker-1 .*idle.*notiflog", shown.stdout), shown.stdout + shown.stderr


def test_a_suspended_worker_waits_for_the_resume(
    redis: Redis, queue: Queue, app: sample.App, environment: dict[str, str], start: Start
) -> None:
    start("--name", "worker-1")
    until(lambda: redis.hget("rq:worker:worker-1", "state") == b"idle")
    url = ("--url", environment["REDIS_URL"])
    assert rq(environment, "suspend", *url).returncode == 0
    jobs = enqueue_many(queue, app, 20)
    until(lambda: redis.hget("rq:worker:worker-1", "state") == b"suspended")
    assert statuses(jobs) == ["queued"] * 20
    assert rq(environment, "resume", *url).returncode == 0
    until(lambda: statuses(jobs) == ["finished"] * 20)


def test_a_worker_suspended_at_work_finishes_its_turns_first(
    redis: Redis, queue: Queue, app: sample.App, database: str, start: Start, connection: psycopg.Connection
) -> None:
    enqueue_many(queue, app, 4000)
    with log_table_locked(database):
        start("--name", "worker-1")
        until(lambda: waiting_writers(connection) > 0)
        suspend(redis)
    until(lambda: redis.hget("rq:worker:worker-1", "state") == b"suspended")
    waiting = queue.count
    assert (waiting > 0, redis.zcard(STARTED), rows(connection)) == (True, 0, 4000 - waiting)
    resume(redis)
    until(lambda: rows(connection) == 4000)


def test_a_suspended_burst_worker_ends(redis: Redis, queue: Queue, app: sample.App, drain: Drain) -> None:
    jobs = enqueue_many(queue, app, 2)
    suspend(redis)
    drain()
    assert statuses(jobs) == ["queued"] * 2


def test_a_shutdown_command_ends_the_worker(redis: Redis, start: Start) -> None:
    from rq.command import send_shutdown_command

    worker = start("--name", "worker-1")
    until(lambda: redis.hget("rq:worker:worker-1", "state") == b"idle")
    send_shutdown_command(redis, "worker-1")
    assert worker.wait() == 0


@pytest.mark.parametrize("connections", [1, 2])
def test_a_worker_writes_over_as_many_connections_as_it_is_told(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    start: Start,
    database: str,
    connection: psycopg.Connection,
    connections: int,
) -> None:
    jobs = enqueue_many(queue, app, (connections + 2) * TURN_JOBS)
    with log_table_locked(database):
        worker = start("--burst", NOTIFLOG_CONNECTIONS=str(connections))
        # One turn more is claimed than can be written.
        until(lambda: redis.zcard(STARTED) == (connections + 1) * TURN_JOBS)
        until(lambda: waiting_writers(connection) >= connections)
        time.sleep(0.5)  # more would be there by now
        writers, claimed = waiting_writers(connection), redis.zcard(STARTED)
    assert (writers, claimed) == (connections, (connections + 1) * TURN_JOBS)
    assert (worker.wait(), rows(connection)) == (0, len(jobs)), worker.output


OTHER_SESSIONS = """
select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
"""


def test_a_worker_with_little_to_do_keeps_to_one_connection(
    redis: Redis, queue: Queue, app: sample.App, start: Start, connection: psycopg.Connection
) -> None:
    worker = start()

    def record(number: int) -> None:
        enqueue_many(queue, app, 1, first=number)
        until(lambda: redis.zcard(FINISHED) == number + 1)

    for number in range(4):  # more than it has threads
        record(number)
    assert len(connection.execute(OTHER_SESSIONS).fetchall()) == 1, worker.output


def test_a_session_that_was_ended_while_idle_is_no_fault(
    redis: Redis, queue: Queue, app: sample.App, start: Start, connection: psycopg.Connection
) -> None:
    worker = start()
    enqueue_many(queue, app, 1)
    until(lambda: redis.zcard(FINISHED) == 1)
    ((pid,),) = connection.execute(OTHER_SESSIONS).fetchall()
    assert connection.execute("select pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)
    enqueue_many(queue, app, 1, first=1)
    until(lambda: redis.zcard(FINISHED) == 2)
    assert "database_unavailable" not in worker.output


def test_a_pool_of_workers_shares_the_queue(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    environment: dict[str, str],
    connection: psycopg.Connection,
) -> None:
    jobs = enqueue_many(queue, app, 5000)
    options = ("--num-workers", "2", "--burst", "--url", environment["REDIS_URL"])
    with ThreadPoolExecutor(1) as thread:
        with log_table_locked(database):
            running = thread.submit(rq, environment, "worker-pool", "notiflog", *options)
            until(lambda: redis.zcard(STARTED) > 4 * TURN_JOBS)  # more than one can hold, with 3 connections
        ran = running.result()
    assert ran.returncode == 0, ran.stderr
    assert (rows(connection), redis.zcard(FINISHED), queue.count) == (len(jobs), len(jobs), 0)
    workers = {redis.hget(job.key, "worker_name") for job in jobs}
    assert len(workers) == 2, ran.stdout + ran.stderr


def test_the_scheduler_runs_along(queue: Queue, app: sample.App, drain: Drain) -> None:
    from datetime import UTC, datetime

    job = queue.enqueue_at(datetime(2026, 1, 1, tzinfo=UTC), JOB, [make.event(app)])
    drain(with_scheduler=True)
    assert statuses([job]) == ["finished"]


# --- jobs that take RQ's ordinary path ----------------------------------------------------------------------


def test_dependents_run(queue: Queue, app: sample.App, drain: Drain) -> None:
    first = queue.enqueue(JOB, [make.event(app)])
    second = queue.enqueue(JOB, [make.event(app, 1)], depends_on=first)
    third = queue.enqueue(JOB, [make.event(app, 2)], depends_on=[first, second])
    never = queue.enqueue(JOB, [make.event(app, 3)], depends_on=queue.enqueue(JOB, [{}]))
    drain()
    assert statuses([first, second, third, never]) == ["finished"] * 3 + ["deferred"]


def test_repeats_run(queue: Queue, app: sample.App, drain: Drain, connection: psycopg.Connection) -> None:
    job = queue.enqueue(JOB, [make.event(app)], repeat=Repeat(times=2))
    drain()
    assert (statuses([job]), len(job.results()), rows(connection)) == (["finished"], 3, 1)


def test_groups_run(redis: Redis, queue: Queue, app: sample.App, drain: Drain) -> None:
    datas = [Queue.prepare_data(JOB, args=([make.event(app, number)],)) for number in range(3)]
    jobs = Group.create(redis).enqueue_many(queue, datas)
    drain()
    assert statuses(jobs) == ["finished"] * 3


def test_rate_limits_run(queue: Queue, app: sample.App, drain: Drain) -> None:
    limit = RateLimit("limit", 1)
    jobs = [queue.enqueue(JOB, [make.event(app, number)], rate_limit=limit) for number in range(3)]
    assert queue.count == 1
    drain()
    assert statuses(jobs) == ["finished"] * 3


def test_both_paths_share_a_queue(queue: Queue, app: sample.App, drain: Drain, logged: Logged) -> None:
    jobs = enqueue_many(queue, app, 3)
    jobs += Group.create(queue.connection).enqueue_many(queue, [Queue.prepare_data(JOB, args=([],))])
    jobs += enqueue_many(queue, app, 4, first=3)
    drain()
    assert (turns(logged()), statuses(jobs)) == ([3, 1, 4], ["finished"] * 8)


# --- PostgreSQL away, and nothing to do ---------------------------------------------------------------------


def test_heartbeats_go_on_while_postgresql_hangs(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    drain: Drain,
    connection: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DrainWorker, "timing", Timing(look_around=0.2))
    (job,) = enqueue_many(queue, app, 1)
    beats: set[Any] = set()

    def another_beat() -> set[Any]:
        beats.add(redis.hget("rq:worker:worker-1", "last_heartbeat"))
        return beats

    def watch(lock: Any) -> None:
        until(lambda: waiting_writers(connection))
        until(lambda: len(beats | another_beat()) >= 3)
        lock.__exit__(None, None, None)

    lock = log_table_locked(database)
    lock.__enter__()
    watcher = threading.Thread(target=watch, args=(lock,))
    watcher.start()
    drain(name="worker-1")
    watcher.join()
    assert (len(beats) >= 3, statuses([job])) == (True, ["finished"])


def test_jobs_wait_for_a_database_that_is_away(
    queue: Queue, app: sample.App, start: Start, closed: Closed
) -> None:
    jobs = enqueue_many(queue, app, 5)
    with closed():
        worker = start("--burst")
        until(lambda: len(worker.logged("database_unavailable")) > 2)
    assert (worker.wait(), statuses(jobs)) == (0, ["finished"] * 5)


def commands(redis: Redis) -> int:
    return int(redis.info("stats")["total_commands_processed"])


def test_an_idle_worker_leaves_redis_alone(redis: Redis, start: Start) -> None:
    # It looks around each second here instead of every five.
    start("--name", "worker-1", **INSIDE, TEST_LEASE="3")
    until(lambda: redis.hget("rq:worker:worker-1", "state") == b"idle")
    before = commands(redis)
    time.sleep(3)
    assert commands(redis) - before < 4 * 40


def test_an_idle_worker_takes_a_job_at_once(
    redis: Redis, queue: Queue, app: sample.App, start: Start
) -> None:
    start("--name", "worker-1")
    until(lambda: redis.hget("rq:worker:worker-1", "state") == b"idle")
    begun = time.monotonic()
    jobs = enqueue_many(queue, app, 1)
    until(lambda: statuses(jobs) == ["finished"])
    assert time.monotonic() - begun < 2


def test_output_and_redis_show_no_token(redis: Any, queue: Queue, app: sample.App, start: Start) -> None:
    results = [make.unregistered("MARK-token"), make.result("MARK-other", http_status=None, body="MARK-body")]
    for description in (None, "outcomes"):
        for extra in ({}, {"chapter_id": "MARK-chapter"}, {"MARK-field": 1}):
            queue.enqueue(JOB, [make.event(app, results=results, **extra)], description=description)
    put(redis, "group", call([make.event(app, 5, results=results), {"token": "MARK"}]), group_id="group")
    worker = start("--burst", "--verbose")
    assert worker.wait() == 0
    assert "send_failed" in worker.output
    assert "MARK" not in worker.output
    for key in redis.keys("rq:results:*"):
        for _, entry in redis.xrange(key):
            assert b"MARK" not in b"".join(entry.values())
