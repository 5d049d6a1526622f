"""Jobs of made-up events, with what must become of each; the same for the same seed."""

import math
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from redis import Redis
from rq import Queue
from rq.job import Job

from tests import make
from worker.demo import sample
from worker.enqueue import JOB, enqueue_outcomes
from worker.queue.keys import QUEUE

LARGEST_JOB = 500  # events
_NEIGHBOURS = 2000  # duplicates repeat one of so many last events: jobs that run side by side overlap

Event = dict[str, Any]


class Batch(NamedTuple):
    """One job to come."""

    events: list[Event]
    #: Positions of events that must be rejected.
    rejected: list[int]
    #: Enqueued by RQ alone, with no Retry, not by `enqueue_outcomes`.
    plain: bool


@dataclass
class Workload:
    """The jobs, and what must be left of them."""

    app: sample.App
    batches: list[Batch] = field(default_factory=list)
    #: The statuses reported for each key; any of them may be the one recorded.
    statuses: dict[str, set[str]] = field(default_factory=dict)
    #: Tokens that must be gone, and those that must stay.
    dead: list[str] = field(default_factory=list)
    alive: list[str] = field(default_factory=list)
    #: Of the latter, those that a device registered again after the send.
    again: list[str] = field(default_factory=list)
    duplicates: int = 0

    @property
    def events(self) -> int:
        return sum(len(batch.events) for batch in self.batches)

    @property
    def rejected(self) -> int:
        return sum(len(batch.rejected) for batch in self.batches)

    def insert_devices(self, connection: psycopg.Connection) -> None:
        """Register every device in the app's table, as it is before the first job runs."""
        registered = [(token, sample.REGISTERED_AT) for token in (*self.dead, *self.alive)]
        registered += [(token, sample.REGISTERED_AGAIN_AT) for token in self.again]
        with connection.cursor().copy("copy public.device_tokens from stdin") as copy:
            for token, at in registered:
                copy.write_row((token, self.app.users[0], at))


def workload(app: sample.App, events: int, seed: int, largest: int = LARGEST_JOB) -> Workload:
    """Make up `events` events in jobs of 1 to `largest`, small ones as frequent as large ones."""
    made = Workload(app)
    chance = random.Random(seed)  # noqa: S311 - made-up data
    maker = _Maker(made, chance)
    while (left := events - made.events) > 0:
        size = min(left, int(math.exp(chance.uniform(0, math.log(largest + 1)))))
        made.batches.append(maker.batch(size, plain=chance.random() < 0.3))
    return made


def enqueue(redis: Redis, batch: Batch) -> Job:
    """Put a job on the queue, as its producer does."""
    if batch.plain:
        return Queue(QUEUE, connection=redis).enqueue(JOB, batch.events, description="outcomes")
    (job,) = enqueue_outcomes(redis, batch.events)
    return job


class _Maker:
    def __init__(self, made: Workload, chance: random.Random) -> None:
        self._made = made
        self._chance = chance
        self._numbers = 0
        self._accepted: list[Event] = []

    def batch(self, size: int, *, plain: bool) -> Batch:
        batch = Batch([], [], plain)
        for position in range(size):
            self._numbers += 1
            kind = self._chance.random()
            if kind < 0.005:
                batch.rejected.append(position)
                batch.events.append(self._bad(plain))
            elif kind < 0.1 and self._accepted:
                batch.events.append(self._duplicate(conflicting=kind < 0.03))
            else:
                batch.events.append(self._new(kind))
        return batch

    def _new(self, kind: float) -> Event:
        """An event with a key of its own."""
        event = make.event(self._made.app, self._numbers, results=[self._delivered()])
        if kind < 0.2:
            status, event["results"] = "failed", [self._unregistered()]
        elif kind < 0.25:
            status, event["results"] = "failed", [self._unregistered(again=True)]
        elif kind < 0.3:
            status, event["results"] = "failed", [self._unavailable()]
        elif kind < 0.35:
            status, event["results"] = "delivered", [self._delivered(), self._unregistered()]
        elif kind < 0.4:
            status, event["results"] = "skipped", []
        elif kind < 0.42:
            # Its sender will try again: no row, but the token goes.
            return event | {"final": False, "results": [self._unregistered()]}
        else:
            status = "delivered"
        return self._report(event, status)

    def _duplicate(self, *, conflicting: bool) -> Event:
        """An event with the key of one that another job, or this one, has already."""
        self._made.duplicates += 1
        event = self._chance.choice(self._accepted[-_NEIGHBOURS:])
        if not conflicting:
            return event
        if self._chance.random() < 0.5:
            return self._report(event | {"results": []}, "skipped")
        # The token of a duplicate goes, too, whether or not its row is new.
        return self._report(event | {"results": [self._unregistered()]}, "failed")

    def _bad(self, plain: bool) -> Event:
        """An event to be rejected; `enqueue_outcomes` lets only those through that are well-formed."""
        event = make.event(self._made.app, self._numbers, results=[])
        if plain and self._chance.random() < 0.5:
            return event | {"delivery_channel": "sms"}
        return event | {"chapter_id": str(UUID(int=self._chance.getrandbits(128), version=4))}

    def _report(self, event: Event, status: str) -> Event:
        self._made.statuses.setdefault(event["idempotency_key"], set()).add(status)
        self._accepted.append(event)
        return event

    def _delivered(self) -> Event:
        return make.result(self._token(self._made.alive))

    def _unavailable(self) -> Event:
        return make.result(self._token(self._made.alive), http_status=503, body=None)

    def _unregistered(self, *, again: bool = False) -> Event:
        return make.unregistered(self._token(self._made.again if again else self._made.dead))

    def _token(self, tokens: list[str]) -> str:
        token = f"{self._chance.getrandbits(256):064x}"
        tokens.append(token)
        return token
