"""No token, password or free text of anybody's gets out, whatever goes wrong, even where all is logged.

Every input carries a mark. It may be in the job's own data, in the sweep's cursor, and in the rows that were
asked for; not in any output, log record at DEBUG, exception, other value in Redis, or PostgreSQL's view of
our sessions.
"""

import base64
import binascii
import importlib
import json
import logging
import os
import pickle
import re
import signal
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis

import worker
from tests import make
from tests.drain.conftest import FAILED, JOB, QUEUE, STARTED, Started, call, put, until
from tests.drain.test_trust import Calls
from tests.faults.fuzz import failure, rejected_positions
from tests.faults.strategies import EVENT_FIELDS, RESULT_FIELDS
from tests.scheduler.conftest import Fcm
from tests.sweep.conftest import fcm
from worker.demo import sample, sandbox
from worker.demo.sandbox import rq_worker
from worker.sweep import __main__ as sweep
from worker.sweep import passes

__all__ = ["fcm"]  # a fixture

MARK = "S3CRET"
#: An id that no table knows: the details of a foreign key's violation quote it.
MARKED_ID = "5ec2e700-0000-4000-8000-00005ec2e700"
MARKS = (MARK.encode(), MARKED_ID.encode(), MARKED_ID.replace("-", "").encode())

KINDS = {"draining": {"RQ_WORKER_CLASS": "worker.drain.DrainWorker"}, "stock": {}}

# Every record of every logger, whatever its level, with all that it carries. RQ gives its own line about a
# failed job the arguments as attributes, which no formatter of ours or RQ's shows: there, only the text.
EVERY_RECORD = """
import logging, os

stream = open(os.environ["TEST_EVERY_RECORD"], "a", buffering=1)
hand_on = logging.Logger.callHandlers


def call_handlers(self, record):
    print(record.name, record.getMessage(), file=stream)
    if record.exc_info and record.exc_info[0]:
        print(logging.Formatter().formatException(record.exc_info), file=stream)
    if not (record.name.startswith("rq") and hasattr(record, "arguments")):
        print(vars(record), file=stream)
    hand_on(self, record)


logging.Logger.callHandlers = call_handlers
logging.Logger.isEnabledFor = lambda self, level: True
"""


# --- where a mark could be found ---------------------------------------------------------------------------


def readings(stored: bytes) -> Iterator[bytes]:
    """A value as it is, and what it says to who undoes RQ's encodings."""
    for value in (stored, unbased(stored)):
        yield value
        try:
            yield zlib.decompress(value)
        except zlib.error:
            continue


def unbased(value: bytes) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return b""


def is_marked(value: bytes) -> bool:
    return any(mark in reading for reading in readings(value) for mark in MARKS)


def redis_values(redis: Any) -> Iterator[tuple[str, bytes]]:
    """Everything in Redis: keys, fields, members, values; each with its place."""
    for key in redis.scan_iter(count=1000):
        place = key.decode(errors="replace")
        yield place, key
        match redis.type(key):
            case b"string":
                yield place, redis.get(key)
            case b"hash":
                for field, value in redis.hgetall(key).items():
                    yield f"{place} {field.decode(errors='replace')}", field + b" " + value
                    yield f"{place} {field.decode(errors='replace')}", value
            case b"list":
                yield from ((place, value) for value in redis.lrange(key, 0, -1))
            case b"set":
                yield from ((place, value) for value in redis.smembers(key))
            case b"zset":
                yield from ((place, value) for value in redis.zrange(key, 0, -1))
            case b"stream":
                for _, fields in redis.xrange(key):
                    yield from ((f"{place} {name.decode()}", value) for name, value in fields.items())


def marked_in_redis(redis: Redis) -> set[str]:
    """The places that hold a mark, but for those that may."""
    may = re.compile(rf"rq:job:\S+ data|{re.escape(passes.STATE_KEY)}")
    return {place for place, value in redis_values(redis) if is_marked(value) and not may.fullmatch(place)}


def marked_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if is_marked(line.encode(errors="surrogatepass"))]


