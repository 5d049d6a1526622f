"""What the catalog says of a token table: where it is, and of what types its columns are.

A statement must fit them: an index serves a comparison of its own type only, and a time without a zone means
nothing until somebody says whose it is.
"""

from dataclasses import replace
from typing import NamedTuple

import psycopg
from psycopg import errors, sql

from . import postgres
from .tokens import TokenTable

#: Types of a token column that compare as text does, by name.
TEXTS = ("text", "varchar", "bpchar", "citext")
#: Types of a column that says when a token was registered.
TIMES = ("timestamptz", "timestamp", "date")

# Types that a mark may have, by what they are set to.
_MARKED = {"false": ("bool",), "true": ("bool",), "now": TIMES}
_SQL_NAMES = {
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "int8": "bigint",
    "int4": "integer",
    "bool": "boolean",
}

#: Where a name without a schema is looked for; asked outside a transaction, which has a path of its own.
_SEARCH_PATH = "select pg_catalog.current_schemas(false)"

# A domain is what it is made of; its collation is the column's.
_SHAPE = """
with recursive class as (
  select class.oid, nspname, relkind, reltuples
    from pg_catalog.pg_class as class
    join pg_catalog.pg_namespace as schema on schema.oid = relnamespace
   where relname = %(table)s and nspname = any(%(schemas)s) and relkind in ('r', 'p', 'v', 'f')
   order by array_position(%(schemas)s::name[], nspname)
   limit 1
),
typed as (
  select attname, atttypid as type, attcollation
    from pg_catalog.pg_attribute
   where attrelid = (select oid from class) and attname = any(%(columns)s) and attnum > 0 and not attisdropped
  union all
  select attname, typbasetype, attcollation
    from typed join pg_catalog.pg_type on oid = type where typtype = 'd'
)
select nspname, relkind, greatest(reltuples, 0)::bigint,
       array(select array[attname, typname, schema.nspname,
                          coalesce((select (not collisdeterministic)::text from pg_catalog.pg_collation as own
                                     where own.oid = attcollation), 'false')]
               from typed
               join pg_catalog.pg_type as own on own.oid = type
               join pg_catalog.pg_namespace as schema on schema.oid = typnamespace
              where typtype <> 'd')
  from class
"""

# Zones reach from 12 hours behind to 14 hours ahead of UTC.
_ANY_ZONE = "interval '14 hours'"


class Column(NamedTuple):
    """A column's type, below any domain."""

    #: As `pg_type` has it: text, timestamptz, citext.
    type: str
    #: The schema of the type, and of its operators.
    schema: str
    #: Its collation takes some different texts for equal.
    loose: bool


class Shape(NamedTuple):
    """A token table as the catalog has it."""

    #: As the settings have it, with its schema.
    table: TokenTable
    #: One of pg_class.relkind: r, p, v or f.
    kind: str
    #: About how many it has, as PostgreSQL's statistics say; 0 where they do not.
    rows: int
    #: Those of the columns asked for that are there.
    columns: dict[str, Column]


def find_shape(connection: psycopg.Connection, table: TokenTable) -> Shape | None:
    """Look a token table up; None: there is no such table. Outside a transaction. Raises psycopg.Error."""
    if len(table.table) == 2:
        schemas = [table.table[0]]
    else:
        (schemas,) = connection.execute(_SEARCH_PATH).fetchone() or ([],)
    names = {"table": table.table[-1], "schemas": schemas, "columns": list(columns(table))}
    with postgres.transaction(connection, sealed=True):
        row = connection.execute(_SHAPE, names).fetchone()
    if row is None:
        return None
    schema, kind, rows, found = row
    types = {name: Column(type_, of, loose == "true") for name, type_, of, loose in found}
    return Shape(replace(table, table=(schema, table.table[-1])), kind, rows, types)


def located(connection: psycopg.Connection, table: TokenTable) -> TokenTable:
    """The table with the schema in which it is, if it is anywhere. Raises psycopg.Error."""
    shape = find_shape(connection, table)
    return shape.table if shape else table


