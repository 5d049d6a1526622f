"""For schedulers that have one event at a time: what many threads or tasks have goes into common jobs.

    batcher = Batcher(Redis())  # one for the process
    batcher.enqueue(event(..., results=fcm.results(tokens, answer)))

In a job of its own an event costs Redis and the workers many times what it costs in a large one.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from threading import Condition
from typing import Any
from weakref import WeakSet

from redis import Redis, RedisError
from rq import Queue

from .enqueue import FAILURE_TTL, InvalidEvents, enqueue_outcomes, queue_of


class Batcher:
    """Enqueues at once what many threads, or tasks of asyncio, have at the same time.

    Nobody waits for others to come: while one call waits for Redis the events of all others gather, and the
    next enqueues them together. When a call returns, its events are in Redis. A forked process starts with
    none waiting. Not for signal handlers: one might wait for the very call that it interrupts.

    `queue`, `failure_ttl`: as for `enqueue_outcomes`. Raises TypeError and ValueError, as that does, for a
    queue that cannot serve.
    """

    def __init__(self, queue: Queue | Redis, *, failure_ttl: int = FAILURE_TTL) -> None:
        self._queue = queue_of(queue)
        self._failure_ttl = failure_ttl
        self._start_anew()
        _batchers.add(self)

    def _start_anew(self) -> None:
        self._waiting: list[_Call] = []
        self._sending = False
        self._changed = Condition()
        # One thread for all tasks: it sends what they have, and finds that of the others sent.
        self._thread = ThreadPoolExecutor(1, "batcher")

    def enqueue(self, *events: dict[str, Any]) -> None:
        """Enqueue events, as `event` makes them.

        Raises what `enqueue_outcomes` raises: InvalidEvents where some of these are bad, so that none of them
        is enqueued, which costs no other call; and redis.RedisError, as every call does that was to be
        enqueued along: enqueueing again is then right, whether or not the first time reached Redis.
        """
        self._finish(self._begin(events))

    async def enqueue_async(self, *events: dict[str, Any]) -> None:
        """The same from async code. The client is a synchronous one all the same: it is asked in a thread."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._finish, self._begin(events))

    def _begin(self, events: tuple[dict[str, Any], ...]) -> "_Call":
        call = _Call(events)
        with self._changed:
            self._waiting.append(call)
        return call

    def _finish(self, call: "_Call") -> None:
        """Wait until another has taken a call along; or take along, with it, all others that wait."""
        leads = False
        try:
            with self._changed:
                while self._sending and not call.done:
                    self._changed.wait()
                if not call.done:
                    leads = self._sending = True
                    calls = [each for each in self._waiting if not each.done]
            if leads:
                self._send(calls)
        except Exception:  # a time limit of its thread, for instance: no other's concern
            call.done = True
            raise
        finally:
            if leads:  # what is not done goes with the next
                with self._changed:
                    self._sending = False
                    self._waiting = [each for each in self._waiting if not each.done]
                    self._changed.notify_all()
        if call.error:
            raise call.error

    def _send(self, calls: "list[_Call]") -> None:
        events = [(event, call) for call in calls for event in call.events]
        try:
            enqueue_outcomes(self._queue, [event for event, _ in events], failure_ttl=self._failure_ttl)
        except InvalidEvents as error:
            if len(calls) > 1:
                bad = {id(events[each.position][1]) for each in error.rejected}
                for call in calls:
                    if id(call) in bad:
                        self._send([call])  # it is told of its own events alone
                self._send([call for call in calls if id(call) not in bad])
                return
            calls[0].error = error
        except RedisError as error:
            for call in calls:
                call.error = _of_its_own(error)
        for call in calls:
            call.done = True


_batchers: WeakSet[Batcher] = WeakSet()


def _after_fork() -> None:
    # It inherits whatever its parent's other threads were about, but not the threads.
    for batcher in list(_batchers):
        batcher._start_anew()


os.register_at_fork(after_in_child=_after_fork)


def _of_its_own(error: RedisError) -> RedisError:
    """An error to raise: each raise of one and the same would make its traceback longer."""
    with suppress(Exception):  # of a class that cannot be made again
        return copy(error)
    return error


@dataclass(eq=False)
class _Call:
    events: tuple[dict[str, Any], ...]
    done: bool = False
    error: Exception | None = None


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("batcher"))
