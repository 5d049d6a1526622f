"""Job for job, the draining worker leaves the same in Redis as RQ's own workers do."""

import base64
import re
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue, Retry
from rq.serializers import resolve_serializer

from tests import make
from tests.drain.conftest import JOB, Drain, statuses
from worker.demo import sample, sandbox
from worker.servers.postgres import connect

# What each kind of job calls; each ends the same way under every worker. A stock worker runs any function.
KINDS: dict[str, Callable[[sample.App, int], tuple[str, list[Any]]]] = {
    "recorded": lambda app, number: (JOB, [[make.event(app, number)]]),
    "empty": lambda app, number: (JOB, [[]]),
    "rejected": lambda app, number: (JOB, [[make.event(app, number), make.event(app, chapter_id="none")]]),
    "stranger": lambda app, number: (JOB, [[make.event(app, number, chapter_id=make.stranger())]]),
    "no-list": lambda app, number: (JOB, ["events"]),
    "another": lambda app, number: ("math.sqrt", [-1]),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "ttl-0": {"result_ttl": 0},
    "ttl-60": {"result_ttl": 60},
    "for-ever": {"result_ttl": -1},
    "failure-ttl": {"failure_ttl": 100},
    "meta": {"meta": {"key": "value"}, "description": "told"},
    "timeout": {"job_timeout": 600},
    "retry": {"retry": Retry(max=2), "on_failure": None},
}
# The stock worker spends retries on these: what the draining worker does instead is tested elsewhere.
SPENDS_RETRIES = {"no-list", "another"}

Left = dict[str, Any]


def normal(name: str, value: bytes, serializer: Any) -> Any:
    """A field's value without what differs from run to run."""
    if name == "data":
        return serializer.loads(zlib.decompress(value))
    if name == "exc_string":
        # Without the stack, and for the foreign function, which only a stock worker calls, without the rest.
        said = zlib.decompress(base64.b64decode(value)).decode()
        found = re.search(r"^(worker\.\w+\.(?!Untrusted)\w+: .*)", said, re.DOTALL | re.MULTILINE)
        return found[1] if found else "other"
    if name == "meta":
        return serializer.loads(value)
    if name == "return_value":
        return serializer.loads(base64.b64decode(value))
    text = value.decode()
    if re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", text):
        return "a time"
    if re.fullmatch(r"\d{10}(\.\d+)?", text):
        return "a time" if abs(float(text) - time.time()) < 60 else text
    if name in ("execution_id", "ip_address", "pid"):
        return "some"
    return float(text) >= 0 if name == "total_working_time" else text


def left_in(redis: Any, serializer: Any) -> Left:
    """Every key with its content and time to live (in minutes); ids and times made equal."""
    found: Left = {}
    for key in redis.scan_iter():
        kind = redis.type(key).decode()
        content: Any
        match kind:
            case "hash":
                content = {
                    k.decode(): normal(k.decode(), v, serializer) for k, v in redis.hgetall(key).items()
                }
                if content.get("retries_left") == "0":
                    del content["retries_left"]  # none left: the same as none
            case "stream":
                entries = [entry for _, entry in redis.xrange(key)]
                content = [
                    {k.decode(): normal(k.decode(), v, serializer) for k, v in e.items()} for e in entries
                ]
            case "zset":
                scored = dict(redis.zrange(key, 0, -1, withscores=True))
                content = {
                    member.decode(): about(score - time.time()) if 0 < score < 1e12 else score
                    for member, score in scored.items()
                }
            case "list":
                content = redis.lrange(key, 0, -1)
            case "set":
                content = redis.smembers(key)
            case _:
                content = kind
        name = re.sub(r"(?<=:minute:|..:hour:)\d+$", "now", key.decode())
        found[name] = (kind, content, about(redis.ttl(key)))
    return found


def about(seconds: float) -> int:
    """A remaining time to live, as the next of those that are given: a run takes up to a minute."""
    given = (-1, 60, 120, 300, 420, 500, 600, 3600, 86_400, 7 * 86_400, 366 * 86_400)
    return next((ttl for ttl in given if seconds <= ttl), 10**9)


