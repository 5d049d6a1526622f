"""`python -m worker.check` and `python -m worker.probe`: what is wrong is found, with what to do about it."""

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from redis import Redis
from rq import Queue, Worker
from rq.cron import CronScheduler

from tests import make
from tests.migrations.conftest import require
from worker import probe
from worker.check import __main__ as check
from worker.demo import sample, sandbox
from worker.demo.sandbox import rq_worker
from worker.record import brake, counters

LOG = "public.follow_up_notification_log"
JOB = "worker.jobs.record_outcomes"


class Answer(NamedTuple):
    status: int
    output: str
    errors: str

    @property
    def findings(self) -> dict[str, dict[str, str]]:
        """By name, of an answer in JSON; no name twice."""
        findings = json.loads(self.output)["findings"]
        names = [finding["name"] for finding in findings]
        assert len(names) == len(set(names))
        return {finding["name"]: finding for finding in findings}

    @property
    def wrong(self) -> dict[str, str]:
        return {name: finding["level"] for name, finding in self.findings.items() if finding["level"] != "ok"}


class Run(Protocol):
    """Run the command in this process; keywords change the environment."""

    def __call__(self, *arguments: str, **environment: str) -> Answer: ...


@pytest.fixture(scope="module")
def durable_url(server_directory: Path) -> Iterator[str]:
    """A Valkey that keeps its data, as it must in production."""
    with sandbox.valkey(server_directory, appendonly="yes") as url:
        yield url


@pytest.fixture
def durable(durable_url: str) -> Iterator[Redis]:
    with Redis.from_url(durable_url) as connection:
        connection.flushall()
        for name, value in (("appendonly", "yes"), ("maxmemory", 0), ("maxmemory-policy", "noeviction")):
            connection.config_set(name, value)
        yield connection


@pytest.fixture
def queue(durable: Redis) -> Queue:
    return Queue("notiflog", connection=durable)


@pytest.fixture
def command(
    database: str,
    durable_url: str,
    durable: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., Answer]:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", durable_url)

    def run(main: Callable[[Any], int], arguments: tuple[str, ...], environment: dict[str, str]) -> Answer:
        capsys.readouterr()
        with monkeypatch.context() as changed:
            for name, value in environment.items():
                changed.setenv(name, value)
            try:
                status = main(arguments)
            except SystemExit as exit_:
                status = int(exit_.code or 0)
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def run_check(command: Callable[..., Answer]) -> Run:
    return lambda *arguments, **environment: command(check.main, arguments, environment)


@pytest.fixture
def run_probe(command: Callable[..., Answer]) -> Run:
    return lambda *arguments, **environment: command(probe.main, arguments, environment)


@pytest.fixture
def worker(durable: Redis) -> Worker:
    """A worker that has just started, as it shows in Redis."""
    worker = Worker(["notiflog"], connection=durable)
    worker.register_birth()
    return worker


# --- what is found ----------------------------------------------------------------------------------------


def test_nothing_wrong(run_check: Run, worker: Worker) -> None:
    answer = run_check("--json")
    assert (answer.status, answer.wrong) == (0, {})


def test_every_group_and_thing_has_its_line(run_check: Run, worker: Worker) -> None:
    assert list(run_check("--json").findings) == [
        *(f"settings.{x}" for x in ("environment", "credentials")),
        *(f"redis.{x}" for x in ("reachable", "version", "tls", "persistence", "eviction", "memory")),
        *(f"postgres.{x}" for x in ("reachable", "version", "tls", "privileges", "log_table", "guard")),
        *(f"postgres.{x}" for x in ("token_index", "exposed", "migrations", "pooler")),
        *(f"queue.{x}" for x in ("workers", "waiting", "failed", "quarantined", "lost", "cron", "brake")),
    ]


