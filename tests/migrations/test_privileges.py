"""Who may do what with the log: nobody by default, the API never, the worker exactly its job - whatever the
era of the default grants, and whether or not row level security is on.
"""

# ruff: noqa: S608 - statements are put together from constants of this file

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors

from tests.migrations.conftest import (
    KINDS,
    TWO_KINDS,
    Answer,
    Database,
    Kind,
    apply_all,
)
from worker.judge.classify import Outcome, StaleToken
from worker.record import store
from worker.record.tokens import Tokens
from worker.servers.migrations import migrations
from worker.servers.postgres import connect
from worker.servers.privileges import missing_privileges
from worker.servers.settings import Settings
from worker.servers.token_shape import located
from worker.servers.tokens import CHANNELS, TokenTable

LOG = "public.follow_up_notification_log"
PARENT = UUID("00000000-0000-4000-8000-000000000001")
NOW = datetime.now(UTC)

STATEMENTS = {
    "select": f"select from {LOG}",
    "insert": f"insert into {LOG} default values",
    "update": f"update {LOG} set status = 'failed'",
    "delete": f"delete from {LOG}",
    "truncate": f"truncate {LOG}",
}

supabase_kinds = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.supabase], ids=str)
two_kinds = pytest.mark.parametrize("kind", TWO_KINDS, ids=str)


def outcome(key: str, parent: UUID = PARENT) -> Outcome:
    row = {
        "peer_mentor_id": parent,
        "chapter_id": PARENT,
        "scenario_rule_id": PARENT,
        "delivered_at": NOW,
        "delivery_channel": "fcm",
        "idempotency_key": key,
        "status": "delivered",
    }
    not_stored: dict[str, Any] = dict.fromkeys(Outcome.__struct_fields__)
    return Outcome(**{**not_stored, **row})


def stale(token: str) -> StaleToken:
    return StaleToken(token, NOW, "unregistered", "fcm")


@pytest.fixture
def worker(migrated: Database) -> Database:
    """A migrated database with somebody to notify, and a login for the worker: test_worker."""
    fill(migrated)
    migrated.run("create role test_worker login in role notiflog_worker", migrated.kind.owner)
    return migrated


def fill(database: Database) -> None:
    for table in ("users", "chapters", "scenario_rules"):
        database.run(f"insert into {table} values ('{PARENT}')")
    database.run(
        f"insert into device_tokens select 'token ' || n, '{PARENT}', now() - interval '1 day' "
        "from generate_series(1, 9) as n"
    )


def may(database: Database, role: str, statement: str) -> bool:
    """Whether `role` has the privilege for a statement; what else becomes of it does not matter here."""
    with database.connect() as connection:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(f"set local role {role}".encode())
                connection.execute(statement.encode())
        except errors.InsufficientPrivilege:
            return False
        except errors.IntegrityError:
            pass
    return True


def allowed(database: Database, role: str) -> set[str]:
    return {name for name, statement in STATEMENTS.items() if may(database, role, statement)}


def with_tokens(database: Database, **changes: Any) -> Settings:
    """Settings with a token table that differs so from the usual one."""
    return replace(database.settings, tokens=dict.fromkeys(CHANNELS, TokenTable(**changes)))


def do_the_workers_job(
    database: Database, role: str = "test_worker", settings: Settings | None = None
) -> None:
    """Record and prune as the worker does: new keys, known keys, rows to be refused, and stale tokens."""
    settings = settings or database.settings
    of = settings.tokens["fcm"]
    table = str(of)
    ((before,),) = database.run(f"select count(*) from {table}")
    assert isinstance(before, int)
    ((token,),) = database.run(f"select min({of.column}) from {table}")
    with connect(database.url_of(role)) as connection:
        first = store.write(connection, Tokens(settings), [outcome("a"), outcome("b")], [stale(str(token))])
        assert first.inserted == {"a", "b"}
        stranger = UUID(int=PARENT.int + 1)
        second = store.write(
            connection, Tokens(settings), [outcome("a"), outcome("c", stranger), outcome("d")], []
        )
        assert second.inserted == {"d"}
        assert second.known == {"a": "delivered"}
        assert second.refused == {outcome("c", stranger): "peer_mentor_id"}
    assert database.run(f"select count(*) from {table}") == [(before - 1,)]
    database.run(f"delete from {LOG}")


