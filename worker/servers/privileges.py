"""What the role of DATABASE_URL may not do, though the worker must: each thing with the statement that helps.

Looked up in the catalogs, because trying does not tell: under row level security a delete without a policy
removes no row and says nothing.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

import psycopg

from .. import NAME
from .settings import Settings

_LOG = ("public", "follow_up_notification_log")
_LOG_COLUMNS = (
    "peer_mentor_id",
    "chapter_id",
    "scenario_rule_id",
    "delivered_at",
    "delivery_channel",
    "idempotency_key",
    "status",
)

# One row for each thing wanted: whether it is there, and whether it is allowed now, or would be to a member
# of notiflog_worker (asked too, so that nobody is told to grant again what only the membership lacks).
# Of policies only the expression `true` counts: "owners see their own rows" applies to everybody as well,
# and lets the worker see none.
_QUERY = """
with wanted as (
  select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[])
           with ordinality as wanted (schema, relation, command, attribute, position)
)
select coalesce(wanted.schema || '.', '') || wanted.relation as table_name, command, attribute,
       class.oid is not null as table_there,
       attribute is null or attnum is not null as column_there,
       bool_or(reachable) as reachable,
       bool_or(reachable and allowed and unhindered) filter (where role.self) as able,
       bool_or(allowed) as granted,
       bool_or(unhindered) as unhindered
  from wanted
 cross join (
   select oid, rolname = current_user as self from pg_roles where rolname in (current_user, 'notiflog_worker')
 ) as role
  left join pg_class as class
    on relname = wanted.relation and relkind in ('r', 'p', 'v', 'f')
   and case when wanted.schema is null then pg_table_is_visible(class.oid)
            else relnamespace = (select oid from pg_namespace where nspname = wanted.schema) end
  left join pg_attribute
    on attrelid = class.oid and attname = attribute and attnum > 0 and not attisdropped
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
      and polcmd in ('*', case command when 'insert' then 'a' when 'select' then 'r' else 'd' end)
      and exists (select from unnest(polroles) as target
                   where target = 0 or pg_has_role(role.oid, target, 'usage'))
 ) as policy
 group by position, wanted.schema, wanted.relation, command, attribute, class.oid, attnum
 order by position
"""

_ROLES = """
select quote_ident(current_user),
       worker.oid is not null,
       coalesce(pg_has_role(current_user, worker.oid, 'member'), false),
       coalesce(pg_has_role(current_user, worker.oid, 'usage'), false)
  from (values ('notiflog_worker')) as name
  left join pg_roles as worker on rolname = column1
"""


class _Need(NamedTuple):
    table: str
    command: str
    column: str | None
    table_there: bool
    column_there: bool
    reachable: bool
    #: Allowed as things are; the last two also count what a member of notiflog_worker may.
    able: bool
    granted: bool
    unhindered: bool


def missing_privileges(connection: psycopg.Connection, settings: Settings) -> list[str]:
    """Say what keeps the connection's role from recording outcomes and pruning tokens; empty: nothing."""
    columns = [settings.token_column, settings.token_registered_column]
    tokens = (None, *settings.token_table)[-2:]
    wanted = [
        *((*_LOG, "insert", column) for column in _LOG_COLUMNS),
        *((*_LOG, "select", column) for column in ("idempotency_key", "status")),
        *((*tokens, "select", column) for column in columns if column),
        (*tokens, "delete", None),
    ]
    arrays = [list(values) for values in zip(*wanted, strict=True)]
    needs = [_Need(*row) for row in connection.execute(_QUERY, arrays)]
    if all(need.able for need in needs):
        return []
    role, worker_there, member, inherits = connection.execute(_ROLES).fetchone() or ("", False, False, False)
    problems = []
    if worker_there and not inherits:
        problems.append(_membership(role, member))
    for _, group in groupby(needs, key=lambda need: need.table):
        problems += _problems(list(group), "notiflog_worker" if worker_there else role)
    return problems


def _membership(role: str, member: bool) -> str:
    if member:
        return (
            f"role {role} does not inherit from notiflog_worker: run `revoke notiflog_worker from {role}; "
            f"alter role {role} inherit; grant notiflog_worker to {role}`"
        )
    return f"role {role} is not a member of notiflog_worker: run `grant notiflog_worker to {role}`"


def _problems(needs: list[_Need], role: str) -> Iterator[str]:
    """What is wrong with one table, the needs of which these are."""
    table = needs[0].table
    log = table == ".".join(_LOG)
    if not needs[0].table_there:
        remedy = (
            f"run `python -m {NAME}.migrate`; if that finds nothing to do, somebody dropped the table: "
            "run it with --rollback --yes until nothing is left, then once more"
            if log
            else "create it, or name yours in NOTIFLOG_TOKEN_TABLE"
        )
        yield f"table {table} does not exist: {remedy}"
        return
    absent = [need.column for need in needs if need.column and not need.column_there]
    if absent:
        remedy = (
            "compare it with migrations/"
            if log
            else ("check NOTIFLOG_TOKEN_COLUMN and NOTIFLOG_TOKEN_REGISTERED_COLUMN")
        )
        yield f"table {table} has no column {', '.join(map(str, dict.fromkeys(absent)))}: {remedy}"
    if not needs[0].reachable:
        schema = table.rpartition(".")[0]
        yield f"schema {schema} is closed to {role}: run `grant usage on schema {schema} to {role}`"
    for command, group in groupby(needs, key=lambda need: need.command):
        mine = [need for need in group if need.column_there]
        denied = [need.column for need in mine if not need.granted]
        if denied:
            columns = f" ({', '.join(map(str, denied))})" if denied[0] else ""
            statement = f"grant {command}{columns} on {table} to {role}"
            yield f"{role} may not {command} on {table}: run `{statement}`"
        if mine and not mine[0].unhindered:
            condition = "with check (true)" if command == "insert" else "using (true)"
            statement = (
                f"create policy notiflog_worker_{command} on {table} for {command} to {role} {condition}"
            )
            yield (
                f"row level security hides rows of {table} from {role} on {command}: run `{statement}`, "
                "and exempt it from restrictive policies"
            )
