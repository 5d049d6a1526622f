"""A pass over the token table: what is asked, pruned, kept and counted, and where it goes on."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from google.auth.exceptions import RefreshError
from redis import Redis

from tests.scheduler.conftest import Fcm
from tests.sweep.conftest import APNS_TOKEN, BUSY, DEAD, FID, Register, fcm_token, left
from worker import logs
from worker.demo.sample import fcm_error
from worker.record import brake
from worker.record.tokens import Tokens
from worker.servers.settings import Settings
from worker.servers.tokens import TokenTable
from worker.sweep import passes
from worker.sweep.dryrun import kind
from worker.sweep.passes import NoVerdict, State, alone, finish, go_on, load, pages, save

Logged = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    logs.setup()


@pytest.fixture
def sweep(connection: psycopg.Connection, config: Settings, redis: Redis, fcm: Fcm) -> Callable[..., State]:
    """One whole pass."""

    def run(**options: Any) -> State:
        settings = options.pop("config", config)
        *_, last = pages(connection, Tokens(settings), State(), **{"redis": redis, **options})
        return last

    return run


class TestKind:
    @pytest.mark.parametrize(
        ("token", "expected"),
        [
            (fcm_token(1), "fcm"),
            (APNS_TOKEN, "apns"),
            (APNS_TOKEN.upper() * 2, "apns"),
            (FID, "fid"),
            (FID[:-1], "unknown"),
            (FID.upper(), "unknown"),
            ("https://push.example/send/abc:def", "unknown"),
            ("ExponentPushToken[abc]", "unknown"),
            (f"{fcm_token(1)}\n", "unknown"),
            ("", "unknown"),
        ],
    )
    def test_it_shows_in_the_form(self, token: str, expected: str) -> None:
        assert kind(token) == expected

    def test_only_fcms_own_are_asked_about(self, sweep: Any, register: Register, fcm: Fcm) -> None:
        *tokens, _, _ = register(2, FID, APNS_TOKEN, "another-address")
        counts = sweep().counts
        assert sorted(fcm.sent) == sorted(tokens)
        assert [counts[name] for name in ("tokens", "fcm", "fid", "apns", "unknown")] == [5, 2, 1, 1, 1]

    def test_a_fid_is_asked_about_as_one(self, sweep: Any, register: Register, fcm: Fcm) -> None:
        (token, _) = register(1, FID)
        sweep()
        assert fcm.sent_as == {token: "token", FID: "fid"}


class TestPruning:
    def test_dead_tokens_go_and_live_ones_stay(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection, logged: Logged
    ) -> None:
        tokens = register(250, APNS_TOKEN)
        fcm.answers = {tokens[0]: DEAD, tokens[120]: DEAD, tokens[249]: DEAD}
        counts = sweep().counts
        assert set(tokens) - set(left(connection)) == set(fcm.answers)
        assert (counts["alive"], counts["dead"], counts["pruned"], counts["kept"]) == (247, 3, 3, 0)
        lines = [line for line in logged() if line["event"] == "token_dead"]
        assert [line["reason"] for line in lines] == ["unregistered"] * 3
        assert not any(token in str(logged()) for token in tokens)

    def test_a_fid_that_fcm_does_not_know_goes_like_a_token(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection
    ) -> None:
        tokens = register(3, FID)
        fcm.answers = {FID: DEAD}
        counts = sweep().counts
        assert (counts["pruned"], left(connection)) == (1, tokens[:3])

    def test_nothing_is_sent(self, sweep: Any, register: Register, fcm: Fcm) -> None:
        register(1)
        real, asked = fcm.answer, []

        def answer(request_body: bytes) -> tuple[int, bytes]:
            asked.append(request_body)
            return real(request_body)

        fcm.answer = answer  # type: ignore[method-assign]
        sweep()
        assert b'"validate_only": true' in asked[0]

    def test_a_device_that_registers_during_the_check_keeps_its_token(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection
    ) -> None:
        tokens = register(1)
        fcm.answers = {tokens[0]: DEAD}
        real = fcm.answer

        def answer(request_body: bytes) -> tuple[int, bytes]:
            connection.execute("update public.device_tokens set updated_at = clock_timestamp()")
            return real(request_body)

        fcm.answer = answer  # type: ignore[method-assign]
        counts = sweep().counts
        assert (counts["pruned"], counts["kept"], left(connection)) == (0, 1, tokens)

    def test_a_report_prunes_nothing(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection, redis: Redis
    ) -> None:
        tokens = register(3)
        fcm.answers = {tokens[0]: DEAD}
        counts = sweep(prune=False).counts
        assert (counts["dead"], counts["pruned"], left(connection)) == (1, 0, tokens)
        assert redis.keys() == []

    def test_answers_that_blame_no_token_keep_it(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection
    ) -> None:
        tokens = register(3)
        forbidden = fcm_error(403, "PERMISSION_DENIED", "No.", FcmError={"errorCode": "SENDER_ID_MISMATCH"})
        fcm.answers = dict.fromkeys(tokens, forbidden)
        counts = sweep().counts
        assert (counts["no_verdict"], counts["no_verdict_sender_id_mismatch"]) == (3, 3)
        assert left(connection) == tokens

    def test_without_a_registration_column(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection, database: str
    ) -> None:
        tokens = register(3)
        fcm.answers = {tokens[1]: DEAD}
        undated = Settings(
            database_url=database,
            tokens={"fcm": TokenTable(registered=()), "apns": TokenTable(registered=())},
        )
        counts = sweep(config=undated).counts
        assert (counts["age_unknown"], left(connection)) == (3, [tokens[0], tokens[2]])


class TestBrake:
    def test_a_wrong_project_costs_no_token(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection, logged: Logged
    ) -> None:
        tokens = register(120)
        fcm.answers = dict.fromkeys(tokens, DEAD)
        counts = sweep().counts
        assert (counts["withheld"], counts["pruned"], left(connection)) == (120, 0, tokens)
        assert {line["source"] for line in logged() if line["event"] == "brake_on"} == {"sweep"}

    def test_however_many_sends_were_accepted(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection, redis: Redis
    ) -> None:
        minute = redis.time()[0] // 60
        redis.hset(f"{brake.key('sends')}:minute:{minute}", "fcm:alive", "100000")
        tokens = register(60)
        fcm.answers = dict.fromkeys(tokens, DEAD)
        sweep()
        assert left(connection) == tokens

    def test_who_has_looked_may_release_it(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection
    ) -> None:
        tokens = register(60)
        fcm.answers = dict.fromkeys(tokens, DEAD)
        sweep(redis=None)
        assert left(connection) == []


class TestAges:
    def test_they_are_counted_for_every_kind(self, sweep: Any, register: Register) -> None:
        register(1, days=1)
        register(0, fcm_token(7), APNS_TOKEN, days=31)
        register(0, fcm_token(8), "other", days=271)
        counts = sweep().counts
        assert (counts["older_than_30_days"], counts["older_than_270_days"]) == (4, 2)


class TestGoingOn:
    def test_no_verdict_on_most_of_a_page_stops_before_it(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection
    ) -> None:
        tokens = register(3)
        fcm.answers = {tokens[0]: BUSY, tokens[1]: BUSY, tokens[2]: DEAD}
        with pytest.raises(NoVerdict, match="unavailable: 2, unregistered: 1"):
            sweep()
        assert left(connection) == tokens

    def test_without_an_access_token_there_is_no_verdict(
        self, sweep: Any, register: Register, fcm: Fcm
    ) -> None:
        register(1)
        fcm.account.problem = RefreshError("no")  # type: ignore[no-untyped-call]
        with pytest.raises(NoVerdict, match="no_answer: 1"):
            sweep()

    def test_an_answer_that_nobody_can_read_costs_only_its_own_token(
        self, sweep: Any, register: Register, fcm: Fcm, connection: psycopg.Connection
    ) -> None:
        tokens = register(100)
        fcm.answers = {tokens[33]: (400, {"error": None}), tokens[34]: DEAD}
        counts = sweep().counts
        assert (counts["alive"], counts["no_verdict"], counts["pruned"]) == (98, 1, 1)
        assert left(connection) == tokens[:34] + tokens[35:]

    def test_the_job_takes_some_seconds_and_the_next_goes_on(
        self,
        connection: psycopg.Connection,
        config: Settings,
        redis: Redis,
        register: Register,
        fcm: Fcm,
        monkeypatch: pytest.MonkeyPatch,
        logged: Logged,
    ) -> None:
        tokens = register(250)
        monkeypatch.setattr(passes, "JOB_SECONDS", 0.0)
        asked = []
        for _ in range(4):
            fcm.sent.clear()
            go_on(connection, Tokens(config), redis)
            asked.append(len(fcm.sent))
        assert asked == [100, 100, 50, 0]
        (line,) = [line for line in logged() if line["event"] == "tokens_swept"]
        assert (line["tokens"], line["alive"]) == (250, 250)
        assert left(connection) == tokens

    def test_it_starts_over_after_a_week(
        self, connection: psycopg.Connection, config: Settings, redis: Redis, register: Register, fcm: Fcm
    ) -> None:
        register(1)
        go_on(connection, Tokens(config), redis)
        go_on(connection, Tokens(config), redis)
        assert len(fcm.sent) == 1
        save(redis, load(redis)._replace(finished_at=float(redis.time()[0]) - 8 * 86_400))
        assert go_on(connection, Tokens(config), redis)["tokens"] == 1
        assert len(fcm.sent) == 2

    def test_of_two_at_a_time_one_does_nothing(
        self, connection: psycopg.Connection, config: Settings, redis: Redis, register: Register, fcm: Fcm
    ) -> None:
        register(1)
        with alone(redis):
            assert go_on(connection, Tokens(config), redis) == {}
        assert fcm.sent == []

    def test_a_fault_of_fcm_is_told_and_the_next_job_tries_again(
        self,
        connection: psycopg.Connection,
        config: Settings,
        redis: Redis,
        register: Register,
        fcm: Fcm,
        logged: Logged,
    ) -> None:
        (token,) = register(1)
        fcm.answers = {token: BUSY}
        go_on(connection, Tokens(config), redis)
        assert [line["event"] for line in logged()] == ["sweep_paused"]
        fcm.answers = {}
        assert go_on(connection, Tokens(config), redis)["alive"] == 1

    @pytest.mark.parametrize("junk", ["", "junk", "[]", "7", '["a", 7, null]', '["a", {"b": "c"}, 1]'])
    def test_a_state_that_cannot_be_read_starts_over(self, redis: Redis, junk: str) -> None:
        redis.set(passes.STATE_KEY, junk)
        assert load(redis) == State()

    def test_an_empty_table_is_a_complete_pass(
        self, connection: psycopg.Connection, config: Settings, redis: Redis, fcm: Fcm
    ) -> None:
        assert go_on(connection, Tokens(config), redis) == {}
        assert load(redis).finished_at is not None

    def test_finishing_keeps_the_counts(self, redis: Redis) -> None:
        state = State("a", Counter({"tokens": 3}))
        finish(redis, state)
        assert (load(redis).after, load(redis).counts) == ("", {"tokens": 3})
