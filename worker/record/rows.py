"""Insert outcomes: all at once, or, where PostgreSQL refuses some, all others."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import psycopg

from ..judge.classify import Outcome
from .isolation import is_of_items, isolate

#: Insert outcomes, skipping keys that exist; returns the keys that are new.
INSERT_OUTCOMES = """
insert into public.follow_up_notification_log
       (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel, idempotency_key, status)
select * from unnest(
  %b::uuid[], %b::uuid[], %b::uuid[], %b::timestamptz[], %b::text[], %b::text[], %b::text[])
on conflict (idempotency_key) do nothing
returning idempotency_key
"""

_PARENTS = ("peer_mentor_id", "chapter_id", "scenario_rule_id")


def insert(connection: psycopg.Connection, rows: Sequence[Outcome]) -> frozenset[str]:
    """Insert rows of different keys, in the order of their keys; returns the keys that are new."""
    if not rows:
        return frozenset()
    return frozenset([key for (key,) in connection.execute(INSERT_OUTCOMES, columns(rows)).fetchall()])


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
        self._orphans: set[tuple[str, UUID]] = set()  # parents that turned out to be missing

    def insert(self, rows: Sequence[Outcome], again: Sequence[Outcome]) -> None:
        """Insert `rows`, the first of each key, and of `again` those whose key was left free.

        The foreign keys themselves tell which rows are bad: reading the parent tables instead would need
        privileges on them, and row level security there would make every parent look missing.
        """
        isolate(rows, self._attempt, self._refuse, is_of_items, self._is_orphan)
        while heirs := self._heirs(again):
            again = [outcome for outcome in again if outcome not in heirs]
            isolate(list(heirs), self._attempt, self._refuse, is_of_items, self._is_orphan)

    def _attempt(self, rows: Sequence[Outcome]) -> None:
        with self._connection.transaction():  # a savepoint
            self.inserted |= insert(self._connection, rows)

    def _refuse(self, row: Outcome, error: psycopg.Error) -> None:
        blamed = self.refused[row] = _blame(error)
        if blamed in _PARENTS:
            self._orphans.add((blamed, getattr(row, blamed)))

    def _is_orphan(self, row: Outcome) -> bool:
        for parent in _PARENTS:
            if (parent, getattr(row, parent)) in self._orphans:
                self.refused[row] = parent
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


def _blame(error: psycopg.Error) -> str:
    constraint = error.diag.constraint_name or error.sqlstate or "constraint"
    return next((column for column in _PARENTS if column in constraint), constraint)
