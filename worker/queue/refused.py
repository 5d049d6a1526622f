"""The events of a stopped job that were rejected, out of its data: read within bounds, written as JSON."""

import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from redis import Redis

from .causes import rejected_positions
from .keys import raw_id
from .plain import RecordCall, UntrustedJob, read_call
from .stopped import StoppedJob, hashes, look

# Characters of one event's JSON. A pickle may repeat a part of itself without end.
_LARGEST = 4 << 20
_CHANGED = "may be rejected: the job has lost some events since"


class Refused(NamedTuple):
    """One rejected event."""

    position: int
    #: "[17] $.results[0].token: contains a NUL character", or why nothing is known.
    line: str
    #: The event as JSON, token and all; None: it is no JSON, or too large.
    event: str | None


def refused_events(redis: Redis, job: StoppedJob) -> Iterator[Refused]:
    """The rejected events of a failed job, in order; none where its data is gone or cannot be read.

    Raises redis.RedisError.
    """
    seen = look(redis, [raw_id(job.job_id)])
    for one, fields in hashes(redis, seen):
        events = _events(fields)
        lines = dict(rejected_positions(one.error))
        if lines and len(events) != job.events:  # somebody was erased: the numbers are others' now
            lines = dict.fromkeys(range(len(events)), _CHANGED)
        for position, line in lines.items():
            if position < len(events):
                yield Refused(position, f"[{position}] {line}", _to_json(events[position]))


def _events(fields: Mapping[bytes, bytes]) -> list[Any] | tuple[Any, ...]:
    try:
        call = read_call(fields.get(b"data", b""))
    except UntrustedJob:
        return []
    return call.events if isinstance(call, RecordCall) and isinstance(call.events, list | tuple) else []


def _to_json(event: Any) -> str | None:
    parts, size = [], 0
    try:
        for part in _encoder.iterencode(event):
            parts.append(part)
            size += len(part)
            if size > _LARGEST:
                return None
    except (TypeError, ValueError, RecursionError):  # a key that is no text, or a part of itself
        return None
    return "".join(parts)


def _plain(value: Any) -> str:
    """The text of what a payload of Python's may hold besides JSON's types."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    raise TypeError


_encoder = json.JSONEncoder(default=_plain, allow_nan=False)
