"""Is a worker of this host alive? For the exec probe of a container: `python -m worker.probe`.

Loads nothing but the Redis client, so that it costs little however often it is asked.
"""

import argparse
import math
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import closing

from redis import RedisError

from .queue.workers import listening
from .servers.redis import client

EPILOG = """\
examples:
  python -m worker.probe                a worker on this host has sent its heartbeat in time
  python -m worker.probe --max-age 60   and within the last minute: DrainWorker does so every 5 seconds

It reads REDIS_URL. A stock worker that has nothing to do sends a heartbeat every seven minutes.
exit status: 0 alive, 1 not, or Redis is away, 2 wrong usage or configuration
"""


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
            here = [
                worker for worker in listening(redis, options.queue) if worker.host == socket.gethostname()
            ]
    except (RedisError, OSError) as error:
        return _complain(f"{type(error).__name__}: check REDIS_URL and whether the server is up")
    for worker in here:
        if worker.fresh and worker.age is not None and worker.age <= options.max_age:
            print(f"{worker.name}: heartbeat {worker.age:.0f} s ago", flush=True)  # noqa: T201 - the answer
            return 0
    late = "the heartbeat of every one is late" if here else "no other host counts"
    return _complain(f"{len(here)} workers of this host listen on {options.queue}; {late}")


def _complain(message: str, status: int = 1) -> int:
    print(f"probe: {message}", file=sys.stderr)  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main())
