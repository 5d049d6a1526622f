"""What schedulers and coordinators ask of `follow_up_notification_log`, and how a prompt is reserved.

Each function is one statement on the caller's psycopg connection, in its transaction if there is one. Reading
takes a member of `notiflog_reader`; the worker's own role may read keys and statuses, enough for `recorded`.
Reserving takes `execute` on the two functions that the migrations make.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, TypeVar
from uuid import UUID

from .events import Channel
from .extras import extra

with extra("worker", ImportError):
    import psycopg

from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import RowFactory, class_row, tuple_row

Row = TypeVar("Row")

logger = logging.getLogger(__name__)

#: How long a reservation holds: longer than a scheduler's run takes from reserving to having enqueued.
HOLD = timedelta(minutes=15)
#: A prompt that was reserved this long ago and is not recorded is worth a look.
LONG = timedelta(hours=1)

Status = Literal["delivered", "failed", "skipped"]

#: The statuses of some keys; by the unique key.
RECORDED = """
select idempotency_key, status
  from public.follow_up_notification_log
 where idempotency_key = any(%s::text[])
"""

#: A page of a mentor's outcomes in a chapter, newest first; by (peer_mentor_id, chapter_id). Materialized:
#: the chapter's index has the order, but of a mentor who is seldom there it would be read to its end.
NEWEST = """
with theirs as materialized (
  select log_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status
    from public.follow_up_notification_log
   where peer_mentor_id = %s::uuid and chapter_id = %s::uuid
)
select * from theirs
 where (delivered_at, log_id) < (coalesce(%s::timestamptz, 'infinity'), %s::uuid)
 order by delivered_at desc, log_id desc
 limit %s
"""

#: A page of a chapter's outcomes, newest first; by (chapter_id, delivered_at desc).
NEWEST_OF_CHAPTER = """
select log_id, peer_mentor_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status
  from public.follow_up_notification_log
 where chapter_id = %s::uuid
   and delivered_at <= coalesce(%s::timestamptz, 'infinity')
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


#: The last delivery of some rules to some mentors; by (peer_mentor_id, scenario_rule_id, delivered_at) alone.
LAST_DELIVERIES = """
select pair.mentor, pair.rule, last.delivered_at
  from unnest(%s::uuid[], %s::uuid[]) as pair (mentor, rule)
 cross join lateral (
   select delivered_at
     from public.follow_up_notification_log
    where peer_mentor_id = pair.mentor and scenario_rule_id = pair.rule and status = 'delivered'
      and delivered_at >= coalesce(now() - %s::interval, '-infinity')
    order by delivered_at desc
    limit 1
 ) as last
"""

#: Take the keys that are neither recorded nor held; see migrations/ for what it does.
RESERVE = "select * from public.reserve_follow_up_notifications(%s::text[], %s::interval)"

#: Give keys back that were reserved and not sent.
RELEASE = "select * from public.release_follow_up_notifications(%s::text[])"

#: Reserved some time ago and not recorded, the oldest first.
OUTSTANDING = """
select idempotency_key, reserved_at, held_until, holds
  from notiflog.reservations as reservation
 where reserved_at <= now() - %s::interval
   and not exists (
     select from public.follow_up_notification_log as log
      where log.idempotency_key = reservation.idempotency_key)
 order by reserved_at, idempotency_key
"""

# The SQLSTATE of the warning that reserving gives when earlier holds had run out.
_RESERVED_AGAIN = "01N01"


class Recorded(NamedTuple):
    """One row of the log: what became of one prompt."""

    log_id: UUID
    scenario_rule_id: UUID
    #: When it was sent, or would have been.
    delivered_at: datetime
    delivery_channel: Channel
    idempotency_key: str
    status: Status


class RecordedInChapter(NamedTuple):
    """One row of a chapter's log: what became of one prompt, and to whom it went."""

    log_id: UUID
    peer_mentor_id: UUID
    scenario_rule_id: UUID
    #: When it was sent, or would have been.
    delivered_at: datetime
    delivery_channel: Channel
    idempotency_key: str
    status: Status


class Outstanding(NamedTuple):
    """A prompt that was reserved and is not recorded."""

    idempotency_key: str
    #: When it was first reserved.
    reserved_at: datetime
    #: From then on it may be reserved again.
    held_until: datetime
    #: How often it was reserved; above 1, an earlier hold ran out without an outcome.
    holds: int


