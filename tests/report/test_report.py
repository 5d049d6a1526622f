"""`python -m worker.report`: what it counts, what it shows, and what it says when it cannot."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import JOB, QUARANTINE, Drain, drain, new_worker, queue
from worker import history
from worker.demo import sample
from worker.logs import token_hash
from worker.queue.groups import group
from worker.queue.stopped import StoppedJob
from worker.report import __main__ as report
from worker.report.counted import Counted
from worker.report.counts import (
    Counts,
    Group,
    Missing,
    Outcomes,
    Report,
    Reserved,
    Stopped,
    percent,
    worst_first,
)
from worker.report.periods import period
from worker.report.reading import LISTED
from worker.report.text import (
    BLOCKS,
    CAUSES_SHOWN,
    GROUPS_SHOWN,
    MISSING_SHOWN,
    REJECTED_SHOWN,
    SLOTS_SHOWN,
    as_text,
)

__all__ = ["drain", "new_worker", "queue"]

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
NOW = datetime(2026, 11, 22, 11, 30, tzinfo=UTC)

Record = Callable[..., None]


@pytest.fixture(autouse=True)
def environment(database: str, valkey_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def record(connection: psycopg.Connection, app: sample.App) -> Record:
    """Write rows of the log that differ in what a report tells apart."""

    def record(
        at: str,
        status: str = "delivered",
        channel: str = "fcm",
        *,
        chapter: int = 0,
        rule: int = 0,
        n: int = 1,
    ) -> None:
        connection.execute(
            """
            insert into public.follow_up_notification_log
                   (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel,
                    idempotency_key, status)
            select %s, %s, %s, %s, %s, gen_random_uuid(), %s from generate_series(1, %s)
            """,
            [app.users[0], app.chapters[chapter], app.rules[rule], at, channel, status, n],
        )

    return record


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """What the command says with `--json`."""

    def told(*arguments: str, status: int = 0) -> Any:
        assert report.main([*arguments, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return told


@pytest.fixture
def login(database: str, connection: psycopg.Connection) -> Iterator[Callable[[str], str]]:
    """The URL of a new role, which is a member of another or may select from the log."""
    names: list[sql.Identifier] = []

    def login(rights: str) -> str:
        name = f"reader_{uuid4().hex}"
        role = sql.Identifier(name)
        names.append(role)
        connection.execute(sql.SQL("create role {} login").format(role))
        connection.execute(sql.SQL(rights).format(role))
        return make_conninfo(database, user=name)

    yield login
    for name in names:
        connection.execute(sql.SQL("drop owned by {0}; drop role {0}").format(name))


def shown(outcomes: Outcomes, stopped: Stopped | None = None, *, days: int = 7, width: int = 80) -> list[str]:
    """The lines of a report that was made at NOW."""
    since = period(f"{days}d", NOW, UTC).since
    report = Report(since, NOW, UTC, outcomes, stopped, counted=Counted(since.date(), NOW.date(), 0, [], []))
    return list(as_text(report, width, BLOCKS))


def made_up(days: dict[tuple[date, str], Counts], groups: int = 0) -> Outcomes:
    chapters = [Group(UUID(int=number), Counts(9, 1)) for number in range(groups)]
    return Outcomes(days, chapters, chapters, partial=False)


def stopped_job(number: int = 0, *rejected: str, **changes: Any) -> StoppedJob:
    since = NOW - timedelta(minutes=number)
    job = StoppedJob(f"job-{number}", "failed", since, "rejected", "some events rejected", 100, rejected)
    return job._replace(**changes)


def all_stopped(jobs: list[StoppedJob]) -> Stopped:
    return Stopped(len(jobs), 0, jobs, group(jobs))


# --- what is counted ---------------------------------------------------------------------------------------


def test_outcomes_are_counted_by_day_channel_and_status(record: Record, told: Callable[..., Any]) -> None:
    record("2026-11-16T06:00Z", n=7)
    record("2026-11-16T07:00Z", "failed", n=2)
    record("2026-11-16T08:00Z", "skipped", n=4)
    record("2026-11-16T08:00Z", "failed", "apns")
    record("2026-11-18T08:00Z", "delivered", "apns", n=3)
    said = told("--since", "2026-11-16")
    keys = ("day", "delivery_channel", "delivered", "failed", "skipped", "delivery_rate")
    assert [tuple(day[key] for key in keys) for day in said["days"]] == [
        ("2026-11-16", "apns", 0, 1, 0, 0.0),
        ("2026-11-16", "fcm", 7, 2, 4, 0.7778),
        ("2026-11-18", "apns", 3, 0, 0, 1.0),
    ]
    assert said["channels"] == {
        "apns": {"delivered": 3, "failed": 1, "skipped": 0, "delivery_rate": 0.75},
        "fcm": {"delivered": 7, "failed": 2, "skipped": 4, "delivery_rate": 0.7778},
    }
    assert said["total"] == {"delivered": 10, "failed": 3, "skipped": 4, "delivery_rate": 0.7692}


def test_chapters_and_rules_are_counted_each_by_itself(
    record: Record, told: Callable[..., Any], app: sample.App
) -> None:
    record("2026-11-16T06:00Z", chapter=0, rule=1, n=50)
    record("2026-11-16T06:00Z", "failed", chapter=0, rule=0, n=50)
    record("2026-11-16T06:00Z", chapter=1, rule=1, n=99)
    record("2026-11-16T06:00Z", "failed", chapter=1, rule=1)
    record("2026-11-16T06:00Z", "skipped", chapter=2, rule=2, n=5)
    said = told("--since", "2026-11-16")
    assert [(chapter["chapter_id"], chapter["delivery_rate"]) for chapter in said["chapters"]] == [
        (str(app.chapters[0]), 0.5),
        (str(app.chapters[1]), 0.99),
        (str(app.chapters[2]), None),
    ]
    assert [(rule["scenario_rule_id"], rule["delivered"], rule["skipped"]) for rule in said["rules"]] == [
        (str(app.rules[0]), 0, 0),
        (str(app.rules[1]), 149, 0),
        (str(app.rules[2]), 0, 5),
    ]


@pytest.mark.parametrize(
    ("timezone", "day"),
    [("UTC", "2026-11-16"), ("Asia/Tokyo", "2026-11-17"), ("Europe/Berlin", "2026-11-17")],
)
def test_a_day_is_one_of_the_time_zone(
    record: Record, told: Callable[..., Any], timezone: str, day: str
) -> None:
    record("2026-11-16T23:30Z")
    assert [found["day"] for found in told("--since", "2026-11-10", "--timezone", timezone)["days"]] == [day]


@pytest.mark.parametrize(
    ("timezone", "delivered"), [("UTC", 1), ("Europe/Berlin", 2), ("America/New_York", 0)]
)
def test_a_period_begins_at_midnight_of_the_time_zone(
    record: Record, told: Callable[..., Any], timezone: str, delivered: int
) -> None:
    record("2026-11-15T22:59:59Z")  # before midnight everywhere
    record("2026-11-15T23:00:00Z")  # midnight in Berlin
    record("2026-11-16T00:00:00Z")  # midnight in UTC
    said = told("--since", "2026-11-16", "--timezone", timezone)
    assert said["total"]["delivered"] == delivered


@pytest.mark.parametrize(
    ("since", "timezone", "expected"),
    [
        ("7d", UTC, datetime(2026, 11, 16, tzinfo=UTC)),
        ("1d", UTC, datetime(2026, 11, 22, tzinfo=UTC)),
        ("24h", UTC, datetime(2026, 11, 21, 11, 30, tzinfo=UTC)),
        ("24h", BERLIN, datetime(2026, 11, 21, 11, 30, tzinfo=UTC)),
        ("2026-11-01", UTC, datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01", BERLIN, datetime(2026, 10, 31, 23, tzinfo=UTC)),
        ("2026-10-25", BERLIN, datetime(2026, 10, 24, 22, tzinfo=UTC)),  # the clocks go back that night
        ("22d", NEW_YORK, datetime(2026, 11, 1, 4, tzinfo=UTC)),
    ],
)
def test_since_means_whole_days_or_exact_hours(since: str, timezone: Any, expected: datetime) -> None:
    assert period(since, NOW, timezone).since == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([Counts(0, 1), Counts(500, 500)], [1, 0]),  # one failure proves less than five hundred
        ([Counts(99, 1), Counts(90, 10)], [1, 0]),
        ([Counts(5, 5), Counts(50, 50)], [1, 0]),
        ([Counts(0, 0, 9), Counts(10, 0)], [1, 0]),  # nothing sent: nothing to be ashamed of
    ],
)
def test_the_worst_comes_first_by_what_is_proven(groups: list[Counts], expected: list[int]) -> None:
    found = worst_first(Group(UUID(int=number), counts) for number, counts in enumerate(groups))
    assert [group.id.int for group in found] == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(3, 1), "75.0 %"),
        (Counts(3, 1, 100), "75.0 %"),
        (Counts(9999, 1), "99.9 %"),
        (Counts(1, 9999), "0.1 %"),
        (Counts(5, 0), "100.0 %"),
        (Counts(0, 5), "0.0 %"),
        (Counts(0, 0, 5), "-"),
    ],
)
def test_a_rate_leaves_out_what_was_skipped_and_hides_no_failure(counts: Counts, expected: str) -> None:
    assert percent(counts) == expected


# --- the jobs that stopped ---------------------------------------------------------------------------------


def test_failed_and_quarantined_jobs_are_listed_with_their_rejected_events(
    told: Callable[..., Any], queue: Queue, redis: Redis, app: sample.App, drain: Drain
) -> None:
    good, bad = make.event(app, 1), make.event(app, 2, results=[make.result(token="a\0b")])
    job = queue.enqueue(JOB, [good, bad])
    drain()
    redis.rpush(QUARANTINE, "nobody-can-read-this")
    said = told("--since", "2026-11-16")
    assert said["total"]["delivered"] == 1
    assert (said["stopped_jobs"]["failed"], said["stopped_jobs"]["quarantined"]) == (1, 1)
    quarantined, failed = said["stopped_jobs"]["newest"]
    assert (quarantined["job_id"], quarantined["state"]) == ("nobody-can-read-this", "quarantined")
    assert (failed["job_id"], failed["reason"]) == (job.id, "rejected")
    assert failed["rejected"] == ["[1] $.results[0].token: contains a NUL character"]


def test_all_jobs_are_counted_and_the_newest_listed(
    told: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [stopped_job(number) for number in (*range(100, 150), *range(100))]
    aside = stopped_job(200, state="quarantined", since=None)
    monkeypatch.setattr("worker.report.reading.stopped_jobs", lambda redis, queue: iter([*jobs, aside]))
    stopped = told()["stopped_jobs"]
    assert (stopped["failed"], stopped["quarantined"]) == (150, 1)
    newest = ["job-200", *(f"job-{minutes_ago}" for minutes_ago in range(LISTED - 1))]
    assert [job["job_id"] for job in stopped["newest"]] == newest


def test_the_queue_is_the_one_that_is_named(told: Callable[..., Any], redis: Redis) -> None:
    redis.rpush(QUARANTINE, "of the queue notiflog")
    Queue("another", connection=redis).enqueue(JOB, [])
    assert told("--queue", "another")["stopped_jobs"] == {
        "failed": 0,
        "quarantined": 0,
        "causes": [],
        "newest": [],
    }


def test_of_a_queue_that_is_not_there_nothing_is_known(told: Callable[..., Any]) -> None:
    assert told("--queue", "typo", status=1)["stopped_jobs"] is None


def test_long_lists_say_how_much_more_there_is() -> None:
    lines = [f"[{number}] $: wrong" for number in range(REJECTED_SHOWN + 3)]
    jobs = [stopped_job(number, *lines, reason=f"reason-{number}") for number in range(CAUSES_SHOWN + 5)]
    outcomes = made_up({(date(2026, 11, 20), "fcm"): Counts(1)}, GROUPS_SHOWN + 2)
    text = shown(outcomes, all_stopped(jobs)._replace(failed=200))
    assert text[-1] == "and 190 more jobs"
    assert text.count("    and 3 more") == CAUSES_SHOWN
    assert text.count("and 2 more") == 2  # chapters and rules


def test_one_cause_is_told_once_however_many_jobs_it_stopped(
    told: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [stopped_job(number, f"[{number}] $.chapter_id: unknown", "[0] $: wrong") for number in range(150)]
    aside = stopped_job(200, state="quarantined", since=None, reason="unreadable", why="no data")
    monkeypatch.setattr("worker.report.reading.stopped_jobs", lambda redis, queue: iter([*jobs, aside]))
    unreadable, rejected = told()["stopped_jobs"]["causes"]
    assert (unreadable["jobs"], unreadable["why"], unreadable["first"]) == (1, "no data", None)
    assert (rejected["jobs"], rejected["events"], rejected["reason"]) == (150, 15_000, "rejected")
    assert (rejected["first"], rejected["last"]) == ("2026-11-22T09:01:00+00:00", "2026-11-22T11:30:00+00:00")
    assert rejected["job_ids"] == ["job-0", "job-1", "job-2"]
    assert rejected["problems"] == {"$.chapter_id: unknown": 150, "$: wrong": 150}
    assert report.main([]) == 0
    assert capsys.readouterr().out.endswith(
        """\
