"""What deleting old outcomes costs a worker that records: `python tests/benchmarks/retention.py`.

Fills the log of a throw-away server with old rows, and has one draining worker record jobs of 500 events, by
turns alone and beside `python -m worker.retain`. A round measures both, in an order that changes; what counts
is the ratio of a round, for the machine is in much the same mood within one. The rate of recording is that
between its first and its last commit.
"""

# ruff: noqa: T201 - a command prints

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import psycopg
from redis import Redis
from rq import Queue

from worker.demo import sample, sandbox
from worker.servers.migrations import apply, pending

JOB = "worker.jobs.record_outcomes"

OLD = """
insert into public.follow_up_notification_log
       (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status,
        created_at)
select (%b::uuid[])[1 + n %% 400], (%b::uuid[])[1 + n %% 20], (%b::uuid[])[1 + n %% 6],
       now() - interval '500 days' - n * interval '1 second', 'fcm',
       encode(sha256((n::text || random()::text)::bytea), 'hex'), 'delivered', now() - interval '500 days'
  from generate_series(1, %s) as n
"""

RATE = """
select count(*) / nullif(extract(epoch from max(created_at) - min(created_at)), 0)::float
  from public.follow_up_notification_log where created_at > now() - interval '1 day'
"""

COUNT = (
    "select count(*) from public.follow_up_notification_log where delivered_at {} now() - interval '400 days'"
)


class Bench:
    """The servers, and what both sides share."""

    def __init__(self, database: psycopg.Connection, redis: Redis, environment: dict[str, str]) -> None:
        self.database = database
        self.redis = redis
        self.environment = environment
        self.app = sample.make_app(database)

    def count(self, sign: str) -> int:
        """Rows that are old (`<`) or not."""
        ((rows,),) = self.database.execute(COUNT.format(sign).encode()).fetchall()
        return int(rows)

    def record(self, events: int, old: int, *, beside: bool) -> tuple[float, int]:
        """The rate of recording, in rows a second, and how many old rows went meanwhile."""
        self.redis.flushall()
        self.database.execute("truncate public.follow_up_notification_log")
        self.database.execute(OLD, [self.app.users, self.app.chapters, self.app.rules, old])
        self.database.execute("vacuum analyze public.follow_up_notification_log")
        self.database.execute("checkpoint")
        payloads = sample.Scheduler(self.app).good_events(events, uuid4().hex)
        queue = Queue("notiflog", connection=self.redis)
        for start in range(0, events, 500):
            queue.enqueue(JOB, payloads[start : start + 500], result_ttl=0, description="outcomes")
        retain = ["-m", "worker.retain", "--older-than", "400d", "--yes"]
        deleting = [self.start(sys.executable, *retain)] if beside else []
        while deleting and self.count("<") == old:  # it has begun
            time.sleep(0.05)
        before = self.count("<")
        worker = self.start(
            str(Path(sys.executable).with_name("rq")), "worker", "notiflog", "--quiet", "--burst"
        )
        try:
            if worker.wait(120):
                raise RuntimeError("the worker ended badly")
            after = self.count("<")
            if deleting and deleting[0].poll() is not None:
                raise RuntimeError("nothing was left to delete: ask for more old rows")
        finally:
            for process in (*deleting, worker):
                sandbox.stop(process, signal.SIGTERM)
        if (recorded := self.count(">")) != events:
            raise RuntimeError(f"{recorded} of {events} events are recorded")
        ((rate,),) = self.database.execute(RATE).fetchall()
        return float(rate), before - after

    def start(self, *command: str) -> "subprocess.Popen[bytes]":
        """Start a process of ours, in silence."""
        silent = subprocess.DEVNULL
        return subprocess.Popen(
            command, env=self.environment, stdout=silent, stderr=silent, start_new_session=True
        )


def measure(bench: Bench, rounds: int, events: int, old: int) -> None:
    """Print each round, then the ratios' median and spread."""
    ratios = []
    for number in range(rounds):
        rates, deleted = {}, 0
        for beside in (False, True) if number % 2 else (True, False):
            rates[beside], gone = bench.record(events, old, beside=beside)
            deleted += gone
        ratios.append(rates[True] / rates[False])
        print(
            f"alone {rates[False]:,.0f}/s, beside {rates[True]:,.0f}/s: {ratios[-1]:.2f}; {deleted:,} deleted"
        )
    median = statistics.median(ratios)
    print(f"recording beside the deletion: {median:.2f} of its rate ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=40_000, help="that are recorded, each time")
    parser.add_argument(
        "--old", type=int, default=200_000, help="rows that are there to be deleted, each time"
    )
    options = parser.parse_args()
    with sandbox.directory() as directory:
        settings = {"max_wal_size": "8GB", "shared_buffers": "512MB"}
        with (
            sandbox.postgres(directory, settings=settings) as server,
            sandbox.valkey(directory) as url,
            psycopg.connect(server.url(), autocommit=True, prepare_threshold=None) as database,
        ):
            sandbox.create_app_tables(server.url())
            for migration in pending(database):
                apply(database, migration)
            environment = {
                "PATH": os.environ["PATH"],
                "DATABASE_URL": server.url(),
                "REDIS_URL": url,
                "RQ_WORKER_CLASS": "worker.drain.DrainWorker",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            }
            measure(
                Bench(database, Redis.from_url(url), environment), options.rounds, options.events, options.old
            )


if __name__ == "__main__":
    main()
