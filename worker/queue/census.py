"""How many jobs of a queue stand where, how long the oldest waits, and who works: plain numbers."""

from typing import Any, NamedTuple

from redis import Redis, ResponseError

from .keys import PREFIX, failed_key, quarantine_key
from .workers import Seen, age, listening


class Census(NamedTuple):
    """One queue as it stands in Redis at a moment."""

    waiting: int
    #: Seconds since the oldest of them was enqueued; None: none waits, or its hash does not tell.
    oldest: float | None
    #: In RQ's registry of started jobs.
    started: int
    failed: int
    quarantined: int
    workers: list[Seen]
    #: `rq suspend` holds all workers of this Redis.
    suspended: bool


def census(redis: Redis, queue: str) -> Census:
    """Count what there is of a queue, in three round trips. Raises redis.RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.llen(f"{PREFIX}:queue:{queue}")
        pipeline.lindex(f"{PREFIX}:queue:{queue}", 0)
        pipeline.zcard(f"{PREFIX}:wip:{queue}")
        pipeline.zcard(failed_key(queue))
        pipeline.llen(quarantine_key(queue))
        pipeline.exists(f"{PREFIX}:suspended")
        waiting, first, started, failed, quarantined, suspended = pipeline.execute()
    oldest = None if first is None else age(_enqueued_at(redis, first))
    workers = listening(redis, queue)
    return Census(waiting, oldest, started, failed, quarantined, workers, bool(suspended))


def _enqueued_at(redis: Any, job_id: bytes) -> bytes | None:
    try:
        moment = redis.hget(f"{PREFIX}:job:".encode() + job_id, "enqueued_at")
    except ResponseError:  # not a job
        return None
    return moment if isinstance(moment, bytes) else None
