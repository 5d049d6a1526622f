"""Databases to migrate (two versions of PostgreSQL, plain and as Supabase of both eras), and the tools."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from worker import migrate as command
from worker.demo import sandbox
from worker.servers.migrations import apply, pending
from worker.servers.settings import Settings

ROOT = Path(__file__).parents[2]
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")

# What newer projects take back of the default grants: calling, reading and writing, from service_role too,
# but neither truncate nor references nor trigger.
DATA_API_SWITCH = """
alter default privileges for role postgres in schema public
  revoke select, insert, update, delete on tables from anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  revoke execute on functions from anon, authenticated, service_role;
"""


def require(condition: object, what: str) -> None:
    """Skip the test when this machine lacks something; where everything must run, fail."""
    if not condition:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{what} is not installed")


class Kind(NamedTuple):
    """What sort of database: PostgreSQL's version, and `plain` or the era of a Supabase project."""

    version: int
    era: str

    def __str__(self) -> str:
        return f"{self.version}-{self.era}"

    @property
    def supabase(self) -> bool:
        return self.era != "plain"

    @property
    def owner(self) -> str:
        """The role that migrates: it owns the database, may create roles, and is no superuser."""
        return "postgres" if self.supabase else "owner"


KINDS = [Kind(version, era) for version in (18, 15) for era in ("legacy", "current", "plain")]
#: One of each version and, between them, one of each era: for what takes long.
TWO_KINDS = [Kind(18, "legacy"), Kind(15, "current")]


class Database(NamedTuple):
    """A database that has the app's tables and nothing else."""

    server: sandbox.Postgres
    name: str
    kind: Kind

    @property
    def url(self) -> str:
        """Address for the migrating role."""
        return self.url_of(self.kind.owner)

    @property
    def tcp_url(self) -> str:
        """The same for clients that speak TCP only; with a password, though nobody asks for it."""
        return self.server.tcp_url(self.name, self.kind.owner) + "?sslmode=disable"

    def url_of(self, role: str) -> str:
        return self.server.url(self.name, role)

    def connect(self, role: str = "") -> psycopg.Connection:
        """Connect in autocommit mode, as the superuser by default; close it, or use `with`."""
        return psycopg.connect(self.server.url(self.name, role), autocommit=True)

    def run(self, statement: str, role: str = "") -> list[tuple[object, ...]]:
        """Run a statement, as the superuser by default, and return its rows."""
        with self.connect(role) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def exists(self, relation: str) -> bool:
        return self.run(f"select to_regclass('{relation}') is not null") == [(True,)]

    @property
    def settings(self) -> Settings:
        """Settings with every default, for functions that want them beside a connection."""
        return Settings(database_url=self.url)


@pytest.fixture(scope="session")
def servers(server_directory: Path) -> Iterator[Callable[[Kind], sandbox.Postgres]]:
    """The server for a kind of database, started when it is first asked for."""
    with ExitStack() as stack:

        @cache
        def start(version: int, supabase: bool) -> sandbox.Postgres:
            if version == 15:
                require(DEBIAN_15.exists(), "PostgreSQL 15")
            server = stack.enter_context(
                sandbox.postgres(
                    server_directory,
                    tcp=True,
                    superuser="supabase_admin" if supabase else "postgres",
                    settings={"fsync": "off", "autovacuum": "off", "max_connections": "60"},
                    bin_path=DEBIAN_15 if version == 15 else None,
                )
            )
            if not supabase:
                with psycopg.connect(server.url()) as admin:
                    admin.execute("create role owner login createrole")
            return server

        @cache
        def prepare(kind: Kind) -> sandbox.Postgres:
            server = start(kind.version, kind.supabase)
            template = Database(server, f"template_{kind.era}", kind)
            with psycopg.connect(server.url("template1"), autocommit=True) as admin:
                admin.execute(sql.SQL("create database {}").format(sql.Identifier(template.name)))
            if kind.supabase:
                template.run(Path(__file__).with_name("supabase.sql").read_text())
            if kind.era == "current":
                template.run(DATA_API_SWITCH)
            template.run(f"alter database {template.name} owner to {kind.owner}")
            sandbox.create_app_tables(template.url)
            return server

        yield prepare


