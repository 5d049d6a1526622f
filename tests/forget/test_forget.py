"""`python -m worker.forget`: all of the mentor goes, wherever it stands, and nothing of anybody else's."""

# ruff: noqa: S608 - statements are put together from constants of this file

import json
import os
import pickle
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from tests import make
from tests.drain.conftest import (
    JOB,
    QUARANTINE,
    QUEUE,
    Drain,
    drain,
    new_worker,
    queue,
    rows,
    statuses,
    until,
)
from worker import history
from worker.demo import sample, sandbox
from worker.events import idempotency_key
from worker.forget import __main__ as forget
from worker.queue.contents import Content, in_hand
from worker.queue.plain import RecordCall, read_call

__all__ = ["drain", "new_worker", "queue"]

LOG, RESERVATIONS = "public.follow_up_notification_log", "notiflog.reservations"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    database: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command within this process: its status, its answer, its complaints."""
    monkeypatch.setenv("REDIS_URL", valkey_url)

    def run(*arguments: object, url: str = database) -> tuple[int, str, str]:
        monkeypatch.setenv("DATABASE_URL", url)
        capsys.readouterr()
        try:
            status = forget.main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def mentor(app: sample.App) -> UUID:
    """The one to be erased: of the events 0 to 19, number 0 is theirs, and so is number 20."""
    return app.users[0]


def events_of(job: Job) -> list[Any]:
    call = read_call(job.connection.hget(job.key, "data"))
    assert isinstance(call, RecordCall)
    return list(call.events)


def keys(redis: Any) -> list[bytes]:
    return sorted(redis.scan_iter())


def everything(redis: Any) -> bytes:
    """All that Redis holds, job data inflated."""
    found = [repr(keys(redis)).encode()]
    for key in keys(redis):
        if redis.type(key) == b"hash":
            fields = redis.hgetall(key)
            if fields.get(b"data"):
                fields[b"data"] = zlib.decompress(fields[b"data"])
            found.append(repr(sorted(fields.items())).encode())
    return b"\n".join(found)


# --- PostgreSQL --------------------------------------------------------------------------------------------


def test_the_mentors_rows_go_and_the_user_can_be_deleted(
    run: Run, drain: Drain, queue: Queue, connection: psycopg.Connection, app: sample.App, mentor: UUID
) -> None:
    queue.enqueue(JOB, [make.event(app, number) for number in range(25)])
    drain()
    with pytest.raises(errors.ForeignKeyViolation):
        connection.execute("delete from public.users where id = %s", [mentor])
    status, said, complaints = run(mentor)
    assert (status, complaints) == (0, "")
    assert said.startswith("erased 2 rows of the log, 0 reservations\nerased 2 events in 1 jobs\n")
    assert rows(connection) == 23
    connection.execute("delete from public.users where id = %s", [mentor])


def test_several_mentors_at_once_in_batches(
    run: Run,
    drain: Drain,
    queue: Queue,
    connection: psycopg.Connection,
    app: sample.App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.forget.rows.BATCH", 2)
    queue.enqueue(JOB, [make.event(app, number) for number in range(50)], result_ttl=0)
    drain()
    assert run(app.users[0], str(app.users[1]).upper())[1].startswith("erased 6 rows")
    assert rows(connection) == 44


@pytest.mark.parametrize("window", ["%G-W%V", "%Y-%m-%d", "%Y-%m"])
def test_reservations_for_the_usual_windows_are_found(
    run: Run, connection: psycopg.Connection, app: sample.App, mentor: UUID, window: str
) -> None:
    named = datetime.now(UTC).strftime(window)
    theirs = [idempotency_key(mentor, rule, named) for rule in app.rules]
    other = idempotency_key(app.users[1], app.rules[0], named)
    history.reserve(connection, [*theirs, other])
    assert run("--dry-run", mentor)[1].startswith(f"found 0 rows of the log, {len(theirs)} reservations\n")
    assert run(mentor)[1].startswith(f"erased 0 rows of the log, {len(theirs)} reservations\n")
    left = connection.execute(f"select idempotency_key from {RESERVATIONS}".encode()).fetchall()
    assert left == [(other,)]


def test_reservations_of_recorded_and_of_waiting_prompts_go_and_so_do_keys_that_spell_the_id(
    run: Run, drain: Drain, queue: Queue, connection: psycopg.Connection, app: sample.App, mentor: UUID
) -> None:
    history.reserve(connection, ["recorded", "waiting", f"week 1 of {mentor}", "another's"])
    queue.enqueue(JOB, [make.event(app, 0, idempotency_key="recorded")], result_ttl=0)
    drain()
    queue.enqueue(JOB, [make.event(app, 0, idempotency_key="waiting")])
    assert run(mentor)[1].startswith("erased 1 rows of the log, 3 reservations\n")
    left = connection.execute(f"select idempotency_key from {RESERVATIONS}".encode()).fetchall()
    assert left == [("another's",)]


# --- Redis: wherever a job stands --------------------------------------------------------------------------


def waiting(queue: Queue, job: Job) -> None:
    """As it was enqueued."""


def scheduled(queue: Queue, job: Job) -> None:
    queue.remove(job)
    queue.schedule_job(job, datetime.now(UTC) + timedelta(hours=1))


def deferred(queue: Queue, job: Job) -> None:
    queue.remove(job)
    job.set_status("deferred")
    queue.deferred_job_registry.add(job)


def failed(queue: Queue, job: Job) -> None:
    queue.remove(job)
    job.set_status("failed")
    queue.failed_job_registry.add(job)


def quarantined(queue: Queue, job: Job) -> None:
    queue.connection.lmove(QUEUE, QUARANTINE, "LEFT", "RIGHT")
    job.set_status("started")  # as it was when it was set aside


def finished(queue: Queue, job: Job) -> None:
    queue.remove(job)
    job.set_status("finished")
    queue.finished_job_registry.add(job)


def canceled(queue: Queue, job: Job) -> None:
    job.cancel()


PLACES = [waiting, scheduled, deferred, failed, quarantined, finished, canceled]


@pytest.mark.parametrize("serializer", ["pickle", "json"])
@pytest.mark.parametrize("place", PLACES)
def test_their_events_leave_a_job_wherever_it_stands_and_all_others_stay(
    run: Run, redis: Redis, app: sample.App, mentor: UUID, place: Callable[..., None], serializer: str
) -> None:
    queue = Queue("notiflog", connection=redis, serializer=JSONSerializer if serializer == "json" else None)
    events = [make.event(app, number) for number in range(3)]
    job = queue.enqueue(JOB, events, meta={"about": str(mentor)})  # RQ's description quotes the arguments
    place(queue, job)
    before = {key: redis.dump(key) for key in keys(redis) if key != job.key.encode()}
    state = "queued" if place is waiting else place.__name__
    dry = run("--dry-run", mentor)
    assert dry[1].splitlines()[1:] == [
        "found 1 events in 1 jobs",
        f"  {'started' if place is quarantined else state:<14}       1",
    ]
    assert str(mentor).encode() in everything(redis)
    status, said, complaints = run(mentor)
    assert (status, complaints) == (0, "")
    assert said.splitlines()[1:] == ["erased 1 events in 1 jobs", f"  {state:<14}       1"]
    assert events_of(job) == events[1:]
    assert str(mentor).encode() not in everything(redis)
    assert b"token-0" not in everything(redis)
    assert {key: redis.dump(key) for key in keys(redis) if key != job.key.encode()} == before
    assert run(mentor)[1].splitlines()[1:] == ["erased 0 events in 0 jobs"]


def test_a_job_of_nobody_else_stays_as_an_empty_one_and_who_waits_for_it_runs(
    run: Run, drain: Drain, queue: Queue, connection: psycopg.Connection, app: sample.App, mentor: UUID
) -> None:
    first = queue.enqueue(JOB, [make.event(app, 0)])
    second = queue.enqueue(JOB, [make.event(app, 1)], depends_on=first)
    assert run(mentor)[0] == 0
    drain()
    assert (statuses([first, second]), rows(connection)) == (["finished"] * 2, 1)


def test_however_many_jobs_there_are(run: Run, queue: Queue, app: sample.App, mentor: UUID) -> None:
    """More than are looked at together, and some that are too large to be fetched with others."""
    events = [make.event(app, number) for number in range(1200)]
    long = {"peer_mentor_id": str(mentor), "skipped": os.urandom(3 << 20).hex()}
    data = [Queue.prepare_data(JOB, ([event],), description="") for event in [*events, long, long, long]]
    queue.enqueue_many(data)
    assert "erased 63 events in 63 jobs\n" in run(mentor)[1]


def test_another_queues_jobs_are_found_too(run: Run, redis: Redis, app: sample.App, mentor: UUID) -> None:
    job = Queue("outcomes", connection=redis).enqueue(JOB, [make.event(app, 0), make.event(app, 1)])
    assert run(mentor)[0] == 0
    assert len(events_of(job)) == 1


#: What stands among a job's events, and whether it is theirs; {} stands for the id.
ODD: dict[str, tuple[Callable[[UUID], Any], bool]] = {
    "upper case": (lambda one: {"peer_mentor_id": str(one).upper()}, True),
    "without dashes": (lambda one: {"peer_mentor_id": one.hex}, True),
    "an object": (lambda one: {"peer_mentor_id": one}, True),
    "nothing else right": (lambda one: {"peer_mentor_id": str(one), "delivery_channel": 3}, True),
    "within another": (lambda one: {"event": {"peer_mentor_id": str(one)}}, True),
    "as text": (lambda one: json.dumps({"peer_mentor_id": str(one)}), True),
    "a list": (lambda one: [str(one)], True),
    "another's": (lambda one: {"peer_mentor_id": str(UUID(int=7)), "skipped": str(one)}, False),
    "nobody's": (lambda one: {"peer_mentor_id": None}, False),
    "nothing": (lambda one: None, False),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_theirs_in_whatever_form(run: Run, queue: Queue, mentor: UUID, case: str) -> None:
    make_odd, theirs = ODD[case]
    job = queue.enqueue(JOB, [make_odd(mentor), {"other": 1}])
    assert run(mentor)[0] == 0
    assert len(events_of(job)) == (1 if theirs else 2)


def test_what_is_none_of_ours_is_left_alone(run: Run, redis: Redis, queue: Queue, mentor: UUID) -> None:
    """Another function on a queue of its own, however it mentions the mentor; sets and texts for jobs."""
    Queue("mail", connection=redis).enqueue("app.mail.send", str(mentor))
    queue.enqueue("worker.jobs.sweep_tokens")
    redis.sadd("rq:job:x:dependents", str(mentor))
    redis.set("rq:job:text", str(mentor))
    before = everything(redis)
    assert run(mentor) == (0, "erased 0 rows of the log, 0 reservations\nerased 0 events in 0 jobs\n", "")
    assert everything(redis) == before


#: Data of jobs in our queue that nobody can take an event out of.
UNREADABLE = {
    "a foreign class": lambda one: zlib.compress(
        pickle.dumps((JOB, None, ([Ellipsis, str(one), threading.Lock],), {}))
    ),
    "broken": lambda one: zlib.compress(b"\x80\x05" + str(one).encode()),
    "another function": lambda one: zlib.compress(pickle.dumps(("app.send", None, (str(one),), {}))),
    "too large": lambda one: bytes((16 << 20) + 1),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_cannot_be_read_is_named_with_the_remedy(
    run: Run, redis: Redis, queue: Queue, mentor: UUID, case: str
) -> None:
    job = queue.enqueue(JOB, [])
    redis.hset(job.key, "data", UNREADABLE[case](mentor))
    status, _, complaints = run(mentor)
    assert status == 1
    assert f"left where it is: {job.id}: it cannot be read; delete it with `replay --discard`" in complaints
    assert str(mentor) not in complaints


# --- beside workers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["draining", "stock"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_job_that_runs_is_waited_for_and_loses_nothing_else(
    run: Run,
    new_worker: Callable[..., Any],
    queue: Queue,
    redis: Redis,
    connection: psycopg.Connection,
    database: str,
    app: sample.App,
    mentor: UUID,
    kind: str,
    fails: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is held at its insert: its rows of the mentor are written afterwards, and erased all the same."""
    events = [make.event(app, number) for number in range(3)]
    if fails:
        events.append(make.event(app, 3, peer_mentor_id=make.stranger()))
    job = queue.enqueue(JOB, events, result_ttl=500)
    worker = new_worker() if kind == "draining" else new_worker(SimpleWorker)
    answers: list[Any] = []
    waited = threading.Event()

    def wait(redis: Redis, jobs: Sequence[Content]) -> list[Content]:
        waited.set()
        return in_hand(redis, jobs)

    monkeypatch.setattr("worker.forget.events.in_hand", wait)
    with psycopg.connect(database) as other:
        other.execute(f"lock table {LOG} in share row exclusive mode".encode())
        erasing = threading.Thread(target=lambda: answers.append(run(mentor)))

        def let_go() -> None:
            try:
                until(lambda: redis.hget(job.key, "status") == b"started", seconds=10)
                erasing.start()
                assert waited.wait(10)
                assert events_of(job) == events
            finally:
                other.rollback()

        letting = threading.Thread(target=let_go)
        letting.start()
        worker.work(burst=True)
        letting.join()
    erasing.join()
    ((status, said, complaints),) = answers
    assert (status, complaints) == (0, "")
    assert said.startswith("erased 1 rows of the log, 0 reservations\nerased 1 events in 1 jobs\n")
    assert rows(connection) == 2
    assert events_of(job) == events[1:]
    assert job.get_status(refresh=True) == ("failed" if fails else "finished")


