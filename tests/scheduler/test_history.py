"""The reads of schedulers and coordinators: what they return, and that they use the table's indexes."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from tests.scheduler.conftest import START, Record
from worker import history
from worker.demo import sample, sandbox
from worker.events import idempotency_key
from worker.servers.postgres import connect


class TestRecorded:
    def test_tells_the_status_of_the_keys_on_record(
        self, connection: psycopg.Connection, record: Record
    ) -> None:
        keys = {record(status): status for status in ("delivered", "failed", "skipped")}
        record()
        assert history.recorded(connection, [*keys, "unknown"]) == keys

    def test_finds_what_a_window_says(self, connection: psycopg.Connection, app: sample.App) -> None:
        key = idempotency_key(app.users[0], app.rules[0], "2026-W47")
        assert history.recorded(connection, [key]) == {}

    @pytest.mark.parametrize("keys", [[], iter(())], ids=["list", "iterator"])
    def test_no_keys(self, connection: psycopg.Connection, keys: Any) -> None:
        assert history.recorded(connection, keys) == {}

    def test_the_workers_own_role_may_ask(self, connection: psycopg.Connection, record: Record) -> None:
        key = record()
        connection.execute("set role notiflog_worker")
        assert history.recorded(connection, [key]) == {key: "delivered"}


class TestNewest:
    def test_newest_first_of_this_mentor_in_this_chapter(
        self, connection: psycopg.Connection, app: sample.App, record: Record
    ) -> None:
        keys = [record(status, minutes=n) for n, status in enumerate(("delivered", "failed", "skipped"))]
        record(mentor=1)
        record(chapter=1)
        rows = history.newest(connection, app.users[0], app.chapters[0])
        assert [row.idempotency_key for row in rows] == keys[::-1]
        assert rows[0]._replace(log_id=UUID(int=0)) == history.Recorded(
            UUID(int=0), app.rules[0], START + timedelta(minutes=2), "fcm", keys[2], "skipped"
        )

    @pytest.mark.parametrize("apart", [0, 1], ids=["all at one time", "one a minute"])
    def test_pages_neither_repeat_nor_lose_a_row(
        self, connection: psycopg.Connection, app: sample.App, record: Record, apart: int
    ) -> None:
        keys = {record(minutes=n * apart) for n in range(10)}
        seen: list[history.Recorded] = []
        while page := history.newest(
            connection, app.users[0], app.chapters[0], before=seen[-1] if seen else None, limit=4
        ):
            seen += page
            record(minutes=100)  # meanwhile something new
        assert [row.idempotency_key for row in seen if row.idempotency_key in keys] == [
            row.idempotency_key for row in seen
        ]
        assert len(seen) == 10
        assert [(row.delivered_at, row.log_id) for row in seen] == sorted(
            ((row.delivered_at, row.log_id) for row in seen), reverse=True
        )

    def test_ids_may_be_text(self, connection: psycopg.Connection, app: sample.App, record: Record) -> None:
        record()
        assert len(history.newest(connection, str(app.users[0]), str(app.chapters[0]))) == 1


class TestNewestOfChapter:
    def test_newest_first_of_all_mentors_in_this_chapter(
        self, connection: psycopg.Connection, app: sample.App, record: Record
    ) -> None:
        keys = [record(status, minutes=n, mentor=n) for n, status in enumerate(("delivered", "failed"))]
        record(chapter=1)
        rows = history.newest_of_chapter(connection, app.chapters[0])
        assert [row.idempotency_key for row in rows] == keys[::-1]
        assert rows[0]._replace(log_id=UUID(int=0)) == history.RecordedInChapter(
            UUID(int=0), app.users[1], app.rules[0], START + timedelta(minutes=1), "fcm", keys[1], "failed"
        )

    @pytest.mark.parametrize("apart", [0, 1], ids=["all at one time", "one a minute"])
    def test_pages_neither_repeat_nor_lose_a_row(
        self, connection: psycopg.Connection, app: sample.App, record: Record, apart: int
    ) -> None:
        keys = {record(minutes=n * apart, mentor=n) for n in range(10)}
        seen: list[history.RecordedInChapter] = []
        while page := history.newest_of_chapter(
            connection, str(app.chapters[0]), before=seen[-1] if seen else None, limit=4
        ):
            seen += page
            record(minutes=100)  # meanwhile something new
        assert (len(seen), {row.idempotency_key for row in seen}) == (10, keys)
        order = [(row.delivered_at, row.log_id) for row in seen]
        assert order == sorted(order, reverse=True)


class TestLastDeliveries:
    def test_of_pairs_of_mentor_and_rule(
        self, connection: psycopg.Connection, app: sample.App, record: Record
    ) -> None:
        record(minutes=1)
        record(minutes=3, chapter=1)
        record("failed", minutes=5)
        record(minutes=2, rule=1)
        record(minutes=7, mentor=1)
        record("skipped", mentor=2)
        mentors, rules = app.users, app.rules
        pairs = [(mentors[m], rules[r]) for m, r in ((0, 0), (0, 0), (0, 1), (0, 2), (2, 0))]
        assert history.last_deliveries(connection, pairs) == {
            (mentors[0], rules[0]): START + timedelta(minutes=3),
            (mentors[0], rules[1]): START + timedelta(minutes=2),
        }

    @pytest.mark.parametrize(("hours", "found"), [(1, 0), (71, 0), (73, 1), (None, 1)])
    def test_within_a_cooldown(
        self, connection: psycopg.Connection, app: sample.App, record: Record, hours: int | None, found: int
    ) -> None:
        since = datetime.now(UTC) - timedelta(hours=72) - START
        record(minutes=since // timedelta(minutes=1))
        mentor, rule = app.users[0], app.rules[0]
        pairs: list[tuple[UUID | str, UUID | str]] = [(str(mentor), rule), (mentor, str(rule))]  # or text
        within = None if hours is None else timedelta(hours=hours)
        assert len(history.last_deliveries(connection, pairs, within=within)) == found

    @pytest.mark.parametrize("pairs", [[], iter(())], ids=["list", "iterator"])
    def test_of_no_pairs(self, connection: psycopg.Connection, pairs: Any) -> None:
        assert history.last_deliveries(connection, pairs) == {}

    def test_to_a_mentor_by_rule(
        self, connection: psycopg.Connection, app: sample.App, record: Record
    ) -> None:
        record(minutes=1)
        record(minutes=3, chapter=1)
        record("failed", minutes=5)
        record(minutes=2, rule=1)
        record("skipped", rule=2)
        record(minutes=9, mentor=1)
        assert history.last_deliveries_to(connection, app.users[0]) == {
            app.rules[0]: START + timedelta(minutes=3),
            app.rules[1]: START + timedelta(minutes=2),
        }

    def test_of_a_rule_by_mentor(
        self, connection: psycopg.Connection, app: sample.App, record: Record
    ) -> None:
        record(minutes=1)
        record(minutes=2)
        record(minutes=7, mentor=1)
        record("failed", mentor=2)
        record(minutes=9, mentor=1, rule=1)
        assert history.last_deliveries_of(connection, app.rules[0]) == {
            app.users[0]: START + timedelta(minutes=2),
            app.users[1]: START + timedelta(minutes=7),
        }


def test_the_callers_row_factory_does_not_matter(
    connection: psycopg.Connection[Any], app: sample.App, record: Record
) -> None:
    key = record()
    connection.row_factory = dict_row
    assert history.recorded(connection, [key]) == {key: "delivered"}
    assert len(history.newest(connection, app.users[0], app.chapters[0])) == 1
    assert len(history.newest_of_chapter(connection, app.chapters[0])) == 1
    pair = app.users[0], app.rules[0]
    assert history.last_deliveries(connection, [pair]) == {pair: START}
    assert history.last_deliveries_to(connection, app.users[0]) == {app.rules[0]: START}
    assert history.last_deliveries_of(connection, app.rules[0]) == {app.users[0]: START}


@pytest.fixture(scope="module")
def busy(postgres: sandbox.Postgres, app: sample.App) -> Iterator[psycopg.Connection]:
    """A database with 100,000 rows of 500 mentors in 20 chapters by 200 rules."""
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("create database busy template migrated")
    with connect(postgres.url("busy")) as connection:
        for table, rows in (("users", 500), ("chapters", 20), ("scenario_rules", 200)):
            insert = "insert into {} select md5(n::text)::uuid from generate_series(1, %s) n"
            connection.execute(sql.SQL(insert).format(sql.Identifier("public", table)), [rows])
        connection.execute("""
            insert into public.follow_up_notification_log (
              peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key,
              status)
            select md5((1 + n % 500)::text)::uuid, md5((1 + n % 500 % 20)::text)::uuid,
                   md5((1 + n / 500)::text)::uuid, timestamptz '2026-11-16Z' + n * interval '1 second', 'fcm',
                   encode(sha256(n::text::bytea), 'hex'), 'delivered'
              from generate_series(0, 99999) n
        """)
        connection.execute("analyze")
        yield connection
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("drop database busy")


class TestPlans:
    @pytest.mark.parametrize(
        ("query", "parameters", "index"),
        [
            (
                history.RECORDED,
                ["array(select encode(sha256(n::text::bytea), 'hex') from generate_series(1, 500) n)"],
                "follow_up_notification_log_idempotency_key_key",
            ),
            (
                history.NEWEST,
                ["md5('7')", "md5('7')", "null", "null", "50"],
                "follow_up_notification_log_peer_mentor_id_chapter_id_idx",
            ),
            (
                history.NEWEST,
                ["md5('7')", "md5('7')", "'2026-11-16Z'", "md5('1')", "50"],
                "follow_up_notification_log_peer_mentor_id_chapter_id_idx",
            ),
            (
                history.NEWEST_OF_CHAPTER,
                ["md5('7')", "null", "null", "null", "50"],
                "follow_up_notification_log_chapter_id_delivered_at_idx",
            ),
            (
                history.NEWEST_OF_CHAPTER,
                ["md5('7')", "'2026-11-16Z'", "'2026-11-16Z'", "md5('1')", "50"],
                "follow_up_notification_log_chapter_id_delivered_at_idx",
            ),
            (
                history.LAST_DELIVERIES,
                ["array[md5('7')]", "array[md5('7')]", "interval '72 hours'"],
                "follow_up_notification_log_peer_mentor_id_scenario_rule_id_idx",
            ),
            (
                history.DELIVERIES_TO,
                ["md5('7')"],
                "follow_up_notification_log_peer_mentor_id_chapter_id_idx",
            ),
            (history.DELIVERIES_OF, ["md5('7')"], "follow_up_notification_log_scenario_rule_id_idx"),
        ],
        ids=[
            "recorded",
            "newest",
            "newest, a later page",
            "newest of chapter",
            "newest of chapter, a later page",
            "last deliveries",
            "last deliveries to",
            "last deliveries of",
        ],
    )
    def test_use_the_index_made_for_them(
        self, busy: psycopg.Connection, query: str, parameters: list[str], index: str
    ) -> None:
        values = busy.execute("select " + ", ".join(parameters)).fetchone()
        plan = "\n".join(line for (line,) in busy.execute("explain " + query, values))
        assert set(re.findall(r"(?:using|on) (follow_up_notification_log_\w+)", plan)) == {index}
        assert "Seq Scan" not in plan

    def test_the_last_deliveries_of_a_whole_run_are_read_out_of_the_index_alone(
        self, busy: psycopg.Connection
    ) -> None:
        some = "select array_agg(md5(n::text)), array_agg(md5((n / 3)::text)) from generate_series(1, 500) n"
        pairs = busy.execute(some).fetchone() or ()
        lines = [line for (line,) in busy.execute("explain " + history.LAST_DELIVERIES, [*pairs, None])]
        assert [line for line in lines if "Index Only Scan" in line and "scenario_rule_id_idx" in line]
        assert not [line for line in lines if "Seq Scan" in line or "Heap Scan" in line]

    def test_a_run_asks_about_thousands_of_keys_at_once(self, busy: psycopg.Connection) -> None:
        some = "select idempotency_key from public.follow_up_notification_log limit 10000"
        keys = [key for (key,) in busy.execute(some)]
        assert len(history.recorded(busy, [*keys, *map(str, range(10_000))])) == 10_000
