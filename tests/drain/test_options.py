"""RQ's options, commands and classes around a draining worker: honoured, or refused with a sentence."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.command import send_kill_horse_command, send_stop_job_command
from rq.group import Group

from tests import make
from tests.drain.conftest import (
    FAILED,
    JOB,
    STARTED,
    Drain,
    Start,
    enqueue_many,
    failure,
    log_table_locked,
    rows,
    statuses,
    until,
    waiting_writers,
)
from worker.demo import sample
from worker.drain import DrainWorker
from worker.queue.stopped import stopped_jobs


def test_a_worker_works_as_often_as_it_is_told(
    queue: Queue, app: sample.App, new_worker: Callable[..., Any]
) -> None:
    jobs = enqueue_many(queue, app, 5)
    worker = new_worker()
    for most in (2, 2):
        assert worker.work(burst=True, max_jobs=most)
    assert statuses(jobs) == ["finished"] * 4 + ["queued"]


@pytest.mark.parametrize("most", [0, -1])
def test_fewer_than_one_job_is_one_as_with_rqs_worker(
    queue: Queue, app: sample.App, drain: Drain, most: int
) -> None:
    jobs = enqueue_many(queue, app, 2)
    drain(max_jobs=most)
    assert statuses(jobs) == ["finished", "queued"]


def test_an_idle_time_is_not_rounded_up_to_the_next_look(drain: Drain) -> None:
    begun = time.monotonic()
    drain(burst=False, max_idle_time=6)  # it looks around every five seconds
    assert 6 <= time.monotonic() - begun < 9


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.usefixtures("new_worker")  # the settings
def test_a_queue_brings_its_connection(queue: Queue, app: sample.App, listed: bool) -> None:
    jobs = enqueue_many(queue, app, 1)
    DrainWorker([queue] if listed else queue).work(burst=True)
    assert statuses(jobs) == ["finished"]


def test_a_name_brings_none_which_is_said() -> None:
    with pytest.raises(TypeError, match=r"needs connection=Redis\(...\)"):
        DrainWorker("notiflog")


@pytest.mark.parametrize(
    "use",
    [
        lambda worker: worker.run_maintenance_tasks(),
        lambda worker: worker.check_for_suspension(burst=True),
        lambda worker: worker.dequeue_job_and_maintain_ttl(None),
    ],
)
def test_it_can_be_used_before_it_works(new_worker: Callable[..., Any], use: Callable[[Any], Any]) -> None:
    worker = new_worker()
    use(worker)
    worker.teardown()
    assert worker.work(burst=True) is False


@pytest.mark.parametrize("how", ["--job-class", "--queue-class", "RQ_JOB_CLASS", "RQ_QUEUE_CLASS"])
def test_classes_that_would_be_passed_over_are_refused(
    queue: Queue, app: sample.App, start: Start, tmp_path: Path, how: str
) -> None:
    jobs = enqueue_many(queue, app, 1)
    (tmp_path / "own.py").write_text("import rq\nclass J(rq.job.Job): ...\nclass Q(rq.Queue): ...\n")
    chosen = "own.J" if "job" in how.lower() else "own.Q"
    worker = start("--burst", how, chosen) if how.startswith("--") else start("--burst", **{how: chosen})
    assert (worker.wait(), statuses(jobs)) == (1, ["queued"])
    assert (how in worker.output, "Traceback" in worker.output) == (True, False), worker.output


def test_a_pool_of_workers_that_cannot_start_ends(environment: dict[str, str], redis: Redis) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("rq"), "worker-pool", "notiflog", "other", "-n", "2"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "DrainWorker listens on one queue, not on 2" in done.stdout + done.stderr
    assert redis.scard("rq:workers") == 0


def test_a_cold_shutdown_amid_a_job_of_the_ordinary_path_gives_it_back(
    redis: Redis, queue: Queue, app: sample.App, database: str, start: Start, connection: psycopg.Connection
) -> None:
    data = Queue.prepare_data(JOB, args=([make.event(app)],))
    (job,) = Group.create(redis).enqueue_many(queue, [data])
    with log_table_locked(database):
        worker = start()
        until(lambda: waiting_writers(connection))
        worker.send(signal.SIGTERM)
        time.sleep(1.2)  # a second one within a second counts as the same
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
    assert (statuses([job]), queue.job_ids) == (["queued"], [job.id])
    assert (redis.zcard(STARTED), redis.zcard(FAILED), redis.keys("rq:execution*")) == (0, 0, [])


@pytest.mark.parametrize("wait", ["for a lock", "for the database"])
def test_a_recording_that_somebody_stops_fails_alone(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    database: str,
    start: Start,
    connection: psycopg.Connection,
    wait: str,
) -> None:
    jobs = enqueue_many(queue, app, 4)
    with log_table_locked(database):
        worker = start("--burst")
        until(lambda: waiting_writers(connection))
        if wait == "for the database":
            until(lambda: worker.logged("database_unavailable") or worker.logged("rows_waiting"))
        send_stop_job_command(redis, jobs[1].id)
        until(lambda: statuses(jobs)[1] == "stopped")
    assert worker.wait() == 0
    assert (statuses(jobs), rows(connection)) == (["finished", "stopped", "finished", "finished"], 3)
    assert failure(jobs[1]) == "Job stopped by user, while it was being recorded"
    assert [stopped.reason for stopped in stopped_jobs(redis)] == ["stopped"]
    assert [line["job"] for line in worker.logged("job_failed")] == [jobs[1].id]


def test_commands_that_stop_nothing_say_so(redis: Redis, queue: Queue, app: sample.App, start: Start) -> None:
    (job,) = enqueue_many(queue, app, 1)
    worker = start("--name", "one")
    until(lambda: statuses([job]) == ["finished"])
    redis.hset(job.key, "worker_name", "one")

    def said() -> bool:  # what is published is heard by those who listen at that moment
        send_stop_job_command(redis, job.id)
        send_kill_horse_command(redis, "one")
        return "stop-job is ignored" in worker.output and "there is no horse to kill" in worker.output

    until(said)
