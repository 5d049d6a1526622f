"""Apply the migrations that are pending, or roll the last one back: `python -m worker.migrate`.

The same files serve `supabase db push`; a version that either tool has recorded counts as applied. What
is applied is looked up all the same: a restored dump lost roles and policies, and grants came by themselves.
"""

import os
import time
from typing import NamedTuple

import click

from . import NAME
from .command import Command, complain, say
from .extras import extra

with extra("worker"):
    import psycopg

from psycopg import errors

from .servers import postgres
from .servers.drift import Drift
from .servers.migrations import (
    APP_TABLES,
    LOCK,
    Migration,
    StrangerError,
    applied,
    apply,
    heal,
    look,
    migrations,
    pending,
    roll_back,
)
from .servers.settings import ConfigError, read_settings

EPILOG = f"""\
examples:
  python -m {NAME}.migrate                    apply what is pending, heal what has changed since
  python -m {NAME}.migrate --wait 60          the same, once the database is up: for a release phase
  python -m {NAME}.migrate --check            is anything pending, open to others, or gone?
  python -m {NAME}.migrate --dry-run          would it work? Does all of it, and takes it back
  python -m {NAME}.migrate --rollback --yes   undo the last migration, and its data

DATABASE_URL names the database and a role that owns it (on Supabase: postgres).
exit status: 0 done, 1 a problem (or, with --check, something to do), 2 wrong usage or configuration
"""


class _Words(NamedTuple):
    """What is said of a migration."""

    applied: str
    healed: str
    rolled_back: str


_DONE = _Words("applied", "healed", "rolled back")
_WOULD = _Words("would apply", "would heal", "would roll back")

_NOTHING = "nothing to do: every migration is applied"

#: What helps against a difference that the owner cannot heal.
_LEFT = {
    "exposed": "It is the owner, a member of a role that may, or somebody else granted it: revoke that.",
    "missing": "Compare it with migrations/.",
}

# All that a migration may have to wait for.
_LOCKED_TABLES = (*APP_TABLES, "public.follow_up_notification_log", "public.device_tokens")

# Who holds locks on the tables that a migration locks, longest first. No query text: it may quote rows.
_LOCK_HOLDERS = """
select pid, application_name, coalesce(state, 'unknown state'), mode,
       coalesce(relation::regclass::text, 'another run of the migrations'),
       extract(epoch from clock_timestamp() - xact_start)::int
  from pg_locks join pg_stat_activity using (pid)
 where granted and pid <> pg_backend_pid()
   and database = (select oid from pg_database where datname = current_database())
   and (relation = any(array(select to_regclass(name)::oid from pg_catalog.unnest(%s::text[]) as name))
        or locktype = 'advisory' and objsubid = 1 and (classid::bigint << 32 | objid::bigint) = %s)
 order by xact_start, pid, mode desc
 limit 3
"""


@click.command(
    "migrate",
    cls=Command,
    epilog=EPILOG,
    interrupted="interrupted; what is applied stays, so run it again to go on",
)
@click.option("--check", is_flag=True, help="only list what there is to do; exit 1 if there is anything")
@click.option("--rollback", is_flag=True, help="undo the last migration, with its data")
@click.option("--dry-run", is_flag=True, help="do it and take it back: says what would be done, or fail")
@click.option("--yes", is_flag=True, help="confirm --rollback")
@click.option(
    "--wait",
    type=click.IntRange(0),
    default=0,
    metavar="SECONDS",
    help="wait so long for the database to be up",
)
def main(*, check: bool, rollback: bool, dry_run: bool, yes: bool, wait: int) -> int:
    """Apply the migrations that are pending: each in one transaction, safe to run again and from several
    places at once. Then put right who may do what, where that has changed.
    """
    if check and rollback:
        raise click.UsageError("--check is not allowed with --rollback")
    if rollback and not (yes or dry_run):
        raise click.UsageError("--rollback deletes data: confirm it with --yes, or look first with --dry-run")
    if yes and not rollback:
        raise click.UsageError("--yes confirms --rollback, which is not asked for")
    try:
        connection = _connect(read_settings(os.environ).database_url, wait)
    except ConfigError as error:
        return complain(str(error), 2)
    except psycopg.Error as error:
        return complain(postgres.explain(error))
    with connection:
        try:
            drift = look(connection)
            if check:
                return _list(pending(connection), drift)
            if dry_run:  # the real thing, taken back: whatever would stop that stops this
                with connection.transaction(force_rollback=True):
                    return _change(connection, drift, _WOULD, rollback=rollback)
            return _change(connection, drift, _DONE, rollback=rollback)
        except StrangerError as error:
            return complain(str(error))
        except psycopg.Error as error:
            return complain(_explain(connection, error))


