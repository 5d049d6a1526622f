"""For schedulers that have one event at a time: what many threads or tasks have goes into common jobs.

    batcher = Batcher(Redis())  # one for the process
    batcher.enqueue(event(..., results=fcm.results(tokens, answer)))

In a job of its own an event costs Redis and the workers many times what it costs in a large one.
"""

import asyncio
from dataclasses import dataclass
from threading import Condition
from typing import Any

from redis import Redis
from rq import Queue

from .enqueue import FAILURE_TTL, InvalidEvents, enqueue_outcomes


class Batcher:
    """Enqueues at once what many threads, or tasks of asyncio, have at the same time.

    Nobody waits for others to come: while one call waits for Redis the events of all others gather, and the
    next enqueues them together. When a call returns, its events are in Redis.

    `queue`, `failure_ttl`: as for `enqueue_outcomes`.
    """

    def __init__(self, queue: Queue | Redis, *, failure_ttl: int = FAILURE_TTL) -> None:
        self._queue = queue
        self._failure_ttl = failure_ttl
        self._waiting: list[_Call] = []
        self._sending = False
        self._changed = Condition()

    def enqueue(self, *events: dict[str, Any]) -> None:
        """Enqueue events, as `event` makes them: all of them or, on an error, none.

        Raises what `enqueue_outcomes` raises: InvalidEvents where some of these are bad, which costs no other
        call; and redis.RedisError, as every call does that was to be enqueued along.
        """
        self._finish(self._begin(events))

    async def enqueue_async(self, *events: dict[str, Any]) -> None:
        """The same from async code. The client is a synchronous one all the same: it is asked in a thread."""
        await asyncio.to_thread(self._finish, self._begin(events))

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
                    calls = self._waiting.copy()
            if leads:
                self._send(calls)
        finally:
            if leads:  # where a signal ended it, what is not done goes with the next
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
        except Exception as error:
            if isinstance(error, InvalidEvents) and len(calls) > 1:
                bad = {id(events[each.position][1]) for each in error.rejected}
                for call in calls:
                    if id(call) in bad:
                        self._send([call])  # it is told of its own events alone
                self._send([call for call in calls if id(call) not in bad])
                return
            for call in calls:
                call.error = error
        for call in calls:
            call.done = True


@dataclass(eq=False)
class _Call:
    events: tuple[dict[str, Any], ...]
    done: bool = False
    error: Exception | None = None


if __name__ == "__main__":
    from .command import no_command

    raise SystemExit(no_command("batcher"))
