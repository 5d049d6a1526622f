"""Statements in one round trip: all of them or none, whatever happens on the way."""

import select
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, NoReturn

import psycopg
import pytest
from psycopg import errors

from worker.demo import sandbox
from worker.servers.postgres import Statement, at_once, connect, is_transient

INSERT = "insert into public.notes select * from unnest(%b::text[]) returning note"


@pytest.fixture
def notes(database: str) -> Iterator[psycopg.Connection]:
    with connect(database) as connection:
        connection.execute("create table public.notes (note text check (note <> 'refused'))")
        yield connection


def written(database: str) -> list[str]:
    with connect(database) as connection:
        return [note for (note,) in connection.execute("select note from public.notes order by 1")]


def test_each_answers_with_its_rows(notes: psycopg.Connection, database: str) -> None:
    statements = [Statement(INSERT, [["a", "b"]]), Statement(INSERT, [[]]), Statement("select 1, null")]
    assert at_once(notes, statements) == [[("a",), ("b",)], [], [("1", "")]]
    assert written(database) == ["a", "b"]


REFUSED = {
    "a row": (Statement(INSERT, [["refused"]]), errors.CheckViolation),
    "a column that is not there": (Statement("select nothing"), errors.UndefinedColumn),
    "no SQL": (Statement("selec"), errors.SyntaxError),
    "a rollback by hand": (Statement("rollback; select 1"), errors.SyntaxError),
}


@pytest.mark.parametrize(("statement", "error"), REFUSED.values(), ids=REFUSED)
def test_where_one_is_refused_nothing_is_written_and_the_connection_serves_on(
    notes: psycopg.Connection, database: str, statement: Statement, error: type[psycopg.Error]
) -> None:
    answers: list[list[Any]] = []
    with pytest.raises(error):
        at_once(notes, [Statement(INSERT, [["a"]]), statement, Statement(INSERT, [["b"]])], answers)
    assert answers == [[("a",)]]
    assert written(database) == []
    assert at_once(notes, [Statement("select 1")]) == [[("1",)]]


def test_what_cannot_be_sent_sends_nothing(notes: psycopg.Connection, database: str) -> None:
    with pytest.raises(psycopg.ProgrammingError, match="cannot adapt"):
        at_once(notes, [Statement(INSERT, [["a"]]), Statement(INSERT, [object()])])
    assert (notes.closed, written(database)) == (False, [])


def test_megabytes_go_both_ways_at_once(notes: psycopg.Connection) -> None:
    large = ["x" * 1_000_000] * 16
    answers = at_once(notes, [Statement(INSERT, [large])] * 2)
    assert [len(rows) for rows in answers] == [16, 16]


def test_why_the_server_ended_the_session_is_told(notes: psycopg.Connection) -> None:
    end = Statement("select pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(errors.AdminShutdown):
        at_once(notes, [end, Statement("select pg_sleep(10)")])
    assert notes.closed


@contextmanager
def cut_after_an_error(server: str) -> Iterator[int]:
    """The port of a proxy that hangs up right after the server's first ErrorResponse."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as upstream:
        upstream.connect(server)

        def serve() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                while True:
                    for one in select.select([client, upstream], [], [])[0]:
                        data = one.recv(1 << 20)
                        if not data:
                            return
                        if one is upstream and (begin := data.find(b"SERROR\0")) > 0:
                            (length,) = struct.unpack("!i", data[begin - 4 : begin])
                            client.sendall(data[: begin - 4 + length])
                            return
                        (client if one is upstream else upstream).sendall(data)

        thread = Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_a_link_that_breaks_behind_an_error_is_what_is_told(
    notes: psycopg.Connection, postgres: sandbox.Postgres, database: str
) -> None:
    with (
        cut_after_an_error(f"{postgres.directory}/.s.PGSQL.{postgres.port}") as port,
        connect(psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=port)) as connection,
        pytest.raises(psycopg.OperationalError) as raised,
    ):
        at_once(connection, [Statement(INSERT, [["refused"]])])
    assert (is_transient(raised.value), connection.closed) == (True, True)


class Timeout(Exception):
    """As RQ raises one out of whatever a job does."""


@contextmanager
def timeout(seconds: float) -> Iterator[None]:
    def end(*_: object) -> NoReturn:
        raise Timeout

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.signal(signal.SIGALRM, before)


def test_a_job_s_timeout_comes_through_and_writes_nothing(notes: psycopg.Connection, database: str) -> None:
    with timeout(0.2), pytest.raises(Timeout):
        at_once(notes, [Statement(INSERT, [["a"]]), Statement("select pg_sleep(3)")])
    assert (notes.closed, written(database)) == (True, [])


def test_a_level_that_somebody_set_is_not_used(notes: psycopg.Connection) -> None:
    notes.execute("set default_transaction_isolation = 'serializable'")
    assert at_once(notes, [Statement("show transaction_isolation")]) == [[("read committed",)]]
