"""The lines of RQ and other libraries, without the values that they may quote."""

import logging
import re
import sys
import traceback
from pathlib import Path
from typing import Any

from .. import NAME

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
        "problem": _cut(str(error)) if kind.__module__.startswith(f"{NAME}.") else None,
        "frames": [f"{_short(code.co_filename)}:{at} {code.co_name}" for code, at in frames],
    }


def foreign(record: logging.LogRecord) -> tuple[str, list[dict[str, Any]]]:
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


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
