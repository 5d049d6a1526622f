"""`python -m worker.report --html`: one page, looked at in a real browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from redis import Redis

import worker
from tests.drain.conftest import QUARANTINE
from tests.manual import ROOT
from tests.migrations.conftest import require
from tests.report.browser import PROGRAM, Browser, Page, chromium
from worker.demo import sample
from worker.queue.groups import group
from worker.queue.stopped import StoppedJob
from worker.report import __main__ as report
from worker.report import page as pages
from worker.report.causes_page import CAUSES_SHOWN, REJECTED_SHOWN, jobs_section
from worker.report.counts import Counts, Group, Missing, Outcomes, Report, Reserved, Stopped, worst_first
from worker.report.groups_page import GROUPS_SHOWN

NOW = datetime(2026, 11, 22, 11, 30, tzinfo=UTC)
DRAWN = "document.querySelector('[data-drawn]') !== null"
SIZES = {"desktop": (1280, 900), "phone": (375, 800)}
MARKS = {"rate": "symbol", "days": "rect", "channels": "rect", "chapters": "symbol", "rules": "symbol"}
STYLE = Path(pages.__file__).with_name("style.css").read_text()

# In a job's id and texts: would be an element, an event handler, the end of a script, wider than any screen.
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script></script>\"'&amp;" + "x" * 200


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require(PROGRAM, "chromium")
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def environment(database: str, valkey_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("REDIS_URL", valkey_url)


def job(number: int, text: str = "") -> StoppedJob:
    rejected = [f"[{position}] $.results[0].token: contains a NUL character{text}" for position in range(30)]
    since = NOW - timedelta(minutes=number)
    return StoppedJob(
        f"8c1f6f0a-0d4e-4d39-9c55-0b6f3f1f3b{number:02}{text}",
        "failed",
        since,
        f"reason-{number}",
        text,
        500,
        (*rejected,),
    )


def made_up(*, text: str = "", days: int = 7) -> Report:
    """A report on many chapters and jobs, with `text` in everything that comes out of Redis."""
    counts = {
        (NOW.date() - timedelta(days=back), channel): Counts(1_200_000 - 3_000 * back, 90_000, 40_000)
        for back in range(days)
        for channel in ("apns", "fcm")
        if back != 2
    }
    chapters = [Group(UUID(int=number << 96), Counts(number * 40, 2 * number)) for number in range(1, 41)]
    rules = [Group(UUID(int=number << 96), Counts(5 * number, 1)) for number in range(1, 4)]
    outcomes = Outcomes(
        dict(sorted(counts.items())), worst_first(chapters), worst_first(rules), partial=False
    )
    jobs = [job(number, text) for number in range(30)]
    stopped = Stopped(150, 3, jobs, group(jobs))
    since = datetime.combine(NOW.date() - timedelta(days=days - 1), datetime.min.time(), UTC)
    return Report(since, NOW, UTC, outcomes, stopped)


def write(path: Path, report: Report) -> Path:
    path.write_text(pages.page(report), encoding="utf-8")
    return path


# --- in a browser ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_chart_is_drawn_and_nothing_overflows(
    browser: Browser, tmp_path: Path, size: str, dark: bool
) -> None:
    width, height = SIZES[size]
    tab = Page(browser, width, height, dark=dark)
    path = write(tmp_path / "report.html", made_up())
    tab.open(path, DRAWN)
    drawn = {
        name: tab.evaluate(
            f"[...document.querySelectorAll('#{name} .mark-{mark}.role-mark path')]"
            ".filter(mark => mark.getBBox().width > 0 && mark.getBBox().height > 0).length"
        )
        for name, mark in MARKS.items()
    }
    assert drawn == {"rate": 6, "days": 6 * 3, "channels": 2 * 3, "chapters": GROUPS_SHOWN, "rules": 3}
    assert tab.evaluate("[...document.querySelectorAll('.chart svg')].every(svg => svg.clientWidth > 250)")
    tab.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert tab.evaluate("[document.scrollingElement.scrollWidth, innerWidth]") == [width, width]
    overflowing = (
        "[...document.querySelectorAll('body *:not(svg *)')]"
        ".filter(one => one.getBoundingClientRect().right > innerWidth).map(one => one.outerHTML)"
    )
    assert tab.evaluate(overflowing) == []
    assert tab.problems() == []
    assert tab.requests() == [path.as_uri()]


def test_the_days_follow_each_other_without_gap(browser: Browser, tmp_path: Path) -> None:
    tab = Page(browser, *SIZES["desktop"])
    tab.open(write(tmp_path / "report.html", made_up()), DRAWN)
    labels = "[...document.querySelectorAll('#days .role-axis-label text')].map(label => label.textContent)"
    assert tab.evaluate(labels)[:7] == [f"{day} Nov" for day in range(16, 23)]


def test_a_year_fits_a_phone(browser: Browser, tmp_path: Path) -> None:
    tab = Page(browser, *SIZES["phone"])
    tab.open(write(tmp_path / "report.html", made_up(days=366)), DRAWN)
    assert tab.evaluate("document.scrollingElement.scrollWidth") == 375
    assert tab.evaluate("document.querySelectorAll('#days .mark-rect.role-mark path').length") == 366 * 3
    assert tab.problems() == []


def test_the_figures_on_the_page_are_those_of_the_database(
    browser: Browser,
    tmp_path: Path,
    connection: psycopg.Connection,
    redis: Redis,
    app: sample.App,
    environment: None,
) -> None:
    connection.execute(
        """
        insert into public.follow_up_notification_log
               (peer_mentor_id, chapter_id, scenario_rule_id, delivered_at, delivery_channel,
                idempotency_key, status)
        select %s, %s, %s, '2026-11-16T06:00Z', 'fcm', gen_random_uuid(), status
          from (values ('delivered', 1500), ('failed', 500), ('skipped', 3)) as wanted (status, n)
         cross join generate_series(1, n)
        """,
        [app.users[0], app.chapters[0], app.rules[0]],
    )
    redis.rpush(QUARANTINE, "unreadable-job")
    path = tmp_path / "report.html"
    assert report.main(["--since", "2026-11-16", "--html", str(path)]) == 0
    tab = Page(browser, *SIZES["desktop"])
    tab.open(path, DRAWN)
    cards = (
        "Object.fromEntries([...document.querySelectorAll('.card')].map("
        "card => [card.querySelector('dt').innerText, card.querySelector('dd').firstChild.textContent]))"
    )
    assert tab.evaluate(cards) == {
        "Delivery rate": "75.0 %",
        "Delivered": "1,500",
        "Failed": "500",
        "Skipped": "3",
        "Stopped jobs": "1",
    }
    text = tab.evaluate("document.body.textContent")
    assert str(app.chapters[0]) in text
    assert str(app.rules[0]) in text
    assert "unreadable-job" in text
    assert str(app.users[0]) not in path.read_text()


def test_text_from_redis_stays_text(browser: Browser, tmp_path: Path) -> None:
    tab = Page(browser, *SIZES["phone"])
    tab.open(write(tmp_path / "report.html", made_up(text=HOSTILE)), DRAWN)
    assert tab.evaluate("document.querySelectorAll('img, main script').length") == 0
    assert tab.evaluate("document.querySelectorAll('script').length") == 2
    assert HOSTILE in tab.evaluate("document.querySelector('.jobs').textContent")
    assert tab.evaluate("document.scrollingElement.scrollWidth") == 375
    assert tab.problems() == []


def test_even_an_injected_script_would_not_run(browser: Browser, tmp_path: Path) -> None:
    path = write(tmp_path / "report.html", made_up())
    injected = "<script>document.documentElement.dataset.owned = 'yes'</script><img src=http://127.0.0.1:9/>"
    path.write_text(path.read_text().replace("<main", f"{injected}<main", 1))
    tab = Page(browser, *SIZES["desktop"])
    tab.open(path, DRAWN)
    assert tab.evaluate("document.querySelector('[data-owned]') === null")
    assert len([problem for problem in tab.problems() if "Content Security Policy" in problem]) == 2


def test_a_screen_reader_finds_a_title_a_language_and_named_charts(browser: Browser, tmp_path: Path) -> None:
    tab = Page(browser, *SIZES["desktop"])
    tab.open(write(tmp_path / "report.html", made_up()), DRAWN)
    assert tab.evaluate("document.title") == "Prompts 2026-11-16 00:00 to 2026-11-22 11:30 (UTC)"
    assert tab.evaluate("document.documentElement.lang") == "en"
    names = (
        "[...document.querySelectorAll('[role=graphics-document]')]"
        ".map(chart => chart.getAttribute('aria-label'))"
    )
    assert tab.evaluate(names) == [
        "Delivery rate by day",
        "Prompts by day: delivered, failed and skipped",
        "Prompts by channel: delivered, failed and skipped",
        "Delivery rate by chapter, the worst first",
        "Delivery rate by rule, the worst first",
    ]
    assert tab.evaluate("document.querySelectorAll('section details table').length") == 5


# --- the page without a browser ----------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("name", "background", "least"),
    [
        ("text", "page", 7),
        ("text", "card", 7),
        ("text", "warn", 7),
        ("muted", "page", 4.5),
        ("muted", "card", 4.5),
        ("failed", "card", 4.5),  # the state of a job is text
        ("delivered", "card", 3),
        ("skipped", "card", 3),
    ],
)
def test_colours_have_the_contrast_that_wcag_asks_for(
    scheme: int, name: str, background: str, least: float
) -> None:
    lights = [luminance(re.findall(rf"--{part}: (#\w{{6}});", STYLE)[scheme]) for part in (name, background)]
    assert (max(lights) + 0.05) / (min(lights) + 0.05) >= least


def test_long_lists_are_cut_and_say_so() -> None:
    html = pages.page(made_up())
    assert html.count("contains a NUL character") == 30 * REJECTED_SHOWN
    assert html.count("and 20 more</code>") == 30
    assert f"<summary>{30 - CAUSES_SHOWN} more causes</summary>" in html
    assert "and 123 more jobs, not listed" in html
    assert f"and {40 - GROUPS_SHOWN} more</p>" in html


def test_one_cause_is_one_row_however_many_jobs_it_stopped() -> None:
    jobs = [job(number)._replace(reason="rejected") for number in range(46)]
    html = jobs_section(Stopped(46, 0, jobs, group(jobs)), UTC)
    assert html.count("<tr><td>") == 1
    assert "2026-11-22 10:45 to<br>2026-11-22 11:30" in html
    assert "<strong>46 jobs</strong>" in html
    assert f"<code>{jobs[0].job_id}, {jobs[1].job_id}, {jobs[2].job_id} and 43 more</code>" in html
    assert "<code>1,380 events: $.results[].token: contains a NUL character</code>" in html


def test_prompts_that_were_never_reported_have_a_section() -> None:
    prompts = [Reserved(f"{n:012x}", NOW - timedelta(hours=n), 1 + n % 2) for n in range(30)]
    html = pages.page(made_up()._replace(missing=Missing(30, prompts)))
    assert "30 prompts, the oldest first" in html
    assert "<code>000000000001</code></td><td>1 h ago, reserved 2 times</td>" in html
    assert "<p>and 10 more</p>" in html
    assert "Every prompt that was reserved is reported." in pages.page(made_up())
    assert "may not see the reservations" in pages.page(made_up()._replace(missing=None))


def test_an_empty_time_says_so_and_draws_nothing(browser: Browser, tmp_path: Path) -> None:
    empty = made_up()._replace(outcomes=Outcomes({}, [], [], partial=True), stopped=None)
    tab = Page(browser, *SIZES["phone"])
    tab.open(write(tmp_path / "report.html", empty), DRAWN)
    text = tab.evaluate("document.body.innerText")
    assert "No outcome is recorded in this time" in text
    assert "Row level security applies" in text
    assert "Unknown: Redis did not answer" in text
    assert "`" not in text
    assert (
        tab.evaluate("document.querySelector('.note:last-child code').textContent")
        == "python -m worker.check"
    )
    assert tab.evaluate("document.querySelectorAll('.chart').length") == 0
    assert tab.problems() == []


# --- the file ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("environment")
def test_the_page_replaces_an_older_one_as_a_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def fail(self: Path, target: Path) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", fail)
        assert report.main(["--html", str(path)]) == 1
    assert capsys.readouterr().err == f"report: cannot write {path}: No space left on device\n"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
    assert report.main(["--html", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert path.read_text().startswith("<!doctype html>")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_dash_is_standard_output_in_the_pages_encoding(tmp_path: Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "worker.report", "--html", "-"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    page = done.stdout.decode()
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert "\\u" not in page.partition("<script")[0]
    assert (done.stderr, list(tmp_path.iterdir())) == (b"", [])


@pytest.mark.usefixtures("environment")
def test_a_directory_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--html", str(tmp_path / "nowhere" / "report.html")]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_a_directory_is_no_file_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        report.main(["--html", str(tmp_path)])
    assert exit_.value.code == 2
    assert "is no file" in capsys.readouterr().err


def test_without_the_chart_library_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("page", "charts"):
        monkeypatch.delitem(sys.modules, f"worker.report.{name}")
        monkeypatch.delattr(worker.report, name)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    with pytest.raises(SystemExit) as exit_:
        report.main(["--html", str(tmp_path / "report.html")])
    assert exit_.value.code == 2
    assert "pip install 'notiflog[report]'" in capsys.readouterr().err
