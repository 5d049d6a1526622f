"""A job's payloads, decoded and judged: the way in for all that records."""

from collections.abc import Sequence
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple

from ..events import InvalidEvent, Rejected, decode_all
from .classify import Outcome, fold


class Past(Enum):
    """What a job may have been through before."""

    #: Nothing: this is its first run.
    NONE = auto()
    #: This worker wrote it, as far as somebody's lock let it, and counted that.
    WRITTEN = auto()
    #: It was in flight: its worker may have died, after the commit even, and before it was counted.
    UNKNOWN = auto()


class Batch(NamedTuple):
    """One job's events, judged."""

    events: int
    #: Outcomes by the event's position in the job.
    outcomes: list[tuple[int, Outcome]]
    rejected: list[Rejected]
    past: Past = Past.NONE


def judge_good(jobs: Sequence[list[object]]) -> list[Batch]:
    """Judge some jobs' events at once, in half the time. Raises InvalidEvent if any is not good.

    Who is to blame the others then tell: `judge`, job by job.
    """
    events, rejected = decode_all([payload for payloads in jobs for payload in payloads])
    if rejected:
        raise InvalidEvent("$", "some job has an event that is not good")
    outcomes = iter([fold(event) for _, event in events])
    return [Batch(len(payloads), list(enumerate(islice(outcomes, len(payloads)))), []) for payloads in jobs]


def judge(payloads: object) -> Batch:
    """Decode and classify a job's events; touches nothing outside. Raises InvalidEvent if it is no list."""
    if not isinstance(payloads, list | tuple):
        raise InvalidEvent("$", f"expected a list of events, got {type(payloads).__name__}")
    events, rejected = decode_all(payloads)
    return Batch(len(payloads), [(position, fold(event)) for position, event in events], rejected)