def test_a_job_that_runs_for_longer_is_told_each_time(
    run: Run, queue: Queue, app: sample.App, mentor: UUID
) -> None:
    """A stock worker has just taken it, and does not go on."""
    job = queue.enqueue(JOB, [make.event(app, 0)])
    queue.connection.lmove(QUEUE, f"{QUEUE}:intermediate", "LEFT", "RIGHT")
    for _ in range(2):
        status, _, complaints = run("--wait", "0", mentor)
        assert (status, len(events_of(job))) == (1, 1)
        assert "1 jobs with their events still run, and were left as they are: run this again" in complaints
    queue.connection.lmove(f"{QUEUE}:intermediate", QUEUE, "LEFT", "RIGHT")
    assert (run(mentor)[0], events_of(job)) == (0, [])


def test_a_later_event_is_rejected_like_any_unknown_users(
    run: Run, drain: Drain, queue: Queue, connection: psycopg.Connection, app: sample.App, mentor: UUID
) -> None:
    queue.enqueue(JOB, [make.event(app, 0)], result_ttl=0)
    drain()
    run(mentor)
    connection.execute("delete from public.users where id = %s", [mentor])
    job = queue.enqueue(JOB, [make.event(app, 20), make.event(app, 1)])
    drain()
    assert (job.get_status(), rows(connection)) == ("failed", 1)
    assert run(mentor)[1].splitlines()[1:] == ["erased 1 events in 1 jobs", "  failed               1"]
    assert len(events_of(job)) == 1


