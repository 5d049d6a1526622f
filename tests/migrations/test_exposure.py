"""What came open is found and closed, whatever the ledger says: restored dumps, new projects' default grants,
row level security that switches itself on.
"""

# ruff: noqa: S608 - statements are put together from constants of this file

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from tests.manual import ROOT, section
from tests.migrations.conftest import TWO_KINDS, Answer, Database, Kind, apply_all
from tests.migrations.test_privileges import LOG, PARENT, do_the_workers_job, fill, may, problems
from tests.migrations.test_tools import NOTHING_TO_DO
from worker.servers.migrations import migrations

Migrate = Callable[..., Answer]
NewDatabase = Callable[[Kind], Database]

RESERVATIONS, LEDGER = "notiflog.reservations", "notiflog.schema_migrations"
COLUMNS = {LOG: "status = status", RESERVATIONS: "holds = holds", LEDGER: "name = name"}
STATEMENTS = {
    **{
        (verb, table): statement.format(table=table, columns=columns)
        for table, columns in COLUMNS.items()
        for verb, statement in {
            "select": "select from {table}",
            "insert": "insert into {table} default values",
            "update": "update {table} set {columns}",
            "delete": "delete from {table}",
            "truncate": "truncate {table}",
        }.items()
    },
    ("call", "reserve"): "select public.reserve_follow_up_notifications(array['key'])",
    ("call", "release"): "select public.release_follow_up_notifications(array['key'])",
}
#: Everything that whoever comes from outside may do.
MEANT = {
    "anon": set[tuple[str, str]](),
    "authenticated": set[tuple[str, str]](),
    "service_role": {("select", LOG), ("insert", LOG), ("call", "reserve"), ("call", "release")},
}

# Stands for Supabase's setting that does so for every new table of `public`.
AUTOMATIC = """
create function extensions.secure_new_tables() returns event_trigger language plpgsql as $$
declare made record;
begin
  for made in select object_identity from pg_event_trigger_ddl_commands()
               where object_type = 'table' and schema_name = 'public' loop
    execute 'alter table ' || made.object_identity || ' enable row level security';
  end loop;
end $$;
create event trigger secure_new_tables on ddl_command_end when tag in ('CREATE TABLE')
  execute function extensions.secure_new_tables();
"""