#: What is done to the database; the finding it makes, how grave, and words of it.
IN_THE_DATABASE = {
    "no log table": (f"drop table {LOG}", "postgres.privileges", "problem", "python -m worker.migrate"),
    "a column missing": (
        f"alter table {LOG} drop column status",
        "postgres.privileges",
        "problem",
        "has no column status",
    ),
    "no row of the ledger": (
        "delete from notiflog.schema_migrations where version = '20261122060100'",
        "postgres.migrations",
        "problem",
        "pending: 20261122060100_notiflog_worker",
    ),
    "a policy that is gone": (
        f"drop policy notiflog_worker_insert on {LOG}",
        "postgres.migrations",
        "problem",
        f"applied, and not there: policy notiflog_worker_insert on {LOG}",
    ),
    "a log that is open to everybody": (
        f"grant select, truncate on {LOG} to public",
        "postgres.exposed",
        "problem",
        f"public may select, truncate on {LOG}: run `python -m worker.migrate` as the owner",
    ),
    "the key not unique": (
        f"alter table {LOG} drop constraint follow_up_notification_log_idempotency_key_key",
        "postgres.log_table",
        "problem",
        "idempotency_key is not unique",
    ),
    "the key unique for some rows only": (
        f"alter table {LOG} drop constraint follow_up_notification_log_idempotency_key_key;"
        f" create unique index on {LOG} (idempotency_key) where status = 'delivered'",
        "postgres.log_table",
        "problem",
        "idempotency_key is not unique",
    ),
    "a foreign key missing": (
        f"alter table {LOG} drop constraint follow_up_notification_log_chapter_id_fkey",
        "postgres.log_table",
        "warning",
        "lacks follow_up_notification_log_chapter_id_fkey",
    ),
    "an index missing": (
        "drop index public.follow_up_notification_log_scenario_rule_id_idx",
        "postgres.log_table",
        "warning",
        "lacks follow_up_notification_log_scenario_rule_id_idx",
    ),
    "the chapters' index missing": (
        "drop index public.follow_up_notification_log_chapter_id_delivered_at_idx",
        "postgres.log_table",
        "warning",
        "lacks follow_up_notification_log_chapter_id_delivered_at_idx",
    ),
    "prompts that were reserved and never reported": (
        "insert into notiflog.reservations values ('key', now() - interval '5 hours', now())",
        "postgres.outstanding",
        "warning",
        "reserved and never reported: 1 prompt, the oldest 5 h ago",
    ),
    "tokens without an index": (
        "alter table public.device_tokens drop constraint device_tokens_pkey",
        "postgres.token_index",
        "warning",
        "every prune reads the whole table",
    ),
    "a guard without a time zone": (
        "alter table public.device_tokens alter updated_at type timestamp",
        "postgres.guard",
        "warning",
        "is timestamp without time zone",
    ),
    "a database that takes no rows": (
        "do 'begin execute format(''alter database %I set default_transaction_read_only = on'',"
        " current_database()); end'",
        "postgres.writable",
        "problem",
        "Supabase sets it while the disk is full",
    ),
    "foreign keys that do not work": (
        "do 'begin execute format(''alter database %I set session_replication_role = replica'',"
        " current_database()); end'",
        "postgres.replication_role",
        "problem",
        "keeps foreign keys and triggers from working",
    ),
    "a guard that is no time": (
        "alter table public.device_tokens alter updated_at drop default, alter updated_at type text",
        "postgres.guard",
        "problem",
        "is text and cannot be compared",
    ),
}


@pytest.mark.parametrize("case", IN_THE_DATABASE.values(), ids=IN_THE_DATABASE)
def test_a_fault_in_the_database(
    run_check: Run, worker: Worker, database: str, case: tuple[str, str, str, str]
) -> None:
    change, name, level, words = case
    with psycopg.connect(database) as admin:
        admin.execute(change.encode())
    answer = run_check("--json")
    finding = answer.findings[name]
    assert (answer.status, answer.wrong[name]) == (int(level == "problem"), level)
    assert words in f"{finding['text']}: {finding['remedy']}"
    assert finding["remedy"]


@pytest.mark.parametrize("fault", ["the key not unique", "tokens without an index"])
def test_the_statement_of_a_remedy_helps(run_check: Run, worker: Worker, database: str, fault: str) -> None:
    change, name, *_ = IN_THE_DATABASE[fault]
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(change.encode())
        (statement,) = re.findall("`(.*)`", run_check("--json").findings[name]["remedy"])
        admin.execute(statement.encode())
    assert run_check("--json").wrong == {}


def test_no_guard_column(run_check: Run, worker: Worker) -> None:
    answer = run_check("--json", NOTIFLOG_TOKEN_REGISTERED_COLUMN="")
    assert (answer.status, answer.wrong) == (0, {"postgres.guard": "warning"})


def _no_append_only_file(queue: Queue, app: sample.App) -> None:
    queue.connection.config_set("appendonly", "no")


