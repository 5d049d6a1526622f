"""What a report reads: outcomes out of PostgreSQL, stopped jobs out of Redis."""

import heapq
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, tzinfo

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row
from redis import Redis

from ..history import outstanding
from ..logs import token_hash
from ..queue.groups import group
from ..queue.stopped import StoppedJob, stopped_jobs
from ..servers import postgres
from .counts import Counts, Group, Missing, Outcomes, Reserved, Stopped, worst_first

#: Stopped jobs and missing prompts listed; of more than that, only the number is told.
LISTED = 100

# One pass over the table and one snapshot, so that all sums agree. No index knows
# delivered_at alone: the table is read from end to end.
_OUTCOMES = """
select day, delivery_channel, chapter_id, scenario_rule_id,
       count(*) filter (where status = 'delivered'),
       count(*) filter (where status = 'failed'),
       count(*) filter (where status = 'skipped')
  from (
    select (delivered_at at time zone %s)::date as day, delivery_channel, chapter_id, scenario_rule_id, status
      from public.follow_up_notification_log
     where delivered_at >= %s
  ) as recorded
 group by grouping sets ((day, delivery_channel), (chapter_id), (scenario_rule_id))
"""

# Quarantined jobs do not tell since when; as the oddest they are listed first.
_UNKNOWN = datetime.max.replace(tzinfo=UTC)

_ROW_SECURITY = "select row_security_active('public.follow_up_notification_log')"


def read_outcomes(connection: psycopg.Connection, since: datetime, timezone: tzinfo) -> Outcomes:
    """Count what was attempted at `since` or later, by day as `timezone` has it.

    Raises psycopg.Error: InsufficientPrivilege where the role may not read the log.
    """
    with postgres.transaction(connection, sealed=True), connection.cursor(row_factory=tuple_row) as cursor:
        (partial,) = cursor.execute(_ROW_SECURITY).fetchone() or (False,)
        rows = cursor.execute(_OUTCOMES, [str(timezone), since]).fetchall()
    days: dict[tuple[date, str], Counts] = {}
    chapters: list[Group] = []
    rules: list[Group] = []
    for day, channel, chapter, rule, *counts in rows:
        if day is not None:
            days[day, channel] = Counts(*counts)
        elif chapter is not None:
            chapters.append(Group(chapter, Counts(*counts)))
        else:
            rules.append(Group(rule, Counts(*counts)))
    return Outcomes(dict(sorted(days.items())), worst_first(chapters), worst_first(rules), partial)


def read_missing(connection: psycopg.Connection) -> Missing | None:
    """The prompts that were reserved and never reported; None: the role may not see them, or nobody can yet.

    Raises psycopg.Error.
    """
    try:
        with postgres.transaction(connection, sealed=True):
            prompts = outstanding(connection)
    except (errors.InsufficientPrivilege, errors.UndefinedTable, errors.InvalidSchemaName):
        return None
    oldest = [
        Reserved(token_hash(prompt.idempotency_key), prompt.reserved_at, prompt.holds)
        for prompt in prompts[:LISTED]
    ]
    return Missing(len(prompts), oldest)


def read_stopped(redis: Redis, queue: str) -> Stopped:
    """Count and list the jobs of `queue` that failed or were quarantined. Raises RedisError."""
    states: Counter[str] = Counter()
    newest: list[tuple[datetime, int, StoppedJob]] = []  # a heap: the oldest of them is the first

    def counted() -> Iterable[StoppedJob]:
        for number, job in enumerate(stopped_jobs(redis, queue)):
            states[job.state] += 1
            put = heapq.heappushpop if len(newest) == LISTED else heapq.heappush
            put(newest, (job.since or _UNKNOWN, -number, job))
            yield job

    causes = group(counted())  # in one pass, and of any number of jobs a bounded part is kept
    causes.sort(key=lambda cause: cause.since[1] if cause.since else _UNKNOWN, reverse=True)
    return Stopped(
        states["failed"], states["quarantined"], [job for *_, job in sorted(newest, reverse=True)], causes
    )
