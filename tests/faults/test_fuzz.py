"""Whatever a job holds: each event ends as a row, a duplicate, a rejected line or a retry to come.

The long form is `python tests/faults/fuzz.py`.
"""

import base64
import pickle
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.client import PubSubWorkerThread

from tests import make
from tests.drain.conftest import JOB, QUARANTINE, call, put
from tests.faults import fuzz
from tests.faults.strategies import EVENT_FIELDS, ODD, ODD_PICKLED, RESULT_FIELDS, Generator, Made, MadeJob
from worker.demo import sample
from worker.drain import DrainWorker
from worker.judge.batch import judge
from worker.record.recording import record
from worker.record.tokens import Tokens
from worker.servers import settings as configuration
from worker.servers.settings import Settings

RELAXED = settings(
    derandomize=True,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

LEAVES = st.one_of(
    st.sampled_from([*ODD, *ODD_PICKLED]),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def changes(fields: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    """What to write over some fields; `...` takes the field away."""
    names = st.sampled_from([*fields, "", "extra"])
    return st.dictionaries(names, ANYTHING | st.just(...), max_size=2)


def changed(payload: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**payload, **changes}.items() if value is not ...}


#: How to make one event: its number, which is its key's, and what is wrong with it, or instead of it.
EVENTS = st.tuples(st.integers(0, 3), changes(EVENT_FIELDS), changes(RESULT_FIELDS)) | ANYTHING


def payload(app: sample.App, plan: Any) -> Any:
    match plan:
        case (int(number), dict() as event, dict() as result) if number in range(4):
            results = [changed(make.unregistered(f"token-{number}"), result)]
            return changed(make.event(app, number, results=results), event)
    return plan


@given(st.lists(EVENTS, max_size=8))
@RELAXED
def test_each_event_is_a_row_a_duplicate_a_rejected_line_or_retried(
    connection: psycopg.Connection, database: str, app: sample.App, plans: list[Any]
) -> None:
    connection.execute("truncate public.follow_up_notification_log")
    events = [payload(app, plan) for plan in plans]
    (report,) = record(connection, Tokens(Settings(database_url=database)), [judge(events)])
    rejected = {line.position for line in report.rejected}
    accepted = [event for position, event in enumerate(events) if position not in rejected]
    final = [fuzz.key_of(event) for event in accepted if event.get("final", True)]
    rows = connection.execute("select idempotency_key from public.follow_up_notification_log").fetchall()
    assert {key for (key,) in rows} == set(final)
    counted = {
        "events": len(events),
        "rejected": len(rejected),
        "retrying": len(accepted) - len(final),
        "duplicates": len(final) - len(rows),
    }
    assert counted.items() <= report.summary.items()
    assert sum(report.summary[status] for status in ("delivered", "failed", "skipped")) == len(rows)


#: Tokens that are text to nobody else: SQL, patterns, format strings, several forms of one letter.
HOSTILE = ("'; drop table public.device_tokens; --", "%", "_", "\\", "$1", "%s", "{}", "a\nb", "\u00e9", "A")
NEIGHBOURS = ("x", "\\\\", "''", "$2", "a", "a\n", "e\u0301", "e", " A", "A ")


def test_a_token_is_text_and_nothing_else(
    connection: psycopg.Connection, database: str, app: sample.App
) -> None:
    connection.execute(
        "insert into public.device_tokens select token, %b, '2026-01-01' from unnest(%b::text[]) as token",
        [app.users[0], [*HOSTILE, *NEIGHBOURS]],
    )
    events = [make.event(app, n, results=[make.unregistered(token)]) for n, token in enumerate(HOSTILE)]
    record(connection, Tokens(Settings(database_url=database)), [judge(events)])
    left = connection.execute("select token from public.device_tokens").fetchall()
    assert {token for (token,) in left} == set(NEIGHBOURS)


@pytest.fixture
def drain(database: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Run a real draining worker within this process until the queue is empty."""
    monkeypatch.setenv("DATABASE_URL", database)
    # RQ waits up to a second for a thread that sometimes misses its call to end.
    monkeypatch.setattr(PubSubWorkerThread, "join", lambda self, timeout=None: Thread.join(self, 0.05))
    configuration.settings.cache_clear()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def drain() -> None:
        DrainWorker(["notiflog"], connection=redis).work(burst=True)

    yield drain
    for number, handler in handlers.items():
        signal.signal(number, handler)
    configuration.settings.cache_clear()


PICKLE = pickle.dumps((JOB, None, ([{"key": "value", "list": [1, 2.5, None]}],), {}), protocol=5)
#: Where a good job's data is cut, and what is put there.
CUTS = st.tuples(st.integers(0, len(PICKLE)), st.integers(0, len(PICKLE)), st.binary(max_size=6))
MUTATED = CUTS.map(lambda cut: PICKLE[: cut[0]] + cut[2] + PICKLE[cut[1] :])


@given(
    st.lists(st.tuples(st.binary(max_size=100) | MUTATED | MUTATED.map(zlib.compress), EVENTS), max_size=10)
)
@settings(RELAXED, max_examples=20)
def test_each_job_ends_finished_failed_or_set_aside(
    redis: Redis,
    drain: Callable[[], None],
    connection: psycopg.Connection,
    app: sample.App,
    jobs: list[tuple[bytes, Any]],
) -> None:
    redis.flushall()
    connection.execute("truncate public.follow_up_notification_log")
    for number, (data, plan) in enumerate(jobs):
        put(redis, f"data-{number}", data or b"\0", compressed=False)
        put(redis, f"events-{number}", call([payload(app, plan)]))
    put(redis, "good", call([make.event(app, 9)]))
    drain()
    became = [
        redis.hget(f"rq:job:{kind}-{number}", "status")
        for kind in ("data", "events")
        for number in range(len(jobs))
    ]
    assert set(became) <= {b"finished", b"failed"}
    assert (redis.hget("rq:job:good", "status"), redis.llen(QUARANTINE)) == (b"finished", 0)


def test_a_number_in_a_pickle_reserves_no_memory(crew: fuzz.Workers, redis: Redis) -> None:
    # LONG_BINPUT: remember the value under this number; Python's unpickler makes a list as long as that.
    reserve = b"\x80\x04Nr" + (100_000_000).to_bytes(4, "little") + b"."
    put(redis, "greedy", reserve)
    crew.drain(redis)
    assert redis.hget("rq:job:greedy", "status") == b"failed"
    status = Path(f"/proc/{crew.processes[0].pid}/status").read_text()
    (peak,) = (int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 1200, f"{peak} MiB"


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def crew(database: str, valkey_url: str, redis: Redis, tmp_path: Path) -> Iterator[fuzz.Workers]:
    with fuzz.workers(1, database, valkey_url, tmp_path / "worker.log") as crew:
        yield crew


@pytest.mark.parametrize("seed", [1])
def test_generated_events_are_all_accounted_for(
    crew: fuzz.Workers, connection: psycopg.Connection, redis: Redis, app: sample.App, seed: int
) -> None:
    figures = fuzz.run(Generator(app, seed).jobs(4000), app, crew, connection, redis)
    assert figures["unaccounted"] == figures["damaged unaccounted"] == 0
    assert (
        figures["events"]
        == 4000
        == sum(figures[fate] for fate in ("rows", "duplicates", "rejected", "retrying"))
    )
    # Otherwise the generator would not try what it is there to try.
    assert min(figures[fate] for fate in ("rows", "duplicates", "rejected", "retrying", "damaged failed")) > 0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.fixture
def job(connection: psycopg.Connection, database: str, redis: Redis, app: sample.App, log: Path) -> MadeJob:
    """A job of three good events that is done, with all that a worker leaves of it."""
    events = [make.event(app, number) for number in range(3)]
    record(connection, Tokens(Settings(database_url=database)), [judge(events)])
    redis.hset("rq:job:job", "status", "finished")
    log.write_text('{"event": "outcomes_recorded", "delivered": 3, "failed": 0, "skipped": 0}\n')
    return MadeJob("job", b"", [Made(event, True) for event in events])


Tamper = Callable[[psycopg.Connection, Any, Path], object]

#: What somebody does to it; how many things the accounts must then miss.
TAMPERING: dict[str, tuple[Tamper, int]] = {
    "nothing": (lambda database, redis, log: None, 0),
    "a row is lost, though the log counts it": (
        lambda database, redis, log: database.execute(
            "delete from public.follow_up_notification_log where idempotency_key = 'key-1'"
        ),
        2,
    ),
    "a row has another key": (
        lambda database, redis, log: database.execute(
            "update public.follow_up_notification_log set idempotency_key = 'x'"
            " where idempotency_key = 'key-1'"
        ),
        2,
    ),
    "the job hangs": (lambda database, redis, log: redis.hset("rq:job:job", "status", "started"), 6),
    "the job is gone": (lambda database, redis, log: redis.delete("rq:job:job"), 6),
    "the log says nothing": (lambda database, redis, log: log.write_text(""), 3),
    "the job fails as a whole": (lambda database, redis, log: fail(redis, "the job cannot be read"), 6),
    "a good event is rejected": (lambda database, redis, log: fail(redis, "1 of 3:\n[2] $: wrong"), 2),
}


def fail(redis: Redis, text: str) -> None:
    redis.hset("rq:job:job", "status", "failed")
    redis.xadd("rq:results:job", {"exc_string": base64.b64encode(zlib.compress(text.encode()))})


@pytest.mark.parametrize("how", TAMPERING)
def test_the_accounts_notice(
    connection: psycopg.Connection, redis: Redis, app: sample.App, log: Path, job: MadeJob, how: str
) -> None:
    tamper, missed = TAMPERING[how]
    tamper(connection, redis, log)
    assert fuzz.account([job], app, log, connection, redis)["unaccounted"] == missed


def test_a_worker_that_ends_is_noticed(crew: fuzz.Workers, redis: Redis, app: sample.App) -> None:
    put(redis, "first", call([make.event(app)]))
    crew.drain(redis)  # so long it may still be starting
    crew.processes[0].send_signal(signal.SIGTERM)
    crew.processes[0].wait(30)
    put(redis, "second", call([make.event(app)]))
    with pytest.raises(fuzz.Ended, match="a worker ended with status 0"):
        crew.drain(redis)
