"""Structured logs: one line for each event, and the one list of what can be logged.

A line is a JSON object, or readable text where standard output is a terminal. The lines of RQ and libraries
have the same form, without the values that they may quote. All lines are printable ASCII: no logged value can
forge a second line, or move a terminal's cursor.
"""

import hashlib
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Event(NamedTuple):
    """One kind of line."""

    meaning: str
    #: Names, separated by spaces. `[name]`: not always there. `name_*`: every name that starts so.
    fields: str


#: Every event, by name. Adding a line to the log starts here; the README shows the same list.
EVENTS = {
    "outcomes_recorded": Event(
        "the summary of one job or turn: its events by outcome, by reason, and what became of their tokens",
        "jobs events delivered failed skipped retrying duplicates conflicting rejected pruned kept withheld "
        "failed_by skipped_by ms",
    ),
    "send_failed": Event(
        "one send result that was not accepted", "channel http_status reason evidence token"
    ),
    "conflicting_duplicate": Event(
        "an event whose key is already recorded with another status; the first stays", "key stored reported"
    ),
    "job_failed": Event(
        "a job failed, for one of our reasons (`problem`) or another (`exc`, `frames`)",
        "job exc problem frames",
    ),
    "brake_on": Event(
        "most recent answers of a channel say that the device is gone: its tokens are kept",
        "channel source dead answers minutes problem",
    ),
    "brake_blind": Event(
        "Redis does not tell what other workers saw: the tokens of this turn are kept", "channels problem"
    ),
    "guard_off": Event(
        "NOTIFLOG_TOKEN_REGISTERED_COLUMN is empty: re-registered tokens cannot be told apart", "stale"
    ),
    "token_dead": Event(
        "FCM says of a token that the sweep checked: no such device", "reason evidence token"
    ),
    "sweep_paused": Event(
        "FCM gave no verdict on most of a page; the sweep goes on from there later", "problem"
    ),
    "tokens_swept": Event(
        "the sweep is through the token table: what it found; counts of nothing are left out",
        "[tokens] [fcm] [apns] [unknown] [alive] [dead] [no_verdict] [no_verdict_*] [pruned] [kept] "
        "[withheld] [older_than_30_days] [older_than_270_days] [age_unknown]",
    ),
    "database_unavailable": Event(
        "a passing PostgreSQL fault; the job waits and tries again", "problem [retry_in]"
    ),
    "database_not_verified": Event("anybody could pose as the PostgreSQL server", "problem remedy"),
    "redis_unavailable": Event(
        "no connection to Redis; the worker waits and tries again", "problem retry_in"
    ),
    "redis_not_durable": Event("Redis does not keep its data over a restart", "remedy"),
    "job_quarantined": Event("a job that RQ cannot read, set aside in a list of its own", "job problem"),
    "jobs_taken_over": Event("a worker went silent, its jobs are back in the queue", "jobs"),
    "jobs_given_up": Event("jobs taken over too often fail: they may be what ends the workers", "jobs"),
    "jobs_released": Event("the worker stops, its unfinished jobs are back in the queue", "jobs"),
    "worker_stopped": Event("the worker refuses to start, or ends: why, and what to do", "problem"),
    "sentry_off": Event("SENTRY_DSN is set, but nothing is sent there", "problem"),
    "rq": Event("a line of RQ's own", "logger message [exc] [problem] [frames]"),
    "library": Event("a warning of another library", "logger message [exc] [problem] [frames]"),
}

logger = logging.getLogger("notiflog")


_to_json = msgspec.json.Encoder(enc_hook=str).encode

_LONGEST = 8000  # characters of a text in a line; log shippers cut long lines
_LAST_FRAMES = 20
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
#: The lines of RQ's that show a job's description, and where. By default that is the call with its arguments,
#: device tokens among them.
DESCRIPTIONS = {
    "Worker %s: %s: %s (%s)": 2,
    "Successfully completed %s job in %ss on worker %s": 0,
}
_CALLED = re.compile(r"[\w.]+(?=\()|Job OK$", re.ASCII)
_PLAIN = re.compile(r"[\w.:,/+-]+", re.ASCII)
_LEVEL_COLOURS = {"warning": "33", "error": "31", "critical": "31"}


def lines(record: logging.LogRecord) -> list[dict[str, Any]]:
    """What a record says, as JSON-able objects: ts, level, event, and the fields that EVENTS lists."""
    # Only what `info` and the others got: other attributes may hold a job's arguments.
    rows = getattr(record, "notiflog", None)
    event, rows = (str(record.msg), rows) if rows is not None else _foreign(record)
    head = {
        "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": event,
    }
    return [head | fields for fields in rows]


def describe(error: BaseException | None) -> dict[str, Any]:
    """An exception as the fields exc, problem and frames of a line.

    Its text is only shown when it is ours: others quote what they choke on, psycopg rows, decoders payloads.
    """
    if error is None:
        return {"exc": None, "problem": None, "frames": []}
    kind = type(error)
    frames = [(frame.f_code, at) for frame, at in traceback.walk_tb(error.__traceback__)][-_LAST_FRAMES:]
    return {
        "exc": f"{kind.__module__}.{kind.__qualname__}",
        "problem": _cut(str(error)) if kind.__module__.startswith("worker.") else None,
        "frames": [f"{_short(code.co_filename)}:{at} {code.co_name}" for code, at in frames],
    }


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(_encode, lines(record)))


