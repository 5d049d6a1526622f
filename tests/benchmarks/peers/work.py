"""The work that is the same for all of them: a kept connection a thread, one commit and one line a job."""

import logging
import os
import sys
import threading
from typing import Any, NamedTuple

from worker.judge.batch import judge
from worker.logs import JsonFormatter, logger
from worker.record import recording
from worker.record.tokens import Tokens
from worker.servers.postgres import connect
from worker.servers.settings import settings

Events = list[dict[str, Any]]

#: The workers', who may be further away from the servers than who enqueues.
DATABASE_URL = os.environ.get("DATABASE_URL", "")
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")

# Our lines, whole, whatever form and level the system's program has for its own.
_output = logging.StreamHandler(sys.stdout)
_output.setFormatter(JsonFormatter())
logger.addHandler(_output)
logger.setLevel(logging.INFO)
logger.propagate = False

_kept = threading.local()


class Servers(NamedTuple):
    """The same, as who enqueues reaches them."""

    database_url: str
    redis_url: str


def record(events: Events) -> None:
    """Judge and record one job's events with what this thread keeps."""
    if not hasattr(_kept, "connection"):
        _kept.connection = connect(settings().database_url)
        _kept.tokens = Tokens(settings())
    recording.record(_kept.connection, _kept.tokens, [judge(events)])