def _connect(database_url: str, wait: int) -> psycopg.Connection:
    deadline = time.monotonic() + wait
    while True:
        try:
            connection = postgres.connect(database_url)
            try:
                connection.execute("select 1")  # a pooler answers before it has a server
            except psycopg.Error:
                connection.close()
                raise
        except psycopg.OperationalError as error:
            if not postgres.is_transient(error) or time.monotonic() >= deadline:
                raise
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        else:
            return connection


def _list(todo: list[Migration], drift: Drift) -> int:
    """Say what there is to do. What is missing follows from what is pending, if anything is."""
    for migration in todo:
        say(f"pending {migration.name}")
    for kind, phrase in _differences(drift if not todo else drift._replace(missing=[])):
        say(f"{kind}: {phrase}")
    something = bool(todo or drift.exposed or drift.missing)
    if not something:
        say(_NOTHING)
    return int(something)


def _change(connection: psycopg.Connection, drift: Drift, words: _Words, *, rollback: bool) -> int:
    return _roll_back_last(connection, words) if rollback else _apply(connection, drift, words)


def _apply(connection: psycopg.Connection, drift: Drift, words: _Words) -> int:
    todo = pending(connection)
    for migration in todo:
        if apply(connection, migration):
            say(f"{words.applied} {migration.name}")
        else:
            say(f"applied by another run meanwhile: {migration.name}")
    if todo:
        drift = look(connection)
    differences = _differences(drift)
    left = _differences(heal(connection)) if differences else []
    for kind, phrase in differences:
        if (kind, phrase) not in left:
            say(f"{words.healed} {kind}: {phrase}")
    for kind, phrase in left:
        complain(f"{kind}, and cannot be healed: {phrase}. {_LEFT[kind]}")
    if not todo and not differences:
        say(_NOTHING)
    return int(bool(left))


def _differences(drift: Drift) -> list[tuple[str, str]]:
    return [("exposed", phrase) for phrase in drift.exposed] + [
        ("missing", phrase) for phrase in drift.missing
    ]


def _roll_back_last(connection: psycopg.Connection, words: _Words) -> int:
    versions = applied(connection)
    last = max(versions, default=None)
    if last is None:
        say("nothing to roll back: no migration is applied")
        return 0
    migration = next((migration for migration in migrations() if migration.version == last), None)
    if migration is None:
        return complain(f"the last migration {last} belongs to a newer release: roll it back with that one")
    roll_back(connection, migration)
    say(f"{words.rolled_back} {migration.name}")
    return 0


def _explain(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """What went wrong, and the remedy; nothing is left behind, every migration being one transaction."""
    problem = (error.diag.message_primary or "").strip()
    if connection.broken or not problem or str(error.sqlstate).startswith("08"):  # of a pooler
        return postgres.explain(error)
    if isinstance(error, errors.LockNotAvailable):
        holders = connection.execute(_LOCK_HOLDERS, [list(_LOCKED_TABLES), LOCK]).fetchall()
        held = "; ".join(
            f"process {pid} ({name or 'unnamed'}, {state}, {seconds} s into its transaction) "
            f"holds {mode} on {what}"
            for pid, name, state, mode, what, seconds in holders
        )
        return (
            "gave up waiting for a lock, nothing is changed: "
            f"{held or 'its holder has ended meanwhile'}. Let it finish, or end it, and run this again."
        )
    if isinstance(error, errors.UndefinedTable):
        rows = connection.execute(
            "select name from pg_catalog.unnest(%s::text[]) as name where to_regclass(name) is null",
            [list(APP_TABLES)],
        ).fetchall()
        if rows:
            missing = ", ".join(name for (name,) in rows)
            return f"missing tables of the app: {missing}. Create them with the app's own migrations first."
    remedy = error.diag.message_hint
    if isinstance(error, errors.DependentObjectsStillExist):
        remedy = f"Drop them first: {error.diag.message_detail}"
    elif isinstance(error, errors.DatatypeMismatch):  # a foreign key: names and types only
        remedy = f"{error.diag.message_detail} The app's tables must each have a uuid primary key."
    elif isinstance(error, errors.InsufficientPrivilege) and not remedy:
        remedy = (
            "Use a role in DATABASE_URL that owns the database and the app's tables (on Supabase: postgres)."
        )
    return f"{problem}. {remedy or 'Nothing is changed; the PostgreSQL log says more.'}"


if __name__ == "__main__":
    raise SystemExit(main())
