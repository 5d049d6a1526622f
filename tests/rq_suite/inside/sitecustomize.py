"""Every process of a run of RQ's tests: whoever asks for port 6379 gets to a server of this run.

The tests run side by side, in processes that have a server each.
"""

import os

from redis.connection import Connection

USUAL = 6379


def connect(self: Connection, *arguments: object, **keywords: object) -> None:
    """Connect as redis-py does, but for the port."""
    made(self, *arguments, **keywords)  # type: ignore[no-untyped-call]
    if self.port == USUAL and "NOTIFLOG_RQ_PORTS" in os.environ:
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        self.port = int(os.environ["NOTIFLOG_RQ_PORTS"].split(",")[number])


made = Connection.__init__
Connection.__init__ = connect  # type: ignore[method-assign]
