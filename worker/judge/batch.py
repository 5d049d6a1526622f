"""A job's payloads, decoded and judged: the way in for all that records."""

from typing import NamedTuple

from ..events import InvalidEvent, Rejected, decode_all
from .classify import Outcome, fold


class Batch(NamedTuple):
    """One job's events, judged."""

    events: int
    #: Outcomes by the event's position in the job.
    outcomes: list[tuple[int, Outcome]]
    rejected: list[Rejected]


def judge(payloads: object) -> Batch:
    """Decode and classify a job's events; touches nothing outside. Raises InvalidEvent if it is no list."""
    if not isinstance(payloads, list | tuple):
        raise InvalidEvent("$", f"expected a list of events, got {type(payloads).__name__}")
    events, rejected = decode_all(payloads)
    return Batch(len(payloads), [(position, fold(event)) for position, event in events], rejected)
