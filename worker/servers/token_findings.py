"""Whether an app's token table can be pruned, and what pruning it does to the tables around it."""

from collections.abc import Iterator
from typing import NamedTuple

import psycopg
from psycopg import sql

from .finding import Finding
from .token_shape import Shape, identifier, registration_time, unfit_columns, zoneless

# What refers to the table, through cascades also to those that refer to it: (table, constraint, action,
# whether an index serves it). Triggers that set a guard column whenever a row is updated: (trigger, column).
_AROUND = """
with recursive class as (
  select class.oid, reltuples from pg_class as class
   where relname = %(table)s
     and relnamespace = (select oid from pg_namespace where nspname = %(schema)s)
),
reference (child, name, action, columns) as (
  select conrelid, conname, confdeltype, conkey from pg_constraint, class
   where contype = 'f' and confrelid = class.oid and conrelid <> class.oid
  union
  select conrelid, conname, confdeltype, conkey from pg_constraint, reference
   where contype = 'f' and confrelid = child and action = 'c' and confdeltype = 'c'
),
token as (
  select attrelid, attnum, attnotnull
    from pg_attribute, class where attrelid = class.oid and attname = %(token)s
),
index as (
  select indrelid, indkey[0] as first, indisunique and indnkeyatts = 1 as own
    from pg_index where indisvalid and indpred is null
)
select exists (select from index where indrelid = attrelid and first = attnum),
       attnotnull or exists (
         select from index where indrelid = attrelid and first = attnum and own),
       array(select array[child::regclass::text, name, action::text,
                          (exists (select from index where indrelid = child and first = columns[1]))::text]
               from reference order by child::regclass::text, name),
       array(select array[tgname, guard]
               from pg_trigger join pg_proc as function on function.oid = tgfoid,
                    unnest(%(guards)s::text[]) as guard
              where tgrelid = attrelid and not tgisinternal and tgtype & 19 = 19  -- each row, before update
                and (lower(prosrc) ~ ('new\\.\\"?' || lower(guard) || '\\"?\\s*:?=')
                     or proname = 'moddatetime' and encode(tgargs, 'escape') like guard || '%%')
              order by tgname),
       greatest(reltuples, 0)::bigint
  from token, class
"""

_FUTURE = """
select count(*)
  from (select from {table} as device where {time} > now() + %s::interval limit 10001) as late
"""
#: How far ahead of PostgreSQL's a clock may be.
TOLERANCE = "5 minutes"


class _Around(NamedTuple):
    indexed: bool
    #: The column is not null, or unique: a row is a token's and nothing else's.
    own_rows: bool
    references: list[list[str]]
    triggers: list[list[str]]
    rows: int


def token_findings(connection: psycopg.Connection, shape: Shape) -> Iterator[Finding]:
    """What the catalog tells of a token table, in a transaction of the caller's. Raises psycopg.Error."""
    table = shape.table
    unfit = unfit_columns(shape)
    for purpose, text, remedy in unfit:
        name = "guard" if purpose == "guard" else f"{purpose}_column"
        yield Finding(f"postgres.{name}", "problem", text, remedy)
    names = {"schema": table.table[0], "table": table.table[1]}
    row = connection.execute(
        _AROUND, {**names, "token": table.column, "guards": list(table.registered)}
    ).fetchone()
    if unfit or row is None or len(shape.columns) < len({table.column, *table.registered}):
        return
    around = _Around(*row)
    yield _guard(shape)
    for trigger, column in around.triggers:
        text = f"trigger {trigger} of {table} sets {column} on every update of its {around.rows:,} rows or so"
        remedy = f"have registrations alone set {column}: any other update makes a dead token look alive"
        yield Finding("postgres.guard_moves", "warning", text, remedy)
    yield _index(shape, around.indexed)
    if table.mark is None:
        yield from _deletes(shape, around)


def future_registrations(connection: psycopg.Connection, shape: Shape) -> Finding | None:
    """Tokens that claim to be registered later than now, which nothing prunes until then. Reads the table."""
    time = registration_time(shape)
    if time is None:
        return None
    count = sql.SQL(_FUTURE).format(table=identifier(*shape.table.table), time=time)
    (rows,) = connection.execute(count, [TOLERANCE]).fetchone() or (0,)
    if not rows:
        return None
    many = "more than 10,000" if rows > 10_000 else f"{rows:,}"
    text = f"{many} rows of {shape.table} were registered in the future: until then nothing prunes them"
    remedy = f"correct {', '.join(shape.table.registered)} there"
    return Finding("postgres.guard_future", "warning", text, remedy)


def _guard(shape: Shape) -> Finding:
    table = shape.table
    if not table.registered:
        text = f"off for {table}: nothing protects the token of a device that registered again"
        remedy = "name a timestamptz column that every registration sets in NOTIFLOG_TOKEN_REGISTERED_COLUMN"
        return Finding("postgres.guard", "warning", text, remedy)
    if (columns := zoneless(shape)) and table.zone is None:
        text = f"{table}.{', '.join(columns)}, and nobody says which zone's: tokens are pruned hours later"
        remedy = (
            "name the zone in NOTIFLOG_TOKEN_REGISTERED_ZONE (UTC, America/New_York), or make it timestamptz"
        )
        return Finding("postgres.guard", "warning", text, remedy)
    types = ", ".join(f"{name} ({shape.columns[name].type})" for name in table.registered)
    return Finding("postgres.guard", "ok", f"{table}: {types}")


def _index(shape: Shape, indexed: bool) -> Finding:
    table, column = shape.table, shape.table.column
    if indexed or shape.kind in ("v", "f"):  # of a view nothing can be said
        return Finding("postgres.token_index", "ok", f"{table}.{column}")
    statement = f"create index on {table} ({column})"
    text = f"{table}.{column} has no index: every prune reads the whole table"
    return Finding("postgres.token_index", "warning", text, f"run `{statement}`")


def _deletes(shape: Shape, around: _Around) -> Iterator[Finding]:
    table, column = shape.table, shape.table.column
    if not around.own_rows and shape.kind not in ("v", "f"):
        text = (
            f"{table}.{column} may be null and is not unique: deleting the row may delete more than a token"
        )
        yield Finding("postgres.token_row", "warning", text, f"set NOTIFLOG_TOKEN_PRUNE={column}=null")
    cascades = [child for child, _, action, _ in around.references if action == "c"]
    if cascades:
        text = f"deleting a token deletes rows of {', '.join(dict.fromkeys(cascades))}, too"
        remedy = "if that is not wanted, mark tokens instead: NOTIFLOG_TOKEN_PRUNE=is_active=false"
        yield Finding("postgres.token_cascade", "warning", text, remedy)
    for child, name, action, indexed in around.references:
        if action in ("a", "r"):
            text = (
                f"{child} refers to {table} ({name}) without cascade: a token it refers to cannot be deleted"
            )
            remedy = "add `on delete cascade` or `set null`, or mark: NOTIFLOG_TOKEN_PRUNE=is_active=false"
            yield Finding("postgres.token_reference", "warning", text, remedy)
        if indexed != "true":
            text = f"no index serves {name} of {child}: each deleted token reads the whole of {child}"
            yield Finding("postgres.token_reference_index", "warning", text, f"index the columns of {name}")
