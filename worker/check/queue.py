"""What Redis is like, and the queue in it."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import get_args

from redis import Redis, RedisError

from .. import NAME
from ..command import count
from ..queue.census import Census, census
from ..queue.known import unknown_queue
from ..queue.lost import find_lost
from ..record import brake, counters
from ..record.prune import FATES
from ..servers import redis_faults, tls
from ..servers.finding import Finding
from ..servers.findings import redis_findings
from ..servers.redis import BadAddress, client
from ..servers.settings import requires_tls
from ..servers.tokens import CHANNELS
from .sweep import cron_findings

# With fewer dead tokens than this in a day it says little that the table holds none of them.
_MANY = 20
#: A job that has waited for longer while there are workers, in seconds, is worth a look.
LONG = 300.0
#: Seconds to look for lost jobs.
LOOK = 3.0


def redis_and_queue(queue: str) -> Iterator[Finding]:
    """Connects as the worker does, and changes nothing."""
    try:
        redis = client(os.environ)
    except BadAddress as error:
        problem, _, expected = str(error).partition(": ")
        yield Finding("settings.redis_url", "problem", problem, expected)
        return
    gap = tls.unverified_redis(redis.connection_pool)
    if gap and requires_tls(os.environ):
        return  # the settings say so; connecting would show the password
    with closing(redis):
        try:
            redis.ping()
            yield Finding("redis.reachable", "ok", "it answers")
            yield from redis_findings(redis)
            if unknown := unknown_queue(redis, queue):
                yield Finding("queue.name", "warning", *unknown.split(": "))
            yield from _queue(census(redis, queue), queue)
            yield _lost(redis, queue)
            yield from cron_findings(redis)
            yield from _brake(redis)
            yield from _absent(redis)
        except (RedisError, OSError) as error:
            fault = redis_faults.judge(error)
            yield Finding("redis.reachable", "problem", fault.text, fault.remedy)


def _queue(jobs: Census, name: str) -> Iterator[Finding]:
    yield _workers(jobs, name)
    if jobs.suspended:
        yield Finding("queue.suspended", "warning", "workers are suspended", "run `rq resume`")
    text = f"{jobs.waiting:,} waiting"
    if jobs.oldest is not None:
        text += f", the oldest for {jobs.oldest:,.0f} s"
    if jobs.workers and (jobs.oldest or 0) > LONG:
        remedy = "look at what the workers log (PostgreSQL away?); if they are busy, start more"
        yield Finding("queue.waiting", "warning", text, remedy)
    else:
        yield Finding("queue.waiting", "ok", text)
    for state, stopped in (("failed", jobs.failed), ("quarantined", jobs.quarantined)):
        if stopped:
            remedy = f"see why with `python -m {NAME}.replay --queue {name}`"
            yield Finding(f"queue.{state}", "warning", count(stopped, "job"), remedy)
        else:
            yield Finding(f"queue.{state}", "ok", "none")


def _workers(jobs: Census, name: str) -> Finding:
    workers = jobs.workers
    if silent := [worker.name for worker in workers if not worker.fresh]:
        text = f"{len(workers)} listen, of them silent for too long: {', '.join(silent)}"
        return Finding("queue.workers", "warning", text, "look at their logs and hosts; restart them")
    if workers:
        ages = sorted(worker.age for worker in workers if worker.age is not None)
        heartbeats = f"; heartbeats {ages[0]:.0f} to {ages[-1]:.0f} s ago" if ages else ""
        return Finding("queue.workers", "ok", f"{len(workers)} alive{heartbeats}")
    text = f"no worker listens on {name}"
    return Finding("queue.workers", "problem" if jobs.waiting else "warning", text, f"run `rq worker {name}`")


def _lost(redis: Redis, name: str) -> Finding:
    lost = find_lost(redis, name, LOOK)
    some = "" if lost.share == 1 else f" among the {lost.share:.0%} of all keys for which there was time"
    if lost.ids:
        text = f"{count(len(lost.ids), 'job')} in no list{some}: nobody will run them"
        return Finding("queue.lost", "warning", text, f"run `python -m {NAME}.replay --reason lost`")
    return Finding("queue.lost", "ok", f"none{some}")


def _brake(redis: Redis) -> Iterator[Finding]:
    on = []
    for source in get_args(brake.Source):
        for channel, (alive, dead, *_) in brake.recent(redis, source).items():
            if brake.is_on(alive, dead):
                on.append(f"{dead:,} of {alive + dead:,} recent answers of {channel} to {source} say so")
    if on:
        text = f"on: most devices look dead ({'; '.join(on)}), so their tokens are kept"
        remedy = "is the project, the environment or an app release wrong?"
        yield Finding("queue.brake", "warning", text, remedy)
    else:
        yield Finding("queue.brake", "ok", "off")


def _absent(redis: Redis) -> Iterator[Finding]:
    counts = sum(map(Counter, counters.read_days(redis, 2).values()), Counter[str]())
    for channel in CHANNELS:
        dead = sum([counts[f"tokens:{channel}:{fate}"] for fate in FATES])
        absent = counts[f"tokens:{channel}:absent"]
        if dead >= _MANY and absent >= 0.9 * dead:
            text = f"of {dead:,} dead tokens of {channel} since yesterday the table held {dead - absent:,}"
            remedy = "is it the right table and column? Tokens that are hashed there cannot be found"
            yield Finding("queue.absent", "warning", text, remedy)
