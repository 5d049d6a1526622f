"""Is a worker of this host alive? For the exec probe of a container: `python -m worker.probe`.

Loads nothing but the Redis client, so that it costs little however often it is asked.
"""

import argparse
import math
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

#: Seconds to wait for Redis.
PATIENCE = 5.0

# As RQ has it, without loading RQ.
_KEY_PREFIX = os.environ.get("RQ_KEY_PREFIX", "rq")

# RQ lets a worker's hash expire 60 seconds after the next heartbeat was due, whatever the worker does and
# however long that takes. Half of that is left to heartbeats that come a little late.
_OVERDUE = 30

EPILOG = """\
examples:
  python -m worker.probe                a worker on this host has sent its heartbeat in time
  python -m worker.probe --max-age 60   and within the last minute: DrainWorker does so every 5 seconds

It reads REDIS_URL. A stock worker that has nothing to do sends a heartbeat every seven minutes.
exit status: 0 alive, 1 not, or Redis is away, 2 wrong usage or configuration
"""


class Seen(NamedTuple):
    """A worker as it shows in Redis."""

    name: str
    #: The container's or machine's name, as the worker sees it.
    host: str
    #: Seconds since its last heartbeat; None: it never sent one.
    age: float | None
    #: The next heartbeat is not overdue.
    fresh: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Look once; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.probe",
        description="Is a worker of this host alive? For the exec probe of a container.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--queue", default="notiflog", help="the queue it works on (%(default)s)")
    parser.add_argument(
        "--max-age",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        help="accept no older heartbeat, though the next one may not be due yet",
    )
    options = parser.parse_args(arguments)
    try:
        redis = client(os.environ)
    except ValueError:
        return _complain("REDIS_URL cannot be parsed: expected redis://user:password@host:6379/0", 2)
    try:
        with closing(redis):
            here = [worker for worker in workers(redis, options.queue) if worker.host == socket.gethostname()]
    except (RedisError, OSError) as error:
        return _complain(f"{type(error).__name__}: check REDIS_URL and whether the server is up")
    for worker in here:
        if worker.fresh and worker.age is not None and worker.age <= options.max_age:
            print(f"{worker.name}: heartbeat {worker.age:.0f} s ago", flush=True)  # noqa: T201 - the answer
            return 0
    late = "the heartbeat of every one is late" if here else "no other host counts"
    return _complain(f"{len(here)} workers of this host listen on {options.queue}; {late}")


def client(environ: Mapping[str, str]) -> Redis:
    """A client of the Redis that RQ's command line would use; gives up soon. Raises ValueError."""
    return Redis.from_url(
        environ.get("RQ_REDIS_URL") or environ.get("REDIS_URL") or "redis://localhost:6379/0",
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )


def workers(redis: Redis, queue: str) -> list[Seen]:
    """The workers that listen on a queue, by name; without those that ended or died long ago."""
    keys: list[bytes] = sorted(redis.smembers(f"{_KEY_PREFIX}:workers:{queue}"))  # type: ignore[arg-type]
    with redis.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hmget(key, "hostname", "last_heartbeat")
            pipeline.ttl(key)
        answers = pipeline.execute()
    found = []
    for key, (host, heartbeat), ttl in zip(keys, answers[::2], answers[1::2], strict=True):
        if ttl != -2:  # the key is there
            name = key.decode(errors="replace").removeprefix(f"{_KEY_PREFIX}:worker:")
            found.append(Seen(name, (host or b"").decode(errors="replace"), age(heartbeat), ttl > _OVERDUE))
    return found


def age(moment: bytes | None) -> float | None:
    """Seconds since a moment as RQ writes it; None if it is none."""
    try:
        then = datetime.fromisoformat((moment or b"").decode())
        return max(0.0, (datetime.now(UTC) - then).total_seconds())
    except (ValueError, TypeError):  # TypeError: without an offset
        return None


def _complain(message: str, status: int = 1) -> int:
    print(f"probe: {message}", file=sys.stderr)  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main())
