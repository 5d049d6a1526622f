"""The RQ jobs, and the one way from payloads to rows: judge, write, account."""

import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import psycopg
from rq import Retry, get_current_job
from rq.executions import Execution
from rq.job import Job

from worker import brake, db, hygiene, logs, sentry, store
from worker.classify import Failure, Outcome, Status, fold, stale_tokens
from worker.config import Settings, settings
from worker.events import Channel, InvalidEvent, Rejected, decode_all

# While PostgreSQL is away the job waits, at most this share of its timeout, and then returns to the queue.
_PATIENCE = 0.25
_DEFAULT_TIMEOUT = 180  # RQ's, in seconds
_LONGEST_PAUSE = 10.0
# A passing fault must not end in the failed registry: practically without limit, some pauses each.
_AGAIN = Retry(max=1_000_000)

_PLAIN_REASON = re.compile(r"[a-z0-9_]{1,40}")
_PARENTS = {"peer_mentor_id": "user", "chapter_id": "chapter", "scenario_rule_id": "scenario rule"}
_LISTED = 1000


class RejectedEvents(Exception):
    """Some events of a job could not be recorded; all others are. One line says what is wrong with each."""

    def __init__(self, rejected: Sequence[Rejected], events: int) -> None:
        self.rejected = tuple(rejected)
        head = (
            f"{len(rejected)} of {events} events rejected, all others are recorded; correct them and enqueue:"
        )
        lines = [str(line) for line in rejected[:_LISTED]]
        if rest := rejected[_LISTED:]:
            lines.append(f"and {len(rest)} more: " + ", ".join(str(line.position) for line in rest))
        super().__init__("\n".join((head, *lines)))


class Batch(NamedTuple):
    """One job's events, judged."""

    events: int
    #: Outcomes by the event's position in the job.
    outcomes: list[tuple[int, Outcome]]
    rejected: list[Rejected]


class Report(NamedTuple):
    """What became of one job's events."""

    summary: dict[str, Any]
    rejected: list[Rejected]


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
            with closing(db.connect(settings().database_url)) as connection:
                (report,) = record(connection, settings(), [batch], held)
            break
        except psycopg.Error as error:
            if not db.is_transient(error):
                raise db.DatabaseFault(db.explain(error)) from None
            logs.warning("database_unavailable", problem=db.explain(error), retry_in=pause)
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
        raise RuntimeError("sweep_tokens runs under RQ; by hand: python -m worker.sweep")
    try:
        with closing(db.connect(settings().database_url)) as connection:
            return dict(hygiene.go_on(connection, settings(), job.connection))
    except psycopg.Error as error:
        raise db.DatabaseFault(db.explain(error)) from None


def forget_killed_executions(job: Job) -> None:
    """Take a job's expired executions out of RQ's list of them.

    RQ keeps the name of a killed worker's execution a minute longer than the rest of it. A job that runs
    again in that minute and is to be deleted when done (`result_ttl=0`) RQ could not delete, and would fail.
    """
    registry = job.execution_registry
    for execution_id in registry.get_execution_ids():
        if not job.connection.exists(Execution(execution_id, job.id, job.connection).key):
            job.connection.zrem(registry.key, execution_id)


def judge(payloads: object) -> Batch:
    """Decode and classify a job's events; touches nothing outside. Raises InvalidEvent if it is no list."""
    if not isinstance(payloads, list | tuple):
        raise InvalidEvent("$", f"expected a list of events, got {type(payloads).__name__}")
    events, rejected = decode_all(payloads)
    return Batch(len(payloads), [(position, fold(event)) for position, event in events], rejected)


def outcomes(batches: Iterable[Batch]) -> list[Outcome]:
    """The outcomes of some jobs, in order."""
    return [outcome for batch in batches for _, outcome in batch.outcomes]


