"""The report as JSON: for programs, and all that is known."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ..queue.groups import Group as Cause
from .counted import as_json as counted_as_json
from .counts import Counts, Group, Missing, Report, Stopped, add
from .periods import Before
from .slots import day_bounds, part


def as_json(report: Report) -> dict[str, Any]:
    """Everything known, as JSON: chapters and rules worst first, the newest of the stopped jobs first."""
    since, made_at, timezone, outcomes, stopped, missing, counted, before, names = report
    return {
        "since": since.isoformat(),
        "made_at": made_at.isoformat(),
        "timezone": str(timezone),
        "total": _numbers(outcomes.total),
        "channels": {channel: _numbers(counts) for channel, counts in outcomes.by_channel().items()},
        "previous": before and _previous(before, outcomes.before or {}),
        "days": [
            {
                "day": day.isoformat(),
                "delivery_channel": channel,
                **_numbers(counts),
                "partial": bool(part(day_bounds(day, timezone), report)),
            }
            for (day, channel), counts in outcomes.days.items()
        ],
        **({} if outcomes.hours is None else {"hours": _hours(report, outcomes.hours)}),
        "chapters": [_group("chapter_id", group, names) for group in outcomes.chapters],
        "rules": [_group("scenario_rule_id", group, names) for group in outcomes.rules],
        "rows_may_be_hidden": outcomes.partial,
        "missing_prompts": missing and _missing(missing, made_at),
        "counted_by_workers": counted and counted_as_json(counted),
        "stopped_jobs": stopped and _stopped(stopped),
    }


def _group(column: str, group: Group, names: Mapping[UUID, str]) -> dict[str, Any]:
    name = {"name": names[group.id]} if group.id in names else {}
    return {column: str(group.id), **name, **_numbers(group.counts)}


def _previous(before: Before, channels: dict[str, Counts]) -> dict[str, Any]:
    return {
        "since": before.since.isoformat(),
        "until": before.until.isoformat(),
        "total": _numbers(add(channels.values())),
        "channels": {channel: _numbers(counts) for channel, counts in channels.items()},
    }


def _hours(report: Report, hours: dict[tuple[datetime, str], Counts]) -> list[dict[str, Any]]:
    return [
        {
            "hour": hour.astimezone(report.timezone).isoformat(),
            "delivery_channel": channel,
            **_numbers(counts),
            "partial": bool(part((hour, hour + timedelta(hours=1)), report)),
        }
        for (hour, channel), counts in hours.items()
    ]


def _missing(missing: Missing, now: datetime) -> dict[str, Any]:
    return {
        "total": missing.total,
        "oldest": [
            {
                **prompt._asdict(),
                "reserved_at": prompt.reserved_at.isoformat(),
                "age_seconds": int((now - prompt.reserved_at).total_seconds()),
            }
            for prompt in missing.oldest
        ],
    }


def _stopped(stopped: Stopped) -> dict[str, Any]:
    return {
        "failed": stopped.failed,
        "quarantined": stopped.quarantined,
        "causes": [_cause(cause) for cause in stopped.causes],
        "newest": [{**job._asdict(), "since": job.since and job.since.isoformat()} for job in stopped.newest],
    }


def _cause(cause: Cause) -> dict[str, Any]:
    first, last = cause.since or (None, None)
    return {
        "reason": cause.sample.reason,
        "why": cause.sample.why,
        "jobs": cause.jobs,
        "events": cause.events,
        "first": first and first.isoformat(),
        "last": last and last.isoformat(),
        "job_ids": cause.ids,
        "problems": dict(cause.problems.most_common()),
    }


def _numbers(counts: Counts) -> dict[str, int | float | None]:
    rate = counts.rate
    return {**counts._asdict(), "delivery_rate": rate if rate is None else round(rate, 4)}
