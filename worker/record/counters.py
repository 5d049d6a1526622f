"""The numbers of all turns of all workers, added up in Redis: in all, and those of each day for three months.

Two kinds of hashes, name -> number, with the few names of `numbers`. Whoever can write there spoils numbers
and nothing else: no name is read that is not known, and what is no number counts for nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from redis import Redis, RedisError
from rq.defaults import RQ_KEY_PREFIX

from .numbers import BY_DAY, NAMES

#: The hash of the numbers in all; those of a day are beside it, see `counters.lua`.
KEY = f"{RQ_KEY_PREFIX}:notiflog:numbers"
#: How long a day's numbers are kept, the current one included.
DAYS = 90

#: Begins scripts that count along, with what `arguments` makes of numbers among their arguments.
LUA = Path(__file__).with_name("counters.lua")
_COUNT = LUA.read_text() + "count_numbers(KEYS[1], 1)"

_DAY = 24 * 3600
# No number that is really counted has more digits.
_DIGITS = 15
_BY_DAY = frozenset(BY_DAY)


def arguments(numbers: Mapping[str, int]) -> list[str | int]:
    """Numbers as the scripts take them."""
    by_day = [each for each in numbers.items() if each[1] and each[0] in _BY_DAY]
    others = [each for each in numbers.items() if each[1] and each[0] not in _BY_DAY]
    pairs = by_day + others
    return [DAYS * _DAY, len(by_day), len(pairs), *(part for pair in pairs for part in pair)]


def count(redis: Redis | None, numbers: Counter[str]) -> None:
    """Add numbers in one round trip, as well as Redis can. `redis`: see `impatient`. Never raises."""
    if redis is not None and numbers:
        with suppress(RedisError, OSError):
            redis.register_script(_COUNT)([KEY], arguments(numbers))


def read(redis: Redis) -> dict[str, int]:
    """The numbers in all, by every name there is. Raises redis.RedisError."""
    return _read(redis, [KEY], NAMES)[0]


def read_days(redis: Redis, days: int) -> dict[date, dict[str, int]]:
    """The numbers that are kept by the day, of today and so many days before in all. Raises redis.RedisError.

    A day is one of UTC, by the clock of Redis. Days on which nothing was counted are missing.
    """
    today = datetime.fromtimestamp(redis.time()[0], UTC).date()
    dates = [today - timedelta(days=back) for back in reversed(range(min(days, DAYS)))]
    first = date(1970, 1, 1)
    found = _read(redis, [f"{KEY}:day:{(day - first).days}" for day in dates], BY_DAY)
    return {day: numbers for day, numbers in zip(dates, found, strict=True) if any(numbers.values())}


def _read(redis: Redis, keys: Sequence[str], names: Sequence[str]) -> list[dict[str, int]]:
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(key, list(names))
        answers = pipeline.execute(raise_on_error=False)
    return [
        {name: _number(value) for name, value in zip(names, answer, strict=True)}
        if isinstance(answer, list)  # else somebody put another thing there
        else dict.fromkeys(names, 0)
        for answer in answers
    ]


def _number(stored: bytes | None) -> int:
    return int(stored) if stored and len(stored) <= _DIGITS and stored.isdigit() else 0
