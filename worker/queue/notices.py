"""Notices for the app, as RQ jobs of a function of its own, which a worker of its own runs.

So an app's code has no part in recording: what it raises, waits for, prints or ends is its own worker's. What
is here only enqueues, never waits for room, and counts what found none.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from redis import Redis, RedisError
from rq import Queue

from .. import logs

#: The queue that a worker of the app's listens to.
QUEUE = "notiflog-notices"
#: Notices of a job.
PER_JOB = 100
#: Jobs that may wait to be run; what comes when there are more is lost.
MOST_JOBS = 1000
#: Seconds for which a job is kept: one that nobody ran, and one that failed. It names people.
KEPT = 24 * 3600

# Notices that may wait in a worker's memory, some 500 bytes each, while Redis is away.
_MOST_WAITING = 10_000
# Taken at once by the thread.
_AT_ONCE = 1000
# Seconds: between two tries while Redis is away, between two lines about losses, and at the end.
_PAUSE, _SILENCE, _LAST = 1.0, 60.0, 2.0
_REMEDY = (
    f"run `rq worker {QUEUE}` where the function of NOTIFLOG_HOOK is, and more of them if they do not keep up"
)

Notice = dict[str, Any]


def send(redis: Redis, function: str, notices: Sequence[Notice]) -> int:
    """Enqueue jobs that call `function` with lists of notices; returns how many found no room.

    Raises redis.RedisError with nothing enqueued, unless only the answer was lost.
    """
    queue = Queue(QUEUE, connection=redis)
    fitting = notices[: max(0, MOST_JOBS - queue.count) * PER_JOB]
    jobs = [
        Queue.prepare_data(
            function,
            args=(list(fitting[start : start + PER_JOB]),),
            description=f"notices: {len(fitting[start : start + PER_JOB])}",  # RQ's own would quote them
            ttl=KEPT,
            result_ttl=0,
            failure_ttl=KEPT,
        )
        for start in range(0, len(fitting), PER_JOB)
    ]
    if jobs:
        queue.enqueue_many(jobs)
    return len(notices) - len(fitting)


def send_at_once(redis: Redis, function: str, notices: Sequence[Notice]) -> None:
    """The same for a process that lives for one job: without a thread, and in one try. Never raises."""
    if notices:
        try:
            lost = send(redis, function, notices)
        except (RedisError, OSError):
            lost = len(notices)
        _tell(lost)


class Outbox:
    """Notices on their way to Redis, by a thread of their own. Threads may share it."""

    def __init__(self, redis: Redis, function: str) -> None:
        self._redis = redis
        self._function = function
        self._changed = threading.Condition()
        self._waiting: deque[Notice] = deque()
        self._closing = False
        self._sending = 0  # taken, and not in Redis yet
        self._lost = 0
        self._told = float("-inf")
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def put(self, notices: Sequence[Notice]) -> None:
        """Have notices sent, as far as there is room; neither waits nor raises."""
        if notices:
            with self._changed:
                room = max(0, _MOST_WAITING - len(self._waiting))
                self._waiting.extend(notices[:room])
                self._lost += len(notices[room:])
                self._changed.notify()

    def close(self) -> None:
        """Send what waits, for two seconds at most, and say what is lost."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_LAST)
        with self._changed:
            _tell(self._lost + self._sending + len(self._waiting))
            self._lost = 0
            self._waiting.clear()

    def _run(self) -> None:
        while notices := self._next():
            try:
                lost = send(self._redis, self._function, notices)
            except (RedisError, OSError):
                if self._is_over(notices):
                    return
                continue
            except Exception:  # of RQ's, unforeseen; the next ones may do
                lost = len(notices)
            self._count(lost)

    def _next(self) -> list[Notice]:
        """Wait for notices; none: it is closed and all are sent."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            self._sending = min(_AT_ONCE, len(self._waiting))
            return [self._waiting.popleft() for _ in range(self._sending)]

    def _is_over(self, notices: Sequence[Notice]) -> bool:
        """Keep notices for the next try, and wait for it; true: that was the last."""
        with self._changed:
            self._waiting.extendleft(reversed(notices))
            self._sending = 0
            if self._closing:
                return True
            self._changed.wait_for(lambda: self._closing, _PAUSE)
            return False

    def _count(self, lost: int) -> None:
        with self._changed:
            self._sending = 0
            self._lost += lost
            if not self._lost or time.monotonic() - self._told < _SILENCE:
                return
            lost, self._lost = self._lost, 0
            self._told = time.monotonic()
        _tell(lost)


def _tell(lost: int) -> None:
    if lost:
        logs.warning("notices_lost", notices=lost, remedy=_REMEDY)