class TextFormatter(logging.Formatter):
    """One readable text a line: local time, level, event, fields."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(self._text, lines(record)))

    def _text(self, fields: dict[str, Any]) -> str:
        at, level, event = datetime.fromisoformat(fields.pop("ts")), fields.pop("level"), fields.pop("event")
        shown = f"{level:<7}"
        if self._colour and (code := _LEVEL_COLOURS.get(level)):
            shown = f"\x1b[{code}m{shown}\x1b[0m"
        words = [f"{at.astimezone():%H:%M:%S}", shown, event]
        if "message" in fields:
            del fields["logger"]
            words.append(fields.pop("message").encode("unicode_escape").decode())
        return " ".join((*words, *(f"{name}={_show(value)}" for name, value in fields.items())))


class CarefulHandler(logging.Handler):
    """A handler whose own faults show no record: logging would print it, arguments and all."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say on standard error that a line is lost."""
        error = sys.exc_info()[0]
        print(f"a log line is lost: {error and error.__name__}", file=sys.stderr)  # noqa: T201


class _StandardOutput(CarefulHandler, logging.StreamHandler[Any]):
    def __init__(self) -> None:
        super().__init__(sys.stdout)
        if sys.stdout.isatty():
            self.setFormatter(TextFormatter(colour=not os.environ.get("NO_COLOR")))
        else:
            self.setFormatter(JsonFormatter())


def setup() -> None:
    """Write this process's lines, RQ's included, unless its program has set up logging itself. Idempotent."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if logger.hasHandlers():
        return
    logging.getLogger().addHandler(_StandardOutput())
    rq = logging.getLogger("rq")
    if rq.level == logging.NOTSET:
        rq.setLevel(logging.INFO)
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("rq.")]:
        other = logging.getLogger(name)
        for handler in [one for one in other.handlers if type(one).__module__ == "rq.logutils"]:
            other.removeHandler(handler)
            other.propagate = True


def info(event: str, **fields: object) -> None:
    """Log one of EVENTS with its fields; never a token, a password or a person's data."""
    _log(logging.INFO, event, [fields])


def info_each(event: str, rows: Sequence[dict[str, object]]) -> None:
    """Log one of EVENTS once for each of `rows`, its fields, in one go; the same restraint applies."""
    if rows:
        _log(logging.INFO, event, rows)


def warning(event: str, **fields: object) -> None:
    """Log one of EVENTS that somebody may have to look at; the same restraint applies."""
    _log(logging.WARNING, event, [fields])


def error(event: str, **fields: object) -> None:
    """Log one of EVENTS that somebody must look at; the same restraint applies."""
    _log(logging.ERROR, event, [fields])


def _log(level: int, event: str, rows: Sequence[dict[str, object]]) -> None:
    # Not `logger.log`: that walks the stack for file and line, which no line of ours shows.
    if logger.isEnabledFor(level):
        extra = {"notiflog": rows}
        logger.handle(logger.makeRecord(logger.name, level, "", 0, event, (), None, extra=extra))


def token_hash(token: str) -> str:
    """A short fingerprint of a device token or a key: one can be followed through the log, not sent to."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()[:12]


def _foreign(record: logging.LogRecord) -> tuple[str, list[dict[str, Any]]]:
    """The event and the fields of a line of RQ's or of a library's."""
    if record.name == "rq.worker" and (job := getattr(record, "job_id", None)):
        # The message quotes the exception.
        return "job_failed", [{"job": job, **describe(sys.exc_info()[1])}]
    first, *_ = _COLOUR.sub("", _message(record)).splitlines() or [""]  # further lines are a traceback
    fields = {"logger": record.name, "message": _cut(first)}
    if record.exc_info:
        fields |= describe(record.exc_info[1])
    return "rq" if record.name.startswith("rq.") else "library", [fields]


def _message(record: logging.LogRecord) -> str:
    """The record's text, with exceptions reduced to their types and descriptions to the function's name."""
    if isinstance(record.msg, BaseException):
        return type(record.msg).__name__
    if not isinstance(record.args, tuple) or not record.args:
        return record.getMessage()
    arguments = [type(one).__name__ if isinstance(one, BaseException) else one for one in record.args]
    if (place := DESCRIPTIONS.get(str(record.msg))) is not None:
        called = _CALLED.match(_COLOUR.sub("", str(arguments[place])))
        arguments[place] = called[0] if called else "job"
    return str(record.msg) % tuple(arguments)


def _encode(value: object) -> str:
    try:
        return _to_json(value).decode("ascii")
    except UnicodeError:  # rare, and only the slower one escapes everything
        return json.dumps(value, default=str)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."


def _show(value: object) -> str:
    if value is None or value == {} or value == []:
        return "-"
    if isinstance(value, dict):
        value = ",".join(f"{name}:{n}" for name, n in value.items())
    elif isinstance(value, list):
        value = ", ".join(map(str, value))
    text = str(value)
    return text if _PLAIN.fullmatch(text) else _encode(text)
