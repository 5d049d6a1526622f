"""taskiq on Redis streams: a pool of threads; a message is acknowledged once its job has ended."""

import asyncio
from collections.abc import Sequence

from taskiq_redis import RedisStreamBroker

from .work import REDIS_URL, Events, Servers, record

COMMAND = (
    *("taskiq", "worker", "tests.benchmarks.peers.taskiq:broker", "--workers", "1"),
    *("--max-threadpool-threads", "8", "--log-level", "ERROR"),
    "--no-parse",  # pydantic need not look at what is decoded with care below
)

broker = RedisStreamBroker(REDIS_URL)


@broker.task(task_name="record")
def _record(events: Events) -> None:  # one of its own, as taskiq renames what it is given
    record(events)


def enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    """Some at a time, each on a connection of its own."""
    asyncio.run(_enqueue(servers, jobs))


async def _enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    near = RedisStreamBroker(servers.redis_url)
    await near.startup()  # makes the group of consumers: it gets no message that is older
    kicker = _record.kicker().with_broker(near)
    for start in range(0, len(jobs), 50):
        await asyncio.gather(*[kicker.kiq(events) for events in jobs[start : start + 50]])
    await near.shutdown()
