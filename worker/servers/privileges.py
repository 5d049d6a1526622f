"""What the role of DATABASE_URL may not do, though the worker must: each thing with the statement that helps.

Looked up in the catalogs, because trying does not tell: under row level security a delete without a policy
removes no row and says nothing.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import psycopg

from .. import NAME
from .faults import LOG_COLUMNS
from .token_shape import columns
from .tokens import TokenTable

_LOG = ("public", "follow_up_notification_log")
_RESERVATIONS = ("notiflog", "reservations")

# One row for each thing wanted: whether it is there, and whether it is allowed now, or would be to a member
# of another role (asked too, so that nobody is told to grant again what only the membership lacks).
# Of policies only the expression `true` counts: "owners see their own rows" applies to everybody as well,
# and lets the worker see none.
_QUERY = """
with wanted as (
  select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[])
           with ordinality as wanted (schema, relation, command, attribute, position)
)
select coalesce(quote_ident(wanted.schema) || '.', '') || quote_ident(wanted.relation) as table_name, command,
       quote_ident(attribute) as attribute,
       class.oid is not null as table_there,
       wanted.attribute is null or attnum is not null as column_there,
       bool_or(reachable) as reachable,
       bool_or(reachable and allowed and unhindered) filter (where role.self) as able,
       bool_or(allowed) as granted,
       bool_or(unhindered) as unhindered
  from wanted
 cross join (
   select oid, rolname = current_user as self from pg_roles where rolname in (current_user, %s)
 ) as role
  left join pg_class as class
    on relname = wanted.relation and relkind in ('r', 'p', 'v', 'f')
   and relnamespace = (select oid from pg_namespace where nspname = wanted.schema)
  left join pg_attribute
    on attrelid = class.oid and attname = wanted.attribute and attnum > 0 and not attisdropped
 cross join lateral (
   select has_schema_privilege(role.oid, relnamespace, 'usage') as reachable,
          case when attribute is null then has_table_privilege(role.oid, class.oid, command)
               else has_column_privilege(role.oid, class.oid, attnum, command) end as allowed
 ) as privilege
 cross join lateral (
   select not row_security_active(class.oid)
          or coalesce(bool_or(condition = 'true') filter (where polpermissive), false)
             and coalesce(bool_and(condition = 'true') filter (where not polpermissive), true) as unhindered
     from pg_policy
    cross join lateral (
      select coalesce(case command when 'insert' then pg_get_expr(polwithcheck, polrelid) end,
                      pg_get_expr(polqual, polrelid)) as condition
    ) as expression
    where polrelid = class.oid
      and polcmd::text in ('*', case command when 'insert' then 'a' when 'select' then 'r'
                                       when 'update' then 'w' else 'd' end)
      and exists (select from pg_catalog.unnest(polroles) as target
                   where target = '0' or pg_has_role(role.oid, target, 'usage'))
 ) as policy
 group by position, wanted.schema, wanted.relation, command, attribute, class.oid, attnum
 order by position
"""

_ROLES = """
select pg_catalog.quote_ident(current_user),
       worker.oid is not null,
       coalesce(pg_has_role(current_user, worker.oid, 'member'), false),
       coalesce(pg_has_role(current_user, worker.oid, 'usage'), false)
  from (values ('notiflog_worker')) as name
  left join pg_roles as worker on rolname = column1
