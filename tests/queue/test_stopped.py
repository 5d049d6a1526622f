"""Why jobs stopped is told of any of them, whatever anybody put into Redis, and never with anybody's data."""

import base64
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker

from tests import make
from tests.drain.conftest import FAILED, JOB, QUARANTINE, QUEUE, Drain, call, drain, new_worker, put, queue
from tests.drain.test_poison import ODD_IDS, UNREADABLE, make_odd
from worker.demo import sample
from worker.queue import stopped
from worker.queue.keys import raw_id
from worker.queue.stopped import StoppedJob, stopped_jobs

__all__ = ["drain", "new_worker", "queue"]

SECRET = "d0c:APA91b-SECRET"
REJECTED = "2 of 5 events rejected, all others are recorded; correct them and enqueue:"


def fail(redis: Any, job_id: str, error: str = "", *, data: bytes = b"", **fields: Any) -> None:
    """Write a failed job by hand, with the text that RQ would keep of its error."""
    put(redis, job_id, data or call([]), **{"status": "failed", **fields})
    redis.lrem(QUEUE, 1, job_id)
    redis.zadd(FAILED, {job_id: 2_000_000_000 + redis.zcard(FAILED)})
    if error:
        text = base64.b64encode(zlib.compress(error.encode()))
        redis.xadd(f"rq:results:{job_id}", {"type": 2, "exc_string": text}, id="1763272800000-0")


def set_aside(redis: Any, job_id: str | bytes, data: bytes | None = None, **fields: Any) -> None:
    """Write a quarantined job by hand."""
    if isinstance(job_id, str):
        put(redis, job_id, data or call([{}, {}]), **fields)
        redis.lrem(QUEUE, 1, job_id)
    redis.rpush(QUARANTINE, job_id)


def only(redis: Redis) -> StoppedJob:
    (job,) = stopped_jobs(redis)
    return job


@pytest.mark.parametrize("kind", ["draining", "stock"])
def test_a_job_with_rejected_events_tells_which_and_why(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, new_worker: Callable[..., Any], kind: str
) -> None:
    events = [make.event(app, number) for number in range(5)]
    events[1]["delivery_channel"] = SECRET
    events[4]["chapter_id"] = chapter = make.stranger()
    job = queue.enqueue(JOB, events)
    if kind == "draining":
        drain()
    else:
        new_worker(SimpleWorker).work(burst=True)

    stopped = only(redis)
    assert stopped._replace(since=None) == StoppedJob(
        job.id,
        "failed",
        None,
        "rejected",
        "2 of 5 events rejected, all others are recorded",
        5,
        (
            "[1] $.delivery_channel: expected 'fcm' or 'apns'",
            f"[4] $.chapter_id: there is no such chapter: {chapter}",
        ),
    )
    assert stopped.since == job.latest_result().created_at


def test_an_error_is_told_as_rq_stored_it_with_the_events_its_job_carries(redis: Redis) -> None:
    fail(redis, "job", f"worker.servers.settings.ConfigError: unset\n{SECRET}", data=call([{}, {}, {}]))
    job = only(redis)
    assert (job.reason, job.why, job.events, job.rejected) == ("configuration", "unset", 3, ())


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (call([{}] * 7), 7),
        (call(kwargs={"events": [{}]}), 1),
        (b'["worker.jobs.record_outcomes", null, [[1, 2]], {}]', 2),
        (call({}), None),
        (call(function="worker.jobs.sweep_tokens"), None),
        (call(function="os.system"), None),
        (b"\x80junk", None),
    ],
    ids=["list", "by keyword", "json", "no list", "sweep", "another function", "junk"],
)
def test_events_are_counted_where_the_job_is_one_of_ours(
    redis: Redis, data: bytes, events: int | None
) -> None:
    fail(redis, "job", "TypeError", data=data)
    assert only(redis).events == events


