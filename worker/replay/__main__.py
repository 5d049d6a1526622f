"""What stopped, why, and back to the queue with it: `python -m worker.replay`."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from .. import NAME
from ..command import Command, complain, progress, say
from ..extras import extra

with extra("worker"):
    from ..queue.repair import discard, requeue
    from ..servers import tls

from redis import Redis, RedisError

from ..queue.causes import REASONS
from ..queue.keys import QUEUE
from ..queue.known import unknown_queue
from ..queue.stopped import StoppedJob, lost_jobs, stopped_jobs
from ..servers.redis import BadAddress, client, explain
from ..servers.settings import requires_tls
from .listing import list_as_json, list_causes, list_each, say_reasons
from .rejected import export, show

# Jobs a script: some milliseconds of Redis' time.
_PAGE = 500
_SHOWN = 20  # causes, or lines

_MEANINGS = "\n".join(f"  {reason:<14}{meaning}" for reason, meaning in REASONS.items())

EPILOG = f"""\
examples:
  python -m {NAME}.replay                     list what stopped jobs, and how many
  python -m {NAME}.replay --reason database   replay the jobs that failed for this reason
  python -m {NAME}.replay --all --dry-run     say what would be replayed
  python -m {NAME}.replay --all               replay everything
  python -m {NAME}.replay 4f1c ... 9a07 ...   replay these jobs
  python -m {NAME}.replay --discard 4f1c ...  delete this job for good
  python -m {NAME}.replay --show 4f1c ...     its rejected events, with tokens and people as hashes
  python -m {NAME}.replay --export bad.jsonl  write all rejected events there, to correct and enqueue them

reasons:
{_MEANINGS}

Replaying puts jobs back to the end of the queue. It only adds what is missing: what is recorded stays as it
is. So it asks nothing back, and may be done at any time and again. Rejected events are rejected again, unless
what they name exists by now; correct the others in a file of --export, and `python -m {NAME}.enqueue` that.

