"""RQ's settings module, for any of its commands: `RQ_CONFIG=worker.rqconfig rq cron worker.cron`.

RQ reads it before its first line, so that all its lines are in our form, those of a stock worker's parent
process included. The draining worker needs it for the lines before its own start only.
"""

import os
from collections.abc import Callable
from typing import Any

from rq import job

from . import logs
from .logs import sentry
from .queue.keys import JOB_FUNCTIONS
from .queue.plain import job_function
from .servers.names import misspelt
from .servers.redis import BadAddress, address

# With a settings module RQ looks for these there, and no longer in the environment.
globals().update({name: value for name, value in os.environ.items() if name.startswith("REDIS_")})

for misspelling in misspelt(os.environ):
    raise SystemExit(misspelling)
try:
    address(os.environ)
except BadAddress as error:  # RQ would show the parser's text, which quotes a part of the password
    raise SystemExit(str(error)) from None


def _import_attribute(name: str, others: Callable[[str], Any] = job.import_attribute) -> Any:
    return job_function(name) if name in JOB_FUNCTIONS else others(name)


# How RQ finds a job's function. Ours are named `worker.jobs...` on the wire, and `worker` may be the app's.
job.import_attribute = _import_attribute

logs.setup()
sentry.setup()


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("rqconfig"))
