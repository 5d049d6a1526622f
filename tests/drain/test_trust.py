"""Nothing that somebody put into Redis runs, is called, is posted to, or fills the memory."""

# ruff: noqa: S301 - attacks are made of pickles

import copyreg
import http.server
import json
import pickle
import threading
import zlib
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import (
    JOB,
    QUEUE,
    STARTED,
    Drain,
    Start,
    call,
    enqueue_many,
    failure,
    put,
    rows,
    statuses,
    until,
)
from worker.demo import sample
from worker.drain.trusted import TrustedJob
from worker.queue import plain

PATHS: list[dict[str, Any]] = [{}, {"group_id": "group"}]
WITNESS = "/tmp/notiflog-witness"  # noqa: S108 - must not appear
COMMAND = f"touch {WITNESS}"


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


class Persistent(pickle.Pickler):
    """Pickles a string as a reference that the reader is to resolve."""

    def persistent_id(self, obj: Any) -> Any:
        return "resolve me" if obj == "persistent" else None


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def gadget(code: bytes) -> bytes:
    """A job's data whose argument is what the pickle code leaves on the stack."""
    return b"\x80\x04(" + text(JOB) + b"N" + code + b"\x85}t."


def by_extension_code() -> bytes:
    code = 0xF0
    copyreg.add_extension("os", "system", code)
    try:
        return pickle.dumps(Calls(__import__("os").system, COMMAND), protocol=2)
    finally:
        copyreg.remove_extension("os", "system", code)


def persistent() -> bytes:
    import io

    stream = io.BytesIO()
    Persistent(stream).dump((JOB, None, ("persistent",), {}))
    return stream.getvalue()


SYSTEM = __import__("os").system
GADGETS: dict[str, bytes] = {
    "the whole job": pickle.dumps(Calls(SYSTEM, COMMAND)),
    "an argument": call(Calls(SYSTEM, COMMAND)),
    "deep in the events": call([{"results": [{"body": {"a": [Calls(SYSTEM, COMMAND)]}}]}]),
    "a key": call([{(1, Calls(SYSTEM, COMMAND)): 1}]),
    "STACK_GLOBAL": gadget(text("os") + text("system") + b"\x93" + text(COMMAND) + b"\x85R"),
    "GLOBAL": b"cos\nsystem\n(S'" + COMMAND.encode() + b"'\ntR.",
    "INST": b"(S'" + COMMAND.encode() + b"'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'" + COMMAND.encode() + b"'\no.",
    "dotted name": gadget(text("uuid") + text("os.system") + b"\x93" + text(COMMAND) + b"\x85R"),
    "dotted name of an allowed class": gadget(
        text("uuid") + text("UUID.__init__.__globals__") + b"\x93" + text(COMMAND) + b"\x85R"
    ),
    "functools.partial": call(partial(SYSTEM, COMMAND)),
    "builtins.eval": call(Calls(eval, f"__import__('os').system({COMMAND!r})")),
    "builtins.getattr": call(Calls(getattr, "", "format")),
    "extension code": by_extension_code(),
    "persistent id": persistent(),
    "copyreg._reconstructor": call(Calls(copyreg._reconstructor, list, object, None)),  # type: ignore[attr-defined]
    "copyreg.add_extension": call(Calls(copyreg.add_extension, "os", "system", 7)),
    "NEWOBJ of another class": gadget(text("subprocess") + text("Popen") + b"\x93(" + text("id") + b"t\x81"),
    "BUILD on another class": gadget(text("worker.config") + text("Settings") + b"\x93)\x81}" + b"b"),
    "BUILD on an allowed class itself": gadget(
        text("uuid") + text("SafeUUID") + b"\x93N}" + text("marked") + b"K\x01s\x86b"
    ),
    "__setstate__ of an allowed class": gadget(
        text("uuid") + text("UUID") + b"\x93N}" + text("marked") + b"K\x01s\x86b"
    ),
    "a class of this project": call(Calls(TrustedJob, "id")),
    "importing a module": gadget(text("antigravity") + text("fly") + b"\x93"),
}