def problems(database: Database, role: str = "test_worker", settings: Settings | None = None) -> list[str]:
    with connect(database.url_of(role)) as connection:
        tables = {located(connection, table) for table in (settings or database.settings).tokens.values()}
        return missing_privileges(connection, tables)


def follow(remedies: list[str], database: Database) -> None:
    """Run, as the administrator, the statements that the sentences give."""
    for sentence in remedies:
        (statement,) = re.findall(r"run `(.*?)`", sentence)
        database.run(statement)


# No default public access


@supabase_kinds
def test_api_roles_may_do_what_is_granted_and_nothing_by_default(migrated: Database) -> None:
    assert allowed(migrated, "anon") == set()
    assert allowed(migrated, "authenticated") == set()
    assert allowed(migrated, "service_role") == {"select", "insert"}


@supabase_kinds
def test_the_default_grants_are_what_the_migration_has_to_undo(database: Database) -> None:
    """The servers here stand for Supabase's: without the migration these roles may do far too much."""
    database.run(f"create table {LOG} (status text)", "postgres")
    expected = set(STATEMENTS) if database.kind.era == "legacy" else {"truncate"}
    for role in ("anon", "authenticated", "service_role"):
        assert allowed(database, role) == expected


def test_nobody_but_the_owner_may_truncate_or_alter_who_may(migrated: Database) -> None:
    privileges = ["truncate", "references", "trigger", "update", "delete"]
    privileges += ["maintain"] * (migrated.kind.version >= 17)
    assert (
        migrated.run(
            f"""
        select rolname, privilege from pg_roles, unnest(array{privileges}) as privilege
         where not rolsuper and rolname <> '{migrated.kind.owner}'
           and rolname not in ('pg_write_all_data', 'pg_maintain')
           and has_table_privilege(rolname, '{LOG}', privilege)
        """
        )
        == []
    )


@two_kinds
def test_a_table_that_the_superuser_migrates_is_no_more_open(database: Database) -> None:
    """Default privileges depend on who creates: supabase_admin's give postgres everything."""
    with database.connect() as connection:
        for migration in migrations():
            connection.execute(migration.path.read_bytes())
    assert not may(database, "postgres", STATEMENTS["truncate"])
    assert not may(database, "anon", STATEMENTS["truncate"])


#: Policies of a later migration, and what of a grant of everything they keep for whom.
KEPT = {
    "none": ("", {}),
    "to read": (
        f"create policy p on {LOG} for select to authenticated using (true)",
        {"authenticated": {"SELECT"}},
    ),
    "to do all": (
        f"create policy p on {LOG} to anon using (true)",
        {"anon": {"SELECT", "INSERT", "UPDATE", "DELETE"}},
    ),
    "to everybody": (
        f"create policy p on {LOG} for insert with check (true)",
        {"anon": {"INSERT"}, "authenticated": {"INSERT"}},
    ),
    "restrictive alone": (f"create policy p on {LOG} as restrictive for select to anon using (true)", {}),
}


@two_kinds
@pytest.mark.parametrize("policies", KEPT)
def test_under_row_level_security_the_api_keeps_what_a_policy_is_there_for(
    database: Database, policies: str
) -> None:
    """The dashboard switches row level security on for its tables, and leaves truncate to anon."""
    statement, kept = KEPT[policies]
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(migrations()[0].path.read_bytes())
        connection.execute("alter table follow_up_notification_log enable row level security")
        connection.execute(f"grant all on {LOG} to anon, authenticated, service_role; {statement}".encode())
        connection.execute(migrations()[0].path.read_bytes())
    given = database.run(
        f"select grantee::regrole::text, privilege_type from pg_class, aclexplode(relacl) "
        f"where oid = '{LOG}'::regclass and grantee <> relowner"
    )
    expected = {**kept, "service_role": {"SELECT", "INSERT"}}
    assert set(given) == {(role, privilege) for role in expected for privilege in expected[role]}


