"""A log with outcomes of many ages."""

# ruff: noqa: S608 - the statement is put together from a constant of this file

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from worker.demo import sample

LOG = "public.follow_up_notification_log"

#: Record so many outcomes that were sent and recorded so many days ago, by chapters in turn.
Record = Callable[..., None]


@pytest.fixture
def record(connection: psycopg.Connection, app: sample.App) -> Record:
    def insert(
        prefix: str, rows: int, *, sent: float, recorded: float | None = None, chapters: int = 3
    ) -> None:
        connection.execute(
            f"""
            insert into {LOG} (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel,
                               idempotency_key, status, created_at)
            select %s, (%s::uuid[])[1 + n %% %s], %s, now() - %s * interval '1 day' - n * interval '1 second',
                   'fcm', %s || n, 'delivered', now() - %s * interval '1 day'
              from generate_series(1, %s) as n
            """.encode(),
            [
                app.users[0],
                app.chapters,
                chapters,
                app.rules[0],
                sent,
                prefix,
                sent if recorded is None else recorded,
                rows,
            ],
        )

    return insert


def keys(connection: psycopg.Connection) -> list[Any]:
    rows = connection.execute("select idempotency_key from public.follow_up_notification_log order by 1")
    return [key for (key,) in rows.fetchall()]
