"""Why pushes failed, and what became of dead tokens: what the workers counted in Redis, by the day.

The log table knows prompts and their statuses only. These are answers, one for each token; a day is one of
UTC, the one on which a worker recorded them.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from redis import Redis

from ..record import counters
from ..record.numbers import ANSWERS, CHANNELS
from ..record.prune import FATES


class Why(NamedTuple):
    """The answers of one kind that were no acceptance."""

    channel: str
    reason: str
    #: What they prove about the token.
    evidence: str
    #: How many there were, by day; days without any are missing.
    days: dict[date, int]

    @property
    def answers(self) -> int:
        """How many there were."""
        return sum(self.days.values())


class Fates(NamedTuple):
    """What became of the dead tokens of one day and channel."""

    day: date
    channel: str
    #: By what became of them, in the order of `FATES`.
    tokens: tuple[int, ...]


class Counted(NamedTuple):
    """What was counted from one day to another, both included."""

    since: date
    until: date
    #: How many answers were acceptances.
    accepted: int
    #: The most frequent first.
    whys: list[Why]
    #: In order; what had no dead token is missing.
    fates: list[Fates]

    @property
    def failed(self) -> int:
        """How many answers were no acceptances."""
        return sum([why.answers for why in self.whys])

    def calendar(self) -> list[date]:
        """Every day of it, in order."""
        return [self.since + timedelta(days=back) for back in range((self.until - self.since).days + 1)]

    def fates_by_channel(self) -> dict[str, tuple[int, ...]]:
        """What became of the dead tokens of each channel that has any."""
        by_channel = {
            name: [each.tokens for each in self.fates if each.channel == name] for name in sorted(CHANNELS)
        }
        return {name: tuple(map(sum, zip(*mine, strict=True))) for name, mine in by_channel.items() if mine}


def read_counted(redis: Redis, since: datetime) -> Counted:
    """What the workers counted on the day of `since` and later, as far back as that is kept.

    Raises redis.RedisError.
    """
    today = datetime.fromtimestamp(redis.time()[0], UTC).date()
    wanted = (today - since.astimezone(UTC).date()).days + 1
    days = max(1, min(wanted, counters.DAYS))
    found = counters.read_days(redis, days)
    accepted, whys = 0, []
    for channel, reason, evidence in ANSWERS:
        name = f"results:{channel}:{reason}:{evidence}"
        by_day = {day: numbers[name] for day, numbers in found.items() if numbers[name]}
        if evidence == "accepted":
            accepted += sum(by_day.values())
        elif by_day:
            whys.append(Why(channel, reason, evidence, by_day))
    whys.sort(key=lambda why: (-why.answers, why.channel, why.reason))
    return Counted(today - timedelta(days=days - 1), today, accepted, whys, list(_fates(found)))


def _fates(found: dict[date, dict[str, int]]) -> Iterator[Fates]:
    for day, numbers in found.items():
        for channel in sorted(CHANNELS):
            tokens = tuple([numbers[f"tokens:{channel}:{fate}"] for fate in FATES])
            if any(tokens):
                yield Fates(day, channel, tokens)


def as_json(counted: Counted) -> dict[str, Any]:
    """All of it, as JSON."""
    return {
        "since": counted.since.isoformat(),
        "until": counted.until.isoformat(),
        "timezone": "UTC",
        "answers": {"accepted": counted.accepted, "failed": counted.failed},
        "why_failed": [
            {
                "delivery_channel": why.channel,
                "reason": why.reason,
                "evidence": why.evidence,
                "answers": why.answers,
                "days": [{"day": day.isoformat(), "answers": answers} for day, answers in why.days.items()],
            }
            for why in counted.whys
        ],
        "dead_tokens": [
            {
                "day": each.day.isoformat(),
                "delivery_channel": each.channel,
                **dict(zip(FATES, each.tokens, strict=True)),
            }
            for each in counted.fates
        ],
    }
