"""Prune dead device tokens without ever standing in the way of a row.

Usually tokens are pruned in the transaction that records the rows. Where PostgreSQL refuses that, whatever
its reason, the rows are recorded first and the tokens pruned apart: those that are refused are singled out
and stay, all others go. What is really dead is reported again by the next send.
"""

import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

import psycopg
from psycopg import errors

from .. import NAME, logs
from ..events import Channel
from ..judge.classify import StaleToken
from ..servers import postgres
from ..servers.privileges import missing_privileges
from ..servers.settings import Settings
from ..servers.token_shape import Shape, usable_shape
from ..servers.tokens import TokenTable
from .brake import Hold
from .isolation import isolate
from .prune import Pruned, Pruning, Token, count_tokens, hides_rows, pruning, tokens_after

#: A minute may always prune so many tokens of a channel, however small a share of the table is allowed.
LEAST_LIMIT = 1000
#: Tokens pruned together with rows; more could keep the rows waiting behind slow deletes.
AT_ONCE = 200
# Seconds after which a table is looked at again: how many rows it has changes.
_HOUR = 3600.0
# Tokens a transaction, when pruned apart.
_SLICE = 100
# Seconds for which a table that refused tokens is pruned apart, and one that refuses all is left alone.
_WHILE = 60.0
# Seconds that pruning apart may take: the jobs of the turn wait for it. What is left is reported again.
_BUDGET = 30.0
# Limits of a transaction that prunes apart: it holds up nobody, and need not wait for others.
_APART = "select set_config('lock_timeout', '300ms', true), set_config('statement_timeout', '20s', true)"

_FUNCTION = re.compile(r"function ([A-Za-z_][\w.]{0,130})\(", re.ASCII)

_REMEDIES = {
    "23503": "another table refers to the token without `on delete cascade` or `set null`: add it, or mark "
    "the row instead with NOTIFLOG_TOKEN_PRUNE",
    "25006": "the database is read-only now: is its disk full, or is it a standby?",
    "42501": "the role of DATABASE_URL, or that of a trigger of the table, lacks a privilege: "
    f"`python -m {NAME}.check` names it; make the trigger's function `security definer`",
    "42703": f"a column of the token table is missing: `python -m {NAME}.check` names it",
    "42P01": f"a table is missing: `python -m {NAME}.check` names it",
    "42804": f"a column of the token table is of a type that cannot serve: `python -m {NAME}.check` names it",
    "55000": "a publication (Supabase Realtime) needs a replica identity: run `alter table {table} replica "
    "identity full`, or give the table a primary key",
    "55P03": "another session holds a lock on the rows: look for `idle in transaction` in pg_stat_activity",
    "57014": "it took too long: an index on the column that refers to the token table is missing",
}


class _Refusal(NamedTuple):
    """What PostgreSQL says where it does not have a token pruned; no data of a row."""

    sqlstate: str
    #: The constraint that is violated, or the function (a trigger's) that raised it; None: neither.
    culprit: str | None


