"""What a worker writes: one line for each event, complete, in a documented form, and without a secret."""

import io
import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
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
    until,
)
from tests.logs.test_catalogue import misfits
from worker import logs
from worker.demo import sample
from worker.queue.plain import UntrustedJob

__all__ = ["environment", "queue", "start"]  # fixtures

#: What makes `rq worker notiflog` the one or the other.
KINDS = {"stock": {"RQ_WORKER_CLASS": "rq.Worker"}, "draining": {}}
KIND = pytest.mark.parametrize("kind", KINDS)
CONFIG = {"RQ_CONFIG": "worker.rqconfig"}
HOSTILE = 'a\nb\r\x1b[31m\x9b1m\u2028\u202e\x00\ud800 "c"=é'


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def of_all_kinds(app: sample.App) -> list[dict[str, Any]]:
    """The events of one job, of all that can become of one."""
    return [
        make.event(app, 0),
        make.event(app, 1, results=[make.unregistered("MARK-dead")]),
        make.event(app, 2, results=[make.unregistered("MARK-again")]),
        make.event(app, 3, results=[make.result("MARK-3", http_status=None, body="MARK")]),
        make.event(app, 4, results=[], skipped="quiet_hours"),
        make.event(app, 5, results=[], skipped="MARK is ill"),
        make.event(app, 6, results=[make.result("MARK-6", http_status=503, body=None)], final=False),
        make.event(app, 0),
        make.event(app, 0, results=[make.result("MARK-8", http_status=429, body=None)]),
        make.event(app, 9, chapter_id="MARK-chapter"),
    ]


@pytest.fixture
def devices(connection: psycopg.Connection, app: sample.App) -> None:
    """One device that registered before the sends, and one that did so again after them."""
    connection.execute(
        "insert into public.device_tokens (token, user_id, updated_at) values"
        " ('MARK-dead', %(user)s, '2026-01-01'), ('MARK-again', %(user)s, '2026-12-01')",
        {"user": app.users[0]},
    )


