"""What reaches Sentry: every error line, and nothing that is not in it. Sentry is a server of ours here."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import (
    JOB,
    Start,
    call,
    enqueue_many,
    environment,
    put,
    queue,
    start,
    statuses,
)
from worker.demo import sample, sandbox

__all__ = ["environment", "queue", "start"]  # fixtures

STOCK = {"RQ_WORKER_CLASS": "rq.Worker"}
CONFIG = {"RQ_CONFIG": "worker.rqconfig"}
#: `rq worker notiflog` as it may be started.
EVERY_WAY = pytest.mark.parametrize(
    "way",
    [STOCK, {**STOCK, **CONFIG}, {}],
    ids=["stock", "stock with settings", "draining"],
)
EVERY_KIND = pytest.mark.parametrize("way", [{**STOCK, **CONFIG}, {}], ids=["stock", "draining"])


class Sentry:
    """Takes envelopes as Sentry does."""

    def __init__(self, server: ThreadingHTTPServer, envelopes: list[bytes]) -> None:
        self.dsn = f"http://key@127.0.0.1:{server.server_port}/1"
        self.envelopes = envelopes

    @property
    def events(self) -> list[dict[str, Any]]:
        found = []
        for envelope in self.envelopes:
            _, *items = envelope.splitlines()
            for header, payload in zip(items[::2], items[1::2], strict=True):
                if json.loads(header)["type"] == "event":
                    found.append(json.loads(payload))
        return found

    def event(self, name: str) -> dict[str, Any]:
        """The one event made of lines of this name."""
        (event,) = [event for event in self.events if event["tags"]["event"] == name]
        return event


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    envelopes: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            envelopes.append(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Sentry(server, envelopes)
        server.shutdown()
        thread.join()


@EVERY_WAY
def test_hears_of_a_failed_job_but_of_no_value_in_it(
    queue: Queue, app: sample.App, start: Start, sentry: Sentry, way: dict[str, str]
) -> None:
    results = [make.unregistered("MARK-token"), make.result("MARK-2", http_status=None, body="MARK-body")]
    good, bad = make.event(app, results=results), make.event(app, 1, results=results, chapter_id="MARK-id")
    job = queue.enqueue(JOB, [good, bad, {"MARK-field": "MARK-value"}])
    assert start("--burst", SENTRY_DSN=sentry.dsn, **way).wait() == 0
    event = sentry.event("job_failed")
    (exception,) = event["exception"]["values"]
    assert (event["level"], event["extra"]["job"], exception["module"], exception["type"]) == (
        "error",
        job.id,
        "worker.jobs",
        "RejectedEvents",
    )
    assert "[1] $.chapter_id: expected a UUID" in exception["value"]
    assert b"MARK" not in b"".join(sentry.envelopes)


@EVERY_KIND
def test_hears_of_a_job_that_cannot_be_read(
    redis: Redis, start: Start, sentry: Sentry, way: dict[str, str]
) -> None:
    put(redis, "unreadable", b"MARK")
    assert start("--burst", SENTRY_DSN=sentry.dsn, **way).wait() == 0
    assert sentry.event("job_failed")["extra"]["job"] == "unreadable"
    assert b"MARK" not in b"".join(sentry.envelopes)


def test_hears_of_the_brake_and_of_jobs_set_aside_but_of_no_lesser_line(
    redis: Redis, queue: Queue, app: sample.App, start: Start, sentry: Sentry
) -> None:
    queue.enqueue(JOB, [make.event(app, n, results=[make.unregistered(f"MARK-{n}")]) for n in range(50)])
    put(redis, "unreadable", call([]), result_ttl="MARK")
    assert start("--burst", SENTRY_DSN=sentry.dsn).wait() == 0
    assert sorted(event["tags"]["event"] for event in sentry.events) == ["brake_on", "job_quarantined"]
    assert sentry.event("brake_on")["extra"]["dead"] == 50
    assert b"MARK" not in b"".join(sentry.envelopes)


def test_hears_why_a_worker_stops(start: Start, sentry: Sentry) -> None:
    assert start("--burst", SENTRY_DSN=sentry.dsn, DATABASE_URL="").wait() == 1
    assert "DATABASE_URL is not set" in sentry.event("worker_stopped")["message"]


def test_makes_one_issue_of_failures_of_one_kind(
    queue: Queue, app: sample.App, start: Start, sentry: Sentry
) -> None:
    for number in range(2):
        queue.enqueue(JOB, [make.event(app, number), *[{}] * number, make.event(app, chapter_id="x")])
    assert start("--burst", SENTRY_DSN=sentry.dsn).wait() == 0
    first, second = sentry.events
    assert first["exception"]["values"][0]["value"] != second["exception"]["values"][0]["value"]
    assert first["fingerprint"] == second["fingerprint"]


@EVERY_KIND
@pytest.mark.parametrize(
    "dsn", ["http://key@127.0.0.1:{port}/1", "MARK is no DSN"], ids=["unreachable", "no DSN"]
)
def test_keeps_no_job_from_being_done(
    queue: Queue, app: sample.App, start: Start, way: dict[str, str], dsn: str
) -> None:
    jobs = [*enqueue_many(queue, app, 1), queue.enqueue(JOB, [{}], description="outcomes")]
    worker = start("--burst", SENTRY_DSN=dsn.format(port=sandbox.free_port()), **way)
    assert worker.wait() == 0
    assert statuses(jobs) == ["finished", "failed"]
    assert "MARK" not in worker.output


@EVERY_KIND
def test_is_missed_in_one_line_where_its_library_is_not_installed(
    queue: Queue, app: sample.App, start: Start, tmp_path: Path, way: dict[str, str]
) -> None:
    (tmp_path / "sentry_sdk.py").write_text("raise ModuleNotFoundError")
    jobs = enqueue_many(queue, app, 2)
    worker = start("--burst", SENTRY_DSN="http://key@127.0.0.1:1/1", PYTHONPATH=str(tmp_path), **way)
    assert worker.wait() == 0
    (line,) = worker.logged("sentry_off")
    assert (line["level"], line["problem"]) == (
        "warning",
        "sentry-sdk is not installed: pip install 'notiflog[sentry]'",
    )
    assert statuses(jobs) == ["finished"] * 2


def test_costs_nothing_where_nobody_asked_for_it() -> None:
    code = "import sys; from worker.logs import sentry; sentry.setup(); sys.exit('sentry_sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env={}).returncode == 0
