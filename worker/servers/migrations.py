"""The migrations: files of SQL, what of them is applied, and the one way to apply or undo them."""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import errors, sql

from . import drift, postgres
from .drift import Drift

#: The app's tables that the migrations refer to.
APP_TABLES = ("public.users", "public.chapters", "public.scenario_rules")

#: The advisory lock of all migrations, also taken by the files themselves: "notiflog" in ASCII.
LOCK = int.from_bytes(b"notiflog", "big")

# Our own ledger: a version of ours in Supabase's would make the app's own `supabase db push` refuse.
_OUR_LEDGER = sql.Identifier("notiflog", "schema_migrations")
_SUPABASE_LEDGER = sql.Identifier("supabase_migrations", "schema_migrations")
_CREATE_LEDGER = """
create schema if not exists notiflog;
create table if not exists notiflog.schema_migrations (
  version text primary key,
  name text not null,
  applied_at timestamptz not null default now()
)
"""

# Of the schemas with a ledger, and of what is in them. A trigger or view of somebody else's would run with
# the rights of whoever migrates, so an owner has to be that role, or one that needs no such trick: a
# superuser, the database's owner, or a role that an ordinary migrating role was made a member of.
_STRANGERS = """
with thing (name, owner) as (
  select 'schema ' || nspname, nspowner from pg_namespace where nspname in ('notiflog', 'supabase_migrations')
  union all
  select nspname || '.' || relname, relowner
    from pg_class join pg_namespace as schema on schema.oid = relnamespace
   where nspname = 'notiflog' or nspname = 'supabase_migrations' and relname = 'schema_migrations'
)
select thing.name, role.rolname
  from thing join pg_roles as role on role.oid = thing.owner
 where not role.rolsuper
   and role.rolname <> current_user
   and role.oid <> (select datdba from pg_database where datname = current_database())
   and (not pg_has_role(role.oid, 'usage') or (select rolsuper from pg_roles where rolname = current_user))
 order by thing.name
 limit 1
"""

# The worker's role has no business with the ledgers, Supabase's included.
_CLOSED_LEDGERS = """
select exists (
  select from pg_class join pg_namespace as schema on schema.oid = relnamespace
   where relname = 'schema_migrations' and nspname in ('notiflog', 'supabase_migrations')
     and not (has_schema_privilege(schema.oid, 'usage') and has_table_privilege(pg_class.oid, 'select')))
"""


class StrangerError(Exception):
    """A ledger is in the hands of a role that could use it to act as whoever migrates."""


class Migration(NamedTuple):
    """One file of SQL, and beside it, in `rollback/`, the one that undoes it."""

    path: Path

    @property
    def name(self) -> str:
        """`20261122060000_follow_up_notification_log`."""
        return self.path.stem

    @property
    def version(self) -> str:
        """`20261122060000`."""
        return self.name.partition("_")[0]

    @property
    def rollback(self) -> Path:
        """The script that undoes it."""
        return self.path.parent / "rollback" / self.path.name


def migrations() -> list[Migration]:
    """All migrations, oldest first."""
    package = Path(__file__).resolve().parents[1]
    # In a wheel they are part of the package, in a checkout they lie beside it.
    directory = next(
        path for path in (package / "migrations", package.parent / "migrations") if path.is_dir()
    )
    return [Migration(path) for path in sorted(directory.glob("*.sql"))]


def applied(connection: psycopg.Connection) -> set[str]:
    """The versions of our migrations that are recorded as applied, by this command or by Supabase's."""
    known = {migration.version for migration in migrations()}
    versions = _recorded(connection, _OUR_LEDGER)
    if not known <= versions:
        with suppress(errors.InsufficientPrivilege):  # then the files run again, which does no harm
            versions |= _recorded(connection, _SUPABASE_LEDGER) & known
    return versions


def ledgers_are_closed(connection: psycopg.Connection) -> bool:
    """Whether the connection's role may not see what is applied. Raises psycopg.Error."""
    return connection.execute(_CLOSED_LEDGERS).fetchone() == (True,)


def pending(connection: psycopg.Connection) -> list[Migration]:
    """The migrations that are not applied yet, oldest first."""
    versions = applied(connection)
    return [migration for migration in migrations() if migration.version not in versions]


def look(connection: psycopg.Connection) -> Drift:
    """What the catalogs say, whatever the ledgers claim.

    Raises StrangerError unless the ledgers belong to whom this role can trust: so look before you read one.
    """
    with postgres.transaction(connection, sealed=True):
        _refuse_strangers(connection)
        return drift.look(connection)


def apply(connection: psycopg.Connection, migration: Migration) -> bool:
    """Apply one migration in one transaction with its row in the ledger; False: another run was first.

    Raises StrangerError, see `look`: somebody may have come meanwhile.
    """
    with postgres.transaction(connection, sealed=True):
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        # Asked first: "create schema if not exists" wants the privilege even where there is nothing to do.
        if connection.execute("select to_regclass('notiflog.schema_migrations')").fetchone() == (None,):
            connection.execute(_CREATE_LEDGER)
        _refuse_strangers(connection)
        recorded = connection.execute(
            "insert into notiflog.schema_migrations (version, name) values (%s, %s) on conflict do nothing",
            [migration.version, migration.name],
        )
        if not recorded.rowcount:
            return False
        connection.execute(migration.path.read_bytes())
        return True


def heal(connection: psycopg.Connection) -> Drift:
    """Run all files again, in one transaction; returns what differs even then. The ledgers stay as they are.

    Raises StrangerError, see `look`.
    """
    with postgres.transaction(connection, sealed=True):
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        _refuse_strangers(connection)
        for migration in migrations():
            connection.execute(migration.path.read_bytes())
        return drift.look(connection)


def roll_back(connection: psycopg.Connection, migration: Migration) -> None:
    """Undo one migration in one transaction; its script also takes it out of both ledgers."""
    with postgres.transaction(connection, sealed=True):
        connection.execute("select pg_advisory_xact_lock(%s)", [LOCK])
        connection.execute(migration.rollback.read_bytes())


def _refuse_strangers(connection: psycopg.Connection) -> None:
    if found := connection.execute(_STRANGERS).fetchone():
        name, role = found
        raise StrangerError(
            f"{name} belongs to role {role}, whose triggers would run with the rights of whoever migrates: "
            f"if that role made it for notiflog, migrate as {role}; else give it to the owner of the database"
        )


def _recorded(connection: psycopg.Connection, ledger: sql.Identifier) -> set[str]:
    try:
        with connection.transaction():  # where there is one already, this must not end it
            rows = connection.execute(sql.SQL("select version from {}").format(ledger)).fetchall()
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        return set()
    return {version for (version,) in rows}
