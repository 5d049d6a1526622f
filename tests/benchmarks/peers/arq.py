"""arq: a pool of threads, its manual's way for what blocks; a job stays queued until it has ended."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from arq.connections import RedisSettings, create_pool
from arq.worker import func

from .work import REDIS_URL, Events, Servers, record

#: Nothing is said of single jobs, as by the others.
LOGGING = {"version": 1, "disable_existing_loggers": False}
COMMAND = (
    "arq",
    "tests.benchmarks.peers.arq.WorkerSettings",
    "--custom-log-dict",
    "tests.benchmarks.peers.arq.LOGGING",
)

_threads = ThreadPoolExecutor(8)


async def _record(ctx: dict[Any, Any], events: Events) -> None:
    await asyncio.get_running_loop().run_in_executor(_threads, record, events)


class WorkerSettings:
    """What `arq` reads; by default it would take 100 jobs every half second."""

    functions = (func(_record, name="record", keep_result=0),)
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
    max_jobs = 8
    poll_delay = 0.01
    queue_read_limit = 1000


def enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    """Some at a time, each on a connection of its own."""
    asyncio.run(_enqueue(servers, jobs))


async def _enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    pool = await create_pool(RedisSettings.from_dsn(servers.redis_url))
    for start in range(0, len(jobs), 50):
        await asyncio.gather(*[pool.enqueue_job("record", events) for events in jobs[start : start + 50]])
    await pool.aclose()
