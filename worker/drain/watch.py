"""The watch over a worker: one whose work stands still ends, so that others take its jobs."""

import os
import threading
from collections.abc import Callable, Collection
from contextlib import closing, suppress
from typing import Any

import redis

from .. import logs
from ..servers.redis import impatient
from .claims import Claims
from .pulse import Pulse

# How long a worker that ends at once tries to say why, in seconds.
_LAST_WORDS = 3.0


class Watch:
    """A thread that looks at the pulse now and then, `every` so many seconds.

    Of threads that stood still for `most` seconds it tells `rescue`, which returns those that it could not
    help; then it calls `end` with a sentence. Time is counted in looks: a process that was paused stood not.
    """

    def __init__(
        self,
        pulse: Pulse,
        *,
        every: float,
        most: float,
        rescue: Callable[[Collection[int]], Collection[int]],
        end: Callable[[str], None],
    ) -> None:
        self._pulse = pulse
        self._every = every
        self._most = most
        self._rescue = rescue
        self._end = end
        self._over = threading.Event()
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _run(self) -> None:
        looks: dict[tuple[int, int], int] = {}
        while not self._over.wait(self._every):
            looks = {step: looks.get(step, 0) + 1 for step in self._pulse.last_steps().items()}
            still = {
                thread for (thread, _), times in looks.items() if (times - 1) * self._every >= self._most
            }
            if still and (lost := self._rescue(still)):
                self._end(f"{_work(lost)} stood still for {self._most:.0f} s: its jobs go to other workers")
                return


def _work(threads: Collection[int]) -> str:
    return "the worker" if threading.main_thread().ident in threads else "a recording"


def end_at_once(worker: Any, claims: Claims, problem: str) -> None:
    """End a worker's process, whatever its threads do: its lease and its name first, for others to see."""
    with suppress(redis.RedisError, OSError), closing(impatient(worker.connection)) as soon:
        claims.desert(soon)
    if process := getattr(worker.scheduler, "_process", None):
        process.terminate()
    # Whoever stands still may hold what a line needs.
    telling = threading.Thread(target=_tell, args=(problem,), daemon=True)
    telling.start()
    telling.join(_LAST_WORDS)
    os._exit(1)


def _tell(problem: str) -> None:
    logs.error("worker_stopped", problem=problem)
    logs.flush()
