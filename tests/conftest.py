"""Real servers for the tests: PostgreSQL and Valkey from wheels, one of each per run."""

import io
import json
import logging
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from redis import Redis

from worker import logs
from worker.demo import sample, sandbox
from worker.servers.migrations import apply, pending
from worker.servers.postgres import connect

# Whatever the developer's shell exports must not reach a test, least of all a real database's address.
for name in [
    name
    for name in os.environ
    if name.startswith(("DATABASE_URL", "REDIS_URL", "NOTIFLOG_", "RQ_", "SENTRY_", "PG"))
]:
    if not name.startswith("NOTIFLOG_TEST_"):
        del os.environ[name]


# A shell starts what runs in its background with Ctrl-C ignored, and so would every process of a test be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Take back what a worker that works within this process changes: the signals and the limit of memory."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, limits)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory in memory where there is room: a database is made in a tenth of the time there."""
    memory = Path("/dev/shm")  # noqa: S108 - only the directory made below it is used
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2 * 2**30
    with sandbox.directory(memory if roomy else None) as path:
        yield path


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[sandbox.Postgres]:
    # A crash of the machine is not among the things tested with this server: no need to sync to disk.
    with sandbox.postgres(server_directory, settings={"fsync": "off", "max_connections": "60"}) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_url(server_directory: Path) -> Iterator[str]:
    with sandbox.valkey(server_directory) as url:
        yield url


@pytest.fixture
def redis(valkey_url: str) -> Iterator[Redis]:
    connection = Redis.from_url(valkey_url)
    connection.flushall()
    yield connection
    connection.close()


@pytest.fixture
def empty_database(postgres: sandbox.Postgres) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    yield from _database(postgres, "template1")


@pytest.fixture(scope="session")
def app(postgres: sandbox.Postgres) -> sample.App:
    """The ids of users, chapters and rules that every `database` has."""
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("create database migrated")
    sandbox.create_app_tables(postgres.url("migrated"))
    with connect(postgres.url("migrated")) as connection:
        for migration in pending(connection):
            apply(connection, migration)
        return sample.make_app(connection, users=20)


@pytest.fixture
def database(postgres: sandbox.Postgres, app: sample.App) -> Iterator[str]:
    """The URL of a migrated database with the app's rows and no outcomes."""
    yield from _database(postgres, "migrated")


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """A connection to `database` as the jobs open theirs."""
    with connect(database) as connection:
        yield connection


@pytest.fixture
def logged() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What has been logged, as the lines a worker writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logs.logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logs.logger.removeHandler(handler)


def _database(server: sandbox.Postgres, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    yield server.url(name)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
