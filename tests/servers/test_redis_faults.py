"""A Redis that answers with a refusal: what it means is told, and only what passes is waited for."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq import Queue

from tests import make
from worker.check.look import look
from worker.demo import sample, sandbox
from worker.demo.sandbox import rq_worker
from worker.drain.strict import redis_problems
from worker.servers.redis import explain
from worker.servers.redis_faults import LEAST, judge

#: What Redis or Valkey says; words of what is told; whether it passes.
ANSWERS = [
    ("READONLY You can't write against a read only replica.", "it is a replica", True),
    ("ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write", "a replica", True),
    ("UNBLOCKED force unblock from blocking operation, instance state changed", "it is a replica", True),
    ("MISCONF Errors writing to the AOF file: No space left on device", "cannot save its data", True),
    ("NOREPLICAS Not enough good replicas to write.", "too few replicas", True),
    ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", "SCRIPT KILL", True),
    ("LOADING Redis is loading the dataset in memory", "loading its data", True),
    ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "primary", True),
    ("ERR max number of clients reached", "maxclients", True),
    ("WRONGPASS invalid username-password pair or user is disabled.", "user and password", True),
    ("NOAUTH Authentication required.", "user and password", True),
    ("NOPERM this user has no permissions to run the 'evalsha' command", "EVALSHA is not allowed", False),
    ("NOPERM No permissions to access a key", "key or channel", False),
    ("ERR unknown command 'EVALSHA', with args beginning with: 'S3CR3T'", "EVALSHA is switched off", False),
    ("ERR unknown command `INFO`, with args beginning with: ", "INFO is switched off", False),
    ("MOVED 3999 127.0.0.1:6381", "Redis Cluster", False),
    ("CROSSSLOT Keys in request don't hash to the same slot", "Redis Cluster", False),
    ("CLUSTERDOWN Hash slot not served", "Redis Cluster", False),
    ("DENIED Redis is running in protected mode because S3CR3T", "protected mode", False),
    ("OOM command not allowed when used memory > 'maxmemory'.", "it is full", False),
    ("ERR something about S3CR3T", "it refuses a command (ResponseError)", False),
]


@contextmanager
def refusing(answer: str) -> Iterator[Redis]:
    """A client of a server that answers every command with this error."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    client, _ = listener.accept()
                    with suppress(OSError), client:
                        while asked := client.recv(1 << 16):
                            client.sendall(f"-{answer}\r\n".encode() * (b"\r\n" + asked).count(b"\r\n*"))

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        with Redis(port=port, retry=Retry(NoBackoff(), 0), protocol=2) as redis:
            yield redis
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(("answer", "words", "passes"), ANSWERS)
def test_an_answer_is_told_without_what_it_quotes(answer: str, words: str, passes: bool) -> None:
    with refusing(answer) as redis, pytest.raises(RedisError) as caught:
        redis.lpop("rq:queue:notiflog")

    assert words in explain(caught.value)
    assert "S3CR3T" not in explain(caught.value)
    assert judge(caught.value).passes is passes


@pytest.mark.parametrize(
    "answer", ["LOADING Redis is loading the dataset in memory", "NOAUTH Authentication required."]
)
def test_a_worker_says_so_where_it_refuses_to_start(answer: str) -> None:
    with refusing(answer) as redis:
        (problem,) = redis_problems(redis)

    assert problem.startswith("Redis: it ")


@pytest.fixture
def limited(server_directory: Path) -> Iterator[tuple[Redis, str]]:
    """A durable server, and its address for a user with the least rights."""
    with sandbox.valkey(server_directory, appendonly="yes") as url, Redis.from_url(url) as admin:
        line = LEAST.replace("<user>", "least").replace("<password>", "S3CR3T")
        admin.execute_command(*line.split())
        yield admin, url.replace("unix://", "unix://least:S3CR3T@")


def test_worker_scheduler_and_check_need_no_more_than_the_least(
    limited: tuple[Redis, str],
    database: str,
    app: sample.App,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin, url = limited
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": database, "REDIS_URL": url}
    with Redis.from_url(url) as scheduler:
        queue = Queue("notiflog", connection=scheduler)
        queue.enqueue("worker.jobs.record_outcomes", [make.event(app)])
        queue.enqueue("worker.jobs.record_outcomes", [make.event(app, 1, chapter_id=make.stranger())])
    for worker_class in ("worker.drain.DrainWorker", "rq.worker.Worker"):
        log = tmp_path / f"{worker_class}.log"
        with rq_worker({**environment, "RQ_WORKER_CLASS": worker_class}, log, "--burst") as worker:
            assert worker.wait(60) == 0, log.read_text()
        monkeypatch.setenv("REDIS_URL", url)
        monkeypatch.setenv("DATABASE_URL", database)
        wrong = [finding for finding in look("notiflog") if finding.level == "problem"]
        assert wrong == []
        with Redis.from_url(url) as scheduler:
            Queue("notiflog", connection=scheduler).enqueue(
                "worker.jobs.record_outcomes", [make.event(app, 2)]
            )
    assert [entry for entry in admin.acl_log() if entry["reason"] != "auth"] == []
    with psycopg.connect(database) as connection:
        rows = connection.execute("select count(*) from public.follow_up_notification_log").fetchone()
    assert rows == (2,)


def test_a_server_that_refuses_info_is_no_reason_to_stop(limited: tuple[Redis, str]) -> None:
    admin, url = limited
    admin.execute_command("ACL", "SETUSER", "least", "-info")  # type: ignore[no-untyped-call]
    with Redis.from_url(url) as redis:
        assert list(redis_problems(redis)) == []


def test_a_cluster_is_refused(server_directory: Path) -> None:
    cluster: Any = {"cluster-enabled": "yes"}
    with sandbox.valkey(server_directory, **cluster) as url, Redis.from_url(url) as redis:
        assert any("it is a Redis Cluster" in problem for problem in redis_problems(redis))
