"""A worker that could lose jobs or not record them does not start, and says in a sentence what to do."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from redis import Redis
from rq import Queue

from tests.drain.conftest import Start, enqueue_many, statuses
from worker.demo import sample, sandbox

LOG = "public.follow_up_notification_log"


def test_two_queues_are_refused(redis: Redis, queue: Queue, app: sample.App, start: Start) -> None:
    jobs = enqueue_many(queue, app, 2)
    worker = start("other", "--burst")
    assert worker.wait() == 1
    assert "DrainWorker listens on one queue, not on 2 (notiflog, other)" in worker.output
    assert (statuses(jobs), "Traceback" in worker.output) == (["queued"] * 2, False)


@pytest.fixture
def role(postgres: sandbox.Postgres) -> Iterator[str]:
    """A role that can log in and may do nothing."""
    name = f"role_{secrets.token_hex(4)}"
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
    yield name
    with psycopg.connect(postgres.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def as_role(postgres: sandbox.Postgres, database: str, role: str) -> str:
    return postgres.url(str(conninfo_to_dict(database)["dbname"]), role)


#: What is done to a migrated database, and what the worker must say about it.
UNUSABLE: dict[str, tuple[str, list[str]]] = {
    "missing table": (f"drop table {LOG}", [f"table {LOG} does not exist", "python -m worker.migrate"]),
    "missing token table": (
        "drop table public.device_tokens",
        ["table public.device_tokens does not exist", "NOTIFLOG_TOKEN_TABLE"],
    ),
    "missing privilege": (
        "grant notiflog_worker to {role}; revoke insert on " + LOG + " from notiflog_worker",
        [f"notiflog_worker may not insert on {LOG}: run `grant insert"],
    ),
    "not a member": ("select 1", ["is not a member of notiflog_worker: run `grant notiflog_worker to"]),
    "row level security without a policy": (
        "grant notiflog_worker to {role}; alter table public.device_tokens enable row level security;"
        " drop policy notiflog_worker_delete on public.device_tokens",
        ["row level security hides rows of public.device_tokens", "create policy"],
    ),
}


@pytest.mark.parametrize(("change", "sentences"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_database_that_cannot_be_written_is_refused(
    queue: Queue,
    app: sample.App,
    start: Start,
    database: str,
    postgres: sandbox.Postgres,
    role: str,
    change: str,
    sentences: list[str],
) -> None:
    jobs = enqueue_many(queue, app, 2)
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(change.format(role=role).encode())
    worker = start("--burst", DATABASE_URL=as_role(postgres, database, role))
    assert (worker.wait(), statuses(jobs)) == (1, ["queued"] * 2), worker.output
    missing = [sentence for sentence in sentences if sentence not in worker.output]
    assert (missing, "Traceback" in worker.output) == ([], False), worker.output


def test_the_workers_own_role_suffices(
    queue: Queue, app: sample.App, start: Start, database: str, postgres: sandbox.Postgres, role: str
) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"grant notiflog_worker to {role}".encode())
    jobs = enqueue_many(queue, app, 2)
    worker = start("--burst", DATABASE_URL=as_role(postgres, database, role))
    assert (worker.wait(), statuses(jobs)) == (0, ["finished"] * 2), worker.output


def test_a_privilege_lost_later_stops_the_worker_and_keeps_the_jobs(
    queue: Queue,
    app: sample.App,
    start: Start,
    database: str,
    postgres: sandbox.Postgres,
    role: str,
    redis: Redis,
) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(f"grant notiflog_worker to {role}".encode())
        worker = start(DATABASE_URL=as_role(postgres, database, role))
        first = enqueue_many(queue, app, 1)
        while statuses(first) != ["finished"]:
            assert worker.process.poll() is None, worker.output
        admin.execute(f"revoke insert on {LOG} from notiflog_worker".encode())
        jobs = enqueue_many(queue, app, 5, first=1)
        assert worker.wait() == 1
        admin.execute(f"grant insert on {LOG} to notiflog_worker".encode())
        assert (statuses(jobs), redis.zcard("rq:wip:notiflog")) == (["queued"] * 5, 0)
    assert "Stopped, with all jobs back in the queue: InsufficientPrivilege" in worker.output


WRONG_URLS = {
    "wrong password": ("SECRET", "wrong user or password|password authentication failed"),
    "no such database": ("", "does not exist"),
}


@pytest.fixture
def with_passwords(server_directory: Path) -> Iterator[str]:
    """The URL of a server that asks for a password, and is given a wrong one."""
    with sandbox.postgres(server_directory, tcp=True, settings={"fsync": "off"}) as server:
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("create role app login password 'right'")
        (server.directory / "pg_hba.conf").write_text("host all all all scram-sha-256\nlocal all all trust\n")
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("select pg_reload_conf()")
        yield f"postgresql://app:WRONG-SECRET@127.0.0.1:{server.port}/postgres"


def test_a_wrong_password_is_refused_and_not_shown(
    queue: Queue, app: sample.App, start: Start, with_passwords: str
) -> None:
    jobs = enqueue_many(queue, app, 1)
    worker = start("--burst", DATABASE_URL=with_passwords)
    assert (worker.wait(), statuses(jobs)) == (1, ["queued"])
    assert "password authentication failed for user ...': check DATABASE_URL" in worker.output
    assert "SECRET" not in worker.output


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "DATABASE_URL is not set"),
        ("postgresql://user:SECRET%zz@host/db", "DATABASE_URL cannot be parsed"),
    ],
)
def test_a_wrong_setting_is_refused_and_not_shown(
    queue: Queue, app: sample.App, start: Start, url: str, sentence: str
) -> None:
    jobs = enqueue_many(queue, app, 1)
    worker = start("--burst", DATABASE_URL=url)
    assert (worker.wait(), statuses(jobs)) == (1, ["queued"])
    assert sentence in worker.output
    assert ("SECRET" in worker.output, "Traceback" in worker.output) == (False, False)


@pytest.fixture
def own_valkey(server_directory: Path) -> Iterator[str]:
    with sandbox.valkey(server_directory, appendonly="yes") as url:
        yield url


def test_a_redis_that_may_evict_jobs_is_refused(own_valkey: str, app: sample.App, start: Start) -> None:
    with Redis.from_url(own_valkey) as redis:
        jobs = enqueue_many(Queue("notiflog", connection=redis), app, 1)
        for policy in ("allkeys-lru", "volatile-ttl"):
            redis.config_set("maxmemory-policy", policy)
            worker = start("--burst", REDIS_URL=own_valkey)
            assert (worker.wait(), statuses(jobs)) == (1, ["queued"])
            assert f"Redis may evict jobs (maxmemory-policy {policy})" in worker.output
            assert "Set maxmemory-policy noeviction." in worker.output


def test_a_redis_that_keeps_nothing_over_a_restart_is_warned_about(
    own_valkey: str, redis: Redis, start: Start
) -> None:
    durable, not_durable = start("--burst", REDIS_URL=own_valkey), start("--burst")
    assert (durable.wait(), not_durable.wait()) == (0, 0)
    assert (durable.logged("redis_not_durable"), len(not_durable.logged("redis_not_durable"))) == ([], 1)


def test_parameters_of_other_clients_are_told_of(database: str, start: Start) -> None:
    worker = start("--burst", DATABASE_URL=f"{database}&pgbouncer=true")
    assert worker.wait() == 0
    (line,) = worker.logged("setting_passed_over")
    assert "passed over: pgbouncer" in line["problem"]


def test_a_redis_that_is_away_is_an_error(start: Start) -> None:
    worker = start("--burst", REDIS_URL="redis://127.0.0.1:1")
    assert worker.wait() == 1


def test_no_worker_of_one_name_starts_twice(redis: Redis, start: Start) -> None:
    start("--name", "worker-1")
    while redis.hget("rq:worker:worker-1", "state") != b"idle":
        pass
    second = start("--name", "worker-1", "--burst")
    assert second.wait() == 1
    assert "A worker named worker-1 is at work" in second.output