#: What stands in the place of a failed job's results.
RESULTS: dict[str, Callable[[Any, str], object]] = {
    "text": lambda redis, key: redis.set(key, "text"),
    "no error": lambda redis, key: redis.xadd(key, {"type": 1}),
    "not base64": lambda redis, key: redis.xadd(key, {"exc_string": b"\xff\xff\xff"}),
    "not compressed": lambda redis, key: redis.xadd(key, {"exc_string": base64.b64encode(b"text")}),
    "cut off": lambda redis, key: redis.xadd(key, {"exc_string": b"eJw"}),
    "year 584556019": lambda redis, key: redis.xadd(key, {"a": "b"}, id="18446744073709551615-1"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_whatever_stands_for_a_result_the_job_is_told(redis: Redis, name: str) -> None:
    fail(redis, "job")
    RESULTS[name](redis, "rq:results:job")
    assert only(redis).why == "nobody wrote down why"


def test_an_errors_text_is_inflated_within_bounds(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopped, "_LONGEST_TEXT", 1000)
    lines = "\n".join(f"[{number}] $: wrong" for number in range(10_000))
    fail(redis, "job", f"worker.jobs.RejectedEvents: {REJECTED}\n{lines}")
    assert 10 < len(only(redis).rejected) < 100


@pytest.mark.parametrize("name", ODD_IDS)
@pytest.mark.parametrize("place", ["failed", "quarantined"])
def test_odd_ids_and_keys_hide_no_other_job(redis: Redis, name: str, place: str) -> None:
    odd = make_odd(redis, name)
    if place == "failed":
        redis.zadd(FAILED, {odd: 1})
    else:
        redis.rpush(QUARANTINE, odd)
    fail(redis, "good", "TypeError")
    by_id = {raw_id(job.job_id): job for job in stopped_jobs(redis)}
    assert by_id.keys() == {odd, b"good"}
    assert by_id[odd].state == place
    if name.startswith("a-"):
        assert by_id[odd].reason == "unreadable"
    elif place == "quarantined":
        assert by_id[odd].reason == "repaired"


def test_an_odd_id_by_which_other_jobs_wait_is_told(redis: Redis) -> None:
    set_aside(redis, "a:b")
    redis.sadd("rq:job:a:b:dependents", "other")
    job = only(redis)
    assert (job.reason, job.why) == (
        "unreadable",
        "RQ 3 does not allow its id, by which other jobs wait for it",
    )


def test_an_unreadable_field_of_a_quarantined_job_is_named(redis: Redis) -> None:
    for number, (field, values) in enumerate(UNREADABLE.items()):
        set_aside(redis, f"bad-{number}")
        redis.hset(f"rq:job:bad-{number}", mapping={field.encode(errors="surrogateescape"): values[0]})
    told = [(job.reason, job.why) for job in stopped_jobs(redis)]
    names = [f"field {name} cannot be read" for name in list(UNREADABLE)[:-1]]
    assert told == [("unreadable", why) for why in [*names, "a field's name is not text"]]


#: How a quarantined job is made, and what is told of it.
SET_ASIDE: dict[str, tuple[Callable[[Any], object], str, str, int | None]] = {
    "deleted": (
        lambda redis: redis.rpush(QUARANTINE, "job"),
        "gone",
        "its data expired, or somebody deleted it",
        None,
    ),
    "too large": (
        lambda redis: set_aside(redis, "job", b"x" * ((16 << 20) + 1), compressed=False),
        "unreadable",
        "larger than 16 MiB",
        None,
    ),
    "inflates": (
        lambda redis: set_aside(redis, "job", bytes(65 << 20)),
        "unreadable",
        "the job's data inflates to more than 64 MiB",
        None,
    ),
    "repaired": (lambda redis: set_aside(redis, "job"), "repaired", "set aside once, can be read now", 2),
}


@pytest.mark.parametrize("name", SET_ASIDE)
def test_why_a_job_is_in_the_quarantine(redis: Redis, name: str) -> None:
    make_it, *told = SET_ASIDE[name]
    make_it(redis)
    job = only(redis)
    assert [job.reason, job.why, job.events] == told
    assert (job.state, job.since) == ("quarantined", None)


class Touches:
    """Pickles as a call that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_that_is_stored_runs(redis: Redis, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    gadget = pickle.dumps(Touches(witness))
    fail(redis, "failed", "TypeError", data=gadget, result=gadget, meta=gadget)
    redis.xadd("rq:results:failed", {"type": 1, "return_value": base64.b64encode(gadget)})
    set_aside(redis, "aside", gadget, result=gadget, meta=gadget)
    assert [job.events for job in stopped_jobs(redis)] == [None, None]
    assert not witness.exists()


def test_jobs_that_stop_meanwhile_wait_for_the_next_look(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopped, "_JOBS", 2)
    monkeypatch.setattr(stopped, "_IDS", 2)
    for number in range(5):
        fail(redis, f"failed-{number}")
        set_aside(redis, f"aside-{number}")
    looking = stopped_jobs(redis)
    seen = [next(looking).job_id]
    redis.zadd(FAILED, {"failed-0": 2_000_000_099})
    fail(redis, "late")
    seen += [job.job_id for job in looking]
    assert seen == [f"{state}-{number}" for state in ("failed", "aside") for number in range(5)]


@pytest.mark.parametrize("job_id", [b"4f1c-9a_07", b"\xff\xfe", b"a b:c", b"a\nb\\n\x1b", "ü€".encode(), b""])
def test_an_id_is_told_in_plain_ascii_and_can_be_told_back(job_id: bytes, redis: Redis) -> None:
    set_aside(redis, job_id)
    told = only(redis).job_id
    assert (told.isascii(), told.isprintable(), raw_id(told)) == (True, True, job_id)


def test_events_need_not_be_counted(redis: Redis) -> None:
    fail(redis, "read", "TypeError", data=call([{}]))
    fail(redis, "told", f"worker.jobs.RejectedEvents: {REJECTED}")
    assert [job.events for job in stopped_jobs(redis)] == [1, 5]
    assert [job.events for job in stopped_jobs(redis, count_events=False)] == [None, 5]


def test_hashes_are_fetched_in_small_batches_and_none_that_is_larger_than_any_of_ours(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        fail(redis, f"job-{number}", data=call([{}] * number))
    fail(redis, "large", data=b"x" * 2000, compressed=False)
    monkeypatch.setattr(stopped, "LARGEST_DATA", 1000)
    size = redis.hstrlen("rq:job:job-4", "data")
    monkeypatch.setattr(stopped, "_BYTES", 2 * size)
    batches: list[list[bytes]] = []
    fetch = stopped._fetch

    def recorded(redis: Redis, jobs: Any) -> Any:
        batches.append([seen.raw_id for seen in jobs])
        return fetch(redis, jobs)

    monkeypatch.setattr(stopped, "_fetch", recorded)
    assert [job.events for job in stopped_jobs(redis)] == [0, 1, 2, 3, 4, None]
    assert batches == [[b"job-0", b"job-1"], [b"job-2", b"job-3"], [b"job-4"]]


def test_a_job_that_somebody_overwrites_meanwhile_is_told_all_the_same(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(redis, "failed", "TypeError")
    set_aside(redis, "aside")
    fetch = stopped._fetch

    def overwritten(redis: Redis, jobs: Any) -> Any:
        for seen in jobs:
            redis.set(b"rq:job:" + seen.raw_id, "text")
        return fetch(redis, jobs)

    monkeypatch.setattr(stopped, "_fetch", overwritten)
    assert [(job.job_id, job.events) for job in stopped_jobs(redis)] == [("failed", None), ("aside", None)]
