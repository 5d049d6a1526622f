"""What the exporter serves: the workers' counters, the state of both servers, and who of them is away."""

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from redis import Redis
from rq import Queue, Worker
from rq.utils import utcformat

from tests import make
from tests.drain.conftest import JOB, Drain, drain, enqueue_many, new_worker, queue
from tests.metrics.conftest import ask, scrape
from worker.demo import sample, sandbox
from worker.metrics.collect import COUNTERS, HISTOGRAMS
from worker.metrics.names import FAMILIES
from worker.record import brake, counters
from worker.record.numbers import LAG, NAMES, TURN
from worker.servers.migrations import migrations

__all__ = ["drain", "new_worker", "queue"]

Serve = Callable[..., str]

NOWHERE = {
    "redis": {"REDIS_URL": "redis://127.0.0.1:1"},
    "postgres": {"DATABASE_URL": "postgresql://127.0.0.1:1/x"},
}


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


# --- what there is ----------------------------------------------------------------------------------------


def test_every_metric_of_the_list_is_served_and_no_other(serve: Serve) -> None:
    _, _, text = ask(serve())
    told = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    assert told == {family.name: family.kind for family in FAMILIES}


def test_every_number_of_the_workers_is_served() -> None:
    served = [name for names in COUNTERS.values() for name in names]
    served += [name for histogram in HISTOGRAMS.values() for name in histogram.names]
    assert sorted(served) == sorted(NAMES)


def test_the_counters_are_what_the_workers_counted(serve: Serve, redis: Redis) -> None:
    counters.count(redis, Counter({name: at + 1 for at, name in enumerate(NAMES)}))
    numbers, served = counters.read(redis), scrape(serve())
    assert (
        served("notiflog_outcomes_total", channel="fcm", status="delivered")
        == numbers["outcomes:fcm:delivered"]
    )
    assert served("notiflog_duplicates_total", conflicting="true") == numbers["duplicates:conflicting"]
    assert served("notiflog_rejected_events_total") == numbers["rejected"]
    assert (
        served("notiflog_send_results_total", channel="apns", evidence="proven_dead", reason="unregistered")
        == numbers["results:apns:unregistered:proven_dead"]
    )
    assert (
        served("notiflog_tokens_total", action="withheld", channel="apns") == numbers["tokens:apns:withheld"]
    )
    assert served("notiflog_database_faults_total", **{"class": "rollback"}) == numbers["faults:rollback"]


def test_the_buckets_of_a_histogram_add_up(serve: Serve, redis: Redis) -> None:
    counters.count(redis, LAG.of([0.5, 4, 4, 100_000]) + TURN.of([0.02]))
    served = scrape(serve())
    bounds = ("1.0", "5.0", "86400.0", "+Inf")
    assert [served("notiflog_lag_seconds_bucket", le=bound) for bound in bounds] == [1, 3, 3, 4]
    assert (served("notiflog_lag_seconds_count"), served("notiflog_lag_seconds_sum")) == (4, 100_008.5)
    assert served("notiflog_turn_seconds_sum") == 0.02


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
        ("text/plain", "text/plain"),
        ("", "text/plain"),
    ],
)
def test_it_speaks_openmetrics_to_whoever_does(serve: Serve, accept: str, kind: str) -> None:
    status, type_, body = ask(serve(), Accept=accept)
    assert (status, type_.partition(";")[0]) == (200, kind)
    assert body.endswith("# EOF\n") == ("openmetrics" in kind)


@pytest.mark.parametrize(
    ("path", "status"), [("/healthz", 200), ("/", 404), ("/metrics/x", 404), ("/metrics?x=1", 200)]
)
def test_its_paths(serve: Serve, path: str, status: int) -> None:
    assert ask(serve(), path)[0] == status


# --- the state of things ----------------------------------------------------------------------------------


def test_of_an_idle_place_only_the_servers_are_told(serve: Serve) -> None:
    served = scrape(serve())
    assert [name for name, value in served.values.items() if value] == [
        'notiflog_up{server="redis"}',
        'notiflog_up{server="postgres"}',
    ]