@pytest.fixture
def witness() -> Iterator[Path]:
    path = Path(WITNESS)
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)


def test_the_gadgets_do_run_where_anything_is_unpickled(witness: Path) -> None:
    pickle.loads(GADGETS["the whole job"])
    assert witness.exists()


@pytest.mark.parametrize("path", PATHS, ids=["turn", "ordinary"])
def test_gadgets_fail_and_do_not_run(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, witness: Path, path: dict[str, Any]
) -> None:
    for number, data in enumerate(GADGETS.values()):
        put(redis, f"gadget-{number}", data, **path)
    good = enqueue_many(queue, app, 1)
    drain()
    names = dict(zip([f"gadget-{number}" for number in range(len(GADGETS))], GADGETS, strict=True))
    became = {name: redis.hget(f"rq:job:{job_id}", "status") for job_id, name in names.items()}
    assert became == dict.fromkeys(GADGETS, b"failed")
    assert (statuses(good), witness.exists()) == (["finished"], False)


def test_an_allowed_class_stays_as_it_was() -> None:
    from uuid import SafeUUID

    for data in GADGETS.values():
        with pytest.raises(plain.UntrustedJob):
            plain.read_call(data)
    assert not hasattr(SafeUUID, "marked")
    assert not hasattr(UUID, "marked")


def test_what_producers_pickle_is_read(app: sample.App) -> None:
    from datetime import UTC, datetime
    from decimal import Decimal
    from uuid import uuid1, uuid4

    simple: list[Any] = [None, True, 1.5, 2**80, "text", "\u0660", {"key": ("a", "b")}, [[]], make.event(app)]
    classes = [datetime.now(UTC), uuid1(), uuid4(), Decimal("1.5"), b"bytes", {1, 2}]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        values = simple + (classes if protocol > 3 else [])  # there these are calls of functions
        assert plain.read_call(pickle.dumps((JOB, None, (values,), {}), protocol=protocol)) == (values,)


#: Data that is no call of our job, by what is wrong with it.
NO_CALLS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello",
    "None": pickle.dumps(None),
    "a number": pickle.dumps(5),
    "three parts": pickle.dumps((JOB, None, ())),
    "another function": call([], function="os.getcwd"),
    "another function of this project": call([], function="worker.migrate.main"),
    "a function that is no name": call([], function=["os"]),
    "a method": call([], instance="worker"),
    "no arguments": call(),
    "two arguments": call([], []),
    "arguments that are a number": pickle.dumps((JOB, None, 5, {})),
    "arguments that are a set": pickle.dumps((JOB, None, {1}, {})),
    "keywords that are a number": call(kwargs=5),
    "keywords that are a list": call(kwargs=["events"]),
    "keywords that are a list of lists": call(kwargs=[[1]]),
    "keywords that are text": call(kwargs="events"),
    "other keywords": call(kwargs={"rows": []}),
    "keywords and arguments": call([], kwargs={"events": []}),
    "JSON of another function": json.dumps(["os.system", None, [COMMAND], {}]).encode(),
    "deep JSON": b"[" * 100_000,
    "a large number": json.dumps([JOB, None, [1], {}]).replace("1", "1" * 5000).encode(),
    "events that are text": call("events"),
    "events that are a number": call(5),
    "events that are None": call(None),
    "cut off": call([])[:-3],
}


@pytest.mark.parametrize("path", PATHS, ids=["turn", "ordinary"])
def test_what_is_no_call_of_our_job_fails_alone(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, witness: Path, path: dict[str, Any]
) -> None:
    for number, data in enumerate(NO_CALLS.values()):
        put(redis, f"wrong-{number}", data, **path)
    good = enqueue_many(queue, app, 1)
    drain()
    became = {name: redis.hget(f"rq:job:wrong-{number}", "status") for number, name in enumerate(NO_CALLS)}
    assert became == dict.fromkeys(NO_CALLS, b"failed")
    assert (statuses(good), witness.exists()) == (["finished"], False)


