"""`python -m worker.migrate` as an operator meets it: options, exit codes, errors that name the remedy."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.migrations.conftest import (
    TWO_KINDS,
    Answer,
    Database,
    Kind,
    finish,
    require,
    start_migrate,
)
from worker.demo import sandbox
from worker.record import store
from worker.record.tokens import Tokens
from worker.servers import postgres
from worker.servers.migrations import migrations
from worker.servers.postgres import connect
from worker.servers.privileges import missing_privileges

LOG = "public.follow_up_notification_log"
SECRET = "S3CRET"

Migrate = Callable[..., Answer]


@pytest.fixture(params=TWO_KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


def test_check_lists_what_is_pending_and_exits_1_until_nothing_is(
    database: Database, migrate: Migrate
) -> None:
    pending = "".join(f"pending {migration.name}\n" for migration in migrations())
    assert migrate(database.url, "--check") == Answer(1, pending, "")
    assert not database.exists(LOG)
    assert migrate(database.url).code == 0
    assert migrate(database.url, "--check") == Answer(0, "nothing to do: every migration is applied\n", "")


def test_check_notices_a_single_pending_migration(migrated: Database, migrate: Migrate) -> None:
    assert migrate(migrated.url, "--rollback", "--yes").code == 0
    assert migrate(migrated.url, "--check") == Answer(1, f"pending {migrations()[-1].name}\n", "")


def test_dry_run_says_what_would_be_done_and_does_nothing(database: Database, migrate: Migrate) -> None:
    would = "".join(f"would apply {migration.name}\n" for migration in migrations())
    assert migrate(database.url, "--dry-run") == Answer(0, would, "")
    assert not database.exists(LOG)
    assert not database.exists("notiflog.schema_migrations")
    assert migrate(database.url).code == 0
    last = migrations()[-1].name
    assert migrate(database.url, "--rollback", "--dry-run") == Answer(0, f"would roll back {last}\n", "")
    assert migrate(database.url, "--check").code == 0


@pytest.mark.parametrize("rollback", [False, True])
def test_a_dry_run_fails_as_the_real_run_would(database: Database, migrate: Migrate, rollback: bool) -> None:
    if rollback:
        assert migrate(database.url).code == 0
        database.run("create view public.reserved as select * from notiflog.reservations")
        real, dry = ["--rollback", "--yes"], ["--rollback", "--dry-run"]
    else:
        database.run("drop table chapters cascade")
        real, dry = [], ["--dry-run"]
    would = migrate(database.url, *dry)
    assert would.code == 1
    assert would == migrate(database.url, *real)


def test_the_process_answers_like_the_function(database: Database) -> None:
    applied = "".join(f"applied {migration.name}\n" for migration in migrations())
    assert finish(start_migrate(database.url)) == Answer(0, applied, "")
    assert finish(start_migrate(database.url, "--rollback")).code == 2
    assert finish(start_migrate("", "--check")).code == 2


# Waiting for the database


def test_wait_goes_on_until_the_database_is_up(
    database: Database, migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, attempts = postgres.connect, itertools.count(1)
    nobody = f"postgresql://x@127.0.0.1:{sandbox.free_port()}/x"
    monkeypatch.setattr(postgres, "connect", lambda url: connect(url if next(attempts) == 3 else nobody))
    assert migrate(database.url, "--wait", "30").code == 0
    assert next(attempts) == 4
    assert database.exists(LOG)


def test_wait_gives_up_after_so_many_seconds(migrate: Migrate) -> None:
    started = time.monotonic()
    answer = migrate(f"postgresql://x:{SECRET}@127.0.0.1:{sandbox.free_port()}/x", "--wait", "2")
    assert 1.9 < time.monotonic() - started < 4
    assert answer.code == 1
    assert "whether the server is up" in answer.errors
    assert SECRET not in answer.errors


def test_wait_does_not_wait_for_what_will_not_change(database: Database, migrate: Migrate) -> None:
    started = time.monotonic()
    answer = migrate(database.server.url("no_such_database", database.kind.owner), "--wait", "30")
    assert time.monotonic() - started < 5
    assert answer.code == 1
    assert "does not exist" in answer.errors


# Errors


@pytest.mark.parametrize(
    "tables", [["chapters"], ["users", "scenario_rules"], ["users", "chapters", "scenario_rules"]]
)
def test_missing_tables_of_the_app_are_all_named(
    database: Database, migrate: Migrate, tables: list[str]
) -> None:
    database.run(f"drop table {', '.join(tables)} cascade")
    answer = migrate(database.url)
    missing = ", ".join(
        f"public.{table}" for table in ("users", "chapters", "scenario_rules") if table in tables
    )
    assert answer == Answer(
        1,
        "",
        f"migrate: missing tables of the app: {missing}. Create them with the app's own migrations first.\n",
    )
    assert not database.exists("notiflog.schema_migrations")


def test_a_parent_without_a_uuid_key_is_explained(database: Database, migrate: Migrate) -> None:
    database.run("alter table chapters drop column id; alter table chapters add id bigint primary key")
    answer = migrate(database.url)
    assert answer.code == 1
    assert "follow_up_notification_log_chapter_id_fkey" in answer.errors
    assert "are of incompatible types: uuid and bigint. The app's tables must each have" in answer.errors
    assert not database.exists(LOG)


def test_a_role_without_the_privileges_is_told_which_role_has_them(
    database: Database, migrate: Migrate
) -> None:
    database.run(f"create role test_stranger login password '{SECRET}'")
    url = database.server.tcp_url(database.name, "test_stranger").replace("unused", SECRET)
    for prepare in ("select", f"grant create on database {database.name} to test_stranger"):
        database.run(prepare)
        answer = migrate(url)
        assert answer.code == 1
        assert "permission denied for" in answer.errors
        assert "Use a role in DATABASE_URL that owns the database" in answer.errors
        assert SECRET not in answer.errors
    assert not database.exists(LOG)


def test_the_workers_own_role_is_told_to_leave_migrating_to_the_owner(
    migrated: Database, migrate: Migrate
) -> None:
    migrated.run("create role test_worker login in role notiflog_worker")
    answer = migrate(migrated.url_of("test_worker"), "--check")
    assert answer.code == 1
    assert (
        "permission denied for table schema_migrations. Use a role in DATABASE_URL that owns" in answer.errors
    )


def test_a_wrong_password_is_said_and_not_shown(database: Database, migrate: Migrate) -> None:
    access_rules = database.server.directory / "pg_hba.conf"
    rules = access_rules.read_text()
    database.run("create role test_password login password 'right'")
    access_rules.write_text(f"host all test_password 127.0.0.1/32 scram-sha-256\n{rules}")
    database.run("select pg_reload_conf()")
    try:
        url = database.server.tcp_url(database.name, "test_password").replace("unused", SECRET)
        deadline = time.monotonic() + 10
        while (answer := migrate(url, "--wait", "30")).code == 1 and "password" not in answer.errors:
            assert time.monotonic() < deadline  # the server reads its new rules a moment later
    finally:
        access_rules.write_text(rules)
        database.run("select pg_reload_conf()")
    assert answer.code == 1
    assert "password authentication failed" in answer.errors
    assert "check DATABASE_URL" in answer.errors
    assert SECRET not in answer.output + answer.errors


def test_a_read_only_server_is_said(database: Database, migrate: Migrate) -> None:
    database.run(f"alter database {database.name} set default_transaction_read_only = on")
    answer = migrate(database.url)
    assert answer.code == 1
    assert "read-only transaction" in answer.errors


# Behind a pooler


@pytest.fixture
def pooled_url(database: Database, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Address of the database through PgBouncer in transaction mode, for a role."""
    binary = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    require(binary, "PgBouncer")
    assert binary
    with sandbox.directory() as directory:
        port = sandbox.free_port()
        (directory / "users.txt").write_text('"postgres" "unused"\n"test_worker" "unused"\n')
        (directory / "pgbouncer.ini").write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={database.server.port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {directory}/users.txt
            pool_mode = transaction
            default_pool_size = 2
            """
        )
        process = subprocess.Popen(
            [binary, "-q", directory / "pgbouncer.ini"],
            user="nobody" if os.geteuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield lambda role: f"postgresql://{role}:unused@127.0.0.1:{port}/{database.name}"
        finally:
            sandbox.stop(process, signal.SIGTERM)


def test_everything_works_through_a_pooler_in_transaction_mode(
    pooled_url: Callable[[str], str], database: Database, migrate: Migrate
) -> None:
    url = pooled_url("postgres")
    assert migrate(url, "--wait", "10", "--check").code == 1
    answers = [finish(process) for process in [start_migrate(url) for _ in range(4)]]
    assert [answer.code for answer in answers] == [0] * 4, answers
    output = "".join(answer.output for answer in answers)
    for migration in migrations():
        assert output.count(f"applied {migration.name}\n") == 1
    database.run("create role test_worker login in role notiflog_worker")
    with connect(pooled_url("test_worker")) as connection:
        assert missing_privileges(connection, database.settings.tokens.values()) == []
        assert store.write(connection, Tokens(database.settings), [], []).inserted == frozenset()
    for _ in migrations():
        assert migrate(url, "--rollback", "--yes").code == 0
    assert not database.exists(LOG)
    # Nothing that was set for a transaction has reached the next client of the same server connection.
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        for _ in range(4):
            assert connection.execute("select current_setting('lock_timeout')").fetchone() == ("0",)
            assert connection.execute("select current_setting('search_path')").fetchone() != ("pg_catalog",)


def test_a_pooler_whose_server_is_away_is_no_success(
    pooled_url: Callable[[str], str], database: Database, migrate: Migrate
) -> None:
    url = pooled_url("postgres").replace(database.name, "no_such_database")
    assert migrate(url, "--wait", "1").code == 1


# An installed wheel


def test_an_installed_package_finds_its_migrations(tmp_path: Path) -> None:
    """A wheel holds them within the package; nothing else of the checkout is there."""
    package = Path(__file__).parents[2] / "worker"
    shutil.copytree(package, tmp_path / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "migrations", tmp_path / "worker" / "migrations")
    program = "from worker.migrate import migrations; print(*(m.path for m in migrations()))"
    done = finish(
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    assert done.output.split() == [
        str(tmp_path / "worker" / "migrations" / migration.path.name) for migration in migrations()
    ]
