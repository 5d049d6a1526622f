"""The functions of schedulers, their table, and the readers' role: who may do what."""

# ruff: noqa: S608 - statements are put together from constants of this file

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from tests.migrations.conftest import KINDS, TWO_KINDS, Answer, Database, apply_all
from tests.migrations.test_privileges import LOG, ROW_SECURITY, allowed, fill, may
from worker import history
from worker.servers.migrations import apply, migrations

RESERVATIONS = "notiflog.reservations"
RESERVE = "select public.reserve_follow_up_notifications(array['a', 'b'])"
RELEASE = "select public.release_follow_up_notifications(array['a', 'b'])"
FUNCTIONS = (
    "public.reserve_follow_up_notifications(text[], interval)",
    "public.release_follow_up_notifications(text[])",
)
ON_RESERVATIONS = {
    "select": f"select from {RESERVATIONS}",
    "insert": f"insert into {RESERVATIONS} values ('x', now(), now())",
    "update": f"update {RESERVATIONS} set holds = 1",
    "delete": f"delete from {RESERVATIONS}",
    "truncate": f"truncate {RESERVATIONS}",
}

supabase_kinds = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.supabase], ids=str)
two_kinds = pytest.mark.parametrize("kind", TWO_KINDS, ids=str)


@pytest.fixture
def reserved(migrated: Database) -> Database:
    """A migrated database in which three prompts are reserved and one is recorded, too."""
    fill(migrated)
    with migrated.connect(migrated.kind.owner) as owner:
        assert history.reserve(owner, ["1", "2", "3"]) == {"1", "2", "3"}
    migrated.run(
        f"insert into {LOG} select gen_random_uuid(), users.id, chapters.id, scenario_rules.id, now(), 'fcm',"
        " '3', 'delivered' from users, chapters, scenario_rules"
    )
    return migrated


def on_reservations(database: Database, role: str) -> set[str]:
    return {name for name, statement in ON_RESERVATIONS.items() if may(database, role, statement)}


def roles_that_may_call(database: Database) -> set[str]:
    """All but superusers."""
    either = " or ".join(f"has_function_privilege(oid, '{function}', 'execute')" for function in FUNCTIONS)
    found = database.run(f"select rolname from pg_roles where not rolsuper and ({either})")
    return {str(role) for (role,) in found}


# Reserving through the API


@supabase_kinds
def test_the_api_calls_them_as_service_role_and_as_nobody_else(migrated: Database) -> None:
    """As PostgREST does: it logs in as authenticator and sets a role for the transaction."""
    for role, expected in (("service_role", ["a", "b"]), ("anon", None), ("authenticated", None)):
        with migrated.connect("authenticator") as api, api.transaction():
            api.execute(f"set local role {role}".encode())
            api.execute("set local search_path = public, extensions")
            if expected is None:
                for call in (RESERVE, RELEASE):
                    with pytest.raises(errors.InsufficientPrivilege), api.transaction():
                        api.execute(call.encode())
            else:
                assert [key for (key,) in api.execute(RESERVE)] == expected
                assert [key for (key,) in api.execute(RESERVE)] == []
                assert sorted(key for (key,) in api.execute(RELEASE)) == expected


def test_nobody_but_the_owner_and_service_role_may_call_them(migrated: Database) -> None:
    expected = {migrated.kind.owner} | ({"service_role"} if migrated.kind.supabase else set())
    assert roles_that_may_call(migrated) == expected


@supabase_kinds
def test_the_default_grants_are_what_the_migration_has_to_undo(database: Database) -> None:
    for function in FUNCTIONS:
        database.run(f"create function {function} returns void language sql return null", "postgres")
    assert roles_that_may_call(database) >= {"anon", "authenticated", "service_role"}


def test_nobody_reaches_the_table_but_the_owner_the_worker_and_the_readers(migrated: Database) -> None:
    api = ("anon", "authenticated", "service_role") if migrated.kind.supabase else ()
    migrated.run("create role test_stranger")
    for role in (*api, "test_stranger"):
        assert on_reservations(migrated, role) == set()
    assert on_reservations(migrated, "notiflog_reader") == {"select"}
    assert on_reservations(migrated, "notiflog_worker") == {"select", "update", "delete"}


@two_kinds
def test_row_level_security_keeps_out_who_is_granted_the_table_by_mistake(reserved: Database) -> None:
    reserved.run(
        f"create role test_stranger login; grant usage on schema notiflog to test_stranger;"
        f"grant all on {RESERVATIONS} to test_stranger"
    )
    assert reserved.run(f"select from {RESERVATIONS}", "test_stranger") == []
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        reserved.run(ON_RESERVATIONS["insert"], "test_stranger")