class TestAWorker:
    @KIND
    @pytest.mark.usefixtures("devices")
    def test_tells_everything_about_a_job(
        self, queue: Queue, app: sample.App, start: Start, kind: str
    ) -> None:
        job = queue.enqueue(JOB, of_all_kinds(app))
        worker = start("--burst", **KINDS[kind], **CONFIG)
        assert worker.wait() == 0
        (summary,) = worker.logged("outcomes_recorded")
        assert summary.pop("ms") > 0
        assert summary | {"ts": None} == {
            "ts": None,
            "level": "info",
            "event": "outcomes_recorded",
            "jobs": 1,
            "events": 10,
            "delivered": 1,
            "failed": 3,
            "skipped": 2,
            "retrying": 1,
            "duplicates": 2,
            "conflicting": 1,
            "waiting": 0,
            "rejected": 1,
            "pruned": 1,
            "kept": 1,
            "withheld": 0,
            "refused": 0,
            "absent": 0,
            "failed_by": {"unregistered": 2, "no_answer": 1},
            "skipped_by": {"quiet_hours": 1, "other": 1},
        }
        assert [
            (line["reason"], line["http_status"], line["token"]) for line in worker.logged("send_failed")
        ] == [
            ("unregistered", 404, logs.token_hash("MARK-dead")),
            ("unregistered", 404, logs.token_hash("MARK-again")),
            ("no_answer", None, logs.token_hash("MARK-3")),
            ("service_unavailable", 503, logs.token_hash("MARK-6")),
            ("rate_limited", 429, logs.token_hash("MARK-8")),
        ]
        (conflict,) = worker.logged("conflicting_duplicate")
        assert (conflict["key"], conflict["stored"], conflict["reported"]) == (
            logs.token_hash("key-0"),
            "delivered",
            "failed",
        )
        (failed,) = worker.logged("job_failed")
        assert (failed["level"], failed["job"], failed["exc"], failed["problem"].splitlines()[1:]) == (
            "error",
            job.id,
            "worker.jobs.RejectedEvents",
            ["[9] $.chapter_id: expected a UUID"],
        )

    @KIND
    def test_writes_only_listed_lines_and_no_secret_from_start_to_end_even_under_debug(
        self, redis: Redis, queue: Queue, app: sample.App, start: Start, kind: str
    ) -> None:
        for description in (None, "MARK outcomes"):
            queue.enqueue(JOB, of_all_kinds(app), description=description)
        queue.enqueue(JOB, "MARK no list")
        put(redis, "sweep", call(function="worker.jobs.sweep_tokens"))
        put(redis, "broken", b"MARK no pickle")
        worker = start("--verbose", "--with-scheduler", **KINDS[kind], **CONFIG)
        until(lambda: queue.failed_job_registry.count == 4)
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        written = lines(worker.output)
        assert misfits(written) == []
        assert {"debug", "info", "error"} <= {line["level"] for line in written}
        assert "MARK" not in worker.output

    def test_that_drains_needs_no_setting_for_its_lines(
        self, queue: Queue, app: sample.App, start: Start
    ) -> None:
        enqueue_many(queue, app, 1)
        worker = start("--burst")
        assert worker.wait() == 0
        written = lines(worker.output)
        assert misfits(written) == []
        assert {"rq", "outcomes_recorded"} <= {line["event"] for line in written}

    def test_that_cannot_start_says_why_in_such_a_line(self, start: Start) -> None:
        worker = start(DATABASE_URL="postgresql://user:SECRET%zz@host/db")
        assert worker.wait() == 1
        written = lines(worker.output)
        assert [line["event"] for line in written] == ["redis_not_durable", "worker_stopped"]
        assert written[-1]["problem"].startswith("DATABASE_URL cannot be parsed")
        assert "SECRET" not in worker.output

    @KIND
    def test_that_is_to_be_quiet_leaves_out_rqs_common_lines(
        self, queue: Queue, app: sample.App, start: Start, kind: str
    ) -> None:
        enqueue_many(queue, app, 1)
        worker = start("--burst", "--quiet", **KINDS[kind], **CONFIG)
        assert worker.wait() == 0
        assert [line["event"] for line in lines(worker.output)][-1:] == ["outcomes_recorded"]
        assert worker.logged("rq") == []

    def test_in_a_pool_writes_as_the_pool_does(
        self, queue: Queue, app: sample.App, environment: dict[str, str], tmp_path: Path
    ) -> None:
        enqueue_many(queue, app, 1)
        output = run(["worker-pool", "notiflog", "--burst"], {**environment, **CONFIG}, tmp_path)
        written = lines(output)
        assert misfits(written) == []
        assert {"rq.worker_pool", "rq.worker", None} <= {line.get("logger") for line in written}

    def test_of_the_periodic_jobs_writes_so_too(
        self, redis: Redis, environment: dict[str, str], tmp_path: Path
    ) -> None:
        log = tmp_path / "cron.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [rq_command(), "cron", "worker.cron"],
                env={**environment, **CONFIG},
                cwd=tmp_path,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: redis.exists("rq:cron_schedulers"))
        finally:
            process.kill()
            process.wait(20)
        assert misfits(lines(log.read_text())) == []
        assert "worker.jobs.sweep_tokens" in log.read_text()


class TestATerminal:
    @pytest.mark.parametrize(("kind", "colour"), [("stock", True), ("draining", True), ("draining", False)])
    def test_shows_readable_lines(
        self,
        queue: Queue,
        app: sample.App,
        environment: dict[str, str],
        tmp_path: Path,
        kind: str,
        colour: bool,
    ) -> None:
        queue.enqueue(JOB, [*of_all_kinds(app), {"\x1b[2J\r\nMARK": 1}])
        settings = {**environment, **KINDS[kind], **CONFIG, "NO_COLOR": "" if colour else "1"}
        shown = run(["worker", "notiflog", "--burst"], settings, tmp_path, terminal=True)
        assert ("\x1b[31merror  \x1b[0m job_failed" in shown, "\x1b[33m" in shown) == (colour, colour)
        plain = re.sub(r"\x1b\[3[13]m(\w+ *)\x1b\[0m", r"\1", shown).split("\r\n")
        assert plain.pop() == ""
        assert [
            line
            for line in plain
            if not re.fullmatch(r"(\d\d:\d\d:\d\d (debug|info|warning|error) +[a-z_]+|   ) [ -~]+", line)
        ] == []
        assert any(
            re.search(r" info    send_failed channel=fcm http_status=404 reason=unregistered", line)
            for line in plain
        )
        assert any(re.search(r" info    rq \*\*\* Listening on notiflog", line) for line in plain)
        assert any("failed_by=unregistered:2,no_answer:1" in line for line in plain)
        assert any(line.startswith("    problem: 2 of 11 events rejected") for line in plain)
        assert "MARK" not in shown