def record(
    connection: psycopg.Connection,
    config: Settings,
    batches: Sequence[Batch],
    held: Collection[Channel] = (),
) -> list[Report]:
    """Write some jobs' outcomes in one transaction, and log one summary of them all.

    `held`: channels whose death notices prune nothing, see `worker.brake`.
    Raises psycopg.Error with nothing written. Writing again is harmless, also after a commit whose
    confirmation was lost.
    """
    started = time.perf_counter()
    judged = outcomes(batches)
    notices = stale_tokens(judged)
    stale = [notice for notice in notices if notice.channel not in held] if held else notices
    withheld = {notice.token for notice in notices if notice.channel in held}
    recorded = store.write(connection, config, [outcome for outcome in judged if outcome.final], stale)
    written: dict[str, Status] = {}
    reports = [_account(batch, recorded, withheld, written) for batch in batches]

    if stale and config.token_registered_column is None:
        logs.warning("guard_off", stale=len(stale))
    failures = [_fields(failure) for outcome in judged for failure in outcome.failures]
    logs.info_each("send_failed", failures)
    ms = round((time.perf_counter() - started) * 1000, 1)
    logs.info("outcomes_recorded", jobs=len(batches), **_total(reports), ms=ms)
    return reports


def _account(
    batch: Batch, recorded: store.Recorded, withheld: set[str], written: dict[str, Status]
) -> Report:
    """Tell for each event what became of it: new row, duplicate, rejected, or not final yet.

    `written` collects the new rows, so that a second event of the same key counts as a duplicate.
    """
    count = {"delivered": 0, "failed": 0, "skipped": 0, "retrying": 0, "duplicates": 0, "conflicting": 0}
    failed_by: dict[str, int] = {}
    skipped_by: dict[str, int] = {}
    stale: set[str] = set()
    refused: list[Rejected] = []
    for position, outcome in batch.outcomes:
        key, status = outcome.idempotency_key, outcome.status
        if outcome.stale:
            stale.update(notice.token for notice in outcome.stale)
        if not outcome.final:
            count["retrying"] += 1
        elif recorded.refused and outcome in recorded.refused:
            refused.append(_refusal(position, recorded.refused[outcome]))
        elif key in recorded.inserted and key not in written:
            written[key] = status
            count[status] += 1
            if status == "failed":
                reason = outcome.reason or ""
                failed_by[reason] = failed_by.get(reason, 0) + 1
            elif status == "skipped":
                reason = _plain(outcome.reason)
                skipped_by[reason] = skipped_by.get(reason, 0) + 1
        else:
            count["duplicates"] += 1
            stored = written.get(key) or recorded.known.get(key, status)
            if stored != status:
                count["conflicting"] += 1
                logs.warning(
                    "conflicting_duplicate", key=logs.token_hash(key), stored=stored, reported=status
                )
    rejected = sorted((*batch.rejected, *refused))
    summary = {
        "events": batch.events,
        **count,
        "rejected": len(rejected),
        "pruned": len(stale & recorded.pruned),
        "kept": len(stale & recorded.kept),
        "withheld": len(stale & withheld),
        "failed_by": failed_by,
        "skipped_by": skipped_by,
    }
    return Report(summary, rejected)


def _total(reports: Sequence[Report]) -> dict[str, Any]:
    """The sum of some summaries."""
    total: dict[str, Any] = {}
    for name, first in reports[0].summary.items():
        if isinstance(first, dict):
            by_reason: Counter[str] = Counter()
            for summary, _ in reports:
                if summary[name]:
                    by_reason.update(summary[name])
            total[name] = dict(by_reason)
        else:
            total[name] = sum([summary[name] for summary, _ in reports])
    return total


def _fields(failure: Failure) -> dict[str, Any]:
    return {
        "channel": failure.channel,
        "http_status": failure.http_status,
        "reason": failure.verdict.reason,
        "evidence": failure.verdict.evidence,
        "token": logs.token_hash(failure.token),
    }


def _refusal(position: int, constraint: str) -> Rejected:
    if parent := _PARENTS.get(constraint):
        return Rejected(position, f"$.{constraint}", f"there is no such {parent}")
    return Rejected(position, "$", f"PostgreSQL refuses the row: {constraint}")


def _plain(reason: str | None) -> str:
    # Free text of the producer's: what does not look like a name could be about a person.
    return reason if reason and _PLAIN_REASON.fullmatch(reason) else "other"


def _held(batches: Sequence[Batch]) -> frozenset[Channel]:
    """The channels that the brake holds; none outside RQ."""
    if not (job := get_current_job()):
        return frozenset()
    with closing(brake.impatient(job.connection)) as redis:
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
