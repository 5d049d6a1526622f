"""Kill workers, again and again, and see that nothing is lost and nothing counted twice.

Throw-away servers, some thousand jobs, several `rq worker notiflog` that a supervisor starts again at once,
and SIGKILL at seeded moments: at random ones from outside, and at the delicate ones from inside. At the end
every key must have its one row, every dead token must be gone, and every other must still be there.
"""

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psycopg
from redis import Redis
from rich.console import Console
from rich.table import Table
from rq import Queue
from rq.job import Job

from tests.faults.audit import Audit, audit, is_quiet, places, report
from tests.faults.kills import ANY_TIME, AT_WORK, DRAIN, STOCK, Host, Kill, Who, plan
from tests.faults.workload import Batch, Workload, enqueue, workload
from worker.demo import sample, sandbox
from worker.queue.keys import QUEUE
from worker.servers.migrations import apply, pending

EPILOG = """examples:
  python -m tests.faults.soak                            200 kills over 100,000 events, each time others
  python -m tests.faults.soak --seed 4711                the kills and the events of any run with this seed
  python -m tests.faults.soak --worker stock             RQ's own forking worker
  python -m tests.faults.soak --kills 10 --events 5000   a short one

exit status: 0 nothing lost or doubled, 1 a problem, 2 wrong usage"""

WORKERS = 4

_SHOWN = 10_000  # characters of the workers' log, where something is wrong


class Setup(NamedTuple):
    """How to run and to kill one class of worker."""

    environment: dict[str, str]
    options: Sequence[str]
    moments: Sequence[tuple[str, Who]]
    #: Seconds after the last kill until all jobs must be done.
    patience: float
    #: RQ leaves something of a killed execution in Redis until it expires.
    remains: bool


SETUPS = {
    "drain": Setup({"RQ_WORKER_CLASS": "worker.drain.DrainWorker"}, (), DRAIN, 90, False),
    # RQ's clock at its fastest: the jobs of a dead stock worker run again after some 75 s, not up to 13 min.
    "stock": Setup(
        {},
        ("--maintenance-interval", "5", "--worker-ttl", "20", "--job-monitoring-interval", "5"),
        STOCK,
        300,
        True,
    ),
}