REDIS_URL as for the worker.
exit status: 0 done (also with stopped jobs listed), 1 a problem (a job could not be replayed, no such job
or queue, Redis is away, interrupted), 2 wrong usage or configuration
"""

_ENDED = {
    "requeued": "back in the queue",
    "discarded": "deleted",
    "gone": "had expired or been deleted, nothing was left of them",
    "elsewhere": "were not there any more: somebody else was faster",
}
_LEFT = {
    "unreadable": "its hash in Redis cannot be read",
    "limited": "it has a rate limit, so use RQ's own `rq requeue --queue` with its queue and its id",
    "waiting": "somebody enqueued it again, it has not stopped",
}


@click.command(
    "replay", cls=Command, epilog=EPILOG, interrupted="interrupted, no job is lost; run it again to go on"
)
@click.argument("jobs", nargs=-1, metavar="[ID]...")
@click.option("--queue", default=QUEUE, show_default=True, help="whose stopped jobs")
@click.option("--all", is_flag=True, help="replay every stopped job")
@click.option(
    "--reason",
    multiple=True,
    type=click.Choice(list(REASONS)),
    metavar="REASON",
    help="replay the jobs that stopped for this reason; may be repeated",
)
@click.option("--discard", is_flag=True, help="delete the jobs of the given ids for good")
@click.option("--dry-run", is_flag=True, help="say what would be done, change nothing")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=_SHOWN,
    show_default=True,
    metavar="N",
    help="causes to list",
)
@click.option("--show", multiple=True, metavar="ID", help="this job's rejected events, tokens as hashes")
@click.option(
    "--export",
    type=Path,
    metavar="FILE",
    help="write the rejected events of these or all jobs into a new file, to correct them",
)
@click.option("--verbose", is_flag=True, help="list every job with every rejected event")
@click.option("--json", is_flag=True, help="list as JSON, every job with every rejected event")
def main(**chosen: Any) -> int:
    """List failed and quarantined jobs with why, and put them back into the queue."""
    options = SimpleNamespace(**chosen)
    _refuse_contradictions(options)
    try:
        redis = client(os.environ)
    except BadAddress as error:
        return complain(str(error), 2)
    if requires_tls(os.environ) and (gap := tls.unverified_redis(redis.connection_pool)):
        return complain(f"REDIS_URL {gap}, and NOTIFLOG_REQUIRE_TLS is set: {tls.VERIFY_REDIS}", 2)
    try:
        with closing(redis):
            if problem := unknown_queue(redis, options.queue):
                return complain(problem)
            if options.show or options.export:
                return _look_into(redis, options)
            if options.jobs or options.all or options.reason:
                return _act(redis, options)
            _list(_stopped(redis, options.queue), options)
            return 0
    except (RedisError, OSError) as error:
        return complain(explain(error))


def _refuse_contradictions(options: SimpleNamespace) -> None:
    ways = [way for way in ("jobs", "all", "reason") if getattr(options, way)]
    if len(ways) > 1:
        raise click.UsageError("job ids, --all and --reason exclude each other")
    if options.discard and not options.jobs:
        raise click.UsageError("--discard takes job ids: what is deleted is deleted one by one")
    if (ways or options.show or options.export) and (options.json or options.verbose):
        raise click.UsageError("--json and --verbose are for the list of stopped jobs")
    if (options.show or options.export) and (set(ways) - {"jobs"} or options.discard or options.dry_run):
        raise click.UsageError("--show and --export replay nothing: give them job ids at most")
    if options.show and (options.export or options.jobs):
        raise click.UsageError("--show takes one id, and may be repeated; --export is another thing to do")
    if options.export == Path("-"):
        raise click.UsageError("--export takes a file: what is exported holds device tokens")
    if options.dry_run and not ways:
        raise click.UsageError("--dry-run of what? Give job ids, --all or --reason")


def _stopped(redis: Redis, queue: str, *, count_events: bool = True) -> Iterator[StoppedJob]:
    yield from stopped_jobs(redis, queue, count_events=count_events)
    yield from lost_jobs(redis, queue, count_events=count_events)


def _list(stopped: Iterable[StoppedJob], options: SimpleNamespace) -> None:
    if options.json:
        list_as_json(stopped)
    elif options.verbose:
        list_each(stopped)
    else:
        list_causes(stopped, options.limit)


def _look_into(redis: Redis, options: SimpleNamespace) -> int:
    """Show or export the rejected events of the jobs that are meant, or of all."""
    options.jobs = options.show or options.jobs
    if not options.jobs:
        options.reason = ("rejected",)
    chosen, unknown = _choose(_stopped(redis, options.queue, count_events=bool(options.show)), options)
    status = show(redis, chosen) if options.show else export(redis, chosen, options.export, options.limit)
    return _tell_unknown(unknown) or status


# --- replay and discard ------------------------------------------------------------------------------------


def _act(redis: Redis, options: SimpleNamespace) -> int:
    chosen, unknown = _choose(_stopped(redis, options.queue, count_events=False), options)
    hopeless = [] if options.discard else [job for job in chosen if job.reason == "unreadable"]
    able = [job for job in chosen if options.discard or job.reason != "unreadable"]
    left = [(job, job.why) for job in hopeless]
    if options.dry_run:
        say(f"would be {'deleted' if options.discard else 'replayed'}: {len(able):,}")
        say_reasons(Counter(job.reason for job in able))
    else:
        left += _run(redis, discard if options.discard else requeue, able, options.queue)
    for job, why in left[: options.limit]:
        complain(f"left where it is: {job.job_id}: {why}")
    if len(left) > options.limit:
        complain(f"left where they are: {len(left) - options.limit:,} more jobs")
    return _tell_unknown(unknown) or int(bool(left))


def _tell_unknown(job_ids: Iterable[str]) -> int:
    status = 0
    for job_id in job_ids:
        status = complain(f"no stopped job has this id: {job_id}")
    return status


def _choose(stopped: Iterable[StoppedJob], options: SimpleNamespace) -> tuple[list[StoppedJob], list[str]]:
    """The jobs that are meant, and the ids that no stopped job has."""
    ids = dict.fromkeys(options.jobs)
    chosen = [
        job._replace(rejected=())  # they may be many
        for job in stopped
        if options.all or job.reason in options.reason or job.job_id in ids
    ]
    found = {job.job_id for job in chosen}
    return chosen, [job_id for job_id in ids if job_id not in found]


Act = Callable[[Redis, Sequence[StoppedJob], str], list[str]]


def _run(redis: Redis, act: Act, jobs: Sequence[StoppedJob], queue: str) -> list[tuple[StoppedJob, str]]:
    """Do it page by page, and tell; returns the jobs that were left, and why."""
    ended: Counter[str] = Counter()
    left = []
    try:
        with progress(len(jobs), "jobs") as show:
            for start in range(0, len(jobs), _PAGE):
                page = jobs[start : start + _PAGE]
                for job, answer in zip(page, act(redis, page, queue), strict=True):
                    ended[answer] += 1
                    if answer in _LEFT:
                        left.append((job, _LEFT[answer]))
                show(start + len(page))
    finally:
        for answer, meaning in _ENDED.items():
            if ended[answer]:
                say(f"{ended[answer]:,} {meaning}")
    return left


if __name__ == "__main__":
    raise SystemExit(main())
