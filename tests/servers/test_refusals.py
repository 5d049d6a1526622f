"""PostgreSQL lets nobody in: what it said is told, with the remedy and no secret; what passes is waited for.

The answers are those of PostgreSQL and of the poolers that stand before it, word by word.
"""

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.servers.refusing import answering, refusing
from worker import migrate
from worker.check.look import look
from worker.demo import sandbox
from worker.drain.strict import database_problems
from worker.servers import refusals
from worker.servers.postgres import connect, explain, is_transient, judge
from worker.servers.settings import settings

SECRET = "S3CR3T"

#: Code and words of an answer, and what the remedy names.
LASTING = [
    ("28000", f'role "{SECRET}" is not permitted to log in', "alter role ... login"),
    ("42501", f'permission denied for database "{SECRET}"', "grant connect"),
    ("55000", f'database "{SECRET}" is not currently accepting connections', "allow_connections true"),
    ("55000", f'cannot connect to invalid database "{SECRET}"', "drop it"),
    ("3D000", f'database "{SECRET}" does not exist', "check DATABASE_URL"),
    ("28000", f'role "{SECRET}" does not exist', "check DATABASE_URL"),
    ("28P01", f'password authentication failed for user "{SECRET}"', "percent-encoded"),
    ("28000", f'Peer authentication failed for user "{SECRET}"', "check DATABASE_URL"),
    (
        "28000",
        f'no pg_hba.conf entry for host "127.0.0.1", user "{SECRET}", database "x", no encryption',
        "sslmode=verify-full",
    ),
    ("28000", f'pg_hba.conf rejects connection for host "127.0.0.1", user "{SECRET}"', "pg_hba.conf"),
    ("28000", "no PostgreSQL user name specified in startup packet", "names no user"),
    ("22023", f'invalid value for parameter "TimeZone": "{SECRET}"', "take it out"),
    ("42704", f'unrecognized configuration parameter "{SECRET}"', "take it out"),
    # PgBouncer
    ("08P01", f"no such database: {SECRET}", "check DATABASE_URL"),
    ("3D000", f"no such database: {SECRET}", "check DATABASE_URL"),
    ("08P01", f"no such user: {SECRET}", "check DATABASE_URL"),
    ("08P01", "SASL authentication failed", "percent-encoded"),
    ("08P01", f"unsupported startup parameter: options=-c x={SECRET}", "ignore_startup_parameters"),
    ("08P01", "SSL required", "sslmode=verify-full"),
    ("08P01", "bouncer config error", "PgBouncer knows no such database"),
    # Supavisor
    ("XX000", "Tenant or user not found", "postgres.<project>"),
    ("XX000", f"(ENOTFOUND) tenant/user {SECRET} not found", "postgres.<project>"),
    (
        "XX000",
        "no tenant identifier provided (external_id or sni_hostname required)",
        "postgres.<project>",
    ),
    ("XX000", "SSL connection is required", "sslmode=verify-full"),
    ("XX000", f"(ESSLREQUIRED) SSL connection is required for user: {SECRET}", "sslmode=verify-full"),
    ("XX000", "address not in allow_list: {127, 0, 0, 1}", "Network Restrictions"),
    ("XX000", "(EADDRNOTALLOWED) address not in tenant allow_list: {127, 0, 0, 1}", "Network Restrictions"),
    ("XX000", "(EBANNED) tenant is banned: unpaid", "dashboard"),
    # Neon
    (
        "08004",
        "Endpoint ID is not specified. Either please upgrade the postgres client library (libpq) for SNI "
        "support or pass the endpoint ID (first part of the domain name) as a parameter: "
        "'?options=endpoint%3D<endpoint-id>'",
        "neon.tech",
    ),
    ("XX000", "The requested endpoint could not be found, or you don't have access to it.", "neon.tech"),
    ("XX000", "The endpoint has been disabled. Enable it using Neon API and retry.", "Neon's console"),
    ("28000", "connection is insecure (try using `sslmode=require`)", "sslmode=verify-full"),
]
PASSING = [
    ("57P03", "the database system is starting up", "starts"),
    ("57P03", "the database system is shutting down", "stops"),
    ("57P03", "the database system is in recovery mode", "starts"),
    ("57P03", "the database system is not yet accepting connections", "starts"),
    ("53300", "sorry, too many clients already", "connections are taken"),
    ("53300", f'too many connections for role "{SECRET}"', "connections are taken"),
    ("53300", "remaining connection slots are reserved for roles with the SUPERUSER attribute", "taken"),
    # PgBouncer
    ("08P01", "no more connections allowed (max_client_conn)", "connections are taken"),
    ("08P01", "query_wait_timeout", "connections are taken"),
    ("08P01", "client_login_timeout (server down)", "the pooler does not reach PostgreSQL"),
    ("08P01", "server login has been failing, try again later (server_login_retry)", "does not reach"),
    ("08P01", "pgbouncer cannot connect to server", "the pooler does not reach PostgreSQL"),
    ("08P01", f'database "{SECRET}" is disabled', "enable"),
    # Supavisor
    ("XX000", "Max client connections reached", "connections are taken"),
    ("XX000", "(EMAXCLIENTCONN) max client connections reached, limit: 200", "connections are taken"),
    (
        "XX000",
        "MaxClientsInSessionMode: max clients reached - in Session mode max clients are limited to pool_size",
        "connections are taken",
    ),
    ("XX000", "Unable to check out process from the pool due to timeout", "connections are taken"),
    ("XX000", "(ECHECKOUTTIMEOUT) Pool checkout timeout. Request was dropped after 60000ms", "taken"),
    ("XX000", "(ECIRCUITBREAKER) too many authentication errors, new connections are blocked", "percent"),
    ("XX000", "(EDBHANDLEREXITED) DbHandler exited", "the pooler does not reach PostgreSQL"),
    # Nobody knows
    ("XX000", f'the moon is in the wrong house for "{SECRET}"', "may pass"),
    ("P0001", f"nobody has any business here, says {SECRET}", "may pass"),
    ("28000", "die Rolle »S3CR3TS« darf nicht", "may pass"),
]