def test_row_level_security_is_left_to_a_later_migration(migrated: Database) -> None:
    assert "row level security" not in re.sub("--.*", "", migrations()[0].path.read_text())
    assert migrated.run(
        f"select relrowsecurity, relforcerowsecurity from pg_class where oid = '{LOG}'::regclass"
    ) == [(False, False)]


# The worker's role

TABLES = ("follow_up_notification_log", "device_tokens", "users", "chapters", "scenario_rules")
ROW_SECURITY = {
    "row security off": [],
    "row security on": [f"alter table {table} enable row level security" for table in TABLES],
    "row security forced": [
        f"alter table {table} enable row level security, force row level security" for table in TABLES
    ],
}


def test_the_worker_does_its_job_and_the_api_sees_nothing(
    worker: Database, subtests: pytest.Subtests
) -> None:
    for row_security, statements in ROW_SECURITY.items():
        with subtests.test(row_security):
            for statement in statements:
                worker.run(statement)
            assert problems(worker) == []
            do_the_workers_job(worker)
            if worker.kind.supabase:
                assert allowed(worker, "anon") == set()
                assert allowed(worker, "authenticated") == set()
                assert allowed(worker, "service_role") == {"select", "insert"}


@two_kinds
def test_the_worker_may_do_nothing_else(worker: Database) -> None:
    for statement in (
        f"update {LOG} set status = 'failed'",
        f"delete from {LOG}",
        f"truncate {LOG}",
        f"select * from {LOG}",
        f"select peer_mentor_id from {LOG}",
        "select from users",
        "select from chapters",
        "select from scenario_rules",
        "insert into device_tokens values ('x', null)",
        "update device_tokens set token = 'x'",
        "truncate device_tokens",
        "create table public.mine ()",
    ):
        assert not may(worker, "test_worker", statement), statement


@two_kinds
def test_policies_have_no_effect_while_row_level_security_is_off(worker: Database) -> None:
    worker.run(f"create role test_reader login; grant select on {LOG} to test_reader")
    ids = ", ".join([f"'{PARENT}'"] * 3)
    worker.run(f"insert into {LOG} values (default, {ids}, now(), 'fcm', 'key', 'delivered')")
    assert worker.run(f"select count(*) from {LOG}", "test_reader") == [(1,)]
    worker.run(f"alter table {LOG} enable row level security")
    assert worker.run(f"select count(*) from {LOG}", "test_reader") == [(0,)]


@two_kinds
def test_the_role_cannot_log_in_itself(worker: Database) -> None:
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        worker.connect("notiflog_worker")


def test_a_role_that_is_there_already_is_used_as_it_is(database: Database) -> None:
    database.run("create role notiflog_worker login noinherit")
    apply_all(database)
    fill(database)
    assert problems(database, "notiflog_worker") == []
    do_the_workers_job(database, "notiflog_worker")


@two_kinds
def test_two_databases_of_one_server_share_the_role(
    kind: Kind, new_database: Callable[[Kind], Database], migrate: Callable[..., Answer]
) -> None:
    one, other = new_database(kind), new_database(kind)
    for database in (one, other):
        assert migrate(database.url).code == 0
        fill(database)
    one.run("create role test_worker login in role notiflog_worker", kind.owner)
    for _ in migrations()[1:]:
        assert migrate(one.url, "--rollback", "--yes").code == 0
    do_the_workers_job(other)
    assert problems(one) != []


@pytest.mark.parametrize("kind", [Kind(18, "plain"), Kind(15, "plain")], ids=str)
def test_an_owner_who_may_not_create_roles_is_told_what_to_do(
    database: Database, migrate: Callable[..., Answer]
) -> None:
    database.run("alter role owner nocreaterole")
    try:
        answer = migrate(database.url)
        assert answer.code == 1
        assert answer.output == f"applied {migrations()[0].name}\n"
        for role, migration in (("notiflog_worker", migrations()[1]), ("notiflog_reader", migrations()[2])):
            assert f"role owner may not create roles, and role {role} does not exist" in answer.errors
            database.run(re.findall("`(create role .*?)`", answer.errors)[0])
            answer = migrate(database.url)
            assert answer.output.startswith(f"applied {migration.name}\n")
        assert answer.code == 0
    finally:
        database.run("alter role owner createrole")


