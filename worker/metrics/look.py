"""Questions to servers that may be slow or silent: nobody waits longer for an answer than they want to."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from typing import Generic, TypeVar

T = TypeVar("T")


class Look(Generic[T]):
    """One question, asked by one thread at a time however many want to know the answer.

    `ask`: may raise anything, which is no answer. `keep`: for how many seconds an answer is good enough; with
    0 it is asked each time.
    """

    def __init__(self, ask: Callable[[], T], keep: float = 0) -> None:
        self._ask = ask
        self._keep = keep
        self._lock = threading.Lock()
        self._asked: Future[T] | None = None
        self._last: tuple[float, T] | None = None

    def start(self) -> None:
        """Ask, unless it is being asked, or was a moment ago."""
        with self._lock:
            fresh = self._last and time.monotonic() - self._last[0] < self._keep
            if not fresh and (self._asked is None or self._asked.done()):
                self._asked = Future()
                # A daemon: a server that never answers must not keep the process from ending.
                threading.Thread(target=self._run, args=(self._asked,), daemon=True).start()

    def answer(self, until: float) -> T | None:
        """What is known by `until`, by the monotonic clock; None: nothing is."""
        asked = self._asked
        if asked and not asked.done():
            try:
                asked.exception(max(0.0, until - time.monotonic()))
            except TimeoutError:
                if not self._keep:
                    return None
        last = self._last
        return last[1] if last else None

    def _run(self, asked: "Future[T]") -> None:
        try:
            answer = self._ask()
        except BaseException as error:
            self._last = None
            asked.set_exception(error)
        else:
            self._last = time.monotonic(), answer
            asked.set_result(answer)
