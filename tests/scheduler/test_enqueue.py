"""From events to jobs: checked, split, enqueued at once, and leaving no tokens behind."""

import asyncio
import json
import subprocess
import sys
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Any
from uuid import UUID

import pytest
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import DefaultSerializer, JSONSerializer

from tests import make
from tests.scheduler.conftest import Work
from worker import enqueue
from worker.demo import sample
from worker.enqueue import InvalidEvents, enqueue_outcomes, event
from worker.events import decode
from worker.judge.classify import fold
from worker.queue.plain import RecordCall, read_call

SENT_AT = datetime(2026, 11, 16, 6, 0, tzinfo=UTC)
SECRET = "secret-device-token"
Statuses = Callable[[], list[str]]

CYCLE: list[Any] = []
CYCLE.append(CYCLE)

#: What is wrong with an event, and how the error says so.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an id": ({"chapter_id": "x"}, "$.chapter_id: expected a UUID"),
    "a token": ({"results": [make.result(f"{SECRET}\0")]}, "$.results[0].token: contains a NUL character"),
    "no results": ({"results": "none"}, "$.results: expected `array | null`, got `str`"),
    "a time": (
        {"attempted_at": "2026-11-16T06:00:00"},
        "$.attempted_at: expected `datetime` with a timezone component",
    ),
    "bytes": (
        {"results": [make.result(SECRET, body=SECRET.encode())]},
        "$: is not JSON: Object of type bytes is not JSON serializable",
    ),
    "an id that is no text": (
        {"chapter_id": UUID(int=1)},
        "$: is not JSON: Object of type UUID is not JSON serializable",
    ),
    "a cycle": (
        {"results": [make.result(SECRET, body=CYCLE)]},
        "$: is not JSON: Circular reference detected",
    ),
    "its size": (
        {"results": [make.result(SECRET, body="x" * enqueue.LARGEST_JOB)]},
        "$: is larger than 4 MiB of JSON",
    ),
}


def good(app: sample.App, n: int) -> list[dict[str, Any]]:
    return [make.event(app, number, results=[make.result(f"{SECRET}-{number}")]) for number in range(n)]


def calls(server: Redis, *commands: str) -> dict[str, int]:
    stats = server.info("commandstats")
    return {command: stats.get(f"cmdstat_{command}", {"calls": 0})["calls"] for command in commands}


def _positions_named(redis: Redis, app: sample.App, depth: int) -> list[int]:
    """Which of three events are refused, the last of which has a body so deep."""
    body: dict[str, Any] = {}
    for _ in range(depth):
        body = {"error": body}
    events = [*good(app, 2), make.event(app, 2, results=[make.result(SECRET, body=body)])]
    try:
        enqueue_outcomes(redis, events)
    except InvalidEvents as error:
        return [bad.position for bad in error.rejected]
    return []


