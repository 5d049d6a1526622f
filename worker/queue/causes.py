"""Why a job failed, told from the text that RQ stored. Pure."""

import re
from typing import NamedTuple

#: What each reason means, in the order in which they are told.
REASONS: dict[str, str] = {
    "rejected": "some events were refused, all others of these jobs are recorded",
    "untrusted": "not a job that this worker runs",
    "database": "PostgreSQL refused for a reason that stays until somebody acts",
    "configuration": "the worker's environment was wrong",
    "timeout": "ran longer than the job's timeout",
    "abandoned": "the worker died, or the job came back too often",
    "stopped": "stopped by somebody's command",
    "other": "an error that nobody foresaw",
    "repaired": "set aside once, but can be read now",
    "unreadable": "set aside: RQ cannot read these jobs",
    "gone": "expired or deleted, only the id is left",
}
_LONGEST_LINE = 300


class Cause(NamedTuple):
    """Why a job stopped."""

    #: One of REASONS.
    reason: str
    #: One line for a reader.
    why: str
    #: How many events the job carries, where that is known.
    events: int | None = None
    #: Its refused events, one line each.
    rejected: tuple[str, ...] = ()


# Our exceptions whose texts carry no data, by their place in the package; failed jobs are kept for weeks, so
# the places of earlier releases stay.
_OWN: dict[str, str] = {
    "events.InvalidEvent": "untrusted",
    "queue.plain.UntrustedJob": "untrusted",
    "servers.postgres.DatabaseFault": "database",
    "servers.settings.ConfigError": "configuration",
    "sweep.dryrun.NoProject": "configuration",
    "trust.UntrustedJob": "untrusted",
    "db.DatabaseFault": "database",
    "config.ConfigError": "configuration",
    "dryrun.NoProject": "configuration",
}
# The package as the worker had it: a checkout's, or the installed one.
_PACKAGE = re.compile(r"(?:worker|notiflog)\.")
# What RQ writes of its own faults, and without an exception.
_FOREIGN: dict[str, tuple[str, str]] = {
    "rq.exceptions.DeserializationError": ("untrusted", "the job's data cannot be read"),
    "rq.timeouts.JobTimeoutException": ("timeout", "it ran longer than the job's timeout"),
}
_RQ: list[tuple[str, str, str]] = [
    (
        "Moved to FailedJobRegistry, due to Abandoned",
        "abandoned",
        "its worker died, or it came back too often",
    ),
    ("Work-horse terminated unexpectedly", "abandoned", "the process that ran it died"),
    ("Job was stuck in intermediate queue", "abandoned", "its worker died right after taking it"),
    ("Job stopped by user", "stopped", "somebody stopped it while it ran"),
]
_TRACEBACK = "Traceback (most recent call last):\n"
_TYPE = re.compile(r"(?P<type>[A-Za-z_][\w.]{0,59})(?:: (?P<message>.*))?", re.ASCII)
_REJECTED = re.compile(r"(?P<rejected>\d{1,9}) of (?P<events>\d{1,9}) events rejected, .*")
_LINE = re.compile(r"\[\d{1,9}\] \$|and \d{1,9} more: ")


def cause(error: str) -> Cause:
    """Why a job failed, told from the text that RQ stored: a traceback, or only its last part."""
    for words, reason, why in _RQ:
        if error.startswith(words):
            return Cause(reason, why)
    # The exception stands behind the last stack's lines, which are indented.
    lines = error.rpartition(_TRACEBACK)[2].splitlines()
    told = next((at for at, line in enumerate(lines) if line and line[0] != " "), len(lines))
    if told == len(lines) or not (exception := _TYPE.fullmatch(lines[told])):
        return Cause("other", "nobody wrote down why" if not error else "ended by an unknown error")
    name, message = exception["type"], plain(exception["message"] or "")
    own = _PACKAGE.sub("", name, count=1) if _PACKAGE.match(name) else ""
    if own == "jobs.RejectedEvents" and (head := _REJECTED.fullmatch(message)):
        rejected = tuple(plain(line) for line in lines[told + 1 :] if _LINE.match(line))
        why = f"{head['rejected']} of {head['events']} events rejected, all others are recorded"
        return Cause("rejected", why, int(head["events"]), rejected)
    if own in _OWN:
        return Cause(_OWN[own], message)
    if name in _FOREIGN:
        return Cause(*_FOREIGN[name])
    return Cause("other", f"{name} (its text is not shown: it might quote data)")


def plain(text: str) -> str:
    """A line for a terminal: bounded, and nothing in it that would steer one."""
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_LINE])
