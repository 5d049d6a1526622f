"""Schedulers that run at once and die, workers that die: no prompt is sent twice, none is lost from sight.

Three schedulers work through the same prompts at once. Two of them die of SIGKILL: with prompts reserved,
amid their sends, before they enqueue, or while they do. Draining workers are killed meanwhile. What a
provider was asked to send is compared with what is recorded and what is outstanding. At last the holds run
out, and a fourth scheduler does what is left.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

import psycopg
from redis import Redis
from rich.console import Console
from rich.table import Table

from tests.faults.audit import is_quiet, places
from tests.faults.kills import ANY_TIME, AT_WORK, DRAIN, Host, plan
from tests.faults.scheduler import MOMENTS
from tests.faults.soak import SETUPS
from worker import history
from worker.demo import sample, sandbox
from worker.events import idempotency_key
from worker.servers.migrations import apply, pending
from worker.servers.postgres import connect

EPILOG = """examples:
  python -m tests.faults.story                  2,000 prompts, ten times, each time with other deaths
  python -m tests.faults.story --seed 4711      the same deaths again

exit status: 0 nothing sent twice or lost, 1 a problem, 2 wrong usage"""

ROOT = Path(__file__).parents[2]
PROMPTS = 2_000
#: Seconds until everything that was enqueued must be recorded.
PATIENCE = 60.0


class Provider:
    """Takes every push, and counts what it was asked to send."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: Sends by key.
        self.sends: Counter[str] = Counter()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Yields its address."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                key = self.rfile.read(int(self.headers["content-length"])).decode()
                with provider._lock:
                    provider.sends[key] += 1
                name = f"projects/example/messages/{key}".encode()
                self.send_response(200)
                self.send_header("content-length", str(len(name)))
                self.end_headers()
                self.wfile.write(name)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()


class Outcome(NamedTuple):
    """What came of one run."""

    #: By what they count.
    figures: dict[str, int]
    #: Sentences; none: nothing was sent twice within its hold, and nothing is lost from sight.
    problems: list[str]
    seconds: float


def story(
    environment: dict[str, str], directory: Path, app: sample.App, seed: int, *, kills: int = 4
) -> Outcome:
    """Run it on the servers in `environment`, which have the app's rows and no outcomes."""
    started = time.monotonic()
    due = directory / "due.json"
    prompts = prompts_of(app)
    due.write_text(json.dumps(list(prompts.values())))
    provider = Provider()
    with (
        provider.serving() as address,
        closing(Redis.from_url(environment["REDIS_URL"])) as redis,
        closing(connect(environment["DATABASE_URL"])) as connection,
    ):
        workers = {**environment, **SETUPS["drain"].environment, "TEST_LEASE": "2"}
        host = Host(workers, directory, redis, 2, ())
        run = Run(host, redis, {**environment, "PROVIDER_URL": address}, due)
        try:
            run.schedule(deaths(seed), kills=kills, seed=seed)
            first = State.read(connection, provider)
            connection.execute("update notiflog.reservations set held_until = now()")  # time goes by
            run.schedule([("", 0)], kills=0, seed=seed + 1)
            second = State.read(connection, provider)
            problems = [*first.problems(set(prompts)), *second.problems_at_last(set(prompts), first)]
        except TimeoutError as error:
            return Outcome({}, [str(error)], time.monotonic() - started)
        finally:
            host.stop()
    figures = {
        "prompts": len(prompts),
        "schedulers killed": run.killed,
        "workers killed": run.workers_killed,
        "sent by three schedulers at once": first.sends.total(),
        "of them recorded": len(first.recorded & set(first.sends)),
        "of them outstanding": len(first.outstanding & set(first.sends)),
        "reserved and not sent, outstanding": len(first.outstanding - set(first.sends)),
        "sent twice within a hold": sum(n > 1 for n in first.sends.values()),
        "sent again after their hold ran out": sum(n > 1 for n in second.sends.values()),
        "recorded at last": len(second.recorded),
        "outstanding at last": len(second.outstanding),
    }
    return Outcome(figures, problems + host.ended, time.monotonic() - started)


def prompts_of(app: sample.App) -> dict[str, dict[str, str]]:
    """What is due, by key."""
    prompts = {}
    for number in range(PROMPTS):
        mentor, rule = app.users[number % len(app.users)], app.rules[number % len(app.rules)]
        key = idempotency_key(mentor, rule, f"window {number}")
        prompts[key] = {
            "peer_mentor_id": str(mentor),
            "chapter_id": str(app.chapters[0]),
            "scenario_rule_id": str(rule),
            "idempotency_key": key,
        }
    return prompts


