"""However many death notices come, a minute prunes no more than a share of the table."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from redis import Redis

from tests import make
from worker.demo import sample
from worker.judge.batch import judge
from worker.record import tokens
from worker.record.recording import record_patiently
from worker.record.tokens import Tokens
from worker.servers.postgres import connect
from worker.servers.settings import Settings

Report = dict[str, Any]


@pytest.fixture
def send(
    connection: psycopg.Connection,
    database: str,
    app: sample.App,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Report]:
    """Record a job with dead tokens of a table of a thousand, of which a fiftieth may go a minute."""
    monkeypatch.setattr(tokens, "LEAST_LIMIT", 5)
    connection.execute(
        "insert into public.device_tokens"
        " select 'token-' || n, %s, '2026-11-01Z' from generate_series(1, 1000) as n",
        [app.users[0]],
    )
    connection.execute("analyze public.device_tokens")
    own = Tokens(replace(Settings(database_url=database), prune_limit=0.02))

    def send(first: int, last: int, tokens: Tokens = own, **changes: Any) -> Report:
        results = [make.unregistered(f"token-{n}") for n in range(first, last + 1)]
        alive = [make.result(f"alive-{n}") for n in range(2 * len(results))]  # so that no brake is on
        event = make.event(app, first, results=[*results, *alive], **changes)
        reports = record_patiently(lambda: connect(database), tokens, [judge([event])], redis, [0.0])
        assert reports
        return reports[0].summary

    return send


def test_a_minute_prunes_its_share_and_says_so(send: Any, logged: Callable[[], list[dict[str, Any]]]) -> None:
    summary = send(1, 30)
    assert (summary["pruned"], summary["withheld"]) == (20, 10)
    (line,) = [line for line in logged() if line["event"] == "prune_limited"]
    assert (line["level"], line["channel"], line["tokens"], line["limit"]) == ("error", "fcm", 10, 20)


def test_turns_of_a_minute_share_the_limit(send: Any) -> None:
    summaries = [send(1, 15), send(16, 30), send(31, 45)]
    assert [(each["pruned"], each["withheld"]) for each in summaries] in (
        [(15, 0), (5, 10), (0, 15)],
        [(15, 0), (15, 0), (5, 10)],  # a new minute began
        [(15, 0), (5, 10), (15, 0)],
    )


def test_forged_notices_cannot_empty_the_table_at_once(
    send: Any, connection: psycopg.Connection, redis: Redis
) -> None:
    for start in range(1, 901, 100):
        send(start, start + 99, attempted_at="2026-11-25T00:00:00Z")
    (left,) = connection.execute("select count(*) from public.device_tokens").fetchone() or (0,)
    assert left >= 1000 - 2 * 20


def test_without_statistics_the_least_limit_holds(
    send: Any, connection: psycopg.Connection, database: str, app: sample.App
) -> None:
    connection.execute("truncate public.device_tokens")
    connection.execute(
        "insert into public.device_tokens select 'token-' || n, %s from generate_series(1, 9) as n",
        [app.users[0]],
    )
    summary = send(1, 9)
    assert (summary["pruned"] + summary["kept"], summary["withheld"]) == (5, 4)


def test_a_hundred_percent_is_no_limit(
    connection: psycopg.Connection, database: str, app: sample.App, redis: Redis, send: Any
) -> None:
    free = Tokens(replace(Settings(database_url=database), prune_limit=1.0))
    summary = send(1, 900, tokens=free)
    assert (summary["pruned"], summary["withheld"]) == (900, 0)
