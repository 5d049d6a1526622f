"""The command `python -m worker.metrics`: how it starts, what it refuses, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.metrics.conftest import ask, exporter

NOWHERE = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "worker.metrics", *arguments],
        env={"PATH": os.environ["PATH"], **NOWHERE, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_it_serves_with_both_servers_away_and_ends_when_told(host: str) -> None:
    with exporter(NOWHERE, "--host", host) as url:
        assert ask(url, "/healthz")[0] == 200


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is not set"),
        ({"REDIS_URL": "redis://:S3CR3T@host:S3CR3T"}, "REDIS_URL cannot be parsed"),
    ],
    ids=["no database", "no address of a Redis"],
)
def test_a_wrong_setting_is_one_sentence(environment: dict[str, str], sentence: str) -> None:
    done = run(**environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr
    assert "S3CR3T" not in done.stderr


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "70000"], ["--nonsense"]], ids=" ".join)
def test_wrong_usage_is_told_with_the_way_to_the_help(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "python -m worker.metrics --help" in done.stderr


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = run("--port", port)
    assert (done.returncode, done.stderr) == (
        1,
        f"metrics: cannot listen on 127.0.0.1 port {port}: Address already in use\n",
    )


def test_a_host_that_is_none_is_one_sentence() -> None:
    done = run("--host", "no such host")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_interrupted_it_says_so_in_one_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.metrics", "--port", "0"],
        env={"PATH": os.environ["PATH"], **NOWHERE},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, "metrics: interrupted\n")


def test_without_its_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client").mkdir()
    (tmp_path / "prometheus_client" / "__init__.py").write_text("raise ModuleNotFoundError(name=__name__)")
    done = run(PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (
        1,
        "`prometheus_client` is missing, or not of the right version: pip install 'notiflog[metrics]'\n",
    )
