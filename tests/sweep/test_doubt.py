"""What a pass does not take for proof, what it does not stop for, and what it finds in Redis."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from redis import Redis

from tests.scheduler.conftest import Fcm
from tests.sweep.conftest import DEAD, Register, left
from worker import logs
from worker.demo.sample import fcm_error
from worker.record.tokens import Tokens
from worker.servers.settings import Settings
from worker.sweep import passes
from worker.sweep.passes import NoVerdict, State, go_on, load, pages, save

GoOn = Callable[[], Any]

BARE = fcm_error(404, "NOT_FOUND", "Requested entity was not found.")
INTERNAL = fcm_error(500, "INTERNAL", "Internal error.", FcmError={"errorCode": "INTERNAL"})
UNAUTHENTICATED = fcm_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    logs.setup()


@pytest.fixture
def job(connection: psycopg.Connection, config: Settings, redis: Redis, fcm: Fcm) -> GoOn:
    """One run of the periodic job."""
    return lambda: go_on(connection, Tokens(config), redis)


def test_a_bare_404_to_every_token_proves_nothing(
    job: GoOn, register: Register, fcm: Fcm, connection: psycopg.Connection
) -> None:
    tokens = register(40)
    fcm.answers = dict.fromkeys(tokens, BARE)
    counts = job()
    assert (counts["no_verdict_not_found"], counts["dead"], left(connection)) == (40, 0, tokens)


def test_it_does_where_the_project_knows_another_token_of_the_page(
    job: GoOn, register: Register, fcm: Fcm, connection: psycopg.Connection
) -> None:
    tokens = register(40)
    fcm.answers = dict.fromkeys(tokens[:5], BARE)
    assert (job()["pruned"], left(connection)) == (5, tokens[5:])


def test_an_unregistered_token_is_proof_by_itself(
    job: GoOn, register: Register, fcm: Fcm, connection: psycopg.Connection
) -> None:
    tokens = register(3)
    fcm.answers = dict.fromkeys(tokens, DEAD)
    assert (job()["pruned"], left(connection)) == (3, [])


def test_a_token_that_never_gets_a_verdict_is_stepped_over(
    job: GoOn, register: Register, fcm: Fcm, redis: Redis, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    (token,) = register(1)
    fcm.answers = {token: INTERNAL}
    for _ in range(4):
        job()
    told = [line["event"] for line in logged()]
    assert told == ["sweep_paused"] * 3 + ["tokens_swept"]
    assert load(redis).finished_at is not None


def test_an_outage_of_fcm_is_not(job: GoOn, register: Register, fcm: Fcm, redis: Redis) -> None:
    tokens = register(30)
    fcm.answers = dict.fromkeys(tokens, INTERNAL)
    for _ in range(8):
        job()
    assert (load(redis).after, load(redis).finished_at) == ("", None)


@pytest.mark.parametrize("n", [1, 30])
def test_wrong_credentials_are_no_complete_pass_however_often_it_is_tried(
    job: GoOn, register: Register, fcm: Fcm, redis: Redis, n: int
) -> None:
    tokens = register(n)
    fcm.answers = dict.fromkeys(tokens, UNAUTHENTICATED)
    for _ in range(5):
        job()
    assert load(redis).finished_at is None
    fcm.answers = {}
    assert job()["alive"] == n


def test_by_hand_they_are_told(
    connection: psycopg.Connection, config: Settings, redis: Redis, register: Register, fcm: Fcm
) -> None:
    fcm.answers = dict.fromkeys(register(2), UNAUTHENTICATED)
    with pytest.raises(NoVerdict, match="unauthenticated: 2"):
        list(pages(connection, Tokens(config), State(), redis=redis))


@pytest.mark.parametrize(
    "stored",
    [
        b'["a\\u0000b", {}, null, 0]',
        b'["", {}, 1e300, 0]',
        b'["", {}, 99999999999, 0]',
        b'["", {"alive": 1e400}, null, 0]',
        b'["", {"alive": "many"}, null, 0]',
        b'["\\ud800", {}, null, 0]',
        b"[" * 100_000,
        b"\xff\xfe",
        b'["", {}, null]',
    ],
    ids=lambda stored: str(stored[:20]),
)
def test_a_state_that_somebody_forged_starts_over(
    job: GoOn, register: Register, redis: Redis, stored: bytes
) -> None:
    register(2)
    redis.set(passes.STATE_KEY, stored)
    assert job()["alive"] == 2


def test_a_state_of_another_type_starts_over(job: GoOn, register: Register, redis: Redis) -> None:
    register(2)
    redis.rpush(passes.STATE_KEY, "x")
    assert job()["alive"] == 2


def test_a_lock_that_never_ends_ends(job: GoOn, register: Register, redis: Redis) -> None:
    register(1)
    redis.set(passes._LOCK_KEY, "forged")
    assert job() == {}
    assert 0 < redis.ttl(passes._LOCK_KEY) <= 900


def test_what_was_saved_is_found_again(redis: Redis) -> None:
    state = State("tok\u00e9n", Counter({"alive": 3}), None, 2)
    save(redis, state)
    assert load(redis) == state
