"""Every statement that records outcomes and prunes tokens. Takes a connection, opens none.

Two writers never deadlock here: keys are inserted in sorted order, and all keys before any token.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import sql

from ..judge.classify import Outcome, StaleToken, Status
from ..servers import postgres
from ..servers.privileges import missing_privileges
from ..servers.settings import Settings

#: Insert outcomes, skipping keys that exist; returns the keys that are new.
INSERT_OUTCOMES = """
insert into public.follow_up_notification_log
       (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status)
select * from unnest(
  %b::uuid[], %b::uuid[], %b::uuid[], %b::timestamptz[], %b::text[], %b::text[], %b::text[])
on conflict (idempotency_key) do nothing
returning idempotency_key
"""

#: The statuses recorded for some keys.
SELECT_STATUSES = """
select idempotency_key, status from public.follow_up_notification_log where idempotency_key = any(%b)
"""

#: Delete stale tokens registered before their death notice; returns (token, deleted) of those found. A notice
#: dated well into the future proves nothing about now (a clock is wrong) and deletes nothing.
PRUNE_TOKENS = """
with stale as materialized (
  select token, before from unnest(%b::text[], %b::timestamptz[]) as notice (token, before)
),
pruned as (
  delete from {table} as device using stale
  where device.{token} = stale.token
    and device.{registered} < stale.before and stale.before < now() + interval '5 minutes'
  returning device.{token} as token
)
select token, true from pruned
union
select device.{token}, false from {table} as device join stale on device.{token} = stale.token
"""

#: The same for a table that does not know when a token was registered.
PRUNE_TOKENS_UNGUARDED = """
delete from {table} as device where device.{token} = any(%b) returning device.{token}, true
"""

#: A page of the token table in the order of the tokens, with how long ago each was registered (seconds).
PAGE_OF_TOKENS = """
select {token}, extract(epoch from now() - max({registered}))::float8, now()
  from {table} where {token} > %b group by {token} order by {token} limit %b
"""

#: The same for a table that does not know when a token was registered.
PAGE_OF_TOKENS_UNDATED = """
select distinct {token}, null::float8, now() from {table} where {token} > %b order by {token} limit %b
"""

#: Whether row level security may hide rows of a table from the connection's role.
ROW_SECURITY = "select row_security_active(%b::text::regclass)"

# How many parts a batch is split into to find the rows PostgreSQL refuses: enough to get there in few
# rounds, few enough that one bad row costs little.
_SPLIT = 8

_PARENTS = ("peer_mentor_id", "chapter_id", "scenario_rule_id")

# A constraint, a value or a trigger of the app refuses some row.
_BAD_ROW = (psycopg.IntegrityError, psycopg.DataError, psycopg.errors.RaiseException)


class Recorded(NamedTuple):
    """What became of the outcomes, by idempotency key."""

    inserted: frozenset[str]
    #: Statuses already on record for keys that were not inserted.
    known: dict[str, Status]
    #: Refused by a constraint: its column or name. By outcome: another of the same key may be in.
    refused: dict[Outcome, str]
    #: Stale tokens that were deleted.
    pruned: frozenset[str]
    #: Stale tokens whose device registered again after they were reported dead: it is alive.
    kept: frozenset[str]


def write(
    connection: psycopg.Connection,
    settings: Settings,
    outcomes: Iterable[Outcome],
    stale: Iterable[StaleToken],
) -> Recorded:
    """Record outcomes and prune stale tokens in one transaction.

    Of outcomes with one key the first counts that PostgreSQL takes. Those it refuses (their user, chapter or
    rule does not exist) are singled out; all others are recorded. Tokens are pruned whether or not a row was
    new. Raises psycopg.Error with nothing written.
    """
    first: dict[str, Outcome] = {}
    again: list[Outcome] = []
    for outcome in outcomes:
        if outcome.idempotency_key in first:
            again.append(outcome)
        else:
            first[outcome.idempotency_key] = outcome
    rows = [first[key] for key in sorted(first)]
    stale = list(stale)
    try:
        with postgres.transaction(connection):
            inserted = _insert(connection, rows)
            return _finish(connection, settings, rows, inserted, {}, stale)
    except _BAD_ROW:
        # Some row is bad. The foreign keys themselves tell which: reading the parent tables instead would
        # need privileges on them, and row level security there would make every parent look missing.
        with postgres.transaction(connection):
            refused: dict[Outcome, str] = {}
            inserted = _insert_isolating(connection, rows, refused)
            while heirs := _heirs(again, refused, inserted):
                again = [outcome for outcome in again if outcome not in heirs]
                inserted |= _insert_isolating(connection, list(heirs), refused)
            return _finish(connection, settings, rows, inserted, refused, stale)


class Token(NamedTuple):
    """One token of the app's table."""

    token: str
    #: Seconds since a device last registered it; None: unknown.
    age: float | None
    #: When the table was read, by PostgreSQL's clock.
    read_at: datetime


def tokens_after(connection: psycopg.Connection, settings: Settings, token: str, limit: int) -> list[Token]:
    """The next tokens of the app's table, each once, in PostgreSQL's order; `token`: the last one before."""
    names = _names(settings)
    page = PAGE_OF_TOKENS if "registered" in names else PAGE_OF_TOKENS_UNDATED
    with postgres.transaction(connection):
        return [Token(*row) for row in connection.execute(sql.SQL(page).format(**names), [token, limit])]


