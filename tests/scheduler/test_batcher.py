"""Events that come one at a time, from threads and tasks, and go into common jobs."""

import asyncio
import os
import signal
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
import redis as redis_py
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq import Queue

from tests import make
from worker.batcher import Batcher
from worker.demo import sample
from worker.enqueue import InvalidEvents


class HeldQueue(Queue):  # type: ignore[misc]  # RQ is untyped
    """Its first jobs go nowhere until they may, or end with `error` then."""

    def hold(self, error: BaseException | None = None) -> None:
        self.reached, self.may_go_on, self.error = Event(), Event(), error

    def enqueue_many(self, jobs: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.reached.is_set():
            self.reached.set()
            assert self.may_go_on.wait(30)
            if self.error:
                raise self.error
        return super().enqueue_many(jobs, *args, **kwargs)


@pytest.fixture
def queue(redis: Redis) -> HeldQueue:
    queue = HeldQueue("notiflog", connection=redis)
    queue.hold()
    return queue


def enqueued(queue: Queue) -> list[list[str]]:
    """The keys of each job's events, in order."""
    return [[event["idempotency_key"] for event in job.args[0]] for job in queue.jobs]


def keys(first: int, last: int) -> list[str]:
    return [f"key-{number}" for number in range(first, last + 1)]


Call = Callable[[Batcher], Awaitable[None]]


def call(*events: dict[str, Any]) -> Call:
    return lambda batcher: batcher.enqueue_async(*events)


def calls(app: sample.App, first: int, last: int) -> list[Call]:
    return [call(make.event(app, number)) for number in range(first, last + 1)]


def meanwhile(queue: HeldQueue, calls: list[Call]) -> list[BaseException | None]:
    """Make the first call, and the others while it waits for Redis; returns what each ended with."""

    async def make_all() -> list[BaseException | None]:
        batcher = Batcher(queue)
        tasks = [asyncio.ensure_future(calls[0](batcher))]
        await asyncio.to_thread(queue.reached.wait)
        tasks += [asyncio.ensure_future(call(batcher)) for call in calls[1:]]
        await asyncio.sleep(0)  # all have begun
        queue.may_go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(make_all())


def test_what_comes_while_redis_is_asked_goes_into_one_job(queue: HeldQueue, app: sample.App) -> None:
    assert meanwhile(queue, calls(app, 0, 9)) == [None] * 10
    assert enqueued(queue) == [keys(0, 0), keys(1, 9)]


def test_threads_enqueue_each_event_once(redis: Redis, app: sample.App) -> None:
    queue = Queue("notiflog", connection=redis)
    batcher = Batcher(queue)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(batcher.enqueue, [make.event(app, number) for number in range(200)]))
    assert sorted(key for job in enqueued(queue) for key in job) == sorted(keys(0, 199))


def test_when_a_call_returns_its_events_are_in_redis(redis: Redis, app: sample.App) -> None:
    Batcher(redis, failure_ttl=60).enqueue(*[make.event(app, number) for number in range(2)])
    queue = Queue("notiflog", connection=redis)
    assert (enqueued(queue), queue.jobs[0].failure_ttl) == ([keys(0, 1)], 60)


def test_a_bad_event_costs_the_events_of_its_own_call_alone(queue: HeldQueue, app: sample.App) -> None:
    bad = call(make.event(app, 3), make.event(app, 4, chapter_id="x"))
    *fine, error, last = meanwhile(queue, [*calls(app, 0, 2), bad, *calls(app, 5, 5)])
    assert (fine, last) == ([None] * 3, None)
    assert isinstance(error, InvalidEvents)
    assert [each.position for each in error.rejected] == [1]
    assert enqueued(queue) == [keys(0, 0), [*keys(1, 2), "key-5"]]


class AwayQueue(HeldQueue):
    """Redis is lost whenever it was asked."""

    def enqueue_many(self, *args: Any, **kwargs: Any) -> Any:
        super().enqueue_many(*args, **kwargs)
        raise redis_py.ConnectionError("away")


