"""The same files by `supabase db push`, `python -m worker.migrate` and by hand: any order, any number."""

# ruff: noqa: S608 - statements are put together from constants of this file

import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from tests.migrations.conftest import (
    DEBIAN_15,
    TWO_KINDS,
    Answer,
    Database,
    Kind,
    SupabaseCli,
    apply_all,
    finish,
    require,
    start_migrate,
)
from worker.servers import postgres
from worker.servers.migrations import LOCK, Migration, apply, migrations

LOG = "public.follow_up_notification_log"
VERSIONS = [migration.version for migration in migrations()]
NOTHING_TO_DO = Answer(0, "nothing to do: every migration is applied\n", "")

Migrate = Callable[..., Answer]
two_kinds = pytest.mark.parametrize("kind", TWO_KINDS, ids=str)
#: Each version of the CLI with one kind: a run of it takes a second of processor time.
each_cli = pytest.mark.parametrize(
    ("cli", "kind"), [*zip((3, 2), TWO_KINDS, strict=True)], indirect=["cli"], ids=str
)


def insert_row(database: Database, key: str = "key") -> None:
    database.run(
        """
        with parent as (select gen_random_uuid() as id),
             u as (insert into users select id from parent),
             c as (insert into chapters select id from parent),
             r as (insert into scenario_rules select id from parent)
        select from parent
        """
    )
    with database.connect() as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            """
            insert into follow_up_notification_log
                   (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel,
                    idempotency_key, status)
            select users.id, chapters.id, scenario_rules.id, now(), 'apns', %s, 'skipped'
              from users, chapters, scenario_rules limit 1
            """,
            [key],
        )


def rows(database: Database) -> object:
    return database.run("select count(*) from follow_up_notification_log")[0][0]


def recorded(database: Database, ledger: str) -> list[object]:
    if not database.exists(ledger):
        return []
    return [version for (version,) in database.run(f"select version from {ledger} order by version")]


def in_our_ledger(database: Database) -> list[object]:
    return recorded(database, "notiflog.schema_migrations")


def in_supabases_ledger(database: Database) -> list[object]:
    return recorded(database, "supabase_migrations.schema_migrations")


def roll_back_to_the_table(database: Database, migrate: Migrate) -> None:
    """Undo every migration but the first."""
    for _ in migrations()[1:]:
        assert migrate(database.url, "--rollback", "--yes").code == 0