def reserve(connection: psycopg.Connection, keys: Iterable[str], hold: timedelta = HOLD) -> set[str]:
    """Reserve prompts before sending them; returns the keys that this caller may send now.

    A key is free when it is not recorded and nobody holds it. Of any number of callers at once exactly one
    gets it, and the others not before `hold` is over: send and enqueue within it, and `release` what you do
    not send. A hold that ran out without an outcome is no obstacle, but the push may have gone out: that is
    logged as a warning, with the first 12 hex digits of the keys' SHA-256, and `Outstanding.holds` tells.

    In a transaction of yours the keys are yours once it is committed: commit before you send. `keys`:
    thousands are fine, in any order; `hold`: up to 30 days. Raises psycopg.Error: FeatureNotSupported in a
    transaction of yours that is stricter than read committed, InvalidParameterValue for a key that no event
    could have, or a hold of no length.
    """
    ours = connection.info.transaction_status is TransactionStatus.IDLE
    with connection.transaction(), _warned(connection), _cursor(connection, tuple_row) as cursor:
        if ours:  # whatever the default of server, role or connection
            cursor.execute("set transaction isolation level read committed")
        return {key for (key,) in cursor.execute(RESERVE, [_listed(keys), hold]).fetchall()}


def release(connection: psycopg.Connection, keys: Iterable[str]) -> set[str]:
    """Give back reserved prompts that were not sent; returns the keys that are free now.

    Keys that nobody reserved are passed over. Only give back what you hold: of a key that was reserved again
    after its hold had run out nobody can tell whose it is, so it stays held until that hold is over.
    """
    with connection.transaction(), _cursor(connection, tuple_row) as cursor:
        return {key for (key,) in cursor.execute(RELEASE, [_listed(keys)]).fetchall()}


def outstanding(connection: psycopg.Connection, older_than: timedelta = LONG) -> list[Outstanding]:
    """The prompts that were reserved longer ago than `older_than` and are not recorded, the oldest first.

    Their scheduler died between reserving and enqueueing, or their job still waits or has failed. Gone after
    14 days, if `worker.cron` runs.
    """
    with _cursor(connection, class_row(Outstanding)) as cursor:
        return cursor.execute(OUTSTANDING, [older_than]).fetchall()


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


def newest_of_chapter(
    connection: psycopg.Connection,
    chapter_id: UUID | str,
    *,
    before: RecordedInChapter | None = None,
    limit: int = 50,
) -> list[RecordedInChapter]:
    """All mentors' outcomes in a chapter, newest first, a page at a time; `before`, `limit`: see `newest`."""
    at, log_id = (before.delivered_at, before.log_id) if before else (None, None)
    with _cursor(connection, class_row(RecordedInChapter)) as cursor:
        return cursor.execute(NEWEST_OF_CHAPTER, [chapter_id, at, at, log_id, limit]).fetchall()


def last_deliveries(
    connection: psycopg.Connection,
    pairs: Iterable[tuple[UUID | str, UUID | str]],
    within: timedelta | None = None,
) -> dict[tuple[UUID, UUID], datetime]:
    """When each of these rules last reached each of these mentors: a cooldown for a whole run at once.

    `pairs`: (peer mentor, scenario rule), thousands are fine. `within`: only deliveries not older than that.
    Pairs without such a delivery are missing.
    """
    pairs = list(pairs)
    mentors, rules = ([str(pair[side]) for pair in pairs] for side in (0, 1))
    with _cursor(connection, tuple_row) as cursor:
        rows = cursor.execute(LAST_DELIVERIES, [mentors, rules, within])
        return {(mentor, rule): at for mentor, rule, at in rows}


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


def _listed(keys: Iterable[str]) -> list[str]:
    if isinstance(keys, str):  # a text is an iterable of texts, too
        raise TypeError("expected several keys, got one text: pass [key]")
    return list(keys)


@contextmanager
def _warned(connection: psycopg.Connection) -> Iterator[None]:
    """Log what PostgreSQL says of keys that are reserved again."""
    connection.add_notice_handler(_warn)
    try:
        yield
    finally:
        connection.remove_notice_handler(_warn)


def _warn(notice: psycopg.errors.Diagnostic) -> None:
    if notice.sqlstate == _RESERVED_AGAIN:
        logger.warning("%s: %s", notice.message_primary, notice.message_detail)


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("history"))
