"""The demo, as a newcomer runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "worker.demo", "--events", "400"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(tmp_path),
        "COLUMNS": "120",
        # The demo must not look at these: nobody answers there.
        "DATABASE_URL": "postgresql://127.0.0.1:1/production",
        "REDIS_URL": "redis://127.0.0.1:1",
    }


@pytest.fixture
def tmp_path() -> Path:
    # pytest's own are too deep for a socket's path, and closed to the account PostgreSQL runs as under root.
    path = Path("/tmp") / f"demo-{os.getpid()}-{time.monotonic_ns()}"  # noqa: S108
    path.mkdir(mode=0o755)
    return path


@pytest.mark.parametrize("worker", [[], ["--stock"]], ids=["draining", "stock"])
def test_it_shows_rows_tokens_and_rejected_events(environment: dict[str, str], worker: list[str]) -> None:
    command = [*COMMAND, *worker]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in (
        "follow_up_notification_log",
        "rq worker notiflog\n",
        "unregistered",
        "registered again after the send",
        "$.delivery_channel: expected 'fcm' or 'apns'",
        "events per second",
    ):
        assert expected in done.stdout


def test_with_a_wrong_project_it_shows_the_brake(environment: dict[str, str]) -> None:
    command = [*COMMAND, "--wrong-project"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for expected in ("The brake holds, ", "kept by the brake", "is the project, the environment"):
        assert expected in done.stdout


def test_it_leaves_nothing_behind(environment: dict[str, str], tmp_path: Path) -> None:
    subprocess.run(COMMAND, env=environment, capture_output=True, timeout=120, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["| head -n 1", ">/dev/full"])
def test_output_that_ends_early_ends_it_without_a_traceback(
    environment: dict[str, str], tmp_path: Path, where: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(COMMAND)} {where}"],  # noqa: S607
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stderr.count("\n") <= 1, "Traceback" in done.stderr) == (True, False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_its_servers_and_removes_its_files(
    environment: dict[str, str], tmp_path: Path, how: signal.Signals
) -> None:
    demo = subprocess.Popen(
        [*COMMAND[:-1], "20000", "--stock"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if "$ rq worker notiflog" in line:
            break
    time.sleep(1)
    demo.send_signal(how)
    output, _ = demo.communicate(timeout=60)
    assert (demo.returncode, list(tmp_path.iterdir())) == (130, []), output
    assert subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, check=False).stdout == b""  # noqa: S607


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--events", "0"], "not in the range x>=1"), (["--evnts", "5"], "No such option")],
)
def test_wrong_usage_ends_with_status_2(environment: dict[str, str], arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [*COMMAND[:3], *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, says in done.stderr) == (2, True)