@pytest.fixture
def away(redis: Redis) -> AwayQueue:
    queue = AwayQueue("notiflog", connection=redis)
    queue.hold()
    return queue


def test_an_error_of_redis_reaches_every_call_that_was_enqueued_along(
    away: AwayQueue, app: sample.App
) -> None:
    ended = meanwhile(away, calls(app, 0, 3))
    assert [type(error) for error in ended] == [redis_py.ConnectionError] * 4


def test_every_call_has_an_error_of_its_own(away: AwayQueue, app: sample.App) -> None:
    ended = meanwhile(away, calls(app, 0, 3))
    assert len({id(error) for error in ended}) == 4


def test_behind_an_error_the_next_call_is_tried_anew(queue: HeldQueue, app: sample.App) -> None:
    queue.hold(redis_py.ConnectionError("away"))
    error, *others = meanwhile(queue, calls(app, 0, 3))
    assert (type(error), others) == (redis_py.ConnectionError, [None] * 3)
    assert enqueued(queue) == [keys(1, 3)]


def test_a_call_that_a_signal_ends_takes_no_other_along(queue: HeldQueue, app: sample.App) -> None:
    queue.hold(KeyboardInterrupt())
    batcher = Batcher(queue)
    with ThreadPoolExecutor(1) as threads:
        interrupted = threads.submit(batcher.enqueue, make.event(app, 0))
        queue.reached.wait()
        queue.may_go_on.set()
        with pytest.raises(KeyboardInterrupt):
            interrupted.result()
    batcher.enqueue(make.event(app, 1))
    assert enqueued(queue) == [keys(0, 1)]


class TimeLimit(Exception):
    """As RQ and Celery raise one out of whatever a thread does."""


def test_a_time_limit_ends_the_call_of_its_thread_alone(queue: HeldQueue, app: sample.App) -> None:
    queue.hold(TimeLimit())
    first, *others = meanwhile(queue, calls(app, 0, 3))
    assert (type(first), others) == (TimeLimit, [None] * 3)
    assert enqueued(queue) == [keys(1, 3)]


def test_tasks_that_wait_take_one_thread_in_all(queue: HeldQueue, app: sample.App) -> None:
    batcher = Batcher(queue)

    async def make_all() -> str:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        tasks = [
            asyncio.ensure_future(batcher.enqueue_async(make.event(app, number))) for number in range(50)
        ]
        other = await asyncio.wait_for(asyncio.to_thread(str, "done"), 10)
        queue.may_go_on.set()
        await asyncio.gather(*tasks)
        return other

    assert asyncio.run(make_all()) == "done"
    assert sorted(key for job in enqueued(queue) for key in job) == sorted(keys(0, 49))


def test_a_process_forked_while_another_thread_sends_has_its_own(queue: HeldQueue, app: sample.App) -> None:
    batcher = Batcher(queue)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(batcher.enqueue, make.event(app, 0))
        queue.reached.wait()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
            child = os.fork()
        if not child:
            signal.alarm(10)
            batcher.enqueue(make.event(app, 1))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        queue.may_go_on.set()
        sending.result()
    assert enqueued(queue) == [keys(1, 1), keys(0, 0)]


@pytest.mark.parametrize(
    ("queue_for", "error", "words"),
    [
        (
            lambda redis: AsyncRedis(),
            TypeError,
            r"synchronous Redis connection, got redis\.asyncio\.",
        ),
        (lambda redis: Queue(connection=AsyncRedis()), TypeError, r"got redis\.asyncio\."),
        (lambda redis: "redis://", TypeError, r"got builtins\.str"),
        (lambda redis: Queue(connection=redis, is_async=False), ValueError, "is_async=False"),
    ],
)
def test_a_queue_that_cannot_serve_is_told_of_at_once(
    redis: Redis, queue_for: Callable[[Redis], Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Batcher(queue_for(redis))
