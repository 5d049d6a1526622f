"""What a report reads: outcomes out of PostgreSQL, stopped jobs out of Redis."""

import heapq
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, date, datetime, tzinfo
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row
from redis import Redis

from ..history import outstanding
from ..logs import token_hash
from ..queue.groups import group
from ..queue.stopped import StoppedJob, stopped_jobs
from ..servers import postgres
from .counts import Counts, Group, Missing, Outcomes, Reserved, Stopped, add, worst_first
from .periods import Before

#: Stopped jobs and missing prompts listed; of more than that, only the number is told.
LISTED = 100

# One pass over the table and one snapshot, so that all sums agree. No index knows
# delivered_at alone: the table is read from end to end. Of the time before only the channels are told.
_OUTCOMES = """
select before, slot, delivery_channel, chapter_id, scenario_rule_id,
       count(*) filter (where status = 'delivered'),
       count(*) filter (where status = 'failed'),
       count(*) filter (where status = 'skipped')
  from (
    select delivered_at < %(since)s as before,
           case when delivered_at >= %(since)s then {slot} end as slot,
           delivery_channel,
           case when delivered_at >= %(since)s then chapter_id end as chapter_id,
           case when delivered_at >= %(since)s then scenario_rule_id end as scenario_rule_id,
           status
      from public.follow_up_notification_log
     where delivered_at >= %(since)s
        or (delivered_at >= %(earlier)s and delivered_at < %(until)s)
  ) as recorded
 group by grouping sets ((before, delivery_channel, slot), (chapter_id), (scenario_rule_id))
"""
_DAY = "(delivered_at at time zone %(timezone)s)::date"
# The clocks' hour: in some time zones it begins at the half of UTC's; it comes twice when they are set back.
_HOUR = "date_trunc('hour', delivered_at, %(timezone)s)"

# Quarantined jobs do not tell since when; as the oddest they are listed first.
_UNKNOWN = datetime.max.replace(tzinfo=UTC)

_ROW_SECURITY = "select row_security_active('public.follow_up_notification_log')"


def read_outcomes(
    connection: psycopg.Connection,
    since: datetime,
    timezone: tzinfo,
    *,
    hourly: bool = False,
    before: Before | None = None,
) -> Outcomes:
    """Count what was attempted at `since` or later, by day as `timezone` has it, `hourly` by the hour, too.

    `before`: count that time, too, which ends before `since`. Raises psycopg.Error: InsufficientPrivilege
    where the role may not read the log.
    """
    asked = {
        "since": since,
        "timezone": str(timezone),
        "earlier": before.since if before else since,
        "until": before.until if before else since,
    }
    query = _OUTCOMES.replace("{slot}", _HOUR if hourly else _DAY)
    with postgres.transaction(connection, sealed=True), connection.cursor(row_factory=tuple_row) as cursor:
        (partial,) = cursor.execute(_ROW_SECURITY).fetchone() or (False,)
        rows = cursor.execute(query, asked).fetchall()
    slots: dict[tuple[Any, str], Counts] = {}
    earlier: dict[str, Counts] = {}
    chapters: list[Group] = []
    rules: list[Group] = []
    for is_before, slot, channel, chapter, rule, *numbers in rows:
        counts = Counts(*numbers)
        if is_before:
            earlier[channel] = counts
        elif slot is not None:
            slots[slot, channel] = counts
        elif chapter is not None:
            chapters.append(Group(chapter, counts))
        elif rule is not None:
            rules.append(Group(rule, counts))
    slots = dict(sorted(slots.items()))
    return Outcomes(
        _days(slots, timezone) if hourly else slots,
        worst_first(chapters),
        worst_first(rules),
        partial,
        slots if hourly else None,
        dict(sorted(earlier.items())) if before else None,
    )


def _days(hours: dict[tuple[datetime, str], Counts], timezone: tzinfo) -> dict[tuple[date, str], Counts]:
    days: dict[tuple[date, str], Counts] = {}
    for (hour, channel), counts in hours.items():
        day = hour.astimezone(timezone).date(), channel
        days[day] = add([days.get(day, Counts()), counts])
    return dict(sorted(days.items()))


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
