"""Generated events by the million, each accounted for: `python tests/faults/fuzz.py --events 1000000`.

Valid, mutated and hostile events in jobs of 1 to 500, and among them jobs whose data is damaged, go through
the literal `rq worker notiflog` with the draining class, on throw-away servers. Then every single event must
be found again: as a row, as a duplicate, as a line of its failed job, or as one that its sender will retry.
"""

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from redis import Redis

from tests.faults.strategies import Generator, MadeJob
from worker.demo import sample, sandbox
from worker.queue.keys import quarantine_key
from worker.servers.migrations import apply, pending
from worker.servers.postgres import connect

BATCH = 50_000
WORKERS = 2
#: Bytes of address space of a worker: damaged data must not take the machine along.
MEMORY = 3 << 30
#: Seconds within which a batch must be done.
PATIENCE = 300

QUEUE = "rq:queue:notiflog"
# Wherever a job can be that is not done.
UNDONE_LISTS = (QUEUE, f"{QUEUE}:intermediate")
STARTED, FINISHED, FAILED = "rq:wip:notiflog", "rq:finished:notiflog", "rq:failed:notiflog"
QUARANTINE = quarantine_key("notiflog")

EPILOG = """\
examples:
  python tests/faults/fuzz.py                              50,000 events
  python tests/faults/fuzz.py --events 1000000 --seed 7    the long run

exit status: 0 every event is accounted for, 1 some are not, or a worker ended, 2 wrong usage
"""


class Ended(Exception):
    """A worker ended, or hangs; says which, and what it said last."""