def _evicting(queue: Queue, app: sample.App) -> None:
    queue.connection.config_set("maxmemory-policy", "allkeys-lru")


def _nearly_full(queue: Queue, app: sample.App) -> None:
    queue.connection.config_set("maxmemory", int(queue.connection.info()["used_memory"] * 1.1))


def _suspended(queue: Queue, app: sample.App) -> None:
    queue.connection.set("rq:suspended", 1)


def _waiting_for_long(queue: Queue, app: sample.App) -> None:
    job = queue.enqueue(JOB, [make.event(app)])
    queue.connection.hset(job.key, "enqueued_at", "2026-11-01T00:00:00.000000Z")


def _failed(queue: Queue, app: sample.App) -> None:
    queue.failed_job_registry.add(queue.enqueue(JOB, [make.event(app)]))
    queue.empty()


def _quarantined(queue: Queue, app: sample.App) -> None:
    queue.connection.rpush("rq:notiflog:quarantine:notiflog", "job")


def _brake_on(queue: Queue, app: sample.App) -> None:
    brake.hold(queue.connection, Counter(), Counter({"fcm": 60}))


def _silent(queue: Queue, app: sample.App) -> None:
    # What RQ leaves of a worker whose heartbeat is overdue.
    for key in queue.connection.smembers("rq:workers:notiflog"):
        queue.connection.expire(key, 29)


#: What is done to Redis while a worker is there; the finding it makes, how grave, and words of it.
IN_REDIS = {
    "no append-only file": (_no_append_only_file, "redis.persistence", "warning", "set appendonly yes"),
    "evicting": (_evicting, "redis.eviction", "problem", "set maxmemory-policy noeviction"),
    "nearly full": (_nearly_full, "redis.memory", "warning", "of maxmemory is used"),
    "suspended": (_suspended, "queue.suspended", "warning", "rq resume"),
    "waiting for long": (_waiting_for_long, "queue.waiting", "warning", "1 waiting, the oldest for"),
    "failed": (_failed, "queue.failed", "warning", "python -m worker.replay"),
    "quarantined": (_quarantined, "queue.quarantined", "warning", "python -m worker.replay"),
    "brake on": (_brake_on, "queue.brake", "warning", "60 of 60 recent answers of fcm to sends"),
    "a silent worker": (_silent, "queue.workers", "warning", "silent for too long"),
}


@pytest.mark.parametrize("case", IN_REDIS.values(), ids=IN_REDIS)
def test_a_fault_in_redis(
    run_check: Run,
    worker: Worker,
    queue: Queue,
    app: sample.App,
    case: tuple[Callable[[Queue, sample.App], None], str, str, str],
) -> None:
    change, name, level, words = case
    change(queue, app)
    answer = run_check("--json")
    finding = answer.findings[name]
    assert (answer.status, answer.wrong) == (int(level == "problem"), {name: level})
    assert words in f"{finding['text']}: {finding['remedy']}"
    assert finding["remedy"]


def test_looking_does_not_count_for_the_brake(run_check: Run, durable: Redis) -> None:
    brake.hold(durable, Counter(), Counter({"fcm": 3}))
    before = brake.recent(durable, "sends")
    run_check("--json")
    assert brake.recent(durable, "sends") == before


def test_no_worker_is_a_problem_only_for_waiting_jobs(run_check: Run, queue: Queue, app: sample.App) -> None:
    idle = run_check("--json").wrong
    queue.enqueue(JOB, [make.event(app)])
    assert (idle, run_check("--json").wrong) == ({"queue.workers": "warning"}, {"queue.workers": "problem"})


def test_a_waiting_entry_that_is_no_job_has_no_age(run_check: Run, worker: Worker, durable: Redis) -> None:
    durable.set("rq:job:text", "x")
    durable.rpush("rq:queue:notiflog", "text")
    assert run_check("--json").findings["queue.waiting"]["text"] == "1 waiting"


def test_another_queue(run_check: Run, worker: Worker, durable: Redis) -> None:
    Queue("other", connection=durable).enqueue(JOB)
    assert run_check("--json", "--queue", "other").wrong == {"queue.workers": "problem"}


def test_a_mistyped_queue_is_told_from_an_idle_one(run_check: Run, worker: Worker) -> None:
    answer = run_check("--json", "--queue", "notifog")
    assert answer.wrong == {"queue.name": "warning", "queue.workers": "warning"}
    name = answer.findings["queue.name"]
    assert (name["text"], name["remedy"]) == ("no queue is called notifog", "is it one of notiflog?")


