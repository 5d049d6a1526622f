"""Whatever a role, a database or a server sets for its sessions: records, prunes and reads stay right."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests import make
from worker import history
from worker.demo import sample, sandbox
from worker.judge.batch import judge
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.report.reading import read_outcomes
from worker.servers.migrations import apply, pending
from worker.servers.postgres import connect, transaction
from worker.servers.settings import Settings

SENT_AT = datetime.fromisoformat(make.SENT_AT)

#: What somebody may have set for the database; most of it changes some result of a careless client.
UNUSUAL = [
    ("datestyle", "German"),
    ("datestyle", "SQL, DMY"),
    ("datestyle", "Postgres, MDY"),
    ("intervalstyle", "sql_standard"),
    ("timezone", "America/New_York"),
    ("timezone", "Asia/Kathmandu"),
    ("bytea_output", "escape"),
    ("standard_conforming_strings", "off"),
    ("row_security", "off"),
    ("default_transaction_isolation", "repeatable read"),
    ("default_transaction_isolation", "serializable"),
    ("synchronous_commit", "off"),
    ("client_encoding", "latin1"),
    ("search_path", ""),
    ("search_path", "pg_temp, nowhere"),
    ("statement_timeout", "100ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "100ms"),
    ("quote_all_identifiers", "on"),
    ("extra_float_digits", "-15"),
    ("array_nulls", "off"),
]


@pytest.fixture
def unusual(database: str, request: pytest.FixtureRequest) -> str:
    """The URL of a database that sets something unusual for every session."""
    name, value = request.param
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(
            sql.SQL("alter database {} set {} = {}").format(
                sql.Identifier(admin.info.dbname), sql.Identifier(name), sql.Literal(value)
            )
        )
    return database


def register(url: str, app: sample.App, token: str, at: str) -> None:
    with psycopg.connect(url) as admin:
        admin.execute("insert into public.device_tokens values (%s, %s, %s)", [token, app.users[0], at])


@pytest.mark.parametrize("unusual", UNUSUAL, indirect=True, ids=" ".join)
def test_recording_and_reading_do_not_depend_on_it(unusual: str, app: sample.App) -> None:
    config = Settings(database_url=unusual)
    key = r"schön\n'"
    before, after = (SENT_AT + timedelta(minutes=minutes) for minutes in (-1, 1))
    register(unusual, app, "dead", before.isoformat())
    register(unusual, app, "alive", after.isoformat())
    events = [
        make.event(
            app,
            results=[make.unregistered("dead"), make.unregistered("alive"), make.result()],
            idempotency_key=key,
        )
    ]
    with connect(unusual) as connection:
        (first,) = record(connection, Tokens(config), [judge(events)])
        (again,) = record(connection, Tokens(config), [judge(events)])
        (token,) = Tokens(config).after(connection, "fcm", "", 10)
        outcomes = read_outcomes(connection, before, ZoneInfo("Pacific/Auckland"))

    assert (first.summary["delivered"], first.summary["pruned"], first.summary["kept"]) == (1, 1, 1)
    assert (again.summary["duplicates"], again.summary["conflicting"]) == (1, 0)
    assert token.token == "alive"
    assert token.age == pytest.approx((datetime.now(UTC) - after).total_seconds(), abs=60)
    assert [(str(day), channel) for day, channel in outcomes.days] == [("2026-11-16", "fcm")]
    with psycopg.connect(unusual) as caller:
        assert history.recorded(caller, [key]) == {key: "delivered"}
        (row,) = history.newest(caller, app.users[0], app.chapters[0])
        assert (row.delivered_at, row.idempotency_key) == (SENT_AT, key)
        assert history.last_deliveries_to(caller, app.users[0]) == {app.rules[0]: SENT_AT}
        assert history.last_deliveries_of(caller, app.rules[0]) == {app.users[0]: SENT_AT}


@pytest.mark.parametrize("unusual", [("search_path", "private")], indirect=True, ids=" ".join)
def test_a_trigger_of_the_app_finds_its_tables_by_the_search_path(unusual: str, app: sample.App) -> None:
    with psycopg.connect(unusual) as admin:
        admin.execute(
            """
            create schema private;
            create table private.audit (token text);
            create function private.note() returns trigger language plpgsql as
              'begin insert into audit values (old.token); return old; end';
            create trigger note after delete on public.device_tokens
              for each row execute function private.note()
            """
        )
    register(unusual, app, "dead", "2026-01-01T00:00:00Z")
    with connect(unusual) as connection:
        record(
            connection,
            Tokens(Settings(database_url=unusual)),
            [judge([make.event(app, results=[make.unregistered("dead")])])],
        )

        assert connection.execute("select token from private.audit").fetchall() == [("dead",)]


@pytest.mark.parametrize(
    ("set_to", "used"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
)
def test_a_commit_is_as_durable_as_the_server_says_but_survives_a_crash(
    database: str, set_to: str, used: str
) -> None:
    url = make_conninfo(database, options=f"-c synchronous_commit={set_to}")
    with connect(url) as connection, transaction(connection):
        assert connection.execute("show synchronous_commit").fetchone() == (used,)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_of_another_encoding(postgres: sandbox.Postgres, encoding: str) -> None:
    name = f"encoded_{encoding.lower()}"
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template template0 encoding {} locale 'C'").format(
                sql.Identifier(name), sql.Literal(encoding)
            )
        )
    url = postgres.url(name)
    sandbox.create_app_tables(url)
    with connect(url) as connection:
        assert [apply(connection, migration) for migration in pending(connection)].count(False) == 0
        assert pending(connection) == []
        app = sample.make_app(connection, users=1)
        events = [make.event(app, idempotency_key="schön"), make.event(app, 1, results=[make.unregistered()])]
        (first,) = record(connection, Tokens(Settings(database_url=url)), [judge(events)])
        (again,) = record(connection, Tokens(Settings(database_url=url)), [judge(events)])
    assert (first.summary["delivered"], first.summary["failed"], first.summary["duplicates"]) == (1, 1, 0)
    assert (again.summary["duplicates"], again.summary["conflicting"]) == (2, 0)
    with psycopg.connect(url) as caller:
        assert history.recorded(caller, ["schön", "key-1"]) == {"schön": "delivered", "key-1": "failed"}
