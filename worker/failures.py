"""Jobs that stopped: those in RQ's failed registry and those in the quarantine, and why they are there.

Everything read here may have been put into Redis by anybody. It is read within bounds, nothing is unpickled
but plain data, and no text is passed on but of exceptions whose texts carry no data.
"""

import base64
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from redis import Redis
from rq.defaults import RQ_KEY_PREFIX
from rq.registry import FailedJobRegistry

from worker.claims import LARGEST_JOB
from worker.enqueue import QUEUE
from worker.trust import UntrustedJob, inflate, quarantine_key, read_call, unreadable_field

State = Literal["failed", "quarantined"]
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


class StoppedJob(NamedTuple):
    """One job that will not run again by itself."""

    #: The job's id; what is not ASCII or not printable in it stands as a Python escape, see `raw_id`.
    job_id: str
    state: State
    #: When it failed; None: nobody wrote it down.
    since: datetime | None
    #: A short name to select by, one of REASONS.
    reason: str
    #: One line, without token and without data of the producer's.
    why: str
    #: How many events the job carries; None: it cannot be read, or is no record of outcomes.
    events: int | None
    #: Its refused events, one line each: "[17] $.results[0].token: contains a NUL character".
    rejected: tuple[str, ...]


def stopped_jobs(redis: Redis, queue: str = QUEUE, *, count_events: bool = True) -> Iterator[StoppedJob]:
    """The failed jobs of `queue`, those first whose record expires first, and then the quarantined ones.

    The ids are taken once, at the start: a job that stops again meanwhile does not come twice.
    `count_events`: also where that takes reading a failed job's data. Raises redis.RedisError.
    """
    failed: dict[bytes, float] = dict(redis.zscan_iter(failed_key(queue), count=_IDS))
    quarantined = list(_listed(redis, quarantine_key(queue)))
    for page in _pages(sorted(failed, key=failed.__getitem__)):
        yield from _failed(redis, page, count_events)
    for page in _pages(quarantined):
        yield from _quarantined(redis, page)


def failed_key(queue: str) -> str:
    """The Redis key of the registry of failed jobs."""
    return str(FailedJobRegistry.key_template.format(queue))


def raw_id(job_id: str) -> bytes:
    """The id of a stopped job as it stands in Redis. Raises ValueError if `job_id` cannot be one."""
    return job_id.encode("ascii").decode("unicode_escape").encode("latin-1")


# Ids a page of a registry, and jobs a page of their data.
_IDS, _JOBS = 5000, 500
# Of hashes fetched at once, but for a single larger one.
_BYTES = 8 << 20
# RejectedEvents tells of 1000 events and gives the others' numbers: some 200 kB.
_LONGEST_TEXT = 1 << 20
_LONGEST_LINE = 300


class _Seen(NamedTuple):
    """What Redis has of a stopped job besides its hash."""

    raw_id: bytes
    #: Stored bytes of the job's data; None: the job's key holds no hash.
    size: int | None
    #: When the job's last result was stored, and its error's text.
    since: datetime | None
    error: str


class _Cause(NamedTuple):
    reason: str
    why: str
    events: int | None = None
    rejected: tuple[str, ...] = ()


def _failed(redis: Redis, ids: Sequence[bytes], count_events: bool) -> Iterator[StoppedJob]:
    page = [(seen, _missing(seen) or _cause(seen.error)) for seen in _look(redis, ids)]
    uncounted = [seen for seen, cause in page if count_events and cause.events is None and seen.size]
    counts = {seen.raw_id: _count(fields) for seen, fields in _hashes(redis, uncounted)}
    for seen, cause in page:
        counted = cause._replace(events=counts[seen.raw_id]) if seen.raw_id in counts else cause
        yield _stopped(seen, "failed", seen.since, counted)


def _quarantined(redis: Redis, ids: Sequence[bytes]) -> Iterator[StoppedJob]:
    page = _look(redis, ids)
    problems = {seen.raw_id: problem for seen in page if (problem := _missing(seen) or _oversized(seen))}
    rest = [seen for seen in page if seen.raw_id not in problems]
    problems |= {seen.raw_id: _read(fields) for seen, fields in _hashes(redis, rest)}
    for seen in page:
        yield _stopped(seen, "quarantined", None, problems[seen.raw_id])


def _stopped(seen: _Seen, state: State, since: datetime | None, cause: _Cause) -> StoppedJob:
    job_id = seen.raw_id.decode("latin-1").encode("unicode_escape").decode()
    return StoppedJob(job_id, state, since, *cause)


def _listed(redis: Any, key: str) -> Iterator[bytes]:
    start = 0
    while page := redis.lrange(key, start, start + _IDS - 1):
        yield from page
        start += len(page)


def _pages(ids: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(ids), _JOBS):
        yield ids[start : start + _JOBS]


def _key(kind: str, job_id: bytes) -> bytes:
    return f"{RQ_KEY_PREFIX}:{kind}:".encode() + job_id


def _look(redis: Redis, ids: Sequence[bytes]) -> list[_Seen]:
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hstrlen(_key("job", job_id), "data")
            pipeline.xrevrange(_key("results", job_id), count=1)
        answers = pipeline.execute(raise_on_error=False)  # WRONGTYPE, where somebody put another thing
    return [
        _Seen(job_id, size if isinstance(size, int) else None, *_result(results))
        for job_id, size, results in zip(ids, answers[::2], answers[1::2], strict=True)
    ]