@pytest.mark.parametrize("given", [None, "{}"], ids=["no file", "a file that is no key"])
def test_credentials_that_no_sweep_can_use_are_a_warning(
    run_check: Run, worker: Worker, tmp_path: Path, given: str | None
) -> None:
    path = tmp_path / "S3CR3T.json"
    if given is not None:
        path.write_text(given)
    answer = run_check("--json", GOOGLE_APPLICATION_CREDENTIALS=str(path))
    assert (answer.status, answer.wrong["settings.credentials"]) == (0, "warning")
    assert "Firebase console" in answer.findings["settings.credentials"]["remedy"]
    assert "S3CR3T" not in answer.output


def test_a_cron_process_is_alive_or_missed_by_who_sweeps(
    run_check: Run, worker: Worker, durable: Redis, tmp_path: Path
) -> None:
    def cron() -> str:
        found = run_check("--json", GOOGLE_APPLICATION_CREDENTIALS=str(tmp_path)).findings["queue.cron"]
        return f"{found['level']}: {found['text']}"

    assert cron() == "warning: no `rq cron` is alive: no token is swept, no reservation tidied"
    others, ours = (CronScheduler(connection=durable, name=name) for name in ("another", "ours"))
    others.register_birth()
    assert cron().startswith("warning: no `rq cron` is alive")
    ours.load_config_from_file("worker.cron")
    ours.register_birth()
    assert cron() == "ok: `rq cron` is alive; heartbeat 0 s ago"
    durable.delete(ours.key)  # as when it has not been heard of for two minutes
    assert cron().startswith("warning: no `rq cron` is alive")
    durable.delete("rq:cron_schedulers")
    durable.set("rq:cron_schedulers", "another thing")
    assert cron().startswith("warning: no `rq cron` is alive")


@pytest.fixture
def role(database: str) -> Iterator[str]:
    """A role that may do what the worker needs, and nothing with any ledger."""
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("create role check_worker login in role notiflog_worker")
    yield "check_worker"
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("drop role check_worker")


def test_a_role_that_may_not_delete_what_is_to_be_deleted_is_told_the_statements_that_help(
    run_check: Run, worker: Worker, database: str, postgres: sandbox.Postgres, role: str
) -> None:
    url = postgres.url(str(conninfo_to_dict(database)["dbname"]), role)
    answer = run_check("--json", DATABASE_URL=url, NOTIFLOG_RETAIN="400d")
    assert answer.wrong == {"postgres.retention": "problem"}
    with psycopg.connect(database, autocommit=True) as admin:
        for statement in re.findall("`(.*?)`", answer.findings["postgres.retention"]["remedy"]):
            admin.execute(statement.encode())
        answer = run_check("--json", DATABASE_URL=url, NOTIFLOG_RETAIN="400d")
        admin.execute(f"drop owned by {role}".encode())
    assert (answer.wrong, answer.findings["postgres.retention"]["level"]) == ({}, "ok")


@pytest.mark.parametrize("ledger", ["ours", "of Supabase"])
def test_the_workers_own_role_is_told_that_it_cannot_know_of_migrations(
    run_check: Run, worker: Worker, database: str, postgres: sandbox.Postgres, role: str, ledger: str
) -> None:
    if ledger == "of Supabase":
        with psycopg.connect(database) as admin:
            admin.execute("alter schema notiflog rename to supabase_migrations")
    answer = run_check("--json", DATABASE_URL=postgres.url(str(conninfo_to_dict(database)["dbname"]), role))
    assert (answer.status, answer.wrong) == (0, {})
    assert "worker.migrate --check" in answer.findings["postgres.migrations"]["text"]


def test_a_closed_schema_is_told_with_its_remedy(
    run_check: Run, worker: Worker, database: str, postgres: sandbox.Postgres, role: str
) -> None:
    with psycopg.connect(database) as admin:
        admin.execute("create schema push; alter table public.device_tokens set schema push")
    answer = run_check(
        "--json",
        DATABASE_URL=postgres.url(str(conninfo_to_dict(database)["dbname"]), role),
        NOTIFLOG_TOKEN_TABLE="push.device_tokens",
    )
    remedy = answer.findings["postgres.privileges"]["remedy"]
    assert (answer.wrong, remedy) == (
        {"postgres.privileges": "problem"},
        "run `grant usage on schema push to notiflog_worker`",
    )


