"""The figures of a report: outcomes counted by day, channel, chapter and rule, and the jobs that stopped.

Reads only. Chapters and rules are ids here: their names belong to the app, see `names`. Why single pushes
failed the log table does not know: see `counted`.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, tzinfo
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from ..queue.groups import Group as Cause
from ..queue.stopped import StoppedJob
from .counted import Counted
from .periods import Before


class Counts(NamedTuple):
    """How many prompts ended which way."""

    delivered: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def sent(self) -> int:
        """Prompts that went out, accepted or not."""
        return self.delivered + self.failed

    @property
    def rate(self) -> float | None:
        """The share of the sent prompts that was delivered, 0 to 1; None: nothing was sent."""
        return self.delivered / self.sent if self.sent else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the rate lies, as far as so few or many prompts tell (Wilson's interval, 95 %)."""
        if not self.sent:
            return 0.0, 1.0
        z, n = 1.96, self.sent
        share = self.delivered / n
        middle = share + z * z / (2 * n)
        spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        scale = 1 + z * z / n
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


#: The statuses of the log, in the order in which they are shown.
STATUSES = Counts._fields


class Group(NamedTuple):
    """The outcomes of one chapter or one rule."""

    id: UUID
    counts: Counts


class Outcomes(NamedTuple):
    """What the log holds since a moment."""

    #: By day and channel, in order; days without a row are missing.
    days: dict[tuple[date, str], Counts]
    #: Worst first.
    chapters: list[Group]
    rules: list[Group]
    #: Row level security applies to the reader, who may not see every row.
    partial: bool
    #: By the moment at which an hour began, and by channel, in order; None: not asked for.
    hours: dict[tuple[datetime, str], Counts] | None = None
    #: By channel, in the time before; None: not asked for.
    before: dict[str, Counts] | None = None

    @property
    def total(self) -> Counts:
        """All of them."""
        return add(self.days.values())

    @property
    def ids(self) -> set[UUID]:
        """Of all chapters and rules."""
        return {group.id for group in (*self.chapters, *self.rules)}

    def by_channel(self) -> dict[str, Counts]:
        """The outcomes of each channel, in order of their names."""
        channels = defaultdict(list)
        for (_, channel), counts in self.days.items():
            channels[channel].append(counts)
        return {channel: add(channels[channel]) for channel in sorted(channels)}


class Stopped(NamedTuple):
    """The jobs that failed or were set aside, as they are now, however old."""

    failed: int
    quarantined: int
    #: LISTED of them: the quarantined, then the newest.
    newest: list[StoppedJob]
    #: What stopped all of them, the latest first; where causes are too many, some jobs are in none.
    causes: list[Cause]

    @property
    def total(self) -> int:
        """How many there are, listed or not."""
        return self.failed + self.quarantined

    def beyond(self, causes: int) -> int:
        """How many jobs the first `causes` causes leave out."""
        return self.total - sum([cause.jobs for cause in self.causes[:causes]])


class Reserved(NamedTuple):
    """A prompt that was reserved and never reported."""

    #: The first 12 hex digits of the SHA-256 of its idempotency key, as in the log lines.
    key: str
    #: When it was first reserved.
    reserved_at: datetime
    #: How often it was reserved; above 1, its push may have gone out more than once.
    holds: int


class Missing(NamedTuple):
    """The prompts that were reserved an hour ago or longer and are not recorded, as they are now."""

    total: int = 0
    #: The oldest of them, see `reading.LISTED`.
    oldest: Sequence[Reserved] = ()


class Report(NamedTuple):
    """Everything there is to show."""

    since: datetime
    made_at: datetime
    timezone: tzinfo
    outcomes: Outcomes
    #: None: unknown, Redis is away.
    stopped: Stopped | None
    #: None: unknown, the role may not see them, or a migration is pending.
    missing: Missing | None = Missing()
    #: None: unknown, Redis is away.
    counted: Counted | None = None
    #: The time to compare with; None: there is none.
    before: Before | None = None
    #: Of chapters and rules, as they were read; some may have none.
    names: Mapping[UUID, str] = MappingProxyType({})


def worst_first(groups: Iterable[Group]) -> list[Group]:
    """Order by what is proven: one failure of one prompt is no worse than a thousand of two thousand.

    The measure is the upper end of the interval, the best that the rate may be.
    """
    return sorted(groups, key=lambda group: (group.counts.interval[1], -group.counts.sent, group.id))


def add(counts: Iterable[Counts]) -> Counts:
    """The sum of some counts."""
    return Counts(*map(sum, zip(Counts(), *counts, strict=True)))


def percent(counts: Counts) -> str:
    """The delivery rate for people; never rounded up to 100 %, never down to 0."""
    if counts.rate is None:
        return "-"
    rounded = round(100 * counts.rate, 1)
    if counts.failed and counts.delivered:
        rounded = min(max(rounded, 0.1), 99.9)
    return f"{rounded:.1f} %"


def ago(past: datetime, now: datetime) -> str:
    """How long ago something was, for people: in hours, from two days on in days."""
    hours = int((now - past).total_seconds() // 3600)
    return f"{hours} h ago" if hours < 48 else f"{hours // 24:,} days ago"


def minute(moment: datetime, timezone: tzinfo) -> str:
    """A moment for people, as the clocks of `timezone` show it."""
    return f"{moment.astimezone(timezone):%Y-%m-%d %H:%M}"
