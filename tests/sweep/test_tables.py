"""A pass over token tables as apps have them: each token is seen once, what is marked never again."""

from dataclasses import replace
from typing import Any

import psycopg
import pytest
from redis import Redis

from tests.scheduler.conftest import Fcm
from tests.sweep.conftest import DEAD, Register, fcm_token, left
from worker.record.tokens import Tokens
from worker.servers.settings import Settings
from worker.servers.tokens import CHANNELS, Mark, TokenTable
from worker.sweep.passes import State, pages


@pytest.fixture(autouse=True)
def no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


def swept(connection: psycopg.Connection, config: Settings, redis: Redis, **table: Any) -> State:
    """What a whole pass over such a table counts."""
    settings = replace(config, tokens=dict.fromkeys(CHANNELS, TokenTable(**table)))
    *_, last = pages(connection, Tokens(settings), State(), redis=redis)
    return last


@pytest.mark.parametrize("kind", ["text", "varchar(400)", "char(200)", "citext", "push_token"])
def test_every_token_is_asked_about_once_whatever_its_type(
    connection: psycopg.Connection, config: Settings, redis: Redis, fcm: Fcm, register: Register, kind: str
) -> None:
    connection.execute("create extension citext; create domain push_token as varchar(300)")
    connection.execute(f"alter table public.device_tokens alter token type {kind}".encode())
    # In an order of bytes, letters come before or behind each other by their case.
    tokens = [f"{'aBcD'[number % 4]}{fcm_token(number)}" for number in range(230)]
    register(0, *tokens)
    fcm.answers = {tokens[7]: DEAD, tokens[200]: DEAD}
    counts = swept(connection, config, redis).counts
    assert sorted(fcm.sent) == sorted(tokens)
    assert (counts["tokens"], counts["pruned"], len(left(connection))) == (230, 2, 228)


@pytest.mark.parametrize(
    ("column", "mark"),
    [
        ("active boolean default true", Mark("active", "false")),
        ("dead boolean", Mark("dead", "true")),
        ("disabled_at timestamptz", Mark("disabled_at", "now")),
    ],
    ids=lambda value: str(value),
)
def test_what_is_marked_is_not_asked_about_again(
    connection: psycopg.Connection,
    config: Settings,
    redis: Redis,
    fcm: Fcm,
    register: Register,
    column: str,
    mark: Mark,
) -> None:
    connection.execute(f"alter table public.device_tokens add {column}".encode())
    tokens = register(3)
    fcm.answers = {tokens[1]: DEAD}
    first = swept(connection, config, redis, mark=mark).counts
    fcm.sent.clear()
    second = swept(connection, config, redis, mark=mark).counts
    assert (first["pruned"], second["tokens"], sorted(fcm.sent)) == (1, 2, [tokens[0], tokens[2]])
    assert left(connection) == tokens


def test_a_token_set_to_null_is_gone_and_its_row_stays(
    connection: psycopg.Connection, config: Settings, redis: Redis, fcm: Fcm, register: Register
) -> None:
    connection.execute(
        "alter table public.device_tokens drop constraint device_tokens_pkey, alter token drop not null"
    )
    tokens = register(2)
    fcm.answers = {tokens[0]: DEAD}
    swept(connection, config, redis, mark=Mark("token", "null"))
    assert left(connection) == [tokens[1], None]


def test_a_token_that_postgresql_keeps_stops_no_pass(
    connection: psycopg.Connection, config: Settings, redis: Redis, fcm: Fcm, register: Register
) -> None:
    tokens = register(150)
    connection.execute("create table deliveries (token text references public.device_tokens);")
    connection.execute("insert into deliveries values (%s)", [tokens[5]])
    fcm.answers = {tokens[5]: DEAD, tokens[6]: DEAD, tokens[140]: DEAD}
    counts = swept(connection, config, redis).counts
    assert (counts["tokens"], counts["pruned"], counts["refused"]) == (150, 2, 1)
    assert left(connection) == [token for token in tokens if token not in (tokens[6], tokens[140])]