@pytest.mark.parametrize("table", ["device_tokens", "push.devices"])
def test_the_token_table_by_any_name(run_check: Run, worker: Worker, database: str, table: str) -> None:
    if table == "push.devices":
        with psycopg.connect(database) as admin:
            admin.execute("create schema push; alter table public.device_tokens set schema push")
            admin.execute("alter table push.device_tokens rename to devices")
    answer = run_check("--json", NOTIFLOG_TOKEN_TABLE=table)
    located = table if "." in table else f"public.{table}"
    assert (answer.wrong, answer.findings["postgres.token_index"]["text"]) == ({}, f"{located}.token")


def test_a_redis_that_refuses_a_command(run_check: Run, durable_url: str, durable: Redis) -> None:
    durable.acl_setuser(
        "limited", enabled=True, nopass=True, keys=["*"], categories=["+@read"], commands=["+ping"]
    )
    limited = durable_url.replace("unix://", "unix://limited:any@")
    answer = run_check("--json", REDIS_URL=limited)
    assert answer.status == 1
    assert "it refuses a command" in answer.output


# --- servers that are away, silent, or not what they seem -------------------------------------------------


def test_redis_away_hides_nothing_of_postgres(run_check: Run, database: str) -> None:
    with psycopg.connect(database) as admin:
        admin.execute("drop index public.follow_up_notification_log_scenario_rule_id_idx")
    answer = run_check("--json", REDIS_URL="redis://127.0.0.1:1")
    wrong = {"redis.reachable": "problem", "postgres.log_table": "warning"}
    assert (answer.status, answer.wrong) == (1, wrong)


def test_postgres_away_hides_nothing_of_redis(run_check: Run) -> None:
    answer = run_check("--json", DATABASE_URL="postgresql://127.0.0.1:1/app")
    wrong = {"postgres.reachable": "problem", "queue.workers": "warning"}
    assert (answer.status, answer.wrong) == (1, wrong)


@pytest.mark.parametrize("what", ["database", "role"])
def test_what_does_not_exist_is_named(run_check: Run, postgres: sandbox.Postgres, what: str) -> None:
    url = postgres.url("S3CR3T") if what == "database" else postgres.url(user="S3CR3T")
    answer = run_check("--json", DATABASE_URL=url)
    assert answer.findings["postgres.reachable"]["text"].endswith(f" answers '{what} ... does not exist'")
    assert "S3CR3T" not in answer.output


def test_wrong_settings_hide_nothing_of_redis(run_check: Run, durable: Redis) -> None:
    durable.config_set("appendonly", "no")
    answer = run_check("--json", DATABASE_URL="")
    wrong = {"settings.environment": "problem", "redis.persistence": "warning", "queue.workers": "warning"}
    assert (answer.status, answer.wrong) == (2, wrong)


