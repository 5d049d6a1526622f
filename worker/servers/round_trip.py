"""Some statements in one transaction and one round trip, with BEGIN and COMMIT: servers may be far away.

They are sent one behind the other and end in one Sync, as drivers send batches. A transaction pooler takes
that for one extended query; several Syncs on their way at once some cannot handle (Supavisor stalls). And
psycopg's own pipeline would lose why the server ended a session, and hide a job's timeout behind an error of
its own.
"""

import select
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import Buffer, PGconn, PGresult

_ENDED = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK)
_ENDS_THE_SESSION = ("FATAL", "PANIC")


class Statement(NamedTuple):
    """A statement with its parameters, for `%b` in it: all are sent as binary."""

    query: str
    parameters: Sequence[Any] = ()


def run(connection: psycopg.Connection, statements: Sequence[Statement], answers: list[list[Any]]) -> None:
    """Run statements on an idle connection, up to the first that fails.

    `answers`: gets the rows of each, as tuples of texts, as far as they came. Raises psycopg.Error: what the
    first of them failed with, and ends its transaction. Whatever else is raised meanwhile (a job's timeout)
    closes the connection.
    """
    # What cannot be sent is noticed before anything is.
    prepared = [_prepare(connection, statement) for statement in statements]
    try:
        _send(connection.pgconn, prepared)
        failed = _receive(connection.pgconn, answers)
    except BaseException:
        connection.close()  # nobody knows how far it came
        raise
    if connection.info.transaction_status == TransactionStatus.INERROR:
        connection.rollback()
    if failed:
        raise failed


class _Prepared(NamedTuple):
    query: bytes
    values: Sequence[Buffer | None]
    types: Sequence[int]
    formats: Sequence[Format]


def _prepare(connection: psycopg.Connection, statement: Statement) -> _Prepared:
    query, *between = statement.query.split("%b")
    for place, part in enumerate(between, 1):
        query += f"${place}{part}"
    transformer = Transformer(connection)
    parameters = statement.parameters
    values = transformer.dump_sequence(parameters, [PyFormat.BINARY] * len(parameters))
    return _Prepared(query.encode(), values, transformer.types or (), transformer.formats or ())


def _send(pgconn: PGconn, statements: Sequence[_Prepared]) -> None:
    pgconn.enter_pipeline_mode()
    for query, values, types, formats in statements:
        pgconn.send_query_params(query, values, types, formats, result_format=Format.TEXT)
    pgconn.pipeline_sync()
    # The server may answer before it has read all: who does not listen then waits for ever.
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():
        for _, events in poll.poll():
            if events & ~select.POLLOUT:
                pgconn.consume_input()


def _receive(pgconn: PGconn, answers: list[list[Any]]) -> psycopg.Error | None:
    """Take the answers; returns what the first statement failed with that did."""
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN)
    failed: psycopg.Error | None = None
    try:
        while True:
            while pgconn.is_busy():
                poll.poll()
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:  # a statement's end
                if pgconn.status == ConnStatus.BAD:  # and of all
                    raise psycopg.OperationalError("the connection is lost")
                continue
            if result.status == ExecStatus.PIPELINE_SYNC:
                break
            if result.status in _ENDED:
                answers.append(_rows(result))
            elif result.status != ExecStatus.PIPELINE_ABORTED and not failed:
                failed = errors.error_from_result(result, encoding="utf-8")
        pgconn.exit_pipeline_mode()
    except psycopg.OperationalError:
        if not (failed and failed.diag.severity_nonlocalized in _ENDS_THE_SESSION):
            raise  # the link broke, whatever was refused before
        pgconn.finish()  # else this is libpq's own word of that: the server said why, and hung up
    return failed


def _rows(result: PGresult) -> list[Any]:
    columns = range(result.nfields)
    return [
        tuple([(result.get_value(row, column) or b"").decode() for column in columns])
        for row in range(result.ntuples)
    ]
