"""dramatiq: threads; a message is acknowledged once its job has ended, and retried if it failed."""

from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from .work import REDIS_URL, Events, Servers, record

COMMAND = ("dramatiq", "tests.benchmarks.peers.dramatiq:broker", "--processes", "1", "--threads", "8")

broker = RedisBroker(url=REDIS_URL, middleware=[dramatiq.middleware.Retries()])
dramatiq.set_broker(broker)
_actor = dramatiq.actor(record, actor_name="record")


def enqueue(servers: Servers, jobs: Sequence[Events]) -> None:
    """One by one, on one connection."""
    near = RedisBroker(url=servers.redis_url)
    near.declare_queue("default")
    for events in jobs:
        near.enqueue(_actor.message(events))
