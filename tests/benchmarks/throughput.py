"""Outcomes per second, side by side: `python tests/benchmarks/throughput.py`, after installing `.[bench]`.

Every system does the same real work on the same throw-away servers: decode, classify, insert, prune, log. Its
rate stands as a ratio to the limit measured right before and after it: as many ready rows into the same empty
table by `insert ... select from unnest`, 500 a statement on one connection. Ratios travel between machines;
rates do not.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from redis import Redis
from rich.console import Console
from rich.table import Table
from rq import Queue

from tests.benchmarks import delay
from tests.benchmarks.peers import arq, celery, dramatiq, huey, procrastinate, simple_worker, taskiq
from tests.benchmarks.peers.work import Servers
from worker import events
from worker.demo import sample, sandbox
from worker.enqueue import enqueue_outcomes
from worker.judge import classify
from worker.servers.migrations import apply, pending

JOB = "worker.jobs.record_outcomes"
BIN = Path(sys.executable).parent
#: What one would write first.
RAW = """
insert into public.follow_up_notification_log
       (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status)
select * from unnest(
  %b::uuid[], %b::uuid[], %b::uuid[], %b::timestamptz[], %b::text[], %b::text[], %b::text[])
on conflict (idempotency_key) do nothing
returning idempotency_key
"""
#: With fewer the limit would be measured in too short a time.
LEAST_RAW_ROWS = 20_000
#: Of PostgreSQL: no checkpoint amid a run.
SETTINGS = {"max_wal_size": "8GB", "shared_buffers": "512MB"}

# So many pages at a table's end may be empty, and be filled later.
_SPARE_PAGES = 1024

Payload = list[dict[str, Any]]


@dataclass
class Bench:
    """The servers, and what all systems share."""

    database: psycopg.Connection
    redis: Redis
    servers: Servers
    app: sample.App
    #: The workers': their servers may be further away than those of who enqueues and counts.
    environment: dict[str, str]
    log: Path

    def payloads(self, n: int) -> Payload:
        """Good events with fresh keys: most delivered, some skipped or failed, some with a dead token."""
        return sample.Scheduler(self.app).good_events(n, uuid4().hex)

    def rate(self) -> float:
        """Rows per second from the first transaction's start to the last one's."""
        rows, seconds = self.database.execute(
            """
            select count(*) filter (where created_at < last), extract(epoch from last - first)::float
              from public.follow_up_notification_log,
                   (select min(created_at) as first, max(created_at) as last
                      from public.follow_up_notification_log where created_at >= %s) as span
             where created_at >= first group by first, last
            """,
            [self.started],
        ).fetchone() or (0, 1.0)
        return float(rows / seconds) if seconds else 0.0  # all in one transaction: nothing to measure

    def begin(self) -> None:
        """Forget what was measured before."""
        self.redis.flushall()
        self.database.execute("checkpoint")
        self.started, pages = self.database.execute(
            "select clock_timestamp(), pg_relation_size('public.follow_up_notification_log') / 8192"
        ).fetchone() or (None, 0)
        self.first_page = max(0, pages - _SPARE_PAGES)

    def rows(self, *, everywhere: bool = False) -> int:
        """Rows written since `begin`; looks at the table's end only, at little expense of those measured.

        Vacuum tells of what room is left before; `everywhere` finds what was written there, too.
        """
        found = self.database.execute(
            """
            select count(*) from public.follow_up_notification_log
             where created_at >= %s and ctid >= %s::tid
            """,
            [self.started, f"({0 if everywhere else self.first_page},0)"],
        ).fetchone()
        return int(found[0]) if found else 0

    @contextmanager
    def running(
        self, commands: Sequence[Sequence[str]], **environment: str
    ) -> Iterator[list["subprocess.Popen[bytes]"]]:
        """Run worker processes during the block: programs beside our Python, or by their whole path."""
        with self.log.open("ab") as log:
            processes = [
                subprocess.Popen(
                    [str(BIN / command[0]), *command[1:]],
                    env={**self.environment, **environment},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
                for command in commands
            ]
        try:
            yield processes
        finally:
            for process in processes:
                sandbox.stop(process, signal.SIGTERM, timeout=10)

    def run(self, commands: Sequence[Sequence[str]], rows: int, **environment: str) -> None:
        """Run worker processes until all rows are there, then stop them."""
        with self.running(commands, **environment) as processes:
            begun = time.monotonic()
            before = 0
            while (done := self.rows()) < rows:
                took = time.monotonic() - begun
                over = took > 300 or all(p.poll() is not None for p in processes)
                if over or 0 < done == before:
                    found = self.rows(everywhere=True)
                    if found >= rows:
                        break
                    if over:
                        raise RuntimeError(f"{commands[0]} ended with {found} of {rows} rows, see {self.log}")
                before = done
                # At the expense of those who are measured: seldom.
                time.sleep(min(5.0, max(0.3, took * (rows - done) / done / 2)) if done else 0.3)


@contextmanager
def prepared(
    directory: Path, server: sandbox.Postgres, redis_url: str, addresses: Mapping[str, str]
) -> Iterator[Bench]:
    """Both servers, with all tables and the app's rows; `addresses`: the workers' own, if they have any."""
    sandbox.create_app_tables(server.url())
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFLOG_", "RQ_", "PG"))}
    environment = {
        **inherited,
        "DATABASE_URL": server.url(),
        "NOTIFLOG_PRUNE_LIMIT": "100%",  # every system prunes all
        "REDIS_URL": redis_url,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **addresses,
    }
    with psycopg.connect(server.url(), autocommit=True, prepare_threshold=None) as database:
        database.execute("set max_parallel_workers_per_gather = 0")  # counting is to be cheap
        for migration in pending(database):
            apply(database, migration)
        app = sample.make_app(database)
        servers = Servers(server.url(), redis_url)
        yield Bench(database, Redis.from_url(redis_url), servers, app, environment, directory / "log")


def raw(bench: Bench, rows: int) -> float:
    """The limit: ready rows, 500 a statement, one connection; as many as the system that it is for writes.

    The fuller the table, the slower both: fewer rows would make the limit look higher.
    """
    outcomes = [classify.fold(events.decode(payload)) for payload in bench.payloads(rows)]
    batches = []
    for start in range(0, rows, 500):
        part = sorted(outcomes[start : start + 500], key=lambda outcome: outcome.idempotency_key)
        batches.append([list(column) for column in zip(*map(_row, part), strict=True)])
    bench.begin()
    for batch in batches:
        bench.database.execute(RAW, batch)
    return bench.rate()


def _row(outcome: classify.Outcome) -> tuple[Any, ...]:
    return (
        outcome.peer_mentor_id,
        outcome.chapter_id,
        outcome.scenario_rule_id,
        outcome.delivered_at,
        outcome.delivery_channel,
        outcome.idempotency_key,
        outcome.status,
    )


def rq(
    worker_class: str | None, processes: int, **environment: str
) -> Callable[[Bench, Payload, int], float]:
    """RQ with some worker class, started the way users start it."""
    if worker_class:
        environment["RQ_WORKER_CLASS"] = worker_class

    def measure(bench: Bench, payloads: Payload, chunk: int) -> float:
        bench.begin()
        queue = Queue("notiflog", connection=bench.redis)
        for start in range(0, len(payloads), 1000):
            enqueue_outcomes(queue, payloads[start : start + 1000], per_job=chunk)
        bench.run([("rq", "worker", "notiflog", "--quiet")] * processes, len(payloads), **environment)
        return bench.rate()

    return measure


def peer(
    enqueue: Callable[[Servers, Sequence[Payload]], None], command: Sequence[str]
) -> Callable[[Bench, Payload, int], float]:
    """One of the systems beside ours, in one process."""

    def measure(bench: Bench, payloads: Payload, chunk: int) -> float:
        bench.begin()
        enqueue(bench.servers, [payloads[start : start + chunk] for start in range(0, len(payloads), chunk)])
        bench.run([command], len(payloads))
        return bench.rate()

    return measure


DRAIN = "worker.drain.DrainWorker"

#: name, system, events in one-event jobs, events in 500-event jobs
SYSTEMS: list[tuple[str, Callable[[Bench, Payload, int], float], int, int]] = [
    ("RQ, stock forking worker", rq(None, 1), 60, 10_000),
    (
        "RQ, SimpleWorker, kept connection",
        peer(simple_worker.enqueue, simple_worker.COMMAND),
        2_000,
        40_000,
    ),
    ("Celery, 1 process", peer(celery.enqueue, celery.COMMAND), 2_000, 40_000),
    ("dramatiq, 8 threads", peer(dramatiq.enqueue, dramatiq.COMMAND), 8_000, 60_000),
    ("huey, 8 threads", peer(huey.enqueue, huey.COMMAND), 8_000, 60_000),
    ("arq 0.25, 8 threads", peer(arq.enqueue, arq.COMMAND), 4_000, 60_000),
    ("taskiq, Redis stream, 8 threads", peer(taskiq.enqueue, taskiq.COMMAND), 4_000, 60_000),
    ("procrastinate, 8 jobs at once", peer(procrastinate.enqueue, procrastinate.COMMAND), 2_000, 40_000),
    ("DrainWorker, 1 process", rq(DRAIN, 1), 60_000, 160_000),
    ("DrainWorker, 2 processes", rq(DRAIN, 2), 60_000, 160_000),
    (
        "DrainWorker, 2 processes, 1 connection each",
        rq(DRAIN, 2, NOTIFLOG_CONNECTIONS="1"),
        60_000,
        160_000,
    ),
]


def _middle(figures: Sequence[float], form: str) -> str:
    """The median, and below it the lowest and the highest."""
    median, lowest, highest = (
        format(figure, form) for figure in (statistics.median(figures), min(figures), max(figures))
    )
    return f"{median}\n{lowest}-{highest}" if len(figures) > 1 else median


def throughput(bench: Bench, console: Console, rounds: int, scale: float, only: str) -> None:
    """Measure every system in jobs of 1 and of 500 events: medians of the rounds, and their spread."""
    table = Table("system", "1 event a job, /s", "ratio", "500 events a job, /s", "ratio")
    limits: list[float] = []
    for name, system, single, batch in SYSTEMS:
        if only.lower() not in name.lower():
            continue
        cells: list[str] = []
        for n, chunk in ((single, 1), (batch, 500)):
            rows = max(50, int(n * scale))
            raw_rows = max(rows, LEAST_RAW_ROWS)
            rates, ratios = [], []
            raws = [raw(bench, raw_rows)]
            for _ in range(rounds):
                bench.database.execute("truncate public.follow_up_notification_log")
                rates.append(system(bench, bench.payloads(rows), chunk))
                bench.database.execute("truncate public.follow_up_notification_log")
                raws.append(raw(bench, raw_rows))
                ratios.append(rates[-1] / statistics.mean(raws[-2:]))
                console.print(
                    f"{name}, {chunk} a job: {rates[-1]:,.0f}/s, {ratios[-1]:.3f} of raw {raws[-1]:,.0f}/s"
                )
            limits += raws
            cells += (_middle(rates, ",.0f"), _middle(ratios, ".3f"))
        table.add_row(name, *cells)
    table.add_row("raw insert, 500 rows a statement", "", "", _middle(limits, ",.0f"), "1")
    console.print(table)


def growth(bench: Bench, console: Console, rounds: int, sizes: Sequence[int]) -> None:
    """Measure with rows already in the table; each round adds 120,000, but not to an empty one."""
    table = Table(
        "rows in the table", "raw", "DrainWorker, 1 process, 500 a job", "ratio", "to the empty table"
    )
    first = 0.0
    for size in sizes:
        bench.database.execute(
            """
            insert into public.follow_up_notification_log
                   (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel,
                    idempotency_key, status, created_at)
            select (%b::uuid[])[1 + n %% 400], (%b::uuid[])[1 + n %% 20], (%b::uuid[])[1 + n %% 6],
                   now() - n * interval '1 second', 'fcm',
                   encode(sha256((n::text || random()::text)::bytea), 'hex'), 'delivered',
                   now() - interval '1 year'
              from generate_series((select count(*) from public.follow_up_notification_log), %s - 1) as n
            """,
            [bench.app.users, bench.app.chapters, bench.app.rules, size],
        )
        bench.database.execute("vacuum analyze public.follow_up_notification_log")
        limits, rates = [], []
        for _ in range(rounds):
            limits.append(raw(bench, 60_000))
            if not size:
                bench.database.execute("truncate public.follow_up_notification_log")
            rates.append(rq(DRAIN, 1)(bench, bench.payloads(60_000), 500))
            if not size:
                bench.database.execute("truncate public.follow_up_notification_log")
        limit, rate = statistics.median(limits), statistics.median(rates)
        first = first or rate
        table.add_row(
            f"{size:,}", f"{limit:,.0f}/s", f"{rate:,.0f}/s", f"{rate / limit:.2f}", f"{rate / first:.2f}"
        )
    console.print(table)


def start_time(bench: Bench, console: Console) -> None:
    """From the start of the process to the first row."""
    times = []
    for _ in range(5):
        bench.begin()
        Queue("notiflog", connection=bench.redis).enqueue(JOB, bench.payloads(1))
        begun = time.time()
        bench.run([("rq", "worker", "notiflog", "--quiet")], 1, RQ_WORKER_CLASS=DRAIN)
        (written,) = bench.database.execute(
            "select extract(epoch from max(created_at))::float from public.follow_up_notification_log"
        ).fetchone() or (0.0,)
        times.append(written - begun)
    console.print(f"First row {statistics.median(times):.2f} s after the start of the process (5 starts).")


def idle(bench: Bench, console: Console) -> None:
    """From enqueueing for a worker that had nothing to do for a minute, to its row."""
    times: list[float] = []
    bench.begin()
    with bench.running([("rq", "worker", "notiflog", "--quiet")], RQ_WORKER_CLASS=DRAIN):
        for seconds in (0, 60, 60, 60):  # the first waits for the worker's start
            time.sleep(seconds)
            # A push that was accepted: of other answers the brake may not be asked.
            payloads = [event for event in bench.payloads(9) if _is_accepted(event)][:1]
            begun = time.monotonic()
            enqueue_outcomes(bench.redis, payloads)
            while bench.rows(everywhere=True) == len(times):
                time.sleep(0.0005)
            times.append(1_000 * (time.monotonic() - begun))
    middle = statistics.median(times[1:])
    console.print(
        f"First row {middle:.1f} ms after enqueueing, of a worker that was idle for a minute (3 times)."
    )


def _is_accepted(event: dict[str, Any]) -> bool:
    return any(result["http_status"] == 200 for result in event.get("results", ()))


def soak(bench: Bench, console: Console, n: int) -> None:
    """Resident memory of one worker over `n` events."""
    bench.begin()
    queue = Queue("notiflog", connection=bench.redis)
    with bench.log.open("ab") as log:
        worker = subprocess.Popen(
            [BIN / "rq", "worker", "notiflog", "--quiet"],
            env={**bench.environment, "RQ_WORKER_CLASS": DRAIN},
            stdout=log,
            stderr=log,
        )
    sizes: list[int] = []
    try:
        for start in range(0, n, 50_000):
            payloads = bench.payloads(50_000)
            queue.enqueue_many(
                [
                    Queue.prepare_data(JOB, (payloads[i : i + 100],), result_ttl=0)
                    for i in range(0, 50_000, 100)
                ]
            )
            while bench.rows(everywhere=True) < start + 50_000:
                time.sleep(0.5)
            sizes.append(_resident(worker.pid))
            console.print(f"{start + 50_000:,} events: {sizes[-1]} MB resident")
    finally:
        sandbox.stop(worker, signal.SIGTERM)
    console.print(f"Resident memory: {sizes[0]} MB first, {sizes[-1]} MB last, {max(sizes)} MB most.")


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


@contextmanager
def _far_away(milliseconds: float, server: sandbox.Postgres, redis_url: str) -> Iterator[dict[str, str]]:
    """The addresses of both servers, so far away; none, if they are as near as ever."""
    if not milliseconds:
        yield {}
        return
    redis = urlsplit(redis_url)
    socket = str(server.directory / f".s.PGSQL.{server.port}")
    with (
        delay.away(milliseconds, socket) as postgres_port,
        delay.away(milliseconds, str(redis.hostname), str(redis.port)) as redis_port,
    ):
        yield {
            "DATABASE_URL": server._replace(port=postgres_port).tcp_url(),
            "REDIS_URL": redis_url.replace(f":{redis.port}", f":{redis_port}"),
        }


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "what", nargs="*", default=["throughput", "start"], help="throughput start idle growth soak"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="shorter or longer runs")
    parser.add_argument(
        "--delay", type=float, default=0, metavar="MS", help="how far away the workers' servers are, one way"
    )
    names = "; ".join(name for name, *_ in SYSTEMS)
    parser.add_argument(
        "--only", default="", metavar="NAME", help=f"systems whose name has this in it: {names}"
    )
    options = parser.parse_args()
    if options.only.lower() not in names.lower():
        parser.error(f"--only: no system's name has this in it; there are {names}")
    console = Console()
    with (
        sandbox.directory() as directory,
        sandbox.postgres(directory, settings=SETTINGS) as server,
        sandbox.valkey(directory, tcp=True) as url,
        _far_away(options.delay, server, url) as addresses,
        prepared(directory, server, url, addresses) as bench,
    ):
        if "throughput" in options.what:
            throughput(bench, console, options.rounds, options.scale, options.only)
        if "start" in options.what:
            start_time(bench, console)
        if "idle" in options.what:
            idle(bench, console)
        if "soak" in options.what:
            soak(bench, console, 1_000_000)
        if "growth" in options.what:
            bench.database.execute("truncate public.follow_up_notification_log")
            growth(bench, console, options.rounds, (0, 1_000_000, 5_000_000))


if __name__ == "__main__":
    main()
