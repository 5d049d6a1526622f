"""Delete what PostgreSQL holds of a peer mentor: rows of the log, and reservations.

A reservation has nothing of the mentor but its key, a hash. It is found by what had the same key (rows, and
events in Redis), by a key that spells the id, or by making the keys of every rule for the usual windows: the
ISO weeks, days and months around the reservations. One for another window stays, and is tidied away 14 days
after its hold at the latest; nobody can tell whose it was.
"""

from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

import psycopg
from psycopg import sql

from ..servers import postgres
from ..servers.privileges import missing_to_erase

#: Rows deleted in one transaction.
BATCH = 5000

# The app names its keys as it likes: the foreign key knows.
_RULES = """
select nspname, relname, attname
  from pg_constraint
  join pg_class on pg_class.oid = confrelid
  join pg_namespace on pg_namespace.oid = relnamespace
  join pg_attribute on attrelid = confrelid and attnum = confkey[1]
 where conname = 'follow_up_notification_log_scenario_rule_id_fkey'
   and conrelid = to_regclass('public.follow_up_notification_log')
"""

_COUNT_ROWS = "select count(*) from public.follow_up_notification_log where peer_mentor_id = any(%s::uuid[])"

_ROWS = """
with deleted as (
  delete from public.follow_up_notification_log
   where log_id = any(array(
     select log_id from public.follow_up_notification_log where peer_mentor_id = any(%s::uuid[]) limit %s))
  returning idempotency_key
)
select idempotency_key from deleted
"""

_KEYS_OF_ROWS = """
select idempotency_key from public.follow_up_notification_log where peer_mentor_id = any(%s::uuid[])
"""

_MADE_KEYS = """
with span as (
  select min(reserved_at) - interval '1 month' as first, max(reserved_at) + interval '1 month' as last
    from notiflog.reservations
),
time_window as (
  select distinct to_char(day, form) as name
    from span cross join generate_series(first, last, interval '1 day') as day
   cross join unnest(array['IYYY"-W"IW', 'YYYY-MM-DD', 'YYYY-MM']) as form
)
select encode(sha256(convert_to(mentor || ':' || rule.{id} || ':' || time_window.name, 'UTF8')), 'hex')
  from unnest(%(mentors)s::text[]) as mentor cross join {rules} as rule cross join time_window
"""

_RESERVATIONS = """
  from notiflog.reservations as reservation
 where idempotency_key = any(%(keys)s::text[])
    or idempotency_key in ({made})
    or exists (select from unnest(%(mentors)s::text[]) as mentor
                where strpos(lower(idempotency_key), mentor) > 0)
"""

# In the order of the keys, so that it never waits for somebody who waits for it.
_DELETE_RESERVATIONS = """
with theirs as materialized (
  select idempotency_key {theirs} order by idempotency_key for update
)
delete from notiflog.reservations as reservation using theirs
 where reservation.idempotency_key = theirs.idempotency_key
"""


class Erased(NamedTuple):
    """How much there was of some mentors."""

    rows: int
    reservations: int


class NotReady(Exception):
    """The role may not do it, or something is not there; each line a problem with its remedy."""


def theirs(connection: psycopg.Connection) -> sql.Composed:
    """What tells reservations of some mentors from others, for `find` and `erase`.

    Raises NotReady if the connection's role cannot do this, and psycopg.Error.
    """
    with postgres.transaction(connection, sealed=True):
        found = connection.execute(_RULES).fetchone()
        if not found:
            raise NotReady("table public.follow_up_notification_log is missing, or its foreign keys are")
        schema, table, column = found
        if problems := missing_to_erase(connection, (schema, table, column)):
            raise NotReady("\n".join(problems))
    made = sql.SQL(_MADE_KEYS).format(id=sql.Identifier(column), rules=sql.Identifier(schema, table))
    return sql.SQL(_RESERVATIONS).format(made=made)


def find(
    connection: psycopg.Connection, theirs: sql.Composed, mentors: Collection[UUID], keys: Collection[str]
) -> Erased:
    """Count only. `theirs`: see there; `keys`: of events in Redis. Raises psycopg.Error."""
    with postgres.transaction(connection, sealed=True):
        ((rows,),) = connection.execute(_COUNT_ROWS, [list(mentors)]).fetchall()
        recorded = [key for (key,) in connection.execute(_KEYS_OF_ROWS, [list(mentors)])]
        statement = sql.SQL("select count(*)") + theirs
        ((reservations,),) = connection.execute(statement, _wanted(mentors, [*keys, *recorded])).fetchall()
    return Erased(rows, reservations)


def erase(
    connection: psycopg.Connection, theirs: sql.Composed, mentors: Collection[UUID], keys: Collection[str]
) -> Erased:
    """Delete. `theirs`: see there; `keys`: of events that were taken out of Redis. Raises psycopg.Error.

    Interrupted, it may be repeated: the reservations of rows that are gone went with them.
    """
    delete = sql.SQL(_DELETE_RESERVATIONS).format(theirs=theirs)
    rows = reservations = 0
    while True:
        # Not sealed: a trigger of the app's finds its tables by the path.
        with postgres.transaction(connection):
            deleted = [key for (key,) in connection.execute(_ROWS, [list(mentors), BATCH])]
            wanted = _wanted(mentors, [*keys, *deleted])
            reservations += connection.execute(delete, wanted).rowcount
        rows += len(deleted)
        if len(deleted) < BATCH:
            return Erased(rows, reservations)


def _wanted(mentors: Collection[UUID], keys: list[str]) -> dict[str, list[str]]:
    return {"mentors": [str(mentor) for mentor in mentors], "keys": keys}
