"""Delete outcomes that are past their retention: a little at a time, by an index, and nobody waits for it.

A row is past it when it was both sent and recorded before some moment. It is found by the index on chapter
and time, which coordinators need anyway: an index of its own would cost every insert. Where a run stops, the
next one goes on: what is deleted is not found again.
"""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from .. import NAME
from ..servers import postgres
from ..servers.privileges import missing_to_expire

#: Rows deleted in one transaction: some 20 ms of PostgreSQL's time.
BATCH = 1000
#: What a periodic job may take, in seconds: the outcomes behind it in the queue wait so long.
JOB_SECONDS = 5.0

# After each batch nothing is done for so many times as long as that took.
_REST = 9

_INDEX = "select to_regclass('public.follow_up_notification_log_chapter_id_delivered_at_idx') is not null"

_BEFORE = "select now() - %s::interval"

# Each from the index alone, however many rows a chapter has.
_CHAPTERS = """
with recursive chapter (id) as (
  (select chapter_id from public.follow_up_notification_log order by chapter_id limit 1)
  union all
  select (select chapter_id from public.follow_up_notification_log
           where chapter_id > chapter.id order by chapter_id limit 1)
    from chapter where id is not null
)
select id from chapter where id is not null
"""

# What was sent long ago and reported late is kept as long as what was sent when it was recorded.
_PAST = """
chapter_id = %(chapter)s and delivered_at < %(before)s and coalesce(created_at, delivered_at) < %(before)s
"""

_COUNT = f"select count(*) from public.follow_up_notification_log where {_PAST}"  # noqa: S608

# Out of an array: with a join PostgreSQL could choose to read the whole table. Nothing is locked before, for
# that would take the privilege to update: of two runs at once, the later one finds the rows gone.
_DELETE = f"""
with deleted as (
  delete from public.follow_up_notification_log
   where log_id = any(array(
     select log_id from public.follow_up_notification_log
      where {_PAST} and delivered_at >= %(after)s::timestamptz
      order by delivered_at
      limit %(most)s))
  returning delivered_at
)
select count(*), max(delivered_at) from deleted
"""  # noqa: S608

# Of table and indexes together; the number of rows is PostgreSQL's estimate, none before the first analyze.
_ROW_BYTES = """
select pg_total_relation_size(oid) / greatest(reltuples, 1)
  from pg_class where oid = 'public.follow_up_notification_log'::regclass and reltuples > 0
"""


def problems(connection: psycopg.Connection) -> list[str]:
    """Why the connection's role cannot do this, each with the remedy; empty: it can. Raises psycopg.Error."""
    with postgres.transaction(connection, sealed=True):
        if missing := missing_to_expire(connection):
            return missing
        if connection.execute(_INDEX).fetchone() != (True,):
            index = "follow_up_notification_log_chapter_id_delivered_at_idx"
            return [f"index {index} is missing: run `python -m {NAME}.migrate`"]
    return []


def moment(connection: psycopg.Connection, age: timedelta) -> datetime:
    """When a row must have been sent and recorded before to be older than `age`, by PostgreSQL's clock."""
    with postgres.transaction(connection, sealed=True):
        ((before,),) = connection.execute(_BEFORE, [age]).fetchall()
    return before  # type: ignore[no-any-return]


def counts(connection: psycopg.Connection, before: datetime) -> Iterator[int]:
    """How many rows of each chapter are past their retention. Raises psycopg.Error."""
    for chapter in _chapters(connection):
        with postgres.transaction(connection, sealed=True):
            ((rows,),) = connection.execute(_COUNT, {"chapter": chapter, "before": before}).fetchall()
        yield rows


def delete(connection: psycopg.Connection, before: datetime) -> Iterator[int]:
    """Delete what is past its retention; yields the number of rows after each batch, and rests then.

    Raises psycopg.Error with the batch not deleted, also where somebody holds a lock on one of its rows.
    """
    for chapter in _chapters(connection):
        after, rows = "-infinity", BATCH
        while rows == BATCH:
            started = time.monotonic()
            wanted = {"chapter": chapter, "before": before, "after": after, "most": BATCH}
            # Not sealed: a trigger of the app's finds its tables by the path.
            with postgres.transaction(connection):
                ((rows, last),) = connection.execute(_DELETE, wanted).fetchall()
            if rows:
                after = last
                yield rows
                time.sleep(_REST * (time.monotonic() - started))


def row_bytes(connection: psycopg.Connection) -> float:
    """Bytes that a row takes in table and indexes, on average; 0: PostgreSQL has not counted them yet."""
    with postgres.transaction(connection, sealed=True):
        found = connection.execute(_ROW_BYTES).fetchone()
    return float(found[0]) if found else 0.0


def go_on(connection: psycopg.Connection, age: timedelta) -> int:
    """The periodic job: some seconds of it; returns how many rows are deleted. Raises psycopg.Error."""
    deadline = time.monotonic() + JOB_SECONDS
    deleted = 0
    for rows in delete(connection, moment(connection, age)):
        deleted += rows
        if time.monotonic() > deadline:
            break
    return deleted


def _chapters(connection: psycopg.Connection) -> list[UUID]:
    with postgres.transaction(connection, sealed=True):
        return [chapter for (chapter,) in connection.execute(_CHAPTERS).fetchall()]