def deaths(seed: int) -> list[tuple[str, int]]:
    """Where each scheduler dies and on which of its pages; the last one lives."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [(moment, chance.randint(2, 5)) for moment in chance.sample(MOMENTS, 2)] + [("", 0)]


class State(NamedTuple):
    """What can be seen of the prompts at a moment at which nobody works."""

    sends: Counter[str]
    recorded: set[str]
    outstanding: set[str]
    reserved_again: set[str]

    @classmethod
    def read(cls, connection: psycopg.Connection, provider: Provider) -> "State":
        """Ask as a scheduler would."""
        rows = connection.execute("select idempotency_key from public.follow_up_notification_log")
        recorded = {key for (key,) in rows}
        waiting = {prompt.idempotency_key for prompt in history.outstanding(connection, timedelta(0))}
        again = connection.execute("select idempotency_key from notiflog.reservations where holds > 1")
        return cls(provider.sends.copy(), recorded, waiting, {key for (key,) in again})

    def problems(self, due: set[str]) -> Iterator[str]:
        """What is wrong while the holds last."""
        sent = set(self.sends)
        if twice := sum(n > 1 for n in self.sends.values()):
            yield f"{twice} prompts were sent twice within their hold"
        if lost := len(sent - self.recorded - self.outstanding):
            yield f"{lost} prompts were sent and are neither recorded nor outstanding"
        if invented := len(self.recorded - sent):
            yield f"{invented} prompts are recorded and were never sent"
        if forgotten := len(due - self.recorded - self.outstanding):
            yield f"{forgotten} prompts that were due nobody took"

    def problems_at_last(self, due: set[str], before: "State") -> Iterator[str]:
        """What is wrong once somebody has done what was left."""
        twice = {key for key, n in self.sends.items() if n > 1}
        if self.recorded != due or self.outstanding:
            yield f"{len(due - self.recorded)} prompts are not recorded, {len(self.outstanding)} outstanding"
        if twice != before.outstanding & set(before.sends):
            yield "others were sent again than those that were sent and never reported"
        if not twice <= self.reserved_again:
            yield "prompts were sent again without a word about their earlier hold"


class Run:
    """The schedulers and workers of one story."""

    def __init__(self, host: Host, redis: Redis, environment: dict[str, str], due: Path) -> None:
        self._host, self._redis, self._environment, self._due = host, redis, environment, due
        self.killed = self.workers_killed = 0

    def schedule(self, ends: Sequence[tuple[str, int]], *, kills: int, seed: int) -> None:
        """Run one scheduler for each end, kill workers meanwhile, wait until all is recorded."""
        schedulers = [self._start(moment, page, seed + number) for number, (moment, page) in enumerate(ends)]
        for scheduler in schedulers:  # at once: a late one would find nothing left, and not die
            with scheduler.stdout as ready:  # type: ignore[union-attr]
                ready.readline()
        for scheduler in schedulers:
            scheduler.stdin.close()  # type: ignore[union-attr]
        for kill in plan(DRAIN, kills, seed):
            if kill.moment in (AT_WORK, ANY_TIME):
                self._until(lambda kill=kill: self._host.kill(kill), "a worker runs")  # type: ignore[misc]
            else:
                self._host.points.arm(kill.moment, kill.who)
            self.workers_killed += 1
            self._wait(kill.pause)
        self._until(lambda: all(one.poll() is not None for one in schedulers), "all schedulers have ended")
        for (moment, _), scheduler in zip(ends, schedulers, strict=True):
            expected = -9 if moment else 0
            if scheduler.returncode != expected:
                raise TimeoutError(f"a scheduler ended with {scheduler.returncode}, expected {expected}")
            self.killed += bool(moment)
        self._until(lambda: is_quiet(self._redis, self._host.workers), "all jobs are done")

    def _start(self, moment: str, page: int, seed: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.faults.scheduler", str(self._due), "--seed", str(seed)]
        if moment:
            command += ["--die", moment, "--page", str(page)]
        with self._due.with_name("schedulers.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._host.keep_running()
            time.sleep(min(0.02, left))

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {PATIENCE:.0f} s: {what}; {places(self._redis)}")
            self._wait(0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it on servers of its own; returns the exit status: 0 nothing sent twice or lost, 1 a problem."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.story",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="how often (%(default)s)")
    parser.add_argument("--seed", type=int, help="of the first run's deaths and orders")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    console = Console()
    total: Counter[str] = Counter()
    problems = []
    for number in range(options.runs):
        outcome = run_on_own_servers(seed + number)
        total.update(outcome.figures)
        problems += [f"seed {seed + number}: {problem}" for problem in outcome.problems]
    table = Table(f"{options.runs} runs from seed {seed}", "")
    for name, n in total.items():
        table.add_row(name, f"{n:,}")
    console.print(table)
    for problem in problems:
        console.print(f"problem: {problem}", style="red", markup=False)
    return 1 if problems else 0


def run_on_own_servers(seed: int) -> Outcome:
    """One run on servers that are gone afterwards."""
    with (
        sandbox.directory() as directory,
        sandbox.postgres(directory, settings={"fsync": "off"}) as server,
        sandbox.valkey(directory, appendonly="yes") as redis_url,
    ):
        sandbox.create_app_tables(server.url())
        with connect(server.url()) as connection:
            for migration in pending(connection):
                apply(connection, migration)
            app = sample.make_app(connection)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("NOTIFLOG_", "RQ_", "PG"))}
        environment = {**inherited, "DATABASE_URL": server.url(), "REDIS_URL": redis_url}
        return story(environment, directory, app, seed)


if __name__ == "__main__":
    raise SystemExit(main())
