"""Whatever PostgreSQL refuses about one row rejects that event, and no other."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests import make
from worker.demo import sample
from worker.judge.batch import judge
from worker.record.account import Report
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers.settings import Settings

Run = Callable[[], Report]


@pytest.fixture
def run(connection: psycopg.Connection, database: str, app: sample.App) -> Run:
    """Record ten events, of which PostgreSQL does not like "key-3"."""

    def run() -> Report:
        events = [make.event(app, number) for number in range(10)]
        (report,) = record(connection, Tokens(Settings(database_url=database)), [judge(events)])
        return report

    return run


def trigger(body: str, when: str = "before insert", kind: str = "trigger") -> str:
    """SQL for a trigger on the log that does something about "key-3"."""
    return f"""
        create function refuse() returns trigger language plpgsql as $$
          begin if new.idempotency_key = 'key-3' then {body} end if; return new; end $$;
        create {kind} refuse {when} on public.follow_up_notification_log {{}}
          for each row execute function refuse()
    """


#: What the app put there, and what is said of the event.
REFUSALS: dict[str, tuple[str, str]] = {
    "a check": (
        "alter table public.follow_up_notification_log"
        " add constraint no_three check (idempotency_key <> 'key-3')",
        "no_three",
    ),
    "a trigger that raises": (trigger("raise exception 'no';").format(""), "P0001"),
    "a trigger that asserts": (trigger("assert false;").format(""), "P0004"),
    "a trigger with an SQLSTATE of its own": (
        trigger("raise exception using errcode = 'ZX042';").format(""),
        "ZX042",
    ),
    "a trigger whose own table is missing": (
        trigger("insert into no_such_table values (1);").format(""),
        "42P01",
    ),
    "a constraint trigger at the end of the transaction": (
        trigger("raise exception 'no';", "after insert", "constraint trigger").format(
            "deferrable initially deferred"
        ),
        "P0001",
    ),
    "an exclusion": (
        """
        alter table public.follow_up_notification_log add column slot int default null,
          add constraint one_each exclude (slot with =);
        insert into public.follow_up_notification_log
          (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key,
           status, slot)
          select users.id, chapters.id, rules.id, now(), 'fcm', 'earlier', 'failed', 1
            from users, chapters, scenario_rules as rules limit 1;
        """  # noqa: S608 - nothing of it comes from elsewhere
        + trigger("new.slot := 1;").format(""),
        "one_each",
    ),
    "a trigger that leaves it out": (
        trigger("return null;").format(""),
        "a trigger of follow_up_notification_log left the row out",
    ),
}


@pytest.mark.parametrize(("make_so", "words"), REFUSALS.values(), ids=REFUSALS)
def test_the_event_is_rejected_and_all_others_are_recorded(
    connection: psycopg.Connection, run: Run, make_so: str, words: str
) -> None:
    connection.execute(make_so.encode())
    report = run()
    (rejected,) = report.rejected
    assert (rejected.position, words in rejected.problem) == (3, True), str(rejected)
    keys = [
        key
        for (key,) in connection.execute(
            "select idempotency_key from public.follow_up_notification_log order by 1"
        )
    ]
    assert [key for key in keys if key != "earlier"] == [f"key-{n}" for n in range(10) if n != 3]
    assert (report.summary["delivered"], report.summary["duplicates"]) == (9, 0)


def test_foreign_keys_that_are_checked_at_the_end_name_the_parent_as_ever(
    connection: psycopg.Connection, database: str, app: sample.App
) -> None:
    for column in ("peer_mentor_id", "chapter_id", "scenario_rule_id"):
        constraint = f"follow_up_notification_log_{column}_fkey"
        late = f"alter constraint {constraint} deferrable initially deferred"
        connection.execute(f"alter table public.follow_up_notification_log {late}".encode())
    chapter = make.stranger()
    events = [make.event(app, 0), make.event(app, 1, chapter_id=chapter)]
    (report,) = record(connection, Tokens(Settings(database_url=database)), [judge(events)])
    assert list(map(str, report.rejected)) == [f"[1] $.chapter_id: there is no such chapter: {chapter}"]


@pytest.mark.parametrize(
    "fault",
    [
        "drop table public.follow_up_notification_log",
        "alter table public.follow_up_notification_log rename status to outcome",
        "alter table public.follow_up_notification_log alter idempotency_key type bytea using ''::bytea",
        "create rule leave_out as on insert to public.follow_up_notification_log"
        " where new.idempotency_key = 'key-3' do instead nothing",
    ],
)
def test_a_fault_of_the_statement_itself_blames_no_event(
    connection: psycopg.Connection, run: Run, fault: str
) -> None:
    connection.execute(fault.encode())
    with pytest.raises((psycopg.errors.ProgrammingError, psycopg.errors.FeatureNotSupported)):
        run()


def test_a_fault_that_every_row_meets_rejects_every_row_once(
    connection: psycopg.Connection, run: Run, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    connection.execute(
        b"""
        create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
        create trigger refuse before insert on public.follow_up_notification_log
          for each row execute function refuse()
        """
    )
    assert [each.position for each in run().rejected] == list(range(10))