def marked_sessions(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    """Sessions whose name or statement holds a mark, as all who may look at the server see them."""
    found = connection.execute(
        "select application_name, query from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    ).fetchall()
    return [session for session in found if is_marked(repr(session).encode())]


# --- workers that log everything ---------------------------------------------------------------------------


class Watched(Started):
    """A worker's process, and all that it ever logged."""

    @property
    def everything(self) -> str:
        records = self.log.with_suffix(".records")
        assert records.stat().st_size > 0
        return self.output + records.read_text()


@pytest.fixture
def start(
    kind: str, database: str, valkey_url: str, redis: Redis, tmp_path: Path
) -> Iterator[Callable[..., Watched]]:
    """Start the literal `rq worker notiflog --verbose`."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "sitecustomize.py").write_text(EVERY_RECORD)
    log = tmp_path / "worker.log"
    with ExitStack() as stack:

        def start(*options: str, **changes: str) -> Watched:
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(tmp_path / "inside"),
                "TEST_EVERY_RECORD": str(log.with_suffix(".records")),
                "DATABASE_URL": database,
                "REDIS_URL": valkey_url,
                **KINDS[kind],
                **changes,
            }
            options = ("--verbose", "--disable-job-desc-logging", *options)
            return Watched(stack.enter_context(rq_worker(environment, log, *options)), log)

        yield start


def is_done(redis: Redis) -> bool:
    return not (redis.llen(QUEUE) or redis.llen(f"{QUEUE}:intermediate") or redis.zcard(STARTED))


def assert_no_mark(worker: Watched, redis: Redis) -> None:
    assert marked_lines(worker.everything) == []
    assert marked_in_redis(redis) == set()


# --- what is put in ----------------------------------------------------------------------------------------


def event(app: sample.App, name: str, **changes: Any) -> dict[str, Any]:
    """An event with a mark in everything that may hold free text."""
    results = [make.result(f"{MARK}-token-{name}", body={"name": f"projects/p/messages/{MARK}"})]
    return make.event(app, **{"idempotency_key": f"{MARK}-{name}", "results": results, **changes})


def answered(app: sample.App, name: str, status: int | None, body: Any, channel: str = "fcm") -> Any:
    return event(
        app,
        name,
        delivery_channel=channel,
        results=[make.result(f"{MARK}-{name}", http_status=status, body=body)],
    )


def recorded(app: sample.App) -> list[Any]:
    """Events that are recorded; providers echo the token wherever they can."""
    echo = f"token {MARK} is not registered"
    of_fcm = [
        {"error": {"message": echo, "details": [{"errorCode": "UNREGISTERED", "token": MARK}]}},
        {"error": {"message": echo, "status": MARK, "details": [{"errorCode": MARK}]}},
        {"error": {"message": echo, "details": [{"reason": MARK, "@type": MARK}]}},
        {"error": MARK},
        f"<html>{echo}</html>",
        json.dumps({"error": {"message": echo}}),
        [MARK],
    ]
    of_apns = [{"reason": "Unregistered", "timestamp": MARK}, {"reason": MARK}, MARK, {MARK: MARK}]
    return [
        event(app, "delivered"),
        {**event(app, "window"), "idempotency_key": None, "date_window": MARK},
        *(
            answered(app, f"fcm-{status}-{n}", status, of_fcm[n])
            for n in range(len(of_fcm))
            for status in (404, 400, 503)
        ),
        *(answered(app, f"apns-{n}", 410, body, "apns") for n, body in enumerate(of_apns)),
        answered(app, "no-answer", None, f"ConnectError: {echo}"),
        event(app, "skipped", results=None, skipped=f"{MARK} is in hospital"),
        event(app, "retrying", final=False),
        event(app, "delivered", results=[], skipped=MARK),  # a duplicate that contradicts
    ]


def rejected(app: sample.App) -> list[Any]:
    """Events that are not: each field wrong in each way, whole payloads wrong, parents missing."""
    wrong = (MARK, f"{MARK}\0", f"{MARK}\ud800", MARK * 1000, [MARK], {MARK: MARK}, MARK.encode())
    free = {"idempotency_key", "skipped", "token", "body", "date_window"}  # there, MARK itself is good
    events: list[Any] = []
    for number, value in enumerate(wrong):
        for field in EVENT_FIELDS:
            if number or field not in free:
                results = {} if field != "skipped" else {"results": None}
                key = {"idempotency_key": None} if field == "date_window" else {}
                events.append({**event(app, "wrong"), **results, **key, field: value})
        for field in RESULT_FIELDS:
            if field != "body" and (number or field not in free):
                events.append(event(app, "wrong", results=[make.result(MARK) | {field: value}]))
        events.append({**event(app, "wrong"), MARK: value})
        events.append(event(app, "wrong", results=[make.result(MARK, **{MARK: value})]))
    events += [MARK, [MARK], {MARK: MARK}, {1: MARK}, MARK.encode(), None]
    events.append(event(app, "orphan", peer_mentor_id=MARKED_ID))
    # Of chapters and rules the line says which one is missing.
    events += [event(app, "orphan-" + parent, **{parent: make.stranger()}) for parent in EVENT_FIELDS[1:3]]
    return events


#: Errors that a trigger or constraint of the app's raises about a row, quoting it in message and detail.
ROW_FAULTS = ("22P02", "22001", "23502", "23505", "23514", "23P01", "P0001")
RAISE = """
create function public.refuse() returns trigger language plpgsql as $$
declare
  quoted text := coalesce(to_jsonb(new), to_jsonb(old))::text;
  code text := substring(quoted from 'raise-([0-9A-Z]{5})');
begin
  if code is not null then
    raise exception 'refused: %', quoted using errcode = code, detail = quoted, hint = quoted;
  end if;
  return coalesce(new, old);
end $$;
create trigger refuse before insert on public.follow_up_notification_log
  for each row execute function public.refuse();
create trigger refuse before delete on public.device_tokens
  for each row execute function public.refuse();
create unique index marked on public.follow_up_notification_log (left(idempotency_key, 13))
  where idempotency_key like 'S3CRET-unique%';
alter table public.follow_up_notification_log
  add constraint checked check (idempotency_key not like 'S3CRET-check%');
"""


def refused(app: sample.App) -> list[Any]:
    """Events that PostgreSQL refuses, with the row in its words."""
    names = [f"raise-{code}" for code in ROW_FAULTS] + ["check", "unique-2"]
    return [event(app, name) for name in names]


#: Data of jobs that fail as a whole, by what is wrong with it.
BROKEN: dict[str, bytes] = {
    "no pickle": f"{MARK} {MARK}".encode(),
    "cut off": call([{"token": MARK}])[:-4],
    "text for events": call(MARK),
    "a dict for events": call({MARK: MARK}),
}
#: The same, where a stock worker would run what it says.
UNTRUSTED: dict[str, bytes] = {
    "another function": call([], function=f"{MARK}.function"),
    "a function that is no text": call([], function=[MARK]),
    "two arguments": call([MARK], MARK),
    "a keyword": call(kwargs={MARK: MARK}),
    "a gadget": call(Calls(__import__("os").system, f"echo {MARK}")),
    "a class": pickle.dumps((JOB, None, ([Calls(getattr, MARK, "upper")],), {})),
    "a module": b"c" + MARK.encode() + b"\n" + MARK.encode() + b"\n.",
    "JSON that is cut off": json.dumps([JOB, None, [[{"token": MARK}]], {}])[:-5].encode(),
    "JSON of another function": json.dumps([MARK, None, [MARK], {MARK: MARK}]).encode(),
}


# --- the tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "disguise",
    [
        bytes,
        zlib.compress,
        base64.b64encode,
        lambda mark: base64.b64encode(zlib.compress(mark)),
        pickle.dumps,
    ],
    ids=["as it is", "compressed", "in base64", "as RQ stores an exception", "pickled"],
)
@pytest.mark.parametrize("mark", [MARK, MARKED_ID])
def test_a_mark_is_seen_in_every_form(mark: str, disguise: Callable[[bytes], bytes]) -> None:
    assert is_marked(disguise(f"before {mark} after".encode()))
    assert not is_marked(disguise(b"nothing"))


@pytest.mark.parametrize("kind", ["stock"])
def test_a_mark_that_rq_shows_is_seen(redis: Redis, start: Callable[..., Watched], kind: str) -> None:
    put(redis, "job", UNTRUSTED["another function"])
    worker = start("--burst")
    assert worker.wait() == 0
    assert len(marked_lines(worker.everything)) > len(marked_lines(worker.output)) > 0
    assert marked_in_redis(redis) == {"rq:results:job exc_string"}


@pytest.mark.parametrize("kind", KINDS)
def test_good_and_bad_jobs(
    redis: Redis,
    app: sample.App,
    connection: psycopg.Connection,
    start: Callable[..., Watched],
    kind: str,
) -> None:
    connection.execute(RAISE)
    connection.execute(
        "insert into public.device_tokens select %b || 'fcm-404-' || n, %b, '2026-01-01'"
        " from generate_series(0, 6) as n",
        [f"{MARK}-", app.users[0]],
    )
    jobs = {"recorded": recorded(app), "rejected": rejected(app), "refused": refused(app)}
    jobs["recorded"].append(event(app, "unique-1"))
    for name, events in jobs.items():
        put(redis, name, call(events), description="outcomes", result_ttl="500")
    put(redis, "ordinary", call([event(app, "group"), MARK]), description="outcomes", group_id="group")
    broken = BROKEN | (UNTRUSTED if kind == "draining" else {})
    for number, data in enumerate(broken.values()):
        put(redis, f"broken-{number}", data, description="outcomes")
    worker = start()
    until(lambda: redis.scard("rq:workers") and is_done(redis))
    sessions = marked_sessions(connection)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0

    # Each of them really went wrong in its way.
    failed: set[Any] = set(redis.zrange(FAILED, 0, -1))
    assert failed == {b"rejected", b"refused", b"ordinary", *(b"broken-%d" % n for n in range(len(broken)))}
    for name in ("rejected", "refused"):
        assert rejected_positions(failure(redis, name)) == set(range(len(jobs[name])))
    assert [
        name for name in (*ROW_FAULTS, "checked", "marked") if name not in failure(redis, "refused")
    ] == []
    (lost,) = connection.execute("select 7 - count(*) from public.device_tokens").fetchone() or (0,)
    assert lost >= 1
    loggers = {line.partition(" ")[0] for line in worker.everything.splitlines()}
    assert loggers >= {"rq.worker", "notiflog", "psycopg"}

    assert_no_mark(worker, redis)
    assert sessions == []


#: What PostgreSQL says while it quotes a row: the statement that fails, by whether waiting may help.
STATEMENT_FAULTS = {"lasting": "0A000", "passing": "40001"}
#: What is said of it then: the event is rejected, the token stays, or the job waits.
SIGNS = {
    ("row", "lasting"): "PostgreSQL refuses the row: 0A000",
    ("token", "lasting"): '"sqlstate":"0A000"',
    ("token", "passing"): "SQLSTATE 40001",
}


@pytest.mark.parametrize(("where", "fault"), SIGNS)
@pytest.mark.parametrize("kind", KINDS)
def test_faults_of_the_database(
    redis: Redis,
    app: sample.App,
    connection: psycopg.Connection,
    start: Callable[..., Watched],
    kind: str,
    where: str,
    fault: str,
) -> None:
    connection.execute(RAISE)
    name = f"raise-{STATEMENT_FAULTS[fault]}"
    dead = make.unregistered(f"{MARK}-{name if where == 'token' else 'token'}")
    connection.execute(
        "insert into public.device_tokens values (%s, %s, '2026-01-01')", [dead["token"], app.users[0]]
    )
    key = f"{MARK}-{name if where == 'row' else 'key'}"
    put(redis, "job", call([event(app, "fault", idempotency_key=key, results=[dead])]), timeout="2")
    worker = start()
    sign = SIGNS[where, fault]
    until(lambda: sign in worker.output or sign in failure_of(redis))
    worker.send(signal.SIGTERM)
    worker.wait()
    assert_no_mark(worker, redis)


def failure_of(redis: Redis) -> str:
    return failure(redis, "job") if redis.zscore(FAILED, "job") is not None else ""


@pytest.fixture(scope="module")
def with_passwords(server_directory: Path) -> Iterator[int]:
    """The port of a PostgreSQL server that asks for passwords."""
    with sandbox.postgres(server_directory, tcp=True, settings={"fsync": "off"}) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("create role app login password 'right'")
            (server.directory / "pg_hba.conf").write_text(
                "host all all all scram-sha-256\nlocal all all trust\n"
            )
            admin.execute("select pg_reload_conf()")
        yield server.port


@pytest.fixture
def redis_with_password(redis: Redis) -> Iterator[None]:
    redis.config_set("requirepass", "right")
    yield
    redis.config_set("requirepass", "")


#: Addresses that do not work, each with a mark in the password.
ADDRESSES: dict[str, dict[str, str]] = {
    "wrong password of the database": {
        "DATABASE_URL": f"postgresql://app:{MARK}@127.0.0.1:{{port}}/postgres"
    },
    "no such role": {"DATABASE_URL": f"postgresql://{MARK}:{MARK}@127.0.0.1:{{port}}/{MARK}"},
    "database URL that cannot be parsed": {"DATABASE_URL": f"postgresql://user:{MARK}%zz@host/db"},
    "database URL that is none": {"DATABASE_URL": f"password={MARK} ="},
    "no database there": {"DATABASE_URL": f"postgresql://app:{MARK}@127.0.0.1:1/postgres"},
    "no Redis there": {"REDIS_URL": f"redis://:{MARK}@127.0.0.1:1"},
    "wrong password of Redis": {"REDIS_URL": f"unix://:{MARK}@{{socket}}"},
    "Redis URL that is none": {"REDIS_URL": f"{MARK}://{MARK}@host"},
}


def address(name: str, port: int, valkey_url: str) -> dict[str, str]:
    socket = valkey_url.removeprefix("unix://")
    return {name: url.format(port=port, socket=socket) for name, url in ADDRESSES[name].items()}


@pytest.mark.parametrize(
    "name",
    ["wrong password of the database", "database URL that cannot be parsed", "wrong password of Redis"],
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("redis_with_password")
def test_addresses_of_a_worker(
    redis: Redis,
    app: sample.App,
    start: Callable[..., Watched],
    with_passwords: int,
    valkey_url: str,
    kind: str,
    name: str,
) -> None:
    put(redis, "job", call([event(app, "job")]), timeout="2")
    right = valkey_url.replace("unix://", "unix://:right@")
    worker = start("--burst", **{"REDIS_URL": right, **address(name, with_passwords, valkey_url)})
    status = worker.wait()
    # The stock worker looks at the database's address only in the job, which fails.
    assert status == 1 or failure_of(redis)
    assert_no_mark(worker, redis)


def test_a_sweep_whose_answers_quote_the_token(
    fcm: Fcm,
    connection: psycopg.Connection,
    app: sample.App,
    redis: Redis,
    database: str,
    valkey_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setattr("time.sleep", lambda _: None)
    tokens = [f"{MARK}-{number}-device:{MARK}{'x' * 64}" for number in range(4)]
    for token, (status, code) in zip(
        tokens,
        [(404, "UNREGISTERED"), (400, MARK), (403, "PERMISSION_DENIED"), (503, "UNAVAILABLE")],
        strict=True,
    ):
        fcm.answers[token] = sample.fcm_error(status, MARK, f"token {token}", FcmError={"errorCode": code})
    connection.execute(
        "insert into public.device_tokens select token, %b, '2026-01-01' from unnest(%b::text[]) as token",
        [app.users[0], tokens],
    )
    caplog.set_level(logging.DEBUG)
    assert sweep.main([]) == 0
    assert len(connection.execute("select from public.device_tokens").fetchall()) == 3
    written = capfd.readouterr()
    assert marked_lines(f"{written.out}\n{written.err}\n{caplog.text}") == []
    assert marked_in_redis(redis) == set()


PACKAGE = Path(worker.__file__).parent
#: Every module that is a command, but the demo, which looks at no address.
COMMANDS = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if "\ndef main(" in path.read_text() and path.parent.name != "demo"
)


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("redis_with_password")
def test_addresses_of_a_command(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    valkey_url: str,
    with_passwords: int,
    tmp_path: Path,
    command: str,
    name: str,
) -> None:
    account = tmp_path / f"{MARK}.json"
    account.write_text(json.dumps({"type": "service_account", "private_key": MARK}))
    good = {
        "DATABASE_URL": f"postgresql://app:right@127.0.0.1:{with_passwords}/postgres",
        "REDIS_URL": valkey_url.replace("unix://", "unix://:right@"),
    }
    monkeypatch.setattr("time.sleep", lambda _: None)
    # `metrics` would never end, and listens to signals.
    monkeypatch.setattr("socketserver.BaseServer.serve_forever", lambda *_, **__: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(account), **good}
    for variable, value in (environment | address(name, with_passwords, valkey_url)).items():
        monkeypatch.setenv(variable, value)
    caplog.set_level(logging.DEBUG)
    said = ""
    try:
        importlib.import_module(f"worker.{command}").main([])
    except SystemExit as stop:
        said = str(stop.code)
    written = capfd.readouterr()
    assert marked_lines(f"{written.out}\n{written.err}\n{caplog.text}\n{said}") == []
