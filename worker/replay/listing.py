"""Stopped jobs as they are listed: one cause once, or every job, or all of it as JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from .. import NAME
from ..command import count, flow, say
from ..queue.causes import REASONS
from ..queue.groups import Group, group
from ..queue.stopped import StoppedJob

_SHOWN_REJECTED = 3  # problems of a group
_LONGEST_ID = 100  # characters


def list_as_json(stopped: Iterable[StoppedJob]) -> None:
    """Every job with every rejected event."""
    jobs = list(stopped)
    counts = Counter(job.reason for job in jobs)
    reasons = {reason: counts[reason] for reason in REASONS if counts[reason]}
    say(json.dumps({"stopped": len(jobs), "reasons": reasons, "jobs": [_plain(job) for job in jobs]}))


def list_each(stopped: Iterable[StoppedJob]) -> None:
    """Every job with every rejected event, for a reader."""
    jobs = list(stopped)
    _say_head(Counter(job.reason for job in jobs))
    for job in jobs:
        say_job(job)
    _say_remedy(len(jobs))


def list_causes(stopped: Iterable[StoppedJob], most: int) -> None:
    """What stopped jobs, `most` causes at most, each with how many jobs it stopped and some of them."""
    counts: Counter[str] = Counter()

    def counted() -> Iterator[StoppedJob]:
        for job in stopped:
            counts[job.reason] += 1
            yield job

    groups = group(counted())
    _say_head(counts)
    for one in groups[:most]:
        _say_group(one)
    if rest := counts.total() - sum(one.jobs for one in groups[:most]):
        say(f"\nand {rest:,} more: --verbose shows all, --limit N shows N causes")
    _say_remedy(counts.total())


def say_reasons(counts: Counter[str]) -> None:
    """How many jobs stopped for which reason."""
    for reason, meaning in REASONS.items():
        if counts[reason]:
            say(f"  {reason:<14}{counts[reason]:>8,}  {meaning}")


def say_job(job: StoppedJob, *, lines: bool = True) -> None:
    """One job; `lines`: with its rejected events."""
    since = _moment(job.since) if job.since else job.state
    say(f"\n{job.job_id[:_LONGEST_ID]}  {since}  {job.reason}  {_events(job.events)}".rstrip())
    flow(job.why, "  ")
    for line in job.rejected if lines else ():
        flow(line, "    ")


def _say_group(one: Group) -> None:
    if one.jobs == 1:
        say_job(one.sample, lines=False)
    else:
        since, events = one.period(_moment) or one.sample.state, _events(one.events or None)
        say(f"\n{one.jobs:,} jobs  {since}  {one.sample.reason}  {events}".rstrip())
        if not one.problems:
            flow(one.sample.why, "  ")
    for line in one.complaints(_SHOWN_REJECTED):
        flow(line, "    ")
    if one.jobs > 1:
        flow(one.named(_LONGEST_ID), "  jobs ")


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def _say_head(counts: Counter[str]) -> None:
    say(f"stopped jobs: {counts.total():,}")
    say_reasons(counts)


def _say_remedy(stopped: int) -> None:
    if stopped:
        say(f"\nreplay: python -m {NAME}.replay --all, or --reason REASON, or job ids")


def _events(events: int | None) -> str:
    return "" if events is None else count(events, "event")


def _plain(job: StoppedJob) -> dict[str, Any]:
    return {**job._asdict(), "since": job.since and job.since.isoformat()}
