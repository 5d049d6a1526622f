"""Why pushes failed, and what became of dead tokens: counted by the workers, shown by the report."""

import json
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from tests import make
from tests.drain.conftest import JOB, Drain, drain, new_worker, queue
from tests.report.browser import Browser, Page
from tests.report.test_page import DRAWN, SIZES, browser, made_up, write
from tests.report.test_report import environment
from worker.demo import sample
from worker.record import counters
from worker.record.numbers import ANSWERS
from worker.record.prune import FATES
from worker.report import __main__ as report
from worker.report.counted import Counted, Fates, Why, read_counted
from worker.report.counted_page import _FATES, WHYS_SHOWN, counted_sections
from worker.report.counted_text import DAYS_SHOWN, counted_as_text
from worker.report.counted_text import WHYS_SHOWN as LINES
from worker.report.text import BLOCKS

__all__ = ["browser", "drain", "environment", "new_worker", "queue"]

FIRST = date(2026, 11, 20)
DEAD, AWAY = "results:fcm:unregistered:proven_dead", "results:apns:service_unavailable:transient"
ACCEPTED, PRUNED = "results:fcm:accepted:accepted", "tokens:fcm:pruned"


def some(days: int = 3, reasons: int = 2) -> Counted:
    """Counted on some days: the first reason on all of them, the others on the second only."""
    calendar = [FIRST + timedelta(days=at) for at in range(days)]
    names = [answer for answer in ANSWERS if answer[2] != "accepted"]
    whys = [Why(*names[at], dict.fromkeys(calendar[: days if at == 0 else 1], 9)) for at in range(reasons)]
    fates = [Fates(day, "fcm", (8, 1, 0, 0, 0)) for day in calendar]
    return Counted(calendar[0], calendar[-1], 100, whys, fates)


def put(redis: Any, ago: int, **numbers: int) -> None:
    """As if workers had counted so many days ago."""
    day = redis.time()[0] // 86400 - ago
    names = {"dead": DEAD, "away": AWAY}
    redis.hset(f"{counters.KEY}:day:{day}", mapping={names[name]: n for name, n in numbers.items()})


def ago(days: int) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


# --- what is read ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("environment")
def test_what_the_workers_recorded_is_told_by_reason_and_fate(
    app: sample.App, queue: Queue, drain: Drain, capsys: pytest.CaptureFixture[str]
) -> None:
    away = make.result("d", http_status=503, body={"error": {"status": "UNAVAILABLE"}})
    results = [make.result("a"), make.unregistered("b"), make.unregistered("c"), away]
    queue.enqueue(JOB, [make.event(app, results=results)])
    drain()
    assert report.main(["--json"]) == 0
    said = json.loads(capsys.readouterr().out)["counted_by_workers"]
    assert said["answers"] == {"accepted": 1, "failed": 3}
    assert [(why["reason"], why["evidence"], why["answers"]) for why in said["why_failed"]] == [
        ("unregistered", "proven_dead", 2),
        ("service_unavailable", "transient", 1),
    ]
    (fates,) = said["dead_tokens"]
    assert (fates["delivery_channel"], sum(fates[fate] for fate in FATES)) == ("fcm", 2)


def test_the_most_frequent_reason_comes_first(redis: Redis) -> None:
    put(redis, 0, dead=2, away=1)
    put(redis, 1, away=2)
    whys = read_counted(redis, ago(6)).whys
    assert [(why.channel, why.reason, why.answers) for why in whys] == [
        ("apns", "service_unavailable", 3),
        ("fcm", "unregistered", 2),
    ]


@pytest.mark.parametrize(
    ("days", "answers"), [(0, 1), (1, 3), (89, 7), (500, 7)], ids=["today", "yesterday", "all", "longer"]
)
def test_whole_days_count_as_far_back_as_they_are_kept(redis: Redis, days: int, answers: int) -> None:
    for back, number in ((0, 1), (1, 2), (89, 4), (90, 8)):
        put(redis, back, dead=number)
    found = read_counted(redis, ago(days))
    assert (found.failed, len(found.calendar())) == (answers, min(days + 1, counters.DAYS))


def test_a_period_that_begins_within_a_day_of_utc_has_all_of_it(redis: Redis) -> None:
    put(redis, 1, dead=5)
    midnight = datetime.combine(datetime.fromtimestamp(redis.time()[0], UTC), datetime.min.time(), UTC)
    assert read_counted(redis, midnight - timedelta(seconds=1)).failed == 5
    assert read_counted(redis, midnight).failed == 0


