"""Tell for each event what became of it, and sum up."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .. import NAME, logs
from ..events import Rejected
from ..judge.batch import Batch, Past
from ..judge.classify import Outcome, Status
from .prune import FATES
from .store import Recorded

_PLAIN_REASON = re.compile(r"[a-z0-9_]{1,40}")
_PARENTS = {"peer_mentor_id": "user", "chapter_id": "chapter", "scenario_rule_id": "scenario rule"}
_LEFT_OUT = "a trigger of follow_up_notification_log left the row out: it is not there after inserting it"
_LISTED = 1000
#: What is counted of each job's events and of their tokens.
_NONE: dict[str, Any] = dict.fromkeys(
    (
        *("events", "delivered", "failed", "skipped", "retrying", "duplicates", "conflicting", "waiting"),
        *("rejected", *FATES),
    ),
    0,
)


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
    #: Whose rows are this job's: the new ones, and those that a run of it that was not counted may have left.
    rows: list[Outcome]

    @property
    def waiting(self) -> bool:
        """Some events could not be recorded yet: the job is to be run again."""
        return bool(self.summary["waiting"])


def account(batches: Iterable[Batch], recorded: Recorded, withheld: frozenset[str]) -> list[Report]:
    """Tell for each job what became of its events and tokens.

    A row, and a dead token, counts for the first event that has it. `withheld`: tokens that the brake holds.
    """
    fates = recorded.tokens.fates(withheld)
    written: dict[str, Status] = {}
    counted: set[str] = set()
    reports = []
    for batch in batches:
        report = _events(batch, recorded, written)
        dead = [notice.token for _, outcome in batch.outcomes if outcome.stale for notice in outcome.stale]
        if dead:  # few jobs have any
            stale = set(dead) - counted
            counted |= stale
            report.summary.update({fate: len(stale & those) for fate, those in fates.items()})
        reports.append(report)
    return reports


def total(reports: Sequence[Report]) -> dict[str, Any]:
    """The sum of some summaries."""
    total: dict[str, Any] = {}
    columns = zip(*[report.summary.values() for report in reports], strict=True)
    for name, values in zip(reports[0].summary, columns, strict=True):
        if isinstance(values[0], dict):
            by_reason: Counter[str] = Counter()
            for reasons in filter(None, values):
                by_reason.update(reasons)
            total[name] = dict(by_reason)
        else:
            total[name] = sum(values)
    return total


def _events(batch: Batch, recorded: Recorded, written: dict[str, Status]) -> Report:
    """Count a job's events by what became of them: new row, duplicate, rejected, or not final yet.

    `written` collects the new rows, so that a second event of the same key counts as a duplicate.
    """
    count = {**_NONE, "events": batch.events}
    failed_by: dict[str, int] = {}
    skipped_by: dict[str, int] = {}
    refused: list[Rejected] = []
    rows: list[Outcome] = []
    for position, outcome in batch.outcomes:
        key, status = outcome.idempotency_key, outcome.status
        if not outcome.final:
            count["retrying"] += 1
        elif recorded.waiting and key in recorded.waiting:
            count["waiting"] += 1
        elif recorded.refused and outcome in recorded.refused:
            refused.append(_refusal(position, outcome, recorded.refused[outcome]))
        elif recorded.left_out and key in recorded.left_out:
            refused.append(Rejected(position, "$", _LEFT_OUT))
        elif key in recorded.inserted and key not in written:
            written[key] = status
            rows.append(outcome)
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
            if batch.past is Past.UNKNOWN and stored == status and key not in written:
                written[key] = status
                rows.append(outcome)
            if stored != status:
                count["conflicting"] += 1
                logs.warning(
                    "conflicting_duplicate", key=logs.token_hash(key), stored=stored, reported=status
                )
    rejected = sorted((*batch.rejected, *refused))
    count |= {"rejected": len(rejected), "failed_by": failed_by, "skipped_by": skipped_by}
    return Report(count, rejected, rows)


def _refusal(position: int, outcome: Outcome, constraint: str) -> Rejected:
    if parent := _PARENTS.get(constraint):
        which = str(getattr(outcome, constraint))
        if parent == "user":  # a person
            which = f"hash {logs.token_hash(which)}"
        return Rejected(position, f"$.{constraint}", f"there is no such {parent}: {which}")
    return Rejected(position, "$", f"PostgreSQL refuses the row: {constraint}")


def _plain(reason: str | None) -> str:
    # Free text of the producer's: what does not look like a name could be about a person.
    return reason if reason and _PLAIN_REASON.fullmatch(reason) else "other"
