"""Of any number of schedulers one sends a prompt: reserving, giving back, and what was never reported."""

import logging
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row

from tests.scheduler.conftest import Record
from worker import history, logs
from worker.demo import sample
from worker.record import reservations
from worker.servers import postgres

KEYS = {"a", "b", "c"}
NO_TIME = timedelta(microseconds=1)
LONG = timedelta(hours=1)


@pytest.fixture
def other(database: str) -> Iterator[psycopg.Connection]:
    """Another scheduler."""
    with postgres.connect(database) as connection:
        yield connection


def keys_outstanding(connection: psycopg.Connection) -> list[str]:
    return [prompt.idempotency_key for prompt in history.outstanding(connection, timedelta(0))]


class TestReserve:
    def test_gives_what_is_neither_recorded_nor_held(
        self, connection: psycopg.Connection, other: psycopg.Connection, record: Record
    ) -> None:
        sent = {record(status) for status in ("delivered", "failed", "skipped")}
        assert history.reserve(connection, ["a", "b", *sent]) == {"a", "b"}
        assert history.reserve(other, ["b", "c", *sent]) == {"c"}

    def test_the_same_caller_gets_a_key_once(self, connection: psycopg.Connection) -> None:
        assert history.reserve(connection, ["a", "a"]) == {"a"}
        assert history.reserve(connection, ["a"]) == set()

    @pytest.mark.parametrize("keys", [[], iter(())], ids=["list", "iterator"])
    def test_no_keys(self, connection: psycopg.Connection, keys: Any) -> None:
        assert history.reserve(connection, keys) == set()

    def test_a_hold_that_ran_out_is_free_again(
        self, connection: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        history.reserve(connection, KEYS, NO_TIME)
        assert history.reserve(other, KEYS, LONG) == KEYS
        assert history.reserve(connection, KEYS) == set()

    def test_holds_for_15_minutes(self, connection: psycopg.Connection) -> None:
        history.reserve(connection, ["a"])
        (prompt,) = history.outstanding(connection, timedelta(0))
        assert (
            timedelta(0)
            <= prompt.held_until - prompt.reserved_at - timedelta(minutes=15)
            < timedelta(seconds=1)
        )

    def test_says_that_the_push_may_have_gone_out(
        self, connection: psycopg.Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        history.reserve(connection, KEYS, NO_TIME)
        assert caplog.messages == []
        history.reserve(connection, [*KEYS, "d"], LONG)
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("worker.history", logging.WARNING)
        assert "prompts reserved again: 3" in record.message
        assert "may have gone out" in record.message
        assert sorted(re.findall(r"\b[0-9a-f]{12}\b", record.message)) == sorted(map(logs.token_hash, KEYS))

    def test_says_it_where_sql_callers_look_too(self, connection: psycopg.Connection) -> None:
        """PostgreSQL's log gets the warning, whoever calls."""
        heard: list[tuple[str | None, str | None]] = []
        connection.add_notice_handler(lambda notice: heard.append((notice.severity, notice.sqlstate)))
        for _ in range(2):
            connection.execute("select public.reserve_follow_up_notifications('{a}', '1 microsecond')")
        assert heard == [("WARNING", "01N01")]

    def test_says_it_to_those_who_want_to_hear_errors_only(
        self, connection: psycopg.Connection, caplog: pytest.LogCaptureFixture
    ) -> None:
        connection.execute("set client_min_messages = error")
        history.reserve(connection, KEYS, NO_TIME)
        history.reserve(connection, KEYS, LONG)
        assert len(caplog.records) == 1

    def test_in_a_transaction_nothing_is_held_before_its_end(
        self, connection: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        with connection.transaction(force_rollback=True):
            assert history.reserve(connection, KEYS) == KEYS
        assert history.reserve(other, KEYS) == KEYS

    def test_commits_by_itself_where_no_transaction_is_open(
        self, database: str, other: psycopg.Connection
    ) -> None:
        with psycopg.connect(database) as scheduler:  # psycopg's default: not in autocommit mode
            assert history.reserve(scheduler, KEYS) == KEYS
            assert history.reserve(other, KEYS) == set()

    def test_the_callers_row_factory_does_not_matter(self, connection: psycopg.Connection[Any]) -> None:
        connection.row_factory = dict_row
        assert history.reserve(connection, KEYS) == KEYS
        assert history.release(connection, KEYS) == KEYS

    @pytest.mark.parametrize(
        ("keys", "hold", "words"),
        [
            ([""], LONG, "1 to 255 characters"),
            (["k" * 256], LONG, "1 to 255 characters"),
            ([None], LONG, "1 to 255 characters"),
            (["a"], timedelta(0), "hold must be longer"),
            (["a"], timedelta(seconds=-1), "hold must be longer"),
            (["a"], None, "hold must be longer"),
            (["a"], timedelta(days=31), "at most 30 days"),
            (["a"], timedelta.max, "at most 30 days"),
        ],
    )
    def test_what_cannot_be_is_refused_with_the_remedy(
        self, connection: psycopg.Connection, keys: Any, hold: Any, words: str
    ) -> None:
        with pytest.raises(errors.InvalidParameterValue, match=words) as refused:
            history.reserve(connection, [*KEYS, *keys], hold)
        assert (refused.value.diag.message_hint or "").startswith("Pass ")
        assert keys_outstanding(connection) == []

    def test_a_key_alone_is_no_list_of_keys(self, connection: psycopg.Connection) -> None:
        for function in (history.reserve, history.release):
            with pytest.raises(TypeError, match=r"pass \[key\]"):
                function(connection, "abc")

    @pytest.mark.parametrize("level", ["repeatable read", "serializable"])
    def test_a_stricter_default_does_not_matter(self, connection: psycopg.Connection, level: str) -> None:
        connection.execute(f"set default_transaction_isolation = '{level}'".encode())
        assert history.reserve(connection, KEYS) == KEYS

    @pytest.mark.parametrize("level", ["repeatable read", "serializable"])
    def test_a_transaction_that_would_read_the_log_of_earlier_is_refused(
        self, connection: psycopg.Connection, level: str
    ) -> None:
        with connection.transaction():
            connection.execute(f"set transaction isolation level {level}".encode())
            with pytest.raises(errors.FeatureNotSupported, match="read committed"):
                history.reserve(connection, KEYS)
        connection.execute("select 1")

    def test_rows_that_are_hidden_from_the_owner_are_an_error_and_not_free_keys(
        self, connection: psycopg.Connection, record: Record
    ) -> None:
        key = record()
        connection.execute(
            "create role owner_bound_by_policies;"
            "grant create on schema public, notiflog to owner_bound_by_policies;"
            "alter table public.follow_up_notification_log owner to owner_bound_by_policies;"
            "alter table notiflog.reservations owner to owner_bound_by_policies;"
            "alter function public.reserve_follow_up_notifications owner to owner_bound_by_policies;"
            "grant usage on schema notiflog to owner_bound_by_policies"
        )
        try:
            assert history.reserve(connection, [key, "a"]) == {"a"}
            connection.execute(
                "alter table public.follow_up_notification_log"
                " enable row level security, force row level security"
            )
            with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
                history.reserve(connection, [key, "b"])
        finally:
            connection.execute(
                "reassign owned by owner_bound_by_policies to current_user;"
                "drop owned by owner_bound_by_policies; drop role owner_bound_by_policies"
            )


class TestAtOnce:
    def test_exactly_one_of_many_gets_a_key_in_any_order(self, database: str) -> None:
        """Twelve schedulers, 30 rounds of overlapping keys, each in an order of its own."""
        schedulers, rounds = 12, 30
        barrier = threading.Barrier(schedulers)

        def run(number: int) -> list[set[str]]:
            order = random.Random(number)  # noqa: S311 - no secret
            got = []
            with postgres.connect(database) as connection:
                for turn in range(rounds):
                    keys = [f"{turn}-{n}" for n in range(200)]
                    order.shuffle(keys)
                    barrier.wait(30)
                    got.append(history.reserve(connection, keys))
            return got

        with ThreadPoolExecutor(schedulers) as pool:
            taken = Counter(key for got in pool.map(run, range(schedulers)) for keys in got for key in keys)
        assert len(taken) == rounds * 200
        assert set(taken.values()) == {1}

    def test_reserving_releasing_and_tidying_never_deadlock(
        self, database: str, connection: psycopg.Connection, record: Record
    ) -> None:
        """PostgreSQL ends one of two that wait for each other: then a call would raise."""
        keys = [f"key-{n}" for n in range(300)]
        history.reserve(connection, keys[:10])

        def run(number: int) -> int:
            order = random.Random(number)  # noqa: S311 - no secret
            calls = 0
            with postgres.connect(database) as connection:
                for _ in range(25):
                    mine = order.sample(keys, 250)
                    got = history.reserve(connection, mine, NO_TIME if number % 2 else LONG)
                    history.release(connection, order.sample(sorted(got), len(got)))
                    calls += 1
            return calls

        def tidy() -> int:
            deleted = 0
            with postgres.connect(database) as other:
                for key in keys[:100]:
                    record(key=key)
                    deleted += reservations.tidy(other)
            return deleted

        with ThreadPoolExecutor(9) as pool:
            tidied = pool.submit(tidy)
            assert sum(pool.map(run, range(8))) == 8 * 25
            assert tidied.result(60) >= 10

    def test_waits_for_a_transaction_that_may_still_give_the_key_up(
        self, connection: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        with ThreadPoolExecutor(1) as pool:
            with connection.transaction(force_rollback=True):
                history.reserve(connection, ["b"])
                waiting = pool.submit(history.reserve, other, ["a", "b"])
                wait_until_blocked(connection, other)
            assert waiting.result(10) == {"a", "b"}

    def test_what_was_recorded_and_tidied_away_while_waiting_is_not_given(
        self, database: str, connection: psycopg.Connection, other: psycopg.Connection, record: Record
    ) -> None:
        """The statement that waits still sees the log of before."""
        with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
            blocker = stack.enter_context(postgres.connect(database))
            with blocker.transaction(force_rollback=True):
                history.reserve(blocker, ["a"])
                waiting = pool.submit(history.reserve, other, ["a", "b"])
                wait_until_blocked(connection, other)
                record(key="b")  # sent by somebody else, recorded, and its reservation deleted
            assert waiting.result(10) == {"a"}

    def test_ten_thousand_keys_are_one_call(self, connection: psycopg.Connection) -> None:
        keys = {f"key-{n}" for n in range(10_000)}
        assert history.reserve(connection, keys) == keys
        assert history.reserve(connection, keys) == set()
        assert history.release(connection, keys) == keys


def wait_until_blocked(connection: psycopg.Connection, blocked: psycopg.Connection) -> None:
    waits = "select 1 from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    for _ in range(2_000):
        with psycopg.connect(connection.info.dsn, autocommit=True) as observer:
            if observer.execute(waits, [blocked.info.backend_pid]).fetchone():
                return
    pytest.fail("nobody waits")


class TestRelease:
    def test_what_was_given_back_is_free(
        self, connection: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        history.reserve(connection, KEYS)
        assert history.release(connection, ["a", "b", "never reserved"]) == {"a", "b"}
        assert history.reserve(other, KEYS) == {"a", "b"}
        assert keys_outstanding(connection) == ["c", "a", "b"]

    @pytest.mark.parametrize("keys", [[], iter(())], ids=["list", "iterator"])
    def test_no_keys(self, connection: psycopg.Connection, keys: Any) -> None:
        assert history.release(connection, keys) == set()

    def test_a_hold_that_ran_out_may_be_given_back(self, connection: psycopg.Connection) -> None:
        history.reserve(connection, KEYS, NO_TIME)
        assert history.release(connection, KEYS) == KEYS
        assert keys_outstanding(connection) == []

    def test_who_comes_late_takes_nothing_from_the_next_holder(
        self, connection: psycopg.Connection, other: psycopg.Connection
    ) -> None:
        history.reserve(connection, ["a"], NO_TIME)  # and then it slept
        history.reserve(other, ["a"], LONG)
        assert history.release(connection, ["a"]) == set()
        assert history.reserve(connection, ["a"]) == set()


class TestOutstanding:
    def test_is_what_was_reserved_and_is_not_recorded(
        self, connection: psycopg.Connection, record: Record
    ) -> None:
        history.reserve(connection, KEYS)
        record(key="b")
        assert keys_outstanding(connection) == ["a", "c"]

    def test_tells_since_when_and_for_how_long(self, connection: psycopg.Connection) -> None:
        before = datetime.now(UTC)
        history.reserve(connection, ["a"], timedelta(hours=2))
        (prompt,) = history.outstanding(connection, timedelta(0))
        assert before <= prompt.reserved_at <= datetime.now(UTC)
        assert prompt.held_until - prompt.reserved_at >= timedelta(hours=2)
        assert prompt.holds == 1

    def test_a_young_one_is_not_missed_yet(self, connection: psycopg.Connection) -> None:
        history.reserve(connection, KEYS)
        assert history.outstanding(connection, timedelta(minutes=5)) == []
        assert history.outstanding(connection) == []

    def test_reserving_again_makes_it_no_younger(self, connection: psycopg.Connection) -> None:
        """A scheduler that dies every time would else never be noticed."""
        history.reserve(connection, ["a"], NO_TIME)
        (first,) = history.outstanding(connection, timedelta(0))
        history.reserve(connection, ["a"], NO_TIME)
        (again,) = history.outstanding(connection, timedelta(0))
        assert (again.reserved_at, again.holds) == (first.reserved_at, 2)

    def test_the_oldest_comes_first(self, connection: psycopg.Connection) -> None:
        for key in ("c", "a", "b"):
            history.reserve(connection, [key])
        assert keys_outstanding(connection) == ["c", "a", "b"]


Call = Callable[[psycopg.Connection], object]


class TestRoles:
    @pytest.mark.parametrize("role", ["notiflog_worker", "notiflog_reader"])
    @pytest.mark.parametrize("call", [history.reserve, history.release], ids=["reserve", "release"])
    def test_who_only_reads_or_records_cannot_reserve(
        self, connection: psycopg.Connection, role: str, call: Callable[..., set[str]]
    ) -> None:
        connection.execute(f"set role {role}".encode())
        with pytest.raises(errors.InsufficientPrivilege):
            call(connection, KEYS)

    def test_a_reader_needs_no_more_than_its_role(
        self, connection: psycopg.Connection, app: sample.App, record: Record
    ) -> None:
        key = record()
        history.reserve(connection, KEYS)
        connection.execute("set role notiflog_reader")
        assert history.recorded(connection, [key]) == {key: "delivered"}
        assert len(history.newest(connection, app.users[0], app.chapters[0])) == 1
        assert len(history.newest_of_chapter(connection, app.chapters[0])) == 1
        assert len(history.last_deliveries(connection, [(app.users[0], app.rules[0])])) == 1
        assert len(history.last_deliveries_to(connection, app.users[0])) == 1
        assert len(history.last_deliveries_of(connection, app.rules[0])) == 1
        assert len(history.outstanding(connection, timedelta(0))) == 3

    def test_a_scheduler_needs_nothing_but_execute(self, connection: psycopg.Connection) -> None:
        connection.execute(
            "create role some_scheduler;"
            "grant execute on function public.reserve_follow_up_notifications to some_scheduler;"
            "grant execute on function public.release_follow_up_notifications to some_scheduler"
        )
        try:
            connection.execute("set role some_scheduler")
            assert history.reserve(connection, KEYS) == KEYS
            assert history.release(connection, KEYS) == KEYS
        finally:
            connection.execute("reset role; drop owned by some_scheduler; drop role some_scheduler")
