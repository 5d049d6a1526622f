"""The RQ jobs."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from . import NAME, logs
from .extras import MissingExtra, extra

with extra("worker", MissingExtra):
    import psycopg

from redis import Redis
from rq import Retry, get_current_job
from rq.job import Job

from .judge.batch import Past, judge
from .logs import sentry
from .queue.notices import send_at_once
from .queue.repair import forget_killed_executions
from .record import counters
from .record.account import RejectedEvents
from .record.numbers import of_duration
from .record.recording import Tell, record_patiently
from .record.reservations import tidy
from .record.tokens import Tokens
from .retain import expiry
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

    `events`: payloads of the wire contract, see `events`. Returns the summary, or RQ's Retry while PostgreSQL
    is away or somebody's lock keeps a row from being recorded. Raises RejectedEvents once every good event is
    recorded, and DatabaseFault for a fault that will not pass by itself; called as a function, or by a queue
    of `is_async=False`, where no worker would try again, for any. Neither carries a token or a row's data.
    """
    other_form = _set_up()
    job = get_current_job()
    if job and forget_killed_executions(job, ask=other_form):
        remedy = f"start the worker with RQ_CONFIG={NAME}.rqconfig, and all lines have this form"
        logs.warning("two_forms", remedy=remedy)
    started = time.monotonic()
    # What comes back waited for PostgreSQL, or its worker died.
    batch = judge(events)._replace(past=Past.UNKNOWN if job and job.number_of_retries else Past.NONE)
    numbers: Counter[str] = Counter()
    with _redis() as redis:
        try:
            reports = record_patiently(
                lambda: closing(postgres.connect(settings().database_url)),
                Tokens(settings()),
                [batch],
                redis,
                _pauses(),
                numbers,
                _tell(redis),
            )
            if reports and reports[0].waiting:
                numbers.clear()  # counted when it is through: what is in by then is on record
            elif reports:
                numbers += of_duration(time.monotonic() - started)
        finally:
            counters.count(redis, numbers)
    if reports is None:
        return _again(job, "PostgreSQL does not take them")
    (report,) = reports
    if report.waiting:
        return _again(job, "somebody's lock keeps some rows from being written")
    if report.rejected:
        if job:
            job.retries_left = 0  # the same events would be rejected again, whatever the producer asked for
        raise RejectedEvents(report.rejected, batch.events)
    return report.summary


def sweep_tokens() -> dict[str, int]:
    """Check some seconds' worth of the app's FCM tokens, from where the last such job left off.

    Meant to be enqueued every minute, see `worker.cron`; between two passes over the table it does nothing.
    Returns what the pass under way has counted so far. Raises DatabaseFault, and NoProject where Firebase is
    not set up.
    """
    _set_up()
    job = get_current_job()
    if job is None:
        raise RuntimeError(f"sweep_tokens runs under RQ; by hand: python -m {NAME}.sweep")
    try:
        with (
            closing(postgres.connect(settings().database_url)) as connection,
            closing(impatient(job.connection)) as soon,
        ):
            return dict(go_on(connection, Tokens(settings()), job.connection, _tell(soon)))
    except psycopg.Error as error:
        raise postgres.DatabaseFault(postgres.explain(error)) from None


def tidy_reservations() -> int:
    """Delete reservations that are over: recorded, or never reported for 14 days. Returns how many.

    Meant to be enqueued now and then, see `worker.cron`; does nothing while the migrations lack them. Raises
    DatabaseFault.
    """
    _set_up()
    try:
        with closing(postgres.connect(settings().database_url)) as connection:
            return tidy(connection)
    except psycopg.Error as error:
        raise postgres.DatabaseFault(postgres.explain(error)) from None


def retain_outcomes() -> int:
    """Delete outcomes older than NOTIFLOG_RETAIN, for some seconds; returns how many.

    Meant to be enqueued every ten minutes, see `worker.cron`. A worker whose role may not delete says so and
    deletes nothing; it need not be able to. Raises DatabaseFault.
    """
    _set_up()
    if not (age := settings().retain):
        return 0
    try:
        with closing(postgres.connect(settings().database_url)) as connection:
            if problems := expiry.problems(connection):
                logs.error("retention_refused", problem="; ".join(problems))
                return 0
            deleted = expiry.go_on(connection, age)
    except psycopg.Error as error:
        raise postgres.DatabaseFault(postgres.explain(error)) from None
    if deleted:
        logs.info("outcomes_expired", rows=deleted, days=age.days)
    return deleted


def _set_up() -> bool:
    """Have lines written; returns whether RQ's had another form until now."""
    other_form = logs.setup(at_once=True)  # a stock worker ends the process right behind the job
    sentry.setup()
    return other_form


def _again(job: Job | None, problem: str) -> Retry:
    if job is None or job.worker_name == "sync":  # RQ's name for a queue of is_async=False
        raise postgres.DatabaseFault(f"not all events are recorded: {problem}; enqueue them for a worker")
    return _AGAIN


@contextmanager
def _redis() -> Iterator[Redis | None]:
    """Where to count; nowhere outside RQ."""
    if not (job := get_current_job()):
        yield None
    else:
        with closing(impatient(job.connection)) as redis:
            yield redis


def _tell(redis: Redis | None) -> Tell | None:
    """Where notices go; nowhere outside RQ, or where nobody wants them."""
    hook = settings().hook
    return partial(send_at_once, redis, hook) if redis and hook else None


def _pauses() -> Iterator[float]:
    """Wait after each try, twice as long as before, until the patience is used up."""
    job = get_current_job()
    timeout = job.timeout if job and job.timeout and job.timeout > 0 else _DEFAULT_TIMEOUT
    deadline = time.monotonic() + _PATIENCE * timeout
    pause = 0.5
    while time.monotonic() < deadline:
        yield pause
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("jobs"))