def address(port: int) -> str:
    return f"postgresql://app:{SECRET}@127.0.0.1:{port}/app?sslmode=prefer"


def refused(url: str) -> psycopg.Error:
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in explain(caught.value)
    return caught.value


def said(words: str) -> str:
    """The beginning of an answer, up to what is not repeated."""
    return words.partition(SECRET)[0].rstrip('"').partition('"')[0].partition("»")[0].partition("'")[0]


@pytest.mark.parametrize(("code", "words", "remedy"), LASTING)
def test_an_answer_that_lasts_is_told_and_not_waited_for(code: str, words: str, remedy: str) -> None:
    with refusing(code, words) as port:
        error = refused(address(port))

    assert explain(error).startswith(f"127.0.0.1:{port} answers '{said(words)}")
    assert remedy in judge(error).remedy
    assert not is_transient(error)


@pytest.mark.parametrize(("code", "words", "remedy"), PASSING)
def test_an_answer_that_may_pass_is_told_and_waited_for(code: str, words: str, remedy: str) -> None:
    with refusing(code, words) as port:
        error = refused(address(port))

    assert explain(error).startswith(f"127.0.0.1:{port} answers '{said(words)}")
    assert remedy in judge(error).remedy
    assert is_transient(error)


# --- what libpq gives up for --------------------------------------------------------------------------------

#: An authentication request: the password in clear.
PASSWORD_PLEASE = b"R\0\0\0\x08\0\0\0\x03"

#: What the server answers, what the address says, what is told and what the remedy names.
GIVEN_UP = [
    (PASSWORD_PLEASE, "postgresql://app@127.0.0.1:{port}/app", "no password supplied", "no password"),
    (
        PASSWORD_PLEASE,
        "postgresql://app:S3CR3T@127.0.0.1:{port}/app?channel_binding=require",
        "channel binding required",
        "sslmode=verify-full",
    ),
    (
        b"",
        "postgresql://app:S3CR3T@127.0.0.1:{port}/app?sslmode=require",
        "server does not support SSL, but SSL was required",
        "switch TLS on",
    ),
    (
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "postgresql://app:S3CR3T@127.0.0.1:{port}/app?sslmode=disable",
        "expected authentication request from server, but received H",
        "not PostgreSQL",
    ),
    (b"", "postgresql://127.0.0.1:{port}/app?sslmode=S3CR3T", "invalid sslmode value", "take it out"),
    (
        b"",
        "postgresql://127.0.0.1:{port}/?connect_timeout=S3CR3T",
        "bad value for connect_timeout",
        "take it",
    ),
    (b"", "postgresql://127.0.0.1:70000/app", "invalid port number", "take it out"),
    (b"", "postgresql://app:S3CR3T/word@127.0.0.1:{port}/app", "Servname not supported", "no number"),
    (b"", "service=S3CR3T", "definition of service", "PGSERVICEFILE"),
    (
        b"",
        "postgresql://127.0.0.1:{port}/app?sslmode=require&sslrootcert=system",
        "weak sslmode",
        "check DATABASE_URL",
    ),
]


