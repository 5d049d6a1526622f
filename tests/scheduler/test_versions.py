"""The scheduler's side runs beside the RQ and redis-py that an app has; the worker reads what it enqueues."""

import json
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from tests.drain.conftest import QUARANTINE, Drain, drain, new_worker, rows
from tests.installed import Venv, once, wheel
from tests.migrations.conftest import require
from worker.demo import sample

__all__ = ["drain", "new_worker", "wheel"]

#: What the app has. The oldest of all, the last before RQ 3, and what the worker needs.
APPS = {
    "rq 1.16": ["rq==1.16.2", "redis==4.6.0"],
    "rq 2.6": ["rq==2.6.1", "redis==5.3.1"],
    "rq 3.0": ["rq==3.0.0", "redis==8.1.0"],
}

SCHEDULER = """
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from redis import Redis
from notiflog import apns, fcm
from notiflog.enqueue import enqueue_outcomes, event

url, *ids = sys.argv[1:]
mentor, chapter, rule = ids
whose = dict(peer_mentor_id=mentor, chapter_id=chapter, scenario_rule_id=rule, attempted_at=datetime.now(UTC))

class Sent:
    success, message_id, exception = True, "projects/p/messages/1", None

class Answer:
    responses = [Sent()]

events = [
    event(**whose, date_window="1", delivery_channel="fcm", results=fcm.results(["a"], Answer())),
    event(**whose, date_window="2", delivery_channel="apns", results=apns.results(["b"], [(200, {}, b"")])),
    event(**whose, date_window="3", delivery_channel="fcm", skipped="quiet_hours"),
]
jobs = enqueue_outcomes(Redis.from_url(url), events, per_job=2)
print(len(jobs), version("rq"), version("redis"))
"""


@pytest.fixture
def scheduler(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Venv:
    """An app's environment, in which pip has found versions that go together."""
    pins = APPS[request.param]

    def install(directory: Path) -> None:
        done = Venv.make(directory, borrow=False).pip("install", wheel, *pins)
        offline = "No matching distribution" in done.stderr and "from versions: none" in done.stderr
        require(not offline, "rq, from an index")
        done.check_returncode()

    return Venv(once(tmp_path_factory, request.param.replace(" ", "-"), install))


@pytest.mark.parametrize("scheduler", APPS, indirect=True)
def test_what_it_enqueues_is_recorded(
    scheduler: Venv,
    redis: Redis,
    valkey_url: str,
    app: sample.App,
    connection: psycopg.Connection,
    drain: Drain,
    request: pytest.FixtureRequest,
) -> None:
    ids = (app.users[0], app.chapters[0], app.rules[0])
    done = scheduler.run("python", "-c", SCHEDULER, valkey_url, *map(str, ids))
    pins = APPS[request.node.callspec.params["scheduler"]]
    assert done.stdout.split() == ["2", *(pin.partition("==")[2] for pin in pins)], done.stderr
    drain()
    statuses = "select delivery_channel, status from public.follow_up_notification_log order by 1, 2"
    assert (rows(connection), connection.execute(statuses).fetchall()) == (
        3,
        [("apns", "delivered"), ("fcm", "delivered"), ("fcm", "skipped")],
    )


@pytest.mark.parametrize("scheduler", APPS, indirect=True)
def test_whichever_way_it_enqueues_by_hand_is_recorded(
    scheduler: Venv,
    redis: Redis,
    valkey_url: str,
    app: sample.App,
    connection: psycopg.Connection,
    drain: Drain,
) -> None:
    ids = (app.users[0], app.chapters[0], app.rules[0])
    done = scheduler.run("python", Path(__file__).with_name("ways.py"), valkey_url, *map(str, ids))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["unknown"], len(said["ways"]) > 50) == ({}, True)
    drain(with_scheduler=True)
    keys = connection.execute("select idempotency_key from public.follow_up_notification_log").fetchall()
    assert set(said["ways"]) - {key for (key,) in keys} == set()
    assert redis.llen(QUARANTINE) == 0


@pytest.mark.parametrize("scheduler", ["rq 3.0"], indirect=True)
@pytest.mark.parametrize("name", ["check", "migrate", "replay"])
def test_there_a_command_of_the_workers_says_what_to_install(scheduler: Venv, name: str) -> None:
    done = scheduler.run("notiflog", name)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pip install 'notiflog[worker]'" in done.stderr
