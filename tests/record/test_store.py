"""What one job leaves in PostgreSQL: rows, and tokens that are gone or stay."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests import make
from worker.demo import sample
from worker.judge.batch import judge
from worker.judge.classify import stale_tokens
from worker.logs import token_hash
from worker.record import store
from worker.record.account import Report
from worker.record.recording import record
from worker.record.rows import inserting
from worker.record.tokens import Tokens
from worker.servers import postgres
from worker.servers.postgres import connect, is_transient
from worker.servers.settings import Settings
from worker.servers.tokens import CHANNELS, Mark, TokenTable

STRANGER = make.stranger()

Record = Callable[..., Report]


@pytest.fixture
def config(database: str) -> Settings:
    return Settings(database_url=database)


@pytest.fixture
def run(connection: psycopg.Connection, config: Settings) -> Record:
    """Record one job's events."""

    def run(events: Sequence[dict[str, Any]], config: Settings = config) -> Report:
        return record(connection, Tokens(config), [judge(list(events))])[0]

    return run


def with_tokens(config: Settings, **changes: Any) -> Settings:
    """Settings with a token table that differs so from the usual one."""
    return replace(config, tokens=dict.fromkeys(CHANNELS, TokenTable(**changes)))


def rows(connection: psycopg.Connection, columns: str = "idempotency_key, status") -> list[tuple[Any, ...]]:
    query = sql.SQL("select {} from public.follow_up_notification_log order by idempotency_key").format(
        sql.SQL(columns)
    )
    return connection.execute(query).fetchall()


def register(connection: psycopg.Connection, app: sample.App, token: str, at: str | None) -> None:
    connection.execute("alter table public.device_tokens alter updated_at drop not null")
    connection.execute("insert into public.device_tokens values (%s, %s, %s)", [token, app.users[0], at])


def tokens(connection: psycopg.Connection) -> list[str]:
    return [t for (t,) in connection.execute("select token from public.device_tokens order by 1")]


