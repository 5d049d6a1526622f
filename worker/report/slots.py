"""The time of a report, cut into days or hours as the clocks of its time zone have them. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import NamedTuple, TypeVar

from .counts import Counts, Report, add

# Days. "Since 2000" means the beginning, and no thousand empty days before it.
_LONG = 366
_HOUR = timedelta(hours=1)

At = TypeVar("At", date, datetime)


class Slot(NamedTuple):
    """A day or an hour."""

    #: "2026-11-26", "2026-11-26 14:00"; where the clocks show an hour twice, with its offset.
    label: str
    #: Which part of it the report is about: "until 14:05", "from 14:23", "14:05 to 14:23"; "": all of it.
    part: str
    #: Its outcomes by channel; {}: none.
    channels: dict[str, Counts]

    @property
    def total(self) -> Counts:
        """The outcomes of all channels."""
        return add(self.channels.values())

    @property
    def marked(self) -> str:
        """The label, and the part that it has of the day or hour."""
        return f"{self.label} ({self.part})" if self.part else self.label


def slots(report: Report) -> list[Slot]:
    """All of them, in order: one without any outcome says something, too. By hour where hours were read."""
    timezone = report.timezone
    if report.outcomes.hours is None:
        days = _by_slot(report.outcomes.days)
        return [
            Slot(str(day), part(day_bounds(day, timezone), report), days.get(day, {}))
            for day in _days(report, days)
        ]
    hours = _by_slot(report.outcomes.hours)
    calendar = _hours(report, hours)
    shown = Counter(_clock(hour, timezone) for hour in calendar)
    return [
        Slot(
            label if shown[label := _clock(hour, timezone)] == 1 else _offset(hour, timezone),
            part((hour, hour + _HOUR), report),
            hours.get(hour, {}),
        )
        for hour in calendar
    ]


def not_whole(found: Iterable[Slot], what: str) -> str:
    """A sentence on the slots that are only partly in the report, as `what` draws them; "" for none."""
    marked = [slot.marked for slot in found if slot.part]
    return f"{what}, as only a part of it is in the report: {', '.join(marked)}." if marked else ""


def hour_of(moment: datetime, timezone: tzinfo) -> datetime:
    """When the hour began that the clocks of `timezone` showed, in UTC; some are half an hour off."""
    local = moment.astimezone(timezone)
    since = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return moment.astimezone(UTC) - since


def day_bounds(day: date, timezone: tzinfo) -> tuple[datetime, datetime]:
    """The first moments of a day and of the next: 23, 24 or 25 hours."""
    return datetime.combine(day, time.min, timezone), datetime.combine(
        day + timedelta(days=1), time.min, timezone
    )


def part(bounds: tuple[datetime, datetime], report: Report) -> str:
    """Which part of what is between these moments the report is about, see `Slot.part`."""
    start, end = bounds
    late, soon = start < report.since < end, start <= report.made_at < end
    first, last = (f"{moment.astimezone(report.timezone):%H:%M}" for moment in (report.since, report.made_at))
    if late and soon:
        return f"{first} to {last}"
    return f"from {first}" if late else f"until {last}" if soon else ""


def _days(report: Report, recorded: Iterable[date]) -> list[date]:
    today = report.made_at.astimezone(report.timezone).date()
    first = report.since.astimezone(report.timezone).date()
    if (today - first).days > _LONG:
        first = min(recorded, default=today)
    every = {first + timedelta(days=number) for number in range((today - first).days + 1)}
    return sorted(every.union(recorded))


def _hours(report: Report, recorded: Iterable[datetime]) -> list[datetime]:
    def every() -> Iterator[datetime]:
        hour = hour_of(report.since, report.timezone)
        while hour < report.made_at:
            yield hour
            # Where clocks move by half an hour it is not on the hour.
            hour = hour_of(hour + _HOUR, report.timezone)

    return sorted({*every(), *recorded})


def _by_slot(counted: Mapping[tuple[At, str], Counts]) -> dict[At, dict[str, Counts]]:
    found: dict[At, dict[str, Counts]] = {}
    for (at, channel), counts in counted.items():
        found.setdefault(at, {})[channel] = counts
    return found


def _clock(hour: datetime, timezone: tzinfo) -> str:
    return f"{hour.astimezone(timezone):%Y-%m-%d %H:%M}"


def _offset(hour: datetime, timezone: tzinfo) -> str:
    return hour.astimezone(timezone).isoformat(" ", "minutes")
