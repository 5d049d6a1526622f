"""The scheduler's side: make events, check them, put them on the queue.

    enqueue_outcomes(Redis(), [event(..., results=fcm.results(tokens, answer))])

From async code: `await asyncio.to_thread(enqueue_outcomes, redis, events)`. RQ is synchronous, so the client
is, too; threads may share it.
"""

import io
import json
import os
import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from copy import copy
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID

from redis import Redis, RedisError
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import DefaultSerializer

from . import NAME
from .events import Channel, Rejected, decode_all
from .queue.keys import JOB as JOB
from .queue.keys import QUEUE as QUEUE
from .queue.keys import RETRIES as RETRIES

#: Events a job: FCM's largest batch, and what one bulk statement records at its best.
EVENTS_PER_JOB = 500
#: Characters of JSON a job, far below what the worker refuses; 500 events usually have some 300,000.
LARGEST_JOB = 4 << 20
#: Seconds that Redis keeps a failed job, device tokens and all: time to correct and requeue it, then it goes.
#: (RQ's own default is a year.)
FAILURE_TTL = 14 * 24 * 3600

# Bytes of data that compressing would not make worth the time of both sides, one event's for example.
_SMALL = 1000
_LISTED = 100


class InvalidEvents(ValueError):
    """Some events are not what the wire contract asks for, so none of the call's is enqueued.

    Says for each its index, the path in it and the problem, never a value.
    """

    def __init__(self, rejected: Sequence[Rejected], events: int) -> None:
        #: One for each bad event, in order; `position` is its index.
        self.rejected = tuple(rejected)
        lines = [f"{len(rejected)} of {events} events are invalid, none is enqueued:"]
        lines += [str(line) for line in rejected[:_LISTED]]
        if len(rejected) > _LISTED:
            lines.append(f"and {len(rejected) - _LISTED} more")
        super().__init__("\n".join(lines))


def event(
    *,
    peer_mentor_id: UUID | str,
    chapter_id: UUID | str,
    scenario_rule_id: UUID | str,
    delivery_channel: Channel,
    attempted_at: datetime,
    date_window: str | None = None,
    idempotency_key: str | None = None,
    results: Sequence[dict[str, Any]] | None = None,
    skipped: str | None = None,
    final: bool = True,
) -> dict[str, Any]:
    """Make the payload of one event: what became of one prompt to one peer mentor.

    `attempted_at`: when sending began, with a time zone; take it before the call to the provider, since only
    tokens registered earlier are ever pruned. `date_window`: the period the prompt belongs to ("2026-W47"),
    or else its whole `idempotency_key`. `results`: one for each device token, as `fcm.results` and
    `apns.results` make them. `skipped`: instead of results, why nothing was sent ("quiet_hours"). `final`:
    False while you will try again. Checks nothing: `enqueue_outcomes` does.
    """
    optional = {
        "date_window": date_window,
        "idempotency_key": idempotency_key,
        "results": None if results is None else list(results),
        "skipped": skipped,
        "final": None if final else False,
    }
    return {
        "peer_mentor_id": str(peer_mentor_id),
        "chapter_id": str(chapter_id),
        "scenario_rule_id": str(scenario_rule_id),
        "delivery_channel": delivery_channel,
        "attempted_at": attempted_at.isoformat(),
        **{name: value for name, value in optional.items() if value is not None},
    }


