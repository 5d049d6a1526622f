"""The draining worker's connections: write turns side by side, and wait for PostgreSQL when it is away."""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import ParamSpec, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from redis import Redis

from ..judge.batch import Batch
from ..record import brake
from ..record.account import Report
from ..record.recording import record_patiently
from ..record.tokens import Tokens
from ..servers import postgres
from ..servers.redis import impatient
from ..servers.settings import settings

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0


class GivenUp(Exception):
    """The worker is to stop and PostgreSQL is still away: the turn is not written."""


class Writers:
    """Threads that write turns, each with a kept connection of its own."""

    def __init__(self, redis: Redis) -> None:
        self._redis = impatient(redis)
        self._threads = ThreadPoolExecutor(settings().connections, thread_name_prefix="commit")
        self._connections: dict[int, psycopg.Connection] = {}  # by thread
        self._stopping = threading.Event()
        self._closing = False
        self._tokens = Tokens(settings())

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run a call that writes, in one of the threads."""
        return self._threads.submit(call, *args, **kwargs)

    def write(self, batches: Sequence[Batch], uncounted: Sequence[Batch] | None = None) -> list[Report]:
        """Write a turn's outcomes in one transaction on this thread's connection.

        `uncounted`: those whose answers the brake has not counted yet; None: all.
        Waits for PostgreSQL as long as it takes. Raises GivenUp after `give_up`, and DatabaseFault for a
        fault that will not pass by itself.
        """
        reports = record_patiently(
            self._connected, self._tokens, batches, self._redis, self._pauses(), uncounted
        )
        if reports is None:
            raise GivenUp
        return reports

    def give_up(self) -> None:
        """Wait for PostgreSQL no longer. Turns that are being written are not affected."""
        self._stopping.set()

    def close(self) -> None:
        """End the threads and their connections, cancelling statements that still run.

        Takes seconds at most, also when the server has stopped answering.
        """
        self.give_up()
        self._closing = True
        for connection in list(self._connections.values()):
            if connection.info.transaction_status == TransactionStatus.ACTIVE:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=2)  # or the session would wait on, for a lock for instance
                _hang_up(connection)
        self._threads.shutdown(cancel_futures=True)
        for connection in self._connections.values():
            connection.close()
        brake.count(self._redis, self._tokens.take_counts())
        self._redis.close()

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        """This thread's connection; after a fault it is made anew."""
        thread = threading.get_ident()
        connection = self._connections.get(thread)
        if connection is None or connection.closed:
            connection = self._connections[thread] = postgres.connect(settings().database_url)
        try:
            yield connection
        except psycopg.Error:
            connection.close()
            if self._closing:  # it was cancelled from here, and is no fault of PostgreSQL's
                raise GivenUp from None
            raise

    def _pauses(self) -> Iterator[float]:
        """Wait after each try, twice as long as before, until the worker is to stop."""
        pause = _FIRST_PAUSE
        yield pause
        while not self._stopping.wait(pause):
            pause = min(2 * pause, _LONGEST_PAUSE)
            yield pause


def _hang_up(connection: psycopg.Connection) -> None:
    """Wake the thread that waits for an answer: a server that is frozen gives none and closes nothing."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