def test_a_redis_url_that_is_none(run_check: Run) -> None:
    answer = run_check("--json", REDIS_URL="S3CR3T")
    assert (answer.status, answer.wrong) == (2, {"settings.redis_url": "problem"})
    assert "S3CR3T" not in answer.output


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_servers_that_never_answer_are_told_in_time(
    run_check: Run, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.check.look.PATIENCE", 0.5)
    monkeypatch.setattr("worker.servers.redis.PATIENCE", 2.0)
    answer = run_check(
        "--json", DATABASE_URL=f"postgresql://127.0.0.1:{silent}/app", REDIS_URL=f"redis://127.0.0.1:{silent}"
    )
    assert (answer.status, answer.wrong) == (
        1,
        {"redis.reachable": "problem", "postgres.reachable": "problem"},
    )
    assert answer.findings["redis.reachable"]["text"].startswith("no answer within")


@pytest.fixture
def tcp_postgres(server_directory: Path) -> Iterator[sandbox.Postgres]:
    with sandbox.postgres(server_directory, tcp=True, settings={"fsync": "off"}) as server:
        sandbox.create_app_tables(server.url())
        yield server


@contextmanager
def _pgbouncer(server: sandbox.Postgres, mode: str) -> Iterator[str]:
    """The URL of a PgBouncer before `server`."""
    binary = Path("/usr/sbin/pgbouncer")
    require(binary.exists(), "PgBouncer")
    with sandbox.directory() as directory:
        port = sandbox.free_port()
        (directory / "users.txt").write_text('"postgres" "unused"\n')
        (directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {directory}/users.txt\npool_mode = {mode}\n"
        )
        process = subprocess.Popen(
            [binary, "-q", directory / "pgbouncer.ini"],
            user="nobody" if os.geteuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield f"postgresql://postgres:unused@127.0.0.1:{port}/postgres"
        finally:
            sandbox.stop(process, signal.SIGTERM)


def test_the_mode_of_a_pooler_is_told(run_check: Run, tcp_postgres: sandbox.Postgres) -> None:
    def pooler(url: str) -> str:
        while True:
            answer = run_check("--json", DATABASE_URL=url)
            if found := answer.findings.get("postgres.pooler"):
                return found["text"]
            assert answer.wrong["postgres.reachable"] == "problem"  # PgBouncer is not up yet

    with ExitStack() as stack:
        urls = [tcp_postgres.tcp_url()]
        urls += [stack.enter_context(_pgbouncer(tcp_postgres, mode)) for mode in ("session", "transaction")]
        assert [pooler(url) for url in urls] == [
            "none",
            "a pooler in session mode",
            "a pooler in transaction mode",
        ]


# --- how it is told ---------------------------------------------------------------------------------------


def test_text_is_aligned_and_says_the_same(run_check: Run, worker: Worker, durable: Redis) -> None:
    durable.config_set("maxmemory-policy", "allkeys-lru")
    durable.config_set("appendonly", "no")
    findings, answer = run_check("--json").findings, run_check()
    lines = answer.output.splitlines()
    # Memory and ages are others by now.
    told = [re.sub(r"\d+", "0", line) for line in lines if re.match(r"  \w", line)]
    texts = [re.sub(r"\d+", "0", finding["text"]).partition("; heart")[0] for finding in findings.values()]
    columns = {line.index(text) for line, text in zip(told, texts, strict=True)}
    remedies = {line.index("-> ") for line in lines if "-> " in line}
    assert (answer.status, len(columns), remedies) == (1, 1, columns)
    assert [line for line in lines[:-1] if not line.startswith(" ")] == [
        "settings",
        "redis",
        "postgres",
        "queue",
    ]
    assert lines[-1] == "1 problem, 1 warning"


@pytest.fixture
def on_a_terminal(database: str, durable_url: str, worker: Worker) -> Callable[..., list[str]]:
    """What the command shows on a terminal of so many columns."""

    def show(columns: int, **environ: str) -> list[str]:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")
        }
        environment |= {"PYTHONIOENCODING": "utf-8", "TERM": "xterm", **environ}
        process = subprocess.Popen(
            [sys.executable, "-m", "worker.check"],
            env={**environment, "DATABASE_URL": database, "REDIS_URL": durable_url},
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        shown = b""
        with closing(os.fdopen(ours, "rb", buffering=0)) as terminal, suppress(OSError):  # so ends a pty
            while part := terminal.read(65536):
                shown += part
        assert process.wait(timeout=60) in (0, 1)
        return shown.decode().splitlines()

    return show


def test_a_terminal_gets_marks_in_colours(on_a_terminal: Callable[..., list[str]]) -> None:
    first = next(line for line in on_a_terminal(120) if "reachable" in line)
    assert first.startswith("  \x1b[32m\x1b[1m✓\x1b[0m  ")


def test_who_wants_no_colours_gets_none(on_a_terminal: Callable[..., list[str]]) -> None:
    shown = on_a_terminal(120, NO_COLOR="1")
    assert any(line.startswith("  ✓  reachable") for line in shown)
    assert "\x1b" not in "".join(shown)


@pytest.mark.parametrize("columns", [60, 120])
def test_on_a_terminal_lines_break_between_words(
    on_a_terminal: Callable[..., list[str]], run_check: Run, durable: Redis, columns: int
) -> None:
    durable.config_set("maxmemory-policy", "allkeys-lru")
    durable.config_set("appendonly", "no")
    shown = on_a_terminal(columns, NO_COLOR="1")
    words = {word for finding in run_check("--json").findings.values() for word in finding["remedy"].split()}
    assert max(map(len, shown)) <= columns
    assert words <= {word for line in shown for word in line.split()}


def test_nothing_secret_is_told(
    run_check: Run, database: str, durable_url: str, queue: Queue, app: sample.App
) -> None:
    event = make.event(app, results=[make.unregistered("S3CR3T-token")])
    queue.failed_job_registry.add(queue.enqueue(JOB, [event], description="S3CR3T"))
    queue.enqueue(JOB, [event], description="S3CR3T")
    urls = {
        "DATABASE_URL": database.replace("postgres@", "postgres:S3CR3T@"),
        "REDIS_URL": durable_url.replace("unix://", "unix://:S3CR3T@"),
    }
    away = {
        "DATABASE_URL": "postgresql://user:S3CR3T@127.0.0.1:1/app",
        "REDIS_URL": "redis://:S3CR3T@127.0.0.1:1",
    }
    broken = {"DATABASE_URL": "postgresql://user:S3CR3T%zz@h/app", "REDIS_URL": "redis://:S3CR3T@h:port"}
    answers = [run_check(*form, **environ) for environ in (urls, away, broken) for form in ((), ("--json",))]
    assert [answer.status for answer in answers] == [1, 1, 1, 1, 2, 2]
    assert ["S3CR3T" in answer.output + answer.errors for answer in answers] == [False] * 6


def test_wrong_usage(run_check: Run) -> None:
    assert run_check("--jsno").status == 2


# --- the probe --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [480, 60], ids=["just sent", "due now, while a job runs"])
def test_a_worker_of_this_host_is_alive(run_probe: Run, worker: Worker, durable: Redis, ttl: int) -> None:
    durable.expire(worker.key, ttl)
    answer = run_probe("--max-age", "60")
    assert (answer.status, answer.output.partition(":")[0]) == (0, worker.name)


#: What is done to the one worker's hash.
NOT_ALIVE: dict[str, tuple[dict[str, str], int]] = {
    "on another host": ({"hostname": "elsewhere"}, 480),
    "overdue": ({}, 29),
    "too old for --max-age": ({"last_heartbeat": "2026-11-01T00:00:00.000000Z"}, 480),
    "with no heartbeat": ({"last_heartbeat": ""}, 480),
}


@pytest.mark.parametrize(("fields", "ttl"), NOT_ALIVE.values(), ids=NOT_ALIVE)
def test_a_worker_does_not_count(
    run_probe: Run, worker: Worker, durable: Redis, fields: dict[str, str], ttl: int
) -> None:
    for name, value in fields.items():
        durable.hset(worker.key, name, value)
    durable.expire(worker.key, ttl)
    assert run_probe("--max-age", "60").status == 1


def test_a_worker_that_ended_or_expired_does_not_count(
    run_probe: Run, worker: Worker, durable: Redis
) -> None:
    durable.delete(worker.key)
    expired = run_probe().status
    worker.register_birth()
    worker.register_death()
    assert (expired, run_probe().status) == (1, 1)


@pytest.mark.parametrize(("url", "status"), [("redis://:S3CR3T@127.0.0.1:1", 1), ("S3CR3T://x", 2)])
def test_a_probe_without_redis(run_probe: Run, url: str, status: int) -> None:
    answer = run_probe(REDIS_URL=url)
    assert (answer.status, "REDIS_URL" in answer.errors) == (status, True)
    assert "S3CR3T" not in answer.output + answer.errors


def test_the_probe_loads_neither_rq_nor_psycopg() -> None:
    code = "import sys, worker.probe; print([m for m in ('rq', 'psycopg', 'msgspec') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_draining_worker_is_seen_by_both(
    run_check: Run, run_probe: Run, database: str, durable: Redis, durable_url: str, tmp_path: Path
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": database,
        "REDIS_URL": durable_url,
        "RQ_WORKER_CLASS": "worker.drain.DrainWorker",
    }
    with rq_worker(environment, tmp_path / "log") as process:
        while run_probe("--max-age", "30").status:
            assert process.poll() is None, (tmp_path / "log").read_text()
        assert run_check("--json").wrong == {}


@pytest.mark.parametrize(("notices", "absent", "warned"), [(40, 38, True), (40, 30, False), (10, 10, False)])
def test_dead_tokens_that_the_table_does_not_hold(
    run_check: Run, worker: Worker, durable: Redis, notices: int, absent: int, warned: bool
) -> None:
    counters.count(durable, Counter({"tokens:apns:absent": absent, "tokens:apns:pruned": notices - absent}))
    answer = run_check("--json")
    assert ("queue.absent" in answer.wrong) == warned
    if warned:
        assert "of 40 dead tokens of apns since yesterday the table held 2" in str(answer.findings)
