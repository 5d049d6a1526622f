"""huey: threads, no results; at most once, as it takes a job off its queue before it runs it."""

from collections.abc import Sequence

from huey import RedisHuey

from .work import REDIS_URL, Events, Servers, record

COMMAND = ("huey_consumer", "tests.benchmarks.peers.huey.app", "-k", "thread", "-w", "8", "--quiet")

app = RedisHuey("peers", url=REDIS_URL, results=False)
app.task(name="record")(record)


def enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    """One by one, on one connection."""
    near = RedisHuey("peers", url=servers.redis_url, results=False)
    task = near.task(name="record")(record)
    for events in jobs:
        task(events)