Jobs: 150 failed, 1 quarantined; see python -m worker.replay
  quarantined (unreadable)  job-200
    no data
  2026-11-22 09:01 to 2026-11-22 11:30  150 jobs stopped (rejected)
    150 events: $.chapter_id: unknown
    150 events: $: wrong
    jobs job-0, job-1, job-2 and 147 more
"""
    )


def test_jobs_beyond_the_most_causes_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [stopped_job(number, reason=f"reason-{number}") for number in range(2_000)]
    monkeypatch.setattr("worker.report.reading.stopped_jobs", lambda redis, queue: iter(jobs))
    assert report.main([]) == 0
    assert capsys.readouterr().out.endswith(f"and {2_000 - CAUSES_SHOWN:,} more jobs\n")


def test_no_text_from_redis_steers_the_terminal(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    redis.rpush(QUARANTINE, "\x1b]0;owned\x07\nforged line \u202e")
    assert report.main([]) == 0
    said = capsys.readouterr().out
    assert "forged line" in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
    assert "\nforged line" not in said


# --- what was never reported -------------------------------------------------------------------------------


def reserve(connection: psycopg.Connection, *keys: str, hours: int) -> None:
    """Reserve some prompts so many hours ago."""
    history.reserve(connection, keys)
    connection.execute(
        "update notiflog.reservations set reserved_at = reserved_at - %(age)s,"
        " held_until = held_until - %(age)s where idempotency_key = any(%(keys)s)",
        {"age": timedelta(hours=hours), "keys": list(keys)},
    )


def test_prompts_that_were_reserved_and_never_reported_are_listed_by_hash_and_age(
    connection: psycopg.Connection, told: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    reserve(connection, "died twice", hours=3)
    history.reserve(connection, ["died twice"])
    reserve(connection, "died", hours=50)
    reserve(connection, "on its way", hours=0)
    (oldest, newest) = told()["missing_prompts"].pop("oldest")
    assert (oldest["key"], oldest["holds"], oldest["age_seconds"] // 3600) == (token_hash("died"), 1, 50)
    assert (newest["key"], newest["holds"], newest["age_seconds"] // 3600) == (token_hash("died twice"), 2, 3)
    assert report.main([]) == 0
    said = capsys.readouterr().out
    assert "Prompts reserved and never reported: 2" in said
    assert f"key {token_hash('died')}, 2 days ago" in said
    assert f"key {token_hash('died twice')}, 3 h ago, reserved 2 times" in said
    assert "died twice" not in said


def test_a_reader_is_shown_everything(
    connection: psycopg.Connection,
    login: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    record: Record,
    told: Callable[..., Any],
) -> None:
    record("2026-11-16T06:00Z")
    reserve(connection, "died", hours=2)
    monkeypatch.setenv("DATABASE_URL", login("grant notiflog_reader to {}"))
    said = told("--since", "2026-11-16")
    assert (said["total"]["delivered"], said["missing_prompts"]["total"]) == (1, 1)


@pytest.mark.parametrize("missing", ["the right to look", "the table"])
def test_without_a_look_at_the_reservations_the_report_says_so(
    connection: psycopg.Connection,
    login: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    if missing == "the table":
        connection.execute("drop table notiflog.reservations")
    else:
        monkeypatch.setenv("DATABASE_URL", login("grant select on public.follow_up_notification_log to {}"))
    assert report.main([]) == 0
    assert "never reported: unknown to this role" in capsys.readouterr().out


def test_of_many_that_were_never_reported_the_oldest_are_shown() -> None:
    prompts = [Reserved(f"{n:012x}", NOW - timedelta(hours=n), 1) for n in range(20)]
    outcomes = made_up({(date(2026, 11, 20), "fcm"): Counts(1)})
    since = period("7d", NOW, UTC).since
    text = list(as_text(Report(since, NOW, UTC, outcomes, None, Missing(35, prompts)), 80, BLOCKS))
    assert f"and {35 - MISSING_SHOWN} more prompts" in text
    assert max(map(len, text)) <= 80


# --- the terminal ------------------------------------------------------------------------------------------


def test_it_reads_like_this() -> None:
    days = {
        (date(2026, 11, 20), "apns"): Counts(60, 20, 20),
        (date(2026, 11, 20), "fcm"): Counts(30, 10, 10),
        (date(2026, 11, 22), "fcm"): Counts(1_000, 0, 0),
    }
    groups = [Group(UUID(int=1), Counts(30, 30)), Group(UUID(int=2), Counts(1_060, 0))]
    job = stopped_job(5, "[17] $.results[0].token: contains a NUL character")
    outcomes = Outcomes(days, groups, groups[:1], partial=False)
    assert "\n".join(shown(outcomes, all_stopped([job]), days=3)) == (
        """\