@pytest.mark.parametrize(("answer", "url", "words", "remedy"), GIVEN_UP, ids=[case[2] for case in GIVEN_UP])
def test_what_libpq_gives_up_for_is_told_and_not_waited_for(
    answer: bytes, url: str, words: str, remedy: str
) -> None:
    with answering(answer) as port:
        error = refused(url.format(port=port))

    assert words in judge(error).text
    assert remedy in judge(error).remedy
    assert not is_transient(error)


def test_a_standby_where_the_primary_is_wanted_is_waited_for(
    postgres: sandbox.Postgres, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            sql.SQL("alter database {} set default_transaction_read_only = on").format(
                sql.Identifier(admin.info.dbname)
            )
        )
    error = refused(f"{database}&target_session_attrs=read-write")

    assert "session is read-only" in explain(error)
    assert is_transient(error)


# --- nobody answers ----------------------------------------------------------------------------------------


def test_a_port_where_nobody_listens() -> None:
    port = sandbox.free_port()
    error = refused(address(port))

    assert explain(error) == (
        f"no connection: 127.0.0.1:{port} refuses connections: "
        "check DATABASE_URL (host, port) and whether the server is up"
    )
    assert is_transient(error)


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        error = refused(f"{address(port)}&connect_timeout=2")

    assert judge(error).text == f"no connection: 127.0.0.1:{port} does not answer"
    assert "firewall" in judge(error).remedy
    assert is_transient(error)


def test_a_server_that_hangs_up() -> None:
    with answering(b"") as port:
        error = refused(address(port))

    assert judge(error).text == f"no connection: 127.0.0.1:{port} closed the connection"
    assert is_transient(error)


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    error = refused(f"postgresql://app:{SECRET}@/app?host={tmp_path}")

    assert judge(error).text.startswith(f"no connection: no server listens on the socket {tmp_path}/")
    assert is_transient(error)


#: psycopg's words, where a test has no such network; the address; and what is told.
NETWORKS = [
    (
        "failed to resolve host 'invalid.example.org': [Errno -2] Name or service not known",
        "host=invalid.example.org",
        "the host name invalid.example.org is not known",
    ),
    (
        "failed to resolve host 'db.example.org': [Errno -3] Temporary failure in name resolution",
        "host=db.example.org",
        "the host name db.example.org cannot be looked up",
    ),
    (
        "failed to resolve host 'S3CR3T@db.example.org': [Errno -2] Name or service not known",
        "host=S3CR3T@db.example.org",
        "the host name in DATABASE_URL is not known",
    ),
    (
        "encoding with 'idna' codec failed (UnicodeError: label empty or too long)",
        "host=a..b",
        "the host name a..b is not known",
    ),
    (
        'connection failed: connection to server at "db.example.org" (2001:db8::1), port 5432 failed: '
        "Network is unreachable\n\tIs the server running on that host and accepting TCP/IP connections?",
        "host=db.example.org",
        "db.example.org has an IPv6 address only, and this machine has no IPv6",
    ),
    (
        'connection failed: connection to server at "db.example.org" (2001:db8::1), port 5432 failed: '
        "Cannot assign requested address",
        "host=db.example.org",
        "db.example.org has an IPv6 address only, and this machine has no IPv6",
    ),
    (
        'connection failed: connection to server at "10.0.0.1", port 5432 failed: No route to host',
        "host=10.0.0.1",
        "there is no route to 10.0.0.1:5432",
    ),
    (
        'connection failed: connection to server at "db" (10.0.0.1), port 6543 failed: Connection refused\n'
        "Multiple connection attempts failed. All failures were:\n"
        "- host: 'db', port: '6543', hostaddr: '2001:db8::1': connection failed: connection to server at "
        '"db" (2001:db8::1), port 6543 failed: Network is unreachable\n'
        "- host: 'db', port: '6543', hostaddr: '10.0.0.1': connection failed: connection to server at "
        '"db" (10.0.0.1), port 6543 failed: Connection refused',
        "host=db port=6543",
        "db:6543 refuses connections",
    ),
    (
        "connection timeout expired\nMultiple connection attempts failed. All failures were:\n"
        "- host: 'one', port: '5432', hostaddr: '10.0.0.1': connection failed: connection to server at "
        '"one" (10.0.0.1), port 5432 failed: Connection refused\n'
        "- host: 'two', port: '5432', hostaddr: '10.0.0.2': connection timeout expired",
        "host=one,two",
        "one:5432 refuses connections; two:5432 does not answer",
    ),
    ("connection timeout expired", "host=db port=6543", "db:6543 does not answer"),
    ("connection is bad: something S3CR3T", "host=db password=S3CR3T", "db:5432 gives none"),
]


