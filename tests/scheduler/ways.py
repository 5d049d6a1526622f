"""Every way in which an app can enqueue by hand; runs in the app's environment, beside its RQ.

`python ways.py URL MENTOR CHAPTER RULE`: prints, as JSON, the name of each way that this RQ knows; the event
that it enqueued has that name for its key.
"""

import json
import pickle
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from uuid import UUID

import rq
from redis import Redis
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import DefaultSerializer, JSONSerializer

JOB = "worker.jobs.record_outcomes"
VERSION = tuple(int(part) for part in rq.__version__.split(".")[:2])
UTC = timezone.utc  # noqa: UP017 - also for Pythons of the app's

Way = Callable[[str], Any]

redis: Any
ids: list[str]
WAYS: dict[str, Way] = {}


def event(key: str, **changes: Any) -> dict[str, Any]:
    mentor, chapter, rule = ids
    return {
        "peer_mentor_id": mentor,
        "chapter_id": chapter,
        "scenario_rule_id": rule,
        "idempotency_key": key,
        "delivery_channel": "fcm",
        "attempted_at": "2026-11-16T06:00:00Z",
        "results": [{"token": key, "http_status": 200, "body": {"name": "projects/p/messages/1"}}],
        **changes,
    }


def queue(**options: Any) -> Queue:
    return Queue("notiflog", connection=redis, **options)


def way(
    name: str, since: tuple[int, int] = (0, 0), before: tuple[int, int] = (99, 0)
) -> Callable[[Way], Way]:
    """Register a way that RQs know from one version on, or up to another."""

    def register(run: Way) -> Way:
        if since <= VERSION < before:
            WAYS[name] = run
        return run

    return register


# --- calls ------------------------------------------------------------------------------------------------

way("enqueue")(lambda key: queue().enqueue(JOB, [event(key)]))
way("args=")(lambda key: queue().enqueue(JOB, args=([event(key)],)))
way("args= a list")(lambda key: queue().enqueue(JOB, args=[[event(key)]]))
way("kwargs=")(lambda key: queue().enqueue(JOB, kwargs={"events": [event(key)]}))
way("by keyword")(lambda key: queue().enqueue(JOB, events=[event(key)]))
way("enqueue_call")(lambda key: queue().enqueue_call(func=JOB, args=([event(key)],)))
way("enqueue_call kwargs")(lambda key: queue().enqueue_call(JOB, kwargs={"events": [event(key)]}))
way("enqueue_many")(lambda key: queue().enqueue_many([Queue.prepare_data(JOB, args=([event(key)],))]))
way("enqueue_many kwargs")(
    lambda key: queue().enqueue_many([Queue.prepare_data(JOB, kwargs={"events": [event(key)]})])
)
way("create and enqueue_job")(
    lambda key: queue().enqueue_job(
        Job.create(JOB, args=([event(key)],), connection=redis, origin="notiflog")
    )
)


def job_function() -> Any:
    """What an app has that imports it."""

    def record_outcomes(events: Any) -> None: ...

    record_outcomes.__module__, record_outcomes.__qualname__ = "worker.jobs", "record_outcomes"
    return record_outcomes


@way("a function")
def a_function(key: str) -> None:
    queue().enqueue(job_function(), [event(key)])


@way("the decorator")
def the_decorator(key: str) -> None:
    from rq.decorators import job

    job("notiflog", connection=redis)(job_function()).delay([event(key)])


@way("a pipeline")
def a_pipeline(key: str) -> None:
    with redis.pipeline() as pipeline:
        queue().enqueue(JOB, [event(key)], pipeline=pipeline)
        pipeline.execute()


@way("installed name")
def installed_name(key: str) -> None:
    queue().enqueue("notiflog.jobs.record_outcomes", [event(key)])


# --- options ----------------------------------------------------------------------------------------------

OPTIONS: dict[str, dict[str, Any]] = {
    "description": {"description": "outcomes"},
    "description in other letters": {"description": "Nachfragen für Müller, 追跡"},
    "meta": {"meta": {"trace": "ünï", "n": 1}},
    "at_front": {"at_front": True},
    "job_timeout": {"job_timeout": 30},
    "job_timeout text": {"job_timeout": "5m"},
    "no timeout": {"job_timeout": -1},
    "result_ttl": {"result_ttl": 500},
    "result_ttl none": {"result_ttl": 0},
    "result_ttl for ever": {"result_ttl": -1},
    "result_ttl text": {"result_ttl": "1h"},
    "failure_ttl": {"failure_ttl": 60},
    "ttl": {"ttl": 600},
    "job_id": {"job_id": "my-id_1"},
    "retry": {"retry": Retry(max=3)},
    "retry interval": {"retry": Retry(max=3, interval=[1, 2, 3])},
    "on_success by name": {"on_success": "app.callbacks.done"},
    "on_failure by name": {"on_failure": "app.callbacks.failed"},
}


