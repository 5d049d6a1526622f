"""RQ's settings module, for any of its commands: `RQ_CONFIG=worker.rqconfig rq cron worker.cron`.

RQ reads it before its first line, so that all its lines are in our form, those of a stock worker's parent
process included. The draining worker needs it for the lines before its own start only.
"""

import os

from redis import ConnectionPool

from . import logs
from .logs import sentry

# With a settings module RQ looks for these there, and no longer in the environment.
globals().update({name: value for name, value in os.environ.items() if name.startswith("REDIS_")})

try:
    ConnectionPool.from_url(os.environ.get("REDIS_URL") or "redis://")
except ValueError:  # RQ would show its text, which quotes a part of the password
    raise SystemExit(
        "REDIS_URL cannot be parsed: expected redis://user:password@host:6379/0, with special characters of "
        "the password percent-encoded"
    ) from None

logs.setup()
sentry.setup()