class TestChecking:
    @pytest.mark.parametrize("name", BAD)
    def test_a_bad_event_is_named_before_anything_is_enqueued(
        self, redis: Redis, app: sample.App, name: str
    ) -> None:
        changes, problem = BAD[name]
        events = [*good(app, 2), make.event(app, **changes)]
        with pytest.raises(InvalidEvents) as raised:
            enqueue_outcomes(redis, events)
        assert str(raised.value) == f"1 of 3 events are invalid, none is enqueued:\n[2] {problem}"
        assert [bad.position for bad in raised.value.rejected] == [2]
        assert SECRET not in str(raised.value)
        assert redis.keys() == []

    def test_an_event_too_deep_to_be_stored_is_named(self, redis: Redis, app: sample.App) -> None:
        assert _positions_named(redis, app, depth=100_000) == [2]
        assert redis.keys() == []

    @pytest.mark.parametrize("depth", range(300, 1100, 200))
    def test_how_deep_it_may_be_is_for_python_to_say(self, redis: Redis, app: sample.App, depth: int) -> None:
        named = _positions_named(redis, app, depth)
        assert (named, redis.llen("rq:queue:notiflog")) in [([], 1), ([2], 0)]

    def test_all_bad_events_are_named_in_order(self, redis: Redis, app: sample.App) -> None:
        events = [make.event(app, **changes) for changes, _ in BAD.values()]
        with pytest.raises(InvalidEvents) as raised:
            enqueue_outcomes(redis, events)
        expected = [f"[{at}] {problem}" for at, (_, problem) in enumerate(BAD.values())]
        assert str(raised.value).splitlines()[1:] == expected

    def test_a_long_list_of_them_is_cut_in_the_text_only(self, redis: Redis) -> None:
        with pytest.raises(InvalidEvents) as raised:
            enqueue_outcomes(redis, [{}] * 1000)
        assert str(raised.value).splitlines()[-1] == "and 900 more"
        assert len(raised.value.rejected) == 1000

    def test_an_asynchronous_client_is_refused(self) -> None:
        client: Any = redis.asyncio.Redis()
        with pytest.raises(TypeError, match="synchronous Redis connection"):
            enqueue_outcomes(client, [])

    def test_a_queue_that_runs_jobs_here_and_now_is_refused(self, redis: Redis, app: sample.App) -> None:
        with pytest.raises(ValueError, match="is_async=False"):
            enqueue_outcomes(Queue("notiflog", connection=redis, is_async=False), good(app, 1))
        assert redis.keys() == []

    def test_no_events_no_jobs(self, redis: Redis) -> None:
        assert enqueue_outcomes(redis, []) == []
        assert redis.keys() == []


class Word(str):
    """A text of another class."""


class Answer(StrEnum):
    GONE = "Unregistered"


WITH_DEFAULT: dict[str, Any] = defaultdict(lambda: None, error=defaultdict(dict))

#: What JSON takes for plain, though its type is another, and what the worker reads.
ALMOST_PLAIN: dict[str, tuple[Any, Any]] = {
    "a status of the standard library": (make.result("t") | {"http_status": HTTPStatus.OK}, make.result("t")),
    "a text of another class": (make.result(Word("t")), make.result("t")),
    "a word of an enum": (
        make.result("t", http_status=410, body=Answer.GONE),
        make.result("t", http_status=410, body="Unregistered"),
    ),
    "an ordered dict": (make.result("t", body=OrderedDict(name="n")), make.result("t", body={"name": "n"})),
    "a dict with a default": (
        make.result("t", http_status=404, body=WITH_DEFAULT),
        make.result("t", http_status=404, body={"error": {}}),
    ),
}


