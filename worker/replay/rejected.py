"""Rejected events to look at, hashed, or to correct, as they are."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from redis import Redis

from .. import NAME
from ..command import complain, say
from ..queue.refused import Refused, refused_events
from ..queue.stopped import StoppedJob
from .hashed import hashed
from .listing import say_job

_NO_JSON = "an event that is no JSON, or too large"
_NAMED = 3  # jobs


def show(redis: Redis, jobs: Sequence[StoppedJob]) -> int:
    """Each job with its rejected events, hashed; returns the exit status."""
    for job in jobs:
        say_job(job, lines=False)
        shown = False
        for one in refused_events(redis, job):
            shown = True
            say(f"    {one.line}")
            say(f"      {_NO_JSON if one.event is None else hashed(one.event)}")
        if not shown:
            say("    no event of it is known to be rejected, or its data is gone")
    return 0


def export(redis: Redis, jobs: Sequence[StoppedJob], path: Path, most: int) -> int:
    """Write the rejected events of some jobs as JSON lines, tokens and all; returns the exit status.

    The file is made anew, for nobody else to read, and is gone again where it could not be finished. `most`:
    lines to tell of.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return complain(f"{path} exists: nothing is overwritten, name another file")
    except OSError as error:
        return complain(f"cannot write {path}: {error.strerror}")
    written = 0
    try:
        with open(file, "w", encoding="ascii") as lines:  # noqa: PTH123 - opened above
            written, left_out = _write(lines, _rejected(redis, jobs), path, most)
    except OSError as error:
        return complain(f"cannot write {path}: {error.strerror}")
    finally:
        if not written:
            path.unlink(missing_ok=True)
    if not written:
        return complain("no rejected event can be exported: none is known, or the data of its job is gone")
    ids = " ".join([job.job_id for job in jobs[:_NAMED]] + ["..."] * (len(jobs) > _NAMED))
    say(f"{written:,} rejected events are in {path}, device tokens and all, for you alone. Correct them, run")
    say(f"  python -m {NAME}.enqueue {path}")
    say(f"  python -m {NAME}.replay --discard {ids}")
    say("and delete it.")
    return int(left_out > 0)


def _write(lines: TextIO, rejected: Iterable[tuple[str, Refused]], path: Path, most: int) -> tuple[int, int]:
    """Returns how many events are written, and how many could not be."""
    written = left_out = 0
    for job_id, one in rejected:
        if one.event is None:
            left_out += 1
            complain(f"left out: {job_id}: [{one.position}] {_NO_JSON}")
            continue
        lines.write(f"{one.event}\n")
        written += 1
        if written <= most:
            say(f"{path}:{written}: {one.line}")
    if written > most:
        say(f"and {written - most:,} more")
    return written, left_out


def _rejected(redis: Redis, jobs: Iterable[StoppedJob]) -> Iterator[tuple[str, Refused]]:
    for job in jobs:
        for one in refused_events(redis, job):
            yield job.job_id, one