class Tokens:
    """The app's token tables as one process knows them: how they look, and how pruning them goes.

    Threads may share it: at worst two of them find out the same.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shapes: dict[TokenTable, Shape] = {}
        self._looked_up: dict[TokenTable, float] = {}  # when, by the monotonic clock
        # By the monotonic clock, until when a table is pruned apart, or not at all.
        self._apart: dict[TokenTable, float] = {}
        self._left_alone: dict[TokenTable, float] = {}
        # Until when it need not be asked whether a table hides tokens.
        self._in_sight: dict[TokenTable, float] = {}

    def within_limits(
        self, connection: psycopg.Connection, notices: Sequence[StaleToken], hold: Hold
    ) -> list[StaleToken]:
        """The notices that may prune now: of no channel that is held, and no more than a minute may have."""
        stale = []
        for channel, mine in _by_channel(notices).items():
            if channel in hold.channels:
                continue
            limit = self._limit(connection, channel)
            room = max(0, limit - hold.before.get(channel, 0))
            if len(mine) > room:
                logs.error(
                    "prune_limited",
                    channel=channel,
                    tokens=len(mine) - room,
                    limit=limit,
                    remedy="so many dead tokens in a minute go with later sends; if that is usual here, "
                    "raise NOTIFLOG_PRUNE_LIMIT, else look at who sends and who can write to Redis",
                )
            stale += mine[:room]
        return stale

    def _limit(self, connection: psycopg.Connection, channel: Channel) -> int:
        """How many tokens of a channel may be pruned in a minute."""
        if self._settings.prune_limit >= 1:
            return sys.maxsize
        table = self._settings.tokens[channel]
        rows = self._shapes[table].rows if self._look_up(connection, table) else 0
        return max(LEAST_LIMIT, int(self._settings.prune_limit * rows))

    def may_go_with_rows(self, connection: psycopg.Connection, notices: Sequence[StaleToken]) -> bool:
        """Whether to prune in the transaction that records rows; asked before it is begun."""
        if len(notices) > AT_ONCE:
            return False
        now = time.monotonic()
        for table in self._by_table(notices):
            if self._apart.get(table, now) > now or not self._look_up(connection, table):
                return False
        return True

    def prunings(self, notices: Sequence[StaleToken]) -> dict[TokenTable, Pruning]:
        """The statements that prune the notices' tokens, by table."""
        return {table: pruning(self._shapes[table], mine) for table, mine in self._by_table(notices).items()}

    def became(
        self, connection: psycopg.Connection, table: TokenTable, pruning: Pruning, rows: list[tuple[str, str]]
    ) -> Pruned:
        """What became of a table's tokens, by what the statement answered. Raises psycopg.Error.

        A delete without a policy removes nothing and says nothing: it raises what others raise.
        """
        done = pruning.became(rows)
        now = time.monotonic()
        if not done.pruned and self._in_sight.get(table, 0.0) < now:
            shape = self._shapes[table]
            if hides_rows(connection, shape) and missing_privileges(connection, [shape.table]):
                raise errors.InsufficientPrivilege("row level security hides tokens")
            self._in_sight[table] = now + _WHILE
        return done

    def prune_apart(self, connection: psycopg.Connection, notices: Sequence[StaleToken]) -> Pruned:
        """Prune what PostgreSQL lets go, in transactions of their own; never raises what it says."""
        done = Pruned()
        for table, mine in self._by_table(notices).items():
            done |= self._prune_table_apart(connection, table, mine)
        return done

    def refused_with_rows(self, notices: Sequence[StaleToken]) -> None:
        """Remember that these tokens could not be pruned together with rows."""
        for table in self._by_table(notices):
            self._apart[table] = time.monotonic() + _WHILE

    def after(self, connection: psycopg.Connection, channel: Channel, token: str, limit: int) -> list[Token]:
        """The next tokens of a channel's table, each once, in PostgreSQL's order; `token`: the last before.

        Marked ones are passed over. Raises psycopg.Error.
        """
        shape = usable_shape(connection, self._settings.tokens[channel])
        with postgres.transaction(connection, sealed=True):
            return tokens_after(connection, shape, token, limit)

    def count(self, connection: psycopg.Connection, channel: Channel) -> int:
        """How many rows of a channel's table are there to page through. Raises psycopg.Error."""
        shape = usable_shape(connection, self._settings.tokens[channel])
        with postgres.transaction(connection, sealed=True):
            return count_tokens(connection, shape)

    def unguarded(self, notices: Sequence[StaleToken]) -> int:
        """How many of these notices are about tables that do not know when a token was registered."""
        return sum(len(mine) for table, mine in self._by_table(notices).items() if not table.registered)

    def _by_table(self, notices: Sequence[StaleToken]) -> dict[TokenTable, list[StaleToken]]:
        tables: dict[TokenTable, list[StaleToken]] = {}
        for notice in notices:
            tables.setdefault(self._settings.tokens[notice.channel], []).append(notice)
        return tables

    def _look_up(self, connection: psycopg.Connection, table: TokenTable) -> bool:
        """Whether a table's shape is known, or could be found out now."""
        if table not in self._shapes or self._looked_up[table] < time.monotonic() - _HOUR:
            try:
                self._shapes[table] = usable_shape(connection, table)
                self._looked_up[table] = time.monotonic()
            except psycopg.Error as error:
                if postgres.is_transient(error):
                    raise
                return False
        return True

    def _prune_table_apart(
        self, connection: psycopg.Connection, table: TokenTable, notices: list[StaleToken]
    ) -> Pruned:
        tokens = frozenset(notice.token for notice in notices)
        if self._left_alone.get(table, 0.0) > time.monotonic():
            return Pruned(refused=tokens)
        try:
            self._shapes[table] = usable_shape(connection, table)
            self._looked_up[table] = time.monotonic()
            self._attempt(connection, table, [])  # if that is refused as well, it is not for the tokens
        except psycopg.Error as error:
            self._left_alone[table] = time.monotonic() + _WHILE
            _tell(table, {_refusal(error): len(tokens)})
            return Pruned(refused=tokens)
        done, refusals = self._isolate(connection, table, notices)
        _tell(table, refusals)
        return done._replace(refused=tokens.difference(*done))

    def _isolate(
        self, connection: psycopg.Connection, table: TokenTable, notices: Sequence[StaleToken]
    ) -> tuple[Pruned, Counter[_Refusal]]:
        """Prune slice by slice; returns what became of the tokens, and what PostgreSQL said to how many."""
        done = Pruned()
        refusals: Counter[_Refusal] = Counter()
        deadline = time.monotonic() + _BUDGET

        def attempt(part: Sequence[StaleToken]) -> None:
            nonlocal done
            done |= self._attempt(connection, table, part)

        def refuse(notice: StaleToken, error: psycopg.Error) -> None:
            refusals[_refusal(error)] += 1

        for start in range(0, len(notices), _SLICE):
            part = notices[start : start + _SLICE]
            if connection.closed or time.monotonic() > deadline:
                refusals[_Refusal("08000" if connection.closed else "57014", None)] += len(part)
                continue
            with suppress(psycopg.Error):  # the connection is lost: the next round counts the rest
                isolate(part, attempt, refuse, lambda error: not connection.closed)
        return done, refusals

    def _attempt(
        self, connection: psycopg.Connection, table: TokenTable, part: Sequence[StaleToken]
    ) -> Pruned:
        with postgres.transaction(connection):
            connection.execute(_APART)
            one = pruning(self._shapes[table], part)
            rows = connection.execute(*one.statement).fetchall()
            return self.became(connection, table, one, rows)


def _by_channel(notices: Sequence[StaleToken]) -> dict[Channel, list[StaleToken]]:
    channels: dict[Channel, list[StaleToken]] = {}
    for notice in notices:
        channels.setdefault(notice.channel, []).append(notice)
    return channels


def _refusal(error: psycopg.Error) -> _Refusal:
    function = _FUNCTION.search(error.diag.context or "")
    return _Refusal(
        error.sqlstate or "08000", error.diag.constraint_name or (function[1] if function else None)
    )


def _tell(table: TokenTable, refusals: dict[_Refusal, int]) -> None:
    for refusal, count in refusals.items():
        trigger = "a trigger of the table refuses it: see its function" if refusal.culprit else None
        remedy = _REMEDIES.get(refusal.sqlstate) or trigger or "see the PostgreSQL log"
        logs.error(
            "prune_refused",
            table=str(table),
            tokens=count,
            sqlstate=refusal.sqlstate,
            culprit=refusal.culprit,
            remedy=remedy.format(table=table),
        )