def enqueue_outcomes(
    queue: Queue | Redis,
    events: Iterable[dict[str, Any]],
    *,
    per_job: int = EVENTS_PER_JOB,
    failure_ttl: int = FAILURE_TTL,
) -> list[Job]:
    """Check events and enqueue them, in one transaction of Redis: all of them or, on an error, none.

    `queue`: where to; a Redis connection stands for its queue `notiflog`. A queue with RQ's json serializer
    needs workers started with it, or the draining worker, which reads both. `events`: payloads as `event`
    makes them, of JSON types only. `per_job`: events a job, at most. `failure_ttl`: seconds to keep a failed
    job.

    Returns RQ's jobs, in the order of the events. Raises InvalidEvents before anything is enqueued, TypeError
    for an asynchronous client, ValueError for a queue of `is_async=False`, and redis.RedisError; enqueueing
    again is then right, whether or not the first time reached Redis: an event whose key is recorded counts as
    success.

    For the same reason the jobs have random ids. An id made of the events would save a repeated job, but
    while a failed job is kept under it RQ would either refuse the same events or overwrite that job.
    """
    queue = copy(queue_of(queue))
    if queue.job_class is Job:
        queue.job_class = _OutcomesJob
    if queue.serializer is DefaultSerializer:
        queue.serializer = _PlainPickle
    events = list(events)
    jobs = [
        Queue.prepare_data(
            JOB,
            args=(chunk,),
            description=f"outcomes: {len(chunk)}",  # RQ's own would quote the arguments, tokens among them
            result_ttl=0,  # the record is in PostgreSQL
            failure_ttl=failure_ttl,
            retry=Retry(max=RETRIES),
        )
        for chunk in _chunks(events, _sizes(events, per_job), per_job)
    ]
    try:
        return queue.enqueue_many(jobs) if jobs else []
    except RecursionError:  # raised before anything is enqueued
        deep = [n for n, event in enumerate(events) if not _can_be_stored(event, queue.serializer)]
        if not deep:  # the caller is
            raise
        raise InvalidEvents([Rejected(n, "$", "is nested too deeply") for n in deep], len(events)) from None


def queue_of(queue: Queue | Redis) -> Queue:
    """The queue to enqueue on; a Redis connection stands for its queue `notiflog`.

    Raises TypeError for an asynchronous client, and ValueError for a queue of `is_async=False`.
    """
    if isinstance(queue, Redis):
        queue = Queue(QUEUE, connection=queue)
    client = queue.connection if isinstance(queue, Queue) else queue
    if not isinstance(client, Redis):
        kind = type(client)
        raise TypeError(
            f"expected a Queue or a synchronous Redis connection, got {kind.__module__}.{kind.__qualname__}"
        )
    if not queue._is_async:
        raise ValueError(
            "a queue of is_async=False runs jobs here and now, and what fails is not tried again: take one "
            "without it, or, in a test, call jobs.record_outcomes(events)"
        )
    return queue


class _NotPlain(Exception):
    """A value whose type is not JSON's own, though JSON takes it: an enum's, or a dict's of another kind."""


class _PlainPickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        raise _NotPlain  # asked of no value that the worker reads


class _PlainPickle:
    """RQ's default serializer, but that what JSON takes for a plain value is stored as one.

    `http_status=HTTPStatus.OK` would be stored as a call of its class, which no worker makes.
    """

    @staticmethod
    def dumps(value: tuple[Any, ...]) -> bytes:
        stored = io.BytesIO()
        try:
            _PlainPickler(stored, pickle.HIGHEST_PROTOCOL).dump(value)
        except _NotPlain:
            function, instance, arguments, others = value
            plain = tuple(json.loads(json.dumps(arguments)))
            return bytes(DefaultSerializer.dumps((function, instance, plain, others)))
        return stored.getvalue()

    loads = DefaultSerializer.loads


def _can_be_stored(event: dict[str, Any], serializer: Any) -> bool:
    try:
        serializer.dumps((JOB, None, ([event],), {}))
    except RecursionError:
        return False
    return True


class _OutcomesJob(Job):  # type: ignore[misc]  # RQ is untyped
    """A job whose data is compressed fast, or not at all, and whose empty fields are left out.

    Every RQ reads it as it reads its own; and of one event it takes a quarter less room in Redis.
    """

    def to_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        data, self._data = self.data, b""  # RQ compresses thoroughly, which takes most of enqueueing
        try:
            fields: dict[str, Any] = super().to_dict(*args, **kwargs)
        finally:
            self._data = data
        filled = {name: value for name, value in fields.items() if value != ""}
        return {**filled, "data": data if len(data) < _SMALL else zlib.compress(data, 1)}