class TestALine:
    @pytest.mark.parametrize("formatter", [logs.JsonFormatter(), logs.TextFormatter(colour=False)])
    @pytest.mark.parametrize("foreign", [True, False])
    def test_cannot_be_forged_nor_move_a_cursor(self, formatter: logging.Formatter, foreign: bool) -> None:
        line = formatter.format(foreign_record(HOSTILE) if foreign else own_record(problem=HOSTILE))
        assert re.fullmatch(r"[ -~]+(\n    [ -~]+)*", line)

    def test_keeps_every_value_as_it_is(self) -> None:
        fields = {"problem": HOSTILE, "n": 3, "ratio": 0.5, "nothing": None, "by": {"a": 1}}
        line = json.loads(logs.JsonFormatter().format(own_record(**fields)))
        assert {name: line[name] for name in fields} == fields

    @pytest.mark.parametrize(
        ("value", "shown"),
        [
            ("unregistered", "unregistered"),
            ("two words", '"two words"'),
            ('"', r'"\""'),
            ("a=b", '"a=b"'),
            ("", '""'),
            (None, "-"),
            (404, "404"),
            (1.5, "1.5"),
            ({"a": 1, "b": 2}, "a:1,b:2"),
            (["fcm", "apns"], '"fcm, apns"'),
            ({}, "-"),
            ([], "-"),
        ],
    )
    def test_shows_values_on_a_terminal(self, value: object, shown: str) -> None:
        line = logs.TextFormatter(colour=False).format(own_record(field=value))
        assert line.endswith(f" warning event field={shown}")

    def test_shows_the_lines_of_a_text_on_a_terminal_below_indented(self) -> None:
        shown = logs.TextFormatter(colour=False).format(own_record(problem="2 of 3:\n[0] $: x\n\tb", n=1))
        assert shown.partition(" event ")[2] == "n=1\n    problem: 2 of 3:\n      [0] $: x\n      \\tb"

    def test_on_an_exception_of_ours_has_its_text(self) -> None:
        (line,) = logs.lines(foreign_record("failed", raised(UntrustedJob("too large"))))
        assert (line["exc"], line["problem"]) == ("worker.queue.plain.UntrustedJob", "too large")

    def test_on_an_exception_of_others_has_its_type_and_place_but_not_its_text(self) -> None:
        (line,) = logs.lines(foreign_record("failed", raised(psycopg.DataError("MARK"))))
        assert (line["exc"], line["problem"]) == ("psycopg.DataError", None)
        assert re.fullmatch(r"logs/test_lines\.py:\d+ raised", line["frames"][0])
        assert "MARK" not in str(line)

    @pytest.mark.parametrize(
        ("message", "arguments", "shown"),
        [
            ("failed\nTraceback: MARK", (), "failed"),
            ("%d failed: %s", (3, psycopg.DataError("MARK")), "3 failed: DataError"),
            ("100 %", (), "100 %"),
            ("%(n)d failed", ({"n": 3},), "3 failed"),
            (psycopg.DataError("MARK"), (), "DataError"),
            (["no", "text"], (), "['no', 'text']"),
            ("", (), ""),
        ],
    )
    def test_of_others_has_the_first_line_of_their_text_and_no_text_of_an_exception(
        self, message: Any, arguments: tuple[object, ...], shown: str
    ) -> None:
        (line,) = logs.lines(logging.LogRecord("redis", logging.WARNING, "", 0, message, arguments, None))
        assert (line["event"], line["logger"], line["message"]) == ("library", "redis", shown)

    @pytest.mark.parametrize("error", [UntrustedJob("x" * 100_000), None])
    def test_has_an_end(self, error: Exception | None) -> None:
        line = logs.JsonFormatter().format(foreign_record("x" * 100_000, error))
        assert len(line) < 20_000


