"""What shows whether a worker's work moves."""

import threading
from itertools import count


class Pulse:
    """The steps of the threads that have work: a thread whose last step stays the same stands still."""

    def __init__(self) -> None:
        self._steps = count()
        self._last: dict[int, int] = {}

    def step(self) -> None:
        """Say that this thread has work, and moves."""
        self._last[threading.get_ident()] = next(self._steps)

    def rest(self) -> None:
        """Say that this thread has nothing to do, or may take as long as it likes."""
        self._last.pop(threading.get_ident(), None)

    def last_steps(self) -> dict[int, int]:
        """The last step of each thread that has work, by the thread's number."""
        return dict(self._last)
