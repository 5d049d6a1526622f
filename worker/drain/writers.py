"""The draining worker's connections: write turns side by side, and wait for PostgreSQL when it is away."""

import os
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from redis import Redis

from ..judge.batch import Batch
from ..queue.notices import Outbox
from ..record import counters
from ..record.account import Report
from ..record.recording import record_patiently
from ..record.tokens import Tokens
from ..servers import postgres
from ..servers.redis import impatient
from ..servers.settings import settings
from .pulse import Pulse
from .threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 15.0
# Seconds for a thread to end whose statement was cancelled.
_LAST_STEPS = 5.0


class GivenUp(Exception):
    """The worker is to stop and PostgreSQL is still away: the turn is not written."""


class Stopped(Exception):
    """Somebody stopped one of the turn's jobs: the turn is not written."""


class Writers:
    """Threads that write turns, over connections that are kept.

    `pulse`: moves with each statement and each try.
    """

    def __init__(self, redis: Redis, pulse: Pulse) -> None:
        self._redis = impatient(redis)
        self._pulse = pulse
        self._threads = Threads(settings().connections, "commit")
        self._in_use: dict[int, psycopg.Connection] = {}  # by thread
        # The one used last is taken first: where one is enough, no second is opened.
        self._idle: list[psycopg.Connection] = []
        self._stopped: set[int] = set()  # threads
        self._stopping = threading.Event()
        self._closing = False
        self._tokens = Tokens(settings())
        self._faults: list[Counter[str]] = []
        hook = settings().hook
        self._outbox = Outbox(self._redis, hook) if hook else None

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run a call that writes, in one of the threads."""

        def run() -> T:
            try:
                self._pulse.step()
                return call(*args, **kwargs)
            finally:
                self._pulse.rest()
                self._stopped.discard(threading.get_ident())

        return self._threads.submit(run)

    def write(self, batches: Sequence[Batch], numbers: Counter[str]) -> list[Report]:
        """Write a turn's outcomes in one transaction.

        `numbers`: gets what is to be counted when the turn's jobs are finished.
        Waits for PostgreSQL as long as it takes. Raises GivenUp after `give_up`, and DatabaseFault for a
        fault that will not pass by itself.
        """
        reports = None
        try:
            reports = record_patiently(
                self._connected,
                self._tokens,
                batches,
                self._redis,
                self._pauses(),
                numbers,
                self._outbox.put if self._outbox else None,
            )
        finally:
            if reports is None:
                self._faults.append(numbers)  # no finished job takes them along
        if reports is None:
            raise GivenUp
        return reports

    def give_up(self) -> None:
        """Wait for PostgreSQL no longer. Turns that are being written are not affected."""
        self._stopping.set()

    def stop(self, call: "Future[Any]") -> bool:
        """Have a call that writes raise Stopped, soon; False: it is not begun, or over."""
        thread = self._threads.thread_of(call)
        if thread is None:
            return False
        self._stopped.add(thread)
        if connection := self._active(thread):
            _cancel(connection)
        return True

    def hang_up(self, threads: Collection[int]) -> list[int]:
        """Have threads that wait for PostgreSQL's answer try again; returns those that wait for other things.

        A server that is frozen gives no answer and closes nothing.
        """
        others = []
        for thread in threads:
            if connection := self._active(thread):
                _hang_up(connection)
            else:
                others.append(thread)
        return others

    def close(self) -> None:
        """End the threads and their connections, cancelling statements that still run.

        Takes seconds at most, also when the server has stopped answering. A thread that stands still for
        another reason is left behind; it keeps no process from ending.
        """
        self.give_up()
        self._closing = True
        for thread in list(self._in_use):
            if connection := self._active(thread):
                _cancel(connection)  # or the session would wait on, for a lock for instance
                _hang_up(connection)
        self._threads.close(_LAST_STEPS)
        self._close_idle()
        counters.count(self._redis, sum(self._faults, Counter()))
        if self._outbox:
            self._outbox.close()
        self._redis.close()

    def _active(self, thread: int) -> psycopg.Connection | None:
        """The connection on which a thread waits for an answer."""
        connection = self._in_use.get(thread)
        if connection and connection.info.transaction_status == TransactionStatus.ACTIVE:
            return connection
        return None

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        """A connection for this thread. After a fault all are made anew: they lead to the same server."""
        thread = threading.get_ident()
        self._step()
        connection = self._in_use[thread] = self._open()
        try:
            yield connection
        except psycopg.Error:
            connection.close()
            self._close_idle()
            if self._closing:  # it was cancelled from here, and is no fault of PostgreSQL's
                raise GivenUp from None
            raise
        finally:
            del self._in_use[thread]
            if not connection.closed:
                self._idle.append(connection)

    def _open(self) -> psycopg.Connection:
        while connection := self._take_idle():
            if not _was_told(connection):
                return connection
            connection.close()
        connection = postgres.connect(settings().database_url)
        connection.cursor_factory = self._cursor()
        return connection

    def _take_idle(self) -> psycopg.Connection | None:
        with suppress(IndexError):  # other threads take some, too
            return self._idle.pop()
        return None

    def _close_idle(self) -> None:
        while connection := self._take_idle():
            connection.close()

    def _cursor(self) -> type[psycopg.Cursor[Any]]:
        step = self._step

        class Moving(psycopg.Cursor[Any]):
            def execute(self, *args: Any, **kwargs: Any) -> Any:
                step()
                return super().execute(*args, **kwargs)

        return Moving

    def _step(self) -> None:
        if threading.get_ident() in self._stopped:
            raise Stopped
        self._pulse.step()

    def _pauses(self) -> Iterator[float]:
        """Wait after each try, twice as long as before, until the worker is to stop."""
        pause = _FIRST_PAUSE
        yield pause
        while not self._stopping.wait(pause):
            pause = min(2 * pause, _LONGEST_PAUSE)
            yield pause


def _was_told(connection: psycopg.Connection) -> bool:
    """Whether the server said something while it was asked nothing: most likely that it ends the session."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _cancel(connection: psycopg.Connection) -> None:
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=2)


def _hang_up(connection: psycopg.Connection) -> None:
    """Wake the thread that waits for an answer: a server that is frozen gives none and closes nothing."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
