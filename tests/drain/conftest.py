"""The draining worker, within this process and as the literal `rq worker`, on real servers."""

import os
import pickle
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

import psycopg
import pytest
from redis import Redis
from redis.client import PubSubWorkerThread
from rq import Queue, SimpleWorker
from rq.job import Job

from tests import make
from worker.demo import sample
from worker.demo.sandbox import read_log, rq_worker
from worker.drain import DrainWorker
from worker.queue.keys import quarantine_key
from worker.servers.settings import settings

JOB = "worker.jobs.record_outcomes"
QUEUE = "rq:queue:notiflog"
INTERMEDIATE = "rq:queue:notiflog:intermediate"
STARTED = "rq:wip:notiflog"
FINISHED = "rq:finished:notiflog"
FAILED = "rq:failed:notiflog"
LEASES = "rq:notiflog:leases:notiflog"
QUARANTINE = quarantine_key("notiflog")

# Environment that lets a worker's process be changed from inside, see there.
INSIDE = {"PYTHONPATH": str(Path(__file__).with_name("inside")), "PYTHONDONTWRITEBYTECODE": "1"}


class Drain(Protocol):
    """Run a worker within this process until it ends by itself."""

    def __call__(
        self,
        *,
        burst: bool = True,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        **options: Any,
    ) -> DrainWorker: ...


class Started:
    """A literal `rq worker notiflog` process."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def output(self) -> str:
        return self.log.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in read_log(self.log) if line["event"] == event]

    def send(self, how: signal.Signals) -> None:
        self.process.send_signal(how)

    def wait(self, timeout: float = 60) -> int:
        """The exit status."""
        return self.process.wait(timeout)


class Start(Protocol):
    """Start the literal `rq worker notiflog` with our class: options of its command line, its environment."""

    def __call__(self, *options: str, **environment: str) -> Started: ...


#: Run a worker until the queue is empty.
Work = Callable[[], None]


@pytest.fixture
def queue(redis: Redis) -> Queue:
    """The queue as a producer sees it."""
    return Queue("notiflog", connection=redis)


@pytest.fixture
def new_worker(database: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Make a worker that works within this process."""
    monkeypatch.setenv("DATABASE_URL", database)
    # RQ waits up to a second for a thread that sometimes misses its call to end.
    monkeypatch.setattr(PubSubWorkerThread, "join", lambda self, timeout=None: Thread.join(self, 0.05))
    settings.cache_clear()

    def make_worker(worker_class: type[Any] = DrainWorker, **options: Any) -> Any:
        return worker_class(["notiflog"], **{"connection": redis, **options})

    yield make_worker
    settings.cache_clear()


@pytest.fixture
def drain(new_worker: Callable[..., Any]) -> Drain:
    def run(
        *,
        burst: bool = True,
        max_jobs: int | None = None,
        max_idle_time: int | None = None,
        with_scheduler: bool = False,
        **options: Any,
    ) -> DrainWorker:
        worker: DrainWorker = new_worker(**options)
        worker.work(
            burst=burst, max_jobs=max_jobs, max_idle_time=max_idle_time, with_scheduler=with_scheduler
        )
        return worker

    return run


@pytest.fixture(params=["draining", "stock"])
def work(request: pytest.FixtureRequest, drain: Drain, new_worker: Callable[..., Any]) -> Work:
    """Run a worker of either kind until the queue is empty."""

    def work() -> None:
        if request.param == "draining":
            drain()
        else:
            new_worker(SimpleWorker).work(burst=True)

    return work


@pytest.fixture
def environment(database: str, valkey_url: str) -> dict[str, str]:
    """What the process of a worker finds in its environment."""
    return {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database,
        "REDIS_URL": valkey_url,
        "RQ_WORKER_CLASS": "worker.drain.DrainWorker",
    }


@pytest.fixture
def start(environment: dict[str, str], redis: Redis, tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        count = 0

        def run(*options: str, **changes: str) -> Started:
            nonlocal count
            count += 1
            log = tmp_path / f"worker-{count}.log"
            process = stack.enter_context(rq_worker({**environment, **changes}, log, *options))
            return Started(process, log)

        yield run


@contextmanager
def log_table_locked(database: str) -> Iterator[None]:
    """Keep everybody from writing outcomes: a turn hangs, as in a database that is slow or stuck."""
    with psycopg.connect(database) as holder:
        holder.execute("lock table public.follow_up_notification_log in exclusive mode")
        yield


def waiting_writers(connection: psycopg.Connection) -> int:
    """How many sessions wait for a lock in this database."""
    (n,) = connection.execute(
        "select count(*) from pg_stat_activity"
        " where wait_event_type = 'Lock' and datname = current_database()"
    ).fetchone() or (0,)
    return int(n)


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Wait until `condition` holds; returns what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
    return value


def rows(connection: psycopg.Connection) -> int:
    (n,) = connection.execute("select count(*) from public.follow_up_notification_log").fetchone() or (0,)
    return int(n)


def enqueue_many(queue: Queue, app: sample.App, n: int, first: int = 0, **options: Any) -> list[Job]:
    """Enqueue `n` jobs of one event each, every event another."""
    jobs: list[Job] = queue.enqueue_many(
        [
            Queue.prepare_data(JOB, args=([make.event(app, number)],), description="outcomes", **options)
            for number in range(first, first + n)
        ]
    )
    return jobs


def statuses(jobs: Sequence[Job]) -> list[str]:
    return [job.get_status(refresh=True).value for job in jobs]


def failure(job: Job) -> str:
    """The last line of what a failed job says."""
    result = job.latest_result()
    assert result is not None
    return (result.exc_string or "").rstrip().splitlines()[-1]


def call(*args: Any, function: Any = JOB, instance: Any = None, kwargs: Any = None) -> bytes:
    """A job's data as RQ's producer stores it, but for what is wrong with it."""
    return pickle.dumps((function, instance, args, {} if kwargs is None else kwargs))


def put(
    redis: Redis, job_id: str, data: bytes | None, *, compressed: bool = True, **fields: str | bytes
) -> None:
    """Write a job by hand, as whoever can write to Redis could."""
    stored = {} if data is None else {"data": zlib.compress(data) if compressed else data}
    mapping = {"status": "queued", "origin": "notiflog", "timeout": "180", **stored, **fields}
    redis.hset(f"rq:job:{job_id}", mapping=mapping)  # type: ignore[arg-type]
    redis.rpush(QUEUE, job_id)