@pytest.fixture(params=TWO_KINDS, ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


def binaries(database: Database) -> Path:
    """Where the programs of the database's own version are."""
    server: list[str] = database.server.process.args  # type: ignore[assignment]
    return Path(server[0]).parent


def client(database: Database, program: str, *arguments: str | Path, check: bool = True) -> None:
    """Run one of the client programs of the database's own version, as its owner."""
    subprocess.run(
        [binaries(database) / program, *arguments, f"--dbname={database.url}"],
        check=check,
        capture_output=True,
        timeout=60,
    )


def dump(database: Database, directory: Path) -> Path:
    tables = [f"--table={table}" for table in (LOG, "notiflog.*")]
    client(database, "pg_dump", "--format=custom", "--no-owner", *tables, f"--file={directory / 'dump'}")
    return directory / "dump"


def restored(new_database: NewDatabase, kind: Kind, directory: Path, *, automatic: bool) -> Database:
    """What a dump of a migrated database becomes in a project that has no roles of ours."""
    source = new_database(kind)
    apply_all(source)
    file = dump(source, directory)
    for role in ("notiflog_worker", "notiflog_reader"):  # as on another server
        source.run(f"alter role {role} rename to test_{role}")
    target = new_database(kind)
    if automatic:
        target.run(AUTOMATIC)
    target.run("create schema notiflog", kind.owner)
    client(target, "pg_restore", "--no-owner", file, check=False)  # grants to nobody are errors
    assert target.run(f"select count(*) from {LEDGER}") == [(len(migrations()),)]
    return target


@pytest.fixture(params=itertools.product(("fresh", "restored"), (False, True)), ids=str)
def opened(request: pytest.FixtureRequest, kind: Kind, new_database: NewDatabase, tmp_path: Path) -> Database:
    """A project in which nobody has closed anything yet, with or without automatic row level security."""
    how, automatic = request.param
    if how == "restored":
        return restored(new_database, kind, tmp_path, automatic=automatic)
    database = new_database(kind)
    if automatic:
        database.run(AUTOMATIC)
    return database


def test_nobody_from_outside_may_do_more_than_is_meant(opened: Database, migrate: Migrate) -> None:
    assert migrate(opened.url, "--check").code == 1
    answer = migrate(opened.url)
    assert (answer.code, answer.errors) == (0, "")
    able = {
        role: {what for what, statement in STATEMENTS.items() if may(opened, role, statement)}
        for role in MEANT
    }
    assert able == MEANT
    assert migrate(opened.url) == NOTHING_TO_DO
    assert migrate(opened.url, "--check") == NOTHING_TO_DO


def test_the_worker_works_afterwards(opened: Database, migrate: Migrate) -> None:
    migrate(opened.url)
    opened.run("create role test_worker login in role notiflog_worker")
    for table in ("users", "chapters", "scenario_rules", "device_tokens"):
        opened.run(f"alter table {table} enable row level security")
    fill(opened)
    assert problems(opened) == []
    do_the_workers_job(opened)


def test_a_dump_that_is_restored_is_as_open_as_the_project_makes_it(
    kind: Kind, new_database: NewDatabase, migrate: Migrate, tmp_path: Path
) -> None:
    """What there is to heal: without it these roles may do far too much, and the worker nothing."""
    database = restored(new_database, kind, tmp_path, automatic=False)
    able = {
        verb for (verb, table), text in STATEMENTS.items() if table == LOG and may(database, "anon", text)
    }
    legacy = kind.era == "legacy"
    assert able == ({"select", "insert", "update", "delete", "truncate"} if legacy else {"truncate"})
    answer = migrate(database.url, "--check")
    assert answer.code == 1
    most = "delete, insert, maintain, references, select, trigger, truncate, update"
    given = (most if legacy else "maintain, references, trigger, truncate").split(", ")
    privileges = ", ".join(privilege for privilege in given if kind.version >= 17 or privilege != "maintain")
    assert f"exposed: anon may {privileges} on {LOG}\n" in answer.output
    assert "missing: role notiflog_worker\n" in answer.output
    assert migrate(database.url, "--dry-run").output == answer.output.replace(
        "exposed", "would heal exposed"
    ).replace("missing", "would heal missing")
    healed = migrate(database.url).output
    assert healed == answer.output.replace("exposed", "healed exposed").replace("missing", "healed missing")


#: What somebody may have done to a migrated database, and what is said of it.
OPENED = {
    "the log to everybody": (f"grant select on {LOG} to public", f"public may select on {LOG}"),
    "a column of the log": (
        f"grant select (peer_mentor_id) on {LOG} to authenticated",
        f"authenticated may select on {LOG}",
    ),
    "updates by service_role": (
        f"alter table {LOG} enable row level security; grant update, delete on {LOG} to service_role",
        f"service_role may delete, update on {LOG}",
    ),
    "grants that no policy is there for": (
        f"alter table {LOG} enable row level security; grant insert, select on {LOG} to anon;"
        f" create policy p on {LOG} for select to authenticated using (true)",
        f"anon may insert, select on {LOG}",
    ),
    "a grant that was passed on": (
        f"grant select on {LOG} to anon with grant option;"
        f" set role anon; grant select on {LOG} to authenticated; reset role",
        f"anon may select on {LOG}",
    ),
    "truncating by somebody else": (
        f"create role test_other; grant truncate on {LOG} to test_other",
        f"test_other may truncate on {LOG}",
    ),
    "the reservations": (
        f"grant usage on schema notiflog to anon; grant select, insert on {RESERVATIONS} to anon",
        f"anon may insert, select on {RESERVATIONS}",
    ),
    "the ledger": (
        f"grant usage on schema notiflog to anon; grant all on {LEDGER} to service_role",
        "anon may use schema notiflog",
    ),
    "a function": (
        "grant execute on function public.reserve_follow_up_notifications(text[], interval) to anon",
        "anon may call function public.reserve_follow_up_notifications",
    ),
}


def test_what_was_opened_is_said_and_closed(
    migrated: Database, migrate: Migrate, subtests: pytest.Subtests
) -> None:
    for name, (statement, said) in OPENED.items():
        with subtests.test(name):
            migrated.run(statement)
            checked = migrate(migrated.url, "--check")
            assert (checked.code, f"exposed: {said}" in checked.output) == (1, True)
            answer = migrate(migrated.url)
            assert (answer.code, answer.errors) == (0, "")
            assert f"healed exposed: {said}" in answer.output
            assert migrate(migrated.url) == NOTHING_TO_DO


#: What a ledger claims that is not there.
GONE = {
    "everything": (f"drop table {LOG}, {RESERVATIONS} cascade", f"table {LOG}"),
    "the log": (f"drop table {LOG} cascade", f"table {LOG}"),
    "the reservations": (f"drop table {RESERVATIONS}", f"table {RESERVATIONS}"),
    "a function": (
        "drop function public.release_follow_up_notifications(text[])",
        "function public.release_follow_up_notifications",
    ),
    "row level security": (
        f"alter table {RESERVATIONS} disable row level security",
        f"row level security of {RESERVATIONS}",
    ),
    "a grant": (f"revoke insert on {LOG} from notiflog_worker", f"insert on {LOG} for notiflog_worker"),
    "a grant on a column": (
        f"revoke select (status) on {LOG} from notiflog_worker",
        f"select (status) on {LOG} for notiflog_worker",
    ),
    "a schema": (
        "revoke usage on schema notiflog from notiflog_reader",
        "usage on schema notiflog for notiflog_reader",
    ),
    "a policy": (
        f"drop policy notiflog_worker_delete on {RESERVATIONS}",
        f"policy notiflog_worker_delete on {RESERVATIONS}",
    ),
}


def test_what_is_gone_is_said_and_made_again(
    migrated: Database, migrate: Migrate, subtests: pytest.Subtests
) -> None:
    for name, (statement, said) in GONE.items():
        with subtests.test(name):
            migrated.run(statement)
            assert f"missing: {said}\n" in migrate(migrated.url, "--check").output
            answer = migrate(migrated.url)
            assert (answer.code, answer.errors) == (0, "")
            assert f"healed missing: {said}\n" in answer.output
            assert migrate(migrated.url) == NOTHING_TO_DO


def test_a_forged_ledger_is_not_believed(database: Database, migrate: Migrate) -> None:
    versions = ", ".join(f"('{migration.version}', '')" for migration in migrations())
    database.run(
        f"create schema notiflog; create table {LEDGER}"
        " (version text primary key, name text, applied_at timestamptz);"
        f" insert into {LEDGER} values {versions}",
        database.kind.owner,
    )
    assert f"missing: table {LOG}\n" in migrate(database.url, "--check").output
    assert migrate(database.url).code == 0
    assert database.exists(LOG)
    assert migrate(database.url) == NOTHING_TO_DO


def test_what_the_owner_cannot_close_is_left_with_a_sentence(migrated: Database, migrate: Migrate) -> None:
    migrated.run("grant notiflog_reader to authenticated")
    answer = migrate(migrated.url)
    assert answer.code == 1
    assert (
        f"exposed, and cannot be healed: authenticated may select on {LOG}. It is the owner, a member"
        in answer.errors
    )
    assert migrate(migrated.url, "--check").code == 1


def test_what_is_pending_is_not_called_missing(migrated: Database, migrate: Migrate) -> None:
    assert migrate(migrated.url, "--rollback", "--yes").code == 0
    migrated.run(f"grant select on {LOG} to anon")
    last = migrations()[-1].name
    listed = f"pending {last}\nexposed: anon may select on {LOG}\n"
    assert migrate(migrated.url, "--check") == Answer(1, listed, "")
    healed = f"applied {last}\nhealed exposed: anon may select on {LOG}\n"
    assert migrate(migrated.url) == Answer(0, healed, "")


def test_a_coordinators_policy_and_its_grant_are_left_alone(migrated: Database, migrate: Migrate) -> None:
    migrated.run(
        f"alter table {LOG} enable row level security; grant select on {LOG} to authenticated;"
        f" create policy coordinators_read on {LOG} for select to authenticated using (true)"
    )
    assert migrate(migrated.url) == NOTHING_TO_DO
    assert may(migrated, "authenticated", STATEMENTS["select", LOG])


# Backups


def test_the_recipe_for_a_backup_brings_rows_and_rights_back(
    kind: Kind, new_database: NewDatabase, redis: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """The manual's own lines, run by a shell: from one server to another that has none of our roles."""
    source = new_database(kind)
    apply_all(source)
    fill(source)
    ids = ", ".join([f"'{PARENT}'"] * 3)
    source.run(
        f"insert into {LOG} values (default, {ids}, now(), 'fcm', 'key', 'delivered');"
        f" insert into {RESERVATIONS} values ('held', now(), now() + interval '1 minute')"
    )
    target = new_database(kind)
    fill(target)
    dumping, restoring = re.findall(r"```sh\n(.*?)```", section("Back up and restore"), re.DOTALL)
    environment = {
        "OLD_DATABASE_URL": source.url,
        "NEW_DATABASE_URL": target.url,
        "DATABASE_URL": target.url,
        "REDIS_URL": valkey_url,
        "PATH": f"{binaries(source)}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    shell(dumping, tmp_path, environment)
    for role in ("notiflog_worker", "notiflog_reader"):  # as on another server
        source.run(f"alter role {role} rename to test_{role}")
    try:
        said = shell(restoring, tmp_path, environment)
        looked = said.partition("\npostgres\n")[2].partition("\nqueue\n")[0].splitlines()
        assert looked
        assert [line for line in looked if not line.startswith("  ok ")] == []
        for table in (LOG, RESERVATIONS, LEDGER):
            everything = f"select thing::text from {table} as thing order by 1"
            assert target.run(everything) == source.run(everything)
        assert problems(target, "notiflog_login") == []
        do_the_workers_job(target, "notiflog_login")
    finally:
        target.run("drop role if exists notiflog_login")


def shell(lines: str, directory: Path, environment: dict[str, str]) -> str:
    """What lines of a shell say; each must succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines],  # noqa: S607
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