# A worker that cannot do its job says so, and what it says helps


@two_kinds
def test_a_stranger_need_only_become_a_member(worker: Database, subtests: pytest.Subtests) -> None:
    for row_security, statements in ROW_SECURITY.items():
        with subtests.test(row_security):
            for statement in statements:
                worker.run(statement)
            worker.run("drop role if exists test_stranger; create role test_stranger login")
            found = problems(worker, "test_stranger")
            assert found == [
                "role test_stranger is not a member of notiflog_worker: "
                "run `grant notiflog_worker to test_stranger`"
            ]
            follow(found, worker)
            assert problems(worker, "test_stranger") == []
            do_the_workers_job(worker, "test_stranger")


@two_kinds
def test_a_member_that_does_not_inherit_is_told_so(worker: Database) -> None:
    worker.run('create role "test_No" login noinherit in role notiflog_worker')
    (found,) = problems(worker, "test_No")
    assert 'role "test_No" does not inherit from notiflog_worker' in found
    follow([found], worker)
    assert problems(worker, "test_No") == []
    do_the_workers_job(worker, "test_No")


@two_kinds
def test_a_missing_privilege_is_named_with_the_grant_that_helps(
    worker: Database, subtests: pytest.Subtests
) -> None:
    for privilege in (
        f"insert on {LOG}",
        f"select on {LOG}",
        f"select (status) on {LOG}",
        f"select (idempotency_key) on {LOG}",
        "select on device_tokens",
        "delete on device_tokens",
    ):
        with subtests.test(privilege):
            worker.run(f"revoke {privilege} from notiflog_worker")
            if "device_tokens" in privilege:
                with connect(worker.url_of("test_worker")) as connection:
                    recorded = store.write(
                        connection, Tokens(worker.settings), [outcome("e")], [stale("token 1")]
                    )
                assert recorded.inserted | recorded.known.keys() == {"e"}
                assert recorded.tokens.refused == {"token 1"}
            else:
                with pytest.raises(errors.InsufficientPrivilege):
                    do_the_workers_job(worker)
            found = problems(worker)
            assert len(found) == 1
            assert f"notiflog_worker may not {privilege.split()[0]} on public." in found[0]
            follow(found, worker)
            assert problems(worker) == []
            worker.run(f"delete from {LOG}")
            do_the_workers_job(worker)


@two_kinds
def test_a_missing_policy_is_named_once_row_level_security_is_on(
    worker: Database, subtests: pytest.Subtests
) -> None:
    tokens = "public.device_tokens"
    for table, policy in ((LOG, "insert"), (LOG, "select"), (tokens, "select"), (tokens, "delete")):
        with subtests.test(f"{policy} on {table}"):
            worker.run(f"alter table {table} disable row level security")
            worker.run(f"drop policy notiflog_worker_{policy} on {table}")
            assert problems(worker) == [], "without row level security there is nothing to miss"
            worker.run(f"alter table {table} enable row level security")
            with pytest.raises((errors.InsufficientPrivilege, AssertionError)):
                do_the_workers_job(worker)
            found = problems(worker)
            assert len(found) == 1
            assert f"row level security hides rows of {table} from notiflog_worker on {policy}" in found[0]
            follow(found, worker)
            assert problems(worker) == []
            worker.run(f"delete from {LOG}")
            do_the_workers_job(worker)


@two_kinds
def test_a_delete_that_would_remove_nothing_in_silence_is_an_error(worker: Database) -> None:
    """A policy for everybody that shows owners their own rows applies to the worker too: it sees none."""
    worker.run(
        """
        drop policy notiflog_worker_delete on device_tokens;
        alter table device_tokens enable row level security;
        create policy own on device_tokens using (user_id::text = current_user)
        """
    )
    with connect(worker.url_of("test_worker")) as connection:
        recorded = store.write(connection, Tokens(worker.settings), [outcome("a")], [stale("token 1")])
    assert recorded.inserted == {"a"}
    assert recorded.tokens.refused == {"token 1"}
    found = problems(worker)
    assert [sentence.partition(":")[0] for sentence in found] == [
        "row level security hides rows of public.device_tokens from notiflog_worker on delete"
    ]