@pytest.fixture(scope="module")
def left(
    postgres: sandbox.Postgres, app: sample.App, valkey_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str, str], Left]]:
    """What a kind of worker leaves behind when it has run every kind of job with a serializer's producer."""
    database = postgres.url("contract")
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("create database contract template migrated")
    redis = Redis.from_url(valkey_url)

    @cache
    def leave(kind: str, serializer: str) -> Left:
        redis.flushall()
        with connect(database) as connection:
            connection.execute("truncate public.follow_up_notification_log")
        queue = Queue("notiflog", connection=redis, serializer=serializer)
        number = 0
        for name, make_call in KINDS.items():
            for options_name, options in OPTIONS.items():
                if options_name == "retry" and name in SPENDS_RETRIES:
                    continue
                number += 1
                function, arguments = make_call(app, number)
                # As a producer does it that knows nothing of this project.
                queue.enqueue(function, *arguments, job_id=f"{name}-{options_name}", **options)
        run_worker(kind, serializer)
        return left_in(redis, resolve_serializer(serializer))

    def run_worker(kind: str, serializer: str) -> None:
        directory: Path = tmp_path_factory.mktemp("contract")
        worker_class = "worker.drain.DrainWorker" if kind == "draining" else "rq.worker." + kind
        environment = {"DATABASE_URL": database, "REDIS_URL": valkey_url, "RQ_WORKER_CLASS": worker_class}
        environment["RQ_CONFIG"] = "worker.rqconfig"  # or a stock worker would leave a key about its lines
        rq = Path(sys.executable).with_name("rq")
        with (directory / "log").open("wb") as log:
            subprocess.run(
                [rq, "worker", "notiflog", "--burst", "--name", "worker-1", "--serializer", serializer],
                env=environment,
                cwd=directory,
                stdout=log,
                stderr=log,
                timeout=90,
                check=True,
            )

    yield leave
    redis.flushall()
    redis.close()
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute("drop database contract with (force)")


CASES = [
    ("SimpleWorker", "pickle"),
    ("SimpleWorker", "json"),
    ("Worker", "pickle"),
]
stock = pytest.mark.parametrize(("stock", "serializer"), CASES)


def of(found: Left, prefix: str) -> Left:
    return {key: content for key, content in found.items() if key.startswith(prefix)}


@stock
def test_the_same_keys(left: Callable[[str, str], Left], stock: str, serializer: str) -> None:
    assert left("draining", serializer).keys() == left(stock, serializer).keys()


@stock
@pytest.mark.parametrize(
    "prefix", ["rq:job:", "rq:results:", "rq:finished:", "rq:failed:", "rq:workers", "rq:queues", "rq:clean"]
)
def test_the_same_in(left: Callable[[str, str], Left], stock: str, serializer: str, prefix: str) -> None:
    ours, theirs = left("draining", serializer), left(stock, serializer)
    assert of(ours, prefix) == of(theirs, prefix)


@stock
def test_the_same_about_the_worker(left: Callable[[str, str], Left], stock: str, serializer: str) -> None:
    def told(kind: str) -> Any:
        hash_type, fields, ttl = left(kind, serializer)["rq:worker:worker-1"]
        return hash_type, {name: value for name, value in fields.items() if name != "state"}, ttl

    assert told("draining") == told(stock)


def test_nothing_else_is_left(left: Callable[[str, str], Left]) -> None:
    families = {re.sub(r"^(rq:[a-z_]+).*", r"\1", key) for key in left("draining", "pickle")}
    assert families == {
        "rq:job",
        "rq:results",
        "rq:finished",
        "rq:failed",
        "rq:worker",
        "rq:queues",
        "rq:notiflog",  # what the brake counts; a stock worker leaves the same
        "rq:clean_groups",
    }


def test_a_plain_producers_jobs_are_recorded_together(
    queue: Queue, app: sample.App, drain: Drain, logged: Callable[[], list[dict[str, Any]]]
) -> None:
    jobs = [queue.enqueue(JOB, [make.event(app, number)]) for number in range(20)]
    drain()
    turns = [line["jobs"] for line in logged() if line["event"] == "outcomes_recorded"]
    assert (turns, statuses(jobs)) == ([20], ["finished"] * 20)


@pytest.mark.parametrize("how", ["positional", "keyword"])
@pytest.mark.parametrize("serializer", ["pickle", "json"])
def test_the_producer_reads_the_result(
    redis: Redis, app: sample.App, drain: Drain, serializer: str, how: str
) -> None:
    queue = Queue("notiflog", connection=redis, serializer=serializer)
    events = [make.event(app, number) for number in range(3)]
    job = queue.enqueue(JOB, events) if how == "positional" else queue.enqueue(JOB, events=events)
    drain(serializer=serializer)
    assert job.return_value()["delivered"] == 3


def test_jobs_of_the_other_serializer_are_read_too(redis: Redis, app: sample.App, drain: Drain) -> None:
    queue = Queue("notiflog", connection=redis, serializer="json")
    jobs = [queue.enqueue(JOB, [make.event(app)]), queue.enqueue(JOB, [{}])]
    drain()
    assert statuses(jobs) == ["finished", "failed"]


def test_a_result_tells_when_the_job_ran(queue: Queue, app: sample.App, drain: Drain) -> None:
    before = time.time()
    jobs = [queue.enqueue(JOB, [make.event(app)]), queue.enqueue(JOB, [{}])]
    queue.enqueue(JOB, [], depends_on=jobs[0])  # so that RQ's own code finishes it
    time.sleep(0.3)
    begun = time.time()
    drain()
    for job in jobs:
        result = job.latest_result()
        assert result is not None
        assert result.execution_started_at is not None
        assert result.execution_ended_at is not None
        assert before < begun - 0.01 <= result.execution_started_at.timestamp()
        assert result.execution_started_at <= result.execution_ended_at
