"""A worker is alive as long as its work moves: nothing that it writes to may hold it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.suspension import suspend

from tests import make
from tests.drain.conftest import (
    INSIDE,
    JOB,
    LEASES,
    STARTED,
    Start,
    enqueue_many,
    rows,
    statuses,
    until,
)
from worker.demo import sample
from worker.demo.sandbox import stop
from worker.queue.workers import listening


@pytest.mark.parametrize("options", [(), ("--with-scheduler",)], ids=["worker", "with its scheduler"])
def test_output_that_nobody_reads_holds_no_job_and_no_stop(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    environment: dict[str, str],
    connection: psycopg.Connection,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    reader, writer = os.pipe()
    worker = subprocess.Popen(
        [Path(sys.executable).with_name("rq"), "worker", "notiflog", *options],
        env=environment,
        stdout=writer,
        stderr=writer,
        cwd=tmp_path,
    )
    os.close(writer)
    failing = [make.result(http_status=503, body=None)] * 400  # a line each
    for n in range(10):
        queue.enqueue(JOB, [make.event(app, n, results=failing)])
    try:
        until(lambda: rows(connection) == 10)
        until(lambda: redis.zcard(STARTED) == 0)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    finally:
        stop(worker, signal.SIGKILL)
        os.close(reader)


def test_a_reader_that_comes_back_is_told_how_many_lines_it_missed() -> None:
    code = (
        "import sys; from worker import logs; logs.setup()\n"
        "for n in range(100_000): logs.info('guard_off', stale=n)\n"
        "print('written', file=sys.stderr); sys.stdin.read(); logs.info('guard_off', stale=-1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stderr.readline()
        seen = []
        for line in process.stdout:
            seen.append(json.loads(line))
            if seen[-1]["event"] == "lines_lost":
                process.stdin.close()
    lost, last = seen[-2:]
    assert (len(seen) - 2 + lost["lines"], lost["lines"] > 0, last["stale"]) == (100_000, True, -1)


@pytest.mark.parametrize("hang", ["judging", "a line"])
def test_a_worker_that_stands_still_loses_its_jobs_its_name_and_its_life(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    start: Start,
    connection: psycopg.Connection,
    hang: str,
) -> None:
    jobs = enqueue_many(queue, app, 20)
    times = {"TEST_LEASE": "3", "TEST_STANDSTILL": "3"}
    stuck = start("--name", "stuck", **INSIDE, **times, TEST_HANGS=hang)
    until(lambda: redis.zcard(STARTED) == 20)
    healthy = start("--name", "healthy", **INSIDE, **times)
    assert stuck.wait(30) == 1
    until(lambda: statuses(jobs) == ["finished"] * 20)
    assert (rows(connection), redis.zcard(STARTED)) == (20, 0)
    assert [worker.name for worker in listening(redis, "notiflog")] == ["healthy"]
    assert healthy.process.poll() is None


def test_a_worker_that_stands_still_ends_in_time_when_told_to(
    redis: Redis, queue: Queue, app: sample.App, start: Start
) -> None:
    jobs = enqueue_many(queue, app, 20)
    worker = start(**INSIDE, TEST_LAST_WRITES="0.1", TEST_HANGS="judging")
    until(lambda: redis.zcard(STARTED) == 20)
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0
    assert (statuses(jobs), redis.zcard(STARTED)) == (["queued"] * 20, 0)


def test_a_worker_that_is_paused_is_told_silent_and_goes_on_afterwards(redis: Redis, start: Start) -> None:
    worker = start("--name", "paused", **INSIDE, TEST_LEASE="2", TEST_LOOK_AROUND="0.5", TEST_STANDSTILL="2")

    def fresh() -> list[bool]:
        return [seen.fresh for seen in listening(redis, "notiflog")]

    until(lambda: redis.hexists("rq:worker:paused", "lease"))
    assert fresh() == [True]
    worker.send(signal.SIGSTOP)
    until(lambda: fresh() == [False])
    time.sleep(1)  # longer than it may stand still, by the clock
    worker.send(signal.SIGCONT)
    until(lambda: fresh() == [True])
    assert worker.process.poll() is None


def test_a_suspended_worker_is_not_silent(redis: Redis, start: Start) -> None:
    start("--name", "suspended", **INSIDE, TEST_LEASE="1", TEST_LOOK_AROUND="0.3", TEST_STANDSTILL="1")
    until(lambda: redis.hexists("rq:worker:suspended", "lease"))
    suspend(redis)
    until(lambda: redis.zcount(LEASES, "-inf", time.time()))  # nobody keeps it meanwhile
    assert [seen.fresh for seen in listening(redis, "notiflog")] == [True]