@pytest.mark.parametrize("group_id", ["", "group"], ids=["turn", "ordinary"])
def test_another_function_fails_with_a_sentence(queue: Queue, drain: Drain, group_id: str) -> None:
    (job,) = queue.enqueue_many([Queue.prepare_data("os.system", args=(COMMAND,))], group_id=group_id or None)
    drain()
    assert failure(job) == (
        "worker.queue.plain.UntrustedJob: this worker only runs worker.jobs.record_outcomes, "
        "worker.jobs.sweep_tokens, worker.jobs.tidy_reservations and worker.jobs.retain_outcomes: enqueue "
        "other functions on a queue of their own"
    )


#: Events that are plain data and yet not what any producer sends; `$1` stands for a good event.
def nested(depth: int) -> bytes:
    """Pickle code of lists in lists."""
    return b"]" * depth + b"a" * (depth - 1)


def malformed_uuid(number: Any) -> Any:
    broken = UUID(int=1)
    object.__setattr__(broken, "int", number)
    return broken


def hostile_events(app: sample.App) -> dict[str, bytes]:
    good = make.event(app, 9)
    users = {
        "a UUID of text": malformed_uuid("text"),
        "a UUID too large": malformed_uuid(2**200),
        "a negative UUID": malformed_uuid(-1),
    }
    explicit = {**good, "idempotency_key": "explicit"}
    derived = {key: value for key, value in good.items() if key != "idempotency_key"} | {"date_window": "w"}
    empty_uuid = text("uuid") + text("UUID") + b"\x93)\x81"
    cases = {}
    for name, user in users.items():
        for kind, event in (("given key", explicit), ("derived key", derived)):
            data = call([{**event, "peer_mentor_id": user}])
            cases[f"{name}, {kind}"] = data
            # Without the state, which is all that makes it an id.
            framed = call([{**event, "peer_mentor_id": "@"}]).replace(text("@"), empty_uuid)
            cases[f"a UUID of nothing, {kind}"] = b"\x80\x04" + framed[11:]
    return cases


def test_hostile_values_fail_alone(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, connection: psycopg.Connection
) -> None:
    cases = hostile_events(app)
    good = enqueue_many(queue, app, 3)
    for number, data in enumerate(cases.values()):
        put(redis, f"hostile-{number}", data)
    good += enqueue_many(queue, app, 3, first=3)
    drain()
    became = {name: redis.hget(f"rq:job:hostile-{number}", "status") for number, name in enumerate(cases)}
    assert became == dict.fromkeys(cases, b"failed")
    assert (statuses(good), rows(connection), redis.zcard(STARTED)) == (["finished"] * 6, 6, 0)


@pytest.mark.parametrize("where", ["events", "event", "body"])
def test_deeply_nested_data_harms_nobody(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, where: str
) -> None:
    deep = nested(200_000)
    marker = "@deep@"
    event = make.event(app, 1, results=[make.result(body=marker)])
    arguments: Any = {"events": marker, "event": [marker], "body": [event]}[where]
    data = pickle.dumps((JOB, None, (arguments,), {}))
    data = b"\x80\x04" + data[11:]  # without its frame, which would be too short
    assert text(marker) in data
    put(redis, "deep", data.replace(text(marker), deep, 1))
    good = enqueue_many(queue, app, 2, first=2)
    drain()
    assert statuses(good) == ["finished", "finished"]
    assert redis.hget("rq:job:deep", "status") in (b"failed", b"finished")


