"""The real Prometheus: what it reads while workers run and are killed, and the files that teams take."""

import json
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import (
    JOB,
    LEASES,
    Start,
    Started,
    enqueue_many,
    environment,
    queue,
    rows,
    start,
    until,
)
from tests.manual import ROOT
from tests.metrics.conftest import exporter
from tests.metrics.prometheus import PROGRAM, PROMTOOL, Prometheus, prometheus
from tests.migrations.conftest import require
from worker.demo import sample
from worker.drain.claims import TURN_JOBS
from worker.metrics.names import FAMILIES
from worker.record.prune import FATES

__all__ = ["environment", "queue", "start"]

FILES = ROOT / "examples" / "monitoring"
RULES = FILES / "notiflog.rules.yml"
DASHBOARD = json.loads((FILES / "notiflog.dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

STATUSES = "select delivery_channel, status, count(*) from public.follow_up_notification_log group by 1, 2"


@pytest.fixture
def scraper(environment: dict[str, str], redis: Redis, tmp_path: Path) -> Iterator[Prometheus]:
    require(PROGRAM, "prometheus")
    with (
        exporter(environment) as url,
        prometheus(url.removeprefix("http://"), RULES, tmp_path) as running,
    ):
        yield running


def in_the_log(connection: psycopg.Connection) -> dict[tuple[str, ...], int]:
    return {(channel, status): n for channel, status, n in connection.execute(STATUSES).fetchall()}


def summed(workers: list[Started]) -> Counter[str]:
    """What the summaries of all workers say."""
    total: Counter[str] = Counter()
    for worker in workers:
        for line in worker.logged("outcomes_recorded"):
            total.update({name: n for name, n in line.items() if isinstance(n, int)})
    return total


def idle(queue: Queue) -> bool:
    return not queue.count and not queue.started_job_registry.count


def test_after_workers_of_both_kinds_it_reads_what_log_and_summaries_say(
    scraper: Prometheus, start: Start, queue: Queue, app: sample.App, connection: psycopg.Connection
) -> None:
    events: list[dict[str, Any]] = sample.Scheduler(app).good_events(600, "x")
    events += [*events[:50], make.event(app, 1, chapter_id="none"), *events[7:9]]
    for at in range(0, len(events), 9):
        queue.enqueue(JOB, events[at : at + 9])
    stock = start("--burst", "--max-jobs", "3", RQ_WORKER_CLASS="rq.SimpleWorker")
    stock.wait()
    workers = [stock, start(), start()]
    until(lambda: idle(queue))
    for worker in workers:
        worker.process.terminate()
        worker.wait()
    summary = summed(workers)
    expected = in_the_log(connection)
    until(lambda: scraper.values("notiflog_outcomes_total", "channel", "status") == expected)
    assert sum(expected.values()) == 600
    assert scraper.values("notiflog_duplicates_total", "conflicting") == {("false",): summary["duplicates"]}
    assert scraper.values("notiflog_rejected_events_total") == {(): summary["rejected"]}
    tokens = scraper.values("sum by (action) (notiflog_tokens_total)", "action")
    assert tokens == {(fate,): summary[fate] for fate in FATES if summary[fate]}
    failed = scraper.query('sum(notiflog_send_results_total{evidence!="accepted"})')
    lines = sum(len(worker.logged("send_failed")) for worker in workers)
    assert int(failed[0]["value"][1]) == lines > 0
    assert scraper.values("notiflog_lag_seconds_count") == {(): 600}


def test_after_kills_it_reads_no_fewer_than_the_rows_and_at_most_a_turn_more_for_each(
    scraper: Prometheus,
    redis: Redis,
    start: Start,
    queue: Queue,
    app: sample.App,
    connection: psycopg.Connection,
) -> None:
    jobs, kills = 6 * TURN_JOBS, 3
    enqueue_many(queue, app, jobs)
    for _ in range(kills):
        before = rows(connection)
        worker = start()
        until(partial(lambda n: rows(connection) > n, before))
        worker.send(signal.SIGKILL)
        worker.wait()
        redis.delete(LEASES)  # nobody waits for them to end
    last = start()
    until(lambda: idle(queue), 60)
    last.process.terminate()
    last.wait()
    until(lambda: sum(scraper.values("notiflog_outcomes_total", "channel", "status").values()) >= jobs)
    read = sum(scraper.values("notiflog_outcomes_total", "channel", "status").values())
    assert rows(connection) == jobs <= read <= jobs + kills * TURN_JOBS


def test_every_query_of_the_dashboard_has_an_answer(
    scraper: Prometheus, start: Start, queue: Queue, app: sample.App
) -> None:
    enqueue_many(queue, app, 5)
    start("--burst").wait()
    # Two scrapes make an increase; what happens seldom, or is compared with last week, has nothing to show.
    until(lambda: scraper.query("sum(increase(notiflog_outcomes_total[1h])) > -1"))
    for query in QUERIES:
        if "offset 1w" not in query and "> 0" not in query:
            asked = query.replace("$queue", "notiflog").replace("$__rate_interval", "1m")
            # A scrape leaves out what a busy server does not tell in time: the next one has it.
            until(partial(scraper.query, asked))


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    served = {family.name for family in FAMILIES}
    asked = {name for query in QUERIES for name in re.findall(r"\bnotiflog_\w+", query)}
    assert {re.sub("_bucket$", "", name) for name in asked} <= served


def test_the_dashboard_is_one_by_grafanas_own_schema() -> None:
    plugins.register_default_plugins()
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert list(lost(DASHBOARD, read)) == []


def lost(written: Any, read: Any, path: str = "$") -> Iterator[str]:
    """Where what was read is not what was written: the schema does not know it."""
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            yield from lost(value, read.get(name, KeyError), f"{path}.{name}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, (mine, theirs) in enumerate(zip(written, read, strict=True)):
            yield from lost(mine, theirs, f"{path}[{number}]")
    elif written != read:
        yield path


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", "notiflog.rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "notiflog.rules.test.yml", "notiflog.rules.week.test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: list[str]) -> None:
    require(PROMTOOL, "promtool")
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=FILES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    tests = "".join(path.read_text() for path in FILES.glob("*.test.yml"))
    assert {alert for alert in alerts if not re.search(rf"\b{alert}\b", tests)} == set()
