"""Events and jobs as nobody should send them: good ones, good ones with one thing wrong, anything at all.

Made by `random.Random`, a hundred times faster than a property-based library, for volume.
"""

import json
import pickle
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from worker.demo import sample

JOB = "worker.jobs.record_outcomes"

#: A job's data: function, instance, arguments, keywords.
Call = tuple[str, None, tuple[list[Any]], dict[str, Any]]

EVENT_FIELDS = (
    "peer_mentor_id",
    "chapter_id",
    "scenario_rule_id",
    "idempotency_key",
    "date_window",
    "delivery_channel",
    "attempted_at",
    "results",
    "skipped",
    "final",
    "version",
)
RESULT_FIELDS = ("token", "http_status", "body", "sent_at", "delivery_channel", "target")

#: Values of JSON that some field, library or database takes amiss.
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 404, 410, 1000, 2**31, 2**63, 2**80, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "\0", "a\0b", "\ud800", "\udfff\ud800", "x" * 255, "x" * 256, "x" * 5000),
    *("\u4e2d" * 255, "\u4e2d" * 4096, "e\u0301", "\u00e9", "\u202e\u2028\u2029\x85", "\U0001f600"),
    *("'); drop table public.users; --", '"$1"', "%s %b {}", "\\N", '\r\n{"event": 1}\n\x1b[31m', "<html>"),
    *("null", "NaN", "[]", "{", '{"error": {"code": 404}}', '{"reason": "Unregistered"}', "\ufeff{}"),
    *("fcm", "apns", "FCM", "fcm\0", "sms", "quiet_hours", "fid", "live_activity"),
    *("00000000-0000-0000-0000-000000000001", "00000000000000000000000000000001", "urn:uuid:" + "0" * 32),
    *("{00000000-0000-0000-0000-000000000001}", "\u0660" * 32, "0" * 31, "-" * 36),
    *("2026-11-16T06:00:00Z", "2026-11-16T06:00:00", "2026-11-16", "2026-02-30T00:00:00Z", "infinity", "now"),
    *(
        "9999-12-31T23:59:59-14:00",
        "0000-01-01T00:00:00Z",
        "2016-12-31T23:59:60Z",
        "1999-12-31T23:00:00-14:00",
    ),
    *(
        "2100-12-31T23:59:59-14:00",
        "2026-11-16T06:00:00+99:99",
        "2026-11-16T06:00:00.1234567890Z",
        1794808800,
    ),
    *([], {}, [[]], [{}], [None], {"": None}, {"\0": 1}, {"error": {}}, {"error": [{"errorCode": 1}]}),
    *({"reason": "Unregistered", "timestamp": 2**70}, {"reason": ["x"]}, {"name": "projects/p/messages/1"}),
)

#: Plain values that only pickles can carry.
ODD_PICKLED: tuple[Any, ...] = (
    *(b"", b"\xff\xfe", b"fcm", {1, 2}, frozenset(), (), (1, 2), {1: 2}, {None: None}, {(1, 2): []}),
    *(datetime(2026, 11, 16), datetime(2026, 11, 16, tzinfo=UTC), datetime.max, timedelta(1)),  # noqa: DTZ001, DTZ901
    *(UUID(int=1), UUID(int=2**128 - 1), Decimal("1"), Decimal("NaN"), bytearray(b"x")),
)

_NAMES = (
    *EVENT_FIELDS,
    *RESULT_FIELDS,
    "",
    "\0",
    "$",
    "x` - at `$.x",
    "error",
    "details",
    "reason",
    "\ud800",
)


class Made(NamedTuple):
    """One event as a job carries it."""

    payload: Any
    #: Nothing is wrong with it: it must be recorded.
    good: bool


class MadeJob(NamedTuple):
    """One job as Redis stores it."""

    job_id: str
    data: bytes
    #: None: the data is damaged, nobody can tell what it says.
    events: list[Made] | None


def anything(random: Random, odd: Sequence[Any], depth: int = 3) -> Any:
    """Some nested value."""
    kind = random.random()
    if depth == 0 or kind < 0.5:
        return random.choice(odd)
    inner = (anything(random, odd, depth - 1) for _ in range(random.randrange(4)))
    return list(inner) if kind < 0.7 else {random.choice(_NAMES): value for value in inner}


