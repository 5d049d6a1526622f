"""Addresses of PostgreSQL as other clients write them, made ones that libpq reads."""

import re
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict

_FORM = (
    "expected postgresql://user:password@host:5432/database, with special characters of the password "
    "percent-encoded"
)

#: Parameters of other clients that libpq refuses, and where what they are for is said here.
FOREIGN = {
    "connection_limit": "NOTIFLOG_CONNECTIONS says how many connections a worker opens",
    "pgbouncer": "any pooler in transaction mode is fine without it",
    "pool_timeout": "nothing is pooled here",
    "prepareThreshold": "nothing is prepared here",
    "prepared_statements": "nothing is prepared here",
    "schema": "the log is in the schema public, and NOTIFLOG_TOKEN_TABLE takes schema.table",
    "socket_timeout": "statements are limited to 60 s",
    "sslaccept": "sslmode=verify-full is what verifies the server",
    "sslidentity": "sslcert and sslkey name a client's certificate",
    "statement_cache_size": "nothing is prepared here",
    "supa": "Supabase's dashboard adds it for other clients",
    "uselibpqcompat": "this is libpq",
    "workaround": "Supabase's dashboard adds it for other clients",
}


class Address(NamedTuple):
    """An address that libpq reads."""

    #: Never shown: it holds the password.
    url: str
    #: The foreign parameters that are not in it any more.
    passed_over: tuple[str, ...]


class BadAddress(ValueError):
    """Says what is wrong with an address, and what to do; no value of it."""


def own_address(url: str) -> Address:
    """An address of another client's as libpq reads it. Raises BadAddress."""
    # SQLAlchemy names a driver: postgresql+psycopg://.
    url = re.sub(r"^postgres(?:ql)?\+\w+://", "postgresql://", url)
    base, query = _split(url)
    parameters = [parameter for parameter in query.split("&") if parameter]
    foreign = [name for name in (parameter.partition("=")[0] for parameter in parameters) if name in FOREIGN]
    if foreign:
        own = "&".join(one for one in parameters if one.partition("=")[0] not in FOREIGN)
        url = f"{base}?{own}" if own else base
    try:
        found = conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeError):  # libpq quotes the broken part, maybe the password
        raise BadAddress(f"cannot be parsed: {_problem(query)}") from None
    if "://" in url and any("@" in str(found.get(name) or "")[1:] for name in ("host", "dbname")):
        raise BadAddress(f"has an @ behind its password: {_FORM} (@ is %40, / is %2F)")
    return Address(url, tuple(dict.fromkeys(foreign)))


def _split(url: str) -> tuple[str, str]:
    """What stands before the parameters of a URL, and they; the password may hold a question mark, too."""
    mark = url.find("?", url.rfind("@") + 1) if "://" in url else -1
    return (url, "") if mark < 0 else (url[:mark], url[mark + 1 :])


def _problem(query: str) -> str:
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    if any(parameter.partition("=")[0] not in known for parameter in query.split("&") if parameter):
        return f"take out the parameters that PostgreSQL does not know; {_FORM}"
    return _FORM
