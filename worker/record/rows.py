"""Insert outcomes: all at once, or, where PostgreSQL refuses some, all others."""

import math
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import psycopg

from ..judge.classify import Outcome
from ..servers.postgres import Statement
from . import arrays
from .isolation import is_of_items, is_wait, isolate

#: Insert outcomes, skipping keys that exist; returns the keys that are new.
INSERT_OUTCOMES = """
insert into public.follow_up_notification_log
       (log_id, peer_mentor_id, chapter_id, scenario_rule_id,
        delivered_at, delivery_channel, idempotency_key, status)
select * from unnest(
  %b::uuid[], %b::uuid[], %b::uuid[], %b::uuid[], %b::timestamptz[], %b::text[], %b::text[], %b::text[])
on conflict (idempotency_key) do nothing
returning idempotency_key
"""

_PARENTS = ("peer_mentor_id", "chapter_id", "scenario_rule_id")
_TABLES = {"users": "peer_mentor_id", "chapters": "chapter_id", "scenario_rules": "scenario_rule_id"}

# Where some rows have to wait, others are tried meanwhile.
_SHORTER_WAIT = "select pg_catalog.set_config('lock_timeout', '300ms', true)"

# Seconds after which rows that are not tried yet wait along with those that are locked.
_PATIENCE = 10.0

# What PostgreSQL says that it was doing when a lock kept it: checking a foreign key, inserting a key.
_LOCKED = re.compile(r'in relation "([^"]{1,63})"')


def inserting(rows: Sequence[Outcome]) -> Statement:
    """Insert rows of different keys, in the order of their keys; it answers the keys that are new."""
    return Statement(INSERT_OUTCOMES, columns(rows))


def columns(rows: Sequence[Outcome]) -> list[Any]:
    """The parameters of INSERT_OUTCOMES."""
    return [
        arrays.of_new_ids(len(rows)),
        arrays.of_uuids([row.peer_mentor_id for row in rows]),
        arrays.of_uuids([row.chapter_id for row in rows]),
        arrays.of_uuids([row.scenario_rule_id for row in rows]),
        [row.delivered_at for row in rows],
        arrays.of_words([row.delivery_channel for row in rows]),
        arrays.of_texts([row.idempotency_key for row in rows]),
        arrays.of_words([row.status for row in rows]),
    ]


def first_of_each_key(outcomes: Iterable[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Split outcomes into the first of each key, in the order of the keys, and the others as they come."""
    first: dict[str, Outcome] = {}
    again: list[Outcome] = []
    for outcome in outcomes:
        if outcome.idempotency_key in first:
            again.append(outcome)
        else:
            first[outcome.idempotency_key] = outcome
    return [first[key] for key in sorted(first)], again


class IsolatedRows:
    """Rows that are inserted where some may be refused; in a transaction of the caller's."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        #: The keys that are new.
        self.inserted: set[str] = set()
        #: Refused: what is to blame, a column or a constraint. By outcome: another of the same key may be in.
        self.refused: dict[Outcome, str] = {}
        #: Keys that somebody's lock keeps from being inserted, with the table that is locked.
        self.waiting: dict[str, str] = {}
        # Parents that turned out to be missing, or to be locked by somebody.
        self._orphans: set[tuple[str, UUID]] = set()
        self._locked: dict[tuple[str, UUID], str] = {}
        self._deadline = math.inf

    def insert(self, rows: Sequence[Outcome], again: Sequence[Outcome]) -> None:
        """Insert `rows`, the first of each key, and of `again` those whose key was left free.

        The foreign keys themselves tell which rows are bad: reading the parent tables instead would need
        privileges on them, and row level security there would make every parent look missing.
        """
        self._connection.execute(_SHORTER_WAIT)
        isolate(rows, self._attempt, self._refuse, _is_refusal, self._is_settled)
        while heirs := self._heirs(again):
            again = [outcome for outcome in again if outcome not in heirs]
            isolate(list(heirs), self._attempt, self._refuse, _is_refusal, self._is_settled)

    def _attempt(self, rows: Sequence[Outcome]) -> None:
        with self._connection.transaction():  # a savepoint
            self.inserted.update([key for (key,) in self._connection.execute(*inserting(rows))])

    def _refuse(self, row: Outcome, error: psycopg.Error) -> None:
        if error.sqlstate == "57014":
            raise error  # not even alone: somebody cancels, or the server is that slow
        if is_wait(error):
            self._wait(row, error)
            return
        blamed = self.refused[row] = _blame(error)
        if blamed in _PARENTS:
            self._orphans.add((blamed, getattr(row, blamed)))

    def _wait(self, row: Outcome, error: psycopg.Error) -> None:
        found = _LOCKED.search(error.diag.context or "")
        table = found[1] if found else "follow_up_notification_log"
        self.waiting[row.idempotency_key] = table
        self._deadline = min(self._deadline, time.monotonic() + _PATIENCE)
        if parent := _TABLES.get(table):
            self._locked[parent, getattr(row, parent)] = table

    def _is_settled(self, row: Outcome) -> bool:
        """Whether a row's fate follows from another's: their parent is missing, or locked."""
        for parent in _PARENTS:
            its_own = parent, getattr(row, parent)
            if its_own in self._orphans:
                self.refused[row] = parent
                return True
            if its_own in self._locked:
                self.waiting[row.idempotency_key] = self._locked[its_own]
                return True
        if time.monotonic() > self._deadline:
            self.waiting[row.idempotency_key] = next(reversed(self.waiting.values()))
            return True
        return False

    def _heirs(self, again: Sequence[Outcome]) -> dict[Outcome, None]:
        """The next outcome of each key that those before it left free because they were refused."""
        free = {outcome.idempotency_key for outcome in self.refused} - self.inserted
        heirs: dict[str, Outcome] = {}
        for outcome in again:
            if outcome.idempotency_key in free and outcome not in self.refused:
                heirs.setdefault(outcome.idempotency_key, outcome)
        return {heirs[key]: None for key in sorted(heirs)}


def _is_refusal(error: psycopg.Error) -> bool:
    return is_of_items(error) or is_wait(error)


def _blame(error: psycopg.Error) -> str:
    constraint = error.diag.constraint_name or error.sqlstate or "constraint"
    return next((column for column in _PARENTS if column in constraint), constraint)
