"""Workers that die of SIGKILL: every event still has its one row, and every dead token goes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import LEASES, until
from tests.faults.audit import is_quiet
from tests.faults.kills import DRAIN, STOCK, Host, Who, plan
from tests.faults.soak import SETUPS, Setup, soak
from tests.faults.workload import workload
from worker.demo import sample
from worker.enqueue import enqueue_outcomes
from worker.queue.keys import MOST_RECOVERIES

# The clocks of the workers, shortened from inside their processes: a dead draining worker is noticed after
# 3 s instead of 15, a dead stock worker's job run again after 3 s instead of RQ's hard-coded minute.
SHORT = {
    "drain": SETUPS["drain"]._replace(
        environment={**SETUPS["drain"].environment, "TEST_LEASE": "3"}, patience=40
    ),
    "stock": SETUPS["stock"]._replace(
        environment={"TEST_RQ_MINUTE": "3"},
        options=("--maintenance-interval", "1", "--worker-ttl", "16", "--job-monitoring-interval", "1"),
        patience=40,
    ),
}


@pytest.fixture
def environment(database: str, valkey_url: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATABASE_URL": database, "REDIS_URL": valkey_url}


@pytest.mark.parametrize(("kind", "kills", "events"), [("drain", 8, 4_000), ("stock", 5, 500)])
def test_nothing_is_lost_or_doubled_while_workers_are_killed(
    environment: dict[str, str],
    redis: Redis,
    tmp_path: Path,
    app: sample.App,
    kind: str,
    kills: int,
    events: int,
) -> None:
    outcome = soak(environment, tmp_path, app, SHORT[kind], events=events, kills=kills, seed=1)
    assert outcome.problems == []


CASES: list[tuple[str, str, Who]] = [
    ("drain", "after-claim", "worker"),
    ("drain", "before-transaction", "worker"),
    ("drain", "after-send", "worker"),
    ("drain", "after-commit", "worker"),
    ("drain", "after-finish", "worker"),
    ("drain", "after-claim after-takeover", "worker"),
    ("stock", "after-claim", "worker"),
    ("stock", "before-transaction", "horse"),
    ("stock", "after-send", "horse"),
    ("stock", "after-commit", "horse"),
    ("stock", "after-finish", "horse"),
    ("stock", "after-send", "both"),
    ("stock", "after-commit", "both"),
]


@pytest.fixture
def host(environment: dict[str, str], redis: Redis, tmp_path: Path, setup: Setup) -> Iterator[Host]:
    """One worker that is started again whenever it dies."""
    host = Host({**environment, **setup.environment}, tmp_path, redis, 1, setup.options)
    yield host
    host.stop()


@pytest.fixture
def setup(kind: str) -> Setup:
    return SHORT[kind]


def until_done(host: Host, redis: Redis) -> None:
    """Wait until all kills have happened and no job is left to do."""

    def is_done() -> bool:
        host.keep_running()
        redis.delete(LEASES)  # as if the time of a dead draining worker were up
        return not host.points.waiting() and is_quiet(redis, host.workers)

    until(is_done, 30)


@pytest.mark.parametrize(("kind", "moments", "who"), CASES)
def test_a_killed_job_runs_again_and_leaves_one_row_for_each_key(
    host: Host,
    redis: Redis,
    app: sample.App,
    connection: psycopg.Connection,
    moments: str,
    who: Who,
) -> None:
    connection.execute(
        "insert into public.device_tokens values ('dead', %(user)s, %(at)s), ('alive', %(user)s, %(at)s)",
        {"user": app.users[0], "at": sample.REGISTERED_AT},
    )
    for moment in moments.split():
        host.points.arm(moment, who)
    events = [
        make.event(app, 1, results=[make.result("alive")]),
        make.event(app, 2, results=[make.unregistered("dead")]),
    ]
    enqueue_outcomes(redis, events)
    until_done(host, redis)
    keys = connection.execute(
        "select idempotency_key, status from public.follow_up_notification_log order by 1"
    ).fetchall()
    tokens = connection.execute("select token from public.device_tokens").fetchall()
    failed = Queue("notiflog", connection=redis).failed_job_registry.count
    assert (keys, tokens, failed) == ([("key-1", "delivered"), ("key-2", "failed")], [("alive",)], 0)


@pytest.mark.parametrize("kind", ["drain"])
def test_a_job_that_keeps_killing_its_workers_fails_whatever_its_retries(
    host: Host, redis: Redis, app: sample.App
) -> None:
    for _ in range(MOST_RECOVERIES + 1):
        host.points.arm("after-claim")
    (job,) = enqueue_outcomes(redis, [make.event(app)])
    until_done(host, redis)
    failed = Queue("notiflog", connection=redis).failed_job_registry.get_job_ids()
    assert (failed, list(redis.scan_iter("rq:execution*"))) == ([job.id], [])


@pytest.mark.parametrize("moments", [DRAIN, STOCK])
def test_a_seed_repeats_kills_and_events(app: sample.App, moments: Any) -> None:
    def made(seed: int) -> Any:
        return plan(moments, 50, seed), workload(app, 1000, seed)

    assert made(1) == made(1) != made(2)