def roll_back_by_hand(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        for migration in reversed(migrations()):
            connection.execute(migration.rollback.read_bytes())


# The Supabase CLI


@pytest.mark.parametrize(
    ("cli", "kind"),
    [(3, Kind(18, "current")), (3, Kind(15, "plain")), (2, Kind(18, "legacy")), (2, Kind(15, "current"))],
    indirect=["cli"],
    ids=str,
)
def test_supabase_push_applies_lists_and_then_says_up_to_date(cli: SupabaseCli, database: Database) -> None:
    pushed = cli.push(database)
    assert pushed.code == 0, pushed
    assert rows(database) == 0
    assert in_supabases_ledger(database) == VERSIONS

    listed = cli.list(database)
    assert listed.code == 0, listed
    for version in VERSIONS:
        (line,) = [line for line in listed.output.splitlines() if version in line]
        assert line.count(version) == 2, "expected on both sides, Local and Remote"

    again = cli.push(database)
    assert again.code == 0, again
    assert "up to date" in again.output


@pytest.mark.parametrize("kind", TWO_KINDS[:1], ids=str)
def test_supabase_push_applies_nothing_when_the_apps_tables_are_missing(
    supabase_cli: Callable[[int], SupabaseCli], database: Database
) -> None:
    database.run("drop table public.chapters")
    pushed = supabase_cli(3).push(database)
    assert pushed.code == 1
    assert '"public.chapters" does not exist' in pushed.output + pushed.errors
    assert not database.exists(LOG)
    assert in_supabases_ledger(database) == []


# Every order


@each_cli
def test_supabase_first_then_ours_finds_nothing_to_do(
    cli: SupabaseCli, database: Database, migrate: Migrate
) -> None:
    assert cli.push(database).code == 0
    assert migrate(database.url) == migrate(database.url, "--check") == NOTHING_TO_DO
    assert in_our_ledger(database) == []


@each_cli
def test_ours_first_then_supabase_records_its_own_and_keeps_the_rows(
    cli: SupabaseCli, database: Database, migrate: Migrate
) -> None:
    assert migrate(database.url).code == 0
    assert in_supabases_ledger(database) == []
    insert_row(database)
    pushed = cli.push(database)
    assert pushed.code == 0, pushed
    assert in_our_ledger(database) == in_supabases_ledger(database) == VERSIONS
    assert rows(database) == 1
    assert migrate(database.url) == NOTHING_TO_DO


def test_a_second_run_finds_nothing_to_do_with_few_reads(
    database: Database, migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert migrate(database.url).output.splitlines() == [f"applied {m.name}" for m in migrations()]
    statements = []
    execute = psycopg.Connection.execute

    def count(connection: psycopg.Connection, query: bytes, params: list[object] | None = None) -> object:
        statements.append(query)
        return execute(connection, query, params)

    monkeypatch.setattr(psycopg.Connection, "execute", count)
    assert migrate(database.url) == NOTHING_TO_DO
    # Whether anybody is there; in two settings, whose the ledger is and what the catalogs say; the ledger.
    assert len(statements) <= 6


def test_raw_files_may_run_again_and_again(database: Database, migrate: Migrate) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        for migration in migrations():
            for _ in range(2):
                connection.execute(migration.path.read_bytes())
        insert_row(database)
        before = privileges(database)
        for migration in migrations():
            connection.execute(migration.path.read_bytes())
    assert rows(database) == 1
    assert privileges(database) == before
    assert migrate(database.url).code == 0
    assert rows(database) == 1
    assert privileges(database) == before


def privileges(database: Database) -> list[tuple[object, ...]]:
    return database.run(
        """
        select grantee, table_name, privilege_type from information_schema.role_table_grants
         where table_schema = 'public' order by 1, 2, 3
        """
    )


@two_kinds
def test_raw_files_also_run_statement_by_statement(database: Database) -> None:
    require(DEBIAN_15.exists(), "psql 15")
    files = [migration.path for migration in migrations()]
    files += [migration.rollback for migration in reversed(migrations())]
    for _ in range(2):
        for path in files:
            done = subprocess.run(
                [DEBIAN_15 / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database.tcp_url, "-f", path],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    assert not database.exists(LOG)


def test_a_second_run_keeps_what_was_granted_under_row_level_security(migrated: Database) -> None:
    """A later migration lets coordinators read; who first ran the one tool may run the other long after."""
    if migrated.kind.supabase:
        reader = "authenticated"
    else:
        reader = "test_coordinator"
        migrated.run(f"create role {reader}")
    migrated.run(
        f"alter table {LOG} enable row level security; grant select on {LOG} to {reader};"
        f" create policy theirs on {LOG} for select to {reader} using (true)"
    )
    before = privileges(migrated)
    with psycopg.connect(migrated.url, autocommit=True) as connection:
        for migration in migrations():
            connection.execute(migration.path.read_bytes())
    assert privileges(migrated) == before
    assert (reader, "follow_up_notification_log", "SELECT") in before


@pytest.mark.parametrize("kind", [Kind(18, "legacy"), Kind(15, "plain")], ids=str)
def test_five_of_ours_at_once_do_no_harm(database: Database) -> None:
    answers = [finish(process) for process in [start_migrate(database.url) for _ in range(5)]]
    assert [answer.code for answer in answers] == [0] * 5, answers
    output = "".join(answer.output for answer in answers)
    for migration in migrations():
        assert output.count(f"applied {migration.name}\n") == 1
    assert in_our_ledger(database) == VERSIONS


@each_cli
def test_ours_and_supabases_at_once_do_no_harm(cli: SupabaseCli, database: Database) -> None:
    processes = [cli.start_push(database), *(start_migrate(database.url) for _ in range(2))]
    answers = [finish(process) for process in processes]
    assert [answer.code for answer in answers] == [0] * 3, answers
    assert rows(database) == 0
    assert in_supabases_ledger(database) == VERSIONS


@two_kinds
def test_a_held_lock_ends_in_a_clear_error_and_leaves_nothing(database: Database, migrate: Migrate) -> None:
    with database.connect() as holder, holder.transaction():
        holder.execute("set local application_name = 'nightly import'")
        holder.execute("lock table users in row exclusive mode")
        started = time.monotonic()
        answer = migrate(database.url)
        assert 4 < time.monotonic() - started < 8, "the file's own lock_timeout is 5 s"
        pid = holder.info.backend_pid
    assert answer.code == 1
    assert (
        f"process {pid} (nightly import, idle in transaction, 5 s into its transaction) holds "
        in answer.errors
    )
    assert "RowExclusiveLock on users" in answer.errors
    assert "run this again" in answer.errors
    assert not database.exists(LOG)
    assert in_our_ledger(database) == []
    assert migrate(database.url).code == 0


@two_kinds
def test_a_run_that_hangs_is_named_to_the_next_one(
    database: Database, migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_LIMITS", "set local lock_timeout = '300ms'")
    with database.connect() as holder, holder.transaction():
        holder.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        answer = migrate(database.url)
    assert answer.code == 1
    assert "holds ExclusiveLock on another run of the migrations" in answer.errors


def test_every_file_takes_the_lock_of_all_migrations() -> None:
    for migration in migrations():
        for path in (migration.path, migration.rollback):
            assert re.search(rf"perform (pg_catalog\.)?pg_advisory_xact_lock\({LOCK}\)", path.read_text())


# A table that somebody made by hand

BY_HAND = """
create table public.follow_up_notification_log (
  log_id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  peer_mentor_id UUID NOT NULL REFERENCES public.users(id),
  chapter_id UUID NOT NULL REFERENCES public.chapters(id),
  scenario_rule_id UUID NOT NULL REFERENCES public.scenario_rules(id) ON DELETE CASCADE,
  delivered_at TIMESTAMPTZ NOT NULL,
  delivery_channel TEXT NOT NULL CHECK (delivery_channel IN ('fcm', 'apns')),
  idempotency_key TEXT NOT NULL UNIQUE,
  status TEXT NOT NULL CHECK (status IN ('delivered', 'failed', 'skipped')),
  created_at TIMESTAMPTZ DEFAULT now()
)
"""


def test_a_table_made_by_hand_to_the_same_shape_is_taken_over(
    kind: Kind, new_database: Callable[[Kind], Database], migrate: Migrate
) -> None:
    database, fresh = new_database(kind), new_database(kind)
    database.run(BY_HAND, kind.owner)
    insert_row(database)
    assert migrate(database.url).code == 0
    assert rows(database) == 1
    apply_all(fresh)
    assert privileges(database) == privileges(fresh)


DIFFERENCES = [
    (
        "drop column created_at",
        "column created_at is missing, expected timestamp with time zone default now()",
    ),
    ("alter status type varchar(20)", "column status is character varying(20) not null, expected text"),
    ("alter delivered_at drop not null", "column delivered_at is timestamp with time zone, expected"),
    (
        "alter log_id drop default",
        "column log_id is uuid not null, expected uuid not null default gen_random",
    ),
    ("add reason text not null", "column reason is not expected: text not null"),
    (
        "drop constraint follow_up_notification_log_status_check",
        "follow_up_notification_log_status_check is missing",
    ),
    (
        "drop constraint follow_up_notification_log_idempotency_key_key",
        "follow_up_notification_log_idempotency_key_key is missing",
    ),
    (
        "drop constraint follow_up_notification_log_scenario_rule_id_fkey, add constraint "
        "follow_up_notification_log_scenario_rule_id_fkey foreign key (scenario_rule_id) "
        "references scenario_rules",
        "REFERENCES public.scenario_rules(id), expected FOREIGN KEY (scenario_rule_id) REFERENCES "
        "public.scenario_rules(%) ON DELETE CASCADE",
    ),
    (
        "drop constraint follow_up_notification_log_chapter_id_fkey, add constraint "
        "follow_up_notification_log_chapter_id_fkey foreign key (chapter_id) references users",
        "REFERENCES public.users(id), expected FOREIGN KEY (chapter_id) REFERENCES public.chapters(%)",
    ),
]


@two_kinds
def test_a_table_made_by_hand_that_differs_is_refused_with_the_difference(
    database: Database, migrate: Migrate, subtests: pytest.Subtests
) -> None:
    for change, difference in DIFFERENCES:
        with subtests.test(change):
            database.run(f"drop table if exists {LOG}")
            database.run(BY_HAND, database.kind.owner)
            database.run(f"alter table {LOG} {change}")
            before = privileges(database)
            answer = migrate(database.url)
            assert answer.code == 1
            assert difference in answer.errors
            assert "then run this again" in answer.errors
            assert in_our_ledger(database) == []
            assert privileges(database) == before


@two_kinds
def test_columns_that_inserts_need_not_know_do_not_stop_a_run(database: Database, migrate: Migrate) -> None:
    database.run(BY_HAND, database.kind.owner)
    database.run(f"alter table {LOG} add note text, add version int not null default 1")
    assert migrate(database.url).code == 0


@two_kinds
def test_a_view_of_that_name_is_refused(database: Database, migrate: Migrate) -> None:
    database.run(f"create view {LOG} as select 1 as log_id", database.kind.owner)
    answer = migrate(database.url)
    assert answer.code == 1
    assert in_our_ledger(database) == []


# Both tools make the same


@each_cli
def test_both_tools_make_the_same_database(
    cli: SupabaseCli, kind: Kind, new_database: Callable[[Kind], Database], migrate: Migrate
) -> None:
    ours, theirs = new_database(kind), new_database(kind)
    assert migrate(ours.url).code == 0
    assert cli.push(theirs).code == 0
    difference = cli.diff(ours, theirs)
    assert difference.code == 0, difference
    assert difference.output.strip() == ""
    theirs.run(f"grant truncate on {LOG} to public")
    assert "TRUNCATE" in cli.diff(ours, theirs).output, "the comparison must be able to fail"


# Rollback


def test_rollback_scripts_drop_the_table_with_its_rows_and_may_run_twice(
    migrated: Database, migrate: Migrate
) -> None:
    insert_row(migrated)
    roll_back_by_hand(migrated)
    assert not migrated.exists(LOG)
    roll_back_by_hand(migrated)
    assert in_our_ledger(migrated) == []
    assert migrate(migrated.url).code == 0
    assert rows(migrated) == 0


def test_rollback_scripts_do_no_harm_to_a_database_that_was_never_migrated(database: Database) -> None:
    roll_back_by_hand(database)
    assert not database.exists("notiflog.schema_migrations")


def test_rollback_command_undoes_the_last_migration_each_time(database: Database, migrate: Migrate) -> None:
    for _ in range(2):
        assert migrate(database.url).code == 0
        insert_row(database)
        for migration in reversed(migrations()):
            assert database.exists(LOG)
            assert migrate(database.url, "--rollback", "--yes") == Answer(
                0, f"rolled back {migration.name}\n", ""
            )
        assert not database.exists(LOG)
        assert migrate(database.url, "--rollback", "--yes") == Answer(
            0, "nothing to roll back: no migration is applied\n", ""
        )


@pytest.mark.parametrize(
    ("cli", "kind", "by_hand"),
    [(3, TWO_KINDS[0], False), (3, TWO_KINDS[1], True)],
    indirect=["cli"],
    ids=["command", "scripts"],
)
def test_after_a_rollback_both_tools_can_apply_again(
    cli: SupabaseCli, database: Database, migrate: Migrate, by_hand: bool
) -> None:
    def roll_back() -> None:
        if by_hand:
            roll_back_by_hand(database)
        else:
            for _ in migrations():
                assert migrate(database.url, "--rollback", "--yes").code == 0
        assert not database.exists(LOG)
        assert in_our_ledger(database) == in_supabases_ledger(database) == []

    assert cli.push(database).code == 0
    roll_back()
    assert migrate(database.url).code == 0
    assert cli.push(database).code == 0
    roll_back()
    assert cli.push(database).code == 0
    assert rows(database) == 0
    assert migrate(database.url) == NOTHING_TO_DO


@two_kinds
def test_rollback_of_the_table_forgets_what_the_worker_was_granted_on_it(
    migrated: Database, migrate: Migrate
) -> None:
    migrated.run(migrations()[0].rollback.read_text(), migrated.kind.owner)
    assert migrate(migrated.url, "--check").output.split()[1::2] == [m.name for m in migrations()]
    assert migrate(migrated.url).code == 0
    assert ("notiflog_worker", "follow_up_notification_log", "INSERT") in privileges(migrated)


@pytest.mark.parametrize("role", ["notiflog_worker", "notiflog_reader"])
def test_rollback_of_a_role_takes_all_but_the_role_and_its_members(
    migrated: Database, migrate: Migrate, role: str
) -> None:
    migrated.run(f"create role test_login login in role {role}", migrated.kind.owner)
    roll_back_to_the_table(migrated, migrate)
    assert migrated.exists(LOG)
    assert migrated.run("select from pg_policy") == []
    assert migrated.run(
        f"""
        select count(*) from pg_shdepend
         where refclassid = 'pg_authid'::regclass and refobjid = '{role}'::regrole
           and dbid = (select oid from pg_database where datname = current_database())
        """
    ) == [(0,)]
    assert migrated.run(f"select pg_has_role('test_login', '{role}', 'member')") == [(True,)]


@pytest.mark.parametrize("kind", [Kind(15, "current")], ids=str)
def test_rollback_waits_no_longer_than_5_seconds_for_readers_of_the_parents(
    migrated: Database, migrate: Migrate
) -> None:
    roll_back_to_the_table(migrated, migrate)
    with migrated.connect() as reader, reader.transaction():
        reader.execute("select from users")
        started = time.monotonic()
        answer = migrate(migrated.url, "--rollback", "--yes")
        assert time.monotonic() - started < 8
    assert answer.code == 1
    assert "holds AccessShareLock on users" in answer.errors
    assert migrated.exists(LOG)


@two_kinds
def test_rollback_says_what_depends_on_the_table(migrated: Database, migrate: Migrate) -> None:
    migrated.run(f"create view coordinator_feed as select status from {LOG}")
    roll_back_to_the_table(migrated, migrate)
    answer = migrate(migrated.url, "--rollback", "--yes")
    assert answer.code == 1
    assert "view public.coordinator_feed" in answer.errors
    assert "CASCADE" not in answer.errors
    assert migrated.exists(LOG)


@two_kinds
def test_rollback_of_what_a_newer_release_applied_is_left_to_that_release(
    migrated: Database, migrate: Migrate
) -> None:
    migrated.run("insert into notiflog.schema_migrations values ('20990101000000', 'from the future')")
    assert migrate(migrated.url) == NOTHING_TO_DO
    answer = migrate(migrated.url, "--rollback", "--yes")
    assert answer.code == 1
    assert "20990101000000 belongs to a newer release" in answer.errors
    assert migrated.exists(LOG)


@two_kinds
def test_a_failing_file_leaves_neither_its_changes_nor_its_record(
    database: Database, migrate: Migrate, tmp_path: Path
) -> None:
    broken = Migration(tmp_path / "20261201000000_broken.sql")
    broken.path.write_text("create table public.half_done (); select 1 / 0")
    with psycopg.connect(database.url, autocommit=True) as connection:
        with pytest.raises(errors.DivisionByZero):
            apply(connection, broken)
        assert apply(connection, migrations()[0])
    assert not database.exists("public.half_done")
    assert in_our_ledger(database) == VERSIONS[:1]
