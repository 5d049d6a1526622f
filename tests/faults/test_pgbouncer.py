"""Six workers behind PgBouncer in transaction mode, more connections than it has to PostgreSQL.

Any two transactions of a worker may run on different backends, and on each backend other clients come next.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from redis import Redis

from tests import make
from tests.drain.conftest import (
    QUEUE,
    STARTED,
    Started,
    call,
    log_table_locked,
    rows,
    until,
    waiting_writers,
)
from tests.faults.test_concurrency import put_at_once
from tests.migrations.conftest import require
from worker import migrate
from worker.demo import sample, sandbox
from worker.demo.sandbox import rq_worker
from worker.servers.postgres import connect, explain, is_transient, transaction

BACKENDS = 4
WORKERS = 6
JOBS, EVENTS = 24, 100


class Leftovers(NamedTuple):
    """What a transaction pooler's backend keeps of its clients."""

    #: Settings that are not the server's own.
    settings: set[str]
    prepared: int
    advisory_locks: int


CLEAN = Leftovers(set(), 0, 0)

#: What PgBouncer itself sets for each client, as the client announced it.
TRACKED = {"application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"}


@pytest.fixture
def pooled(database: str, server_directory: Path) -> Iterator[str]:
    """The URL of `database` through a pooler that has BACKENDS connections to it."""
    with pooler(database, server_directory) as url:
        yield url


@contextmanager
def pooler(database: str, server_directory: Path, **settings: object) -> Iterator[str]:
    """Run PgBouncer before `database`, in transaction mode unless `settings` say another."""
    configuration = {
        "auth_type": "any",
        "pool_mode": "transaction",
        "default_pool_size": BACKENDS,
        **settings,
    }
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    require(binary, "PgBouncer")
    server = conninfo_to_dict(database)
    port = sandbox.free_port()
    with sandbox.directory(server_directory) as directory:
        (directory / "pgbouncer.ini").write_text(
            f"""
            [databases]
            pooled = {" ".join(f"{name}={server[name]}" for name in ("host", "port", "user", "dbname"))}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_file = {directory / "users"}
            """
            + "\n".join(f"{name} = {value}" for name, value in configuration.items())
        )
        (directory / "users").write_text('"somebody" "secret"')
        process = subprocess.Popen(
            [str(binary), "-q", str(directory / "pgbouncer.ini")],
            user="nobody" if os.geteuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"postgresql://anybody@127.0.0.1:{port}/pooled"
        try:
            until(lambda: process.poll() is None and answers(port))
            yield url
        finally:
            sandbox.stop(process, signal.SIGTERM)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def backends(pooled: str) -> dict[int, Leftovers]:
    """What is left on each backend of the pooler, found by another client of it; by process id."""
    found: dict[int, Leftovers] = {}
    with ExitStack() as stack:
        for _ in range(BACKENDS):  # all in a transaction at once, so each has a backend of its own
            connection = stack.enter_context(psycopg.connect(pooled, prepare_threshold=None))
            connection.execute("select")
            (pid, settings, prepared, locks), *_ = connection.execute(
                """
                select pg_backend_pid(),
                       array(select name from pg_settings where source = 'session'),
                       (select count(*) from pg_prepared_statements),
                       (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
                """
            ).fetchall()
            found[pid] = Leftovers(set(settings) - TRACKED, prepared, locks)
    return found


@pytest.fixture
def workers(pooled: str, valkey_url: str, redis: Redis, tmp_path: Path) -> Iterator[list[Started]]:
    """Literal draining workers, connected through the pooler."""
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": pooled,
        "REDIS_URL": valkey_url,
        "RQ_WORKER_CLASS": "worker.drain.DrainWorker",
    }
    with ExitStack() as stack:
        logs = [tmp_path / f"worker-{number}.log" for number in range(WORKERS)]
        yield [Started(stack.enter_context(rq_worker(environment, log)), log) for log in logs]


def accepted() -> dict[str, str]:
    """An answer so large that a hundred fill a turn."""
    return {"name": "projects/p/messages/1", "filler": os.urandom(1500).hex()}


def enqueue(redis: Redis, app: sample.App, connection: psycopg.Connection) -> None:
    """Jobs too large to share a turn: dead tokens, duplicates across jobs, events without a parent."""
    connection.execute(
        "insert into public.device_tokens"
        " select 'dead-' || n, %b, '2026-01-01' from generate_series(1, 500) as n",
        [app.users[0]],
    )
    jobs = {}
    for job in range(JOBS):
        first = job * EVENTS // 2  # half of each job's events are in the next job, too
        events = [
            make.event(app, number, results=[make.result(f"alive-{number}", body=accepted())])
            for number in range(first, first + EVENTS)
        ]
        events[1]["results"].append(make.unregistered(f"dead-{job}"))
        events[2]["results"].append(make.unregistered("dead-500"))
        events[3] = make.event(app, 10_000 + job, chapter_id=make.stranger())
        jobs[f"job-{job}"] = call(events)
    put_at_once(redis, jobs)


