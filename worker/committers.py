"""The draining worker's connections: write turns side by side, and wait for PostgreSQL when it is away."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import psycopg
from psycopg.pq import TransactionStatus

from worker import db, logs
from worker.config import settings
from worker.jobs import Batch, Report, record

#: Two: while one commits, the other's statements run. More gains nothing on the machines measured.
CONNECTIONS = 2

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0


class GivenUp(Exception):
    """The worker is to stop and PostgreSQL is still away: the turn is not written."""


class Committers:
    """Threads that write turns, each with a kept connection of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="commit")
        self._connections: dict[int, psycopg.Connection] = {}  # by thread
        self._stopping = threading.Event()

    def write(self, batches: Sequence[Batch]) -> "Future[list[Report]]":
        """Write a turn's outcomes in one transaction, waiting for PostgreSQL as long as it takes.

        The future raises GivenUp after `give_up`, DatabaseFault for a fault that will not pass by itself.
        """
        return self._threads.submit(self._write, batches)

    def give_up(self) -> None:
        """Wait for PostgreSQL no longer. Turns that are being written are not affected."""
        self._stopping.set()

    def close(self) -> None:
        """End the threads and their connections, cancelling statements that still run."""
        self.give_up()
        for connection in list(self._connections.values()):
            if connection.info.transaction_status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=5)
        self._threads.shutdown(cancel_futures=True)
        for connection in self._connections.values():
            connection.close()

    def _write(self, batches: Sequence[Batch]) -> list[Report]:
        pause = _FIRST_PAUSE
        while True:
            try:
                return record(self._connection(), settings(), batches)
            except psycopg.Error as error:
                if not db.is_transient(error):
                    raise db.DatabaseFault(db.explain(error)) from None
                logs.warning("database_unavailable", problem=db.explain(error), retry_in=pause)
                if connection := self._connections.get(threading.get_ident()):
                    connection.close()
            if self._stopping.wait(pause):
                raise GivenUp
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _connection(self) -> psycopg.Connection:
        thread = threading.get_ident()
        connection = self._connections.get(thread)
        if connection is None or connection.closed:
            connection = self._connections[thread] = db.connect(settings().database_url)
        return connection
