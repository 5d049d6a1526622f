"""Names instead of ids, by a query of the user's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.report.browser import Browser, Page
from tests.report.test_page import DRAWN, HOSTILE, SIZES, browser, made_up, write
from tests.report.test_report import Record, environment, login, record, told
from worker.demo import sample
from worker.report import __main__ as report
from worker.report.columns import columns_of, cut
from worker.report.names import labels
from worker.report.text import ASCII_BLOCKS, BLOCKS, as_text

__all__ = ["browser", "environment", "login", "record", "told"]

SINCE = ["--since", "2026-11-16"]
QUERY = (
    "select id, 'chapter 100 %' from chapters union all select id, 'rule' from scenario_rules "
    "union all select id, 'mentor' from users;"
)
ONE, TWO, THREE = UUID(int=1), UUID(int=2), UUID(int=3)


def test_names_are_told_beside_the_ids_and_nothing_else_is(
    record: Record, told: Callable[..., Any], app: sample.App
) -> None:
    record("2026-11-16T06:00Z", "failed")
    said = told(*SINCE, "--names", QUERY)
    assert [(one["chapter_id"], one["name"]) for one in said["chapters"]] == [
        (str(app.chapters[0]), "chapter 100 %")
    ]
    assert [one["name"] for one in said["rules"]] == ["rule"]
    assert "mentor" not in json.dumps(said["chapters"] + said["rules"])
    assert str(app.users[0]) not in json.dumps(said)


def test_the_terminal_has_names_in_the_place_of_ids(
    record: Record, app: sample.App, capsys: pytest.CaptureFixture[str]
) -> None:
    record("2026-11-16T06:00Z", "failed")
    assert report.main([*SINCE, "--names", "select id::text, 'Zürich' from chapters"]) == 0
    said = capsys.readouterr().out
    assert "\nZürich " in said
    assert str(app.chapters[0]) not in said
    assert str(app.rules[0]) in said  # it has no name


@pytest.mark.parametrize(
    ("query", "status", "problem"),
    [
        ("selec id", 2, "no single select"),
        ("", 2, "no single select"),
        ("select id, 'a' from chapters; commit; delete from chapters", 2, "no single select"),
        ("delete from chapters returning id, 'a'", 2, "no single select"),
        ("with gone as (delete from chapters returning id) select id, 'a' from gone", 2, "SQLSTATE 0A000"),
        ("select id, nextval('counted')::text from chapters", 2, "may only read"),
        (
            "select id, set_config('transaction_read_only', 'off', true) from chapters",
            2,
            "changes its transaction",
        ),
        ("select id, name from secrets", 2, "a table that is not there"),
        ("select id, name from secrets.chapters", 2, "a table that is not there"),
        ("select id, secret from chapters", 2, "a column that is not there"),
        ("select id from chapters", 2, "gives 1 column;"),
        ("select id, 'a', 'b' from chapters", 2, "gives 3 columns;"),
        ("select 'secret', 'a'", 2, "no uuid"),
        ("select id, (1 / 0)::text from chapters", 2, "SQLSTATE 22012"),
        ("select id, '\udce4' from chapters", 2, "no UTF-8"),
    ],
)
def test_a_wrong_query_is_one_sentence(
    connection: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
    app: sample.App,
    query: str,
    status: int,
    problem: str,
) -> None:
    connection.execute("create sequence counted")
    assert report.main(["--names", query]) == status
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert problem in said.err
    assert "secret" not in said.err
    assert connection.execute("select count(*) from chapters").fetchone() == (len(app.chapters),)
    assert connection.execute("select is_called from counted").fetchone() == (False,)


def test_a_role_that_may_not_read_the_names_hears_what_to_grant(
    login: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", login("grant select on public.follow_up_notification_log to {}"))
    assert report.main(["--names", "select id, 'a' from chapters"]) == 1
    assert "may not read what --names asks for: grant it select" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, [str(ONE), str(TWO)]),
        ({ONE: "Bern"}, ["Bern", str(TWO)]),
        ({ONE: "Bern", TWO: "Bern"}, ["Bern (00000000)", "Bern (00000000)"]),
        ({ONE: "a\x1b[31m\nb\u202e"}, ["a?[31m?b?", str(TWO)]),
        ({ONE: "  "}, [str(ONE), str(TWO)]),
    ],
)
def test_a_label_is_one_printable_line_and_tells_apart(names: dict[UUID, str], expected: list[str]) -> None:
    assert list(labels([ONE, TWO], names).values()) == expected


@pytest.mark.parametrize(
    ("text", "ellipsis", "expected"),
    [
        ("Bern", "…", "Bern"),
        ("Oberbüren", "…", "Oberbür…"),
        ("Oberbüren", "...", "Oberb..."),
        ("東京支部", "…", "東京支部"),
        ("東京都支部", "…", "東京都…"),
        ("Zu\u0308rich 12", "…", "Zu\u0308rich…"),
    ],
)
def test_long_names_are_cut_by_the_columns_of_a_terminal(text: str, ellipsis: str, expected: str) -> None:
    assert cut(text, 8, ellipsis) == expected
    assert columns_of(expected) <= 8


@pytest.mark.parametrize("blocks", [BLOCKS, ASCII_BLOCKS])
def test_no_name_breaks_the_columns(blocks: str) -> None:
    plain = made_up()
    names = {group.id: ("名" if group.id.int % 2 else "x") * 60 for group in plain.outcomes.chapters}
    lines = list(as_text(plain._replace(names=names), 80, blocks))
    assert max(map(columns_of, lines)) <= 80
    assert ("…" in "".join(lines)) == (blocks == BLOCKS)


def test_names_stay_text_and_have_their_own_row_each(browser: Browser, tmp_path: Path) -> None:
    plain = made_up()
    names = {group.id: HOSTILE for group in plain.outcomes.chapters}
    tab = Page(browser, *SIZES["phone"])
    tab.open(write(tmp_path / "report.html", plain._replace(names=names)), DRAWN)
    assert tab.evaluate("document.querySelectorAll('#chapters .mark-symbol.role-mark path').length") == 15
    assert tab.evaluate("document.querySelectorAll('img, main script').length") == 0
    tab.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert HOSTILE in tab.evaluate("document.querySelector('[aria-labelledby=chapters-title]').textContent")
    assert tab.evaluate("document.scrollingElement.scrollWidth") == 375
    assert tab.problems() == []
