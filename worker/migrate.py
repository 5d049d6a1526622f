"""Apply the migrations that are pending, or roll the last one back: `python -m worker.migrate`.

The same files serve `supabase db push`; a version that either tool has recorded counts as applied.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence

import psycopg
from psycopg import errors

from .servers import postgres
from .servers.migrations import APP_TABLES, LOCK, applied, apply, migrations, pending, roll_back
from .servers.settings import ConfigError, read_settings

EPILOG = """\
examples:
  python -m worker.migrate                    apply what is pending
  python -m worker.migrate --wait 60          the same, once the database is up: for a release phase
  python -m worker.migrate --check            is anything pending?
  python -m worker.migrate --dry-run          what would be applied?
  python -m worker.migrate --rollback --yes   undo the last migration, and its data

DATABASE_URL names the database and a role that owns it (on Supabase: postgres).
exit status: 0 done, 1 a problem (or, with --check, something is pending), 2 wrong usage or configuration
"""

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
   and (relation = any(array(select to_regclass(name)::oid from unnest(%s::text[]) as name))
        or locktype = 'advisory' and objsubid = 1 and (classid::bigint << 32 | objid::bigint) = %s)
 order by xact_start, pid, mode desc
 limit 3
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(arguments)
    try:
        settings = read_settings(os.environ)
    except ConfigError as error:
        _complain(str(error))
        return 2
    try:
        connection = _connect(settings.database_url, options.wait)
    except psycopg.Error as error:
        _complain(postgres.explain(error))
        return 1
    with connection:
        try:
            return _roll_back_last(connection, options) if options.rollback else _apply(connection, options)
        except psycopg.Error as error:
            _complain(_explain(connection, error))
            return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m worker.migrate",
        description="Apply the migrations that are pending: each in one transaction, safe to run again and "
        "from several places at once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only list what is pending; exit 1 if anything is")
    what.add_argument("--rollback", action="store_true", help="undo the last migration, with its data")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--yes", action="store_true", help="confirm --rollback")
    parser.add_argument(
        "--wait", type=_seconds, default=0, metavar="SECONDS", help="wait so long for the database to be up"
    )
    options = parser.parse_args(arguments)
    if options.rollback and not (options.yes or options.dry_run):
        parser.error("--rollback deletes data: confirm it with --yes, or look first with --dry-run")
    if options.yes and not options.rollback:
        parser.error("--yes confirms --rollback, which is not asked for")
    return options


def _seconds(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number of seconds")
    return int(text)


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


def _apply(connection: psycopg.Connection, options: argparse.Namespace) -> int:
    todo = pending(connection)
    if not todo:
        _say("nothing to do: every migration is applied")
    for migration in todo:
        if options.check:
            _say(f"pending {migration.name}")
        elif options.dry_run:
            _say(f"would apply {migration.name}")
        elif apply(connection, migration):
            _say(f"applied {migration.name}")
        else:
            _say(f"applied by another run meanwhile: {migration.name}")
    return 1 if options.check and todo else 0


def _roll_back_last(connection: psycopg.Connection, options: argparse.Namespace) -> int:
    versions = applied(connection)
    last = max(versions, default=None)
    if last is None:
        _say("nothing to roll back: no migration is applied")
        return 0
    migration = next((migration for migration in migrations() if migration.version == last), None)
    if migration is None:
        _complain(f"the last migration {last} belongs to a newer release: roll it back with that one")
        return 1
    if options.dry_run:
        _say(f"would roll back {migration.name}")
    else:
        roll_back(connection, migration)
        _say(f"rolled back {migration.name}")
    return 0


def _explain(connection: psycopg.Connection, error: psycopg.Error) -> str:
    """What went wrong, and the remedy; nothing is left behind, every migration being one transaction."""
    problem = (error.diag.message_primary or "").strip()
    if connection.broken or not problem:
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
            "select name from unnest(%s::text[]) as name where to_regclass(name) is null", [list(APP_TABLES)]
        ).fetchall()
        if rows:
            missing = ", ".join(name for (name,) in rows)
            return f"missing tables of the app: {missing}. Create them with the app's own migrations first."
    remedy = error.diag.message_hint
    if isinstance(error, errors.DependentObjectsStillExist):
        remedy = f"Drop them first: {error.diag.message_detail}"
    elif isinstance(error, errors.InsufficientPrivilege) and not remedy:
        remedy = (
            "Use a role in DATABASE_URL that owns the database and the app's tables (on Supabase: postgres)."
        )
    return f"{problem}. {remedy or 'Nothing is changed; the PostgreSQL log says more.'}"


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's answer


def _complain(message: str) -> None:
    print(f"migrate: {message}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