def mutated(random: Random, event: dict[str, Any], odd: Sequence[Any]) -> dict[str, Any]:
    """The event with one thing changed, taken away or added."""
    event = dict(event)
    value = random.choice(odd) if random.random() < 0.8 else anything(random, odd)
    match random.randrange(6):
        case 0 | 1:
            event[random.choice(EVENT_FIELDS)] = value
        case 2:
            del event[random.choice(list(event))]
        case 3:
            event[random.choice(_NAMES)] = value
        case _:
            result = dict(random.choice(event.get("results") or [{"token": "token", "http_status": 200}]))
            result[random.choice(RESULT_FIELDS)] = value
            event = {**event, "results": [result] * random.randrange(1, 4)}
            event.pop("skipped", None)
    return event


class Generator:
    """Makes jobs; everything follows from the seed.

    Damaged jobs keep to the app's last chapter, all others to the rest: so each row tells where it is from.
    """

    def __init__(self, app: sample.App, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - made-up data
        self.app = app._replace(chapters=app.chapters[:-1])
        self.damaged_app = app._replace(chapters=app.chapters[-1:])
        self._batches = 0

    def jobs(self, events: int) -> list[MadeJob]:
        """Jobs of 1 to 500 events, `events` in all, and after each of them one whose data is damaged."""
        random, made = self.random, self._events(events)
        self._batches += 1
        jobs: list[MadeJob] = []
        start = 0
        while start < events:
            part = made[start : start + random.choice([1, 20, 500, 500])]
            start += len(part)
            jobs.append(self._job(f"fuzz-{self._batches}-{len(jobs)}", part))
            jobs.append(self._damaged_job(f"fuzz-{self._batches}-{len(jobs)}"))
        return jobs

    def _events(self, n: int) -> list[Callable[[Sequence[Any]], Made]]:
        # Odd values depend on the serializer of the job that the event gets into, so each is finished there.
        scheduler = sample.Scheduler(self.app, self.random.getrandbits(32))
        events = scheduler.good_events(n, f"window-{self._batches}")
        return [self._event(event, events) for event in events]

    def _event(
        self, event: dict[str, Any], others: Sequence[dict[str, Any]]
    ) -> Callable[[Sequence[Any]], Made]:
        random, kind = self.random, self.random.random()
        if kind < 0.5:
            return lambda odd: Made(event, True)
        if kind < 0.56:
            again = {**random.choice(others), "results": [], "final": random.random() < 0.8}
            again.pop("skipped", None)
            return lambda odd: Made(again, True)
        if kind < 0.565:
            parent = random.choice(EVENT_FIELDS[:3])
            orphan = {**event, parent: str(UUID(int=random.getrandbits(128), version=4))}
            return lambda odd: Made(orphan, False)
        if kind < 0.87:
            return lambda odd: Made(mutated(random, event, odd), False)
        return lambda odd: Made(anything(random, odd), False)

    def _job(self, job_id: str, part: Sequence[Callable[[Sequence[Any]], Made]]) -> MadeJob:
        pickled = self.random.random() < 0.7
        odd = ODD + ODD_PICKLED if pickled else ODD
        events = [finish(odd) for finish in part]
        call: Call = (JOB, None, ([event.payload for event in events],), {})
        data = pickle.dumps(call, protocol=5) if pickled else json.dumps(call).encode()
        return MadeJob(job_id, zlib.compress(data, 1) if self.random.random() < 0.5 else data, events)

    def _damaged_job(self, job_id: str) -> MadeJob:
        random = self.random
        scheduler = sample.Scheduler(self.damaged_app, random.getrandbits(32))
        call: Call = (JOB, None, (scheduler.good_events(random.randrange(1, 5), f"damaged-{job_id}"),), {})
        data = bytearray(random.choice([pickle.dumps(call, protocol=5), json.dumps(call).encode()]))
        for _ in range(random.choice([1, 1, 1, 3, 10])):
            at = random.randrange(len(data))
            match random.randrange(5):
                case 0:
                    data[at] = random.randrange(256)
                case 1:
                    data[at] ^= 1 << random.randrange(8)
                case 2:
                    del data[at : at + random.randrange(1, 50)]
                case 3:
                    data[at:at] = random.randbytes(random.randrange(1, 10))
                case _:
                    data[at:at] = data[: random.randrange(1, 100)]
        damaged = bytes(data) or b"\0"
        if random.random() < 0.3:
            damaged = random.randbytes(random.randrange(1, 200))
        elif random.random() < 0.5:
            compressed = bytearray(zlib.compress(damaged))
            compressed[random.randrange(len(compressed))] ^= random.choice([0, 0, 1, 128])
            damaged = bytes(compressed)
        return MadeJob(job_id, damaged, None)