class TestJobs:
    @pytest.mark.parametrize("name", ALMOST_PLAIN)
    @pytest.mark.parametrize("serializer", [DefaultSerializer, JSONSerializer])
    def test_hold_plain_values(self, redis: Redis, app: sample.App, name: str, serializer: Any) -> None:
        given, plain = ALMOST_PLAIN[name]
        queue = Queue("notiflog", connection=redis, serializer=serializer)
        (job,) = enqueue_outcomes(queue, [*good(app, 1), make.event(app, 1, results=[given])])
        stored = redis.hget(job.key, "data")
        assert isinstance(stored, bytes)
        assert read_call(stored) == RecordCall([*good(app, 1), make.event(app, 1, results=[plain])])

    def test_are_split_and_keep_the_order(self, redis: Redis, app: sample.App) -> None:
        events = good(app, 1201)
        jobs = enqueue_outcomes(redis, iter(events))
        assert [len(job.args[0]) for job in jobs] == [500, 500, 201]
        assert Queue("notiflog", connection=redis).job_ids == [job.id for job in jobs]
        assert [event for job in jobs for event in job.args[0]] == events

    def test_are_enqueued_in_one_transaction(self, redis: Redis, app: sample.App) -> None:
        redis.config_resetstat()
        enqueue_outcomes(redis, good(app, 20), per_job=1)
        assert calls(redis, "exec", "rpush") == {"exec": 1, "rpush": 20}

    @pytest.mark.parametrize("per_job", [1, 2, 500])
    def test_of_large_events_hold_fewer(
        self, redis: Redis, app: sample.App, monkeypatch: pytest.MonkeyPatch, per_job: int
    ) -> None:
        monkeypatch.setattr(enqueue, "LARGEST_JOB", 1000)
        jobs = enqueue_outcomes(redis, good(app, 10), per_job=per_job)
        assert {len(job.args[0]) for job in jobs} == {min(per_job, 2)}

    @given(sizes=st.lists(st.integers(1, 120)), most=st.integers(1, 5))
    def test_are_within_the_limits_and_hold_every_event(self, sizes: list[int], most: int) -> None:
        events: list[dict[str, Any]] = [{"n": n} for n in range(len(sizes))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(enqueue, "LARGEST_JOB", 100)
            chunks = list(enqueue._chunks(events, sizes, most))
        assert [event for chunk in chunks for event in chunk] == events
        for chunk in chunks:
            assert 1 <= len(chunk) <= most
            assert len(chunk) == 1 or sum(sizes[event["n"]] for event in chunk) <= 100

    @pytest.mark.parametrize(("events", "compressed"), [(1, False), (500, True)])
    def test_are_compressed_where_that_is_worth_the_time(
        self, redis: Redis, app: sample.App, events: int, compressed: bool
    ) -> None:
        (job,) = enqueue_outcomes(redis, good(app, events))
        data: Any = redis.hget(job.key, "data")
        assert (data[:1] == b"\x78", len(data) < len(job.data)) == (compressed, compressed)
        assert Job.fetch(job.id, connection=redis).args == job.args

    def test_have_no_empty_fields(self, redis: Redis, app: sample.App) -> None:
        (job,) = enqueue_outcomes(redis, [make.event(app)])
        assert b"" not in redis.hgetall(job.key).values()

    def test_are_of_the_class_that_the_queue_asks_for(self, redis: Redis, app: sample.App) -> None:
        class Own(Job):  # type: ignore[misc]
            pass

        (job,) = enqueue_outcomes(Queue("notiflog", connection=redis, job_class=Own), good(app, 1))
        assert type(job) is Own

    def test_go_to_the_queue_that_is_given(self, redis: Redis, app: sample.App) -> None:
        (job,) = enqueue_outcomes(Queue("staging", connection=redis), good(app, 1))
        assert (job.origin, redis.llen("rq:queue:staging")) == ("staging", 1)

    def test_show_tokens_nowhere_but_in_their_data(self, redis: Redis, app: sample.App) -> None:
        (job,) = enqueue_outcomes(redis, good(app, 3))
        fields: Any = redis.hgetall(job.key)
        assert fields.pop(b"description") == b"outcomes: 3"
        del fields[b"data"]
        assert SECRET.encode() not in b"".join(fields.values())


class TestInRedis:
    @pytest.mark.parametrize("serializer", ["pickle", "json"])
    def test_nothing_is_left_of_a_job_that_is_done(
        self, redis: Redis, work: Work, statuses: Statuses, app: sample.App, serializer: str
    ) -> None:
        enqueue_outcomes(Queue("notiflog", connection=redis, serializer=serializer), good(app, 3))
        work(serializer)
        assert statuses() == ["delivered"] * 3
        assert redis.keys("rq:job*") + redis.keys("rq:result*") == []

    def test_a_failed_job_runs_once_and_goes_after_two_weeks(
        self, redis: Redis, work: Work, app: sample.App
    ) -> None:
        (job,) = enqueue_outcomes(redis, [make.event(app, chapter_id=make.stranger())])
        work()
        assert len(job.results()) == 1
        registry = Queue("notiflog", connection=redis).failed_job_registry
        (score,) = [score for _, score in redis.zscan_iter(registry.key)]
        lifetimes = [redis.ttl(job.key), *map(redis.ttl, redis.keys("rq:result*")), score - time.time()]
        assert len(lifetimes) == 3
        assert all(0 <= enqueue.FAILURE_TTL - lifetime < 60 for lifetime in lifetimes)

    def test_a_job_whose_worker_died_runs_again(
        self, redis: Redis, work: Work, statuses: Statuses, app: sample.App
    ) -> None:
        queue = Queue("notiflog", connection=redis)
        (job,) = enqueue_outcomes(queue, good(app, 1))
        for _ in range(enqueue.RETRIES):
            self.die_with(queue, job)
            queue.started_job_registry.cleanup(time.time() + 3600)
            assert job.get_status(refresh=True) == "queued"
        work()
        assert statuses() == ["delivered"]

    def die_with(self, queue: Queue, job: Job) -> None:
        """What a worker leaves that took the job and was never seen again."""
        queue.connection.lrem(queue.key, 1, job.id)
        with queue.connection.pipeline() as pipeline:
            job.prepare_for_execution("gone", pipeline)
            queue.connection.zadd(queue.started_job_registry.key, {f"{job.id}:1": time.time() + 60})
            pipeline.execute()

    def test_events_enqueued_twice_are_recorded_once(
        self, redis: Redis, work: Work, statuses: Statuses, app: sample.App
    ) -> None:
        for _ in range(2):
            enqueue_outcomes(redis, good(app, 3))
        work()
        assert statuses() == ["delivered"] * 3
        assert redis.zcard("rq:failed:notiflog") == 0

    def test_from_async_code_several_at_once(
        self, redis: Redis, work: Work, statuses: Statuses, app: sample.App
    ) -> None:
        events = good(app, 6)

        async def schedule() -> None:
            await asyncio.gather(
                *(asyncio.to_thread(enqueue_outcomes, redis, events[n : n + 2]) for n in range(0, 6, 2))
            )

        asyncio.run(schedule())
        work()
        assert statuses() == ["delivered"] * 6


class TestBuilder:
    IDS: dict[str, Any] = {  # noqa: RUF012 - never changed
        "peer_mentor_id": UUID(int=1),
        "chapter_id": str(UUID(int=2)),
        "scenario_rule_id": UUID(int=3),
        "delivery_channel": "fcm",
        "attempted_at": SENT_AT,
    }

    @pytest.mark.parametrize(
        ("arguments", "status", "reason", "final"),
        [
            ({"date_window": "2026-W47", "results": [make.result()]}, "delivered", None, True),
            ({"date_window": "2026-W47", "results": (make.unregistered(),)}, "failed", "unregistered", True),
            ({"date_window": "2026-W47", "skipped": "quiet_hours"}, "skipped", "quiet_hours", True),
            ({"idempotency_key": "key", "results": []}, "skipped", "no_results", True),
            (
                {
                    "idempotency_key": "key",
                    "results": [make.result(http_status=None, body=None)],
                    "final": False,
                },
                "failed",
                "no_answer",
                False,
            ),
        ],
        ids=["delivered", "failed", "skipped", "no devices", "to be tried again"],
    )
    def test_makes_events_of_json_types(
        self, arguments: dict[str, Any], status: str, reason: str | None, final: bool
    ) -> None:
        payload = event(**self.IDS, **arguments)
        assert json.loads(json.dumps(payload)) == payload
        outcome = fold(decode(payload))
        assert (outcome.peer_mentor_id, outcome.chapter_id, outcome.delivered_at) == (
            UUID(int=1),
            UUID(int=2),
            SENT_AT,
        )
        assert (outcome.status, outcome.reason, outcome.final) == (status, reason, final)

    @pytest.mark.parametrize(
        ("arguments", "problem"),
        [
            ({}, "exactly one of idempotency_key and date_window is needed"),
            ({"date_window": ""}, "length"),
            ({"date_window": "w", "skipped": "why", "results": [make.result()]}, "cannot stand together"),
            ({"date_window": "w", "attempted_at": datetime(2026, 11, 16)}, "timezone"),  # noqa: DTZ001
        ],
        ids=["no key", "empty window", "sent and skipped", "no time zone"],
    )
    def test_leaves_the_checking_to_enqueueing(
        self, redis: Redis, arguments: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(InvalidEvents, match=problem):
            enqueue_outcomes(redis, [event(**{**self.IDS, **arguments})])


def test_the_scheduler_loads_neither_the_database_driver_nor_a_providers_client() -> None:
    code = (
        "import sys, worker.enqueue, worker.fcm, worker.apns\n"
        "sys.exit(bool({'psycopg', 'firebase_admin', 'httpx', 'aioapns'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
