"""RQ's settings module, for any of its commands: `RQ_CONFIG=worker.rqconfig rq cron worker.cron`.

RQ reads it before its first line, so that all its lines are in our form, those of a stock worker's parent
process included. The draining worker needs it for the lines before its own start only.
"""

import os

from . import logs
from .logs import sentry
from .servers.redis import BadAddress, address

# With a settings module RQ looks for these there, and no longer in the environment.
globals().update({name: value for name, value in os.environ.items() if name.startswith("REDIS_")})

try:
    address(os.environ)
except BadAddress as error:  # RQ would show the parser's text, which quotes a part of the password
    raise SystemExit(str(error)) from None

logs.setup()
sentry.setup()
