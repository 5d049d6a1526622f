"""Is there a queue of that name? What is mistyped looks like an empty one."""

from itertools import islice

from redis import Redis

from .causes import plain
from .keys import PREFIX, QUEUE, failed_key, quarantine_key

_SHOWN = 10
_QUEUE = f"{PREFIX}:queue:"


def unknown_queue(redis: Redis, queue: str) -> str | None:
    """A sentence if nothing in Redis has to do with a queue of this name; ours may always be empty.

    Raises redis.RedisError.
    """
    keys = (_QUEUE + queue, failed_key(queue), quarantine_key(queue), f"{PREFIX}:workers:{queue}")
    if queue == QUEUE or redis.exists(*keys) or redis.sismember(f"{PREFIX}:queues", _QUEUE + queue):
        return None
    members = islice(redis.sscan_iter(f"{PREFIX}:queues"), _SHOWN)
    names = {plain(member.decode(errors="replace").removeprefix(_QUEUE)) for member in members}
    return f"no queue is called {plain(queue)}: is it one of {', '.join(sorted(names | {QUEUE}))}?"
