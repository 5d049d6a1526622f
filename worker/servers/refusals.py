"""Why PostgreSQL, or a pooler before it, lets nobody in: what was said, whether it passes, what to do.

A failed connect has no SQLSTATE, only words: the server's, a pooler's, libpq's or the system's. What stands
in quotation marks there is not repeated: in the wrong place of the address it may be the password.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import psycopg


class Fault(NamedTuple):
    """One fault of PostgreSQL, or of what stands before it."""

    #: Trying again later may help.
    passes: bool
    #: What happened, as a phrase, without any row's data and of the address host and port only.
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


class NoConnection(psycopg.OperationalError):
    """No connection came about. Its text is its fault's, safe to show."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


# --- words ------------------------------------------------------------------------------------------------

_LOGIN = "check DATABASE_URL: user, and password with its special characters percent-encoded"
_TLS = "add sslmode=verify-full to DATABASE_URL, with sslrootcert=, see the manual (TLS)"
_SETTING = "check DATABASE_URL: put that parameter (or PG..., in the environment) right, or take it out"
_POOL = "all connections are taken: start fewer workers, set NOTIFLOG_CONNECTIONS=1, or allow more"
_SUPABASE = (
    "on Supabase's pooler the user is postgres.<project> (or <role>.<project>), and the host that of the "
    "project's region: copy both from the dashboard (Connect)"
)
_NEON = "name the endpoint by its host name, ep-...neon.tech, and not by an IP address"

#: What lasts until somebody acts: a pattern of what is said, and what to do.
LASTING = {
    # PostgreSQL
    r"not permitted to log in": (
        "run `alter role ... login`, or name a user that may log in: a member of notiflog_worker"
    ),
    r"permission denied for database": "run `grant connect on database ... to` the user of DATABASE_URL",
    r"not currently accepting connections": (
        "run `alter database ... allow_connections true`, or name another database in DATABASE_URL"
    ),
    r"invalid database": "`drop database` was interrupted there: drop it and make it anew",
    r"database (?:\.\.\. )?does not exist|no such database": "check DATABASE_URL: name one that exists there",
    r"role (?:\.\.\. )?does not exist|no such user": "check DATABASE_URL: name one that exists there",
    r"no password supplied": "check DATABASE_URL: it has no password",
    r"authentication failed|login failed": _LOGIN,
    r"pg_hba\.conf": "have the server's pg_hba.conf let this user in from here; if it wants TLS, " + _TLS,
    r"no PostgreSQL user name": "check DATABASE_URL: it names no user",
    r"invalid value for parameter|unrecognized configuration parameter": _SETTING,
    # TLS
    r"channel binding": f"without TLS there is none: {_TLS}, or take channel_binding out",
    r"server does not support SSL": "check DATABASE_URL, or switch TLS on there",
    r"SSL connection is required|connection is insecure|SSL required": _TLS,
    r"certificate verify failed|does not match host name|weak sslmode": (
        "check DATABASE_URL: host, sslmode and sslrootcert, see the manual (TLS)"
    ),
    r"certificate file|private key file|system root certificate": (
        "check DATABASE_URL: are the files of sslrootcert, sslcert and sslkey there and readable?"
    ),
    r"alert (?:unknown ca|bad certificate|certificate required)": (
        "check DATABASE_URL: the server wants another client's certificate, sslcert and sslkey"
    ),
    # libpq
    r"invalid \w+ value|invalid port number|invalid connection option|bad value for": _SETTING,
    r"Servname not supported": (
        "check DATABASE_URL: the port is no number; percent-encode the password's special characters"
    ),
    r"definition of service": "check the name of the service, and PGSERVICEFILE",
    r"invalid response to \w+ negotiation|expected authentication request": (
        "check DATABASE_URL (host, port): what listens there is not PostgreSQL"
    ),
    # PgBouncer
    r"unsupported startup parameter": (
        "take options= and the like out of DATABASE_URL, or name it in PgBouncer's ignore_startup_parameters"
    ),
    r"statement pooling mode": "let PgBouncer pool by transaction: pool_mode = transaction",
    r"bouncer config error": "check DATABASE_URL: PgBouncer knows no such database, or no user for it",
    # Supavisor, Supabase's pooler
    r"tenant or user not found|tenant/user|no tenant identifier": _SUPABASE,
    r"not in (?:tenant )?allow_list": (
        "let this machine's address in: Supabase's dashboard, Database Settings, Network Restrictions"
    ),
    r"tenant is banned": "see Supabase's dashboard: the project is blocked",
    # Neon
    r"Endpoint ID is not specified|endpoint could not be found": _NEON,
    r"endpoint (?:has been|is) disabled": "enable the endpoint in Neon's console",
}

