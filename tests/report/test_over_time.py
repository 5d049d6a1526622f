"""By day or by hour, whole or in part, and beside the time before."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tests.report.browser import Browser, Page
from tests.report.test_page import DRAWN, SIZES, browser, made_up, write
from tests.report.test_report import Record, environment, record, told
from worker.report import page as pages
from worker.report.as_json import as_json
from worker.report.comparison import compared
from worker.report.counts import Counts, Group, Outcomes, Report
from worker.report.groups_page import rates
from worker.report.periods import Before, period
from worker.report.reading import read_outcomes
from worker.report.slots import not_whole, slots
from worker.report.text import BLOCKS, as_text
from worker.report.zoom import zoom

__all__ = ["browser", "environment", "record", "told"]

BERLIN, NEW_YORK, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")
NEPAL, LORD_HOWE = ZoneInfo("Asia/Kathmandu"), ZoneInfo("Australia/Lord_Howe")
NOW = datetime(2026, 11, 22, 11, 30, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def asked(since: str, now: datetime, timezone: tzinfo = UTC, **outcomes: Any) -> Report:
    """An empty report on that time."""
    start, hourly, before = period(since, now, timezone)
    empty = Outcomes({}, [], [], False, {} if hourly else None)
    return Report(start, now, timezone, empty._replace(**outcomes), None, before=before)


# --- what --since means ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "hourly"),
    [
        ("1h", True),
        ("48h", True),
        ("49h", False),
        ("1d", True),
        ("2d", True),
        ("3d", False),
        ("2026-11-22", True),
        ("2026-11-21", True),
        ("2026-11-20", False),
    ],
)
def test_two_days_and_less_are_shown_by_hour(since: str, hourly: bool) -> None:
    assert period(since, NOW, UTC).hourly is hourly


def test_two_days_are_shown_by_hour_though_they_have_forty_nine() -> None:
    assert period("2d", utc("2026-10-25T22:59"), BERLIN).hourly


@pytest.mark.parametrize(
    ("since", "now", "timezone", "earlier", "until", "words"),
    [
        ("7d", NOW, UTC, "2026-11-09T00:00", "2026-11-15T11:30", "the 7 days before"),
        ("1d", NOW, UTC, "2026-11-21T00:00", "2026-11-21T11:30", "the day before"),
        ("2026-11-01", NOW, UTC, "2026-10-10T00:00", "2026-10-31T11:30", "the 22 days before"),
        ("24h", NOW, BERLIN, "2026-11-20T11:30", "2026-11-21T11:30", "the 24 hours before"),
        ("1h", NOW, UTC, "2026-11-22T09:30", "2026-11-22T10:30", "the hour before"),
        # the clocks went back in between: by the clocks
        ("7d", utc("2026-10-28T11:00"), BERLIN, "2026-10-14T22:00", "2026-10-21T10:00", "the 7 days before"),
    ],
)
def test_the_time_before_is_as_long_and_goes_as_far(
    since: str, now: datetime, timezone: tzinfo, earlier: str, until: str, words: str
) -> None:
    assert period(since, now, timezone).before == Before(utc(earlier), utc(until), words)


@pytest.mark.parametrize("timezone", [UTC, BERLIN, NEW_YORK])
def test_before_the_calendar_there_is_nothing_to_compare_with(timezone: tzinfo) -> None:
    assert period("0900-01-01", NOW, timezone).before is None
    assert compared(asked("0900-01-01", NOW, timezone)) == ""


# --- days and hours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "now", "timezone", "count", "first", "last"),
    [
        ("24h", NOW, UTC, 25, "2026-11-21 11:00 (from 11:30)", "2026-11-22 11:00 (until 11:30)"),
        ("24h", NOW, KOLKATA, 24, "2026-11-21 17:00", "2026-11-22 16:00"),
        ("1h", NOW, NEPAL, 2, "2026-11-22 16:00 (from 16:15)", "2026-11-22 17:00 (until 17:15)"),
        ("1h", utc("2026-11-22T11:00"), UTC, 1, "2026-11-22 10:00", "2026-11-22 10:00"),
        ("1d", utc("2026-10-25T22:59"), BERLIN, 25, "2026-10-25 00:00", "2026-10-25 23:00 (until 23:59)"),
        ("1d", utc("2026-03-29T21:59"), BERLIN, 23, "2026-03-29 00:00", "2026-03-29 23:00 (until 23:59)"),
        ("3d", NOW, UTC, 3, "2026-11-20", "2026-11-22 (until 11:30)"),
        ("72h", NOW, UTC, 4, "2026-11-19 (from 11:30)", "2026-11-22 (until 11:30)"),
    ],
)
def test_the_first_and_the_last_tell_which_part_they_have(
    since: str, now: datetime, timezone: tzinfo, count: int, first: str, last: str
) -> None:
    found = slots(asked(since, now, timezone))
    assert (len(found), found[0].marked, found[-1].marked) == (count, first, last)
    assert {slot.part for slot in found[1:-1]} <= {""}


def test_one_hour_may_be_the_first_and_the_last() -> None:
    now = utc("2026-11-22T00:20")
    later = asked("1d", now)._replace(since=utc("2026-11-22T00:05"))
    assert [slot.marked for slot in slots(later)] == ["2026-11-22 00:00 (00:05 to 00:20)"]


@pytest.mark.parametrize(
    ("now", "timezone", "labels"),
    [
        (
            utc("2026-10-25T03:00"),
            BERLIN,
            ["2026-10-25 01:00", "2026-10-25 02:00+02:00", "2026-10-25 02:00+01:00", "2026-10-25 03:00"],
        ),
        (
            utc("2026-03-29T03:00"),
            BERLIN,
            ["2026-03-29 00:00", "2026-03-29 01:00", "2026-03-29 03:00", "2026-03-29 04:00"],
        ),
    ],
)
def test_an_hour_that_the_clocks_show_twice_or_never_is_told_apart(
    now: datetime, timezone: tzinfo, labels: list[str]
) -> None:
    assert [slot.label for slot in slots(asked("4h", now, timezone))] == labels


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"])
@pytest.mark.parametrize("now", ["2026-04-05T04:00", "2026-10-04T00:00", "2026-10-25T12:00"])
def test_postgres_and_the_calendar_agree_on_when_hours_begin(
    connection: psycopg.Connection, record: Record, timezone: str, now: str
) -> None:
    moment, zone = utc(now), ZoneInfo(timezone)
    for quarter in range(24 * 4):
        record(str(moment - timedelta(minutes=15 * quarter + 1)))
    start, hourly, before = period("24h", moment, zone)
    outcomes = read_outcomes(connection, start, zone, hourly=hourly, before=before)
    found = slots(Report(start, moment, zone, outcomes, None))
    assert len(found) == len(slots(asked("24h", moment, zone)))
    assert sum(slot.total.delivered for slot in found) == 24 * 4


def test_hours_are_told_beside_days_where_they_are_shown(
    connection: psycopg.Connection, record: Record, told: Callable[..., Any]
) -> None:
    row = connection.execute("select now() at time zone 'UTC'").fetchone()
    assert row is not None
    now = row[0].replace(tzinfo=UTC)
    for hours in (0, 3, 3, 30):
        record(str(now - timedelta(hours=hours, seconds=1)))
    said = told("--since", "24h", "--timezone", "Asia/Kolkata")
    assert sum(hour["delivered"] for hour in said["hours"]) == 3
    assert sum(day["delivered"] for day in said["days"]) == 3
    assert {hour["hour"][13:] for hour in said["hours"]} == {":00:00+05:30"}
    assert "hours" not in told("--since", "7d")


def test_json_marks_days_and_hours_that_are_only_partly_in_it() -> None:
    hours = {(utc(f"2026-11-{hour}:00"), "fcm"): Counts(1) for hour in ("21T11", "21T12", "22T11")}
    days = {(date(2026, 11, day), "fcm"): Counts(1) for day in (20, 21, 22)}
    said = as_json(asked("24h", NOW, hours=hours, days=days))
    assert [hour["partial"] for hour in said["hours"]] == [True, False, True]
    assert [day["partial"] for day in said["days"]] == [False, True, True]


def test_text_and_page_show_hours_and_mark_what_is_not_whole() -> None:
    hours = {(utc("2026-11-21T11:00"), "fcm"): Counts(9, 1), (utc("2026-11-22T10:00"), "fcm"): Counts(5)}
    days = {(date(2026, 11, 21), "fcm"): Counts(9, 1), (date(2026, 11, 22), "fcm"): Counts(5)}
    shown = asked("24h", NOW, hours=hours, days=days)
    text, html = "\n".join(as_text(shown, 80, BLOCKS)), pages.page(shown)
    assert "2026-11-21 11:00 (from 11:30)   fcm              9       1        0   90.0 %" in text
    assert "2026-11-22 10:00                fcm              5       0        0  100.0 %" in text
    assert "2026-11-22 11:00 (until 11:30)  -" in text
    assert max(map(len, text.splitlines())) <= 80
    assert ">By hour</h2>" in html
    assert "Lighter, as only a part of it is in the report: 2026-11-21 11:00 (from 11:30)" in html


def test_where_everything_is_whole_nothing_is_said() -> None:
    assert not_whole(slots(asked("1h", utc("2026-11-22T11:00"))), "Lighter") == ""


# --- the time before ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (
            Counts(893, 107),
            Counts(914, 86, 9),
            "2.1 points less than in the 7 days before (91.4 % of 1,000 sent)",
        ),
        (Counts(95, 5), Counts(9, 1), "5.0 points more than in the 7 days before (90.0 % of 10 sent)"),
        (Counts(9_001, 999), Counts(9, 1), "as in the 7 days before (90.0 % of 10 sent)"),
        (Counts(9, 1), Counts(0, 0, 3), "nothing was sent in the 7 days before"),
        (Counts(9, 1), None, "nothing is recorded in the 7 days before"),
        (Counts(), Counts(9, 1), "90.0 % of 10 sent in the 7 days before"),
    ],
)
def test_the_rate_is_compared_with_that_of_the_time_before(
    now: Counts, before: Counts | None, said: str
) -> None:
    days = {(NOW.date(), "fcm"): now} if any(now) else {}
    shown = asked("7d", NOW, days=days, before={} if before is None else {"fcm": before})
    assert compared(shown) == said
    text = " ".join(" ".join(as_text(shown, 80, BLOCKS)).split())
    assert said in text
    assert said in pages.page(shown)


def test_before_is_counted_as_far_as_now_is_and_nowhere_else(
    connection: psycopg.Connection, record: Record
) -> None:
    record("2026-11-08T23:59:59Z", n=1000)  # too long ago
    record("2026-11-09T00:00:00Z", n=3)
    record("2026-11-15T11:29:59Z", "failed", "apns")
    record("2026-11-15T11:30:00Z", n=1000)  # later in the day than it is now
    record("2026-11-16T00:00:00Z", n=5)
    start, hourly, before = period("7d", NOW, UTC)
    outcomes = read_outcomes(connection, start, UTC, hourly=hourly, before=before)
    assert outcomes.before == {"apns": Counts(0, 1), "fcm": Counts(3)}
    assert outcomes.days == {(date(2026, 11, 16), "fcm"): Counts(5)}
    assert [group.counts for group in outcomes.chapters + outcomes.rules] == [Counts(5), Counts(5)]


def test_json_has_the_time_before_with_its_channels(record: Record, told: Callable[..., Any]) -> None:
    now = datetime.now(UTC)
    record(str(now - timedelta(hours=36)), n=3)
    record(str(now - timedelta(hours=36)), "failed")
    previous = told("--since", "24h")["previous"]
    numbers = {"delivered": 3, "failed": 1, "skipped": 0, "delivery_rate": 0.75}
    assert (previous["total"], previous["channels"]) == (numbers, {"fcm": numbers})
    since, until = map(datetime.fromisoformat, (previous["since"], previous["until"]))
    assert until - since == timedelta(hours=24)


# --- the charts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "ends"),
    [
        ([0.81, 0.89], (0.8, 0.9)),
        ([0.81, 0.99], (0.75, 1.0)),
        ([1.0, 1.0], (0.995, 1.0)),
        ([0.0], (0.0, 0.005)),
        ([0.0, 1.0], (0.0, 1.0)),
        ([0.893, 0.914], (0.89, 0.92)),
    ],
)
def test_an_axis_ends_near_the_rates(rates: list[float], ends: tuple[float, float]) -> None:
    assert zoom(rates) == ends


def test_the_line_has_gaps_and_what_is_not_whole_is_lighter(browser: Browser, tmp_path: Path) -> None:
    tab = Page(browser, *SIZES["desktop"])
    tab.open(write(tmp_path / "report.html", made_up()), DRAWN)
    line = "document.querySelector('#rate .mark-line path').getAttribute('d').match(/M/g).length"
    assert tab.evaluate(line) == 2  # nothing was sent on one day
    lighter = (
        "[...document.querySelectorAll('#days .mark-rect.role-mark path, #rate .mark-symbol.role-mark path')]"
        ".filter(mark => +(mark.getAttribute('opacity') || 1) < 1 && mark.getBBox().width > 0).length"
    )
    assert tab.evaluate(lighter) == 3 + 1  # of the last day


def test_the_table_has_what_the_charts_draw() -> None:
    html = pages.page(asked("7d", NOW, days={(NOW.date(), name): Counts(9, 1) for name in ("apns", "fcm")}))
    assert html.count(">2026-11-22 (until 11:30)</th>") == 3
    assert '>all</th><td class="number">18</td><td class="number">2</td>' in html


def test_an_interval_ends_with_the_axis_and_is_told_whole() -> None:
    groups = [Group(UUID(int=1), Counts(17, 4)), Group(UUID(int=2), Counts(8_900, 1_100))]
    spec = rates("chapter", groups, {})
    start, end = spec["layer"][0]["encoding"]["x"]["scale"]["domain"]
    few, many = spec["data"]["values"]
    assert (start, end, few["low"], few["interval"]) == (0.8, 0.9, 0.8, "60.0 to 92.3 %")
    assert (few["high"], few["percent"]) == (0.9, "81.0 %")
    assert start < many["low"] < many["rate"] < many["high"] < end


def test_rates_stand_on_an_axis_near_the_worst(browser: Browser, tmp_path: Path) -> None:
    tab = Page(browser, *SIZES["desktop"])
    tab.open(write(tmp_path / "report.html", made_up()), DRAWN)
    labels = "[...document.querySelectorAll('#chapters .role-axis-label text')].map(one => one.textContent)"
    assert next(label for label in tab.evaluate(labels) if label.endswith("%")) not in ("0%", "0")
    assert tab.problems() == []
