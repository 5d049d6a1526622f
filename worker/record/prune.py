"""The statements that prune dead device tokens and page through them, made to fit the app's table.

A token is deleted, or its row marked, if a device last registered it before its death notice. Two statements
of one kind lock rows in the same order, since the notices are sorted.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg import sql

from ..judge.classify import StaleToken, identity
from ..servers.postgres import Statement
from ..servers.token_shape import Column, Shape, identifier, registration_time
from ..servers.tokens import TokenTable

#: Delete, or mark, tokens registered before their death notice; returns (token, what became of it) of those
#: found. A notice from PostgreSQL's future prunes nothing: the sender's clock is ahead, so whatever
#: registered since the send would look older than it. One token may stand there in several spellings, each
#: an index look-up of the column's own type.
PRUNE = """
with notice as materialized (
  select spelling::{type} as spelling, token, before
    from unnest(%b::text[], %b::text[], %b::timestamptz[]) as notice (spelling, token, before)
),
pruned as (
  {act}
   where {same} and {unmarked}
     and {registered} < least(notice.before, now()) and notice.before < now() + interval '2 seconds'
  returning notice.token
)
select token, 'pruned' from pruned
union
select notice.token,
       case when not {unmarked} then 'marked'
            when notice.before < now() + interval '2 seconds' then 'kept' else 'early' end
  from {table} as device join notice on {same}
"""

_DELETE = "delete from {table} as device using notice"
_UPDATE = "update {table} as device set {mark} = {value} from notice"

#: A page of the token table in the order of the tokens, with how long ago each was registered (seconds).
#: What is marked already is passed over.
PAGE = """
select {token}::text, extract(epoch from now() - max({time}))::float8, now()
  from {table} as device where {token} {after} %b::{type} and {unmarked}
 group by {token} order by {token} limit %b
"""

#: How many tokens there are to page through.
COUNT = "select count({token}) from {table} as device where {unmarked}"

#: Whether row level security may hide rows of the token table from the connection's role.
ROW_SECURITY = "select pg_catalog.row_security_active(%b::text::regclass)"


#: What becomes of a token with a death notice, as in the summary of a job.
FATES = ("pruned", "kept", "withheld", "refused", "absent")


class Pruned(NamedTuple):
    """What became of the tokens with a death notice; each stands in one set at most."""

    #: Deleted or marked now.
    pruned: frozenset[str] = frozenset()
    #: Their device registered again after they were reported dead: it is alive.
    kept: frozenset[str] = frozenset()
    #: Their notice is dated ahead of PostgreSQL's clock.
    early: frozenset[str] = frozenset()
    #: Marked already.
    marked: frozenset[str] = frozenset()
    #: The table does not hold them.
    absent: frozenset[str] = frozenset()
    #: PostgreSQL would not have them pruned.
    refused: frozenset[str] = frozenset()

    def __or__(self, other: "Pruned") -> "Pruned":
        return Pruned(*(mine | others for mine, others in zip(self, other, strict=True)))

    def fates(self, withheld: frozenset[str]) -> dict[str, frozenset[str]]:
        """The tokens by FATES. `withheld`: those that the brake holds."""
        tokens = (self.pruned, self.kept | self.early, withheld, self.refused, self.absent)
        return dict(zip(FATES, tokens, strict=True))


class Token(NamedTuple):
    """One token of the app's table."""

    token: str
    #: Seconds since a device last registered it; None: unknown.
    age: float | None
    #: When the table was read, by PostgreSQL's clock.
    read_at: datetime


class Pruning(NamedTuple):
    """A statement that prunes what some notices prove dead, in whatever transaction."""

    statement: Statement
    #: Tokens as they are spelled in the notices, by what those of one device share.
    spelled: Mapping[str, set[str]]

    def became(self, rows: Iterable[tuple[str, str]]) -> Pruned:
        """What the statement's answer says became of the tokens."""
        found: dict[str, set[str]] = {"pruned": set(), "kept": set(), "early": set(), "marked": set()}
        for same, became in rows:
            found[became] |= self.spelled[same]
        # The table is read as it was before: what is pruned now stands there, too.
        kept = found["kept"] - found["pruned"]
        early = found["early"] - found["pruned"] - kept
        marked = found["marked"] - found["pruned"] - kept - early
        absent = set().union(*self.spelled.values()) - found["pruned"] - kept - early - marked
        return Pruned(*map(frozenset, (found["pruned"], kept, early, marked, absent)))


