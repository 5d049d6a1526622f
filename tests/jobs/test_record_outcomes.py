"""The job function: its summary, its errors, and what it does when PostgreSQL does not answer."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fakeredis import FakeRedis
from rq import Queue, Retry, SimpleWorker

from tests import make
from worker import jobs
from worker.demo import sample
from worker.events import InvalidEvent
from worker.jobs import record_outcomes
from worker.record.account import RejectedEvents
from worker.servers import postgres
from worker.servers.settings import Settings

Logged = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def configured(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "settings", lambda: Settings(database_url=database))


def count(connection: psycopg.Connection) -> int:
    (n,) = connection.execute("select count(*) from public.follow_up_notification_log").fetchone() or (0,)
    return int(n)


class TestSummary:
    def test_it_counts_what_became_of_every_event(self, app: sample.App) -> None:
        busy = make.result(http_status=503, body=None)
        with pytest.raises(RejectedEvents):
            record_outcomes([make.event(app, 7), make.event(app, 8, chapter_id="x")])
        summary = record_outcomes(
            [
                make.event(app, 0),
                make.event(app, 1, results=[make.unregistered()]),
                make.event(app, 2, results=[busy, make.unregistered()]),
                make.event(app, 3, results=[], skipped="quiet_hours"),
                make.event(app, 4, results=[], skipped="Ann is in hospital"),
                make.event(app, 5, results=None),
                make.event(app, 6, final=False),
                make.event(app, 7, results=[]),
            ]
        )
        assert isinstance(summary, dict)
        assert summary | {"ms": 0} == {
            "events": 8,
            "delivered": 1,
            "failed": 2,
            "skipped": 3,
            "retrying": 1,
            "duplicates": 1,
            "conflicting": 1,
            "waiting": 0,
            "rejected": 0,
            "pruned": 0,
            "kept": 0,
            "withheld": 0,
            "refused": 0,
            "absent": 1,
            "failed_by": {"unregistered": 1, "service_unavailable": 1},
            "skipped_by": {"quiet_hours": 1, "other": 1, "no_results": 1},
            "ms": 0,
        }

    def test_it_is_one_line_of_json(self, app: sample.App, logged: Logged) -> None:
        record_outcomes([make.event(app)])
        (line,) = logged()
        assert (line["event"], line["level"], line["jobs"], line["delivered"]) == (
            "outcomes_recorded",
            "info",
            1,
            1,
        )

    def test_each_failed_send_is_a_line_with_its_reason(self, app: sample.App, logged: Logged) -> None:
        record_outcomes([make.event(app, results=[make.unregistered("a-device-token"), make.result()])])
        line = logged()[0]
        assert line | {"ts": ""} == {
            "ts": "",
            "level": "info",
            "event": "send_failed",
            "channel": "fcm",
            "http_status": 404,
            "reason": "unregistered",
            "evidence": "proven_dead",
            "token": "e74127f13326",
        }


STRANGER = make.stranger()
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("NUL in a token", {"results": [make.result("a\0b")]}, "$.results[0].token: contains a NUL character"),
    ("NUL in a key", {"idempotency_key": "a\0b"}, "$.idempotency_key: contains a NUL character"),
    ("lone surrogate", {"idempotency_key": "\ud800"}, "$.idempotency_key: contains a lone surrogate"),
    ("bytes for text", {"idempotency_key": b"key"}, "$.idempotency_key: expected `str | null`, got `bytes`"),
    ("naive time", {"attempted_at": "2026-11-16T06:00:00"}, "$.attempted_at: expected"),
    ("year 9999", {"attempted_at": "9999-12-31T23:59:59-14:00"}, "$.attempted_at: year must be"),
    ("year 0", {"attempted_at": "0000-01-01T00:00:00Z"}, "$.attempted_at: expected"),
    ("infinity", {"attempted_at": "infinity"}, "$.attempted_at: expected"),
    ("epoch seconds", {"attempted_at": float("nan")}, "$.attempted_at: expected"),
    ("urn for an id", {"chapter_id": f"urn:uuid:{make.stranger()}"}, "$.chapter_id: expected a UUID"),
    ("other digits in an id", {"chapter_id": "\u0661" * 32}, "$.chapter_id: expected a UUID"),
    ("long key", {"idempotency_key": "\u6f22" * 4000}, "$.idempotency_key: expected `str` of length <= 255"),
    ("object for text", {"idempotency_key": {}}, "$.idempotency_key: expected `str | null`, got `object`"),
    ("mixed list", {"results": [make.result(), 7]}, "$.results[1]: expected `object`, got `int`"),
    ("no such parent", {"chapter_id": STRANGER}, f"$.chapter_id: there is no such chapter: {STRANGER}"),
    ("unknown channel", {"delivery_channel": "sms"}, "$.delivery_channel: expected 'fcm' or 'apns'"),
]  # fmt: skip


class TestRejectedEvents:
    @pytest.mark.parametrize(
        ("changes", "problem"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
    )
    def test_one_bad_event_among_ten_thousand_leaves_all_others_recorded_and_one_clear_line(
        self, connection: psycopg.Connection, app: sample.App, changes: dict[str, Any], problem: str
    ) -> None:
        events = [make.event(app, number) for number in range(10_000)]
        events[6170] |= changes
        with pytest.raises(RejectedEvents) as caught:
            record_outcomes(events)
        head, *lines = str(caught.value).splitlines()
        assert head == "1 of 10000 events rejected, all others are recorded; correct them and enqueue:"
        assert len(lines) == 1
        assert lines[0].startswith(f"[6170] {problem}")
        assert count(connection) == 9_999

    def test_replaying_the_job_is_harmless(self, connection: psycopg.Connection, app: sample.App) -> None:
        events = [make.event(app), make.event(app, 1, chapter_id=make.stranger())]
        for _ in range(2):
            with pytest.raises(RejectedEvents):
                record_outcomes(events)
        assert count(connection) == 1

    def test_however_many_there_are_each_is_named(self, app: sample.App) -> None:
        with pytest.raises(RejectedEvents) as caught:
            record_outcomes([{}] * 3000)
        assert (
            str(caught.value).splitlines()[1000] == "[999] $: object missing required field `peer_mentor_id`"
        )
        assert str(caught.value).endswith(", 2998, 2999")

    @pytest.mark.parametrize("payload", [None, "[]", {"version": 1}, 7])
    def test_a_job_that_is_no_list_of_events_says_so(self, payload: Any) -> None:
        with pytest.raises(InvalidEvent, match=r"\$: expected a list of events, got"):
            record_outcomes(payload)


class TestRetries:
    """Redis is plumbing here: what matters is what the job tells RQ."""

    @pytest.fixture
    def queue(self) -> Queue:
        return Queue("notiflog", connection=FakeRedis())

    def work(self, queue: Queue) -> None:
        SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="CRITICAL")

    def test_a_job_with_rejected_events_fails_once_whatever_retries_were_asked_for(
        self, queue: Queue, app: sample.App
    ) -> None:
        job = queue.enqueue(record_outcomes, [{}], retry=Retry(max=3))
        self.work(queue)
        assert (job.get_status(), len(job.results())) == ("failed", 1)

    def test_a_passing_fault_puts_the_job_back_and_never_fails_it(
        self, queue: Queue, app: sample.App, monkeypatch: pytest.MonkeyPatch, connection: psycopg.Connection
    ) -> None:
        real, calls = postgres.connect, []

        def connect(url: str) -> psycopg.Connection:
            calls.append(url)
            if len(calls) <= 2:
                raise psycopg.OperationalError("connection refused")
            return real(url)

        monkeypatch.setattr(postgres, "connect", connect)
        monkeypatch.setattr(jobs, "_PATIENCE", 0.0001)
        job = queue.enqueue(record_outcomes, [make.event(app)])
        self.work(queue)
        assert (job.get_status(), count(connection), len(calls)) == ("finished", 1, 3)

    def test_where_no_worker_would_try_again_a_passing_fault_is_raised(
        self, app: sample.App, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def connect(url: str) -> psycopg.Connection:
            raise psycopg.OperationalError("connection refused")

        monkeypatch.setattr(postgres, "connect", connect)
        monkeypatch.setattr(jobs, "_PATIENCE", 0.0001)
        with pytest.raises(postgres.DatabaseFault, match="not all events are recorded"):
            record_outcomes([make.event(app)])
        at_once = Queue("notiflog", connection=FakeRedis(), is_async=False)
        job = at_once.enqueue(record_outcomes, [make.event(app)], description="outcomes")
        assert job.get_status() == "failed"

    def test_a_queue_of_is_async_false_records(self, app: sample.App, connection: psycopg.Connection) -> None:
        at_once = Queue("notiflog", connection=FakeRedis(), is_async=False)
        job = at_once.enqueue(record_outcomes, [make.event(app)], description="outcomes")
        assert (job.get_status(), count(connection)) == ("finished", 1)

    def test_a_short_fault_is_waited_out(
        self, app: sample.App, monkeypatch: pytest.MonkeyPatch, connection: psycopg.Connection
    ) -> None:
        real, calls = postgres.connect, []

        def connect(url: str) -> psycopg.Connection:
            calls.append(url)
            if len(calls) == 1:
                raise psycopg.OperationalError("connection refused")
            return real(url)

        monkeypatch.setattr(postgres, "connect", connect)
        assert isinstance(record_outcomes([make.event(app)]), dict)
        assert count(connection) == 1

    def test_a_lasting_fault_fails_the_job_with_the_remedy(
        self, queue: Queue, connection: psycopg.Connection, app: sample.App
    ) -> None:
        connection.execute("drop table public.follow_up_notification_log")
        job = queue.enqueue(record_outcomes, [make.event(app)])
        self.work(queue)
        result = job.latest_result()
        assert result is not None
        assert "a table is missing: run `python -m worker.migrate`" in (result.exc_string or "")


class TestSecrecy:
    TOKEN, NAME, KEY = "MARK-device-token", "MARK-name-of-a-person", "MARK-idempotency-key"

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"results": [make.unregistered(TOKEN)]},
            {"results": [make.result(TOKEN, http_status="404")]},
            {"results": [make.result(f"{TOKEN}\0")]},
            {"results": [make.result(TOKEN, http_status=500, body=f"<html>{NAME}")]},
            {"results": [], "skipped": NAME},
            {"chapter_id": make.stranger(), "results": [make.result(TOKEN)]},
            {"chapter_id": NAME},
            {"delivery_channel": NAME},
            {"attempted_at": NAME},
            {f"{NAME} is no field": 1},
            {TOKEN * 4: 1},
        ],
    )
    def test_neither_log_nor_error_shows_what_was_sent(
        self,
        app: sample.App,
        capsys: pytest.CaptureFixture[str],
        caplog: pytest.LogCaptureFixture,
        logged: Logged,
        changes: dict[str, Any],
    ) -> None:
        caplog.set_level("DEBUG")
        queue = Queue("notiflog", connection=FakeRedis())
        for _ in range(2):
            queue.enqueue(
                record_outcomes,
                [make.event(app, idempotency_key=self.KEY) | changes],
                description="outcomes",
                result_ttl=60,
            )
        SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="DEBUG")
        said = capsys.readouterr()
        results = [queue.connection.xrange(key) for key in queue.connection.keys("rq:results:*")]
        for job_id in queue.failed_job_registry.get_job_ids():
            job = queue.fetch_job(job_id)
            assert job is not None
            results.append(job.latest_result().exc_string)
        assert "MARK" not in said.out + said.err + caplog.text + str(logged()) + str(results)
