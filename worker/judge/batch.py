"""A job's payloads, decoded and judged: the way in for all that records."""

from collections.abc import Sequence
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple

from ..events import InvalidEvent, Rejected, decode_all, decode_good
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


def judge_good(jobs: Sequence[object]) -> list[Batch]:
    """Judge some jobs' events at once, in half the time. Raises InvalidEvent if any is not good.

    Who is to blame the others then tell: `judge`, job by job.
    """
    lists = [_list(payloads) for payloads in jobs]
    outcomes = iter([fold(event) for event in decode_good([event for events in lists for event in events])])
    return [Batch(len(events), list(enumerate(islice(outcomes, len(events)))), []) for events in lists]


def judge(payloads: object) -> Batch:
    """Decode and classify a job's events; touches nothing outside. Raises InvalidEvent if it is no list."""
    events, rejected = decode_all(found := _list(payloads))
    return Batch(len(found), [(position, fold(event)) for position, event in events], rejected)


def _list(payloads: object) -> Sequence[object]:
    if not isinstance(payloads, list | tuple):
        raise InvalidEvent("$", f"expected a list of events, got {type(payloads).__name__}")
    return payloads
