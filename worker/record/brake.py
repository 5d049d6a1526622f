"""The brake on mass death: when most recent answers of a channel say "dead", keep the tokens.

A wrong project, a mixed-up environment or an app release that changed its identifiers makes every live device
look dead at once. All workers share their counts through Redis. Nothing is lost by keeping: a token that is
really dead is reported again by the next send.

Only answers that say something of their token count: a death notice, or an acceptance. Those that blame the
request or ask to try again say nothing, and as many as they may be, they must not outvote either.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from redis import Redis, RedisError
from rq.defaults import RQ_KEY_PREFIX

from .. import logs
from ..events import Channel
from ..judge.classify import Outcome

#: Answers of so many minutes count, the current one included,
MINUTES = 10
#: or, where those are fewer than this, of as many hours as hold enough: a week's at most.
LEAST_ANSWERS = 50
_HOURS = 7 * 24

#: Whose answers: sends and the sweep have credentials of their own, and each could drown the other's.
Source = Literal["sends", "sweep"]

_CHANNELS: tuple[Channel, ...] = get_args(Channel)
_SCRIPT = Path(__file__).with_name("brake.lua").read_text()


class Recent(NamedTuple):
    """The recent answers of a channel."""

    alive: int
    dead: int
    #: How many minutes they are of.
    minutes: int
    #: Death notices of the current minute.
    dead_now: int


class Hold(NamedTuple):
    """What holds for the death notices of one turn."""

    #: Channels on which nothing may be pruned for them.
    channels: frozenset[Channel] = frozenset()
    #: How many notices of the same minute came before this turn's.
    before: Mapping[Channel, int] = MappingProxyType({})


def hold(
    redis: "Redis | None",
    alive: Counter[Channel],
    dead: Counter[Channel],
    source: Source = "sends",
    again: Collection[Channel] = (),
) -> Hold:
    """Count a turn's answers; returns what holds for its death notices.

    `alive`, `dead`: how many answers say so, by channel, see `tally`. `redis`: see `impatient`; None: there
    is no brake. `again`: channels of death notices that were counted before, and are acted on now. One round
    trip, or none where nothing counts. When Redis does not answer, nobody knows what others saw: the tokens
    are kept. Never raises. Count each answer once, however often its row is written.
    """
    asked = frozenset(dead) | frozenset(again)
    if redis is None or not (alive or asked):
        return Hold()
    try:
        recent = _add(redis, source, alive, dead)
    except (RedisError, OSError) as error:
        if asked:
            logs.error("brake_blind", channels=sorted(asked), problem=type(error).__name__)
        return Hold(asked)
    on = frozenset(channel for channel in asked if is_on(recent[channel].alive, recent[channel].dead))
    for channel in sorted(on):
        seen = recent[channel]
        logs.error(
            "brake_on",
            channel=channel,
            source=source,
            dead=seen.dead,
            answers=seen.alive + seen.dead,
            minutes=seen.minutes,
            problem="most devices look dead, so their tokens are kept: is the project, the environment or an "
            "app release wrong? What is really dead is reported again by the next send",
        )
    return Hold(on, {channel: recent[channel].dead_now - dead[channel] for channel in asked})


def recent(redis: Redis, source: Source) -> dict[Channel, Recent]:
    """The recent answers of each channel; counts nothing. Raises redis.RedisError."""
    return _add(redis, source, Counter(), Counter())


def is_on(alive: int, dead: int) -> bool:
    """Whether so many recent answers look like a mistake of ours: enough of them, and most say "dead"."""
    return alive + dead >= LEAST_ANSWERS and dead > alive


def tally(outcomes: Sequence[Outcome]) -> tuple[Counter[Channel], Counter[Channel]]:
    """How many answers say that their device is alive, and how many that it is dead, by channel."""
    alive = Counter([channel for outcome in outcomes for _, _, channel in outcome.alive])
    dead = Counter([notice.channel for outcome in outcomes for notice in outcome.stale])
    return alive, dead


def _add(
    redis: Redis,
    source: Source,
    alive: Mapping[Channel, int],
    dead: Mapping[Channel, int],
) -> dict[Channel, Recent]:
    arguments: list[str | int] = [MINUTES, LEAST_ANSWERS, _HOURS]
    for channel in _CHANNELS:
        arguments += [f"{channel}:alive", alive.get(channel, 0), f"{channel}:dead", dead.get(channel, 0)]
    answers = redis.register_script(_SCRIPT)([key(source)], arguments)
    return {channel: Recent(*map(int, found)) for channel, found in zip(_CHANNELS, answers, strict=True)}


def key(source: Source) -> str:
    """What the keys of the recent answers in Redis begin with."""
    return f"{RQ_KEY_PREFIX}:notiflog:answers:{source}"