class TestRows:
    def test_a_row_says_all_that_the_event_said(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        run([make.event(app, delivery_channel="apns", results=[make.result(body=None)])])
        (row,) = rows(
            connection,
            "peer_mentor_id, chapter_id, scenario_rule_id, delivered_at at time zone 'UTC', "
            "delivery_channel, idempotency_key, status, log_id is not null, created_at <= now()",
        )
        assert [str(value) for value in row] == [
            *map(str, (app.users[0], app.chapters[0], app.rules[0])),
            "2026-11-16 06:00:00",
            "apns",
            "key-0",
            "delivered",
            "True",
            "True",
        ]

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({}, "delivered"),
            ({"results": [make.unregistered(), make.result()]}, "delivered"),
            ({"results": [make.unregistered()]}, "failed"),
            ({"results": []}, "skipped"),
            ({"results": None, "skipped": "quiet_hours"}, "skipped"),
        ],
        ids=["accepted", "one of two accepted", "none accepted", "nothing sent", "skipped with a reason"],
    )
    def test_status(
        self,
        run: Record,
        connection: psycopg.Connection,
        app: sample.App,
        changes: dict[str, Any],
        status: str,
    ) -> None:
        run([make.event(app, **changes)])
        assert rows(connection) == [("key-0", status)]

    def test_the_channel_is_that_of_the_first_accepted_result(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        apns = make.result("b", body=None, delivery_channel="apns")
        run([make.event(app, results=[make.unregistered("a"), apns, make.result("c")])])
        assert rows(connection, "delivery_channel") == [("apns",)]

    def test_an_event_that_is_not_final_writes_no_row(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        report = run([make.event(app, final=False)])
        assert (rows(connection), report.summary["retrying"]) == ([], 1)

    @pytest.mark.parametrize(
        "at", ["2026-11-16T06:00:00Z", "2026-11-16T11:30:00+05:30", "2026-11-15T22:00:00-08:00"]
    )
    @pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
    def test_the_time_is_the_same_in_every_zone(
        self, run: Record, connection: psycopg.Connection, app: sample.App, at: str, zone: str
    ) -> None:
        connection.execute("select set_config('timezone', %s, false)", [zone])
        run([make.event(app, attempted_at=at)])
        assert rows(connection, "extract(epoch from delivered_at)::bigint") == [(1794808800,)]

    def test_hostile_text_is_stored_as_it_is(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        key = "'); drop table public.users; --\u2028\n\x1b[31m"
        run([make.event(app, idempotency_key=key)])
        assert rows(connection, "idempotency_key") == [(key,)]


class TestDuplicates:
    def test_recording_twice_leaves_one_row(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        events = [make.event(app, number) for number in range(3)]
        run(events)
        assert (run(events).summary["duplicates"], len(rows(connection))) == (3, 3)

    def test_within_a_job_the_first_event_of_a_key_wins(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        report = run([make.event(app, results=[]), make.event(app)])
        assert rows(connection) == [("key-0", "skipped")]
        assert (report.summary["duplicates"], report.summary["conflicting"]) == (1, 1)

    def test_across_jobs_the_first_write_wins_and_the_conflict_is_counted(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        run([make.event(app)])
        report = run([make.event(app, results=[])])
        assert rows(connection) == [("key-0", "delivered")]
        assert (report.summary["duplicates"], report.summary["conflicting"]) == (1, 1)

    def test_the_same_outcome_again_is_no_conflict(self, run: Record, app: sample.App) -> None:
        run([make.event(app)])
        assert run([make.event(app)]).summary["conflicting"] == 0

    def test_of_two_jobs_in_one_transaction_the_first_owns_the_row(
        self, connection: psycopg.Connection, config: Settings, app: sample.App
    ) -> None:
        reports = record(
            connection, Tokens(config), [judge([make.event(app)]), judge([make.event(app, results=[])])]
        )
        assert [(r.summary["delivered"], r.summary["duplicates"]) for r in reports] == [(1, 0), (0, 1)]


class TestRejected:
    @pytest.mark.parametrize(
        ("field", "problem"),
        [
            ("peer_mentor_id", f"[1] $.peer_mentor_id: there is no such user: hash {token_hash(STRANGER)}"),
            ("chapter_id", f"[1] $.chapter_id: there is no such chapter: {STRANGER}"),
            ("scenario_rule_id", f"[1] $.scenario_rule_id: there is no such scenario rule: {STRANGER}"),
        ],
    )
    def test_an_event_without_its_parent_is_named_with_the_parent_and_the_others_are_recorded(
        self, run: Record, connection: psycopg.Connection, app: sample.App, field: str, problem: str
    ) -> None:
        events = [make.event(app, number) for number in range(3)]
        report = run([events[0], events[1] | {field: STRANGER}, events[2]])
        assert [key for key, _ in rows(connection)] == ["key-0", "key-2"]
        assert list(map(str, report.rejected)) == [problem]

    @pytest.mark.parametrize("bad", [1, 10, 200])
    def test_all_good_rows_go_in_however_many_are_bad(
        self, run: Record, connection: psycopg.Connection, app: sample.App, bad: int
    ) -> None:
        events = [make.event(app, number) for number in range(1000)]
        spread = range(0, 1000, 1000 // bad)
        for number in spread:
            events[number] = events[number] | {"chapter_id": make.stranger()}
        report = run(events)
        assert [r.position for r in report.rejected] == list(spread)
        assert len(rows(connection)) == 1000 - bad

    @pytest.mark.parametrize(
        ("events", "rejected", "recorded"),
        [
            (["no chapter", "delivered"], [0], "delivered"),
            (["no chapter", "no rule", "skipped", "delivered"], [0, 1], "skipped"),
            (["no chapter", "no chapter", "delivered"], [0, 1], "delivered"),
            (["no chapter", "delivered", "no chapter"], [0, 2], "delivered"),
            (["delivered", "no chapter"], [], "delivered"),
            (["no chapter", "no rule"], [0, 1], None),
        ],
    )
    def test_a_rejected_event_leaves_its_key_to_the_next_that_has_it(
        self,
        run: Record,
        connection: psycopg.Connection,
        app: sample.App,
        events: list[str],
        rejected: list[int],
        recorded: str | None,
    ) -> None:
        kinds = {
            "delivered": make.event(app),
            "skipped": make.event(app, results=[]),
            "no chapter": make.event(app, chapter_id=make.stranger()),
            "no rule": make.event(app, scenario_rule_id=make.stranger()),
        }
        report = run([kinds[kind] for kind in events])
        assert [line.position for line in report.rejected] == rejected
        assert rows(connection) == ([("key-0", recorded)] if recorded else [])
        assert sum(report.summary[status] for status in ("delivered", "skipped")) == bool(recorded)

    def test_also_to_that_of_another_job_in_one_transaction(
        self, connection: psycopg.Connection, config: Settings, app: sample.App
    ) -> None:
        bad, good = [make.event(app, chapter_id=make.stranger())], [make.event(app)]
        reports = record(connection, Tokens(config), [judge(bad), judge(good)])
        assert ([len(report.rejected) for report in reports], len(rows(connection))) == ([1, 0], 1)

    def test_a_job_of_strangers_only_is_rejected_whole(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        report = run([make.event(app, number, chapter_id=make.stranger()) for number in range(300)])
        assert (len(report.rejected), rows(connection)) == (300, [])

    def test_a_row_that_a_constraint_of_the_app_refuses_is_rejected_by_its_name(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        connection.execute(
            "alter table public.follow_up_notification_log "
            "add constraint no_ones check (idempotency_key <> 'key-1')"
        )
        report = run([make.event(app, number) for number in range(3)])
        assert list(map(str, report.rejected)) == ["[1] $: PostgreSQL refuses the row: no_ones"]
        assert len(rows(connection)) == 2

    def test_a_duplicate_whose_parent_is_gone_is_a_duplicate(self, run: Record, app: sample.App) -> None:
        run([make.event(app)])
        assert run([make.event(app, chapter_id=make.stranger())]).summary["duplicates"] == 1


class TestPruning:
    BEFORE, AFTER = "2026-11-01T00:00:00Z", "2026-11-16T07:00:00Z"

    @pytest.mark.parametrize(
        ("registered", "left", "summary"),
        [
            (BEFORE, [], (1, 0)),
            (AFTER, ["token"], (0, 1)),
            (make.SENT_AT, ["token"], (0, 1)),
            (None, [], (1, 0)),
        ],
        ids=["before the send", "again after the send", "at the very moment", "nobody knows when"],
    )
    def test_a_dead_token_is_deleted_only_if_registered_before_the_send(
        self,
        run: Record,
        connection: psycopg.Connection,
        app: sample.App,
        registered: str | None,
        left: list[str],
        summary: tuple[int, int],
    ) -> None:
        register(connection, app, "token", registered)
        report = run([make.event(app, results=[make.unregistered()])])
        assert tokens(connection) == left
        assert (report.summary["pruned"], report.summary["kept"]) == summary

    def test_apns_timestamp_moves_the_line_back(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        register(connection, app, "token", "2026-11-16T05:00:00Z")  # before the send, after the death
        gone = {"reason": "Unregistered", "timestamp": 1794801600000}  # 2026-11-16T04:00:00Z
        run([make.event(app, delivery_channel="apns", results=[make.result(http_status=410, body=gone)])])
        assert tokens(connection) == ["token"]

    def test_sent_at_of_the_result_counts_rather_than_that_of_the_event(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        register(connection, app, "token", "2026-11-16T05:00:00Z")
        run([make.event(app, results=[make.unregistered(sent_at="2026-11-16T04:00:00Z")])])
        assert tokens(connection) == ["token"]

    @pytest.mark.parametrize("ahead", [timedelta(seconds=5), timedelta(minutes=4), timedelta(days=20_000)])
    @pytest.mark.parametrize("prunes", ["delete", "dead=true"])
    def test_a_send_dated_in_the_future_prunes_nothing_and_is_told(
        self,
        config: Settings,
        run: Record,
        connection: psycopg.Connection,
        app: sample.App,
        logged: Callable[[], list[dict[str, Any]]],
        ahead: timedelta,
        prunes: str,
    ) -> None:
        connection.execute("alter table public.device_tokens add dead boolean")
        register(connection, app, "token", self.BEFORE)
        sent = datetime.now(UTC) + ahead
        event = make.event(app, results=[make.unregistered(sent_at=sent.isoformat())])
        mark = None if prunes == "delete" else Mark("dead", "true")
        report = run([event], with_tokens(config, mark=mark))
        assert connection.execute("select token, dead from public.device_tokens").fetchall() == [
            ("token", None)
        ]
        assert (report.summary["kept"], report.summary["pruned"]) == (1, 0)
        assert [line["tokens"] for line in logged() if line["event"] == "sent_in_the_future"] == [1]

    def test_a_clock_that_is_a_little_ahead_prunes_what_registered_before_now(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        register(connection, app, "token", self.BEFORE)
        register(connection, app, "again", (datetime.now(UTC) + timedelta(seconds=1)).isoformat())
        sent = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
        run(
            [
                make.event(
                    app, results=[make.unregistered(token, sent_at=sent) for token in ("token", "again")]
                )
            ]
        )
        assert tokens(connection) == ["again"]

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (400, {"error": {"status": "INVALID_ARGUMENT", "details": [{"errorCode": "INVALID_ARGUMENT"}]}}),
            (403, {"error": {"details": [{"errorCode": "SENDER_ID_MISMATCH"}]}}),
            (404, "<html>not here</html>"),
            (429, None),
            (500, None),
            (503, None),
            (None, None),
        ],
    )
    def test_an_answer_that_is_no_proof_keeps_the_token(
        self, run: Record, connection: psycopg.Connection, app: sample.App, status: int | None, body: Any
    ) -> None:
        register(connection, app, "token", self.BEFORE)
        run([make.event(app, results=[make.result(http_status=status, body=body)])])
        assert tokens(connection) == ["token"]

    @pytest.mark.parametrize(
        ("token", "target", "kept"),
        [
            pytest.param("cGVlciBtZW50b3IgMTIzNA", "fid", False, id="a FID, sent to as one"),
            pytest.param("cGVlciBtZW50b3IgMTIzNA", "token", True, id="a FID, sent to as a token"),
            pytest.param("token", "live_activity", True, id="a Live Activity's end"),
        ],
    )
    def test_only_the_registration_itself_dies(
        self,
        run: Record,
        connection: psycopg.Connection,
        app: sample.App,
        token: str,
        target: str,
        kept: bool,
    ) -> None:
        register(connection, app, token, self.BEFORE)
        run([make.event(app, results=[make.unregistered(token, target=target)])])
        assert tokens(connection) == ([token] if kept else [])

    @pytest.mark.parametrize(
        "changes", [{"final": False}, {"idempotency_key": "key-9"}], ids=["not final", "duplicate"]
    )
    def test_pruning_does_not_depend_on_a_new_row(
        self, run: Record, connection: psycopg.Connection, app: sample.App, changes: dict[str, Any]
    ) -> None:
        run([make.event(app, 9)])
        register(connection, app, "token", self.BEFORE)
        run([make.event(app, results=[make.unregistered()], **changes)])
        assert tokens(connection) == []

    def test_a_token_accepted_later_in_the_same_job_stays(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        register(connection, app, "token", self.BEFORE)
        later = make.result(sent_at="2026-11-16T06:00:01Z")
        run([make.event(app, 0, results=[make.unregistered()]), make.event(app, 1, results=[later])])
        assert tokens(connection) == ["token"]

    def test_an_acceptance_in_another_case_refutes_the_death_of_an_apns_token(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        register(connection, app, "ab12", self.BEFORE)
        gone = make.result("AB12", http_status=410, body={"reason": "Unregistered"}, delivery_channel="apns")
        later = make.result("ab12", body=None, delivery_channel="apns", sent_at="2026-11-16T06:00:01Z")
        run([make.event(app, 0, results=[gone]), make.event(app, 1, results=[later])])
        assert tokens(connection) == ["ab12"]

    def test_other_tokens_stay(self, run: Record, connection: psycopg.Connection, app: sample.App) -> None:
        for token in ("dead", "alive", "other"):
            register(connection, app, token, self.BEFORE)
        run([make.event(app, results=[make.unregistered("dead"), make.result("alive")])])
        assert tokens(connection) == ["alive", "other"]

    def test_without_a_registration_column_dead_tokens_go_unguarded(
        self, run: Record, connection: psycopg.Connection, app: sample.App, config: Settings
    ) -> None:
        register(connection, app, "token", self.AFTER)
        unguarded = with_tokens(config, registered=())
        assert run([make.event(app, results=[make.unregistered()])], unguarded).summary["pruned"] == 1

    def test_names_of_table_and_columns_come_from_the_settings(
        self, run: Record, connection: psycopg.Connection, config: Settings, app: sample.App
    ) -> None:
        connection.execute("create schema push; create table push.devices (apns text, seen timestamptz)")
        connection.execute("insert into push.devices values ('token', %s)", [self.BEFORE])
        elsewhere = with_tokens(config, table=("push", "devices"), column="apns", registered=("seen",))
        assert run([make.event(app, results=[make.unregistered()])], elsewhere).summary["pruned"] == 1

    def test_rows_and_tokens_share_one_transaction(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        register(connection, app, "token", self.BEFORE)
        connection.execute(
            """
            create table seen (at xid8);
            create function note() returns trigger language plpgsql as $$
              begin insert into public.seen values (pg_current_xact_id()); return null; end $$;
            create trigger row_there after insert on public.follow_up_notification_log
              execute function note();
            create trigger token_gone after delete on public.device_tokens execute function note()
            """
        )
        run([make.event(app, results=[make.unregistered()])])
        assert connection.execute("select count(*), count(distinct at) from seen").fetchone() == (2, 1)


class TestConcurrency:
    def test_two_writers_of_the_same_keys_and_tokens_in_opposite_order_do_not_deadlock(
        self, connection: psycopg.Connection, database: str, config: Settings, app: sample.App
    ) -> None:
        events = [make.event(app, n, results=[make.unregistered(f"token-{n}")]) for n in range(1500)]
        for number in range(0, 1500, 3):
            register(connection, app, f"token-{number}", TestPruning.BEFORE)
        barrier = threading.Barrier(2)
        written: list[store.Recorded] = []
        errors: list[psycopg.Error] = []

        def write(batch: list[dict[str, Any]]) -> None:
            outcomes = [outcome for _, outcome in judge(batch).outcomes]
            stale = stale_tokens(outcomes)
            with connect(database) as mine:
                barrier.wait()
                try:
                    written.append(store.write(mine, Tokens(config), outcomes, stale))
                except psycopg.Error as error:
                    errors.append(error)

        threads = [threading.Thread(target=write, args=[batch]) for batch in (events, events[::-1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert sum(len(recorded.inserted) for recorded in written) == len(rows(connection)) == 1500
        assert tokens(connection) == []

    def test_a_rule_deleted_before_the_commit_rejects_its_events_only(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        connection.execute("delete from public.scenario_rules where id = %b", [app.rules[1]])
        report = run([make.event(app, 0), make.event(app, 1, scenario_rule_id=str(app.rules[1]))])
        assert ([r.position for r in report.rejected], rows(connection)) == ([1], [("key-0", "delivered")])


class TestTransaction:
    def test_settings_do_not_outlive_it(
        self, run: Record, connection: psycopg.Connection, app: sample.App
    ) -> None:
        run([make.event(app)])
        assert connection.execute("show lock_timeout").fetchone() == ("0",)

    def test_a_held_key_keeps_its_event_waiting_rather_than_the_job_for_ever(
        self,
        run: Record,
        connection: psycopg.Connection,
        database: str,
        app: sample.App,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(postgres, "_LIMITS", "select set_config('lock_timeout', '100ms', true)")
        ((_, held),) = judge([make.event(app)]).outcomes
        with connect(database) as other, other.transaction():
            other.execute(*inserting([held]))
            report = run([make.event(app), make.event(app, 1)])
        assert (report.summary["waiting"], report.summary["delivered"], report.waiting) == (1, 1, True)
        assert run([make.event(app)]).summary["duplicates"] == 1

    def test_a_locked_table_is_a_passing_fault_of_all(
        self,
        run: Record,
        connection: psycopg.Connection,
        database: str,
        app: sample.App,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(postgres, "_LIMITS", "select set_config('lock_timeout', '100ms', true)")
        with psycopg.connect(database) as holder:
            holder.execute("lock table public.follow_up_notification_log")
            with pytest.raises(psycopg.errors.LockNotAvailable) as caught:
                run([make.event(app, number) for number in range(100)])
        assert is_transient(caught.value)

    def test_however_many_rows_are_locked_the_turn_does_not_wait_for_each(
        self, run: Record, connection: psycopg.Connection, database: str, app: sample.App
    ) -> None:
        events = [make.event(app, number) for number in range(200)]
        with psycopg.connect(database) as holder:
            holder.execute("select from public.users for update")
            started = time.monotonic()
            assert run(events).summary["waiting"] == 200
        assert (
            time.monotonic() - started < 60
        )  # three seconds for each of twenty users, if each was waited for
        assert run(events).summary["delivered"] == 200


def test_what_fails_behind_the_commit_closes_the_connection(
    run: Record, connection: psycopg.Connection, app: sample.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    run([make.event(app)])
    monkeypatch.setattr(store, "SELECT_STATUSES", "select pg_sleep(1) from no_such_table where %b is null")
    with pytest.raises(psycopg.errors.UndefinedTable):
        run([make.event(app), make.event(app, 1)])
    assert connection.closed  # so the next try counts its own rows
