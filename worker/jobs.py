"""The RQ jobs, and the one way from payloads to rows: judge, write, account."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg
from rq import Retry, get_current_job

from . import NAME, logs
from .events import Channel
from .judge.batch import Batch, judge
from .logs import sentry
from .queue.repair import forget_killed_executions
from .record import brake
from .record.account import RejectedEvents, outcomes, record
from .servers import postgres
from .servers.redis import impatient
from .servers.settings import settings
from .sweep.passes import go_on

# While PostgreSQL is away the job waits, at most this share of its timeout, and then returns to the queue.
_PATIENCE = 0.25
_DEFAULT_TIMEOUT = 180  # RQ's, in seconds
_LONGEST_PAUSE = 10.0
# A passing fault must not end in the failed registry: practically without limit, some pauses each.
_AGAIN = Retry(max=1_000_000)


def record_outcomes(events: list[dict[str, Any]]) -> dict[str, Any] | Retry:
    """Record what became of push prompts. The job to enqueue on the queue `notiflog`.

    `events`: payloads of the wire contract, see README. Returns the summary, or RQ's Retry while PostgreSQL
    is away. Raises RejectedEvents once every good event is recorded, and DatabaseFault for a fault that will
    not pass by itself; neither carries a token or a row's data.
    """
    logs.setup()
    sentry.setup()
    if job := get_current_job():
        forget_killed_executions(job)
    batch = judge(events)
    held = _held([batch])
    for pause in _pauses():
        try:
            with closing(postgres.connect(settings().database_url)) as connection:
                (report,) = record(connection, settings(), [batch], held)
            break
        except psycopg.Error as error:
            if not postgres.is_transient(error):
                raise postgres.DatabaseFault(postgres.explain(error)) from None
            logs.warning("database_unavailable", problem=postgres.explain(error), retry_in=pause)
            time.sleep(pause)
    else:
        return _AGAIN
    if report.rejected:
        if job := get_current_job():
            job.retries_left = 0  # the same events would be rejected again, whatever the producer asked for
        raise RejectedEvents(report.rejected, batch.events)
    return report.summary


def sweep_tokens() -> dict[str, int]:
    """Check some seconds' worth of the app's FCM tokens, from where the last such job left off.

    Meant to be enqueued every minute, see `worker.cron`; between two passes over the table it does nothing.
    Returns what the pass under way has counted so far. Raises DatabaseFault, and NoProject where Firebase is
    not set up.
    """
    logs.setup()
    sentry.setup()
    job = get_current_job()
    if job is None:
        raise RuntimeError(f"sweep_tokens runs under RQ; by hand: python -m {NAME}.sweep")
    try:
        with closing(postgres.connect(settings().database_url)) as connection:
            return dict(go_on(connection, settings(), job.connection))
    except psycopg.Error as error:
        raise postgres.DatabaseFault(postgres.explain(error)) from None


def _held(batches: Sequence[Batch]) -> frozenset[Channel]:
    """The channels that the brake holds; none outside RQ."""
    if not (job := get_current_job()):
        return frozenset()
    with closing(impatient(job.connection)) as redis:
        return brake.held(redis, *brake.tally(outcomes(batches)))


def _pauses() -> Iterator[float]:
    """Seconds to wait after each try, doubling, until the patience is used up."""
    job = get_current_job()
    timeout = job.timeout if job and job.timeout and job.timeout > 0 else _DEFAULT_TIMEOUT
    deadline = time.monotonic() + _PATIENCE * timeout
    pause = 0.5
    while time.monotonic() < deadline:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE)
