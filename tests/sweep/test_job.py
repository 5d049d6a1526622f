"""The sweep as a job: through both workers, trusted like the other, and put there by RQ's own cron."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.cron import CronScheduler

from tests import make
from tests.drain.conftest import (
    JOB,
    STARTED,
    Drain,
    Work,
    drain,
    failure,
    new_worker,
    queue,
    rows,
    statuses,
    work,
)
from tests.scheduler.conftest import Fcm
from tests.sweep.conftest import DEAD, Register, left
from worker.demo import sample
from worker.jobs import sweep_tokens
from worker.logs import token_hash
from worker.servers.settings import settings
from worker.sweep import dryrun
from worker.sweep.dryrun import NoProject

__all__ = ["drain", "new_worker", "queue", "work"]

SWEEP = "worker.jobs.sweep_tokens"


def test_it_prunes_amid_other_jobs_and_costs_them_nothing(
    work: Work,
    queue: Queue,
    redis: Redis,
    connection: psycopg.Connection,
    app: sample.App,
    fcm: Fcm,
    register: Register,
) -> None:
    tokens = register(20)
    fcm.answers = {tokens[3]: DEAD}
    jobs = [
        queue.enqueue(JOB, [make.event(app, 1)]),
        queue.enqueue(SWEEP),
        queue.enqueue(JOB, [make.event(app, 2)]),
    ]
    work()
    assert (statuses(jobs), rows(connection)) == (["finished"] * 3, 2)
    assert left(connection) == tokens[:3] + tokens[4:]
    assert jobs[1].return_value()["pruned"] == 1
    assert not redis.exists(STARTED)
    assert redis.keys("rq:execution*") == []


def test_it_tells_the_app_s_function_of_pruned_tokens(
    drain: Drain,
    queue: Queue,
    redis: Redis,
    fcm: Fcm,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = register(3)
    fcm.answers = {tokens[1]: DEAD}
    monkeypatch.setenv("NOTIFLOG_HOOK", "app.push.on_notices")
    settings.cache_clear()
    queue.enqueue(SWEEP)
    drain()
    (job,) = Queue("notiflog-notices", connection=redis).jobs
    pruned = {"notice": "token_pruned", "token": token_hash(tokens[1]), "delivery_channel": "fcm"}
    assert job.args == ([{**pruned, "reason": "unregistered", "peer_mentor_id": None}],)


def test_without_a_project_it_fails_with_the_remedy(
    work: Work, queue: Queue, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(1)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    def unset(_: Any) -> Any:
        raise NoProject("no Firebase project: set GOOGLE_APPLICATION_CREDENTIALS")

    monkeypatch.setattr("worker.sweep.passes.check", unset)
    job = queue.enqueue(SWEEP)
    work()
    assert (
        failure(job)
        == "worker.sweep.dryrun.NoProject: no Firebase project: set GOOGLE_APPLICATION_CREDENTIALS"
    )


def test_a_database_fault_fails_it_without_data(
    new_worker: Callable[..., Any], queue: Queue, connection: psycopg.Connection, fcm: Fcm
) -> None:
    connection.execute("drop table public.device_tokens")
    job = queue.enqueue(SWEEP)
    new_worker(SimpleWorker).work(burst=True)
    assert failure(job).startswith("worker.servers.postgres.DatabaseFault: UndefinedTable (SQLSTATE 42P01")


@pytest.mark.parametrize(
    "arguments", [{"args": ("everything",)}, {"args": ([],)}, {"kwargs": {"events": []}}]
)
def test_with_arguments_it_is_not_trusted(queue: Queue, drain: Drain, arguments: dict[str, Any]) -> None:
    job = queue.enqueue(SWEEP, **arguments)
    drain()
    assert failure(job) == "worker.queue.plain.UntrustedJob: worker.jobs.sweep_tokens takes no argument"


def test_outside_rq_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"python -m worker\.sweep"):
        sweep_tokens()


def test_rqs_cron_enqueues_it(work: Work, queue: Queue, redis: Redis, fcm: Fcm, register: Register) -> None:
    register(3)
    scheduler = CronScheduler(connection=redis)
    scheduler.load_config_from_file("worker.cron")
    jobs = {job.func_name: job for job in scheduler.get_jobs()}
    assert {(name, job.queue_name, job.cron) for name, job in jobs.items()} == {
        (SWEEP, "notiflog", "* * * * *"),
        ("worker.jobs.tidy_reservations", "notiflog", "*/10 * * * *"),
    }
    jobs[SWEEP].enqueue(redis)
    work()
    assert len(fcm.sent) == 3


class TestCredentials:
    """firebase-admin itself, with nothing in the environment."""

    @pytest.fixture(autouse=True)
    def nothing(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Any:
        import firebase_admin

        for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setattr(firebase_admin, "_apps", {})

    @pytest.mark.parametrize(
        "environment",
        [{}, {"GOOGLE_CLOUD_PROJECT": "example"}, {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json"}],
        ids=["nothing", "a project alone", "a file that is not there"],
    )
    def test_the_remedy_is_named(self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(NoProject, match="GOOGLE_APPLICATION_CREDENTIALS"):
            dryrun.check(["token"])

    def test_no_token_needs_no_project(self) -> None:
        assert dryrun.check([]) == []
