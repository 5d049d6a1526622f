"""The literal `rq worker notiflog`, as its own process, with two URLs in its environment and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from tests import make
from worker.demo import sample

JOB = "worker.jobs.record_outcomes"


@pytest.fixture
def worker(database: str, valkey_url: str, tmp_path: Path) -> "Worker":
    return Worker({"DATABASE_URL": database, "REDIS_URL": valkey_url}, tmp_path)


class Worker:
    """Runs `rq worker notiflog --burst` until the queue is empty."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.environment = environment
        self.directory = directory

    def drain(self, *options: str) -> str:
        rq = Path(sys.executable).with_name("rq")
        done = subprocess.run(
            [rq, "worker", "notiflog", "--burst", *options],
            env={"PATH": os.environ["PATH"], **self.environment},
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout


def count(connection: psycopg.Connection) -> int:
    (n,) = connection.execute("select count(*) from public.follow_up_notification_log").fetchone() or (0,)
    return int(n)


@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_records_what_any_rq_producer_enqueues(
    worker: Worker, redis: Redis, connection: psycopg.Connection, app: sample.App, serializer: str
) -> None:
    queue = Queue("notiflog", connection=redis, serializer=serializer)
    job = queue.enqueue(JOB, [make.event(app, number) for number in range(3)])
    worker.drain("--serializer", serializer)
    assert (job.get_status(refresh=True), job.return_value()["delivered"], count(connection)) == (
        "finished",
        3,
        3,
    )


def test_a_job_with_bad_events_fails_and_says_which(
    worker: Worker, redis: Redis, connection: psycopg.Connection, app: sample.App
) -> None:
    bad = make.event(app, 1, chapter_id="chapter-7")
    job = Queue("notiflog", connection=redis).enqueue(JOB, [make.event(app), bad])
    worker.drain()
    result = job.latest_result()
    assert result is not None
    assert (result.exc_string or "").rstrip().endswith("[1] $.chapter_id: expected a UUID")
    assert (job.get_status(refresh=True), count(connection)) == ("failed", 1)


def test_the_next_job_runs_after_a_failed_one(
    worker: Worker, redis: Redis, connection: psycopg.Connection, app: sample.App
) -> None:
    queue = Queue("notiflog", connection=redis)
    jobs: list[Job] = [queue.enqueue(JOB, [{}]), queue.enqueue(JOB, [make.event(app)])]
    worker.drain()
    assert [job.get_status(refresh=True) for job in jobs] == ["failed", "finished"]


def test_a_missing_setting_fails_the_job_with_a_sentence(
    worker: Worker, redis: Redis, app: sample.App
) -> None:
    del worker.environment["DATABASE_URL"]
    job = Queue("notiflog", connection=redis).enqueue(JOB, [make.event(app)])
    worker.drain()
    result = job.latest_result()
    assert result is not None
    assert "DATABASE_URL is not set" in (result.exc_string or "")


def test_with_a_description_and_its_switch_the_output_shows_no_token(
    worker: Worker, redis: Redis, app: sample.App
) -> None:
    events = [make.event(app, results=[make.unregistered("MARK-token")]), {"token": "MARK-token"}]
    Queue("notiflog", connection=redis).enqueue(JOB, events, description="outcomes")
    output = worker.drain("--disable-job-desc-logging")
    assert "send_failed" in output
    assert "MARK" not in output


@pytest.mark.parametrize(("config", "said"), [({}, 1), ({"RQ_CONFIG": "worker.rqconfig"}, 0)])
def test_lines_of_two_forms_are_told_of_once(
    worker: Worker, redis: Redis, app: sample.App, config: dict[str, str], said: int
) -> None:
    queue = Queue("notiflog", connection=redis)
    for number in range(3):
        queue.enqueue(JOB, [make.event(app, number)])
    worker.environment |= config
    output = worker.drain()
    assert (output.count("outcomes_recorded"), output.count("two_forms")) == (3, said)
