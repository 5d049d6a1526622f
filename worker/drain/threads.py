"""Threads for what must not keep a process from ending: each call's outcome is a future."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A pool of daemon threads; for those of an executor a process would wait at its end, maybe for ever."""

    def __init__(self, n: int, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._busy: dict[int, Future[Any]] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{at}", daemon=True) for at in range(n)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have a call made by one of the threads."""
        future: Future[T] = Future()
        self._calls.put((future, lambda: call(*args, **kwargs)))
        return future

    def thread_of(self, future: "Future[Any]") -> int | None:
        """The number of the thread that makes a call; None: it is not begun, or over."""
        return next((thread for thread, busy in list(self._busy.items()) if busy is future), None)

    def close(self, seconds: float) -> list[int]:
        """Begin no further call, and wait so long for those begun; returns the threads that go on."""
        while True:
            try:
                call = self._calls.get_nowait()
            except Empty:
                break
            if call:
                call[0].cancel()
        for _ in self._threads:
            self._calls.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.ident for thread in self._threads if thread.ident and thread.is_alive()]

    def _run(self) -> None:
        me = threading.get_ident()
        while call := self._calls.get():
            future, do = call
            if future.set_running_or_notify_cancel():
                self._busy[me] = future
                try:
                    future.set_result(do())
                except BaseException as error:  # SystemExit is for whoever waits for the outcome
                    future.set_exception(error)
                finally:
                    del self._busy[me]
            del call, future, do  # not to hold a turn's jobs while waiting for the next
