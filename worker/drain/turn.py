"""One turn of the draining worker, from claimed jobs to finished ones; runs beside the main thread."""

import base64
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..events import InvalidEvent
from ..judge.batch import Batch, Past, judge, judge_good
from ..queue.fields import unreadable_field
from ..queue.plain import PeriodicCall, UntrustedJob, read_call
from ..record.account import RejectedEvents, Report
from ..record.numbers import of_duration
from .claimed import Claimed, Done
from .claims import Claims
from .writers import Writers


class Unfinished(NamedTuple):
    """The jobs of a written turn that are left for RQ's own code."""

    failed: list[tuple[Claimed, Exception]]
    #: With what makes them so.
    unreadable: list[tuple[Claimed, str]]
    #: Not `record_outcomes`.
    ordinary: list[Claimed]
    #: Recorded, and others wait for them.
    awaited: list[tuple[Claimed, Report]]
    #: Some of their rows have to wait for somebody's lock.
    waiting: list[Claimed]


def run(
    jobs: Sequence[Claimed],
    *,
    writers: Writers,
    claims: Claims,
    serializer: Any,
    default_result_ttl: int,
) -> Unfinished:
    """Judge a turn's events, write them, and finish the jobs that are done with that.

    `serializer`: RQ's, for results. `default_result_ttl`: seconds, for jobs that do not say.
    Raises what `Writers.write` raises, with nothing written.
    """
    started_at = time.time()
    unfinished = Unfinished([], [], [], [], [])
    judged = _judge(jobs, unfinished)
    if not judged:
        return unfinished
    numbers: Counter[str] = Counter()
    reports = writers.write([batch for _, batch in judged], numbers)
    done: list[Done] = []
    recorded: list[tuple[Claimed, Report]] = []
    for (claimed, batch), report in zip(judged, reports, strict=True):
        if report.waiting:
            unfinished.waiting.append(claimed)
        elif report.rejected:
            unfinished.failed.append((claimed, RejectedEvents(report.rejected, batch.events)))
        else:
            ttl = int(claimed.result_ttl or default_result_ttl)
            result = base64.b64encode(serializer.dumps(report.summary)).decode() if ttl else ""
            done.append(Done(claimed, ttl, result))
            recorded.append((claimed, report))
    seconds = time.time() - started_at
    # Also where no job is done: what fails is counted before it fails.
    awaited = claims.finish(done, started_at, seconds, numbers + of_duration(seconds))
    if awaited:
        unfinished.awaited.extend(each for each in recorded if each[0].job_id in awaited)
    return unfinished


def _judge(jobs: Sequence[Claimed], unfinished: Unfinished) -> list[tuple[Claimed, Batch]]:
    calls: list[tuple[Claimed, Any]] = []
    ttls = {claimed.result_ttl for claimed in jobs if claimed.result_ttl}
    unreadable = {ttl: unreadable_field({b"result_ttl": ttl}) for ttl in ttls}
    for claimed in jobs:
        if claimed.result_ttl and (problem := unreadable[claimed.result_ttl]):
            unfinished.unreadable.append((claimed, problem))
            continue
        try:
            call = read_call(claimed.data)
        except Exception as error:
            unfinished.failed.append((claimed, _blame(error)))
            continue
        if isinstance(call, PeriodicCall):
            unfinished.ordinary.append(claimed)
        else:
            calls.append((claimed, call.events))
    with suppress(Exception):  # of some job, which the next lines find
        batches = judge_good([events for _, events in calls])
        return [
            (claimed, batch if claimed.past is Past.NONE else batch._replace(past=claimed.past))
            for (claimed, _), batch in zip(calls, batches, strict=True)
        ]
    judged: list[tuple[Claimed, Batch]] = []
    for claimed, events in calls:
        try:
            judged.append((claimed, judge(events)._replace(past=claimed.past)))
        except Exception as error:
            unfinished.failed.append((claimed, _blame(error)))
    return judged


def _blame(error: Exception) -> Exception:
    """What a job fails with for its data. What hostile data makes the code raise may quote it."""
    if isinstance(error, UntrustedJob | InvalidEvent):
        return error
    return UntrustedJob(f"the job's data cannot be judged: {where(error)}")


def where(error: BaseException) -> str:
    """What an unforeseen error is and where it came from, without its text, which may quote data."""
    (last,) = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
