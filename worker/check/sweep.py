"""What the periodic check of silent tokens needs: credentials, and the process that asks for it."""

import os
from collections.abc import Iterator

from redis import Redis

from .. import NAME
from ..queue.workers import cron_age
from ..servers import credentials
from ..servers.finding import Finding

_START = f"run one `rq cron {NAME}.cron` somewhere"


def credentials_findings() -> Iterator[Finding]:
    """Whether FCM could be asked; only a warning, since outcomes are recorded without it."""
    if problem := credentials.unusable(os.environ):
        text = f"{credentials.VARIABLE} {problem}: no token is swept"
        yield Finding("settings.credentials", "warning", text, credentials.REMEDY)
    elif os.environ.get(credentials.VARIABLE):
        yield Finding("settings.credentials", "ok", f"{credentials.VARIABLE} names a key, for the sweep")
    else:
        yield Finding("settings.credentials", "ok", f"{credentials.VARIABLE} is not set: for the sweep only")


def cron_findings(redis: Redis) -> Iterator[Finding]:
    """Whether anybody enqueues what runs by the clock. Raises redis.RedisError."""
    age = cron_age(redis)
    if age is not None:
        yield Finding("queue.cron", "ok", f"`rq cron` is alive; heartbeat {age:.0f} s ago")
    elif os.environ.get(credentials.VARIABLE):
        text = "no `rq cron` is alive: no token is swept, no reservation tidied"
        yield Finding("queue.cron", "warning", text, _START)
    else:
        text = "no `rq cron` is alive: no reservation is tidied"
        yield Finding("queue.cron", "ok", text)
