"""Workers on several hosts, one Redis, one PostgreSQL: `python tests/benchmarks/hosts.py`, as root on Linux.

The hosts are network namespaces of this machine; install `.[bench]` and iproute2. Workers are up and idle
when all jobs are released to them at once. For each number of processes: the rate from then until the last
job is finished, its ratio to the raw limit measured right before and after it (as `throughput.py` does), and
the processor time that an event costs PostgreSQL, Redis and the workers, with the share of one core that each
has. What Redis spends while jobs are enqueued stands by itself. In short runs it shows that each process
opens three connections to PostgreSQL. Ends with an error if an event is lost or doubled, or a job is left or
failed.
"""

import argparse
import os
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from redis import Redis
from rich import box
from rich.console import Console
from rich.table import Table
from rq import Queue, Worker

from tests.benchmarks.namespaces import Network, lacking, network, on, spread
from tests.benchmarks.throughput import BIN, DRAIN, LEAST_RAW_ROWS, SETTINGS, Bench, Payload, prepared, raw
from worker.demo import sandbox
from worker.enqueue import enqueue_outcomes
from worker.queue.keys import QUEUE, places

#: Where jobs wait until all workers are up.
HELD = "held"
#: Seconds after which workers are given up.
TO_COME_UP, TO_RECORD = 60, 300
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SIZE = "select pg_total_relation_size('public.follow_up_notification_log')"


class Run(NamedTuple):
    """One run, in seconds and bytes; all but the first are an event's share."""

    #: What a waiting job took of Redis' memory.
    waiting: float
    #: The time from the release of the jobs until all were finished.
    elapsed: float
    #: Processor time meanwhile.
    postgres: float
    redis: float
    workers: float
    #: Redis' processor time before, while the jobs were enqueued.
    enqueueing: float
    #: What a row took, with its share of the indexes.
    row: float


def tree_seconds(pid: int) -> float:
    """Processor time of a process, of those that it started, and of those of them that have ended."""
    here = Path(f"/proc/{pid}")
    try:
        children = (here / f"task/{pid}/children").read_text().split()
        # Behind the name, which may have blanks: utime, stime, cutime and cstime are the 12th to the 15th.
        ticks = (here / "stat").read_text().rpartition(")")[2].split()[11:15]
    except FileNotFoundError:  # it ended this moment
        return 0.0
    return sum(map(int, ticks)) / TICKS_PER_SECOND + sum(tree_seconds(int(child)) for child in children)


def redis_seconds(redis: Redis) -> float:
    """Processor time of Redis: by its own account, which is finer than the system's ticks."""
    used: Any = redis.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def redis_bytes(redis: Redis) -> int:
    """Memory that Redis uses."""
    used: Any = redis.info("memory")
    return int(used["used_memory"])


@contextmanager
def served(net: Network, directory: Path) -> Iterator[tuple[Bench, int]]:
    """Servers that ask for a password on the bridge; with them PostgreSQL's process."""
    password = secrets.token_hex()
    settings = {**SETTINGS, "listen_addresses": net.address}
    with (
        sandbox.postgres(directory, tcp=True, settings=settings) as server,
        sandbox.valkey(directory, tcp=True, appendonly="yes") as local,
        Redis.from_url(local) as redis,
    ):
        (server.directory / "pg_hba.conf").write_text(
            f"local all all trust\nhost all all {net.subnet} scram-sha-256\n"
        )
        with psycopg.connect(server.url(), autocommit=True) as admin:
            role, word = sql.Identifier(server.superuser), sql.Literal(password)
            admin.execute(sql.SQL("alter role {} password {}").format(role, word))
            admin.execute("select pg_reload_conf()")
        redis.config_set("bind", f"127.0.0.1 {net.address}")
        redis.config_set("requirepass", password)
        addresses = {
            "DATABASE_URL": f"postgresql://{server.superuser}:{password}@{net.address}:{server.port}/postgres",
            "REDIS_URL": local.replace("//127.0.0.1", f"//:{password}@{net.address}"),
        }
        try:
            with prepared(directory, server, addresses["REDIS_URL"], addresses) as bench:
                yield bench, server.process.pid
        finally:
            redis.config_set("requirepass", "")  # the sandbox asks without one whether it runs