@two_kinds
def test_a_restrictive_policy_is_found_out(worker: Database) -> None:
    worker.run(
        """
        alter table device_tokens enable row level security;
        create policy own on device_tokens as restrictive using (user_id::text = current_user)
        """
    )
    assert len(problems(worker)) == 2
    worker.run("alter policy own on device_tokens to pg_monitor")
    assert problems(worker) == []


@two_kinds
def test_the_owner_and_who_bypasses_row_level_security_miss_nothing(worker: Database) -> None:
    for statement in ROW_SECURITY["row security on"]:
        worker.run(statement)
    worker.run("drop policy notiflog_worker_delete on device_tokens")
    assert problems(worker, worker.kind.owner) == []
    assert problems(worker, worker.server.superuser) == []


@two_kinds
def test_a_closed_schema_is_named(worker: Database) -> None:
    worker.run("create schema app; alter table device_tokens set schema app")
    settings = with_tokens(worker, table=("app", "device_tokens"))
    found = problems(worker, settings=settings)
    assert found == [
        "schema app is closed to notiflog_worker: run `grant usage on schema app to notiflog_worker`"
    ]
    follow(found, worker)
    do_the_workers_job(worker, settings=settings)


@two_kinds
@pytest.mark.parametrize(
    ("table", "registered", "row_security"),
    [
        pytest.param(("push", "devices"), "seen_at", True, id="in a schema, row security"),
        pytest.param(("devices",), "seen_at", False, id="without a schema"),
        pytest.param(("push", "devices"), None, True, id="no registered column"),
    ],
)
def test_a_token_table_of_another_name_becomes_usable_by_what_is_said(
    worker: Database, table: tuple[str, ...], registered: str | None, row_security: bool
) -> None:
    name = ".".join(table)
    settings = with_tokens(worker, table=table, column="fcm", registered=(registered,) if registered else ())
    assert [sentence.partition(":")[0] for sentence in problems(worker, settings=settings)] == [
        f"table {name} does not exist"
    ]
    worker.run(
        f"""
        create schema push;
        create table {name} (fcm text, seen_at timestamptz default '2020-01-01');
        insert into {name} values ('t1'), ('t2');
        """
    )
    if row_security:
        worker.run(f"alter table {name} enable row level security")
    found = problems(worker, settings=settings)
    assert found
    follow(found, worker)
    assert problems(worker, settings=settings) == []
    do_the_workers_job(worker, settings=settings)


@two_kinds
def test_a_token_table_that_comes_later_becomes_usable_by_what_is_said(database: Database) -> None:
    database.run("alter table device_tokens rename to put_aside")
    apply_all(database)
    database.run("create role test_worker login in role notiflog_worker")
    database.run("alter table put_aside rename to device_tokens")
    fill(database)
    found = problems(database)
    assert len(found) == 2
    follow(found, database)
    assert problems(database) == []
    do_the_workers_job(database)


@two_kinds
def test_a_token_table_of_another_owner_does_not_stop_the_migration(database: Database) -> None:
    database.run(f"alter table device_tokens owner to {database.server.superuser}")
    apply_all(database)
    database.run("create role test_worker login in role notiflog_worker")
    assert len(problems(database)) == 2


@two_kinds
def test_missing_tables_and_columns_are_named(worker: Database) -> None:
    worker.run(f"alter table {LOG} rename to elsewhere")
    settings = with_tokens(worker, column="fcm", registered=("seen_at",))
    found = problems(worker, settings=settings)
    assert found[0].startswith(f"table {LOG} does not exist: run `python -m worker.migrate`")
    assert found[1].startswith(
        "table public.device_tokens has no column fcm, seen_at: check NOTIFLOG_TOKEN_COL"
    )
    assert len(found) == 2


@two_kinds
def test_the_check_only_reads(worker: Database) -> None:
    worker.run("alter role test_worker set default_transaction_read_only = on")
    assert problems(worker) == []
