"""Producers in TypeScript: what they enqueue is what Python's do, in Node and Deno, with either client."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job

from tests import make
from tests.manual import example
from tests.scheduler.conftest import Work
from tests.typescript import types
from tests.typescript.conftest import Project
from worker.demo import sample
from worker.drain import DrainWorker
from worker.enqueue import enqueue_outcomes
from worker.events import idempotency_key

Statuses = Callable[[], list[str]]

WORKERS = pytest.mark.parametrize(
    ("worker", "serializer"),
    [(DrainWorker, None), (SimpleWorker, "json")],
    ids=["draining", "stock, --serializer json"],
)


def test_the_manuals_example_compiles(project: Project) -> None:
    module = project.directory / "manual.ts"
    module.write_text(example("From another language", "ts"))
    options = [
        "--strict",
        "--noEmit",
        "--module",
        "nodenext",
        "--allowImportingTsExtensions",
        "--skipLibCheck",
    ]
    checked = subprocess.run(
        [project.tool("tsc"), "--ignoreConfig", "--types", "node", *options, module.name],
        cwd=project.directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout


def test_the_types_are_those_of_the_schema() -> None:
    assert types.MADE.read_text() == types.typescript(json.loads(types.SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("event", "good"),
    [
        ("{ ...ids, date_window: '2026-W47', results: [{ token: 't', http_status: null }] }", True),
        ("{ ...ids, idempotency_key: 'k', skipped: 'quiet_hours', final: false }", True),
        ("{ ...ids }", False),
        ("{ ...ids, date_window: '2026-W47', idempotency_key: 'k' }", False),
        ("{ ...ids, date_window: '2026-W47', delivery_channel: 'sms' }", False),
        ("{ ...ids, date_window: '2026-W47', results: [{ token: 't' }] }", False),
        ("{ ...ids, date_window: '2026-W47', extra: 1 }", False),
    ],
)
def test_the_compiler_tells_good_events_from_others(project: Project, event: str, good: bool) -> None:
    module = project.directory / "event_case.ts"
    module.write_text(
        "import type { Event } from './event.ts';\n"
        "const ids = { peer_mentor_id: 'm', chapter_id: 'c', scenario_rule_id: 'r',\n"
        "  delivery_channel: 'fcm' as const, attempted_at: '2026-11-16T06:00:00Z' };\n"
        f"export const event: Event = {event};\n"
    )
    options = ["--strict", "--noEmit", "--module", "nodenext", "--allowImportingTsExtensions"]
    checked = subprocess.run(
        [project.tool("tsc"), "--ignoreConfig", "--types", "node", *options, module.name],
        cwd=project.directory, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    module.unlink()
    assert (checked.returncode == 0) is good, checked.stdout


class TestEnqueue:
    def test_writes_what_a_python_producer_does(
        self, project: Project, runtime: str, client: str, socket: str, redis: Redis, app: sample.App
    ) -> None:
        events = [make.event(app, n) for n in range(3)]
        (job_id,) = project.run(runtime, "enqueue", client, socket, input=events).said
        queue = Queue("notiflog", connection=redis, serializer="json")
        (ours,) = enqueue_outcomes(queue, events)
        theirs = Job.fetch(job_id, connection=redis, serializer="json")
        assert (theirs.func_name, tuple(theirs.args), theirs.kwargs) == (
            ours.func_name,
            ours.args,
            ours.kwargs,
        )
        assert queue.job_ids == [theirs.id, ours.id]
        fields, written = (redis.hgetall(job.key) for job in (theirs, ours))
        for name in (b"data", b"created_at", b"enqueued_at"):
            assert name in written
            del fields[name]
        assert fields.items() <= written.items()
        assert {name for name in written if written[name] and name not in fields} <= {
            b"data", b"created_at", b"enqueued_at", b"retry_intervals",
        }  # fmt: skip
        jobs = {f"rq:job:{job.id}".encode() for job in (theirs, ours)}
        assert set(redis.keys()) == {b"rq:queues", b"rq:queue:notiflog", *jobs}

    def test_splits_into_jobs_of_500_in_one_transaction(
        self, project: Project, runtime: str, client: str, socket: str, redis: Redis, app: sample.App
    ) -> None:
        redis.config_resetstat()
        ids = project.run(
            runtime, "enqueue", client, socket, input=[make.event(app, n) for n in range(1001)]
        ).said
        stats = redis.info("commandstats")
        assert {name: stats[f"cmdstat_{name}"]["calls"] for name in ("multi", "exec", "hset", "rpush")} == {
            "multi": 1, "exec": 1, "hset": 3, "rpush": 3,
        }  # fmt: skip
        jobs = [Job.fetch(job_id, connection=redis, serializer="json") for job_id in ids]
        assert [len(job.args[0]) for job in jobs] == [500, 500, 1]
        assert [job.description for job in jobs] == ["outcomes: 500", "outcomes: 500", "outcomes: 1"]
        assert redis.lrange("rq:queue:notiflog", 0, -1) == [job_id.encode() for job_id in ids]

    def test_splits_what_is_large_and_refuses_what_is_too_large(
        self, project: Project, socket: str, redis: Redis, app: sample.App
    ) -> None:
        events = [make.event(app, n, results=[make.result(body="x" * (3 << 19))]) for n in range(5)]
        assert len(project.run("node", "enqueue", "ioredis", socket, input=events).said) == 3
        redis.flushall()
        huge = make.event(app, 9, results=[make.result(token="S3CR3T", body="x" * (4 << 20))])
        refused = project.run("node", "enqueue", "ioredis", socket, input=[*events, huge])
        assert (refused.code, "larger than 4 MiB" in refused.errors, redis.dbsize()) == (1, True, 0)
        assert "S3CR3T" not in refused.errors

    def test_an_error_of_redis_is_thrown_and_nothing_is_hidden(
        self, project: Project, runtime: str, client: str, socket: str, redis: Redis, app: sample.App
    ) -> None:
        redis.set("rq:queue:notiflog", "no list")
        failed = project.run(
            runtime, "enqueue", client, socket, input=[make.event(app, results=[make.result("S3CR3T")])]
        )
        assert failed.code == 1
        assert "WRONGTYPE" in failed.errors or "commands failed" in failed.errors
        assert "S3CR3T" not in failed.errors + failed.output

    def test_nothing_to_enqueue_asks_nothing(
        self, project: Project, client: str, socket: str, redis: Redis
    ) -> None:
        assert project.run("node", "enqueue", client, socket, input=[]).said == []
        assert redis.dbsize() == 0

    def test_another_queue_and_prefix(
        self, project: Project, client: str, socket: str, redis: Redis, app: sample.App
    ) -> None:
        options = json.dumps({"queue": "outcomes", "prefix": "mine"})
        (job_id,) = project.run("node", "enqueue", client, socket, options, input=[make.event(app)]).said
        assert set(redis.keys()) == {b"mine:queues", b"mine:queue:outcomes", f"mine:job:{job_id}".encode()}
        assert redis.hget(f"mine:job:{job_id}", "origin") == b"outcomes"

    @WORKERS
    def test_workers_record_it_once_however_often_it_is_enqueued(
        self,
        project: Project,
        runtime: str,
        client: str,
        socket: str,
        redis: Redis,
        app: sample.App,
        work: Work,
        statuses: Statuses,
        worker: type[SimpleWorker],
        serializer: str | None,
    ) -> None:
        events = [make.event(app, n) for n in range(3)]
        events += [
            make.event(app, 3, results=None, skipped="Ruhe \u2028 \U0001f319"),
            make.event(app, 4, results=[make.unregistered()]),
        ]
        for _ in range(2):
            project.run(runtime, "enqueue", client, socket, input=events)
        work(serializer, worker)
        assert statuses() == ["delivered"] * 3 + ["failed", "skipped"]
        assert redis.keys("rq:job:*") == []


#: What a provider answers, and what the worker makes of the result: its reason.
UNREGISTERED = json.dumps({"error": {"details": [{"errorCode": "UNREGISTERED"}]}})
ANSWERS: dict[str, list[tuple[Any, tuple[int | None, str | None]]]] = {
    "fcm": [
        ([200, '{"name": "projects/p/messages/1"}'], (200, '{"name": "projects/p/messages/1"}')),
        ([404, UNREGISTERED], (404, UNREGISTERED)),
        ([503, "<html>"], (503, "<html>")),
        ([404, None], (404, "")),
        ([404, "broken"], (None, None)),  # not an empty 404, which would prune
        ("TimeoutError", (None, None)),
    ],
    "apns": [
        ([200, None], (200, "")),
        (
            [410, '{"reason": "Unregistered", "timestamp": 1}'],
            (410, '{"reason": "Unregistered", "timestamp": 1}'),
        ),
        ([410, "broken"], (None, None)),
        ("TypeError", (None, None)),
    ],
}


class TestResults:
    @pytest.mark.parametrize("channel", ANSWERS)
    def test_carry_status_and_body_as_they_came(self, project: Project, runtime: str, channel: str) -> None:
        made = [answer for answer, _ in ANSWERS[channel]]
        expected = [
            {"token": f"token-{n}", "http_status": status, "body": body, "delivery_channel": channel}
            for n, (_, (status, body)) in enumerate(ANSWERS[channel])
        ]
        assert project.run(runtime, "results", channel, input=made).said == [expected] * 3

    def test_as_many_answers_as_tokens_are_needed(self, project: Project, runtime: str) -> None:
        failed = project.run(runtime, "mismatch")
        assert (failed.code, failed.errors) == (1, "RangeError: 2 tokens, but 0 answers")

    def test_what_they_say_is_understood(
        self,
        project: Project,
        socket: str,
        redis: Redis,
        app: sample.App,
        connection: psycopg.Connection,
        work: Work,
    ) -> None:
        """The dead token goes, those about which the answers prove nothing stay."""
        made = [answer for answer, _ in ANSWERS["fcm"]]
        for n in range(len(made)):
            connection.execute(
                "insert into public.device_tokens values (%s, %s, '2026-01-01Z')",
                [f"token-{n}", app.users[0]],
            )
        results, *_ = project.run("node", "results", "fcm", input=made).said
        project.run("node", "enqueue", "ioredis", socket, input=[make.event(app, results=results)])
        work(None, DrainWorker)
        left = connection.execute("select token from public.device_tokens order by token").fetchall()
        assert [token for (token,) in left] == ["token-0", "token-2", "token-4", "token-5"]


def test_the_key_of_a_window_is_the_workers(project: Project, runtime: str, app: sample.App) -> None:
    windows = ["2026-W47", "Übung \U0001f319", "2026-11-16T06:00"]
    words = [[str(app.users[0]).upper(), str(app.rules[0]), window] for window in windows]
    expected = [idempotency_key(app.users[0], app.rules[0], window) for window in windows]
    assert project.run(runtime, "keys", input=words).said == expected