@pytest.mark.parametrize(("words", "parameters", "told"), NETWORKS, ids=[case[2] for case in NETWORKS])
def test_ways_not_to_get_there_are_told_apart(words: str, parameters: str, told: str) -> None:
    error = refusals.no_connection(psycopg.OperationalError(words), conninfo_to_dict(parameters))

    assert judge(error).text == f"no connection: {told}"
    assert is_transient(error)
    assert SECRET not in str(error)


def test_of_several_servers_the_one_that_answers_counts() -> None:
    nobody = sandbox.free_port()
    with refusing("28P01", "password authentication failed") as port:
        error = refused(f"postgresql://app:{SECRET}@127.0.0.1:{port},127.0.0.1:{nobody}/app")

    assert judge(error).text == f"127.0.0.1:{port} answers 'password authentication failed'"


# --- everybody says the same -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "words", "waited"),
    [("XX000", "Tenant or user not found", False), ("57P03", "the database system is starting up", True)],
)
def test_worker_commands_and_check_say_the_same(
    code: str,
    words: str,
    waited: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    logged: Callable[[], list[dict[str, str]]],
) -> None:
    with refusing(code, words) as port:
        monkeypatch.setenv("DATABASE_URL", address(port))
        monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
        sentence = explain(refused(address(port)))
        settings.cache_clear()
        worker = [*database_problems(), *(line["problem"] for line in logged() if "retry_in" not in line)]
        settings.cache_clear()
        started = time.monotonic()
        assert migrate.main(["--wait", "1"]) == 1
        seconds = time.monotonic() - started
        found = {finding.name: finding for finding in look("notiflog")}

    assert worker == [sentence]
    assert capsys.readouterr().err == f"migrate: {sentence}\n"
    assert str(found["postgres.reachable"]) == sentence
    assert (seconds > 0.9) is waited


# --- a real server ------------------------------------------------------------------------------------------

#: What keeps a role from a real database; the words, and whether it passes.
KEPT_OUT = {
    "alter role outsider nologin": ("is not permitted to log in", False),
    "revoke connect on database {database} from public": ("permission denied for database", False),
    "alter database {database} allow_connections false": ("not currently accepting connections", False),
    "alter role outsider connection limit 0": ("too many connections for role", True),
    "alter database {database} connection limit 0": ("too many connections for database", True),
}


@pytest.mark.parametrize("what", KEPT_OUT)
def test_what_a_real_server_answers(postgres: sandbox.Postgres, empty_database: str, what: str) -> None:
    words, passes = KEPT_OUT[what]
    name = str(conninfo_to_dict(empty_database)["dbname"])
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("create role outsider login")
        try:
            admin.execute(what.format(database=name).encode())
            error = refused(postgres.url(name, "outsider"))
        finally:
            admin.execute(f"alter database {name} allow_connections true".encode())
            admin.execute("drop role outsider")

    assert words in explain(error)
    assert is_transient(error) is passes


def test_every_known_answer_has_a_case() -> None:
    said = [words for _, _, words, _ in GIVEN_UP]
    said += [refusals.without_quotes(words) for _, words, _ in (*LASTING, *PASSING)]
    elsewhere = ["certificate file", "alert unknown ca", "statement pooling mode", "session is read-only"]
    missing = [
        pattern
        for pattern in (*refusals.LASTING, *refusals.PASSING)
        if not any(re.search(pattern, words, re.IGNORECASE) for words in (*said, *elsewhere))
    ]
    assert missing == []