"""


#: Schema, table, command, column.
_Wanted = tuple[str | None, str, str, str | None]


class _Need(NamedTuple):
    table: str
    command: str
    column: str | None
    table_there: bool
    column_there: bool
    reachable: bool
    #: Allowed as things are; the last two also count what a member of the other role may.
    able: bool
    granted: bool
    unhindered: bool


def missing_privileges(connection: psycopg.Connection, tables: Iterable[TokenTable]) -> list[str]:
    """Say what keeps the connection's role from recording outcomes and pruning tokens; empty: nothing.

    `tables`: the token tables, each with the schema in which it was found.
    """
    wanted = [
        *((*_LOG, "insert", column) for column in LOG_COLUMNS),
        *((*_LOG, "select", column) for column in ("idempotency_key", "status")),
        *dict.fromkeys(need for table in tables for need in _of_tokens(table)),
    ]
    needs = _look_up(connection, wanted, "notiflog_worker")
    if all(need.able for need in needs):
        return []
    problems = [problem for group in _by_table(needs) for problem in _structure(group)]
    # What is not there cannot be allowed either: that says nothing of the role.
    there = [need for need in needs if need.table_there and need.column_there]
    if not all(need.able for need in there):
        role, worker_there, member, inherits = connection.execute(_ROLES).fetchone() or ("", *[False] * 3)
        if worker_there and not inherits:
            problems.append(_membership(role, member))
        role = "notiflog_worker" if worker_there else role
        problems += [problem for group in _by_table(there) for problem in _privileges(group, role)]
    return list(dict.fromkeys(problems))


def missing_to_expire(connection: psycopg.Connection) -> list[str]:
    """Say what keeps the connection's role from deleting old rows of the log; empty: nothing.

    Membership in notiflog_worker does not help: whoever records need not be able to take away.
    """
    read = ("log_id", "chapter_id", "delivered_at", "created_at")
    return _missing_to_role(
        connection, [*((*_LOG, "select", column) for column in read), (*_LOG, "delete", None)]
    )


def missing_to_erase(connection: psycopg.Connection, rules: tuple[str, str, str]) -> list[str]:
    """Say what keeps the connection's role from deleting what there is of a mentor; empty: nothing.

    `rules`: schema, table and column of the rules' ids.
    """
    wanted: list[_Wanted] = [
        *((*_LOG, "select", column) for column in ("log_id", "peer_mentor_id", "idempotency_key")),
        (*_LOG, "delete", None),
        *((*_RESERVATIONS, "select", column) for column in ("idempotency_key", "reserved_at")),
        (*_RESERVATIONS, "update", "held_until"),  # of any column, to lock rows
        (*_RESERVATIONS, "delete", None),
        (*rules[:2], "select", rules[2]),
    ]
    return _missing_to_role(connection, wanted)


def _missing_to_role(connection: psycopg.Connection, wanted: list[_Wanted]) -> list[str]:
    """The same for the connection's own role, whatever it is a member of."""
    needs = _look_up(connection, wanted, "")
    ((role, *_),) = connection.execute(_ROLES).fetchall()
    problems = [problem for group in _by_table(needs) for problem in _structure(group)]
    there = [need for need in needs if need.table_there and need.column_there]
    return problems + [problem for group in _by_table(there) for problem in _privileges(group, role)]


def _look_up(connection: psycopg.Connection, wanted: Iterable[_Wanted], other: str) -> list[_Need]:
    arrays = [list(values) for values in zip(*wanted, strict=True)]
    return [_Need(*row) for row in connection.execute(_QUERY, [*arrays, other])]


def _by_table(needs: Iterable[_Need]) -> Iterator[list[_Need]]:
    for _, group in groupby(needs, key=lambda need: need.table):
        yield list(group)


def _of_tokens(table: TokenTable) -> Iterator[_Wanted]:
    """What pruning a token table takes."""
    schema = table.table[0] if len(table.table) == 2 else None  # None: it was not found anywhere
    for column in columns(table):
        yield schema, table.table[-1], "select", column
    act = ("update", table.mark.column) if table.mark else ("delete", None)
    yield schema, table.table[-1], *act


def _membership(role: str, member: bool) -> str:
    if member:
        return (
            f"role {role} does not inherit from notiflog_worker: run `revoke notiflog_worker from {role}; "
            f"alter role {role} inherit; grant notiflog_worker to {role}`"
        )
    return f"role {role} is not a member of notiflog_worker: run `grant notiflog_worker to {role}`"


def _structure(needs: list[_Need]) -> Iterator[str]:
    """What is not there of one table, the needs of which these are."""
    table = needs[0].table
    ours = table in (".".join(_LOG), ".".join(_RESERVATIONS))
    if not needs[0].table_there:
        remedy = (
            f"run `python -m {NAME}.migrate`; if that finds nothing to do, somebody dropped the table: "
            "run it with --rollback --yes until nothing is left, then once more"
            if ours
            else "create it, or name yours in NOTIFLOG_TOKEN_TABLE"
        )
        yield f"table {table} does not exist: {remedy}"
    elif absent := dict.fromkeys(need.column for need in needs if not need.column_there):
        settings = "NOTIFLOG_TOKEN_COLUMN, NOTIFLOG_TOKEN_REGISTERED_COLUMN and NOTIFLOG_TOKEN_PRUNE"
        remedy = "compare it with migrations/" if ours else f"check {settings}"
        yield f"table {table} has no column {', '.join(map(str, absent))}: {remedy}"


def _privileges(needs: list[_Need], role: str) -> Iterator[str]:
    """What a role may not do with one table, the needs of which these are."""
    table = needs[0].table
    if not needs[0].reachable:
        schema = table.rpartition(".")[0]
        yield f"schema {schema} is closed to {role}: run `grant usage on schema {schema} to {role}`"
    for command, group in groupby(needs, key=lambda need: need.command):
        mine = list(group)
        denied = [need.column for need in mine if not need.granted]
        if denied:
            columns = f" ({', '.join(map(str, denied))})" if denied[0] else ""
            statement = f"grant {command}{columns} on {table} to {role}"
            yield f"{role} may not {command} on {table}: run `{statement}`"
        if not mine[0].unhindered:
            condition = "with check (true)" if command == "insert" else "using (true)"
            statement = (
                f"create policy notiflog_worker_{command} on {table} for {command} to {role} {condition}"
            )
            yield (
                f"row level security hides rows of {table} from {role} on {command}: run `{statement}`, "
                "and exempt it from restrictive policies"
            )
