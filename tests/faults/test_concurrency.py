"""Many writers at once, and an app that deletes users, chapters and rules under their hands.

However the transactions meet, no job fails for it: each event ends as a row, a duplicate, or a rejected line
that names a parent which is gone.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from redis import Redis
from rq import Worker

from tests import make
from tests.drain.conftest import (
    FAILED,
    FINISHED,
    QUEUE,
    STARTED,
    Started,
    call,
    log_table_locked,
    put,
    rows,
    until,
    waiting_writers,
)
from tests.faults.fuzz import failure, rejected_positions
from worker.demo import sample
from worker.demo.sandbox import rq_worker
from worker.judge.batch import judge
from worker.record.account import Report
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers.postgres import connect
from worker.servers.settings import Settings

WORKERS = 4
KEYS, EVENTS = 1200, 300


class Kind(NamedTuple):
    """One kind of worker."""

    environment: dict[str, str]
    #: How many jobs, and how many transactions the workers have under way at once.
    jobs: int
    writers: int


KINDS = {
    "draining": Kind({"RQ_WORKER_CLASS": "worker.drain.DrainWorker"}, 24, 3 * WORKERS),
    "stock": Kind({}, 8, WORKERS),
}

Start = Callable[..., list[Started]]


@pytest.fixture
def start(database: str, valkey_url: str, redis: Redis, tmp_path: Path) -> Iterator[Start]:
    """Start some literal `rq worker notiflog` processes."""
    with ExitStack() as stack:

        def start(kind: Kind, n: int = WORKERS) -> list[Started]:
            environment = {
                "PATH": os.environ["PATH"],
                "DATABASE_URL": database,
                "REDIS_URL": valkey_url,
                **kind.environment,
            }
            logs = [tmp_path / f"worker-{number}.log" for number in range(n)]
            quiet = "--disable-job-desc-logging"
            workers = [Started(stack.enter_context(rq_worker(environment, log, quiet)), log) for log in logs]
            until(lambda: redis.scard("rq:workers") == n)
            return workers

        yield start


def accepted() -> dict[str, str]:
    """An answer so large that a few hundred fill a turn."""
    return {"name": "projects/p/messages/1", "filler": os.urandom(500).hex()}


def events_of(app: sample.App, job: int) -> list[dict[str, Any]]:
    """A third of the job's keys are those of any other; every second job has them in the opposite order."""
    numbers = [(job * 257 + n * 7) % KEYS for n in range(EVENTS)]
    events = [
        make.event(
            app,
            number,
            chapter_id=str(app.chapters[number % len(app.chapters)]),
            scenario_rule_id=str(app.rules[number % len(app.rules)]),
            results=[
                make.result(f"alive-{number}", body=accepted()),
                make.unregistered(f"dead-{number}") if number % 3 == 0 else make.result(f"also-{number}"),
            ],
        )
        for number in numbers
    ]
    return events[::-1] if job % 2 else events


def enqueue(
    redis: Redis, app: sample.App, connection: psycopg.Connection, jobs: int
) -> dict[str, list[dict[str, Any]]]:
    connection.execute(
        "insert into public.device_tokens select kind || n, %b, '2026-01-01'"
        " from generate_series(0, %b) as n, unnest('{dead-,alive-}'::text[]) as kind",
        [app.users[0], KEYS - 1],
    )
    payloads = {f"job-{job}": events_of(app, job) for job in range(jobs)}
    put_at_once(redis, {job_id: call(events) for job_id, events in payloads.items()})
    return payloads


def put_at_once(redis: Redis, jobs: dict[str, bytes]) -> None:
    """Enqueue jobs so that no worker finds the queue empty in between, and waits for the turns it has."""
    for job_id, data in jobs.items():
        redis.hset(f"rq:job:{job_id}", mapping={"status": "queued", "origin": "notiflog", "data": data})
    redis.rpush(QUEUE, *jobs)


def finish(redis: Redis, workers: Sequence[Started]) -> dict[str, int]:
    """Let the workers come to an end; the sum of what they say they have done."""
    until(lambda: not redis.llen(QUEUE) and not redis.zcard(STARTED), 60)
    # RQ's own worker, told to stop right after a job, may wait for the next one first.
    until(lambda: {worker.get_state() for worker in Worker.all(redis)} == {"idle"})
    for worker in workers:
        worker.send(signal.SIGTERM)
    assert [worker.wait() for worker in workers] == [0] * len(workers)
    lines = [line for worker in workers for line in worker.logged("outcomes_recorded")]
    names = (
        *("events", "delivered", "failed", "skipped", "retrying", "duplicates", "waiting", "rejected"),
        "refused",
    )
    return {name: sum(line[name] for line in lines) for name in names}