@pytest.fixture
def new_database(servers: Callable[[Kind], sandbox.Postgres]) -> Iterator[Callable[[Kind], Database]]:
    """Make databases of any kind, and afterwards drop them and the roles that came with them."""
    made: list[Database] = []

    def make(kind: Kind) -> Database:
        database = Database(servers(kind), f"test_{uuid4().hex}", kind)
        with psycopg.connect(database.server.url("template1"), autocommit=True) as admin:
            admin.execute(
                sql.SQL("create database {} template {} owner {}").format(
                    sql.Identifier(database.name),
                    sql.Identifier(f"template_{kind.era}"),
                    sql.Identifier(kind.owner),
                )
            )
        made.append(database)
        return database

    yield make
    for database in made:
        with psycopg.connect(database.server.url("template1"), autocommit=True) as admin:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(database.name)))
    for database in made:
        with psycopg.connect(database.server.url("template1"), autocommit=True) as admin:
            roles = (
                r"select rolname from pg_roles where rolname in ('notiflog_worker', 'notiflog_reader')"
                r" or rolname like 'test\_%'"
            )
            for (role,) in admin.execute(roles).fetchall():
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@pytest.fixture(params=KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Every kind of database; a test that needs fewer says so with `parametrize`."""
    kind: Kind = request.param
    return kind


@pytest.fixture
def database(kind: Kind, new_database: Callable[[Kind], Database]) -> Database:
    return new_database(kind)


def apply_all(database: Database) -> None:
    """Apply every migration as the owner."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        for migration in pending(connection):
            apply(connection, migration)


@pytest.fixture
def migrated(database: Database) -> Database:
    apply_all(database)
    return database


class Answer(NamedTuple):
    """What a command said."""

    code: int
    output: str
    errors: str


@pytest.fixture
def migrate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `python -m worker.migrate` within this process: (url, *arguments)."""

    def run(url: str, *arguments: str) -> Answer:
        monkeypatch.setenv("DATABASE_URL", url)
        capsys.readouterr()
        try:
            code = command.main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Answer(code, *capsys.readouterr())

    return run


def start_migrate(url: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start `python -m worker.migrate` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "worker.migrate", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class SupabaseCli(NamedTuple):
    """The real Supabase CLI, kept from its user's home and from talking to anybody but the database."""

    binary: str
    major: int
    project: Path

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        home = str(self.project / "home")
        return subprocess.Popen(
            [self.binary, *arguments, "--workdir", str(self.project), "--agent", "no"],
            cwd=self.project,
            env={
                "PATH": os.environ["PATH"],
                "HOME": home,
                "SUPABASE_HOME": home,
                "DO_NOT_TRACK": "1",
                "SUPABASE_TELEMETRY_DISABLED": "1",
                "SUPABASE_NO_UPDATE_NOTIFIER": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_push(self, database: Database) -> "subprocess.Popen[str]":
        return self.start("db", "push", *self._target(database), "--yes")

    def push(self, database: Database) -> Answer:
        return finish(self.start_push(database))

    def list(self, database: Database) -> Answer:
        return finish(self.start("migration", "list", *self._target(database)))

    def diff(self, source: Database, target: Database) -> Answer:
        """The statements that turn `source` into `target`."""
        addresses = ("--from", source.tcp_url, "--to", target.tcp_url)
        return finish(self.start("db", "diff", "--use-pg-delta", "--schema", "public", *addresses))

    def _target(self, database: Database) -> tuple[str, ...]:
        if self.major == 2:
            return ("--db-url", database.tcp_url)
        return (f"--remote={database.tcp_url}",)


def finish(process: "subprocess.Popen[str]") -> Answer:
    """Wait for a command's end."""
    try:
        output, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Answer(process.returncode, output, errors)


@pytest.fixture(scope="session")
def supabase_cli(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], SupabaseCli]:
    """The Supabase CLI of a major version, in a project whose migrations are this checkout's."""

    @cache
    def find(major: int) -> SupabaseCli:
        variable = f"NOTIFLOG_TEST_SUPABASE_CLI_{major}"
        binary = os.environ.get(variable) or shutil.which("supabase") or ""
        project = tmp_path_factory.mktemp(f"supabase-{major}")
        (project / "home").mkdir()
        (project / "supabase").mkdir()
        # The CLI writes beside these two, not into the checkout.
        for name in ("config.toml", "migrations"):
            (project / "supabase" / name).symlink_to(ROOT / "supabase" / name)
        cli = SupabaseCli(binary, major, project)
        version = finish(cli.start("--version")).output if binary else ""
        require(version.startswith(f"{major}."), f"Supabase CLI {major} (name it in {variable})")
        return cli

    return find


@pytest.fixture(params=[3, 2], ids=["cli-3", "cli-2"])
def cli(request: pytest.FixtureRequest, supabase_cli: Callable[[int], SupabaseCli]) -> SupabaseCli:
    return supabase_cli(request.param)
