"""The pins of requirements.txt are all that a worker needs, and fit together."""

from pathlib import Path

import psycopg
import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.installed import ROOT, Venv, wheel
from worker.demo import sample

__all__ = ["wheel"]


@pytest.fixture
def pinned(wheel: Path, tmp_path: Path) -> Venv:
    """A clean virtual environment with the pins and our wheel, and nothing that anybody else asks for."""
    venv = Venv.make(tmp_path / "venv", borrow=False)
    venv.pip("install", "--no-deps", "--requirement", ROOT / "requirements.txt").check_returncode()
    venv.install(wheel)
    return venv


def test_a_worker_runs_on_the_pins_alone(
    pinned: Venv,
    database: str,
    connection: psycopg.Connection,
    redis: Redis,
    valkey_url: str,
    app: sample.App,
) -> None:
    checked = pinned.pip("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    Queue("notiflog", connection=redis).enqueue(
        "worker.jobs.record_outcomes", [make.event(app, number) for number in range(3)]
    )
    environment = {
        "DATABASE_URL": database,
        "REDIS_URL": valkey_url,
        "RQ_WORKER_CLASS": "notiflog.drain.DrainWorker",
    }
    done = pinned.run("rq", "worker", "notiflog", "--burst", environment=environment)
    assert done.returncode == 0, done.stderr
    assert connection.execute("select count(*) from follow_up_notification_log").fetchone() == (3,)
    assert pinned.run("python", "-c", "import firebase_admin, hiredis, notiflog.sweep.dryrun").returncode == 0
    for command in ("migrate", "check", "sweep", "retain", "forget"):
        assert pinned.run("notiflog", command, "--help").returncode == 0