def deadlocks(connection: psycopg.Connection) -> int:
    """How many PostgreSQL has ended in this database."""
    found = connection.execute("select deadlocks from pg_stat_database where datname = current_database()")
    return int((found.fetchone() or (0,))[0])


def tokens(connection: psycopg.Connection, kind: str) -> int:
    found = connection.execute("select count(*) from public.device_tokens where token like %b", [f"{kind}-%"])
    return int((found.fetchone() or (0,))[0])


@pytest.mark.parametrize("kind", KINDS)
def test_workers_with_overlapping_keys_and_tokens_never_deadlock(
    redis: Redis, app: sample.App, connection: psycopg.Connection, database: str, start: Start, kind: str
) -> None:
    jobs = KINDS[kind].jobs
    workers = start(KINDS[kind])
    with log_table_locked(database):
        payloads = enqueue(redis, app, connection, jobs)
        until(lambda: waiting_writers(connection) == KINDS[kind].writers)
    told = finish(redis, workers)
    refused = told.pop("refused")  # another worker had them locked for longer than tokens are waited for
    keys = {event["idempotency_key"] for events in payloads.values() for event in events}
    assert (redis.zcard(FINISHED), redis.zcard(FAILED), deadlocks(connection)) == (jobs, 0, 0)
    assert told == {
        **dict.fromkeys(told, 0),
        "events": jobs * EVENTS,
        "delivered": len(keys),
        "duplicates": jobs * EVENTS - len(keys),
    }
    assert rows(connection) == len(keys)
    dead = {int(key.removeprefix("key-")) for key in keys if int(key.removeprefix("key-")) % 3 == 0}
    assert KEYS - len(dead) <= tokens(connection, "dead") <= KEYS - len(dead) + refused
    assert tokens(connection, "alive") == KEYS


LOCK = "lock table public.follow_up_notification_log in exclusive mode"
DELETE = {
    "peer_mentor_id": "delete from public.users where id = %b",
    "chapter_id": "delete from public.chapters where id = %b",
    "scenario_rule_id": "delete from public.scenario_rules where id = %b",
}


def parents(app: sample.App) -> dict[str, list[UUID]]:
    return dict(zip(DELETE, (app.users[1:], app.chapters[1:], app.rules[1:]), strict=True))


def are_done(redis: Redis, jobs: int) -> bool:
    return redis.zcard(FINISHED) + redis.zcard(FAILED) >= jobs


def delete(connection: psycopg.Connection, column: str, parent: UUID) -> UUID:
    connection.execute(DELETE[column], [parent])
    return parent


@pytest.mark.parametrize("kind", KINDS)
def test_parents_deleted_meanwhile_reject_their_events_only(
    redis: Redis, app: sample.App, connection: psycopg.Connection, database: str, start: Start, kind: str
) -> None:
    # Rows that a deleted parent takes along are counted as they go.
    connection.execute(
        """
        create table public.taken_along (key text);
        create function public.count_taken() returns trigger language plpgsql as
          $$ begin insert into public.taken_along values (old.idempotency_key); return null; end $$;
        create trigger count_taken after delete on public.follow_up_notification_log
          for each row execute function public.count_taken();
        """
    )
    workers = start(KINDS[kind])
    with psycopg.connect(database) as deleting:
        deleting.execute(LOCK)
        payloads = enqueue(redis, app, connection, KINDS[kind].jobs)
        until(lambda: waiting_writers(connection) == KINDS[kind].writers)
        gone = {(column, delete(deleting, column, parents(app)[column][0])) for column in DELETE}
    # And one after each job that is done, while others are being written.
    later = [(column, parents(app)[column][number]) for number in (1, 2) for column in DELETE]
    for jobs, (column, parent) in enumerate(later, 1):
        until(partial(are_done, redis, jobs))
        with suppress(psycopg.errors.ForeignKeyViolation):  # mentors and chapters that have rows stay
            gone.add((column, delete(connection, column, parent)))
    told = finish(redis, workers)

    def is_orphan(event: dict[str, Any]) -> bool:
        return any((column, UUID(event[column])) in gone for column in DELETE)

    events = {event["idempotency_key"]: event for job in payloads.values() for event in job}
    kept = connection.execute("select idempotency_key from public.follow_up_notification_log").fetchall()
    assert {key for (key,) in kept} == {key for key, event in events.items() if not is_orphan(event)}

    (taken,) = connection.execute("select count(*) from public.taken_along").fetchone() or (0,)
    assert taken > 0
    assert told["delivered"] + told["failed"] + told["skipped"] == len(kept) + taken
    assert sum(told.values()) - told["refused"] == 2 * told["events"]
    assert told["events"] >= len(payloads) * EVENTS  # a job is told of again that had to wait for a lock

    rejected = [
        payloads[job_id][position]
        for job_id in payloads
        if redis.zscore(FAILED, job_id) is not None
        for position in rejected_positions(failure(redis, job_id))
    ]
    assert [event for event in rejected if not is_orphan(event)] == []
    assert len(rejected) == told["rejected"] > 0
    assert redis.zcard(FINISHED) + redis.zcard(FAILED) == len(payloads)
    assert [job_id for job_id in payloads if "SQLSTATE" in failure_of(redis, job_id)] == []
    assert deadlocks(connection) == 0


