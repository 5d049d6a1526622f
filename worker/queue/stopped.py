"""Jobs that stopped: those in RQ's failed registry, in the quarantine, or nowhere, and why they are there.

Everything read here may have been put into Redis by anybody. It is read within bounds, nothing is unpickled
but plain data, and no text is passed on but of exceptions whose texts carry no data.
"""

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from redis import Redis

from .causes import Cause, cause
from .fields import unreadable_field
from .keys import ALLOWED_ID, LARGEST_DATA, PREFIX, QUEUE, failed_key, quarantine_key
from .lost import find_lost
from .plain import PeriodicCall, UntrustedJob, inflate, read_call

State = Literal["failed", "quarantined", "lost"]


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


def lost_jobs(redis: Redis, queue: str = QUEUE, *, count_events: bool = True) -> Iterator[StoppedJob]:
    """The jobs of `queue` that stand nowhere, see `lost`; looks at all keys. Raises redis.RedisError."""
    for page in _pages(find_lost(redis, queue).ids):
        seen = look(redis, page)
        counts = {one.raw_id: _count(fields) for one, fields in hashes(redis, seen)} if count_events else {}
        for one in seen:
            yield _stopped(one, "lost", None, _LOST._replace(events=counts.get(one.raw_id)))


# Ids a page of a registry, and jobs a page of their data.
_IDS, _JOBS = 5000, 500
# Of hashes fetched at once, but for a single larger one.
_BYTES = 8 << 20
# RejectedEvents tells of 1000 events and gives the others' numbers: some 200 kB.
_LONGEST_TEXT = 1 << 20


_LOST = Cause("lost", "it is to be run, and no list of its queue has it")
_AWAITED = Cause("unreadable", "RQ 3 does not allow its id, by which other jobs wait for it")


class Seen(NamedTuple):
    """What Redis has of a stopped job besides its hash."""

    raw_id: bytes
    #: Stored bytes of the job's data; None: the job's key holds no hash.
    size: int | None
    #: When the job's last result was stored, and its error's text.
    since: datetime | None
    error: str


def _failed(redis: Redis, ids: Sequence[bytes], count_events: bool) -> Iterator[StoppedJob]:
    page = [(seen, _missing(seen) or cause(seen.error)) for seen in look(redis, ids)]
    uncounted = [seen for seen, told in page if count_events and told.events is None and seen.size]
    counts = {seen.raw_id: _count(fields) for seen, fields in hashes(redis, uncounted)}
    for seen, told in page:
        counted = told._replace(events=counts[seen.raw_id]) if seen.raw_id in counts else told
        yield _stopped(seen, "failed", seen.since, counted)


def _quarantined(redis: Redis, ids: Sequence[bytes]) -> Iterator[StoppedJob]:
    page = look(redis, ids)
    problems = {seen.raw_id: problem for seen in page if (problem := _missing(seen) or _oversized(seen))}
    problems |= dict.fromkeys(_awaited(redis, ids), _AWAITED)
    rest = [seen for seen in page if seen.raw_id not in problems]
    problems |= {seen.raw_id: _read(fields) for seen, fields in hashes(redis, rest)}
    for seen in page:
        yield _stopped(seen, "quarantined", None, problems[seen.raw_id])


def _stopped(seen: Seen, state: State, since: datetime | None, cause: Cause) -> StoppedJob:
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
    return f"{PREFIX}:{kind}:".encode() + job_id


def look(redis: Redis, ids: Sequence[bytes]) -> list[Seen]:
    """What Redis has of some stopped jobs besides their hashes. Raises redis.RedisError."""
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hstrlen(_key("job", job_id), "data")
            pipeline.xrevrange(_key("results", job_id), count=1)
        answers = pipeline.execute(raise_on_error=False)  # WRONGTYPE, where somebody put another thing
    return [
        Seen(job_id, size if isinstance(size, int) else None, *_result(results))
        for job_id, size, results in zip(ids, answers[::2], answers[1::2], strict=True)
    ]


def hashes(redis: Redis, jobs: Sequence[Seen]) -> Iterator[tuple[Seen, Mapping[bytes, bytes]]]:
    """The hashes of those that are worth the memory, some at a time. Raises redis.RedisError."""
    batch: list[Seen] = []
    size = 0
    for seen in jobs:
        if (seen.size or 0) > LARGEST_DATA:
            continue
        if batch and size + (seen.size or 0) > _BYTES:
            yield from _fetch(redis, batch)
            batch, size = [], 0
        batch.append(seen)
        size += seen.size or 0
    yield from _fetch(redis, batch)


def _fetch(redis: Redis, jobs: Sequence[Seen]) -> Iterator[tuple[Seen, Mapping[bytes, bytes]]]:
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


def _missing(seen: Seen) -> Cause | None:
    if seen.size is None:
        return Cause("unreadable", "its key in Redis holds no hash")
    return None if seen.size else Cause("gone", "its data expired, or somebody deleted it")


def _awaited(redis: Redis, ids: Sequence[bytes]) -> list[bytes]:
    """Of the ids that RQ no longer allows, those by which other jobs wait."""
    odd = [job_id for job_id in ids if not ALLOWED_ID.fullmatch(job_id)]
    with redis.pipeline(transaction=False) as pipeline:
        for job_id in odd:
            pipeline.exists(_key("job", job_id) + b":dependents")
        return [job_id for job_id, awaited in zip(odd, pipeline.execute(), strict=True) if awaited]


def _oversized(seen: Seen) -> Cause | None:
    if (seen.size or 0) > LARGEST_DATA:
        return Cause("unreadable", f"larger than {LARGEST_DATA >> 20} MiB")
    return None


def _read(fields: Mapping[bytes, bytes]) -> Cause:
    """What the worker would say of a quarantined job today."""
    try:
        problem = unreadable_field(fields)
        inflate(fields.get(b"data", b""))
    except UntrustedJob as error:
        problem = str(error)
    if problem:
        return Cause("unreadable", problem)
    return Cause("repaired", "set aside once, can be read now", _count(fields))


def _count(fields: Mapping[bytes, bytes]) -> int | None:
    """How many events a job carries."""
    try:
        call = read_call(fields.get(b"data", b""))
    except UntrustedJob:
        return None
    if isinstance(call, PeriodicCall) or not isinstance(call.events, list | tuple):
        return None
    return len(call.events)
