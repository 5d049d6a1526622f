"""Whoever may create a schema must not act as the role that migrates: by owning `notiflog` before it does."""

# ruff: noqa: S608 - statements are put together from constants of this file

from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors

from tests.migrations.conftest import TWO_KINDS, Answer, Database, Kind, apply_all
from worker.servers.migrations import StrangerError, apply, migrations

LOG = "public.follow_up_notification_log"
LEDGER = "create table {}.schema_migrations (version text primary key, name text, applied_at timestamptz)"
FORGED = "".join(
    f"; insert into notiflog.schema_migrations values ('{migration.version}')" for migration in migrations()
)
TRAP = """
create function {0}.trap() returns trigger language plpgsql as
  $$ begin execute 'alter role test_stranger createrole'; return new; end $$;
create trigger trap before insert on {0}.{1} for each row execute function {0}.trap();
"""
VIEW = """
create function notiflog.trap() returns text language plpgsql as
  $$ begin execute 'alter role test_stranger createrole'; return ''; end $$;
create view notiflog.schema_migrations as select notiflog.trap() as version;
"""

PREPARED = {
    "a schema": ("create schema notiflog", "schema notiflog"),
    "a ledger with a trigger": (
        f"create schema notiflog; {LEDGER.format('notiflog')};"
        + TRAP.format("notiflog", "schema_migrations"),
        "notiflog.schema_migrations",
    ),
    "a ledger that claims everything": (
        f"create schema notiflog; {LEDGER.format('notiflog')} {FORGED}",
        "notiflog.schema_migrations",
    ),
    "a ledger that is a view": (f"create schema notiflog; {VIEW}", "notiflog.schema_migrations"),
    "reservations with a trigger": (
        "create schema notiflog; create table notiflog.reservations (idempotency_key text primary key,"
        " reserved_at timestamptz, held_until timestamptz, holds int);"
        + TRAP.format("notiflog", "reservations"),
        "notiflog.reservations",
    ),
}


@pytest.fixture(params=TWO_KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def stranger(database: Database) -> str:
    """A role that may create schemas and nothing else."""
    database.run(
        f"create role test_stranger login; grant create on database {database.name} to test_stranger"
    )
    return "test_stranger"


def is_untouched(database: Database) -> bool:
    created = database.run("select rolcreaterole from pg_roles where rolname = 'test_stranger'")
    return created == [(False,)] and not database.exists(LOG)


@pytest.mark.parametrize("arguments", [[], ["--check"], ["--rollback", "--yes"]], ids=" ".join)
@pytest.mark.parametrize("prepared", PREPARED)
def test_what_a_stranger_prepared_is_refused(
    database: Database, stranger: str, migrate: Callable[..., Answer], prepared: str, arguments: list[str]
) -> None:
    statement, thing = PREPARED[prepared]
    database.run(statement, stranger)
    answer = migrate(database.url, *arguments)
    assert answer.code == 1
    assert f"{thing} belongs to role test_stranger" in answer.errors or (
        "schema notiflog belongs to role test_stranger" in answer.errors
    )
    assert "migrate as test_stranger; else give it to the owner of the database" in answer.errors
    assert is_untouched(database)


def test_a_stranger_that_comes_after_the_look_is_refused(database: Database, stranger: str) -> None:
    database.run(PREPARED["a ledger with a trigger"][0], stranger)
    with (
        psycopg.connect(database.url, autocommit=True) as connection,
        pytest.raises(StrangerError, match="belongs to role test_stranger"),
    ):
        apply(connection, migrations()[0])
    assert is_untouched(database)


@pytest.mark.parametrize("prepared", ["a schema", "reservations with a trigger"])
def test_the_file_by_itself_refuses_too(database: Database, stranger: str, prepared: str) -> None:
    """The other tool runs the files alone."""
    database.run(PREPARED[prepared][0], stranger)
    *before, last = (migration.path.read_text() for migration in migrations())
    for statements in before:
        database.run(statements, database.kind.owner)
    with pytest.raises(errors.InsufficientPrivilege, match="belongs to role test_stranger"):
        database.run(last, database.kind.owner)


@pytest.mark.parametrize("migrating", ["a superuser", "a member"])
def test_what_trusted_roles_made_is_taken(
    database: Database, stranger: str, migrate: Callable[..., Answer], migrating: str
) -> None:
    apply_all(database)
    if migrating == "a superuser":
        url = database.server.url(database.name)
    else:  # the app's group of owners, and one of them
        database.run(
            f"create role test_owners; grant {database.kind.owner} to test_owners;"
            " create role test_member login in role test_owners;"
            f" alter database {database.name} owner to current_user"
        )
        url = database.url_of("test_member")
    answer = migrate(url)
    assert (answer.code, answer.errors) == (0, "")
