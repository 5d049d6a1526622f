"""What all jobs in Redis carry, wherever they stand, and how a job is given other events.

Jobs move while one looks. So they are not looked for in queues and registries but by their keys, which stay.
Everything read may have been put there by anybody: it is read within bounds, and as plain data.
"""

from collections.abc import Iterator, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from redis import Redis

from .keys import LARGEST_DATA, PREFIX
from .plain import with_events
from .scripts import script

#: The status of a job that a worker has in hand.
STARTED = "started"

# Keys looked at together; bytes of job data fetched at once, but for a single larger one.
_PAGE, _BYTES = 500, 8 << 20
_JOB = f"{PREFIX}:job:".encode()


class Content(NamedTuple):
    """What one job carries."""

    raw_id: bytes
    #: Its call, as RQ stores it; None: more than LARGEST_DATA.
    data: bytes | None
    #: What its producer noted beside it, as RQ stores it.
    meta: bytes
    #: The queue that it was enqueued on.
    queue: str
    #: Its status as RQ has it.
    status: str


def contents(redis: Redis) -> Iterator[Content]:
    """What every job carries that is there all the while, of any queue. Raises redis.RedisError."""
    page: list[bytes] = []
    for key in redis.scan_iter(match=_JOB + b"*", count=_PAGE):
        page.append(key)
        if len(page) == _PAGE:
            yield from _page(redis, page)
            page = []
    yield from _page(redis, page)


def content(redis: Redis, raw_id: bytes) -> Content | None:
    """What one job carries; None: it is gone."""
    return next(_page(redis, [_JOB + raw_id]), None)


def rewrite(redis: Redis, job: Content, events: list[Any], *, without_meta: bool) -> str:
    """Give a job other events, in one step; returns where it stands, or why it is as it was: `rewrite.lua`.

    A job that a worker has in hand is left alone: the worker works on a copy, and RQ may save that back. One
    that is left without events stays: others may wait for its end. Raises UntrustedJob, with nothing changed,
    if it cannot be written.
    """
    if job.data is None:
        raise ValueError("a job whose data was not read")
    read = sha1(
        job.data, usedforsecurity=False
    ).hexdigest()  # as Redis has it, to tell whether it is the same
    description = f"outcomes: {len(events)}"  # RQ's own quotes the arguments
    data = with_events(job.data, events)
    run = script(redis, Path(__file__).with_name("rewrite.lua"))
    answer: bytes = run([], [PREFIX, job.raw_id, read, data, description, int(without_meta)])
    return answer.decode(errors="replace")


def in_hand(redis: Redis, jobs: Sequence[Content]) -> list[Content]:
    """Those of some jobs that a worker has in hand now. Raises redis.RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        for job in jobs:
            pipeline.hget(_JOB + job.raw_id, "status")
            pipeline.lpos(f"{PREFIX}:queue:{job.queue}:intermediate", job.raw_id)  # type: ignore[arg-type]
        answers = pipeline.execute(raise_on_error=False)  # WRONGTYPE, where somebody put another thing
    return [
        job
        for job, status, place in zip(jobs, answers[::2], answers[1::2], strict=True)
        if status == STARTED.encode() or isinstance(place, int)
    ]


def _page(redis: Redis, keys: Sequence[bytes]) -> Iterator[Content]:
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hstrlen(key, "data")
        sizes = pipeline.execute(raise_on_error=False)  # WRONGTYPE: it stands beside a job
    batch: list[bytes] = []
    weight = 0
    for key, size in zip(keys, sizes, strict=True):
        if not isinstance(size, int) or not size:
            continue
        if batch and (size > LARGEST_DATA or weight + size > _BYTES):
            yield from _fetch(redis, batch)
            batch, weight = [], 0
        if size > LARGEST_DATA:
            yield Content(key.removeprefix(_JOB), None, b"", "", "")
        else:
            batch.append(key)
            weight += size
    yield from _fetch(redis, batch)


def _fetch(redis: Redis, keys: Sequence[bytes]) -> Iterator[Content]:
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(key, "data", "meta", "origin", "status")
        answers = pipeline.execute(raise_on_error=False)
    for key, fields in zip(keys, answers, strict=True):
        if isinstance(fields, list) and fields[0] is not None:
            data, meta, queue, status = (field or b"" for field in fields)
            names = queue.decode(errors="replace"), status.decode(errors="replace")
            yield Content(key.removeprefix(_JOB), data, meta, *names)