def pruning(shape: Shape, notices: Sequence[StaleToken]) -> Pruning:
    """Prune what the notices prove dead."""
    latest: dict[str, datetime] = {}
    spelled: dict[str, set[str]] = {}
    for notice in notices:
        same = identity(notice.token, notice.channel)
        latest[same] = max(notice.before, latest.get(same, notice.before))
        spelled.setdefault(same, set()).add(notice.token)
    lines = sorted(
        (spelling, same, latest[same])
        for same, tokens in spelled.items()
        for spelling in tokens | _spellings(same)
    )
    arrays = [list(column) for column in zip(*lines, strict=True)] or [[], [], []]
    return Pruning(Statement(_compose(PRUNE, shape).as_string(None), arrays), spelled)


def tokens_after(connection: psycopg.Connection, shape: Shape, token: str, limit: int) -> list[Token]:
    """The next tokens of a table, each once, in PostgreSQL's order; `token`: the last one before."""
    rows = connection.execute(_compose(PAGE, shape), [token, limit])
    return [Token(*row) for row in rows]


def count_tokens(connection: psycopg.Connection, shape: Shape) -> int:
    """How many rows of a table hold a token that can be pruned."""
    (n,) = connection.execute(_compose(COUNT, shape), []).fetchone() or (0,)
    return int(n)


def hides_rows(connection: psycopg.Connection, shape: Shape) -> bool:
    """Whether row level security applies: without a policy it removes nothing and says nothing."""
    name = ".".join(map(_quoted, shape.table.table))
    return connection.execute(ROW_SECURITY, [name]).fetchone() == (True,)


def _spellings(same: str) -> set[str]:
    """How a hexadecimal token may be stored; mixed case only as it was reported."""
    kind, _, token = same.partition(" ")
    return {token, token.upper()} if kind == "hex" else set()


# --- SQL that fits ---------------------------------------------------------------------------------------


def _compose(statement: str, shape: Shape) -> sql.Composed:
    table = shape.table
    column = shape.columns[table.column]
    own = column.type in ("bpchar", "citext")
    device = sql.SQL("device.{}").format(identifier(table.column))
    of = identifier(column.schema)
    parts: dict[str, sql.Composable] = {
        "table": identifier(*table.table),
        "type": identifier(column.schema, column.type) if own else sql.SQL("text"),
        "token": sql.SQL('({} collate "C")').format(device) if column.loose else device,
        "after": sql.SQL("operator({}.>)").format(of),
        "same": _same(device, column),
        "registered": _registered(shape),
        "time": registration_time(shape) or sql.SQL("null::timestamptz"),
        "unmarked": _unmarked(table),
        "act": sql.SQL(""),
    }
    if table.mark:
        values = {"now": "now()"}
        parts["mark"] = identifier(table.mark.column)
        parts["value"] = sql.SQL(values.get(table.mark.value, table.mark.value))
    parts["act"] = sql.SQL(_UPDATE if table.mark else _DELETE).format(**parts)
    return sql.SQL(statement).format(**parts)


def _same(device: sql.Composable, column: Column) -> sql.Composable:
    """A comparison that an index of the column serves, and that no collation makes looser than bytes."""
    same = sql.SQL("{} operator({}.=) notice.spelling").format(device, identifier(column.schema))
    return (
        same + sql.SQL(' and {} collate "C" = notice.spelling collate "C"').format(device)
        if column.loose
        else same
    )


def _registered(shape: Shape) -> sql.Composable:
    """When a device may last have registered the token; where nobody knows, the notice alone counts."""
    newest = registration_time(shape)
    return (
        sql.SQL("coalesce({}, '-infinity')").format(newest) if newest else sql.SQL("timestamptz '-infinity'")
    )


def _unmarked(table: TokenTable) -> sql.Composable:
    if table.mark is None:
        return sql.SQL("true")
    column = sql.SQL("device.{}").format(identifier(table.mark.column))
    unmarked = {
        "now": "{} is null",
        "null": "{} is not null",
        "true": "{} is distinct from true",
        "false": "{} is distinct from false",
    }
    return sql.SQL(unmarked[table.mark.value]).format(column)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
