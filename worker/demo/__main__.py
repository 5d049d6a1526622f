"""See the whole thing run: real servers, the real `rq worker notiflog`, a week of made-up pushes.

Everything lives in a temporary directory and is gone afterwards, also after Ctrl-C. DATABASE_URL and
REDIS_URL are never looked at.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from .. import NAME
from ..command import Command
from ..extras import extra
from ..queue.keys import JOB, QUEUE

with extra("demo"):
    import psycopg
    from rich.console import Console

    from . import sandbox

from redis import Redis
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rq import Queue
from rq.job import Job

from . import sample

CHUNK = 100  # events in a job; a scheduler would send up to 500, FCM's batch
SHOWN = 12  # rejected events

_FATE = {
    "proven_dead": "pruned",
    "presumed_dead": "pruned",
    "unproven": "kept: not its fault",
    "transient": "kept: may pass",
}


@click.command("demo", cls=Command)
@click.option(
    "--events", type=click.IntRange(1), default=10_000, show_default=True, metavar="N", help="how many"
)
@click.option("--seed", type=int, default=1, show_default=True, help="another seed, another week")
@click.option("--stock", is_flag=True, help="with RQ's own forking worker instead of ours")
@click.option("--wrong-project", is_flag=True, help="FCM knows none of the tokens: see the brake hold")
def main(**chosen: Any) -> int:
    """See the whole thing run: real servers, the real `rq worker notiflog`, a week of made-up pushes.

    Exit status: 0 ok, 1 the worker failed, 130 interrupted.
    """
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        with sandbox.directory() as directory:
            return run(console, directory, SimpleNamespace(**chosen))
    except KeyboardInterrupt:
        console.print("Interrupted; servers stopped, files removed.")
        return 130


def run(console: Console, directory: Path, options: SimpleNamespace) -> int:
    """Start the servers, fill the queue, let the worker drain it, show what is left."""
    events, seed = options.events, options.seed
    console.print("Starting PostgreSQL and Valkey, throw-away servers from wheels ...")
    with sandbox.postgres(directory) as server, sandbox.valkey(directory) as redis_url:
        database_url = server.url()
        environment = _environment(database_url, redis_url, stock=options.stock)
        sandbox.create_app_tables(database_url)
        console.print(f"[bold]$ python -m {NAME}.migrate[/]")
        subprocess.run([sys.executable, "-m", f"{NAME}.migrate"], env=environment, check=True)

        with psycopg.connect(database_url, autocommit=True) as database, Redis.from_url(redis_url) as redis:
            app = sample.make_app(database, seed=seed)
            scheduler = sample.Scheduler(app, seed, wrong_project=options.wrong_project)
            payloads = scheduler.events(events)
            scheduler.insert_devices(database)
            queue = Queue(QUEUE, connection=redis)
            jobs = [
                queue.enqueue(
                    JOB,
                    payloads[start : start + CHUNK],
                    # RQ would show the arguments, device tokens and all.
                    description=f"outcomes {start}..{start + CHUNK}",
                )
                for start in range(0, events, CHUNK)
            ]
            console.print(f"Enqueued {events:,} events in {len(jobs)} jobs of up to {CHUNK}.")
            worker_class = environment.get("RQ_WORKER_CLASS")
            setting = f"RQ_WORKER_CLASS={worker_class} " if worker_class else ""
            console.print(f"[bold]$ {setting}rq worker notiflog[/]")
            started = time.perf_counter()
            log = directory / "worker.log"
            with sandbox.rq_worker(environment, log) as worker:
                if not _watch(console, worker, queue, jobs, events):
                    console.print(f"[red]The worker ended early:[/]\n{log.read_text()[-3000:]}")
                    return 1
            lines = sandbox.read_log(log)
            _report(console, database, scheduler, jobs, lines, events, time.perf_counter() - started)
    console.print("Servers stopped, files removed.")
    return 0


def _environment(database_url: str, redis_url: str, *, stock: bool) -> dict[str, str]:
    ours = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    if not stock:
        ours["RQ_WORKER_CLASS"] = f"{NAME}.drain.DrainWorker"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFLOG_", "RQ_", "PG"))}
    return {**inherited, **ours}


def _watch(
    console: Console, worker: "subprocess.Popen[bytes]", queue: Queue, jobs: list[Job], events: int
) -> bool:
    columns = (
        TextColumn("recording"),
        BarColumn(bar_width=50),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("recording", total=events)
        while worker.poll() is None:
            done = queue.finished_job_registry.count + queue.failed_job_registry.count
            progress.update(task, completed=min(done * CHUNK, events))
            if done == len(jobs):
                return True
            time.sleep(0.1)
    return False


def _report(
    console: Console,
    database: psycopg.Connection,
    scheduler: sample.Scheduler,
    jobs: list[Job],
    lines: list[dict[str, Any]],
    events: int,
    seconds: float,
) -> None:
    summaries = [line for line in lines if line["event"] == "outcomes_recorded"]
    console.print(_outcomes(database))
    console.print(_tokens(lines, sum(line["kept"] for line in summaries)))
    (left,) = database.execute("select count(*) from public.device_tokens").fetchone() or (0,)
    if withheld := sum(line["withheld"] for line in summaries):
        console.print(f"[bold red]The brake holds, {withheld:,} tokens withheld:[/] {_brake(lines)}.")
    console.print(f"Device tokens: {len(scheduler.devices):,} before, {left:,} left.")
    console.print(
        f"Duplicates: {sum(line['duplicates'] for line in summaries)}, of them with another status: "
        f"{sum(line['conflicting'] for line in summaries)}. "
        f"Not final yet, so no row: {sum(line['retrying'] for line in summaries)}."
    )
    console.print(_rejected(jobs))
    console.print(
        f"[bold]{events:,} events in {seconds:.1f} s: {events / seconds:,.0f} events per second[/] "
        "(counted from the start of the worker's process)."
    )


def _outcomes(database: psycopg.Connection) -> Table:
    table = Table("channel", "delivered", "failed", "skipped", title="follow_up_notification_log")
    rows = database.execute(
        """
        select delivery_channel,
               count(*) filter (where status = 'delivered'),
               count(*) filter (where status = 'failed'),
               count(*) filter (where status = 'skipped')
        from public.follow_up_notification_log group by 1 order by 1
        """
    )
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _tokens(lines: list[dict[str, Any]], kept_by_guard: int) -> Table:
    table = Table("channel", "answer", "sends", "the device token is", title="sends that were not accepted")
    held = {line["channel"] for line in lines if line["event"] == "brake_on"}
    counts = Counter(
        (line["channel"], line["evidence"], line["reason"])
        for line in lines
        if line["event"] == "send_failed"
    )
    for (channel, evidence, reason), count in sorted(counts.items()):
        fate = "kept by the brake" if channel in held and _FATE[evidence] == "pruned" else _FATE[evidence]
        table.add_row(channel, reason, str(count), fate)
    table.add_section()
    table.add_row("", "registered again after the send", str(kept_by_guard), "kept: the device is alive")
    return table


def _brake(lines: list[dict[str, Any]]) -> str:
    events = ("brake_on", "brake_blind")
    return str(next(line["problem"] for line in reversed(lines) if line["event"] in events))


def _rejected(jobs: list[Job]) -> Table:
    table = Table("job", "event", "problem", title="rejected events (the rest of their jobs is recorded)")
    lines = [
        (str(number), *line.removeprefix("[").split("] ", 1))
        for number, job in enumerate(jobs, 1)
        if (result := job.latest_result()) and result.exc_string
        for line in result.exc_string.splitlines()
        if line.startswith("[")
    ]
    for line in lines[:SHOWN]:
        table.add_row(*line)
    if len(lines) > SHOWN:
        table.caption = f"and {len(lines) - SHOWN} more, each named in its failed job"
    return table


if __name__ == "__main__":
    raise SystemExit(main())