def test_jobs_by_where_they_stand_and_how_long_the_oldest_waits(
    serve: Serve, redis: Any, queue: Queue, app: sample.App
) -> None:
    (oldest, *_) = enqueue_many(queue, app, 3)
    redis.hset(oldest.key, "enqueued_at", utcformat(datetime.now(UTC) - timedelta(seconds=1000)))
    redis.zadd("rq:wip:notiflog", {"a:1": 4e9, "b:2": 4e9})
    redis.rpush("rq:notiflog:quarantine:notiflog", "c")
    served = scrape(serve())
    states = ("waiting", "started", "failed", "quarantined")
    found = [served("notiflog_jobs", queue="notiflog", state=state) for state in states]
    assert found == [3, 2, 0, 1]
    assert 1000 <= served("notiflog_oldest_job_seconds", queue="notiflog") < 1100


def test_failed_jobs_by_reason(serve: Serve, queue: Queue, app: sample.App, drain: Drain) -> None:
    jobs: list[Any] = [[{}], [{}], "no list"]
    for events in jobs:
        queue.enqueue(JOB, events)
    drain()
    served = scrape(serve())
    reasons = {
        reason: served("notiflog_stopped_jobs", queue="notiflog", reason=reason)
        for reason in ("rejected", "untrusted", "database")
    }
    assert reasons == {"rejected": 2, "untrusted": 1, "database": 0}


def test_lost_jobs(serve: Serve, redis: Any) -> None:
    long_ago = utcformat(datetime.now(UTC) - timedelta(hours=1))
    redis.hset(
        "rq:job:x", mapping={"status": "queued", "origin": "notiflog", "enqueued_at": long_ago, "data": "x"}
    )
    assert scrape(serve())("notiflog_lost_jobs", queue="notiflog") == 1


def test_workers_that_are_alive_and_those_that_are_silent(serve: Serve, redis: Redis) -> None:
    for name in ("one", "two", "three"):
        Worker(["notiflog"], name=name, connection=redis).register_birth()
    redis.expire("rq:worker:two", 10)
    served = scrape(serve())
    found = [served("notiflog_workers", queue="notiflog", state=state) for state in ("alive", "silent")]
    assert found == [2, 1]


def test_workers_that_are_suspended(serve: Serve, redis: Redis) -> None:
    redis.set("rq:suspended", 1)
    assert scrape(serve())("notiflog_suspended") == 1


def test_the_brake_by_channel(serve: Serve, redis: Redis) -> None:
    brake.hold(redis, Counter(), Counter({"apns": 60}))
    served = scrape(serve())
    on = {name for name, value in served.values.items() if name.startswith("notiflog_brake_on") and value}
    assert on == {'notiflog_brake_on{channel="apns",source="sends"}'}


def test_prompts_that_were_never_reported(serve: Serve, connection: psycopg.Connection) -> None:
    connection.execute(
        "insert into notiflog.reservations (idempotency_key, reserved_at, held_until)"
        " values ('old', now() - interval '2 hours', now()), ('new', now(), now() + interval '1 hour')"
    )
    served = scrape(serve())
    assert served("notiflog_outstanding_prompts") == 1
    assert 7200 <= served("notiflog_outstanding_oldest_seconds") < 7300


def test_migrations_that_are_pending(serve: Serve, postgres: sandbox.Postgres, empty_database: str) -> None:
    assert scrape(serve(DATABASE_URL=empty_database))("notiflog_migrations_pending") == len(migrations())


def test_what_the_workers_own_role_may_not_see_is_left_out(
    serve: Serve, postgres: sandbox.Postgres, database: str
) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute("create role metrics_worker login in role notiflog_worker")
    try:
        url = postgres.url(str(conninfo_to_dict(database)["dbname"]), "metrics_worker")
        served = scrape(serve(DATABASE_URL=url))
    finally:
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("drop role metrics_worker")
    assert served("notiflog_up", server="postgres") == 1
    assert "notiflog_migrations_pending" not in served.values