class TestRqsDescriptions:
    @pytest.mark.parametrize(
        ("description", "shown"),
        [
            ("worker.jobs.record_outcomes([{'token': 'MARK'}])", "worker.jobs.record_outcomes"),
            (
                "\x1b[34mworker.jobs.record_outcomes([{'token': 'MARK...)\x1b[39;49;00m",
                "worker.jobs.record_outcomes",
            ),
            ("Job OK", "Job OK"),
            ("outcomes of MARK", "job"),
            ("MARK", "job"),
            (None, "job"),
        ],
    )
    def test_lose_their_arguments(self, description: str | None, shown: str) -> None:
        record = foreign_record("Worker %s: %s: %s (%s)", name="rq.worker")
        record.args = ("w", "notiflog", description, "id")
        assert logs.lines(record)[0]["message"] == f"Worker w: notiflog: {shown} (id)"


class TestSetup:
    def test_leaves_a_program_alone_that_has_set_up_logging_itself(self) -> None:
        code = (
            "import logging; from worker import logs\n"
            "logging.basicConfig(format='MINE %(message)s'); logs.setup(); logs.info('guard_off', stale=1)"
        )
        assert python(code).stderr == "MINE guard_off\n"

    def test_twice_writes_once(self) -> None:
        code = "from worker import logs; logs.setup(); logs.setup(); logs.info('guard_off', stale=1)"
        (line,) = lines(python(code).stdout)
        assert line["event"] == "guard_off"

    def test_takes_over_what_rq_has_set_up_and_its_level(self) -> None:
        code = (
            "import logging; from rq.logutils import setup_loghandlers; from worker import logs\n"
            "setup_loghandlers('WARNING'); logs.setup(); log = logging.getLogger('rq.worker')\n"
            "log.info('not shown'); log.error('shown')"
        )
        done = python(code)
        assert ([line["message"] for line in lines(done.stdout)], done.stderr) == (["shown"], "")

    def test_a_job_has_written_its_lines_when_its_process_ends_without_notice(self) -> None:
        # A thread that is to write them does not get to run before the end.
        code = (
            "import os, sys; from worker import jobs, logs; sys.setswitchinterval(60)\n"
            "os.environ['DATABASE_URL'] = 'postgresql://nobody@127.0.0.1/nowhere'\n"
            "jobs.retain_outcomes(); logs.info('guard_off', stale=1); os._exit(0)"
        )
        assert [line["event"] for line in lines(python(code).stdout)] == ["guard_off"]

    def test_a_line_that_cannot_be_written_shows_nothing_of_itself(self) -> None:
        code = (
            "import logging, os, sys; from worker import logs\n"
            "reader, writer = os.pipe(); os.close(reader); sys.stdout = os.fdopen(writer, 'w')\n"
            "logs.setup(); logging.getLogger('rq.worker').error('MARK %s', 'MARK'); logging.shutdown()\n"
            "os._exit(0)"
        )
        assert python(code).stderr == "a log line is lost: BrokenPipeError\n"


# --- tools -------------------------------------------------------------------------------------------------


def rq_command() -> str:
    return str(Path(sys.executable).with_name("rq"))


def run(
    arguments: Sequence[str], environment: dict[str, str], directory: Path, *, terminal: bool = False
) -> str:
    """Run an `rq` command to its end; returns what it writes to a file, or to a terminal."""
    command = [rq_command(), *arguments]
    if not terminal:
        done = subprocess.run(
            command,
            env=environment,
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as reader:
        process = subprocess.Popen(command, env=environment, cwd=directory, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b"".join(iter_terminal(reader))
        assert process.wait(60) == 0
    return shown.decode()


def iter_terminal(reader: io.FileIO) -> Iterator[bytes]:
    """What arrives until the last writer is gone; Linux then says EIO, macOS an end of file."""
    while True:
        try:
            chunk = reader.read(65536)
        except OSError:
            return
        if not chunk:
            return
        yield chunk


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def own_record(**fields: object) -> logging.LogRecord:
    return logs.logger.makeRecord(
        "notiflog", logging.WARNING, "", 0, "event", (), None, extra={"notiflog": [fields]}
    )


def foreign_record(message: str, error: Exception | None = None, name: str = "redis") -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.WARNING, "", 0, message, (), info)
