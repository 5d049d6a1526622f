"""Take a peer mentor's events out of jobs in Redis: those that wait, run, failed, or were set aside.

A job that a worker has in hand is left as it is: the worker works on a copy, and RQ may save that back where
the job fails. So such a job is waited for, and everything looked at once more, until one look finds nothing.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from redis import Redis

from ..events import InvalidEvent, decode
from ..queue.contents import STARTED, Content, content, contents, in_hand, rewrite
from ..queue.plain import PeriodicCall, UntrustedJob, inflate, read_call

# After so many looks that each found some, events come in faster than they are taken out.
_LOOKS = 4
# A job that changes under one's hands is read again so often.
_TRIES = 10


@dataclass
class Found:
    """What there was of some mentors in Redis."""

    #: By the job's id: where it stood when it was found last, and how many events of theirs it carried.
    jobs: dict[bytes, tuple[str, int]] = field(default_factory=dict)
    #: The keys of those events.
    keys: set[str] = field(default_factory=set)
    #: Ids of jobs that could not be looked into, though they are ours and may be about them.
    unreadable: set[str] = field(default_factory=set)
    #: How many jobs were still in a worker's hands when the patience ended.
    running: int = 0
    #: The last look found some, too: they come in while they are taken out.
    endless: bool = False


def find(redis: Redis, mentors: Collection[UUID], queue: str) -> Found:
    """Look once, and change nothing. Raises redis.RedisError."""
    found = Found()
    for job in contents(redis):
        if theirs := _theirs(job, mentors, queue, found):
            _note(found, job, job.status, theirs[0])
    return found


def take_out(redis: Redis, mentors: Collection[UUID], queue: str, patience: float) -> Found:
    """Take their events out of all jobs; `patience`: seconds to wait for jobs that run.

    Raises redis.RedisError, with some jobs done; it may be repeated.
    """
    found = Found()
    deadline = time.monotonic() + patience
    for _ in range(_LOOKS):
        rewritten, running = _look(redis, mentors, queue, found)
        if not rewritten and not running:
            return found
        while running := in_hand(redis, running):
            if time.monotonic() > deadline:
                found.running = len(running)
                return found
            time.sleep(0.1)
    found.endless = True
    return found


def _look(redis: Redis, mentors: Collection[UUID], queue: str, found: Found) -> tuple[int, list[Content]]:
    """Rewrite every job that carries some of their events; returns how many, and those that run now."""
    rewritten, running = 0, []
    for seen in contents(redis):
        job: Content | None = seen
        for _ in range(_TRIES):
            if not job or not (theirs := _theirs(job, mentors, queue, found)):
                break
            removed, left = theirs
            try:
                state = rewrite(redis, job, left, without_meta=_mentions(job.meta, mentors))
            except UntrustedJob:
                found.unreadable.add(_name(job))
                break
            if state == STARTED:
                running.append(job)
                break
            if state != "changed":
                rewritten += 1
                _note(found, job, state, removed)
                break
            job = content(redis, job.raw_id)
    return rewritten, running


def _theirs(
    job: Content, mentors: Collection[UUID], queue: str, found: Found
) -> tuple[list[Any], list[Any]] | None:
    """The events of a job that are theirs, and the others; None: none is."""
    try:
        if job.data is None:
            raise UntrustedJob("too large")
        call = read_call(job.data)
    except UntrustedJob:
        # Another function's job is the app's own business, unless it lies in our queue.
        if job.data is None or (job.queue == queue and _mentions(_inflated(job.data), mentors)):
            found.unreadable.add(_name(job))
        return None
    if isinstance(call, PeriodicCall):
        return None
    events = list(call.events) if isinstance(call.events, list | tuple) else [call.events]
    marks = [_is_of(event, mentors) for event in events]
    if not any(marks):
        return None
    theirs = [event for event, mark in zip(events, marks, strict=True) if mark]
    return theirs, [event for event, mark in zip(events, marks, strict=True) if not mark]


def _is_of(event: Any, mentors: Collection[UUID]) -> bool:
    """Whether an event is about one of them; of what is no event, whether it names one anywhere."""
    if isinstance(event, dict) and (mentor := _uuid(event.get("peer_mentor_id"))):
        return mentor in mentors
    try:
        return _mentions(repr(event).encode(errors="replace"), mentors)
    except RecursionError:
        return False


def _uuid(value: Any) -> UUID | None:
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (ValueError, TypeError, AttributeError):
        return None


def _mentions(text: bytes, mentors: Collection[UUID]) -> bool:
    lowered = text.lower()
    return any(
        str(mentor).encode() in lowered or mentor.hex.encode() in lowered or mentor.bytes in text
        for mentor in mentors
    )


def _inflated(data: bytes) -> bytes:
    try:
        return inflate(data)
    except UntrustedJob:
        return b""


def _note(found: Found, job: Content, state: str, events: Sequence[Any]) -> None:
    found.jobs[job.raw_id] = state or "unknown", len(events)
    for event in events:
        try:
            found.keys.add(decode(event).key)
        except InvalidEvent:  # no reservation can be told by it
            continue


def _name(job: Content) -> str:
    """A job's id as `replay` takes it."""
    return job.raw_id.decode("latin-1").encode("unicode_escape").decode()