# --- servers that are away --------------------------------------------------------------------------------

OF_REDIS = {
    family.name for family in FAMILIES if family.name.startswith("notiflog_") and family.kind != "gauge"
} | {
    "notiflog_jobs",
    "notiflog_oldest_job_seconds",
    "notiflog_stopped_jobs",
    "notiflog_lost_jobs",
    "notiflog_workers",
    "notiflog_suspended",
    "notiflog_brake_on",
}
OF_POSTGRES = {family.name for family in FAMILIES} - OF_REDIS - {"notiflog_up"}


def families(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}


@pytest.mark.parametrize(("away", "lost"), [("redis", OF_REDIS), ("postgres", OF_POSTGRES)])
def test_what_a_server_that_is_away_knows_is_left_out(serve: Serve, away: str, lost: set[str]) -> None:
    status, _, text = ask(serve(**NOWHERE[away]))
    assert (status, families(text)) == (200, {family.name for family in FAMILIES} - lost)
    up = {
        line.rpartition(" ")[0][-9:]: line[-3:]
        for line in text.splitlines()
        if line.startswith("notiflog_up")
    }
    assert sorted(up.values()) == ["0.0", "1.0"]
    assert f'notiflog_up{{server="{away}"}} 0.0' in text


def test_with_both_away_the_scrape_is_as_good(serve: Serve) -> None:
    served = scrape(serve(**NOWHERE["redis"], **NOWHERE["postgres"]))
    assert served.values == {'notiflog_up{server="redis"}': 0, 'notiflog_up{server="postgres"}': 0}


@pytest.mark.parametrize("away", NOWHERE)
def test_silent_servers_are_waited_for_within_the_scrapes_own_limit(
    serve: Serve, silent: str, away: str
) -> None:
    address = {"redis": f"redis://{silent}", "postgres": f"postgresql://app@{silent}/app"}[away]
    url = serve(**{"redis": {"REDIS_URL": address}, "postgres": {"DATABASE_URL": address}}[away])
    assert scrape(url, timeout=0.5)("notiflog_up", server=away) == 0


def test_it_is_healthy_whoever_is_away(serve: Serve) -> None:
    assert ask(serve(**NOWHERE["redis"], **NOWHERE["postgres"]), "/healthz") == (
        200,
        "text/plain; charset=utf-8",
        "ok\n",
    )


def test_a_server_that_comes_back_is_up_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, database: str
) -> None:
    url = serve(**NOWHERE["postgres"])
    assert scrape(url)("notiflog_up", server="postgres") == 0
    monkeypatch.setenv("DATABASE_URL", database)
    assert scrape(url)("notiflog_up", server="postgres") == 1


# --- what somebody may put into Redis ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["string", "list", "odd numbers", "many names"])
def test_spoiled_numbers_fail_no_scrape(serve: Serve, redis: Any, kind: str) -> None:
    {
        "string": lambda: redis.set(counters.KEY, "x"),
        "list": lambda: redis.rpush(counters.KEY, "x"),
        "odd numbers": lambda: redis.hset(counters.KEY, mapping=dict.fromkeys(NAMES, "\xff nan")),
        "many names": lambda: redis.hset(counters.KEY, mapping={f"x{n}": "1" for n in range(20_000)}),
    }[kind]()
    served = scrape(serve())
    assert served("notiflog_up", server="redis") == 1
    assert not any(value for name, value in served.values.items() if "_total" in name)


def test_no_label_is_made_of_data(
    serve: Serve, redis: Any, app: sample.App, queue: Queue, drain: Drain
) -> None:
    redis.hset(counters.KEY, "outcomes:SECRET:delivered", 7)
    queue.enqueue(JOB, [make.event(app, results=[], skipped="SECRET"), {"SECRET": 1}])
    drain()
    assert "SECRET" not in ask(serve())[2]
