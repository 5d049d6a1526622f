"""What `--since` means: the time to report on, by hour or by day, and the time before it. Pure."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple

# What is no longer than this is shown by hour.
_HOURS, _DAYS = 48, 2


class Before(NamedTuple):
    """The same time earlier: as many days or hours, and as far into them as now is into these."""

    since: datetime
    #: Not included.
    until: datetime
    #: Such as "the 7 days before".
    words: str


class Period(NamedTuple):
    """What to report on: everything since a moment."""

    since: datetime
    hourly: bool
    #: None: the calendar does not go back that far.
    before: Before | None


def period(since: str, now: datetime, timezone: tzinfo) -> Period:
    """What `--since` means at the moment `now`. Raises ValueError, or OverflowError: too long ago.

    `7d`: whole days, today being the last; `24h`: exactly these; a date: its first moment in `timezone`.
    A moment that lies ahead is no error here.
    """
    if match := re.fullmatch(r"([1-9][0-9]{0,4})h", since):
        span = timedelta(hours=int(match[1]))
        start = now - span
        words = _words(int(match[1]), "hour")
        return Period(start, int(match[1]) <= _HOURS, Before(start - span, start, words))
    today = now.astimezone(timezone).date()
    if match := re.fullmatch(r"([1-9][0-9]{0,4})d", since):
        first = today - timedelta(days=int(match[1]) - 1)
    else:
        first = date.fromisoformat(since)
    days = (today - first).days + 1
    start = datetime.combine(first, time.min, timezone)
    return Period(start, days <= _DAYS, _days_before(start, days, now, timezone))


def _days_before(start: datetime, days: int, now: datetime, timezone: tzinfo) -> Before | None:
    """By the clocks of `timezone`, whatever they did meanwhile."""
    span = timedelta(days=days)
    try:
        earlier, until = (start - span).astimezone(UTC), (now.astimezone(timezone) - span).astimezone(UTC)
    except OverflowError:
        return None
    return Before(earlier, until, _words(days, "day"))


def _words(n: int, what: str) -> str:
    return f"the {what} before" if n == 1 else f"the {n:,} {what}s before"
