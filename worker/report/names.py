"""Names for chapters and rules, which are the app's: read by a query of the user's, and fit to be shown."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row

from ..command import count
from ..servers import postgres

_REMEDY = "it takes one select of two columns, an id (uuid) and a name: select id, name from chapters"
_PROBLEMS = {
    "42601": "is no single select",
    "42P01": "asks for a table that is not there, or not in the role's search_path (name its schema)",
    "3F000": "asks for a schema that is not there",
    "42703": "asks for a column that is not there",
    "25001": "changes its transaction, and may only read",
    "25006": "writes, and may only read",
}
# What else is wrong with a query and not with the server, by the class of the SQLSTATE.
_QUERYS = ("0A", "21", "22", "42")
# Rows at once: of any number of them, only the names of what the report has are kept.
_ROWS = 1000


class WrongNames(Exception):
    """The query gives no names; says what to do, and nothing that the query or the tables hold."""

    def __init__(self, problem: str, status: int = 2) -> None:
        super().__init__(problem)
        #: The command's exit status.
        self.status = status


def read_names(connection: psycopg.Connection, query: str, ids: Collection[UUID]) -> dict[UUID, str]:
    """The names that `query` gives to these ids. Raises WrongNames, or psycopg.OperationalError.

    In a transaction that may only read. Not sealed: bare names mean what they mean to the user.
    """
    try:
        with postgres.transaction(connection):
            connection.execute("set transaction read only")
            # A cursor of the server's takes one statement, and that a select.
            with connection.cursor("names", row_factory=tuple_row) as cursor:
                cursor.itersize = _ROWS
                cursor.execute(query.encode())
                if len(cursor.description or ()) != 2:
                    raise WrongNames(
                        f"--names gives {count(len(cursor.description or ()), 'column')}; {_REMEDY}"
                    )
                found = {}
                for number, name in cursor:
                    if number is not None and name is not None and (id := _id(number)) in ids:
                        found[id] = str(name)
                return found
    except errors.InsufficientPrivilege:
        raise WrongNames(
            "the role of DATABASE_URL may not read what --names asks for: grant it select there", 1
        ) from None
    except UnicodeError:
        raise WrongNames("--names: the query, or a name that it gives, is no UTF-8") from None
    except psycopg.Error as error:
        raise _explained(error) from None


def _id(value: object) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise WrongNames(f"--names gives an id that is no uuid; {_REMEDY}") from None


def _explained(error: psycopg.Error) -> Exception:
    state = error.sqlstate or ""
    if state in _PROBLEMS or state.startswith(_QUERYS):
        problem = _PROBLEMS.get(state, f"is refused by PostgreSQL (SQLSTATE {state})")
        return WrongNames(f"--names {problem}; {_REMEDY}")
    if isinstance(error, psycopg.OperationalError) and not isinstance(error, errors.QueryCanceled):
        return error
    return WrongNames(f"--names: {postgres.explain(error)}", 1)


def labels(ids: Iterable[UUID], names: Mapping[UUID, str]) -> dict[UUID, str]:
    """What to call each of them: its name, with some of its id where others have the same, or its id.

    Whatever a name is made of, it is one line here that steers no terminal.
    """
    shown = {id: _printable(names[id]) or str(id) if id in names else str(id) for id in ids}
    times = Counter(shown.values())
    return {id: label if times[label] == 1 else f"{label} ({str(id)[:8]})" for id, label in shown.items()}


def _printable(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name.strip())
