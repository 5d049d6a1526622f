"""`python -m worker.sweep`: what it says, prunes and returns."""

import socket
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.scheduler.conftest import Fcm
from tests.sweep.conftest import APNS_TOKEN, BUSY, DEAD, Register, left
from worker.sweep import __main__ as sweep
from worker.sweep.passes import State, alone, load, save

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def environment(database: str, valkey_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setattr("time.sleep", lambda _: None)


def counted(output: str) -> dict[str, str]:
    return dict(line.split() for line in output.splitlines() if len(line.split()) == 2)


def test_it_prunes_and_reports(
    fcm: Fcm, register: Register, connection: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = register(150, APNS_TOKEN, days=40)
    fcm.answers = {tokens[0]: DEAD}
    assert sweep.main([]) == 0
    told = counted(capsys.readouterr().out)
    assert told["tokens"] == told["older_than_30_days"] == "151"
    assert (told["fcm"], told["apns"], told["alive"], told["pruned"]) == ("150", "1", "149", "1")
    assert len(left(connection)) == 150


def test_a_dry_run_changes_nothing_and_says_what_the_brake_would_do(
    fcm: Fcm,
    register: Register,
    connection: psycopg.Connection,
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokens = register(60)
    fcm.answers = dict.fromkeys(tokens, DEAD)
    assert sweep.main(["--dry-run"]) == 1
    said = capsys.readouterr()
    assert (counted(said.out)["dead"], left(connection), redis.keys()) == ("60", tokens, [])
    assert "The brake would keep them" in said.err
    fcm.answers = {}
    assert sweep.main(["--dry-run"]) == 0


def test_the_brake_holds_until_told_otherwise(
    fcm: Fcm, register: Register, connection: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = register(60)
    fcm.answers = dict.fromkeys(tokens, DEAD)
    assert sweep.main([]) == 1
    assert "--without-brake" in capsys.readouterr().err
    assert len(left(connection)) == 60
    assert sweep.main(["--without-brake"]) == 0
    assert left(connection) == []


def test_interrupted_it_goes_on_where_it_stopped(
    fcm: Fcm, register: Register, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(250)
    real = save

    def interrupt(redis: Redis, state: State) -> None:
        real(redis, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "save", interrupt)
    assert sweep.main([]) == 1
    monkeypatch.setattr(sweep, "save", real)
    assert sweep.main([]) == 0
    assert len(fcm.sent) == 250
    assert load(redis).counts["tokens"] == 250


def test_from_the_start_if_asked_to(fcm: Fcm, register: Register, redis: Redis) -> None:
    tokens = register(3)
    save(redis, State(tokens[1]))
    assert sweep.main(["--from-start"]) == 0
    assert len(fcm.sent) == 3


@pytest.mark.usefixtures("fcm")
def test_one_at_a_time(redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    with alone(redis):
        assert sweep.main([]) == 1
    assert "another sweep is under way" in capsys.readouterr().err


def test_fcm_away_is_a_problem_that_loses_nothing(
    fcm: Fcm, register: Register, connection: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = register(2)
    fcm.answers = dict.fromkeys(tokens, BUSY)
    assert sweep.main([]) == 1
    assert "unavailable: 2" in capsys.readouterr().err
    assert left(connection) == tokens


@pytest.mark.usefixtures("fcm")
def test_tokens_of_which_none_could_be_checked_are_a_problem(
    register: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    register(0, *(f"hashed-{number}" for number in range(15)))
    assert sweep.main([]) == 1
    said = capsys.readouterr()
    assert counted(said.out)["unknown"] == "15"
    assert "none of the 15 tokens has the form of FCM's, so nothing was checked" in said.err


@pytest.mark.usefixtures("fcm")
def test_apples_tokens_alone_are_none(register: Register) -> None:
    register(0, APNS_TOKEN)
    assert sweep.main([]) == 0


@pytest.mark.parametrize("token", ["hashed", APNS_TOKEN])
@pytest.mark.parametrize("content", [None, "{}"])
def test_wrong_credentials_are_told_before_anything_is_looked_at(
    register: Register,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    token: str,
) -> None:
    register(0, token)
    path = tmp_path / "S3CR3T.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    assert sweep.main([]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("sweep: no Firebase project: GOOGLE_APPLICATION_CREDENTIALS names a file")
    assert ("is not there" in said.err, "Firebase console" in said.err) == (content is None, True)
    assert (said.out, "S3CR3T" in said.err) == ("", False)


@pytest.mark.parametrize(
    ("name", "value", "status", "says"),
    [
        ("DATABASE_URL", "", 2, "DATABASE_URL is not set"),
        ("DATABASE_URL", "postgresql://u:S3CRET@127.0.0.1:1/x", 1, "check DATABASE_URL"),
        ("REDIS_URL", "S3CRET", 2, "REDIS_URL cannot be parsed"),
        ("REDIS_URL", "redis://:S3CRET@127.0.0.1:1", 1, "check REDIS_URL"),
    ],
)
def test_wrong_settings_are_named_and_not_shown(
    name: str,
    value: str,
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    assert sweep.main([]) == status
    said = capsys.readouterr().err
    assert says in said
    assert "S3CRET" not in said


def test_a_redis_that_never_answers_ends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("worker.servers.redis.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{silent.getsockname()[1]}")
        assert sweep.main([]) == 1
    assert "check REDIS_URL" in capsys.readouterr().err


def test_without_a_terminal_the_progress_is_lines(
    fcm: Fcm, register: Register, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    register(150)
    monkeypatch.setattr("worker.command.EVERY", 0.0)
    assert sweep.main([]) == 0
    assert "100 of 150 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--rate", "0"], ["--rate", "many"], ["--rate", "5001"], ["--nothing"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sweep.main(arguments)
    assert caught.value.code == 2


def test_help_tells_options_examples_and_exit_status() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.sweep", "--help"], capture_output=True, text=True, check=True
    )
    for word in ("--dry-run", "--from-start", "--without-brake", "--rate N", "examples:", "exit status: 0"):
        assert word in done.stdout
