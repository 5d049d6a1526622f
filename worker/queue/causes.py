"""Why a job failed, told from the text that RQ stored. Pure."""

import re
from typing import NamedTuple

from .. import NAME
from .keys import JOB_FUNCTIONS

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
    "lost": "in no list any more: another RQ's maintenance dropped them, or a failover of Redis",
    "gone": "expired or deleted, only the id is left",
}


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


# What RQ writes where there was no exception, by how it begins.
_TEXTS: dict[str, Cause] = {
    "Moved to FailedJobRegistry, due to Abandoned": Cause(
        "abandoned", "its worker died, or it came back too often"
    ),
    "Work-horse terminated unexpectedly": Cause("abandoned", "the process that ran it died"),
    "Job was stuck in intermediate queue": Cause("abandoned", "its worker died right after taking it"),
    "Job stopped by user": Cause("stopped", "somebody stopped it while it ran"),
}
# RQ's exceptions, which quote data.
_FOREIGN: dict[str, Cause] = {
    "rq.exceptions.DeserializationError": Cause("untrusted", "the job's data cannot be read"),
    "rq.timeouts.JobTimeoutException": Cause("timeout", "it ran longer than the job's timeout"),
}
# What RQ says of a function that it cannot import: its name, or the last part of that.
_UNFOUND = "Invalid attribute name: "
# Our exceptions, whose texts carry no data, by their place in the package; failed jobs are kept for weeks, so
# the places of earlier releases stay.
_OWN: dict[str, str] = {
    "events.InvalidEvent": "untrusted",
    "extras.MissingExtra": "configuration",
    "queue.plain.UntrustedJob": "untrusted",
    "servers.postgres.DatabaseFault": "database",
    "servers.settings.ConfigError": "configuration",
    "sweep.dryrun.NoProject": "configuration",
    "trust.UntrustedJob": "untrusted",
    "db.DatabaseFault": "database",
    "config.ConfigError": "configuration",
    "dryrun.NoProject": "configuration",
}
_REJECTED_EVENTS = "jobs.RejectedEvents"

_TRACEBACK = "Traceback (most recent call last):\n"
_EXCEPTION = re.compile(r"(?P<name>[A-Za-z_][\w.]{0,59})(?:: (?P<message>.*))?", re.ASCII)
# Our package as the worker had it: a checkout's, or the installed one.
_PACKAGE = re.compile(r"(?:worker|notiflog)\.")
_REJECTED = re.compile(r"(?P<rejected>\d{1,9}) of (?P<events>\d{1,9}) events rejected, .*")
_LINE = re.compile(r"\[\d{1,9}\] \$|and \d{1,9} more: ")
_TOLD = re.compile(r"\[(?P<position>\d{1,9})\] (?=\$)")
_UNTOLD = "rejected, as one of many"
_COUNTED = re.compile(r"and \d{1,9} more: (?P<positions>\d{1,9}(?:, \d{1,9})*)")
_LONGEST_LINE = 300


class _Raised(NamedTuple):
    """An exception, as the text of a traceback tells it."""

    name: str
    message: str
    #: The message's other lines.
    more: list[str]

    @property
    def own_name(self) -> str | None:
        """Its place in our package; None: it is not ours."""
        return _PACKAGE.sub("", self.name, count=1) if _PACKAGE.match(self.name) else None


def cause(error: str) -> Cause:
    """Why a job failed, told from the text that RQ stored: a traceback, or only its last part."""
    for words, told in _TEXTS.items():
        if error.startswith(words):
            return told
    if raised := _raised(error):
        return _rejected(raised) or _own(raised) or _foreign(raised)
    return Cause("other", "ended by an unknown error" if error else "nobody wrote down why")


def rejected_positions(error: str) -> list[tuple[int, str]]:
    """Which events of a job were rejected, told from the text that RQ stored, each with what is wrong.

    Nothing says that a job has such events.
    """
    raised = _raised(error)
    if not raised or raised.own_name != _REJECTED_EVENTS:
        return []
    found: dict[int, str] = {}
    for line in raised.more:
        if told := _TOLD.match(line):
            found.setdefault(int(told["position"]), plain(line[told.end() :]))
        elif counted := _COUNTED.fullmatch(line):
            for position in counted["positions"].split(", "):
                found.setdefault(int(position), _UNTOLD)
    return sorted(found.items())


def plain(text: str) -> str:
    """A line for a terminal: bounded, and nothing in it that would steer one."""
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_LINE])


def _raised(error: str) -> _Raised | None:
    """The last exception of a traceback: it stands behind the last stack's lines, which are indented."""
    lines = error.rpartition(_TRACEBACK)[2].splitlines()
    for at, line in enumerate(lines):
        if line and line[0] != " ":
            found = _EXCEPTION.fullmatch(line)
            return found and _Raised(found["name"], plain(found["message"] or ""), lines[at + 1 :])
    return None


def _rejected(raised: _Raised) -> Cause | None:
    head = _REJECTED.fullmatch(raised.message)
    if raised.own_name != _REJECTED_EVENTS or not head:
        return None
    why = f"{head['rejected']} of {head['events']} events rejected, all others are recorded"
    rejected = tuple(plain(line) for line in raised.more if _LINE.match(line))
    return Cause("rejected", why, int(head["events"]), rejected)


def _own(raised: _Raised) -> Cause | None:
    reason = _OWN.get(raised.own_name or "")
    return Cause(reason, raised.message) if reason else None


def _foreign(raised: _Raised) -> Cause:
    unfound = raised.message.removeprefix(_UNFOUND)
    if raised.name == "ValueError" and (unfound in JOB_FUNCTIONS or unfound in JOB_FUNCTIONS.values()):
        return Cause(
            "configuration", f"RQ found no such job: start the worker with RQ_CONFIG={NAME}.rqconfig"
        )
    unshown = Cause("other", f"{raised.name} (its text is not shown: it might quote data)")
    return _FOREIGN.get(raised.name, unshown)