Prompts from 2026-11-20 00:00 to 2026-11-22 11:30 (UTC)

█ delivered  ▒ failed  ░ skipped: nothing was sent, not in the rate

channel  delivered  failed  skipped    rate
apns            60      20       20  75.0 %  ██▒
fcm          1,030      10       10  99.0 %  ██████████████████████████████████▒
all          1,090      30       30  97.3 %

day                       channel  delivered  failed  skipped     rate
2026-11-20                apns            60      20       20   75.0 %  ▒
                          fcm             30      10       10   75.0 %
2026-11-21                -                0       0        0        -
2026-11-22 (until 11:30)  fcm          1,000       0        0  100.0 %  ████████

chapter, worst first                  delivered  failed    rate
00000000-0000-0000-0000-000000000001         30      30  50.0 %  ████████▒▒▒▒▒▒▒
and 1 more without a failure

rule, worst first                     delivered  failed    rate
00000000-0000-0000-0000-000000000001         30      30  50.0 %  ████████▒▒▒▒▒▒▒

Why pushes failed: the workers counted no failed answer from 2026-11-20 to
  2026-11-22 (UTC).

Jobs: 1 failed, 0 quarantined; see python -m worker.replay
  2026-11-22 11:25  failed (rejected)  job-5
    some events rejected
    [17] $.results[0].token: contains a NUL character"""
    )


def test_every_line_fits_into_eighty_columns() -> None:
    days = {(date(2026, 11, 20), "apns"): Counts(1_234_567, 234_567, 34_567)}
    job = stopped_job(0, "[17] $: " + "far too long " * 20)
    assert max(map(len, shown(made_up(days, 20), all_stopped([job])))) <= 80


def test_a_day_without_outcomes_is_shown() -> None:
    days = {(date(2026, 11, 20), "fcm"): Counts(5), (date(2026, 11, 22), "fcm"): Counts(5)}
    assert "2026-11-21                -                0       0        0        -" in shown(made_up(days))


def test_of_a_long_time_the_last_days_are_shown() -> None:
    days = {(NOW.date() - timedelta(days=back), "fcm"): Counts(5) for back in reversed(range(40))}
    text = shown(made_up(days), days=40)
    assert f"and {40 - SLOTS_SHOWN['day']} days before" in text
    assert len([line for line in text if line.startswith("2026-")]) == SLOTS_SHOWN["day"]


def test_days_before_the_first_outcome_are_left_out_when_they_are_too_many() -> None:
    text = shown(made_up({(date(2026, 11, 21), "fcm"): Counts(5)}), days=5000)
    assert [line[:10] for line in text if line.startswith("2026-")] == ["2026-11-21", "2026-11-22"]


def test_an_empty_time_says_so_and_where_to_look(capsys: pytest.CaptureFixture[str], record: Record) -> None:
    record("2001-01-01T00:00Z")
    assert report.main([]) == 0
    said = capsys.readouterr().out
    assert "No outcome is recorded in this time" in said
    assert "python -m worker.check" in said
    assert "No job has failed." in said


def run(
    *arguments: str, stdout: Any = subprocess.PIPE, **environment: str
) -> "subprocess.CompletedProcess[bytes]":
    """The command as its own process."""
    return subprocess.run(
        [sys.executable, "-m", "worker.report", *arguments],
        env=os.environ | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )


def test_where_the_encoding_knows_no_blocks_bars_are_ascii(record: Record) -> None:
    record("2026-11-16T06:00Z", n=3)
    record("2026-11-16T06:00Z", "failed", n=1)
    done = run("--since", "2026-11-16", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"# delivered  x failed  . skipped" in done.stdout
    assert b"75.0 %  ########" in done.stdout


def test_a_reader_who_has_seen_enough_is_no_error(record: Record) -> None:
    read, write = os.pipe()
    os.close(read)
    done = run(stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("form", ["--json", "--queue=notiflog"])
def test_no_mentor_is_named(
    record: Record, app: sample.App, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    record("2026-11-16T06:00Z", "failed")
    assert report.main(["--since", "2026-11-16", form]) == 0
    said = capsys.readouterr().out
    assert str(app.chapters[0]) in said
    assert str(app.users[0]) not in said


# --- what can go wrong -------------------------------------------------------------------------------------


def test_the_workers_own_role_may_not_read_and_hears_who_may(
    login: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", login("grant notiflog_worker to {}"))
    assert report.main([]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "may not read public.follow_up_notification_log" in said.err
    assert "DATABASE_URL=$OWNER_DATABASE_URL python -m worker.report" in said.err


def test_a_role_that_may_only_select_is_enough(
    login: Callable[[str], str], record: Record, told: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    record("2026-11-16T06:00Z")
    reader = login("grant select on public.follow_up_notification_log to {}")
    monkeypatch.setenv("DATABASE_URL", reader)
    said = told("--since", "2026-11-16")
    assert (said["total"]["delivered"], said["rows_may_be_hidden"]) == (1, False)


def test_rows_that_row_level_security_hides_are_not_taken_for_none(
    login: Callable[[str], str],
    connection: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connection.execute("alter table public.follow_up_notification_log enable row level security")
    monkeypatch.setenv("DATABASE_URL", login("grant select on public.follow_up_notification_log to {}"))
    assert report.main([]) == 0
    assert "Row level security applies to this role" in capsys.readouterr().out


def test_without_redis_the_outcomes_are_shown_and_failed_jobs_are_unknown(
    record: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record("2026-11-16T06:00Z", n=5)
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/socket")
    assert report.main(["--since", "2026-11-16"]) == 1
    said = capsys.readouterr()
    assert "fcm              5" in said.out
    assert "Failed jobs: unknown" in said.out
    assert "check REDIS_URL" in said.err
    assert report.main(["--since", "2026-11-16", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["stopped_jobs"] is None


@pytest.mark.parametrize(
    ("variable", "value", "status", "remedy"),
    [
        (
            "DATABASE_URL",
            "postgresql://postgres@/postgres?host=/nowhere",
            1,
            "no server listens on the socket",
        ),
        ("DATABASE_URL", "", 2, "DATABASE_URL is not set"),
        ("REDIS_URL", "nonsense", 2, "REDIS_URL cannot be parsed"),
    ],
)
def test_a_wrong_address_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    status: int,
    remedy: str,
) -> None:
    monkeypatch.setenv(variable, value)
    assert report.main([]) == status
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert remedy in said.err


def test_a_database_without_the_table_names_the_remedy(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database)
    assert report.main([]) == 1
    assert "python -m worker.migrate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--since", "yesterday"], "7d, 24h, 2026-11-01"),
        (["--since", "0d"], "7d, 24h, 2026-11-01"),
        (["--since", "2026-13-01"], "7d, 24h, 2026-11-01"),
        (["--since", "2100-01-01"], "lies ahead"),
        (["--timezone", "Mars/Olympus"], "no such time zone: Mars/Olympus"),
        (["--timezone", "../../etc/passwd"], "no such time zone"),
        (["--json", "--html", "x.html"], "not allowed with"),
    ],
)
def test_wrong_usage_names_what_is_expected(
    capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        report.main(arguments)
    assert exit_.value.code == 2
    assert problem in capsys.readouterr().err