def test_six_workers_record_everything_and_leave_nothing_on_the_backends(
    redis: Redis,
    app: sample.App,
    connection: psycopg.Connection,
    database: str,
    pooled: str,
    workers: list[Started],
) -> None:
    until(lambda: redis.scard("rq:workers") == WORKERS)
    with log_table_locked(database):
        enqueue(redis, app, connection)
        # Every backend is taken, and every worker has jobs: other connections wait for the pooler.
        until(lambda: waiting_writers(connection) == BACKENDS and all(executions(redis)))
    until(lambda: not redis.llen(QUEUE) and not redis.zcard(STARTED))
    used = pids(connection)
    left = backends(pooled)
    for worker in workers:
        worker.send(signal.SIGTERM)
    assert [worker.wait() for worker in workers] == [0] * WORKERS

    assert set(left) == used
    assert list(left.values()) == [CLEAN] * BACKENDS
    output = "".join(worker.output for worker in workers)
    assert [sign for sign in ("42P05", "26000", "prepared", "database_unavailable") if sign in output] == []
    summaries = [line for worker in workers for line in worker.logged("outcomes_recorded")]
    total = {name: sum(line[name] for line in summaries) for name in ("events", "delivered", "rejected")}
    # The event that each job replaced by one without a parent is in the job before or after it, too.
    keys = {first + n for first in range(0, JOBS * EVENTS // 2, EVENTS // 2) for n in range(EVENTS) if n != 3}
    assert total == {"events": JOBS * EVENTS, "delivered": len(keys), "rejected": JOBS}
    assert rows(connection) == len(keys)
    dead = connection.execute("select count(*) from public.device_tokens").fetchone()
    assert dead == (500 - JOBS,)  # of dead-1 to dead-500 the jobs named JOBS, dead-0 never was there


def executions(redis: Any) -> list[int]:
    """How many jobs each worker has taken."""
    return [redis.scard(worker + b":executions") for worker in redis.smembers("rq:workers")]


def pids(connection: psycopg.Connection) -> set[int]:
    """The backends that others than `connection` have here."""
    found = connection.execute(
        "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    return {pid for (pid,) in found}


#: What a careless client leaves behind.
CARELESS: dict[str, tuple[str, Leftovers]] = {
    "a setting": ("set lock_timeout = '10s'", CLEAN._replace(settings={"lock_timeout"})),
    "a prepared statement": ("prepare careless as select 1", CLEAN._replace(prepared=1)),
    "an advisory lock": ("select pg_advisory_lock(1)", CLEAN._replace(advisory_locks=1)),
}


@pytest.mark.parametrize("what", CARELESS)
def test_what_a_careless_client_leaves_would_be_seen(pooled: str, what: str) -> None:
    statement, leftovers = CARELESS[what]
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as careless:
        careless.execute(statement.encode())
    assert leftovers in backends(pooled).values()


def test_our_connections_leave_nothing(pooled: str) -> None:
    with connect(pooled) as connection:
        for _ in range(10):  # psycopg would prepare the statement the fifth time
            with transaction(connection):
                connection.execute("select %b", [1])
    assert list(backends(pooled).values()) == [CLEAN] * BACKENDS


# --- what it refuses ----------------------------------------------------------------------------------------


def test_a_database_that_the_pooler_does_not_know_is_not_waited_for(pooled: str) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(pooled.replace("/pooled", "/nowhere"))
    assert "answers 'bouncer config error': check DATABASE_URL" in explain(caught.value)
    assert not is_transient(caught.value)


def test_a_pooler_of_statements_is_not_waited_for(
    database: str, server_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pooler(database, server_directory, pool_mode="statement") as url:
        with connect(url) as connection, pytest.raises(psycopg.Error) as caught, transaction(connection):
            pass
        monkeypatch.setenv("DATABASE_URL", url)
        assert migrate.main(["--rollback", "--yes"]) == 1

    assert "pool_mode = transaction" in explain(caught.value)
    assert not is_transient(caught.value)
    assert capsys.readouterr().err == f"migrate: {explain(caught.value)}\n"


def test_a_user_and_a_database_that_the_pooler_does_not_know(database: str, server_directory: Path) -> None:
    with pooler(database, server_directory, auth_type="scram-sha-256") as url:
        said = {}
        for what, address in {
            "user": url.replace("anybody", "nobody:S3CR3T"),
            "password": url.replace("anybody", "somebody:S3CR3T"),
            "database": url.replace("anybody", "somebody:secret").replace("/pooled", "/S3CR3T"),
        }.items():
            with pytest.raises(psycopg.OperationalError) as caught:
                connect(address)
            assert not is_transient(caught.value)
            said[what] = explain(caught.value)
    assert "S3CR3T" not in str(said)
    assert "check DATABASE_URL: user, and password" in said["user"]
    assert "check DATABASE_URL: user, and password" in said["password"]
    assert "'no such database: ...': check DATABASE_URL" in said["database"]


def test_a_pooler_without_its_server_is_waited_for(server_directory: Path) -> None:
    nowhere = f"postgresql://anybody@127.0.0.1:{sandbox.free_port()}/app"
    with (
        pooler(nowhere, server_directory, server_login_retry=1, query_wait_timeout=1) as url,
        pytest.raises(psycopg.OperationalError) as caught,
    ):
        connect(url)
    assert is_transient(caught.value)
    assert "the pooler does not reach PostgreSQL" in explain(caught.value)