def test_the_policies_of_a_later_migration_do_not_stop_schedulers(
    reserved: Database, subtests: pytest.Subtests
) -> None:
    """Forced upon an owner who is bound by it, row level security is said rather than passed over."""
    caller = "service_role" if reserved.kind.supabase else reserved.kind.owner
    for row_security, statements in ROW_SECURITY.items():
        with subtests.test(row_security):
            for statement in statements:
                reserved.run(statement)
            forced = row_security == "row security forced" and not reserved.kind.supabase
            with reserved.connect() as connection:
                connection.execute(f"set role {caller}".encode())
                if forced:
                    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
                        history.reserve(connection, ["3", "4"])
                else:
                    assert history.reserve(connection, ["3", "4"]) == {"4"}
                    assert history.release(connection, ["4"]) == {"4"}


# Nobody else's functions

#: What somebody who may create in public would put before PostgreSQL's own, for owner and caller to run.
HOSTILE = """
create role test_mallory login;
grant create on schema public to test_mallory;
set role test_mallory;
create function public.caught() returns text language plpgsql as $$ begin raise 'caught'; end $$;
create function public.length(text) returns int language sql as 'select public.caught()::int';
create function public.unnest(text[]) returns setof text language sql as 'select public.caught()';
create function public.cardinality(text[]) returns int language sql as 'select public.caught()::int';
create function public.clock_timestamp() returns timestamptz
  language sql as 'select public.caught()::timestamptz';
create function public.current_setting(text) returns text language sql as 'select public.caught()';
create function public.format(text, text, text, text, text, text) returns text
  language sql as 'select public.caught()';
create function public.to_regnamespace(text) returns regnamespace
  language sql as 'select public.caught()::regnamespace';
create function public.to_regclass(text) returns regclass language sql as 'select public.caught()::regclass';
create function public.equal(text, text) returns bool language sql as 'select public.caught()::bool';
create function public.equal(name, name) returns bool language sql as 'select public.caught()::bool';
create function public.later(timestamptz, timestamptz) returns bool
  language sql as 'select public.caught()::bool';
create function public.short(interval, interval) returns bool language sql as 'select public.caught()::bool';
create function public.plus(timestamptz, interval) returns timestamptz
  language sql as 'select public.caught()::timestamptz';
create operator public.= (leftarg = text, rightarg = text, function = public.equal);
create operator public.<> (leftarg = text, rightarg = text, function = public.equal);
create operator public.= (leftarg = name, rightarg = name, function = public.equal);
create operator public.<= (leftarg = timestamptz, rightarg = timestamptz, function = public.later);
create operator public.<= (leftarg = interval, rightarg = interval, function = public.short);
create operator public.+ (leftarg = timestamptz, rightarg = interval, function = public.plus);
"""


@two_kinds
def test_what_others_put_into_public_is_never_called(database: Database) -> None:
    first, second, third = migrations()[:3]
    with psycopg.connect(database.url, autocommit=True) as owner:
        for migration in (first, second):
            apply(owner, migration)
        database.run(HOSTILE)
        owner.execute("set search_path = public, pg_catalog")
        with pytest.raises(errors.RaiseException, match="caught"):
            owner.execute("select length('a'::text) = 1")
        for script in (third.path, third.rollback, third.path, third.path):
            with owner.transaction():
                owner.execute(script.read_bytes())
    with database.connect() as caller:
        caller.execute("set search_path = public, pg_catalog")
        caller.execute("set role service_role")
        assert len(caller.execute(RESERVE).fetchall()) == 2
        assert len(caller.execute(RELEASE).fetchall()) == 2


# Running it again


def test_a_second_run_changes_no_privilege_and_no_reservation(reserved: Database) -> None:
    reserved.run("create role test_scheduler")
    reserved.run(f"grant execute on function {FUNCTIONS[0]}, {FUNCTIONS[1]} to test_scheduler")

    def state() -> list[tuple[object, ...]]:
        called = (
            "select proname::text, unnest(proacl)::text from pg_proc"
            " where proname like '%follow_up_notifications'"
        )
        table = "select relname::text, unnest(relacl)::text from pg_class where relname = 'reservations'"
        return reserved.run(
            f"{called} union all {table} union all select 'rows', count(*)::text from {RESERVATIONS}"
        )

    before = sorted(map(str, state()))
    with psycopg.connect(reserved.url, autocommit=True) as owner:
        for migration in migrations():
            owner.execute(migration.path.read_bytes())
    assert sorted(map(str, state())) == before
    assert "test_scheduler" in roles_that_may_call(reserved)


@two_kinds
def test_indexes_that_were_made_beforehand_are_taken(database: Database) -> None:
    """A large table gets them without locking writers out, by the same statements with `concurrently`."""
    with psycopg.connect(database.url, autocommit=True) as owner:
        for migration in migrations()[:2]:
            apply(owner, migration)
        statements = re.findall(r"(?ms)^create index if not exists.*?;", migrations()[2].path.read_text())
        for statement in statements:
            owner.execute(statement.replace("index", "index concurrently", 1).encode())
        before = indexes(database)
        apply_all(database)
    assert len(statements) == 2
    assert indexes(database) == before