def _sizes(events: Sequence[dict[str, Any]], per_job: int) -> list[int]:
    """Check events; returns their sizes in characters of JSON, or zeros where no job can become too large."""
    slices = (events[n : n + per_job] for n in range(0, len(events), max(1, per_job)))
    if all(map(_are_good_and_small, slices)):  # usual, and told in half the time
        return [0] * len(events)
    sizes = []
    good, rejected = decode_all(events)
    for position, _ in good:
        try:
            size = len(json.dumps(events[position]))
        except (TypeError, ValueError, RecursionError) as error:  # names types, never a value
            rejected.append(Rejected(position, "$", f"is not JSON: {error}"))
            continue
        if size > LARGEST_JOB:
            rejected.append(Rejected(position, "$", f"is larger than {LARGEST_JOB >> 20} MiB of JSON"))
        sizes.append(size)
    if rejected:
        raise InvalidEvents(sorted(rejected), len(events))
    return sizes


def _are_good_and_small(events: Sequence[dict[str, Any]]) -> bool:
    """Whether all of some events may be enqueued, and as one job."""
    if decode_all(events)[1]:
        return False
    try:
        return len(json.dumps(events)) <= LARGEST_JOB
    except (TypeError, ValueError, RecursionError):
        return False


def _chunks(
    events: Sequence[dict[str, Any]], sizes: Sequence[int], most: int
) -> Iterator[list[dict[str, Any]]]:
    """Split events into lists of at most `most` events and LARGEST_JOB characters of JSON."""
    chunk: list[dict[str, Any]] = []
    total = 0
    for payload, size in zip(events, sizes, strict=True):
        if chunk and (len(chunk) >= most or total + size > LARGEST_JOB):
            yield chunk
            chunk, total = [], 0
        chunk.append(payload)
        total += size
    if chunk:
        yield chunk


_EPILOG = f"""\
examples:
  python -m {NAME}.replay --export bad.jsonl   rejected events, to correct
  python -m {NAME}.enqueue bad.jsonl           check them, and enqueue all of them or none
  python -m {NAME}.enqueue --dry-run -         only check what standard input has

One event a line, as JSON, see `python -m {NAME}.events --schema`. REDIS_URL as for the worker.
exit status: 0 done, 1 a problem (an event is invalid, the file cannot be read, Redis is away), 2 wrong usage
or configuration
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    import click  # not on a scheduler's path

    from .command import Command, complain, count, say
    from .servers.redis import BadAddress, client, explain

    @click.command("enqueue", cls=Command, epilog=_EPILOG)
    @click.argument("file", type=click.File("rb"))
    @click.option("--queue", default=QUEUE, show_default=True, help="where to")
    @click.option("--dry-run", is_flag=True, help="check only, enqueue nothing")
    def enqueue(*, file: BinaryIO, queue: str, dry_run: bool) -> int:
        """Enqueue the events of a file of JSON lines; - is standard input."""
        try:
            events, lines = _read(file)
            with closing(client(os.environ)) as redis:
                if dry_run:
                    _sizes(events, EVENTS_PER_JOB)
                    say(f"{count(len(events), 'event')} checked, none of them invalid")
                else:
                    jobs = enqueue_outcomes(Queue(queue, connection=redis), events)
                    say(f"{count(len(events), 'event')} enqueued on {queue}, in {count(len(jobs), 'job')}")
        except BadAddress as error:
            return complain(str(error), 2)
        except InvalidEvents as error:
            for bad in error.rejected[:_LISTED]:
                problem = "is not JSON" if events[bad.position] is _NO_JSON else f"{bad.path}: {bad.problem}"
                complain(f"line {lines[bad.position]}: {problem}")
            return complain(
                f"{len(error.rejected):,} of {count(len(events), 'event')} invalid, none is enqueued"
            )
        except RedisError as error:
            return complain(explain(error))
        return 0

    return enqueue(arguments)


_NO_JSON = object()  # no event either


def _read(file: BinaryIO) -> tuple[list[Any], list[int]]:
    """The events of JSON lines, and the number of each one's line; what is no JSON is left to be refused."""
    events, numbers = [], []
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                events.append(json.loads(line))
            except (ValueError, RecursionError):
                events.append(_NO_JSON)
            numbers.append(number)
    return events, numbers


if __name__ == "__main__":
    raise SystemExit(main())
