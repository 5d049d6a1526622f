"""From judged jobs to rows: decide what may be pruned, write, account; and wait while PostgreSQL is away."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import psycopg
from redis import Redis

from .. import logs
from ..judge.batch import Batch, Past
from ..judge.classify import Failure, Outcome, stale_tokens
from ..servers import postgres
from ..servers.locks import lock_holders
from . import brake, store
from .account import Report, account, total
from .notices import notices
from .numbers import of_fault, of_turn
from .tokens import Tokens

#: Takes what an app is told of, see `notices`; neither waits nor raises.
Tell = Callable[[Sequence[dict[str, Any]]], None]


def record_patiently(
    connect: Callable[[], AbstractContextManager[psycopg.Connection]],
    tokens: Tokens,
    batches: Sequence[Batch],
    redis: Redis | None,
    pauses: Iterable[float],
    numbers: Counter[str] | None = None,
    tell: Tell | None = None,
) -> list[Report] | None:
    """Write some jobs' outcomes as soon as PostgreSQL can; None: it could not as long as `pauses` went on.

    `connect`: opens a connection, or hands on a kept one, for one try. `redis`: where the brake counts, see
    `brake.hold`. `pauses`: goes on after waiting, having said for how many seconds it will.
    `numbers`: gets those of what was written, and of PostgreSQL's faults, for `counters`.
    `tell`: see `record`.
    Raises DatabaseFault for a fault that will not pass by itself.
    """
    # Before the loop: a turn counts once.
    fresh = [batch for batch in batches if batch.past is Past.NONE]
    again = brake.tally(outcomes(batches))[1].keys() if len(fresh) < len(batches) else ()
    hold = brake.hold(redis, *brake.tally(outcomes(fresh)), again=again)
    for pause in pauses:
        try:
            with connect() as connection:
                try:
                    return record(connection, tokens, batches, hold, numbers, tell)
                except psycopg.Error:
                    if connection.closed:  # during the commit, maybe
                        batches = [batch._replace(past=Past.UNKNOWN) for batch in batches]
                    raise
        except psycopg.Error as error:
            if numbers is not None:
                numbers[of_fault(error)] += 1
            if not postgres.is_transient(error):
                raise postgres.DatabaseFault(postgres.explain(error)) from None
            logs.warning("database_unavailable", problem=postgres.explain(error), retry_in=pause)
    return None


def record(
    connection: psycopg.Connection,
    tokens: Tokens,
    batches: Sequence[Batch],
    hold: brake.Hold = brake.Hold(),  # noqa: B008 - a constant
    numbers: Counter[str] | None = None,
    tell: Tell | None = None,
) -> list[Report]:
    """Write some jobs' outcomes, and log one summary of them all.

    `tokens`: this process's token tables. `hold`: what the brake says of death notices.
    `numbers`: gets those of the turn, for `counters`.
    `tell`: called once all is committed, with what an app is told of it.
    Raises psycopg.Error with nothing written. Writing again is harmless, also after a commit whose
    confirmation was lost.
    """
    started = time.perf_counter()
    judged = outcomes(batches)
    dead = stale_tokens(judged)
    stale = tokens.within_limits(connection, dead, hold)
    withheld = frozenset(notice.token for notice in dead) - {notice.token for notice in stale}
    recorded = store.write(connection, tokens, [outcome for outcome in judged if outcome.final], stale)
    reports = account(batches, recorded, withheld)
    if tell and (told := notices(judged, recorded)):
        tell(told)
    if recorded.waiting:
        _tell_who_is_waited_for(connection, recorded.waiting)

    if unguarded := tokens.unguarded(stale):
        logs.warning("guard_off", stale=unguarded)
    if early := len(recorded.tokens.early):
        remedy = "set the senders' clocks by NTP; reported by a right clock, the tokens go"
        logs.warning("sent_in_the_future", tokens=early, remedy=remedy)
    logs.info_each("send_failed", [_fields(failure) for outcome in judged for failure in outcome.failures])
    ms = round((time.perf_counter() - started) * 1000, 1)
    summary = total(reports)
    logs.info("outcomes_recorded", jobs=len(batches), **summary, ms=ms)
    if numbers is not None:
        rows = [row for report in reports for row in report.rows]
        # What this worker wrote before, it counted.
        first = [batch for batch in batches if batch.past is not Past.WRITTEN]
        answered = judged if len(first) == len(batches) else outcomes(first)
        numbers += of_turn(answered, rows, summary, recorded.tokens, withheld)
    return reports


def _tell_who_is_waited_for(connection: psycopg.Connection, waiting: dict[str, str]) -> None:
    for table, rows in Counter(waiting.values()).items():
        with suppress(psycopg.Error):
            holders = lock_holders(connection, table)
            logs.warning("rows_waiting", table=table, rows=rows, holders=holders)


def outcomes(batches: Iterable[Batch]) -> list[Outcome]:
    """The outcomes of some jobs, in order."""
    return [outcome for batch in batches for _, outcome in batch.outcomes]


def _fields(failure: Failure) -> dict[str, Any]:
    return {
        "channel": failure.channel,
        "http_status": failure.http_status,
        "reason": failure.verdict.reason,
        "evidence": failure.verdict.evidence,
        "token": logs.token_hash(failure.token),
    }
