"""The workers that listen on a queue, as they show in Redis. Loads nothing but the Redis client."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis import Redis, ResponseError

from .keys import PREFIX, leases_key

# RQ lets a worker's hash expire 60 seconds after the next heartbeat was due, whatever the worker does and
# however long that takes. Half of that is left to heartbeats that come a little late.
_OVERDUE = 30
# `rq cron` processes to look at, the last to give a sign first; its own jobs are how ours is known.
_CRONS = 20
_SWEEP = b".jobs.sweep_tokens"


class Seen(NamedTuple):
    """A worker as it shows in Redis."""

    name: str
    #: The container's or machine's name, as the worker sees it.
    host: str
    #: Seconds since its last heartbeat; None: it never sent one.
    age: float | None
    #: The next heartbeat is not overdue; a draining worker that is not suspended has its lease.
    fresh: bool


def listening(redis: Redis, queue: str) -> list[Seen]:
    """The workers that listen on a queue, by name; without those that ended or died long ago."""
    keys: list[bytes] = sorted(redis.smembers(f"{PREFIX}:workers:{queue}"))  # type: ignore[arg-type]
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.zrange(leases_key(queue), 0, -1, withscores=True)
        for key in keys:
            pipeline.hmget(key, "hostname", "last_heartbeat", "lease", "state")
            pipeline.ttl(key)
        (seconds, _), leases, *answers = pipeline.execute()
    alive = {holder for holder, until in leases if until > seconds}
    found = []
    for key, (host, heartbeat, lease, state), ttl in zip(keys, answers[::2], answers[1::2], strict=True):
        if ttl != -2:  # the key is there
            name = key.decode(errors="replace").removeprefix(f"{PREFIX}:worker:")
            held = lease is None or lease in alive or state == b"suspended"
            fresh = held and ttl > _OVERDUE
            found.append(Seen(name, (host or b"").decode(errors="replace"), age(heartbeat), fresh))
    return found


def cron_age(redis: Redis) -> float | None:
    """Seconds since the last heartbeat of an `rq cron` that enqueues our sweep; None: no such is alive."""
    try:
        names: Any = redis.zrevrange(f"{PREFIX}:cron_schedulers", 0, _CRONS - 1)
        ages = [cron for name in names if (cron := _cron_age(redis, name)) is not None]
    except ResponseError:  # somebody put another thing there
        return None
    return min(ages, default=None)


def _cron_age(redis: Any, name: bytes) -> float | None:
    key = f"{PREFIX}:cron_scheduler:".encode() + name
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.hget(key, "cron_jobs")  # the hash of a dead one expires
        pipeline.zscore(f"{PREFIX}:cron_schedulers", name)
        pipeline.time()
        jobs, heartbeat, (seconds, _) = pipeline.execute()
    return None if heartbeat is None or _SWEEP not in (jobs or b"") else max(0.0, seconds - heartbeat)


def age(moment: bytes | None) -> float | None:
    """Seconds since a moment as RQ writes it; None if it is none."""
    try:
        then = datetime.fromisoformat((moment or b"").decode())
        return max(0.0, (datetime.now(UTC) - then).total_seconds())
    except (ValueError, TypeError):  # TypeError: without an offset
        return None
