"""Reservations as the worker sees them: it tidies what is over, and tells of what is missing."""

from typing import NamedTuple

import psycopg

from ..servers import postgres

#: Reservations deleted in one transaction.
BATCH = 5000

# Without the third migration there are none.
_THERE = "select to_regclass('notiflog.reservations') is not null"

#: What is recorded is told apart by the log; of what nobody reported, nobody will any more.
TIDY = """
delete from notiflog.reservations as reservation
 using (
   select idempotency_key
     from notiflog.reservations as over
    where over.held_until < now() - interval '14 days'
       or exists (select from public.follow_up_notification_log as log
                   where log.idempotency_key = over.idempotency_key)
    order by idempotency_key
    limit %s
      for update skip locked
 ) as over
 where reservation.idempotency_key = over.idempotency_key
"""

#: How many prompts were reserved an hour ago or longer and are not recorded, and for how long the oldest.
OUTSTANDING = """
select count(*), coalesce(extract(epoch from now() - min(reserved_at)), 0)::bigint
  from notiflog.reservations as reservation
 where reserved_at <= now() - interval '1 hour'
   and not exists (
     select from public.follow_up_notification_log as log
      where log.idempotency_key = reservation.idempotency_key)
"""


class Missing(NamedTuple):
    """Prompts that were reserved and never reported."""

    prompts: int
    #: Seconds since the oldest was reserved.
    age: int


def tidy(connection: psycopg.Connection) -> int:
    """Delete reservations that are over; returns how many. Raises psycopg.Error."""
    deleted = 0
    while True:
        with postgres.transaction(connection, sealed=True):
            if connection.execute(_THERE).fetchone() != (True,):
                return deleted
            rows = connection.execute(TIDY, [BATCH]).rowcount
        deleted += rows
        if rows < BATCH:
            return deleted


def missing(connection: psycopg.Connection) -> Missing:
    """What was reserved at least an hour ago and is not recorded. Raises psycopg.Error."""
    with postgres.transaction(connection, sealed=True):
        if connection.execute(_THERE).fetchone() != (True,):
            return Missing(0, 0)
        return Missing(*(connection.execute(OUTSTANDING).fetchone() or (0, 0)))
