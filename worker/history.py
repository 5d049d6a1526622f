"""What schedulers and coordinators ask of `follow_up_notification_log`. Reads only.

Each function is one statement on the caller's psycopg connection, in its transaction if there is one. The
role needs `select` on the table; the worker's own may read only keys and statuses, enough for `recorded`.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple, TypeVar
from uuid import UUID

from .events import Channel
from .extras import extra

with extra("worker", ImportError):
    import psycopg

from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format
from psycopg.rows import RowFactory, class_row, tuple_row

Row = TypeVar("Row")

Status = Literal["delivered", "failed", "skipped"]

#: The statuses of some keys; by the unique key.
RECORDED = """
select idempotency_key, status
  from public.follow_up_notification_log
 where idempotency_key = any(%s::text[])
"""

#: A page of a mentor's outcomes in a chapter, newest first; by (peer_mentor_id, chapter_id).
NEWEST = """
select log_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status
  from public.follow_up_notification_log
 where peer_mentor_id = %s::uuid and chapter_id = %s::uuid
   and (delivered_at, log_id) < (coalesce(%s::timestamptz, 'infinity'), %s::uuid)
 order by delivered_at desc, log_id desc
 limit %s
"""

#: The last delivery of each rule to a mentor; by (peer_mentor_id, chapter_id).
DELIVERIES_TO = """
select scenario_rule_id, max(delivered_at)
  from public.follow_up_notification_log
 where peer_mentor_id = %s::uuid and status = 'delivered'
 group by scenario_rule_id
"""

#: The last delivery of a rule to each mentor; by (scenario_rule_id).
DELIVERIES_OF = """
select peer_mentor_id, max(delivered_at)
  from public.follow_up_notification_log
 where scenario_rule_id = %s::uuid and status = 'delivered'
 group by peer_mentor_id
"""


class Recorded(NamedTuple):
    """One row of the log: what became of one prompt."""

    log_id: UUID
    scenario_rule_id: UUID
    #: When it was sent, or would have been.
    delivered_at: datetime
    delivery_channel: Channel
    idempotency_key: str
    status: Status


def recorded(connection: psycopg.Connection, keys: Iterable[str]) -> dict[str, Status]:
    """Which of these idempotency keys are on record, with their status.

    `keys`: thousands are fine; `worker.events.idempotency_key` makes them. A missing key is not recorded yet:
    its job may still be waiting.
    """
    with _cursor(connection, tuple_row) as cursor:
        return dict(cursor.execute(RECORDED, [list(keys)]).fetchall())


def newest(
    connection: psycopg.Connection,
    peer_mentor_id: UUID | str,
    chapter_id: UUID | str,
    *,
    before: Recorded | None = None,
    limit: int = 50,
) -> list[Recorded]:
    """A mentor's outcomes in a chapter, newest first, a page at a time.

    `before`: the last row of the page before; None for the first page. `limit`: rows a page. Fewer rows than
    that: there are no more. Rows recorded meanwhile neither repeat nor hide others.
    """
    at, log_id = (before.delivered_at, before.log_id) if before else (None, None)
    with _cursor(connection, class_row(Recorded)) as cursor:
        return cursor.execute(NEWEST, [peer_mentor_id, chapter_id, at, log_id, limit]).fetchall()


def last_deliveries_to(connection: psycopg.Connection, peer_mentor_id: UUID | str) -> dict[UUID, datetime]:
    """When each rule last reached this mentor, by scenario rule; rules that never did are missing."""
    with _cursor(connection, tuple_row) as cursor:
        return dict(cursor.execute(DELIVERIES_TO, [peer_mentor_id]).fetchall())


def last_deliveries_of(connection: psycopg.Connection, scenario_rule_id: UUID | str) -> dict[UUID, datetime]:
    """When this rule last reached each mentor, by peer mentor; mentors it never reached are missing.

    Reads all rows of the rule: for the scheduler's run, not for every page view.
    """
    with _cursor(connection, tuple_row) as cursor:
        return dict(cursor.execute(DELIVERIES_OF, [scenario_rule_id]).fetchall())


class _Text(Loader):
    """Text of a server that knows no encoding: what was written as UTF-8."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


def _cursor(connection: psycopg.Connection, row_factory: RowFactory[Row]) -> psycopg.Cursor[Row]:
    """A cursor of the caller's connection that gives the same whatever is set there.

    Binary: psycopg reads times as text in the DateStyle ISO only.
    """
    cursor = connection.cursor(binary=True, row_factory=row_factory)
    if connection.info.encoding == "ascii":  # SQL_ASCII: no encoding is known, and psycopg gives bytes
        cursor.adapters.register_loader("text", _Text)
    return cursor


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("history"))
