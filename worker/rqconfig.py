"""RQ's settings module, for any of its commands: `RQ_CONFIG=worker.rqconfig rq cron worker.cron`.

RQ reads it before its first line, so that all its lines are in our form, those of a stock worker's parent
process included. The draining worker needs it for the lines before its own start only.
"""

import os

from worker import logs, sentry

# With a settings module RQ looks for these there, and no longer in the environment.
globals().update({name: value for name, value in os.environ.items() if name.startswith("REDIS_")})

logs.setup()
sentry.setup()
