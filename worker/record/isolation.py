"""Find out which of many PostgreSQL refuses, by trying parts of them, and parts of those."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import psycopg

from ..servers.postgres import is_transient

T = TypeVar("T")

# Into how many parts a batch is split: enough to get there in few rounds, few enough that one bad item costs
# little.
_PARTS = 8

# SQLSTATE classes of faults in a statement itself, its privileges or its transaction: no item of it is to
# blame, unless a function that it called (a trigger) raised them.
_OF_STATEMENTS = ("0A", "25", "28", "3D", "3F", "42", "XX")


def isolate(
    items: Sequence[T],
    attempt: Callable[[Sequence[T]], None],
    refuse: Callable[[T, psycopg.Error], None],
    is_refusal: Callable[[psycopg.Error], bool],
    is_settled: Callable[[T], bool] = lambda item: False,
) -> None:
    """Have `attempt` do all `items` that it can, as many at once as it can; `refuse` takes the others.

    `attempt` does all of its items or raises psycopg.Error and does none. Errors that `is_refusal` denies are
    raised. `is_settled` passes over items of which there is nothing left to find out.
    """
    items = [item for item in items if not is_settled(item)]
    try:
        attempt(items)
        return
    except psycopg.Error as error:
        if not is_refusal(error):
            raise
        if len(items) == 1:
            refuse(items[0], error)
            return
    step = -(-len(items) // _PARTS)
    for start in range(0, len(items), step):
        isolate(items[start : start + step], attempt, refuse, is_refusal, is_settled)


def is_wait(error: psycopg.Error) -> bool:
    """Whether an item had to wait too long, for a lock on some row or for its own work: it may be done later.

    Of a lock on a whole table PostgreSQL gives no context: there every item would wait.
    """
    return error.sqlstate == "57014" or (error.sqlstate == "55P03" and bool(error.diag.context))


def is_of_items(error: psycopg.Error) -> bool:
    """Whether some of the items of a statement may be what PostgreSQL refuses, rather than the statement."""
    state = error.sqlstate or ""
    if not state or is_transient(error):
        return False
    return not state.startswith(_OF_STATEMENTS) or bool(error.diag.context)
