"""Which fields of a job's hash RQ can read: whoever writes to Redis can put anything there."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rq.job import JobStatus

#: Fields that nobody here reads: what to call, where to post, what whoever fetches the job would unpickle.
IGNORED = {
    b"success_callback_name",
    b"failure_callback_name",
    b"stopped_callback_name",
    b"webhooks",
    b"result",  # a legacy field, unpickled by whoever fetches the job
    b"exc_info",
}


_TIME = re.compile(
    rb"(?!0000)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6})?Z"
)


def _is_time(value: bytes) -> bool:
    if not _TIME.fullmatch(value):
        return False
    if value[8:10] <= b"28":  # a day of every month
        return True
    try:
        datetime.fromisoformat(value[:19].decode())
    except ValueError:
        return False
    return True


def _list(value: bytes) -> list[Any] | None:
    try:
        found = json.loads(value.decode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _is_intervals(value: bytes) -> bool:
    """Some seconds to wait, which RQ adds to the time: at least one number, thirty years at most."""
    seconds = _list(value)
    return bool(seconds) and all(type(one) in (int, float) and 0 <= one <= 1e9 for one in seconds or ())


def _is_ids(value: bytes) -> bool:
    ids = _list(value)
    return ids is not None and all(isinstance(one, str) and _is_id(one) for one in ids)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


_is_number = re.compile(rb"-?\d{1,12}").fullmatch
# More is no wish of anybody's: a job that repeats at once would keep its worker from all others.
_is_few = re.compile(rb"-?\d{1,3}").fullmatch
_is_id = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_is_status = re.compile("|".join(JobStatus).encode()).fullmatch

_READABLE: dict[Callable[[bytes], object], tuple[bytes, ...]] = {
    _is_time: (b"created_at", b"enqueued_at", b"started_at", b"ended_at", b"last_heartbeat"),
    _is_number: (
        b"timeout",
        b"result_ttl",
        b"failure_ttl",
        b"ttl",
        b"success_callback_timeout",
        b"failure_callback_timeout",
        b"stopped_callback_timeout",
        b"number_of_retries",
        b"retries_left",
        b"rate_limit_concurrency",
        b"enqueue_at_front",
        b"enqueue_at_front_on_retry",
        b"allow_dependency_failures",
    ),
    _is_status: (b"status",),
    _is_few: (b"repeats_left",),
    _is_intervals: (b"retry_intervals", b"repeat_intervals"),
    _is_ids: (b"dependency_ids",),
    _is_text: (
        b"origin",
        b"description",
        b"worker_name",
        b"group_id",
        b"rate_limit_key",
        b"dependency_id",
    ),
}
_CHECKS = {name: check for check, names in _READABLE.items() for name in names}
# Read by nobody, or with care.
_UNCHECKED = IGNORED | {b"data", b"meta"}
# RQ takes an empty field for one that is not there, except in these.
_NEVER_EMPTY = {
    b"success_callback_timeout",
    b"failure_callback_timeout",
    b"stopped_callback_timeout",
    b"enqueue_at_front",
}


def unreadable_field(fields: Mapping[bytes, bytes]) -> str | None:
    """Which field of a job's hash RQ could not read or work with, as a sentence; or None.

    RQ's worker ends, with exit status 0, on a job whose hash it cannot read.
    """
    for name, value in fields.items():
        check = _CHECKS.get(name)
        if check and (value or name in _NEVER_EMPTY) and not check(value):
            return f"field {name.decode()} cannot be read"
        if not check and name not in _UNCHECKED and not _is_text(name):
            return "a field's name is not text"
    return None
