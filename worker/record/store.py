"""The one transaction: what became of some prompts, and which of their tokens are dead. Opens no connection.

Two writers never deadlock here: keys are inserted in sorted order, and all keys before any token.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg import errors

from ..judge.classify import Outcome, StaleToken, Status
from ..servers import postgres
from ..servers.postgres import Statement
from .isolation import is_wait
from .prune import Pruned
from .rows import IsolatedRows, first_of_each_key, inserting
from .tokens import Tokens

#: The statuses recorded for some keys.
SELECT_STATUSES = """
select idempotency_key, status from public.follow_up_notification_log where idempotency_key = any(%b)
"""


class Recorded(NamedTuple):
    """What became of the outcomes, by idempotency key, and of the tokens."""

    inserted: frozenset[str]
    #: Statuses already on record for keys that were not inserted.
    known: dict[str, Status]
    #: Refused by a constraint: its column or name. By outcome: another of the same key may be in.
    refused: dict[Outcome, str]
    #: Not inserted yet, because somebody holds a lock: keys, with the table that is locked.
    waiting: dict[str, str]
    #: Neither inserted nor there: a trigger of the log left them out.
    left_out: frozenset[str]
    tokens: Pruned


def write(
    connection: psycopg.Connection,
    tokens: Tokens,
    outcomes: Iterable[Outcome],
    stale: Sequence[StaleToken],
) -> Recorded:
    """Record outcomes and prune stale tokens, in one transaction while PostgreSQL refuses nothing.

    Of outcomes with one key the first counts that PostgreSQL takes. Those it refuses (their user, chapter or
    rule does not exist) and those that somebody's lock keeps waiting are singled out, all others recorded.
    Tokens are pruned whether or not a row was new, and recorded rows stay whatever becomes of tokens. Raises
    psycopg.Error with nothing written, unless the connection is closed: then nobody knows.
    """
    rows, again = first_of_each_key(outcomes)
    if tokens.may_go_with_rows(connection, stale):
        inserts = [inserting(rows)] if rows else []
        prunings = tokens.prunings(stale)
        answers: list[list[Any]] = []
        statements = [*inserts, *(one.statement for one in prunings.values())]
        try:
            postgres.at_once(connection, statements, answers)
        except psycopg.Error as error:
            of_tokens = bool(stale) and len(answers) >= len(inserts)  # the rows were in
            waited = is_wait(error) or (of_tokens and error.sqlstate == "55P03")
            if connection.closed or (postgres.is_transient(error) and not waited):
                raise
            if of_tokens:
                tokens.refused_with_rows(stale)
        else:
            inserted = frozenset([key for (key,) in answers.pop(0)]) if rows else frozenset()
            with _committed(connection):
                known = _known(connection, rows, inserted)
                pruned = Pruned()
                try:
                    for (table, one), answer in zip(prunings.items(), answers, strict=True):
                        pruned |= tokens.became(connection, table, one, answer)
                except errors.InsufficientPrivilege:
                    tokens.refused_with_rows(stale)
                    pruned = tokens.prune_apart(connection, stale)
            return _recorded(rows, inserted, known, pruned)
    with postgres.transaction(connection):
        isolated = IsolatedRows(connection)
        isolated.insert(rows, again)
    inserted = frozenset(isolated.inserted)
    with _committed(connection):
        known = _known(connection, rows, inserted)
    pruned = tokens.prune_apart(connection, stale) if stale else Pruned()
    return _recorded(rows, inserted, known, pruned, isolated)


@contextmanager
def _committed(connection: psycopg.Connection) -> Iterator[None]:
    """Where the block fails, whoever writes again is to know that it may have written before."""
    try:
        yield
    except psycopg.Error:
        connection.close()
        raise


def _known(
    connection: psycopg.Connection, rows: Sequence[Outcome], inserted: frozenset[str]
) -> dict[str, Status]:
    if len(inserted) == len(rows):
        return {}
    others = [row.idempotency_key for row in rows if row.idempotency_key not in inserted]
    (found,) = postgres.at_once(connection, [Statement(SELECT_STATUSES, [others])])
    return dict(found)


def _recorded(
    rows: Sequence[Outcome],
    inserted: frozenset[str],
    known: dict[str, Status],
    pruned: Pruned,
    isolated: IsolatedRows | None = None,
) -> Recorded:
    refused = isolated.refused if isolated else {}
    waiting = isolated.waiting if isolated else {}
    left_out: frozenset[str] = frozenset()
    if len(inserted) + len(known) < len(rows):
        keys = {row.idempotency_key for row in rows} - inserted - known.keys() - waiting.keys()
        left_out = frozenset(keys - {outcome.idempotency_key for outcome in refused})
    return Recorded(inserted, known, refused, waiting, left_out, pruned)
