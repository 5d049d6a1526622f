"""Real servers for the tests: PostgreSQL and Valkey from wheels, one of each per run."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from redis import Redis

from worker import sandbox

# Whatever the developer's shell exports must not reach a test, least of all a real database's address.
for name in [
    name for name in os.environ if name.startswith(("DATABASE_URL", "REDIS_URL", "NOTIFLOG_", "RQ_", "PG"))
]:
    if not name.startswith("NOTIFLOG_TEST_"):
        del os.environ[name]


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    with sandbox.directory() as path:
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


def _database(server: sandbox.Postgres, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
        )
    yield server.url(name)
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
