"""Whatever bytes a job holds: the worker lives, nothing runs, and RQ can read what the worker passes."""

import pickle
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from rq import Callback, Queue, Repeat, Retry
from rq.job import Dependency, Job
from rq.rate_limit import RateLimit

from tests import make
from tests.drain.conftest import JOB, QUARANTINE, Drain, put
from worker.demo import sample
from worker.judge.batch import Batch, judge
from worker.queue import plain
from worker.queue.fields import (
    _READABLE,
    _is_ids,
    _is_intervals,
    _is_number,
    _is_text,
    _is_time,
    unreadable_field,
)

RELAXED = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

OPCODES = [
    getattr(pickle, name)
    for name in dir(pickle)
    if name.isupper() and isinstance(getattr(pickle, name), bytes) and len(getattr(pickle, name)) == 1
]
# Without the two that reserve memory by a number they read: 4 GiB, for nothing.
CODE = st.lists(
    st.one_of(
        st.sampled_from([opcode for opcode in OPCODES if opcode not in (b"r", b"j")]),
        st.sampled_from(
            [b"\x8c\x02os", b"\x8c\x06system", b"\x8c\x04uuid\x8c\x04UUID\x93", b"K\x01", b")", b"}"]
        ),
        st.sampled_from([b"\x8c\x08datetime\x8c\x08datetime\x93", b"\x8c\x07decimal\x8c\x07Decimal\x93"]),
        st.binary(max_size=3),
    ),
    max_size=20,
).map(lambda parts: b"\x80\x04" + b"".join(parts) + b".")
DATA = st.one_of(st.binary(max_size=200), CODE, st.text(max_size=50).map(str.encode))


@given(st.lists(DATA, min_size=1, max_size=20))
@RELAXED
def test_no_data_ends_the_worker(redis: Redis, drain: Drain, datas: list[bytes]) -> None:
    redis.flushall()
    for number, data in enumerate(datas):
        put(redis, f"job-{number}", data, compressed=number % 2 == 0)
        if number % 3 == 0:
            redis.hset(f"rq:job:job-{number}", "group_id", "group")
    drain()
    became = [redis.hget(f"rq:job:job-{number}", "status") for number in range(len(datas))]
    # Empty data is none: RQ takes such a job for one that was deleted.
    assert set(became) <= {b"failed", b"queued"}
    assert [data for data, status in zip(datas, became, strict=True) if status == b"queued" and data] == []
    assert redis.llen(QUARANTINE) == 0


@given(DATA)
@settings(max_examples=150, deadline=None)
def test_data_that_is_no_call_is_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(plain.UntrustedJob, match=r"cannot be read|only runs|takes one argument"):
        plain.read_call(data)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=3)
    | st.uuids(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["body", "http_status", "sent_at", "token", "extra"]), PLAIN), PLAIN)
@settings(max_examples=150, deadline=None)
def test_plain_values_in_an_event_are_judged(changes: dict[str, Any], other: Any) -> None:
    app = sample.App([UUID(int=2)], [UUID(int=3)], [UUID(int=4)])
    events = [make.event(app, results=[make.result() | changes]), other]
    assert isinstance(judge(events), Batch)


NOWHERE = Redis(port=1)  # restoring a job asks it nothing

NUMBERS = [name.decode() for name in _READABLE[_is_number]]
TIMES = [name.decode() for name in _READABLE[_is_time]]
LISTS = [name.decode() for name in _READABLE[_is_intervals] + _READABLE[_is_ids]]
TEXTS = [name.decode() for name in _READABLE[_is_text]]
VALUES: dict[str, st.SearchStrategy[bytes]] = {
    **dict.fromkeys(NUMBERS, st.from_regex(rb"\A[-+]?[0-9_. ]{0,14}[dhmse]?\Z")),
    **dict.fromkeys(
        TIMES,
        st.from_regex(
            rb"\A[0-2][0-9]{3}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,8})?Z?\Z"
        ),
    ),
    **dict.fromkeys(LISTS, st.from_regex(rb"\A[\[{]?[0-9, \".\-]{0,6}[\]}]?\Z")),
    **dict.fromkeys(TEXTS, st.text(max_size=5).map(lambda text: text.encode("utf-16", "surrogatepass"))),
    "status": st.sampled_from([b"queued", b"Queued", b"queued\n", b"finished", b"created", b"\xff"]),
}
HASHES = st.dictionaries(st.sampled_from(sorted(VALUES)), st.just(b"")).flatmap(
    lambda names: st.fixed_dictionaries(
        {name.encode(): st.one_of(VALUES[name], st.binary(max_size=8), st.just(b"")) for name in names}
    )
)


@given(HASHES, st.dictionaries(st.binary(max_size=4), st.binary(max_size=4), max_size=2))
@settings(max_examples=500, deadline=None)
def test_rq_reads_whatever_is_passed_as_readable(
    fields: dict[bytes, bytes], others: dict[bytes, bytes]
) -> None:
    fields = {**others, **fields}
    if unreadable_field(fields) is None:
        Job("id", connection=NOWHERE).restore({**fields, b"data": b""})


def test_what_rq_writes_is_passed_as_readable(queue: Queue) -> None:
    job = queue.enqueue(
        JOB,
        [],
        result_ttl=-1,
        failure_ttl=5,
        ttl=100,
        job_timeout="1h",
        description="Gr\u00f6\u00dfe",
        depends_on=Dependency(queue.enqueue(JOB, []), allow_failure=True, enqueue_at_front=True),
        retry=Retry(max=2, interval=[1, 2], enqueue_at_front=True),
        repeat=Repeat(times=2, interval=[3]),
        rate_limit=RateLimit("limit", 1),
        on_success=Callback("print", timeout="2m"),
        on_failure=Callback("print"),
        on_stopped=Callback("print"),
        meta={"key": "value"},
    )
    job.started_at = job.ended_at = job.last_heartbeat = job.enqueued_at = job.created_at
    job.number_of_retries = 1
    job.worker_name = job.group_id = "name"
    job.save()
    stored = queue.connection.hgetall(job.key)
    assert unreadable_field(stored) is None
    assert {name.encode() for name in VALUES} <= stored.keys()
