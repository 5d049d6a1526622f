"""Record some jobs' outcomes, and tell for each event what became of it."""

import re
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import psycopg

from .. import NAME, logs
from ..events import Channel, Rejected
from ..judge.batch import Batch
from ..judge.classify import Failure, Outcome, Status, stale_tokens
from ..servers.settings import Settings
from . import store

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


RejectedEvents.__module__ = f"{NAME}.jobs"  # where users know it from; RQ stores it by this name


class Report(NamedTuple):
    """What became of one job's events."""

    summary: dict[str, Any]
    rejected: list[Rejected]


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

    `held`: channels whose death notices prune nothing, see `brake`.
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