class Workers(NamedTuple):
    """Literal `rq worker notiflog` processes, and the file that they all write to."""

    processes: "list[subprocess.Popen[bytes]]"
    log: Path

    def drain(self, redis: Redis) -> None:
        """Wait until no job is left to do. Raises Ended."""
        deadline = time.monotonic() + PATIENCE
        while any(map(redis.llen, UNDONE_LISTS)) or redis.zcard(STARTED):
            for process in self.processes:
                if process.poll() is not None:
                    raise Ended(f"a worker ended with status {process.returncode}:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise Ended(f"not done after {PATIENCE} s:\n{self._last_words()}")
            time.sleep(0.05)

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python tests/faults/fuzz.py",
        description=__doc__.splitlines()[0],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=BATCH, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, other events")
    options = parser.parse_args(arguments)
    if options.events < 1:
        parser.error("--events must be at least 1")

    total: Counter[str] = Counter()
    started = time.monotonic()
    try:
        with servers() as (database_url, redis_url, app, directory):
            generator = Generator(app, options.seed)
            with (
                psycopg.connect(database_url, autocommit=True) as database,
                Redis.from_url(redis_url) as redis,
                workers(WORKERS, database_url, redis_url, directory / "workers.log") as crew,
            ):
                while total["events"] < options.events:
                    n = min(BATCH, options.events - total["events"])
                    total += run(generator.jobs(n), app, crew, database, redis)
                    _say(f"{total['events']:,} of {options.events:,} events", sys.stderr)
            peak = _peak(resource.RUSAGE_CHILDREN)
    except Ended as error:
        _say(str(error), sys.stderr)
        return 1
    seconds = time.monotonic() - started
    for name in ("events", "rows", "duplicates", "rejected", "retrying", "unaccounted"):
        _say(f"{name:<36}{total[name]:>12,}")
    for name in ("finished", "failed", "quarantined", "unaccounted"):
        _say(f"{'jobs of damaged data, ' + name:<36}{total['damaged ' + name]:>12,}")
    _say(f"{'seconds':<36}{seconds:>12,.0f}")
    _say(f"{'events per second':<36}{options.events / seconds:>12,.0f}")
    _say(f"{'peak memory of a worker, MiB':<36}{peak:>12,.0f}")
    _say(f"{'peak memory of this command, MiB':<36}{_peak(resource.RUSAGE_SELF):>12,.0f}")
    return 1 if total["unaccounted"] or total["damaged unaccounted"] else 0


@contextmanager
def servers() -> Iterator[tuple[str, str, sample.App, Path]]:
    """Throw-away servers with a migrated database: its URL, Redis' URL, the app, a directory for files."""
    with (
        sandbox.directory() as directory,
        sandbox.valkey(directory) as redis_url,
        sandbox.postgres(directory, settings={"fsync": "off"}) as server,
    ):
        sandbox.create_app_tables(server.url())
        with connect(server.url()) as connection:
            for migration in pending(connection):
                apply(connection, migration)
            app = sample.make_app(connection)
        yield server.url(), redis_url, app, directory


@contextmanager
def workers(n: int, database_url: str, redis_url: str, log: Path) -> Iterator[Workers]:
    """Run `n` workers. Raises Ended when one does not end well in the end."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database_url,
        "NOTIFLOG_PRUNE_LIMIT": "100%",  # a week of sends in some seconds
        "REDIS_URL": redis_url,
        "RQ_WORKER_CLASS": "worker.drain.DrainWorker",
    }
    with log.open("ab") as output:  # appending, so that the file can be emptied meanwhile
        processes = [
            subprocess.Popen(
                [str(Path(sys.executable).with_name("rq")), "worker", "notiflog"],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
            )
            for _ in range(n)
        ]
    try:
        yield Workers(processes, log)
    finally:
        for process in processes:
            sandbox.stop(process, signal.SIGTERM)
    if any(process.returncode for process in processes):
        raise Ended(f"a worker did not end well:\n{log.read_text(errors='replace')[-2000:]}")


def run(
    jobs: Sequence[MadeJob], app: sample.App, crew: Workers, database: psycopg.Connection, redis: Redis
) -> Counter[str]:
    """Let the workers do some jobs, account for every event, and clean up; returns the figures."""
    with redis.pipeline() as pipeline:
        for job in jobs:
            fields: dict[Any, Any] = {"status": "queued", "origin": "notiflog", "timeout": 180}
            pipeline.hset(f"rq:job:{job.job_id}", mapping={**fields, "data": job.data})
            pipeline.rpush(QUEUE, job.job_id)
        pipeline.execute()
    crew.drain(redis)
    figures = account(jobs, app, crew.log, database, redis)
    forget(jobs, crew.log, database, redis)
    return figures


def account(
    jobs: Sequence[MadeJob], app: sample.App, log: Path, database: psycopg.Connection, redis: Redis
) -> Counter[str]:
    """What became of every event, as the table, the jobs and the log tell it."""
    rows = database.execute(
        "select idempotency_key, chapter_id = %s from public.follow_up_notification_log", [app.chapters[-1]]
    ).fetchall()
    recorded = {key for key, damaged in rows if not damaged}
    set_aside: list[Any] = redis.lrange(QUARANTINE, 0, -1)
    quarantine = {job_id.decode() for job_id in set_aside}
    figures: Counter[str] = Counter()
    claimed: set[str] = set()
    for job in jobs:
        stored: Any = redis.hget(f"rq:job:{job.job_id}", "status")
        status = stored.decode() if stored else "gone"
        if job.events is None:
            fate = "quarantined" if job.job_id in quarantine else status
            known = fate in ("finished", "failed", "quarantined")
            figures["damaged " + (fate if known else "unaccounted")] += 1
            continue
        rejected = rejected_positions(failure(redis, job.job_id)) if status == "failed" else set()
        judged = status == "finished" or rejected  # else it failed as a whole, and no event should
        for position, (payload, good) in enumerate(job.events):
            fate = "unaccounted"
            if position in rejected:
                fate = "unaccounted" if good else "rejected"
            elif judged and isinstance(payload, dict):
                if payload.get("final", True) is False:
                    fate = "retrying"
                elif (key := key_of(payload)) and key in recorded:
                    fate = "duplicates" if key in claimed else "rows"
                    claimed.add(key)
            figures[fate] += 1
        figures["events"] += len(job.events)
    # Nothing else may be there, and the worker must have counted what it wrote.
    summaries = [json.loads(line) for line in log.read_text().splitlines() if '"outcomes_recorded"' in line]
    logged = sum(line[status] for line in summaries for status in ("delivered", "failed", "skipped"))
    figures["unaccounted"] += len(recorded - claimed) + abs(logged - len(rows))
    return figures


def failure(redis: Redis, job_id: str) -> str:
    """What a failed job says."""
    results: Any = redis.xrevrange(f"rq:results:{job_id}", count=1)
    return zlib.decompress(b64decode(results[0][1][b"exc_string"])).decode() if results else ""


def rejected_positions(text: str) -> set[int]:
    """The events that a failed job names; the first thousand have a line each, the rest share one."""
    named = {int(position) for position in re.findall(r"^\[(\d+)\] ", text, re.MULTILINE)}
    rest = re.search(r"^and \d+ more: ([\d, ]+)$", text, re.MULTILINE)
    return named | {int(position) for position in rest[1].split(", ")} if rest else named


def key_of(payload: dict[str, Any]) -> str | None:
    """The row's key, by the contract's words; None where they give none."""
    if (key := payload.get("idempotency_key")) is not None:
        return str(key)
    try:
        mentor, rule = (UUID(str(payload[name])) for name in ("peer_mentor_id", "scenario_rule_id"))
        return sha256(f"{mentor}:{rule}:{payload['date_window']}".encode()).hexdigest()
    except (KeyError, ValueError):
        return None


def forget(jobs: Sequence[MadeJob], log: Path, database: psycopg.Connection, redis: Redis) -> None:
    """Remove all traces of some jobs, so that a long run needs no more memory than a short one."""
    keys = [f"rq:{kind}:{job.job_id}" for job in jobs for kind in ("job", "results")]
    redis.delete(*keys, FINISHED, FAILED, QUARANTINE)
    database.execute("truncate public.follow_up_notification_log")
    os.truncate(log, 0)


def _peak(whose: int) -> float:
    """Peak memory in MiB."""
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(whose).ru_maxrss / unit


def _say(line: str, stream: Any = None) -> None:
    print(line, file=stream or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
