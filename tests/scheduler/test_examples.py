"""The manual's examples for schedulers run as they stand there."""

import asyncio
import json
import re
import shlex
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

from tests.manual import BLOCKS, README, example
from tests.scheduler.conftest import Fcm, Work
from worker.demo import sample
from worker.drain import DrainWorker
from worker.enqueue import enqueue_outcomes

Statuses = Callable[[], list[str]]

#: Firebase installation ids.
NEW, OLD = "c" + "N" * 21, "c" + "O" * 21


def defined(code: str) -> dict[str, Any]:
    """What an example defines, by itself."""
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own manual
    return names


@pytest.fixture
def prompt(connection: psycopg.Connection, app: sample.App) -> dict[str, Any]:
    """The ids of one prompt; the mentor's devices registered long ago."""
    for token in ("new", "old", NEW, OLD):
        connection.execute(
            "insert into public.device_tokens values (%s, %s, '2026-01-01Z')", [token, app.users[0]]
        )
    return {"mentor": app.users[0], "chapter": app.chapters[0], "rule": app.rules[0]}


def tokens(connection: psycopg.Connection) -> set[str]:
    return {token for (token,) in connection.execute("select token from public.device_tokens")}


@pytest.mark.parametrize("heading", ["Use it", "With firebase-admin"])
class TestFirebase:
    """By installation ids, so that no warning of the library's comes, which would be an error here."""

    def test_records_the_prompt_and_prunes_the_dead_token(
        self,
        heading: str,
        fcm: Fcm,
        redis: Redis,
        prompt: dict[str, Any],
        work: Work,
        statuses: Statuses,
        connection: psycopg.Connection,
    ) -> None:
        fcm.answers[OLD] = 404, {"error": {"details": [{"errorCode": "UNREGISTERED"}]}}
        defined(example(heading, "python"))["send"](redis, **prompt, fids=[NEW, OLD])
        work()
        assert (statuses(), tokens(connection)) == (["delivered"], {"new", "old", NEW})
        assert fcm.sent_as == {NEW: "fid", OLD: "fid"}

    def test_an_unreadable_answer_of_fcm_costs_no_token(
        self,
        heading: str,
        fcm: Fcm,
        redis: Redis,
        prompt: dict[str, Any],
        work: Work,
        statuses: Statuses,
        connection: psycopg.Connection,
    ) -> None:
        fcm.answers[OLD] = 404, {"error": "not found"}
        defined(example(heading, "python"))["send"](redis, **prompt, fids=[NEW, OLD])
        work()
        assert (statuses(), tokens(connection)) == (["failed"], {"new", "old", NEW, OLD})


def test_async_scheduler(
    redis: Redis, prompt: dict[str, Any], work: Work, statuses: Statuses, connection: psycopg.Connection
) -> None:
    async def push(token: str) -> httpx.Response:
        return httpx.Response(200 if token == "new" else 410, content=b"")

    send = defined(example("With an APNs client, from async code", "python"))["send"]
    asyncio.run(send(redis, push, **prompt, tokens=["new", "old"]))
    work()
    assert (statuses(), tokens(connection)) == (["delivered"], {"new", NEW, OLD})


def test_plain_http(
    redis: Redis, prompt: dict[str, Any], work: Work, statuses: Statuses, connection: psycopg.Connection
) -> None:
    def fcm(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content)["message"]["token"] == "new":
            raise httpx.ConnectError("refused", request=request)
        return httpx.Response(404, json={"error": {"details": [{"errorCode": "UNREGISTERED"}]}})

    send = defined(example("By plain HTTP", "python"))["send"]
    with httpx.Client(transport=httpx.MockTransport(fcm)) as client:
        send(redis, client, "https://fcm.test", **prompt, tokens=["new", "old"])
    work()
    assert (statuses(), tokens(connection)) == (["failed"], {"new", NEW, OLD})


class TestHistory:
    @pytest.fixture
    def recorded(self, prompt: dict[str, Any], connection: psycopg.Connection) -> str:
        """The key of the prompt, which was delivered a moment ago."""
        (key,) = connection.execute(
            "insert into public.follow_up_notification_log (peer_mentor_id, chapter_id, scenario_rule_id,"
            " delivered_at, delivery_channel, idempotency_key, status)"
            " values (%s, %s, %s, now(), 'fcm', encode(sha256(%s), 'hex'), 'delivered')"
            " returning idempotency_key",
            [*prompt.values(), f"{prompt['mentor']}:{prompt['rule']}:2026-W47".encode()],
        ).fetchone() or ("",)
        return str(key)

    def test_what_is_due_leaves_out_whom_the_rule_has_reached(
        self, recorded: str, prompt: dict[str, Any], connection: psycopg.Connection, app: sample.App
    ) -> None:
        due = defined(example("Ask, and reserve", "python"))["due"]
        assert due(connection, prompt["rule"], app.users) == app.users[1:]

    def test_what_is_looked_up_is_there(
        self,
        recorded: str,
        prompt: dict[str, Any],
        connection: psycopg.Connection,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        defined(example("Ask, and reserve", "python"))["look"](connection, **prompt)
        assert f"{{'{recorded}': 'delivered'}}" in capsys.readouterr().out

    def test_the_readmes_reservation_gives_each_key_once(self, connection: psycopg.Connection) -> None:
        (block,) = [each.code for each in BLOCKS if each.page == README and "still_to_send" in each.code]
        still_to_send = defined(block)["still_to_send"]
        assert (still_to_send(connection, ["k"]), still_to_send(connection, ["k"])) == ({"k"}, set())


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
