"""Structured logs: one JSON object a line, and the one list of what can be logged."""

import hashlib
import json
import logging
import sys
from datetime import UTC, datetime

#: Every event name this project logs, with its meaning. Adding a line to the log starts here.
EVENTS: dict[str, str] = {
    "outcomes_recorded": "one job's summary: counts by status and reason, tokens pruned and kept, duration",
    "send_failed": "one send result that was not accepted: channel, status, reason, evidence, token hash",
    "conflicting_duplicate": "an event whose key is already recorded with another status; the first stays",
    "brake_on": "most recent answers of a channel say that the device is gone: its tokens are kept",
    "brake_blind": "Redis does not tell what other workers saw: the tokens of this turn are kept",
    "token_dead": "FCM says of a token that the sweep checked: no such device; reason, evidence, token hash",
    "sweep_paused": "FCM gave no verdict on most of a page; the sweep goes on from there later",
    "tokens_swept": "the sweep is through the token table: what it found, by kind of token, answer and age",
    "guard_off": "NOTIFLOG_TOKEN_REGISTERED_COLUMN is empty: re-registered tokens cannot be told apart",
    "database_unavailable": "a passing PostgreSQL fault; the job waits and tries again",
    "redis_not_durable": "Redis does not keep its data over a restart (append-only file off)",
    "redis_unavailable": "no connection to Redis; the worker waits and tries again",
    "job_quarantined": "a job whose hash RQ cannot read, set aside in a list of its own",
    "jobs_taken_over": "a worker went silent, its jobs are back in the queue",
    "jobs_given_up": "jobs that were taken over too often: they may be what ends the workers",
    "jobs_released": "the worker stops, its unfinished jobs are back in the queue",
}

logger = logging.getLogger("notiflog")


_encode = json.JSONEncoder(default=str).encode


class JsonFormatter(logging.Formatter):
    """One line per record, ASCII only, so that no logged value can forge a second line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            # Only what `info` and `warning` got: other extras may hold a job's arguments, hence tokens.
            **getattr(record, "notiflog", {}),
        }
        return _encode(line)


def setup() -> None:
    """Write to standard output, unless the host program has set up logging itself. Idempotent."""
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def info(event: str, **fields: object) -> None:
    """Log one of EVENTS with its fields; never a token, a password or a person's data."""
    _log(logging.INFO, event, fields)


def warning(event: str, **fields: object) -> None:
    """Log one of EVENTS that somebody may have to look at; the same restraint applies."""
    _log(logging.WARNING, event, fields)


def error(event: str, **fields: object) -> None:
    """Log one of EVENTS that somebody must look at; the same restraint applies."""
    _log(logging.ERROR, event, fields)


def _log(level: int, event: str, fields: dict[str, object]) -> None:
    # Not `logger.log`: that walks the stack for file and line, which no line of ours shows.
    if logger.isEnabledFor(level):
        extra = {"notiflog": fields}
        logger.handle(logger.makeRecord(logger.name, level, "", 0, event, (), None, extra=extra))


def token_hash(token: str) -> str:
    """A short fingerprint of a device token: enough to follow one through the log, useless to send to."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()[:12]
