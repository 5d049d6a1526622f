"""The command `python -m worker.metrics`: its options and its end."""

import os
import signal
import threading

import click

from .. import NAME
from ..command import Command, complain, say
from ..extras import extra
from ..queue.keys import QUEUE
from ..servers.redis import BadAddress
from ..servers.settings import ConfigError, read_settings

with extra("metrics"):
    from .collect import Everything
    from .serve import Server

EPILOG = f"""\
examples:
  python -m {NAME}.metrics                    http://127.0.0.1:9727/metrics, and /healthz
  python -m {NAME}.metrics --host 0.0.0.0     for a Prometheus on another machine: in a private network only

One process beside all workers of a Redis, in the worker's own environment. It changes nothing. The counters
are those of all workers, kept in Redis; they go on after any restart. A server that is away shows as
notiflog_up 0.
exit status: 0 stopped by SIGTERM, 1 a problem (the port is taken), 2 wrong usage or configuration
"""


@click.command("metrics", cls=Command, epilog=EPILOG)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=9727, show_default=True, help="0: any free one"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="the address to listen on")
@click.option("--queue", default=QUEUE, show_default=True, help="whose jobs and workers")
def main(*, port: int, host: str, queue: str) -> int:
    """Serve Prometheus what the workers counted and how queue, workers and servers are."""
    try:
        read_settings(os.environ)
        everything = Everything(queue)
    except (ConfigError, BadAddress) as error:
        return complain(str(error), 2)
    try:
        server = Server(host, port, everything)
    except OSError as error:
        return complain(f"cannot listen on {host} port {port}: {error.strerror or 'no such host'}")
    with server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
        say(f"serving {server.url}/metrics")
        server.serve_forever(poll_interval=0.2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