def measure(bench: Bench, postgres: int, hosts: Sequence[str], payloads: Payload, per_job: int) -> Run:
    """Have a worker for each entry of `hosts` record all events; `postgres` is PostgreSQL's process."""
    bench.database.execute("truncate public.follow_up_notification_log")
    bench.begin()
    queue = Queue(QUEUE, connection=bench.redis)
    before, empty = redis_seconds(bench.redis), redis_bytes(bench.redis)
    for start in range(0, len(payloads), 5000):
        enqueue_outcomes(queue, payloads[start : start + 5000], per_job=per_job)
    enqueueing = redis_seconds(bench.redis) - before
    waiting = (redis_bytes(bench.redis) - empty) / len(queue)
    bench.redis.rename(queue.key, HELD)
    commands = [on(host, str(BIN / "rq"), "worker", QUEUE, "--quiet") for host in hosts]
    with bench.running(commands, RQ_WORKER_CLASS=DRAIN) as processes:

        def spent() -> tuple[float, float, float]:
            workers = sum(tree_seconds(process.pid) for process in processes)
            return tree_seconds(postgres), redis_seconds(bench.redis), workers

        def until(done: Callable[[], bool], patience: float) -> None:
            end = time.monotonic() + patience
            while not done():
                if time.monotonic() > end or any(process.poll() is not None for process in processes):
                    written = f"{bench.rows()} of {len(payloads)} rows are written"
                    raise RuntimeError(f"{written}; the workers say: {bench.log.read_text()[-2000:]}")
                time.sleep(0.02)

        def idle() -> list[str]:
            workers = Worker.all(queue=queue)
            return sorted(worker.hostname for worker in workers if worker.get_state() == "idle")

        until(lambda: idle() == sorted(hosts), TO_COME_UP)
        begun, released = spent(), time.monotonic()
        bench.redis.rename(HELD, queue.key)
        until(lambda: not bench.redis.exists(queue.key, queue.started_job_registry.key), TO_RECORD)
        elapsed = time.monotonic() - released
        costs = [after - before for before, after in zip(begun, spent(), strict=True)]
    if left := [key for key in places(QUEUE) if bench.redis.exists(key)]:
        raise RuntimeError(f"jobs are left in {', '.join(left)}")
    if (rows := bench.rows()) != len(payloads):
        raise RuntimeError(f"{rows} rows of {len(payloads)} events")
    ((size,),) = bench.database.execute(SIZE).fetchall()
    per_event = [figure / rows for figure in (elapsed, *costs, enqueueing, size)]
    return Run(waiting, *per_event)


def limit(bench: Bench, rows: int) -> float:
    """The raw limit, in an empty table."""
    bench.database.execute("truncate public.follow_up_notification_log")
    return raw(bench, max(rows, LEAST_RAW_ROWS))


def compare(bench: Bench, postgres: int, net: Network, console: Console, options: argparse.Namespace) -> None:
    """Measure each number of processes, and print the medians."""
    columns = ("processes", "events/s", "ratio", "PostgreSQL", "Redis", "workers", "enqueue")
    title = f"{options.events:,} events, {options.per_job} a job, {len(net.hosts)} hosts"
    table = Table(
        *columns,
        title=title,
        box=box.SIMPLE,
        pad_edge=False,
        caption="processor time: us an event, % of one core",
    )
    every: list[Run] = []
    for processes in options.processes:
        runs, ratios = [], []
        limits = [limit(bench, options.events)]
        for _ in range(options.rounds):
            payloads = bench.payloads(options.events)
            runs.append(measure(bench, postgres, spread(processes, net.hosts), payloads, options.per_job))
            limits.append(limit(bench, options.events))
            ratios.append(1 / runs[-1].elapsed / statistics.mean(limits[-2:]))
        every += runs
        run = medians(runs)
        table.add_row(
            str(processes),
            f"{1 / run.elapsed:,.0f}",
            f"{statistics.median(ratios):.2f}",
            *(
                f"{cost * 1e6:.1f}, {cost / run.elapsed:.0%}"
                for cost in (run.postgres, run.redis, run.workers)
            ),
            f"{run.enqueueing * 1e6:.1f}",
        )
    console.print(table)
    sizes = medians(every)
    console.print(f"Bytes: {sizes.waiting:,.0f} a waiting job, {sizes.row:,.0f} a row with its indexes.")


def medians(runs: Sequence[Run]) -> Run:
    """The median of each figure."""
    return Run(*(statistics.median(figures) for figures in zip(*runs, strict=True)))


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--per-job", type=int, default=500, metavar="K", help="events a job")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--hosts", type=int, default=2, choices=(2, 3))
    options = parser.parse_args()
    if problem := lacking():
        sys.exit(problem)
    with (
        network(options.hosts) as net,
        sandbox.directory() as directory,
        served(net, directory) as (bench, postgres),
    ):
        compare(bench, postgres, net, Console(), options)


if __name__ == "__main__":
    main()