def count_tokens(connection: psycopg.Connection, settings: Settings) -> int:
    """How many rows the app's token table has."""
    count = sql.SQL("select count({token}) from {table}").format(**_names(settings))
    with postgres.transaction(connection):
        (n,) = connection.execute(count).fetchone() or (0,)
    return int(n)


def prune(
    connection: psycopg.Connection, settings: Settings, stale: Sequence[StaleToken]
) -> tuple[frozenset[str], frozenset[str]]:
    """Delete stale tokens in a transaction of their own; returns the (deleted, kept) of those found."""
    with postgres.transaction(connection):
        return _prune(connection, settings, stale)


def _finish(
    connection: psycopg.Connection,
    settings: Settings,
    rows: Sequence[Outcome],
    inserted: frozenset[str],
    refused: dict[Outcome, str],
    stale: list[StaleToken],
) -> Recorded:
    known: dict[str, Status] = {}
    if len(inserted) < len(rows):
        others = [row.idempotency_key for row in rows if row.idempotency_key not in inserted]
        known = dict(connection.execute(SELECT_STATUSES, [others]).fetchall())
    return Recorded(inserted, known, refused, *_prune(connection, settings, stale))


def columns(rows: Sequence[Outcome]) -> list[list[Any]]:
    """The parameters of INSERT_OUTCOMES."""
    return [
        [row.peer_mentor_id for row in rows],
        [row.chapter_id for row in rows],
        [row.scenario_rule_id for row in rows],
        [row.delivered_at for row in rows],
        [row.delivery_channel for row in rows],
        [row.idempotency_key for row in rows],
        [row.status for row in rows],
    ]


def _insert(connection: psycopg.Connection, rows: Sequence[Outcome]) -> frozenset[str]:
    if not rows:
        return frozenset()
    return frozenset([key for (key,) in connection.execute(INSERT_OUTCOMES, columns(rows)).fetchall()])


def _heirs(
    again: Sequence[Outcome], refused: dict[Outcome, str], inserted: frozenset[str]
) -> dict[Outcome, None]:
    """The next outcome of each key that those before it left free because they were refused; by key."""
    free = {outcome.idempotency_key for outcome in refused} - inserted
    heirs: dict[str, Outcome] = {}
    for outcome in again:
        if outcome.idempotency_key in free and outcome not in refused:
            heirs.setdefault(outcome.idempotency_key, outcome)
    return {heirs[key]: None for key in sorted(heirs)}


def _insert_isolating(
    connection: psycopg.Connection, rows: Sequence[Outcome], refused: dict[Outcome, str]
) -> frozenset[str]:
    """Insert the rows that PostgreSQL takes; puts the others into `refused`, with the column to blame."""
    orphans: set[tuple[str, UUID]] = set()  # parents that turned out to be missing

    def insert(rows: Sequence[Outcome]) -> frozenset[str]:
        rows = [row for row in rows if not is_orphan(row)]
        try:
            with connection.transaction():  # a savepoint
                return _insert(connection, rows)
        except _BAD_ROW as error:
            if len(rows) == 1:
                blamed = refused[rows[0]] = _blame(error)
                if blamed in _PARENTS:
                    orphans.add((blamed, getattr(rows[0], blamed)))
                return frozenset()
        step = -(-len(rows) // _SPLIT)
        parts = [rows[start : start + step] for start in range(0, len(rows), step)]
        return frozenset().union(*map(insert, parts))

    def is_orphan(row: Outcome) -> bool:
        for parent in _PARENTS:
            if (parent, getattr(row, parent)) in orphans:
                refused[row] = parent
                return True
        return False

    return insert(rows)


def _blame(error: psycopg.Error) -> str:
    constraint = error.diag.constraint_name or error.sqlstate or "constraint"
    return next((column for column in _PARENTS if column in constraint), constraint)


def _prune(
    connection: psycopg.Connection, settings: Settings, stale: Sequence[StaleToken]
) -> tuple[frozenset[str], frozenset[str]]:
    if not stale:
        return frozenset(), frozenset()
    # Of several notices about one token the latest counts; sorted, so that two writers lock in one order.
    latest = {notice.token: notice.before for notice in sorted(stale, key=lambda notice: notice.before)}
    tokens = sorted(latest)
    names = _names(settings)
    if "registered" not in names:
        found = connection.execute(sql.SQL(PRUNE_TOKENS_UNGUARDED).format(**names), [tokens])
    else:
        before = [latest[token] for token in tokens]
        found = connection.execute(sql.SQL(PRUNE_TOKENS).format(**names), [tokens, before])
    rows = found.fetchall()
    deleted = frozenset(token for token, was_deleted in rows if was_deleted)
    if not deleted:
        _refuse_silence(connection, settings)
    return deleted, frozenset(token for token, _ in rows) - deleted


def _refuse_silence(connection: psycopg.Connection, settings: Settings) -> None:
    """Raise what PostgreSQL raises elsewhere: a delete without a policy removes nothing and says nothing."""
    (active,) = connection.execute(ROW_SECURITY, [".".join(settings.token_table)]).fetchone() or (False,)
    if active and missing_privileges(connection, settings):
        raise psycopg.errors.InsufficientPrivilege("row level security hides tokens")


def _names(settings: Settings) -> dict[str, sql.Identifier]:
    names = {"table": sql.Identifier(*settings.token_table), "token": sql.Identifier(settings.token_column)}
    if settings.token_registered_column:
        names["registered"] = sql.Identifier(settings.token_registered_column)
    return names