def test_acceptances_are_no_reason_to_fail(redis: Redis) -> None:
    counters.count(redis, Counter({ACCEPTED: 7, PRUNED: 1}))
    found = read_counted(redis, ago(0))
    assert (found.accepted, found.failed, found.whys) == (7, 0, [])


@pytest.mark.usefixtures("environment")
def test_without_redis_the_reasons_are_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", "unix:///nowhere/socket")
    assert report.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["counted_by_workers"] is None
    assert report.main([]) == 1
    assert "Why pushes failed: unknown" in capsys.readouterr().out


# --- the terminal ------------------------------------------------------------------------------------------


def test_it_reads_like_this() -> None:
    days = [FIRST, FIRST + timedelta(days=1), FIRST + timedelta(days=2)]
    whys = [
        Why("fcm", "unregistered", "proven_dead", {days[0]: 300, days[1]: 1_000}),
        Why("apns", "service_unavailable", "transient", {days[2]: 57}),
    ]
    fates = [Fates(days[0], "fcm", (290, 0, 0, 0, 10)), Fates(days[1], "fcm", (400, 0, 600, 0, 0))]
    counted = Counted(days[0], days[2], 8_643, whys, fates)
    assert "\n".join(counted_as_text(counted, 80, BLOCKS)) == (
        """\
Why pushes failed: 1,357 of 10,000 answers, as the workers counted from
  2026-11-20 to 2026-11-22 (UTC)
channel  reason               token        answers  by day
fcm      unregistered         proven dead    1,300  ░█
apns     service_unavailable  transient         57    █

What became of tokens with a death notice, as counted from 2026-11-20 to
  2026-11-22 (UTC)
day         channel  pruned  kept  withheld  refused  absent
2026-11-20  fcm         290     0         0        0      10
2026-11-21  fcm         400     0       600        0       0
all         fcm         690     0       600        0      10
"""
    )


def test_where_nothing_failed_it_says_so_and_when() -> None:
    said = "\n".join(counted_as_text(Counted(FIRST, FIRST, 5, [], []), 120, BLOCKS))
    assert said == (
        "Why pushes failed: the workers counted no failed answer from 2026-11-20 to 2026-11-20 (UTC).\n"
    )


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("days", [1, 30, 90])
def test_every_line_fits(width: int, days: int) -> None:
    assert max(map(len, counted_as_text(some(days, len(ANSWERS) - 2), width, BLOCKS))) <= width


def test_long_lists_are_cut_and_say_so() -> None:
    text = list(counted_as_text(some(40, LINES + 3), 80, BLOCKS))
    assert "and 3 more reasons with 27 answers" in text
    assert f"and {40 - DAYS_SHOWN} days before, in all" in text


# --- the page ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_reason_has_a_line_in_the_chart_and_nothing_overflows(
    browser: Browser, tmp_path: Path, size: str
) -> None:
    width, height = SIZES[size]
    tab = Page(browser, width, height)
    tab.open(write(tmp_path / "report.html", made_up()._replace(counted=some(90, 30))), DRAWN)
    cells = (
        "[...document.querySelectorAll('#whys .mark-rect.role-mark path')]"
        ".filter(mark => mark.getBBox().width > 0 && mark.getBBox().height > 0).length"
    )
    assert tab.evaluate(cells) == 90 + WHYS_SHOWN - 1
    tab.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert tab.evaluate("document.scrollingElement.scrollWidth") == width
    assert tab.problems() == []


def test_the_page_has_the_sums_and_the_days_of_both() -> None:
    html = counted_sections(some(3, WHYS_SHOWN + 2))
    assert "and 2 more reasons with 18 answers" in html
    assert html.count('<th scope="row">2026-11-20</th>') == WHYS_SHOWN + 1
    assert '>deleted or marked, as the settings say</th><td class="number">24</td>' in html


def test_the_page_says_what_is_unknown_and_what_is_none() -> None:
    assert "Unknown: Redis did not answer." in counted_sections(None)
    assert "No failed answers" in counted_sections(some(1, 0))


def test_the_page_explains_every_fate() -> None:
    assert tuple(_FATES) == FATES


def test_no_other_key_is_read_or_made(redis: Any) -> None:
    put(redis, 0, dead=1)
    before = set(redis.keys())
    read_counted(redis, ago(89))
    assert set(redis.keys()) == before