def _hashes(redis: Redis, jobs: Sequence[_Seen]) -> Iterator[tuple[_Seen, Mapping[bytes, bytes]]]:
    batch: list[_Seen] = []
    size = 0
    for seen in jobs:
        if (seen.size or 0) > LARGEST_JOB:
            continue
        if batch and size + (seen.size or 0) > _BYTES:
            yield from _fetch(redis, batch)
            batch, size = [], 0
        batch.append(seen)
        size += seen.size or 0
    yield from _fetch(redis, batch)


def _fetch(redis: Redis, jobs: Sequence[_Seen]) -> Iterator[tuple[_Seen, Mapping[bytes, bytes]]]:
    with redis.pipeline(transaction=False) as pipeline:
        for seen in jobs:
            pipeline.hgetall(_key("job", seen.raw_id))
        answers = pipeline.execute(raise_on_error=False)
    for seen, fields in zip(jobs, answers, strict=True):
        yield seen, fields if isinstance(fields, dict) else {}


def _result(results: Any) -> tuple[datetime | None, str]:
    """When the last result was stored, and its error's text. RQ's own reading would unpickle its value."""
    if not isinstance(results, list) or not results:
        return None, ""
    stored_at, fields = results[0]
    try:
        since = datetime.fromtimestamp(int(stored_at.split(b"-")[0]) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        since = None
    try:
        text = zlib.decompressobj().decompress(base64.b64decode(fields[b"exc_string"]), _LONGEST_TEXT)
    except (KeyError, ValueError, zlib.error):
        return since, ""
    return since, text.decode(errors="replace")


def _missing(seen: _Seen) -> _Cause | None:
    if seen.size is None:
        return _Cause("unreadable", "its key in Redis holds no hash")
    return None if seen.size else _Cause("gone", "its data expired, or somebody deleted it")


def _oversized(seen: _Seen) -> _Cause | None:
    if not _JOB_ID.fullmatch(seen.raw_id):
        return _Cause("unreadable", "its id is none of RQ's: letters, digits, underscores and dashes")
    if (seen.size or 0) > LARGEST_JOB:
        return _Cause("unreadable", f"larger than {LARGEST_JOB >> 20} MiB")
    return None


def _read(fields: Mapping[bytes, bytes]) -> _Cause:
    """What the worker would say of a quarantined job today."""
    try:
        problem = unreadable_field(fields)
        inflate(fields.get(b"data", b""))
    except UntrustedJob as error:
        problem = str(error)
    if problem:
        return _Cause("unreadable", problem)
    return _Cause("repaired", "set aside once, can be read now", _count(fields))


def _count(fields: Mapping[bytes, bytes]) -> int | None:
    """How many events a job carries."""
    try:
        (events,) = read_call(fields.get(b"data", b""))
    except (UntrustedJob, ValueError):  # not readable; or the sweep, which has none
        return None
    return len(events) if isinstance(events, list | tuple) else None


# Our exceptions whose texts carry no data, and what RQ writes without an exception.
_OWN: dict[str, str] = {
    "worker.trust.UntrustedJob": "untrusted",
    "worker.events.InvalidEvent": "untrusted",
    "worker.db.DatabaseFault": "database",
    "worker.config.ConfigError": "configuration",
    "worker.dryrun.NoProject": "configuration",
}
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

_JOB_ID = re.compile(rb"[A-Za-z0-9_-]+")
_TRACEBACK = "Traceback (most recent call last):\n"
_TYPE = re.compile(r"(?P<type>[A-Za-z_][\w.]{0,59})(?:: (?P<message>.*))?", re.ASCII)
_REJECTED = re.compile(r"(?P<rejected>\d{1,9}) of (?P<events>\d{1,9}) events rejected, .*")
_LINE = re.compile(r"\[\d{1,9}\] \$|and \d{1,9} more: ")


def _cause(error: str) -> _Cause:
    """Why a job failed, told from the text that RQ stored: a traceback, or only its last part."""
    for words, reason, why in _RQ:
        if error.startswith(words):
            return _Cause(reason, why)
    # The exception stands behind the last stack's lines, which are indented.
    lines = error.rpartition(_TRACEBACK)[2].splitlines()
    told = next((at for at, line in enumerate(lines) if line and line[0] != " "), len(lines))
    if told == len(lines) or not (exception := _TYPE.fullmatch(lines[told])):
        return _Cause("other", "nobody wrote down why" if not error else "ended by an unknown error")
    name, message = exception["type"], _plain(exception["message"] or "")
    if name == "worker.jobs.RejectedEvents" and (head := _REJECTED.fullmatch(message)):
        rejected = tuple(_plain(line) for line in lines[told + 1 :] if _LINE.match(line))
        why = f"{head['rejected']} of {head['events']} events rejected, all others are recorded"
        return _Cause("rejected", why, int(head["events"]), rejected)
    if name in _OWN:
        return _Cause(_OWN[name], message)
    if name in _FOREIGN:
        return _Cause(*_FOREIGN[name])
    return _Cause("other", f"{name} (its text is not shown: it might quote data)")


def _plain(text: str) -> str:
    """A line for a terminal: bounded, and nothing in it that would steer one."""
    return "".join(char if char.isprintable() else "?" for char in text[:_LONGEST_LINE])
