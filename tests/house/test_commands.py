"""What holds for every command alike: its answer, its complaints and its exit status."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Every command, with the arguments of the shortest answer that needs no more than the two servers.
COMMANDS = {
    "migrate": ["--check"],
    "check": [],
    "probe": [],
    "report": [],
    "replay": [],
    "enqueue": [str(Path(__file__).with_name("event.jsonl"))],
    "sweep": ["--dry-run"],
    "retain": ["--older-than", "400d", "--dry-run"],
    "forget": ["--dry-run", "00000000-0000-0000-0000-000000000001"],
    "events": ["--schema"],
}
#: Those that wait for a server; the demo brings its own, see `tests/demo`.
WAITING = sorted({*COMMANDS} - {"events"})
#: Those that answer where nothing is set up wrong, all but the probe: no worker is running.
ANSWERING = sorted({*COMMANDS} - {"probe"})

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def environment(database: str, valkey_url: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATABASE_URL": database, "REDIS_URL": valkey_url}


def shell(line: str, environment: dict[str, str], cwd: Path | None = None) -> Done:
    """A line of Bash, with the status of the first of its commands that fails."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],  # noqa: S607
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def line(name: str) -> str:
    return f"{sys.executable} -m worker.{name} {' '.join(COMMANDS[name])}"


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.usefixtures("redis")
def test_a_reader_who_has_seen_enough_is_no_error(name: str, environment: dict[str, str]) -> None:
    done = shell(f"{line(name)} | true", environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.usefixtures("redis")
def test_an_answer_that_cannot_be_written_is_a_problem(name: str, environment: dict[str, str]) -> None:
    done = shell(f"{line(name)} >/dev/full", environment)
    sentence = f"{name}: cannot write the answer: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, sentence)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("redis")
def test_help_that_nobody_reads_or_that_cannot_be_written_is_one_sentence_at_most(
    name: str, environment: dict[str, str]
) -> None:
    help_ = f"{sys.executable} -m worker.{name} --help"
    unread, unwritten = shell(f"{help_} | true", environment), shell(f"{help_} >/dev/full", environment)
    assert (unread.returncode, unread.stderr) == (0, "")
    assert (unwritten.returncode, unwritten.stderr.count("\n")) == (1, 1)
    assert "cannot write" in unwritten.stderr


@pytest.mark.parametrize("arguments", ["", "--version", "--help", "events --schema"])
def test_so_it_is_with_the_list_of_commands(arguments: str) -> None:
    listing = f"{sys.executable} -m worker {arguments}"
    unread = shell(f"{listing} | true", {"PATH": os.environ["PATH"]})
    unwritten = shell(f"{listing} >/dev/full", {"PATH": os.environ["PATH"]})
    assert (unread.returncode, unread.stderr) == (0, "")
    assert (unwritten.returncode, unwritten.stderr.count("\n")) == (1, 1)
    assert "cannot write the answer" in unwritten.stderr


@pytest.mark.parametrize("name", WAITING)
def test_a_complaint_that_cannot_be_written_changes_no_status(name: str) -> None:
    nowhere = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REDIS_URL": "redis://127.0.0.1:1"}
    places = ("", "2>/dev/full", "2>&1 >/dev/null | true")
    done = [shell(f"{line(name)} {where}", {"PATH": os.environ["PATH"], **nowhere}) for where in places]
    assert [one.returncode for one in done] == [1, 1, 1]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("redis")
def test_a_closed_output_changes_no_status(name: str, closed: str, environment: dict[str, str]) -> None:
    done = shell(f"{line(name)} {closed}", environment)
    assert done.returncode == (1 if name == "probe" else 0)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("redis")
def test_where_the_encoding_lacks_characters_the_answer_is_as_good(
    name: str, environment: dict[str, str]
) -> None:
    done = shell(line(name), {**environment, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    usual = shell(line(name), environment)
    assert done.returncode == usual.returncode
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == len(usual.stdout.splitlines())


@pytest.mark.parametrize("name", ANSWERING)
@pytest.mark.usefixtures("redis")
def test_in_a_folder_where_nobody_may_write_it_answers(name: str, environment: dict[str, str]) -> None:
    done = shell(line(name), environment, Path("/proc"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


@pytest.mark.parametrize("name", WAITING)
def test_interrupted_it_says_so_in_one_line(name: str, silent: socket.socket, tmp_path: Path) -> None:
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    command = subprocess.Popen(
        [sys.executable, "-m", f"worker.{name}", *COMMANDS[name]],
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"postgresql://app@{address}/app",
            "REDIS_URL": f"redis://{address}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    connection, _ = silent.accept()
    with connection:
        connection.recv(1)  # it waits for an answer now
        command.send_signal(signal.SIGINT)
        output, errors = command.communicate(timeout=30)
    assert (command.returncode, output) == (1, "")
    assert errors.startswith(f"{name}: interrupted")
    assert errors.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_usage_is_told_with_the_way_to_the_help(name: str) -> None:
    done = shell(f"{sys.executable} -m worker.{name} --nonsense", {"PATH": os.environ["PATH"]})
    assert (done.returncode, done.stdout) == (2, "")
    assert f"python -m worker.{name}" in done.stderr
    assert "--nonsense" in done.stderr
    assert "--help" in done.stderr


MALFORMED = ["redis://:S3CR3T@host:S3CR3T", "redis://u:S3CR3T/S3CR3T@host:6379", "S3CR3T://[S3CR3T@host"]
#: RQ's commands that load something of ours before they read the address.
RQ = {
    "worker with the settings": ("worker", {"RQ_CONFIG": "worker.rqconfig"}),
    "cron with the settings": ("cron worker.cron", {"RQ_CONFIG": "worker.rqconfig"}),
    "draining worker": ("worker", {"RQ_WORKER_CLASS": "worker.drain.DrainWorker"}),
    "info of draining workers": ("info", {"RQ_WORKER_CLASS": "worker.drain.DrainWorker"}),
}


@pytest.mark.parametrize("address", MALFORMED)
@pytest.mark.parametrize("variable", ["REDIS_URL", "RQ_REDIS_URL"])
@pytest.mark.parametrize("name", RQ)
def test_an_address_that_rq_cannot_read_is_one_sentence_without_it(
    name: str, variable: str, address: str
) -> None:
    command, environment = RQ[name]
    rq = Path(sys.executable).with_name("rq")
    done = shell(f"{rq} {command}", {"PATH": os.environ["PATH"], **environment, variable: address})
    said = done.stdout + done.stderr
    assert (done.returncode, said.count("\n")) == (1, 1)
    assert said.startswith(f"{variable} cannot be parsed: expected redis://")
    assert "S3CR3T" not in said


@pytest.mark.parametrize("parameter", ["family=0", "tls=true", "ssl=true", "decode_responses=True"])
@pytest.mark.parametrize("name", RQ)
def test_a_parameter_that_rq_s_client_does_not_take_is_one_sentence(name: str, parameter: str) -> None:
    command, environment = RQ[name]
    rq = Path(sys.executable).with_name("rq")
    url = f"redis://:S3CR3T@127.0.0.1:1?{parameter}"
    done = shell(f"{rq} {command}", {"PATH": os.environ["PATH"], **environment, "REDIS_URL": url})
    said = done.stdout + done.stderr
    assert (done.returncode, said.count("\n")) == (1, 1)
    assert said.startswith("REDIS_URL has ")
    assert parameter.partition("=")[0] in said
    assert "S3CR3T" not in said


def test_a_mistyped_worker_class_is_one_sentence() -> None:
    rq = Path(sys.executable).with_name("rq")
    environment = {"RQ_CONFIG": "worker.rqconfig", "RQ_WORKER_CLASS": "worker.drain.DrainWorkr"}
    done = shell(f"{rq} worker notiflog", {"PATH": os.environ["PATH"], **environment})
    assert done.returncode == 1
    assert done.stderr == "RQ_WORKER_CLASS names no worker: did you mean worker.drain.DrainWorker?\n"


#: A module that every command needs, and early.
INTERRUPTING = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(10)"


@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_while_its_modules_load_it_says_so_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(INTERRUPTING)
    done = shell(line(name), {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{name}: interrupted\n")


def test_so_it_is_with_the_installed_command(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(INTERRUPTING)
    command = Path(sys.executable).with_name("notiflog")
    done = shell(f"{command} check", {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (1, "notiflog: interrupted\n")


def test_an_app_that_uses_the_package_keeps_its_own_ctrl_c(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "__init__.py").write_text("import worker.events")
    (app / "__main__.py").write_text("import signal; print(signal.getsignal(signal.SIGINT).__name__)")
    done = shell(f"{sys.executable} -m app", {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)})
    assert (done.stdout, done.stderr) == ("default_int_handler\n", "")
