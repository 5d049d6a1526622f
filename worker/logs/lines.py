"""Structured logs: one line for each event.

A line is a JSON object, or readable text where standard output is a terminal. The lines of RQ and libraries
have the same form, without the values that they may quote. All lines are printable ASCII: no logged value can
forge another line, or move a terminal's cursor.
"""

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from .foreign import foreign

logger = logging.getLogger("notiflog")


_to_json = msgspec.json.Encoder(enc_hook=str).encode
_PLAIN = re.compile(r"[\w.:,/+-]+", re.ASCII)
_LEVEL_COLOURS = {"warning": "33", "error": "31", "critical": "31"}


def lines(record: logging.LogRecord) -> list[dict[str, Any]]:
    """What a record says, as JSON-able objects: ts, level, event, and the fields that EVENTS lists."""
    # Only what `info` and the others got: other attributes may hold a job's arguments.
    rows = getattr(record, "notiflog", None)
    event, rows = (str(record.msg), rows) if rows is not None else foreign(record)
    head = {
        "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "event": event,
    }
    return [head | fields for fields in rows]


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(_encode, lines(record)))


class TextFormatter(logging.Formatter):
    """One readable text a line: local time, level, event, fields; a text of several lines indented below."""

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
            words.append(_escape(fields.pop("message")))
        below = [(name, value) for name, value in fields.items() if isinstance(value, str) and "\n" in value]
        beside = [(name, value) for name, value in fields.items() if (name, value) not in below]
        first = " ".join((*words, *(f"{name}={_show(value)}" for name, value in beside)))
        return "\n".join((first, *(_show_below(name, value) for name, value in below)))


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


def _encode(value: object) -> str:
    try:
        return _to_json(value).decode("ascii")
    except UnicodeError:  # rare, and only the slower one escapes everything
        return json.dumps(value, default=str)


def _show_below(name: str, text: str) -> str:
    """A text of several lines; none of them begins as a line of the log does."""
    first, *others = map(_escape, text.split("\n"))
    return "\n".join((f"    {name}: {first}", *(f"      {line}".rstrip() for line in others)))


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode()


def _show(value: object) -> str:
    if value is None or value == {} or value == []:
        return "-"
    if isinstance(value, dict):
        value = ",".join(f"{name}:{n}" for name, n in value.items())
    elif isinstance(value, list):
        value = ", ".join(map(str, value))
    text = str(value)
    return text if _PLAIN.fullmatch(text) else _encode(text)