def columns(table: TokenTable) -> tuple[str, ...]:
    """Every column that the settings name, each once."""
    mark = (table.mark.column,) if table.mark else ()
    return tuple(dict.fromkeys((table.column, *table.registered, *mark)))


def usable_shape(connection: psycopg.Connection, table: TokenTable) -> Shape:
    """The shape of a table that can be pruned.

    Raises psycopg.Error, as PostgreSQL would on pruning: UndefinedTable, UndefinedColumn or DatatypeMismatch.
    """
    shape = find_shape(connection, table)
    if shape is None:
        raise errors.UndefinedTable(f"there is no table {table}")
    if missing := [name for name in columns(table) if name not in shape.columns]:
        raise errors.UndefinedColumn(f"table {table} has no column {', '.join(missing)}")
    for unfit in unfit_columns(shape):
        raise errors.DatatypeMismatch(unfit.problem)
    return shape


class Unfit(NamedTuple):
    """A column whose type cannot serve."""

    #: What it should serve as: token, guard or mark.
    purpose: str
    problem: str
    remedy: str


def unfit_columns(shape: Shape) -> list[Unfit]:
    """The columns of a table whose types cannot serve; those that are not there are passed over."""
    table, found = shape.table, []
    for name, column in shape.columns.items():
        of = f"{table}.{name} is {_shown(column)}"
        if name == table.column and column.type not in TEXTS:
            remedy = "name a column of type text in NOTIFLOG_TOKEN_COLUMN, or keep the tokens as text"
            found.append(Unfit("token", f"{of} and holds no token as it was sent", remedy))
        if name in table.registered and column.type not in TIMES:
            remedy = f"make {name} timestamptz, or name another in NOTIFLOG_TOKEN_REGISTERED_COLUMN"
            found.append(Unfit("guard", f"{of} and cannot be compared with the time of a send", remedy))
        if table.mark and name == table.mark.column and not _takes(column, table.mark.value):
            remedy = f"name another column in NOTIFLOG_TOKEN_PRUNE, or write {name}=null"
            found.append(Unfit("mark", f"{of} and cannot be set to {table.mark.value}", remedy))
    return found


def zoneless(shape: Shape) -> list[str]:
    """The registration columns that do not say in which zone their times are, with their types."""
    types = {name: shape.columns[name] for name in shape.table.registered}
    return [f"{name} is {_shown(column)}" for name, column in types.items() if column.type != "timestamptz"]


def _takes(column: Column, value: str) -> bool:
    return value == "null" or column.type in _MARKED[value]


def _shown(column: Column) -> str:
    return "an array" if column.type.startswith("_") else _SQL_NAMES.get(column.type, column.type)


def registration_time(shape: Shape) -> sql.Composable | None:
    """When a row of `device` was registered at the latest, as SQL; null where nobody knows, None: nowhere."""
    table = shape.table
    if not table.registered:
        return None
    times = [_latest(table, name, shape.columns[name].type) for name in table.registered]
    return sql.SQL("greatest({})").format(sql.SQL(", ").join(times))


def _latest(table: TokenTable, name: str, kind: str) -> sql.Composable:
    """The latest moment that a registration time can mean: a date its end, a time of unknown zone any."""
    time: sql.Composable = sql.SQL("device.{}").format(identifier(name))
    if kind == "timestamptz":
        return time
    if kind == "date":
        time = sql.SQL("({} + interval '1 day')").format(time)
    zoned = sql.SQL("({} at time zone {})").format(time, sql.Literal(table.zone or "UTC"))
    return zoned if table.zone else sql.SQL(f"({{}} + {_ANY_ZONE})").format(zoned)


def identifier(*parts: str) -> sql.Identifier:
    """A quoted name, for a statement with parameters."""
    return sql.Identifier(*(part.replace("%", "%%") for part in parts))  # psycopg reads % as a parameter