#: What passes by itself.
PASSING = {
    r"starting up|shutting down|in recovery mode|not yet accepting": "the server starts, or stops",
    r"too many clients|too many connections|connection slots|no more connections allowed": _POOL,
    r"max client": _POOL,
    r"query_wait_timeout|check ?out": f"{_POOL}; or the pooler does not reach PostgreSQL",
    r"circuit breaker|too many authentication": f"the pooler saw wrong passwords and waits: {_LOGIN}",
    r"session is read-only|hot standby mode": (
        "a standby answers: after a failover that passes; else lead DATABASE_URL to the primary"
    ),
    r"server down|server login has been failing|cannot connect to server|conn crashed|DbHandler exited": (
        "the pooler does not reach PostgreSQL"
    ),
    r"database (?:\.\.\. )?is disabled": "the pooler is told to let nobody in: run `enable` in its console",
}


def known(words: str) -> tuple[bool, str] | None:
    """Whether what is said passes by itself, and what to do about it; None: nobody knows."""
    for passes, table in ((False, LASTING), (True, PASSING)):
        for pattern, remedy in table.items():
            if re.search(pattern, words, re.IGNORECASE):
                return passes, remedy
    return None


def without_quotes(words: str) -> str:
    """The first line of what was said, without what it quotes."""
    (line, *_) = words.strip().splitlines() or [""]
    if line.count('"') % 2:  # a value has one, too
        return re.sub('".*"', "...", line)
    return re.sub(r"\"[^\"]*(?:\"|$)|(?<!\w)'[^']*(?:'|$)|[«»„].*[«»“]", "...", line)


# --- no connection ----------------------------------------------------------------------------------------

_NO_ROUTE = r"unreachable|No route to host|Cannot assign requested address|Address family not supported"

_ADDRESS = "check DATABASE_URL (host, port) and whether the server is up"

#: Why nobody answered, by libpq's or the system's words: what to say, and what to do.
UNREACHABLE = {
    r"Connection refused": ("{place} refuses connections", _ADDRESS),
    r"time(?:out expired|d out)": (
        "{place} does not answer",
        f"{_ADDRESS}; does a firewall let this machine through?",
    ),
    r"Temporary failure in name resolution": (
        "the host name {host} cannot be looked up",
        "this machine's name service does not answer",
    ),
    r"failed to resolve host|codec failed": (
        "the host name {host} is not known",
        "check DATABASE_URL; a Supabase project that is paused has no host",
    ),
    _NO_ROUTE: ("there is no route to {place}", "check this machine's network, and DATABASE_URL"),
    r"No such file or directory": (
        "no server listens on the socket {place}",
        "check whether it is up; DATABASE_URL names no other host",
    ),
    r"Permission denied": ("this user may not open the socket {place}", "check the directory's permissions"),
    r"closed the connection|closed unexpectedly|EOF detected|reset by peer|Broken pipe": (
        "{place} closed the connection",
        f"{_ADDRESS}; does it expect TLS?",
    ),
}
#: Where nobody knows why, and where only IPv6 would lead.
NOBODY = ("{place} gives none", _ADDRESS)
ONLY_IPV6 = (
    "{host} has an IPv6 address only, and this machine has no IPv6",
    "use an address with IPv4; on Supabase that of the pooler (Connect in the dashboard): user "
    "postgres.<project>, port 5432 or 6543",
)
_TRIED = re.compile(r"^- host: (\S+), port: (\S+), hostaddr: (\S+): ", re.MULTILINE)
_TO = re.compile(
    r'connection to server (?:at|on socket) "(?P<host>[^"]*)"(?: \((?P<address>[^)]*)\))?'
    r"(?:, port (?P<port>\w+))? failed: "
)
_UNRESOLVED = re.compile(r"resolve host '(?P<host>[^']*)'")
# A host with other characters is a part of something else, of the password maybe.
_HOST = re.compile(r"[\w.:%-]+|/[\w./-]*")
_LONGEST = 200