@dataclass
class Soak:
    """One run."""

    work: Workload
    host: Host
    redis: Redis
    patience: float
    jobs: list[tuple[Job, Batch]] = field(default_factory=list)
    #: Kills by moment and victim.
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: Ids of jobs that were in the failed registry for another reason than their events.
    replayed: set[str] = field(default_factory=set)

    def run(self, kills: Sequence[Kill]) -> None:
        """Feed the workers while killing them, replay what failed, stop them. Raises TimeoutError."""
        batches = self.work.batches
        for number, kill in enumerate(kills):
            share = batches[number * len(batches) // len(kills) : (number + 1) * len(batches) // len(kills)]
            self._kill(kill, share)
            self._wait(kill.pause)
        self._until(lambda: not self.host.points.waiting(), "every fail point is reached")
        self._until(self._replay, "all jobs are done")
        self.host.stop()

    def _kill(self, kill: Kill, share: Sequence[Batch]) -> None:
        """Enqueue a share of the jobs, and kill one of those who work."""
        from_outside = kill.moment in (AT_WORK, ANY_TIME)
        if not from_outside:
            self.host.points.arm(kill.moment, kill.who)
        self.jobs += [(enqueue(self.redis, batch), batch) for batch in share]
        if kill.moment == AT_WORK:
            self._until(lambda: self.host.kill_at_work(kill), "a worker has jobs")
        elif kill.moment == ANY_TIME:
            self._until(lambda: self.host.kill(kill), "a worker runs")
        self.kills[kill.moment, kill.who] += 1

    def _replay(self) -> bool:
        """Enqueue again what failed, but not of its events; returns whether nothing is left to do.

        That is a job that was killed too often, or one that had no Retry.
        """
        if not is_quiet(self.redis, self.host.workers):
            return False
        registry = Queue(QUEUE, connection=self.redis).failed_job_registry
        failed = set(registry.get_job_ids())
        again = [job.id for job, _ in self.jobs if job.id in failed and report(job) is None]
        for job_id in again:
            registry.requeue(job_id)
        self.replayed.update(again)
        return not again

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.host.keep_running()
            time.sleep(min(0.02, left))

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.patience
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {self.patience:.0f} s: {what}; {places(self.redis)}")
            self._wait(0.01)


class Outcome(NamedTuple):
    """What came of a soak."""

    soak: Soak
    audit: Audit
    #: Sentences; none: nothing is lost or doubled.
    problems: list[str]
    seconds: float


def soak(
    environment: dict[str, str],
    directory: Path,
    app: sample.App,
    setup: Setup,
    *,
    events: int,
    kills: int,
    seed: int,
    workers: int = WORKERS,
) -> Outcome:
    """Run a soak on the servers in `environment`, which have the app's rows and no outcomes."""
    started = time.monotonic()
    with (
        closing(Redis.from_url(environment["REDIS_URL"])) as redis,
        psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection,
    ):
        work = workload(app, events, seed)
        work.insert_devices(connection)
        host = Host({**environment, **setup.environment}, directory, redis, workers, setup.options)
        run = Soak(work, host, redis, setup.patience)
        problems = []
        try:
            run.run(plan(setup.moments, kills, seed))
        except TimeoutError as error:
            problems.append(str(error))
        finally:
            host.stop()
        found = audit(connection, redis, work, run.jobs, remains=setup.remains)
        return Outcome(run, found, problems + host.ended + found.problems, time.monotonic() - started)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak on servers of its own; returns the exit status: 0 nothing lost or doubled, 1 a problem."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=100_000, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the events, the kills and their moments")
    parser.add_argument("--worker", choices=sorted(SETUPS), default="drain", help="(%(default)s)")
    options = parser.parse_args(arguments)
    if options.kills < 1 or options.events < 20 * options.kills:
        parser.error("--kills must be at least 1, and --events at least 20 for each")
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed

    console = Console()
    console.print(f"python -m tests.faults.soak --worker {options.worker} --seed {seed}", highlight=False)
    with (
        sandbox.directory() as directory,
        # The servers are not what dies here: no need to sync to disk.
        sandbox.postgres(directory, settings={"fsync": "off"}) as server,
        sandbox.valkey(directory, appendonly="yes") as redis_url,
    ):
        sandbox.create_app_tables(server.url())
        with psycopg.connect(server.url(), autocommit=True) as connection:
            for migration in pending(connection):
                apply(connection, migration)
            app = sample.make_app(connection)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFLOG_", "RQ_", "PG"))}
        environment = {**inherited, "DATABASE_URL": server.url(), "REDIS_URL": redis_url}
        outcome = soak(
            environment,
            directory,
            app,
            SETUPS[options.worker],
            events=options.events,
            kills=options.kills,
            seed=seed,
        )
        _show(console, outcome)
    return 1 if outcome.problems else 0


def _show(console: Console, outcome: Outcome) -> None:
    run, found = outcome.soak, outcome.audit
    moments = Table("kill", "whom", "times")
    for (moment, who), times in sorted(run.kills.items()):
        moments.add_row(moment, who, f"{times:,}")
    moments.add_row("all", "", f"{run.kills.total():,}", style="bold")
    console.print(moments)
    figures = Table("", "")
    for name, n in {
        "events": run.work.events,
        "jobs": len(run.jobs),
        "keys": len(run.work.statuses),
        "duplicates": run.work.duplicates,
        "rejected": run.work.rejected,
        "jobs failed and replayed": len(run.replayed),
        "rows": found.rows,
        "lost": found.lost,
        "doubled": found.doubled,
        "seconds": round(outcome.seconds),
    }.items():
        figures.add_row(name, f"{n:,}")
    console.print(figures)
    for problem in outcome.problems:
        console.print(f"problem: {problem}", style="red", markup=False)
    if outcome.problems:
        console.print("...", run.host.log.read_text()[-_SHOWN:], markup=False, highlight=False)


if __name__ == "__main__":
    raise SystemExit(main())