def with_options(options: dict[str, Any], key: str) -> None:
    queue().enqueue(JOB, [event(key)], **options)


for name, options in OPTIONS.items():
    way(name)(partial(with_options, options))

for number, odd in enumerate(("outcomes:2026-W47:1", "week.47", "chapters/1", "a b", "Müller", "a:b:c")):
    way(f"odd id {number}", before=(2, 6) if ":" in odd else (2, 8))(partial(with_options, {"job_id": odd}))


@way("callbacks")
def callbacks(key: str) -> None:
    from rq import Callback

    done = Callback("app.callbacks.done", timeout=5)
    queue().enqueue(JOB, [event(key)], on_success=done, on_failure=done, on_stopped=done)


# --- serializers and data ---------------------------------------------------------------------------------

way("json serializer")(lambda key: queue(serializer=JSONSerializer).enqueue(JOB, [event(key)]))
way("json serializer by name", since=(3, 0))(lambda key: queue(serializer="json").enqueue(JOB, [event(key)]))
way("default serializer")(lambda key: queue(serializer=DefaultSerializer).enqueue(JOB, [event(key)]))


def with_serializer(serializer: Any, key: str) -> None:
    queue(serializer=serializer).enqueue(JOB, [event(key)])


for protocol in range(pickle.HIGHEST_PROTOCOL + 1):

    class Serializer:
        PROTOCOL = protocol

        @classmethod
        def dumps(cls, value: Any) -> bytes:
            return pickle.dumps(value, protocol=cls.PROTOCOL)

        loads = pickle.loads

    way(f"pickle protocol {protocol}")(partial(with_serializer, Serializer))
way("a tuple of events")(lambda key: queue().enqueue(JOB, (event(key),)))
way("ids as UUIDs")(lambda key: queue().enqueue(JOB, [event(key, chapter_id=UUID(ids[1]))]))
way("a time as datetime")(
    lambda key: queue().enqueue(JOB, [event(key, attempted_at=datetime(2026, 11, 16, tzinfo=UTC))])
)
way("many events")(lambda key: queue().enqueue(JOB, [event(key), *(event(f"{key} {n}") for n in range(999))]))
way("a large body")(
    lambda key: queue().enqueue(
        JOB, [event(key, results=[{"token": "t", "http_status": 500, "body": "x" * 1_000_000}])]
    )
)


# --- what others wait for, what waits for the clock, groups -----------------------------------------------


@way("a dependent")
def a_dependent(key: str) -> None:
    first = queue().enqueue(JOB, [])
    queue().enqueue(JOB, [event(key)], depends_on=first)


@way("a dependent of several")
def a_dependent_of_several(key: str) -> None:
    queue().enqueue(JOB, [event(key)], depends_on=[queue().enqueue(JOB, []), queue().enqueue(JOB, [])])


@way("a dependent by id")
def a_dependent_by_id(key: str) -> None:
    queue().enqueue(JOB, [event(key)], depends_on=queue().enqueue(JOB, []).id)


@way("a dependent that takes failures")
def a_dependent_that_takes_failures(key: str) -> None:
    from rq.job import Dependency

    first = queue().enqueue(JOB, "no list")
    queue().enqueue(JOB, [event(key)], depends_on=Dependency(jobs=[first], allow_failure=True))


way("enqueue_at")(lambda key: queue().enqueue_at(datetime.now(UTC) - timedelta(seconds=1), JOB, [event(key)]))
way("enqueue_in")(lambda key: queue().enqueue_in(timedelta(0), JOB, [event(key)]))


@way("a group", since=(1, 17))
def a_group(key: str) -> None:
    from rq.group import Group

    Group.create(connection=redis).enqueue_many(queue(), [Queue.prepare_data(JOB, args=([event(key)],))])


@way("a repeat", since=(2, 2))
def a_repeat(key: str) -> None:
    from rq import Repeat

    queue().enqueue(JOB, [event(key)], repeat=Repeat(times=1, interval=1))


@way("unique", since=(2, 7))
def unique(key: str) -> None:
    queue().enqueue(JOB, [event(key)], job_id="once", unique=True)


@way("a rate limit", since=(3, 0))
def a_rate_limit(key: str) -> None:
    from rq.rate_limit import RateLimit

    queue().enqueue(JOB, [event(key)], rate_limit=RateLimit("calm", 1))


if __name__ == "__main__":
    url, *ids = sys.argv[1:]
    redis = Redis.from_url(url)
    unknown = {}
    for name, run in WAYS.items():
        try:
            run(name)
        except Exception as error:
            unknown[name] = f"{type(error).__name__}: {error}"
    sys.stdout.write(json.dumps({"ways": [name for name in WAYS if name not in unknown], "unknown": unknown}))
