"""Sentry: every line of level error, and nothing that is not in that line.

Events are made of log lines instead of exceptions, so that no local variable, job argument or foreign
exception's text can be among what is sent.
"""

import logging
import os
from functools import cache
from typing import Any

from .. import logs

# How long a process that ends right afterwards waits for a delivery, in seconds.
_PATIENCE = 2.0


def setup(*, wait: bool = True) -> None:
    """Send lines of level error to SENTRY_DSN, if that is set. Idempotent; call `logs.setup` first.

    `wait`: for each delivery, two seconds at most: what RQ forks for a job ends without notice. Not to wait
    holds for the rest of the process.
    """
    handler = _handler()
    if handler and not wait:
        handler.wait = False


class _SentryHandler(logs.CarefulHandler):
    def __init__(self, sdk: Any) -> None:
        super().__init__(logging.ERROR)
        self._sdk = sdk
        self.wait = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out the SDK's own complaints, which would come back for ever."""
        return not record.name.startswith(("sentry_sdk", "urllib3"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in logs.lines(record):
                self._sdk.capture_event(_event(record.name, line))
            if self.wait:
                self._sdk.flush(timeout=_PATIENCE)
        except Exception:
            self.handleError(record)


def _event(logger: str, fields: dict[str, Any]) -> dict[str, Any]:
    """A log line as a Sentry event."""
    del fields["ts"]
    level, name = fields.pop("level"), fields.pop("event")
    event: dict[str, Any] = {
        "level": "fatal" if level == "critical" else level,
        "logger": logger,
        "tags": {"event": name},
        "extra": fields,
    }
    if exc := fields.get("exc"):
        module, _, kind = exc.rpartition(".")
        event["fingerprint"] = [name, exc]  # one issue, whatever the numbers in its text
        event["exception"] = {"values": [{"type": kind, "module": module, "value": fields["problem"]}]}
    else:
        event["message"] = ": ".join(filter(None, (name, fields.get("message") or fields.get("problem"))))
    return event


@cache
def _handler() -> _SentryHandler | None:
    """The handler of this process, once it is known to work."""
    dsn = os.environ.get("SENTRY_DSN")
    if not dsn:
        return None
    try:
        import sentry_sdk
        from sentry_sdk.integrations.atexit import AtexitIntegration
    except ModuleNotFoundError:
        logs.warning("sentry_off", problem="sentry-sdk is not installed: pip install 'notiflog[sentry]'")
        return None
    try:
        sentry_sdk.init(
            dsn,
            # The integrations read command lines, requests, job arguments and other people's log records.
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[AtexitIntegration(callback=lambda pending, timeout: None)],
            include_local_variables=False,
            include_source_context=False,
            send_default_pii=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
        )
    except ValueError:  # its text quotes the DSN
        logs.warning("sentry_off", problem="SENTRY_DSN is no DSN: https://key@host/project is expected")
        return None
    handler = _SentryHandler(sentry_sdk)
    logging.getLogger().addHandler(handler)
    return handler
