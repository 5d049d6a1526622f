"""Put stopped jobs back or away, and mend what a killed worker leaves in RQ's lists."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis import Redis
from rq.job import Job
from rq.utils import now, utcformat

from .keys import ALLOWED_ID, PREFIX, QUEUE, RETRIES, places, raw_id
from .scripts import PLACES, script
from .stopped import StoppedJob

_WEEK = 7 * 24 * 3600


def forget_killed_executions(job: Job, *, ask: bool = False) -> bool:
    """Take a job's expired executions, and names of none, out of RQ's list of them.

    RQ keeps the name of a killed worker's execution a minute longer than the rest of it. A job that runs
    again in that minute and is to be deleted when done (`result_ttl=0`) RQ could not delete, and would fail.
    `ask`: along with that, whether this worker asks for the first time; returns the answer.
    """
    executions = job.execution_registry.key
    with job.connection.pipeline(transaction=False) as pipeline:
        pipeline.zrange(executions, 0, -1)
        if ask:
            pipeline.set(f"{PREFIX}:notiflog:asked:{job.worker_name}", 1, nx=True, ex=_WEEK)
        found, *answer = pipeline.execute()
    for execution_id in found:
        if not job.connection.exists(f"{PREFIX}:execution:{job.id}:".encode() + execution_id):
            job.connection.zrem(executions, execution_id)
    return any(answer)


def requeue(redis: Redis, jobs: Sequence[StoppedJob], queue: str = QUEUE) -> list[str]:
    """Put stopped jobs to the end of `queue`, each in one step; what became of each: see `replay.lua`.

    A job whose id RQ no longer allows goes on under a new one.
    RQ's own `requeue` takes a job out of the registry first and enqueues it then, and fetches it in between.
    """
    ids = [
        (raw := raw_id(job.job_id), job.state, "" if ALLOWED_ID.fullmatch(raw) else uuid4().hex)
        for job in jobs
    ]
    return _script(redis, "replay", queue, [PREFIX, queue, utcformat(now()), RETRIES], ids)


def discard(redis: Redis, jobs: Sequence[StoppedJob], queue: str = QUEUE) -> list[str]:
    """Delete stopped jobs for good; what became of each: see `discard.lua`."""
    ids = [(raw_id(job.job_id), job.state) for job in jobs]
    return _script(redis, "discard", queue, [PREFIX], ids)


def _script(
    redis: Redis, name: str, queue: str, first: list[Any], jobs: Sequence[tuple[Any, ...]]
) -> list[str]:
    run = script(redis, Path(__file__).with_name(f"{name}.lua"), PLACES)
    return [answer.decode() for answer in run(places(queue), [*first, *chain.from_iterable(jobs)])]
