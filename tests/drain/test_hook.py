"""NOTIFLOG_HOOK: what an app is told of, after the commit, and that its function has no part in recording."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from redis.connection import AbstractConnection as Connection
from rq import Queue

from tests import make
from tests.drain.conftest import JOB, Drain, Start, Work, log_table_locked, rows, until, waiting_writers
from worker import logs
from worker.demo import sample
from worker.queue.notices import QUEUE
from worker.servers.settings import settings

HOOK = "tests.drain.hook.{}"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFLOG_HOOK", HOOK.format("note"))
    settings.cache_clear()


def told(redis: Redis) -> list[dict[str, Any]]:
    return [notice for job in Queue(QUEUE, connection=redis).jobs for notice in job.args[0]]


def run_app_worker(valkey_url: str) -> "subprocess.CompletedProcess[str]":
    """The app's own worker, as RQ has it, until its queue is empty."""
    rq = Path(sys.executable).with_name("rq")
    return subprocess.run(
        [rq, "worker", "--burst", "--url", valkey_url, QUEUE],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def dead(app: sample.App, connection: psycopg.Connection, number: int = 0, **changes: Any) -> dict[str, Any]:
    """An event whose only token is dead, and stands in the app's table."""
    token = f"token-{number}"
    connection.execute(
        "insert into public.device_tokens values (%s, %s, '2026-01-01')", [token, app.users[0]]
    )
    return make.event(app, number, results=[make.unregistered(token)], **changes)


def token_pruned(app: sample.App, number: int = 0) -> dict[str, Any]:
    return {
        "notice": "token_pruned",
        "token": logs.token_hash(f"token-{number}"),
        "delivery_channel": "fcm",
        "reason": "unregistered",
        "peer_mentor_id": str(app.users[number]),
    }


def prompt_failed(app: sample.App, number: int = 0) -> dict[str, Any]:
    return {
        "notice": "prompt_failed",
        "idempotency_key": f"key-{number}",
        "peer_mentor_id": str(app.users[number]),
        "chapter_id": str(app.chapters[0]),
        "scenario_rule_id": str(app.rules[0]),
        "delivery_channel": "fcm",
        "attempted_at": "2026-11-16T06:00:00+00:00",
        "reason": "unregistered",
    }


@pytest.mark.usefixtures("hook")
def test_a_failed_prompt_and_a_pruned_token_are_told_with_ids_and_hashes(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, work: Work
) -> None:
    queue.enqueue(JOB, [dead(app, connection), make.event(app, 1), dead(app, connection, 2, final=False)])
    work()
    assert told(redis) == [prompt_failed(app), token_pruned(app), token_pruned(app, 2)]


@pytest.mark.usefixtures("hook")
def test_what_comes_again_is_not_told_again(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, work: Work
) -> None:
    event = dead(app, connection)
    for _ in range(2):
        queue.enqueue(JOB, [event, event])
        work()
    assert told(redis) == [prompt_failed(app), token_pruned(app)]


@pytest.mark.usefixtures("hook")
def test_a_rejected_event_is_not_told_of(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, work: Work
) -> None:
    stranger = dead(app, connection, chapter_id=make.stranger())
    queue.enqueue(JOB, [stranger, dead(app, connection, 1)])
    work()
    assert told(redis) == [token_pruned(app), prompt_failed(app, 1), token_pruned(app, 1)]


def test_without_a_hook_nothing_is_told(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, work: Work
) -> None:
    queue.enqueue(JOB, [dead(app, connection)])
    work()
    assert (told(redis), rows(connection)) == ([], 1)


@pytest.mark.usefixtures("hook")
def test_nothing_is_told_before_it_is_committed(
    redis: Redis, queue: Queue, app: sample.App, connection: psycopg.Connection, database: str, start: Start
) -> None:
    queue.enqueue(JOB, [dead(app, connection)])
    with log_table_locked(database):
        start("--burst", NOTIFLOG_HOOK=HOOK.format("note"))
        until(lambda: waiting_writers(connection))
        assert told(redis) == []
    until(lambda: told(redis) == [prompt_failed(app), token_pruned(app)])


#: What the app's function does, and what becomes of its jobs.
ILLS = {"raises": 1, "exits": 1, "prints": 0}


@pytest.mark.parametrize("ill", ILLS)
def test_whatever_the_function_does_outcomes_are_recorded_and_no_job_of_ours_fails(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    connection: psycopg.Connection,
    valkey_url: str,
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
    ill: str,
) -> None:
    monkeypatch.setenv("NOTIFLOG_HOOK", HOOK.format(ill))
    settings.cache_clear()
    queue.enqueue(JOB, [dead(app, connection)])
    drain()
    app_worker = run_app_worker(valkey_url)
    queue.enqueue(JOB, [dead(app, connection, 1)])
    drain()
    assert app_worker.returncode == 0
    assert rows(connection) == 2
    assert Queue(QUEUE, connection=redis).failed_job_registry.count == ILLS[ill]
    assert queue.failed_job_registry.count == 0


def test_a_function_that_nobody_runs_leaves_recording_alone_and_what_is_lost_is_counted(
    queue: Queue,
    app: sample.App,
    connection: psycopg.Connection,
    redis: Redis,
    start: Start,
) -> None:
    redis.rpush(f"rq:queue:{QUEUE}", *range(1000))
    queue.enqueue(JOB, [dead(app, connection), make.event(app, 1)])
    worker = start("--burst", NOTIFLOG_HOOK=HOOK.format("note"))
    assert worker.wait() == 0
    assert rows(connection) == 2
    (line,) = worker.logged("notices_lost")
    assert line["notices"] == 2
    assert redis.llen(f"rq:queue:{QUEUE}") == 1000


@pytest.mark.usefixtures("hook")
def test_the_app_s_own_worker_runs_the_function(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    connection: psycopg.Connection,
    valkey_url: str,
    drain: Drain,
) -> None:
    queue.enqueue(JOB, [dead(app, connection)])
    drain()
    done = run_app_worker(valkey_url)
    assert "told: ['prompt_failed', 'token_pruned']" in done.stdout


@pytest.mark.usefixtures("hook")
def test_only_a_thread_of_its_own_asks_redis_anything_for_it(
    queue: Queue,
    app: sample.App,
    connection: psycopg.Connection,
    redis: Redis,
    drain: Drain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    senders: set[str] = set()
    send: Callable[..., None] = Connection.send_packed_command

    def noted(self: Any, command: Any, *args: Any, **options: Any) -> Any:
        packed = command if isinstance(command, bytes) else b"".join(command)
        if QUEUE.encode() in packed:
            senders.add(threading.current_thread().name)
        return send(self, command, *args, **options)

    monkeypatch.setattr(Connection, "send_packed_command", noted)
    queue.enqueue(JOB, [dead(app, connection)])
    drain()
    assert senders == {"notices"}
    assert len(told(redis)) == 2
