"""Jobs that stand nowhere: their hashes are there, but no list or registry names them, and nobody runs them.

It comes of a failover of Redis that lost writes, or of another RQ's maintenance: up to 1.16 it drops from the
started registry what no worker seems to hold.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from .keys import PREFIX, places
from .scripts import PLACES, script
from .workers import age

#: A job that was touched within so many seconds may be on its way from one place to the next.
QUIET = 60.0
# Statuses of a job that somebody is to run.
_PENDING = {b"queued", b"started", b"deferred", b"scheduled"}
# Keys a call of SCAN, ids a page of a list, and ids a script.
_KEYS, _IDS, _AT_ONCE = 1000, 5000, 100


class Lost(NamedTuple):
    """What a look through the keys of a Redis found."""

    #: Their ids, as they stand in Redis.
    ids: list[bytes]
    #: The share of the keys that was looked at, 1 if all were.
    share: float


def find_lost(redis: Any, queue: str, seconds: float = math.inf) -> Lost:
    """Look for jobs of `queue` that stand nowhere, for some `seconds` at most. Raises redis.RedisError."""
    until = time.monotonic() + seconds
    keys = redis.dbsize()
    standing = _standing(redis, queue, until)
    ids: list[bytes] = []
    looked_at, cursor = 0, -1
    while cursor and standing is not None:
        if time.monotonic() > until:
            return Lost(ids, min(looked_at / max(keys, 1), 0.99))
        cursor, page = redis.scan(max(cursor, 0), match=f"{PREFIX}:job:*", count=_KEYS, _type="hash")
        looked_at += _KEYS
        jobs = [key.removeprefix(f"{PREFIX}:job:".encode()) for key in page]
        ids += _nowhere(redis, queue, [job_id for job_id in jobs if job_id not in standing])
    return Lost(list(dict.fromkeys(ids)), 1.0 if standing is not None else 0.0)


def _standing(redis: Redis, queue: str, until: float) -> set[bytes] | None:
    """The ids in all places, as they were at some moment or another; None: there was no time to read them.

    Jobs that move meanwhile are told by the script; this only keeps their number small.
    """
    standing: set[bytes] = set()
    for key in places(queue):
        for page in _pages(redis, key):
            standing.update(page)
            if time.monotonic() > until:
                return None
    return standing


def _pages(redis: Any, key: str) -> Iterator[Iterable[bytes]]:
    read = {b"list": redis.lrange, b"zset": redis.zrange}.get(redis.type(key))
    start = 0
    while read and (page := read(key, start, start + _IDS - 1)):
        yield page
        yield (member.rpartition(b":")[0] for member in page if b":" in member)
        start += len(page)


def _nowhere(redis: Redis, queue: str, ids: Sequence[bytes]) -> Iterator[bytes]:
    """Of some ids, those of the queue's jobs that are to run and stand nowhere."""
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            fields = ("status", "origin", "enqueued_at", "started_at", "last_heartbeat")
            pipeline.hmget(f"{PREFIX}:job:".encode() + job_id, *fields)
        answers = pipeline.execute(raise_on_error=False)
    asked = iter(
        [
            job_id
            for job_id, fields in zip(ids, answers, strict=True)
            if isinstance(fields, list) and _is_pending(queue, *fields)
        ]
    )
    run = script(redis, Path(__file__).with_name("lost.lua"), PLACES)
    while some := list(islice(asked, _AT_ONCE)):
        yield from run(places(queue), some)


def _is_pending(queue: str, status: bytes | None, origin: bytes | None, *touched: bytes | None) -> bool:
    if status not in _PENDING or origin != queue.encode():
        return False
    ages = [age(moment) for moment in touched if moment]
    return all(seconds is None or seconds > QUIET for seconds in ages)
