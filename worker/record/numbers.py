"""What a turn's outcomes are in numbers, by few and fixed names; pure. `counters` keeps them in Redis.

A name is a family and its labels, joined by colons: `results:fcm:unregistered:proven_dead`. No name is made
of data: whoever sends events cannot make more names than there are here.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise, product
from typing import Any, NamedTuple, get_args

import psycopg

from ..events import Channel
from ..judge.classify import FID_SENT_AS_TOKEN, LIVE_ACTIVITY_ENDED, Outcome, Status, Verdict
from ..judge.rules import APNS_RULES, FCM_RULES
from .prune import FATES, Pruned

CHANNELS: tuple[Channel, ...] = get_args(Channel)
STATUSES: tuple[Status, ...] = get_args(Status)
#: Classes of SQLSTATE, as words.
FAULTS = {
    "08": "connection",
    "25": "read_only",
    "28": "authorization",
    "40": "rollback",
    "42": "schema",
    "53": "resources",
    "55": "locked",
    "57": "operator",
    "58": "system",
}
OTHER_FAULT = "other"


class Histogram(NamedTuple):
    """A family of numbers that says how long something takes, in seconds."""

    name: str
    bounds: tuple[float, ...]

    @property
    def buckets(self) -> list[str]:
        """The names of its buckets, each with what is above the bound before, and at last above all."""
        return [f"{self.name}:le:{bound:g}" for bound in self.bounds] + [f"{self.name}:le:inf"]

    @property
    def total(self) -> str:
        """The name of the sum of all it saw, in milliseconds."""
        return f"{self.name}:ms"

    @property
    def names(self) -> list[str]:
        """All its names."""
        return [*self.buckets, self.total]

    def of(self, seconds: Sequence[float]) -> Counter[str]:
        """What it makes of some durations; what seems to end before it began took no time."""
        # Sorted once: a bound is looked for among the durations, not each of them among the bounds.
        ordered = sorted(seconds)
        ends = [0, *(bisect_right(ordered, bound) for bound in self.bounds), len(ordered)]
        counted = Counter(
            {name: end - begin for name, (begin, end) in zip(self.buckets, pairwise(ends), strict=True)}
        )
        counted[self.total] = round(1000 * sum([each for each in ordered if each > 0]))
        return counted


#: From a turn's claim, or a job's start, to its commit.
TURN = Histogram("turn", (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60))
#: From `attempted_at` to the commit of the row.
LAG = Histogram("lag", (1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600))


def _answers() -> list[tuple[Channel, str, str]]:
    """Every reason that an answer can have, with what it proves, by channel."""
    others = (LIVE_ACTIVITY_ENDED, FID_SENT_AS_TOKEN)
    verdicts: dict[Channel, Iterable[Verdict]] = {
        "fcm": [*(Verdict(rule.reason, rule.evidence) for rule in FCM_RULES), *others],
        "apns": [*(Verdict(rule.reason, rule.evidence) for rule in APNS_RULES), *others],
    }
    return [
        answer
        for channel, mine in verdicts.items()
        for answer in dict.fromkeys((channel, verdict.reason, verdict.evidence.value) for verdict in mine)
    ]


ANSWERS = _answers()
TOKENS = list(product(CHANNELS, FATES))

#: What is also kept by the day.
BY_DAY = tuple(
    [f"results:{':'.join(each)}" for each in ANSWERS] + [f"tokens:{':'.join(each)}" for each in TOKENS]
)
#: Every name there is.
NAMES = (
    *BY_DAY,
    *(f"outcomes:{channel}:{status}" for channel, status in product(CHANNELS, STATUSES)),
    "duplicates:agreeing",
    "duplicates:conflicting",
    "rejected",
    *TURN.names,
    *LAG.names,
    *(f"faults:{word}" for word in (*FAULTS.values(), OTHER_FAULT)),
)


def of_turn(
    answered: Sequence[Outcome],
    rows: Sequence[Outcome],
    summary: Mapping[str, Any],
    became: Pruned,
    withheld: frozenset[str],
) -> Counter[str]:
    """The numbers of a turn whose rows are committed just now.

    `answered`: its outcomes whose answers are not counted yet. `rows`: see `Report`. `summary`: the sum of
    its jobs'. `became`, `withheld`: what became of its dead tokens.
    """
    numbers = _named("outcomes", [(row.delivery_channel, row.status) for row in rows])
    if rows:
        now = datetime.now(UTC)
        numbers += LAG.of([(now - row.delivered_at).total_seconds() for row in rows])
    own = len(rows) - sum([summary[status] for status in STATUSES])
    numbers["duplicates:conflicting"] = summary["conflicting"]
    numbers["duplicates:agreeing"] = summary["duplicates"] - summary["conflicting"] - own
    numbers["rejected"] = summary["rejected"]
    # Nearly all answers are acceptances: of these only the channels are looked at, without unpacking each.
    accepted = Counter([answer[2] for each in answered for answer in each.alive])
    answers = Counter({(channel, "accepted", "accepted"): count for channel, count in accepted.items()})
    failures = [failure for each in answered for failure in each.failures]
    answers.update([(each.channel, each.verdict.reason, each.verdict.evidence) for each in failures])
    numbers += _named("results", answers)
    dead = {notice.token: notice.channel for each in answered for notice in each.stale}
    if dead:
        fates = became.fates(withheld).items()
        numbers += _named(
            "tokens", [(dead[each], fate) for fate, those in fates for each in dead.keys() & those]
        )
    return numbers


def of_duration(seconds: float) -> Counter[str]:
    """The numbers of a turn that took so long."""
    return TURN.of([seconds])


def of_fault(error: psycopg.Error) -> str:
    """The name under which a fault of PostgreSQL is counted."""
    return f"faults:{FAULTS.get((error.sqlstate or '08')[:2], OTHER_FAULT)}"


def _named(family: str, labels: Iterable[tuple[str, ...]]) -> Counter[str]:
    return Counter({":".join((family, *each)): count for each, count in Counter(labels).items()})
