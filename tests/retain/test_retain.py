"""`python -m worker.retain` and its job: what is deleted, what is not, and what is said."""

# ruff: noqa: S608 - statements are put together from constants of this file

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from rq import Queue
from rq.cron import CronScheduler

from tests import make
from tests.drain.conftest import JOB, Work, drain, new_worker, queue, rows, statuses, work
from tests.retain.conftest import LOG, Record, keys
from worker.demo import sample, sandbox
from worker.retain import __main__ as retain
from worker.retain import expiry

__all__ = ["drain", "new_worker", "queue", "work"]

AGE = timedelta(days=400)
EXPIRE = "worker.jobs.retain_outcomes"


@pytest.fixture
def run(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command within this process: its status, its answer, its complaints."""

    def run(*arguments: str, url: str = database) -> tuple[int, str, str]:
        monkeypatch.setenv("DATABASE_URL", url)
        capsys.readouterr()
        try:
            status = retain.main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
        return (status, *capsys.readouterr())

    return run


Run = Callable[..., tuple[int, str, str]]


# --- what is deleted ---------------------------------------------------------------------------------------


def test_what_was_sent_and_recorded_so_long_ago_is_deleted(
    run: Run, record: Record, connection: psycopg.Connection
) -> None:
    record("old-", 5, sent=401)
    record("late-", 1, sent=401, recorded=399)
    record("young-", 3, sent=399)
    record("ahead-", 1, sent=-1, recorded=401)
    assert run("--older-than", "400d", "--yes") == (0, "deleted 5 outcomes older than 400 days\n", "")
    assert keys(connection) == ["ahead-1", "late-1", "young-1", "young-2", "young-3"]


def test_however_many_there_are_in_batches_of_a_bounded_size(
    run: Run, record: Record, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "BATCH", 3)
    record("old-", 20, sent=401)
    record("young-", 20, sent=1)
    before = expiry.moment(connection, AGE)
    assert list(expiry.delete(connection, before)) == [3, 3, 3, 3, 1, 3, 3, 1]
    assert len(keys(connection)) == 20


def test_it_goes_by_the_index(record: Record, connection: psycopg.Connection, app: sample.App) -> None:
    record("old-", 3000, sent=401)
    record("young-", 3000, sent=1)
    connection.execute(f"analyze {LOG}".encode())
    wanted = {
        "chapter": app.chapters[0],
        "before": expiry.moment(connection, AGE),
        "after": "-infinity",
        "most": 100,
    }
    for statement in (expiry._DELETE, expiry._COUNT, expiry._CHAPTERS):
        plan = connection.execute(f"explain {statement}".encode(), wanted if "%" in statement else None)
        text = "\n".join(line for (line,) in plan.fetchall())
        assert "follow_up_notification_log_chapter_id_delivered_at_idx" in text
        assert "Seq Scan" not in text


def test_a_lock_of_somebodys_ends_it_in_time_with_the_remedy(
    run: Run, record: Record, connection: psycopg.Connection, database: str
) -> None:
    record("old-", 3, sent=401)
    with psycopg.connect(database) as other:
        other.execute(f"select from {LOG} for update".encode())
        status, said, complaints = run("--older-than", "400d", "--yes")
    assert (status, said, rows(connection)) == (1, "deleted 0 outcomes older than 400 days\n", 3)
    assert "run it again to go on" in complaints
    assert run("--older-than", "400d", "--yes")[1] == "deleted 3 outcomes older than 400 days\n"


def test_recording_waits_for_nothing_of_it(
    record: Record, connection: psycopg.Connection, database: str, app: sample.App, work: Work, queue: Queue
) -> None:
    """Amid a batch: its transaction is open, and the rows of others are recorded."""
    record("old-", 10, sent=401)
    with psycopg.connect(database) as other:
        other.execute(f"delete from {LOG} where idempotency_key like 'old-%'".encode())
        job = queue.enqueue(JOB, [make.event(app, number) for number in range(20)])
        work()
        assert (statuses([job]), rows(connection)) == (["finished"], 30)
        other.rollback()


# --- what is asked and said --------------------------------------------------------------------------------


def test_a_dry_run_says_how_many_and_deletes_nothing(
    run: Run, record: Record, connection: psycopg.Connection
) -> None:
    record("old-", 4000, sent=401)
    connection.execute(f"analyze {LOG}".encode())
    status, said, complaints = run("--older-than", "400d", "--dry-run")
    assert (status, complaints) == (0, "")
    assert said.startswith("would delete 4,000 outcomes older than 400 days\nsome ")
    assert "MiB of table and indexes: vacuum frees it for new rows, files stay\n" in said
    assert rows(connection) == 4000


def test_the_same_for_a_program(run: Run, record: Record) -> None:
    record("old-", 2, sent=401)
    answers = [
        json.loads(run("--older-than", "400d", "--json", how)[1]) for how in ("--dry-run", "--yes", "--yes")
    ]
    assert [(answer["dry_run"], answer["rows"]) for answer in answers] == [(True, 2), (False, 2), (False, 0)]
    assert answers[0]["older_than_days"] == 400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--older-than", "400d"], "confirm it with --yes, or look first with --dry-run"),
        (["--older-than", "34d", "--yes"], "35d is the least; --force"),
        (["--older-than", "34d", "--dry-run"], "35d is the least; --force"),
        (["--older-than", "400", "--yes"], "expected a number of days, like 400d"),
        (["--older-than", "0d", "--yes"], "expected a number of days, like 400d"),
        (["--older-than", "-40d", "--yes"], "expected a number of days, like 400d"),
        (["--yes"], "Missing option '--older-than'"),
    ],
    ids=str,
)
def test_wrong_usage(
    run: Run, record: Record, connection: psycopg.Connection, arguments: list[str], said: str
) -> None:
    record("old-", 1, sent=1000)
    status, answer, complaints = run(*arguments)
    assert (status, answer, rows(connection)) == (2, "", 1)
    assert said in " ".join(complaints.split())


def test_forced_it_deletes_what_is_younger(run: Run, record: Record, connection: psycopg.Connection) -> None:
    record("old-", 2, sent=2)
    assert run("--older-than", "1d", "--force", "--yes")[0] == 0
    assert rows(connection) == 0


# --- who may -----------------------------------------------------------------------------------------------


@pytest.fixture
def worker_url(connection: psycopg.Connection, postgres: sandbox.Postgres) -> Any:
    """The address for a member of notiflog_worker."""
    connection.execute("create role retain_worker login in role notiflog_worker")
    yield postgres.url(connection.info.dbname, "retain_worker")
    connection.execute("drop owned by retain_worker; drop role retain_worker")


@pytest.mark.parametrize("row_security", [False, True])
def test_a_role_that_may_not_is_told_the_statements_that_help(
    run: Run, record: Record, connection: psycopg.Connection, worker_url: str, row_security: bool
) -> None:
    record("old-", 2, sent=401)
    if row_security:
        connection.execute(f"alter table {LOG} enable row level security".encode())
    status, answer, complaints = run("--older-than", "400d", "--yes", url=worker_url)
    assert (status, answer, rows(connection)) == (1, "", 2)
    assert f"run `grant delete on {LOG} to retain_worker`" in complaints
    for line in complaints.splitlines():
        connection.execute(line.split("`")[1].encode())
    assert run("--older-than", "400d", "--yes", url=worker_url)[:2] == (
        0,
        "deleted 2 outcomes older than 400 days\n",
    )


def test_without_its_index_it_deletes_nothing(
    run: Run, record: Record, connection: psycopg.Connection
) -> None:
    record("old-", 2, sent=401)
    connection.execute("drop index public.follow_up_notification_log_chapter_id_delivered_at_idx")
    status, _, complaints = run("--older-than", "400d", "--yes")
    assert (status, rows(connection)) == (1, 2)
    assert "delivered_at_idx is missing: run `python -m worker.migrate`" in complaints


# --- by the clock ------------------------------------------------------------------------------------------


def test_the_job_deletes_amid_others(
    work: Work,
    queue: Queue,
    record: Record,
    connection: psycopg.Connection,
    app: sample.App,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    monkeypatch.setenv("NOTIFLOG_RETAIN", "400d")
    record("old-", 5, sent=401)
    jobs = [
        queue.enqueue(JOB, [make.event(app, 1)]),
        queue.enqueue(EXPIRE),
        queue.enqueue(JOB, [make.event(app, 2)]),
    ]
    work()
    assert (statuses(jobs), keys(connection)) == (["finished"] * 3, ["key-1", "key-2"])
    assert [(line["rows"], line["days"]) for line in logged() if line["event"] == "outcomes_expired"] == [
        (5, 400)
    ]


def test_the_job_takes_some_seconds_and_goes_on_next_time(
    record: Record, connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "JOB_SECONDS", 0.0)
    monkeypatch.setattr(expiry, "BATCH", 2)
    record("old-", 5, sent=401, chapters=1)
    assert [expiry.go_on(connection, AGE) for _ in range(4)] == [2, 2, 1, 0]


def test_the_job_deletes_nothing_by_default(
    work: Work, queue: Queue, record: Record, connection: psycopg.Connection
) -> None:
    record("old-", 1, sent=10_000)
    job = queue.enqueue(EXPIRE)
    work()
    assert (statuses([job]), rows(connection)) == (["finished"], 1)


def test_a_worker_that_may_not_delete_says_so_and_works_on(
    work: Work,
    queue: Queue,
    record: Record,
    connection: psycopg.Connection,
    app: sample.App,
    worker_url: str,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[dict[str, Any]]],
) -> None:
    monkeypatch.setenv("DATABASE_URL", worker_url)
    monkeypatch.setenv("NOTIFLOG_RETAIN", "400d")
    record("old-", 1, sent=401)
    jobs = [queue.enqueue(EXPIRE), queue.enqueue(JOB, [make.event(app)])]
    work()
    assert (statuses(jobs), rows(connection)) == (["finished"] * 2, 2)
    (line,) = [line for line in logged() if line["event"] == "retention_refused"]
    assert f"grant delete on {LOG} to retain_worker" in line["problem"]


@pytest.mark.parametrize(("setting", "entries"), [("", 0), ("400d", 1)])
def test_rqs_cron_enqueues_it_only_if_asked(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, setting: str, entries: int
) -> None:
    monkeypatch.setenv("NOTIFLOG_RETAIN", setting)
    cron = CronScheduler(connection=queue.connection)
    monkeypatch.delitem(__import__("sys").modules, "worker.cron", raising=False)
    cron.load_config_from_file("worker.cron")
    assert [job.func_name for job in cron.get_jobs()].count(EXPIRE) == entries
