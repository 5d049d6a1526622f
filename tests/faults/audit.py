"""What must hold once all jobs are done, whatever became of the workers: row by row and token by token."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import psycopg
from redis import Redis
from rq import Queue
from rq.job import Job

from tests.faults.workload import Batch, Workload
from worker.queue.keys import QUEUE, quarantine_key

_QUEUE = f"rq:queue:{QUEUE}"
_INTERMEDIATE = f"{_QUEUE}:intermediate"
_STARTED = f"rq:wip:{QUEUE}"
_LEASES = f"rq:notiflog:leases:{QUEUE}"

_REPORT = re.compile(r"RejectedEvents: .*\n((?:\[\d+\] .*\n?)*)")


class Audit(NamedTuple):
    """What was found."""

    rows: int
    lost: int
    doubled: int
    #: A sentence for each thing that is wrong.
    problems: list[str]


def audit(
    connection: psycopg.Connection,
    redis: Redis,
    work: Workload,
    jobs: Sequence[tuple[Job, Batch]],
    *,
    remains: bool,
) -> Audit:
    """Compare what is left, after all workers stopped, with what must be.

    `remains`: RQ leaves something of a killed execution until it expires.
    """
    recorded = connection.execute(
        "select idempotency_key, status from public.follow_up_notification_log"
    ).fetchall()
    statuses: dict[str, str] = dict(recorded)
    lost = len(work.statuses.keys() - statuses.keys())
    doubled = len(recorded) - len(statuses)
    tokens = {token for (token,) in connection.execute("select token from public.device_tokens")}
    unreported = [key for key in work.statuses.keys() & statuses if statuses[key] not in work.statuses[key]]
    wrong = {
        "keys have no row": lost,
        "rows have the key of another": doubled,
        "rows were never reported": len(statuses.keys() - work.statuses.keys()),
        "rows have a status that nobody reported": len(unreported),
        "dead tokens are still there": len(tokens & set(work.dead)),
        "live tokens are gone": len({*work.alive, *work.again} - tokens),
    }
    problems = [f"{n} {what}" for what, n in wrong.items() if n]
    return Audit(len(recorded), lost, doubled, [*problems, *_jobs(jobs), *_traces(redis, remains)])


def report(job: Job) -> list[int] | None:
    """The positions of the events that a failed job reports as rejected; None: that is not why it failed."""
    result = job.latest_result()
    found = _REPORT.search(result.exc_string or "") if result else None
    return [int(position) for position in re.findall(r"(?m)^\[(\d+)\]", found[1])] if found else None


def is_quiet(redis: Redis, workers: int) -> bool:
    """Whether no job is anywhere but done or failed, and only living workers hold a lease."""
    *busy, leases = places(redis).values()
    return not any(busy) and leases in (0, workers)  # stock workers have none


def places(redis: Redis) -> dict[str, int]:
    """How many jobs are where, and how many workers hold a lease."""
    with redis.pipeline() as pipeline:  # at one moment: no job is between two places
        pipeline.llen(_QUEUE)
        pipeline.llen(_INTERMEDIATE)
        pipeline.zcard(_STARTED)
        pipeline.zcard(_LEASES)
        return dict(zip(("queued", "taken", "started", "leases"), pipeline.execute(), strict=True))


def _jobs(jobs: Sequence[tuple[Job, Batch]]) -> Iterator[str]:
    """A job with rejected events has failed, with a line for each; no other has."""
    failed = set(Queue(QUEUE, connection=jobs[0][0].connection).failed_job_registry.get_job_ids())
    for job, batch in jobs:
        if (job.id in failed) != bool(batch.rejected):
            which = "in the failed registry" if job.id in failed else "not in the failed registry"
            yield f"job {job.id} is {which}, with {len(batch.rejected)} events to reject"
        elif batch.rejected and report(job) != batch.rejected:
            yield f"job {job.id} rejects {batch.rejected}, its report says {report(job)}"


def _traces(redis: Redis, remains: bool) -> Iterator[str]:
    """Nothing is left in Redis of a job under way; if there may be remains, they expire."""
    if any(places(redis).values()):
        yield f"jobs or leases are left: {places(redis)}"
    if redis.llen(quarantine_key(QUEUE)):
        yield "jobs were quarantined"
    left = [
        key for key in redis.scan_iter("rq:*execution*", count=1000) if redis.ttl(key) == -1 or not remains
    ]
    if left:
        yield f"{len(left)} keys of executions are left, among them {left[0].decode()}"
