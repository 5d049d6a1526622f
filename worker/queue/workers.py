"""The workers that listen on a queue, as they show in Redis. Loads nothing but the Redis client."""

from datetime import UTC, datetime
from typing import NamedTuple

from redis import Redis

from .keys import PREFIX

# RQ lets a worker's hash expire 60 seconds after the next heartbeat was due, whatever the worker does and
# however long that takes. Half of that is left to heartbeats that come a little late.
_OVERDUE = 30


class Seen(NamedTuple):
    """A worker as it shows in Redis."""

    name: str
    #: The container's or machine's name, as the worker sees it.
    host: str
    #: Seconds since its last heartbeat; None: it never sent one.
    age: float | None
    #: The next heartbeat is not overdue.
    fresh: bool


def listening(redis: Redis, queue: str) -> list[Seen]:
    """The workers that listen on a queue, by name; without those that ended or died long ago."""
    keys: list[bytes] = sorted(redis.smembers(f"{PREFIX}:workers:{queue}"))  # type: ignore[arg-type]
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(key, "hostname", "last_heartbeat")
            pipeline.ttl(key)
        answers = pipeline.execute()
    found = []
    for key, (host, heartbeat), ttl in zip(keys, answers[::2], answers[1::2], strict=True):
        if ttl != -2:  # the key is there
            name = key.decode(errors="replace").removeprefix(f"{PREFIX}:worker:")
            found.append(Seen(name, (host or b"").decode(errors="replace"), age(heartbeat), ttl > _OVERDUE))
    return found


def age(moment: bytes | None) -> float | None:
    """Seconds since a moment as RQ writes it; None if it is none."""
    try:
        then = datetime.fromisoformat((moment or b"").decode())
        return max(0.0, (datetime.now(UTC) - then).total_seconds())
    except (ValueError, TypeError):  # TypeError: without an offset
        return None