def failure_of(redis: Redis, job_id: str) -> str:
    return failure(redis, job_id) if redis.zscore(FAILED, job_id) is not None else ""


# --- moments chosen, one by one ----------------------------------------------------------------------------


@pytest.fixture
def recording(connection: psycopg.Connection, database: str) -> Callable[..., "Recording"]:
    return lambda events: Recording(connection, database, events)


class Recording:
    """One job's events being written by a session of its own, in a thread."""

    def __init__(self, connection: psycopg.Connection, database: str, events: list[dict[str, Any]]) -> None:
        self._connection = connection
        self._database = database
        self._events = events
        self._outcome: list[Report | psycopg.Error] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            with connect(self._database) as mine:
                self._outcome += record(
                    mine, Tokens(Settings(database_url=self._database)), [judge(self._events)]
                )
        except psycopg.Error as error:
            self._outcome.append(error)

    def waits(self) -> None:
        """Until it waits for a lock."""
        until(lambda: waiting_writers(self._connection) == 1)

    def outcome(self) -> Report | psycopg.Error:
        self._thread.join(30)
        return self._outcome[0]


@pytest.mark.parametrize("column", DELETE)
@pytest.mark.parametrize(
    ("end", "kept", "rejected"),
    [("commit", ["key-0"], [1]), ("rollback", ["key-0", "key-1"], [])],
    ids=["deleted for good", "deletion taken back"],
)
def test_a_parent_that_is_being_deleted_is_waited_for(
    recording: Callable[..., Recording],
    connection: psycopg.Connection,
    database: str,
    app: sample.App,
    column: str,
    end: str,
    kept: list[str],
    rejected: list[int],
) -> None:
    parents = {
        "peer_mentor_id": app.users[9],
        "chapter_id": app.chapters[9],
        "scenario_rule_id": app.rules[5],
    }
    events = [make.event(app, 0), make.event(app, 1, **{column: str(parents[column])})]
    with psycopg.connect(database) as deleting:
        deleting.execute(DELETE[column], [parents[column]])
        writing = recording(events)
        writing.waits()
        deleting.execute(end.encode())
    report = writing.outcome()
    assert isinstance(report, Report)
    assert [line.position for line in report.rejected] == rejected
    found = connection.execute("select idempotency_key from public.follow_up_notification_log order by 1")
    assert [key for (key,) in found] == kept


@pytest.mark.parametrize("kind", KINDS)
def test_a_deadlock_with_the_app_is_tried_again(
    redis: Redis, app: sample.App, connection: psycopg.Connection, database: str, start: Start, kind: str
) -> None:
    first, second = app.users[1], app.users[2]
    events = [make.event(app, number) for number in (1, 2, 3)]  # of users 1, 2 and 3, checked in this order
    workers = start(KINDS[kind], 1)
    with psycopg.connect(database) as deleting:
        deleting.execute("set deadlock_timeout = '1min'")  # PostgreSQL ends the other one
        deleting.execute("delete from public.users where id = %s", [second])
        put(redis, "job", call(events))
        until(lambda: waiting_writers(connection) == 1)  # holds the first user, waits for the second
        deleting.execute("delete from public.users where id = %s", [first])
        deleting.commit()
    told = finish(redis, workers)
    (line,) = workers[0].logged("database_unavailable")
    assert (deadlocks(connection), "40P01" in line["problem"]) == (1, True)
    assert (told["delivered"], told["rejected"], rows(connection)) == (1, 2, 1)
    assert rejected_positions(failure(redis, "job")) == {0, 1}
    assert "SQLSTATE" not in failure(redis, "job")
