"""Hosts that give little: a worker runs there, or says in a sentence what it lacks."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from tests.drain.conftest import LEASES, enqueue_many, statuses, until
from tests.migrations.conftest import require
from worker.demo import sample
from worker.demo.sandbox import stop

RQ = Path(sys.executable).with_name("rq")


def run(environment: dict[str, str], limit: int, size: int) -> "subprocess.CompletedProcess[str]":
    """Run a worker in burst mode under one limit of the system's."""
    return subprocess.run(
        [RQ, "worker", "notiflog", "--burst"],
        env=environment,
        preexec_fn=lambda: resource.setrlimit(limit, (size, size)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("size", [512 << 20, resource.RLIM_INFINITY], ids=["512 MB", "unlimited"])
def test_stacks_of_any_size_leave_the_worker_its_memory(
    queue: Queue, app: sample.App, environment: dict[str, str], size: int
) -> None:
    jobs = enqueue_many(queue, app, 3)
    done = run(environment, resource.RLIMIT_STACK, size)
    assert (done.returncode, statuses(jobs)) == (0, ["finished"] * 3), done.stdout


def test_too_little_memory_is_told_with_the_limit_to_raise(
    queue: Queue, app: sample.App, environment: dict[str, str]
) -> None:
    jobs = enqueue_many(queue, app, 1)
    done = run(environment, resource.RLIMIT_DATA, 40 << 20)
    assert (done.returncode, statuses(jobs)) == (1, ["queued"])
    sentence = "This process may hold 40 MB of data (`ulimit -d`, RLIMIT_DATA), a worker needs 128: raise"
    assert (sentence in done.stdout, "frames" in done.stdout) == (True, False), done.stdout


def test_too_few_threads_are_told_with_the_limits_to_raise() -> None:
    code = (
        "import resource; from pathlib import Path; from worker.drain import strict\n"
        "now = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "strict.limit_memory(); resource.setrlimit(resource.RLIMIT_AS, (now + (20 << 20),) * 2)\n"
        "strict.require_threads(7)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "threads can be started here, a worker needs 7: raise the limits" in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr


#: As process 1, on a file system that is read-only, of a user without name and home. That one capability
#: lets it reach what the tests' user owns, servers among it.
CONTAINER = """
for place in / /tmp /var/tmp /dev/shm; do mountpoint -q $place && mount -o remount,ro,bind $place; done
touch /tmp/writable 2>&1 && exit 3
user="--reuid 54321 --regid 54321 --clear-groups"
exec setpriv $user --inh-caps=+dac_override --ambient-caps=+dac_override "$@"
"""


def in_container(command: Sequence[str | Path]) -> list[str | Path]:
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "sh", *command]


def test_a_container_without_user_home_and_writable_place_will_do(
    redis: Redis, queue: Queue, app: sample.App, environment: dict[str, str], tmp_path: Path
) -> None:
    require(os.geteuid() == 0 and shutil.which("unshare") and shutil.which("setpriv"), "unshare, as root,")
    jobs = enqueue_many(queue, app, 3)
    log = tmp_path / "log"
    with log.open("wb") as output:
        command = in_container([RQ, "worker", "notiflog", "--name", "one"])
        outside = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        until(lambda: statuses(jobs) == ["finished"] * 3)
        until(lambda: redis.hget("rq:worker:one", "state") == b"idle")
        assert redis.hget("rq:worker:one", "pid") == b"1"
        (inside,) = Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()
        os.kill(int(inside), signal.SIGTERM)
        assert (outside.wait(20), redis.zcard(LEASES)) == (0, 0), log.read_text()
    finally:
        stop(outside, signal.SIGKILL)
