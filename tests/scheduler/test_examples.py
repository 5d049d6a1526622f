"""The manual's examples for schedulers run as they stand there."""

import asyncio
import json
import re
import shlex
import textwrap
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import sql
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.utils import utcformat

from tests.manual import example
from tests.scheduler.conftest import Fcm, Work
from worker.demo import sample
from worker.drain import DrainWorker
from worker.enqueue import enqueue_outcomes

Statuses = Callable[[], list[str]]

#: Firebase installation ids.
NEW, OLD = "c" + "N" * 21, "c" + "O" * 21


def run(code: str, names: dict[str, Any]) -> dict[str, Any]:
    exec(code, names)  # noqa: S102 - our own manual
    return names


@pytest.fixture
def names(redis: Redis, connection: psycopg.Connection, app: sample.App) -> dict[str, Any]:
    """What the examples take for granted; the mentor's devices registered long ago."""
    for token in ("new", "old", NEW, OLD):
        connection.execute(
            "insert into public.device_tokens values (%s, %s, '2026-01-01Z')", [token, app.users[0]]
        )
    return {
        "redis": redis,
        "connection": connection,
        "tokens": ["new", "old"],
        "fids": [NEW, OLD],
        "mentor": app.users[0],
        "mentors": app.users,
        "chapter": app.chapters[0],
        "rule": app.rules[0],
    }


def tokens(connection: psycopg.Connection) -> set[str]:
    return {token for (token,) in connection.execute("select token from public.device_tokens")}


class TestFirebase:
    """By installation ids, so that no warning of the library's comes, which would be an error here."""

    def test_records_the_prompt_and_prunes_the_dead_token(
        self,
        fcm: Fcm,
        names: dict[str, Any],
        work: Work,
        statuses: Statuses,
        connection: psycopg.Connection,
    ) -> None:
        fcm.answers[OLD] = 404, {"error": {"details": [{"errorCode": "UNREGISTERED"}]}}
        run(example("With firebase-admin", "python"), names)
        work()
        assert (statuses(), tokens(connection)) == (["delivered"], {"new", "old", NEW})
        assert fcm.sent_as == {NEW: "fid", OLD: "fid"}

    def test_an_unreadable_answer_of_fcm_costs_no_token(
        self,
        fcm: Fcm,
        names: dict[str, Any],
        work: Work,
        statuses: Statuses,
        connection: psycopg.Connection,
    ) -> None:
        fcm.answers[OLD] = 404, {"error": "not found"}
        run(example("With firebase-admin", "python"), names)
        work()
        assert (statuses(), tokens(connection)) == (["failed"], {"new", "old", NEW, OLD})


def test_async_scheduler(
    names: dict[str, Any], work: Work, statuses: Statuses, connection: psycopg.Connection
) -> None:
    async def push(token: str) -> httpx.Response:
        return httpx.Response(200 if token == "new" else 410, content=b"")

    code = example("With an APNs client, from async code", "python")
    scheduler = run(f"async def scheduler():\n{textwrap.indent(code, '    ')}", {**names, "push": push})
    asyncio.run(scheduler["scheduler"]())
    work()
    assert (statuses(), tokens(connection)) == (["delivered"], {"new", NEW, OLD})


def test_history(names: dict[str, Any], connection: psycopg.Connection, app: sample.App) -> None:
    code = example("Ask, and reserve", "python")
    connection.execute(
        "insert into public.follow_up_notification_log (peer_mentor_id, chapter_id, scenario_rule_id,"
        " delivered_at, delivery_channel, idempotency_key, status)"
        " values (%s, %s, %s, now(), 'fcm', encode(sha256(%s), 'hex'), 'delivered')",
        [app.users[0], app.chapters[0], app.rules[0], f"{app.users[0]}:{app.rules[0]}:2026-W47".encode()],
    )
    after = run(code, names)
    assert (after["due"], len(after["page"]), after["page_after"]) == (app.users[1:], 1, [])


class TestAnotherLanguage:
    HEADING = "From another language"

    @pytest.fixture(params=["as it is", "deflated"])
    def job_id(self, request: pytest.FixtureRequest, redis: Redis, connection: psycopg.Connection) -> str:
        """Do what the example says; the rows it speaks of exist."""
        data = example(self.HEADING, "json").encode()
        (payload,) = json.loads(data)[2][0]
        for table, field in (
            ("users", "peer_mentor_id"),
            ("chapters", "chapter_id"),
            ("scenario_rules", "scenario_rule_id"),
        ):
            insert = sql.SQL("insert into {} values (%s)").format(sql.Identifier("public", table))
            connection.execute(insert, [payload[field]])
        job_id = str(uuid4())
        values = {
            "<id>": job_id,
            "<now>": utcformat(datetime.now(UTC)),
            "<data>": data if request.param == "as it is" else zlib.compress(data),
        }
        client: Any = redis.client()  # type: ignore[no-untyped-call]  # one connection, for MULTI
        for command in re.split(r"\n(?! )", example(self.HEADING, "redis").strip()):
            words = (values.get(word) or word.replace("<id>", job_id) for word in shlex.split(command))
            client.execute_command(*words)
        client.close()
        return job_id

    @pytest.mark.parametrize(
        ("worker", "serializer"),
        [(SimpleWorker, "json"), (DrainWorker, None), (DrainWorker, "json")],
        ids=["stock, json", "draining", "draining, json"],
    )
    def test_a_worker_records_it(
        self,
        redis: Redis,
        work: Work,
        statuses: Statuses,
        job_id: str,
        worker: type[SimpleWorker],
        serializer: str | None,
    ) -> None:
        work(serializer, worker)
        assert statuses() == ["delivered"]
        assert redis.exists(f"rq:job:{job_id}") == 0

    def test_it_is_what_rq_writes(self, redis: Redis, job_id: str) -> None:
        queue = Queue("notiflog", connection=redis, serializer="json")
        theirs = Job.fetch(job_id, connection=redis, serializer="json")
        (ours,) = enqueue_outcomes(queue, theirs.args[0])
        assert (theirs.func_name, tuple(theirs.args), theirs.kwargs) == (ours.func_name, ours.args, {})
        assert queue.job_ids == [theirs.id, ours.id]
        assert set(redis.keys()) == {
            *(f"rq:job:{job.id}".encode() for job in (theirs, ours)),
            b"rq:queues",
            b"rq:queue:notiflog",
        }
        fields, written = (redis.hgetall(job.key) for job in (theirs, ours))
        for name in (b"data", b"created_at", b"enqueued_at"):
            assert name in written
            del fields[name]
        assert fields.items() <= written.items()
