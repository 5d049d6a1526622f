"""The brake on mass death: when most recent answers of a channel say "dead", keep the tokens.

A wrong project, a mixed-up environment or an app release that changed its identifiers makes every live device
look dead at once. All workers share their counts through Redis. Nothing is lost by keeping: a token that is
really dead is reported again by the next send.

Only answers that say something of their token count: a death notice, or an acceptance. Those that blame the
request or ask to try again say nothing, and as many as they may be, they must not outvote either.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from redis import Redis, RedisError
from rq.defaults import RQ_KEY_PREFIX

from .. import logs
from ..events import Channel
from ..judge.classify import Outcome

#: Answers of so many minutes count, the current one included.
MINUTES = 10
#: With fewer answers than this, a majority says nothing.
LEAST_ANSWERS = 50

#: Whose answers: sends and the sweep have credentials of their own, and each could drown the other's.
Source = Literal["sends", "sweep"]

_CHANNELS: tuple[Channel, ...] = get_args(Channel)
_SCRIPT = Path(__file__).with_name("brake.lua").read_text()


def held(
    redis: "Redis | None", alive: Counter[Channel], dead: Counter[Channel], source: Source = "sends"
) -> frozenset[Channel]:
    """Count a turn's answers; returns the channels on which nothing may be pruned for them.

    `alive`, `dead`: how many answers say so, by channel, see `tally`. `redis`: see `impatient`; None: there
    is no brake. One round trip, or none where no answer counts. When Redis does not answer, nobody knows what
    others saw: the tokens are kept. Never raises. Count each turn once, however often its rows are written.
    """
    if redis is None or not (alive or dead):
        return frozenset()
    try:
        recent_alive, recent_dead = _add(redis, source, alive, dead)
    except (RedisError, OSError) as error:
        if dead:
            logs.error("brake_blind", channels=sorted(dead), problem=type(error).__name__)
        return frozenset(dead)
    on = frozenset(channel for channel in dead if is_on(recent_alive[channel], recent_dead[channel]))
    for channel in sorted(on):
        answers = recent_alive[channel] + recent_dead[channel]
        logs.error(
            "brake_on",
            channel=channel,
            source=source,
            dead=recent_dead[channel],
            answers=answers,
            minutes=MINUTES,
            problem="most devices look dead, so their tokens are kept: is the project, the environment or an "
            "app release wrong? What is really dead is reported again by the next send",
        )
    return on


def recent(redis: Redis, source: Source) -> dict[Channel, tuple[int, int]]:
    """The recent answers of each channel as (alive, dead); counts nothing. Raises redis.RedisError."""
    alive, dead = _add(redis, source, Counter(), Counter())
    return {channel: (alive[channel], dead[channel]) for channel in _CHANNELS}


def is_on(alive: int, dead: int) -> bool:
    """Whether so many recent answers look like a mistake of ours: enough of them, and most say "dead"."""
    return alive + dead >= LEAST_ANSWERS and dead > alive


def tally(outcomes: Sequence[Outcome]) -> tuple[Counter[Channel], Counter[Channel]]:
    """How many answers say that their device is alive, and how many that it is dead, by channel."""
    alive = Counter([channel for outcome in outcomes for _, _, channel in outcome.alive])
    dead = Counter([notice.channel for outcome in outcomes for notice in outcome.stale])
    return alive, dead


def _add(
    redis: Redis, source: Source, alive: Counter[Channel], dead: Counter[Channel]
) -> tuple[dict[Channel, int], dict[Channel, int]]:
    names = [f"{channel}:{sign}" for sign in ("alive", "dead") for channel in _CHANNELS]
    numbers = [counts[channel] for counts in (alive, dead) for channel in _CHANNELS]
    arguments = [part for pair in zip(names, numbers, strict=True) for part in pair]
    recent = redis.register_script(_SCRIPT)([key(source)], [MINUTES, *arguments])
    half = len(_CHANNELS)
    return dict(zip(_CHANNELS, recent[:half], strict=True)), dict(zip(_CHANNELS, recent[half:], strict=True))


def key(source: Source) -> str:
    """The Redis hash of the recent answers."""
    return f"{RQ_KEY_PREFIX}:notiflog:answers:{source}"