# --- who may, and wrong usage ------------------------------------------------------------------------------


@pytest.fixture
def worker_url(connection: psycopg.Connection, postgres: sandbox.Postgres) -> Iterator[str]:
    connection.execute("create role forget_worker login in role notiflog_worker")
    yield postgres.url(connection.info.dbname, "forget_worker")
    connection.execute("drop owned by forget_worker; drop role forget_worker")


@pytest.mark.parametrize("row_security", [False, True])
def test_a_role_that_may_not_is_told_the_statements_that_help_before_anything_is_changed(
    run: Run,
    queue: Queue,
    connection: psycopg.Connection,
    app: sample.App,
    mentor: UUID,
    worker_url: str,
    row_security: bool,
) -> None:
    if row_security:
        connection.execute(f"alter table {LOG} enable row level security".encode())
    job = queue.enqueue(JOB, [make.event(app, 0)])
    status, answer, complaints = run(mentor, url=worker_url)
    assert (status, answer, len(events_of(job))) == (1, "", 1)
    assert f"run `grant delete on {LOG} to forget_worker`" in complaints
    for line in complaints.splitlines():
        connection.execute(line.split("`")[1].encode())
    assert run(mentor, url=worker_url)[0] == 0


@pytest.mark.parametrize("arguments", [[], ["mentor-17"], ["--dry-run"]], ids=str)
def test_wrong_usage(run: Run, arguments: list[str]) -> None:
    status, answer, complaints = run(*arguments)
    assert (status, answer) == (2, "")
    assert "mentor-17" not in complaints


def test_nobody_known_is_no_error(run: Run, redis: Redis) -> None:
    assert run(UUID(int=1)) == (
        0,
        "erased 0 rows of the log, 0 reservations\nerased 0 events in 0 jobs\n",
        "",
    )