def test_callbacks_are_not_called(
    redis: Redis, queue: Queue, app: sample.App, drain: Drain, witness: Path
) -> None:
    names = ("success_callback_name", "failure_callback_name", "stopped_callback_name")
    callbacks: dict[str, Any] = dict.fromkeys(names, "os.system")
    for path in PATHS:
        for outcome, data in (("good", call([make.event(app)])), ("bad", call([{}]))):
            put(redis, f"{outcome}-{len(path)}", data, **callbacks, **path)
    drain()
    assert [redis.hget(f"rq:job:{job}", "status") for job in ("good-0", "bad-0", "good-1", "bad-1")] == [
        b"finished",
        b"failed",
    ] * 2


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """A web server of this machine that remembers who asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def with_webhooks(redis: Redis, app: sample.App, url: str) -> None:
    for path in PATHS:
        for outcome, data in (("finished", call([make.event(app)])), ("failed", call([{}]))):
            hooks = [{"url": f"{url}/{outcome}", "job_status": outcome, "method": "POST", "timeout": 5}]
            put(redis, f"{outcome}-{len(path)}", data, webhooks=json.dumps(hooks), **path)


def test_webhooks_receive_nothing(
    redis: Redis, app: sample.App, drain: Drain, listener: tuple[str, list[str]]
) -> None:
    url, asked = listener
    with_webhooks(redis, app, url)
    drain()
    assert asked == []


def test_a_webhook_would_be_posted_by_a_stock_worker(
    redis: Redis, app: sample.App, new_worker: Any, listener: tuple[str, list[str]]
) -> None:
    from rq import SimpleWorker

    url, asked = listener
    with_webhooks(redis, app, url)
    new_worker(SimpleWorker).work(burst=True)
    assert sorted(asked) == ["/failed", "/failed", "/finished", "/finished"]


@pytest.mark.parametrize("path", PATHS, ids=["turn", "ordinary"])
def test_the_legacy_result_field_is_never_unpickled(
    redis: Redis, app: sample.App, drain: Drain, witness: Path, path: dict[str, Any]
) -> None:
    for outcome, data in (("good", call([make.event(app)])), ("bad", call([{}]))):
        put(redis, outcome, data, result=GADGETS["the whole job"], exc_info=b"\xff", **path)
    drain()
    became = [redis.hget(f"rq:job:{job}", "status") for job in ("good", "bad")]
    assert (became, witness.exists()) == ([b"finished", b"failed"], False)


def test_meta_is_never_unpickled_into_more_than_plain_data(redis: Redis, drain: Drain, witness: Path) -> None:
    put(redis, "meta", call([{}]), meta=GADGETS["the whole job"])
    drain()
    assert (redis.hget("rq:job:meta", "status"), witness.exists()) == (b"failed", False)


@cache
def bomb(layers: int) -> bytes:
    """Zeros, compressed once or twice over: small, but 512 MiB when inflated as often."""
    compressor = zlib.compressobj(1)
    zeros = bytes(1 << 20)
    data = b"".join(compressor.compress(zeros) for _ in range(512)) + compressor.flush()
    return data if layers == 1 else zlib.compress(data)


@pytest.mark.parametrize("path", PATHS, ids=["turn", "ordinary"])
@pytest.mark.parametrize("layers", [1, 2])
def test_inflated_size_is_bounded(
    redis: Redis,
    queue: Queue,
    app: sample.App,
    start: Start,
    layers: int,
    path: dict[str, Any],
) -> None:
    put(redis, "bomb", bomb(layers), compressed=False, **path)
    good = enqueue_many(queue, app, 1)
    worker = start("--burst")
    peak = 0

    def ended() -> bool:
        nonlocal peak
        status = Path(f"/proc/{worker.process.pid}/status")
        if worker.process.poll() is not None:
            return True
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                peak = max(peak, int(line.split()[1]) >> 10)
        return False

    until(ended)
    assert (worker.wait(), statuses(good)) == (0, ["finished"])
    assert 0 < peak < 400, f"{peak} MiB"
    assert redis.llen(QUEUE) == 0
