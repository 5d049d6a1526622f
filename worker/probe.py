"""Is a worker of this host alive? For the exec probe of a container: `python -m worker.probe`.

Loads nothing but click and the Redis client, so that it costs little however often it is asked.
"""

import math
import os
import socket
from contextlib import closing

import click
from redis import RedisError

from . import NAME
from .command import Command, complain, count, say
from .queue.keys import QUEUE
from .queue.workers import listening
from .servers.redis import BadAddress, client, explain

EPILOG = f"""\
examples:
  python -m {NAME}.probe                a worker on this host has sent its heartbeat in time
  python -m {NAME}.probe --max-age 60   and within the last minute: DrainWorker does so every 5 seconds

It reads REDIS_URL. A stock worker that has nothing to do sends a heartbeat every seven minutes.
exit status: 0 alive, 1 not, or Redis is away, 2 wrong usage or configuration
"""


@click.command("probe", cls=Command, epilog=EPILOG)
@click.option("--queue", default=QUEUE, show_default=True, help="the queue it works on")
@click.option(
    "--max-age",
    type=float,
    default=math.inf,
    metavar="SECONDS",
    help="accept no older heartbeat, though the next one may not be due yet",
)
def main(*, queue: str, max_age: float) -> int:
    """Is a worker of this host alive? For the exec probe of a container."""
    try:
        with closing(client(os.environ)) as redis:
            here = [worker for worker in listening(redis, queue) if worker.host == socket.gethostname()]
    except BadAddress as error:
        return complain(str(error), 2)
    except (RedisError, OSError) as error:
        return complain(explain(error))
    for worker in here:
        if worker.fresh and worker.age is not None and worker.age <= max_age:
            say(f"{worker.name}: heartbeat {worker.age:.0f} s ago")
            return 0
    if not here:
        return complain(f"no worker of this host listens on {queue}; no other host counts")
    return complain(f"the heartbeat of {count(len(here), 'worker')} of this host on {queue} is late")


if __name__ == "__main__":
    raise SystemExit(main())