def indexes(database: Database) -> list[tuple[object, ...]]:
    return database.run(
        f"select indexrelid::regclass::text from pg_index where indrelid = '{LOG}'::regclass order by 1"
    )


# Taking it back


@pytest.mark.parametrize("by", ["command", "script alone"])
def test_rollback_leaves_nothing_of_it_but_the_role(
    reserved: Database, migrate: Callable[..., Answer], by: str
) -> None:
    if by == "command":
        assert migrate(reserved.url, "--rollback", "--yes").code == 0
    else:
        reserved.run("drop table notiflog.schema_migrations")  # as where only Supabase's tool migrates
        reserved.run(migrations()[-1].rollback.read_text(), reserved.kind.owner)
    assert not reserved.exists(RESERVATIONS)
    assert reserved.run("select from pg_proc where proname like '%follow_up_notifications'") == []
    assert reserved.run("select from pg_policy where polname like 'notiflog_reader%'") == []
    assert reserved.run(
        "select count(*) from pg_shdepend where refobjid = 'notiflog_reader'::regrole"
        " and dbid = (select oid from pg_database where datname = current_database())"
    ) == [(0,)]
    assert reserved.run("select to_regnamespace('notiflog') is null") == [(by == "script alone",)]
    assert allowed(reserved, "notiflog_reader") == set()
    assert reserved.run(f"select count(*) from {LOG}") == [(1,)]


# The readers' role


def test_a_reader_reads_and_does_nothing_else(reserved: Database, subtests: pytest.Subtests) -> None:
    reserved.run("create role test_reader login in role notiflog_reader")
    for row_security, statements in ROW_SECURITY.items():
        with subtests.test(row_security):
            for statement in statements:
                reserved.run(statement)
            with psycopg.connect(reserved.url_of("test_reader"), autocommit=True) as reader:
                assert history.recorded(reader, ["3"]) == {"3": "delivered"}
                assert len(history.outstanding(reader, timedelta(0))) == 2
            assert allowed(reserved, "test_reader") == {"select"}
            assert on_reservations(reserved, "test_reader") == {"select"}
            for statement in (RESERVE, RELEASE, "select from users", "select from device_tokens"):
                assert not may(reserved, "test_reader", statement)
            assert not may(reserved, "test_reader", "create table public.mine ()")
            assert not may(reserved, "test_reader", "create table notiflog.mine ()")
            assert not may(reserved, "test_reader", "select from notiflog.schema_migrations")


@two_kinds
def test_the_readers_policies_have_no_effect_while_row_level_security_is_off(reserved: Database) -> None:
    reserved.run(f"create role test_other login; grant select on {LOG} to test_other")
    assert reserved.run(f"select count(*) from {LOG}", "test_other") == [(1,)]
    reserved.run(f"alter table {LOG} enable row level security")
    assert reserved.run(f"select count(*) from {LOG}", "test_other") == [(0,)]


@two_kinds
def test_the_reader_cannot_log_in_itself(migrated: Database) -> None:
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        migrated.connect("notiflog_reader")


# What Supabase's advisor says

#: Put off to the migration that switches row level security on.
LATER = {"policy_exists_rls_disabled"}


@supabase_kinds
def test_supabases_advisor_has_nothing_to_say_but_for_row_level_security(reserved: Database) -> None:
    """Its SQL is `splinter.sql` of Supabase's repository of that name."""
    file = os.environ.get("NOTIFLOG_TEST_SPLINTER", "")
    if not file:
        pytest.skip("name Supabase's splinter.sql in NOTIFLOG_TEST_SPLINTER")
    with reserved.connect() as connection:
        use_every_index(connection)
        with connection.transaction():
            connection.execute("set local pgrst.db_schemas = 'public'")
            pinned, lints = Path(file).read_text().split("\n", 1)
            connection.execute(pinned.encode())
            every = connection.execute(f"select name, detail from ({lints}) as lint".encode()).fetchall()
    ours = re.compile("follow_up_notification|notiflog")
    found = [(name, detail) for name, detail in every if ours.search(detail)]
    assert {name for name, _ in found} == LATER, found
    assert {name for name, detail in found if RESERVATIONS in detail} == set()


def use_every_index(connection: psycopg.Connection) -> None:
    """Ask what each index is there for; so small a table is otherwise read from end to end."""
    with connection.transaction():
        connection.execute("set local enable_seqscan = off")
        someone = "00000000-0000-4000-8000-000000000001"
        history.newest(connection, someone, someone)
        history.newest_of_chapter(connection, someone)
        history.last_deliveries(connection, [(someone, someone)])
        connection.execute(f"select from {LOG} where scenario_rule_id = '{someone}'".encode())
    connection.execute("select pg_stat_force_next_flush()")
    connection.execute("select pg_stat_clear_snapshot()")
