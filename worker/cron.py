"""What runs by the clock, for RQ's own scheduler: `rq cron worker.cron`.

One such process is enough. It enqueues; the workers do the work.
"""

import os

from rq import cron

from .jobs import retain_outcomes, sweep_tokens, tidy_reservations
from .queue.keys import QUEUE

cron.register(
    sweep_tokens,
    queue_name=QUEUE,
    cron="* * * * *",  # some seconds of the table a minute, so that no outcome waits long behind it
    job_timeout=900,  # FCM may be slow
    result_ttl=0,
    ttl=60,  # a minute later there is the next one
    failure_ttl=86_400,
)
cron.register(
    tidy_reservations,
    queue_name=QUEUE,
    cron="*/10 * * * *",
    result_ttl=0,
    ttl=600,
    failure_ttl=86_400,
)
if os.environ.get("NOTIFLOG_RETAIN"):
    cron.register(
        retain_outcomes,
        queue_name=QUEUE,
        cron="*/10 * * * *",  # five seconds of ten minutes: some two million rows a day
        result_ttl=0,
        ttl=600,
        failure_ttl=86_400,
    )


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("cron"))