class _Attempt(NamedTuple):
    host: str
    #: Host and port, or a socket's path.
    place: str
    #: Empty where the name has none.
    address: str
    #: What was said, quoted values and all.
    words: str
    #: By a server; else by libpq or the system.
    answered: bool


def no_connection(error: Exception, parameters: Mapping[str, object]) -> NoConnection:
    """What psycopg raised when it could not connect, told. `parameters`: libpq's, of the address."""
    attempts = list(_attempts(str(error), parameters))
    answers = [fault for attempt in attempts if (fault := _answer(attempt, parameters))]
    lasting = [fault for fault in answers if not fault.passes]
    return NoConnection([*lasting, *answers, _unreachable(attempts)][0])


def _attempts(text: str, parameters: Mapping[str, object]) -> Iterator[_Attempt]:
    """Each address that was tried: a name may have several, and DATABASE_URL several names."""
    host, port = (str(parameters.get(name) or "") for name in ("host", "port"))
    pieces = _TRIED.split(text)[1:]
    tries = [pieces[n : n + 4] for n in range(0, len(pieces), 4)] or [[host, port, "", text]]
    for host, port, address, said in tries:  # of each the first words: without TLS libpq may try again
        place: dict[str, str | None] = {}
        if found := _TO.search(said):
            place, said = found.groupdict(), said[found.end() :]
        elif found := _UNRESOLVED.search(said):
            place = found.groupdict()
        said = said.removeprefix("connection is bad: ")
        severity, answered, words = said.partition(":  ")
        shown = place.get("host") or host.strip("'")
        yield _Attempt(
            shown,
            _place(shown, place.get("port") or port.strip("'") or "5432"),
            place.get("address") or address.strip("'"),
            words if answered else severity,
            bool(answered),
        )


def _place(host: str, port: str) -> str:
    if not _HOST.fullmatch(host) or not port.isdecimal():
        return "the server"
    if host.startswith("/"):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _answer(attempt: _Attempt, parameters: Mapping[str, object]) -> Fault | None:
    """The fault of an attempt that got an answer, or that libpq gave up for a reason of its own."""
    fault = known(without_quotes(attempt.words))
    if not fault and not attempt.answered:
        return None
    passes, remedy = fault or (True, "it may pass by itself; if it does not, ask whoever runs the server")
    said = f"{attempt.place} answers" if attempt.answered else f"no connection to {attempt.place}:"
    return Fault(passes, f"{said} '{_masked(attempt.words, parameters)}'", remedy)


def _masked(words: str, parameters: Mapping[str, object]) -> str:
    for name in ("password", "user", "dbname", "options"):  # poolers do not quote them
        if value := str(parameters.get(name) or ""):
            words = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "...", words)
    return "".join(filter(str.isprintable, without_quotes(words)))[:_LONGEST]


def _unreachable(attempts: list[_Attempt]) -> Fault:
    if routes := [one for one in attempts if ":" not in one.address]:
        attempts = routes  # where there is IPv4, that is what counts
    told: dict[str, str] = {}
    for one in attempts:
        if not routes and re.search(_NO_ROUTE, one.words):
            text, remedy = ONLY_IPV6
        else:
            text, remedy = next(
                (told for words, told in UNREACHABLE.items() if re.search(words, one.words)), NOBODY
            )
        host = one.host if _HOST.fullmatch(one.host) else "in DATABASE_URL"
        told.setdefault(text.format(host=host, place=one.place), remedy)
    return Fault(True, f"no connection: {'; '.join(told)}", "; ".join(dict.fromkeys(told.values())))
