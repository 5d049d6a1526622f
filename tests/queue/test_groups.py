"""Which jobs stopped for one cause, and that nobody can fill memory with causes."""

from datetime import UTC, datetime

import pytest

from worker.queue import groups
from worker.queue.groups import group
from worker.queue.stopped import StoppedJob


def stopped(number: int, *lines: str, reason: str = "rejected", why: str = "some of many") -> StoppedJob:
    return StoppedJob(f"job-{number}", "failed", None, reason, why, 5, lines)


def moment(hour: int) -> datetime:
    return datetime(2026, 11, 22, hour, tzinfo=UTC)


#: Two jobs' rejected lines, and whether their cause is one.
PAIRS: dict[str, tuple[tuple[str, ...], tuple[str, ...], bool]] = {
    "another event": (("[1] $.a: wrong",), ("[2] $.a: wrong",), True),
    "another result": (("[1] $.results[0].token: wrong",), ("[1] $.results[7].token: wrong",), True),
    "another chapter": (
        ("[1] $.chapter_id: there is no such chapter: a",),
        ("[1] $.chapter_id: there is no such chapter: b",),
        True,
    ),
    "another user": (
        ("[1] $.peer_mentor_id: there is no such user: hash a",),
        ("[1] $.peer_mentor_id: there is no such user: hash b",),
        True,
    ),
    "as earlier releases put it": (
        ("[1] $.chapter_id: there is no such chapter: a",),
        ("[1] $.chapter_id: there is no such chapter",),
        True,
    ),
    "a chapter and a rule": (
        ("[1] $.chapter_id: there is no such chapter: a",),
        ("[1] $.scenario_rule_id: there is no such scenario rule: a",),
        False,
    ),
    "one cause and two": (("[1] $.a: wrong",), ("[1] $.a: wrong", "[2] $.b: wrong"), False),
    "more of the same": (("[1] $.a: wrong",), ("[1] $.a: wrong", "[2] $.a: wrong"), True),
}


@pytest.mark.parametrize(("first", "second", "one"), PAIRS.values(), ids=PAIRS)
def test_a_pair(first: tuple[str, ...], second: tuple[str, ...], one: bool) -> None:
    assert len(group([stopped(0, *first), stopped(1, *second)])) == (1 if one else 2)


def test_without_rejected_events_the_reason_and_the_sentence_tell() -> None:
    jobs = [
        stopped(0, reason="database", why="a"),
        stopped(1, reason="database", why="b"),
        stopped(2, reason="other", why="b"),
        stopped(3, reason="database", why="a"),
    ]
    assert [one.ids for one in group(jobs)] == [["job-0", "job-3"], ["job-1"], ["job-2"]]


def test_events_that_the_worker_only_counted_are_others() -> None:
    (one,) = group([stopped(0, "[1] $.a: wrong", "and 37 more: 2, 3, 4")])
    assert one.problems == {"$.a: wrong": 1, "others": 37}


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "_GROUPS", 2)
    monkeypatch.setattr(groups, "_PROBLEMS", 2)
    jobs = [stopped(n, reason="other", why=f"{n % 4}") for n in range(8)]
    assert [one.jobs for one in group(jobs)] == [2, 2]
    (one,) = group(stopped(n, f"[0] $.chapter_id: there is no such chapter: {n}") for n in range(5))
    assert one.problems.total() == 5
    assert (len(one.problems), one.problems["others"]) == (3, 3)


@pytest.mark.parametrize(
    ("jobs", "period", "complaints", "named"),
    [
        ([stopped(0, "[1] $.a: x", "[2] $.b: y")], "", ["[1] $.a: x", "and 1 more"], "job-0"),
        ([stopped(0, "[1] $.a: x"), stopped(1, "[2] $.a: x")], "", ["2 events: $.a: x"], "job-0, job-1"),
        (
            [stopped(n, "[1] $.a: x", "[2] $.b: y")._replace(since=moment(n)) for n in range(5)],
            "00:00 to 04:00",
            ["5 events: $.a: x", "and 5 more"],
            "job-0, job-1, job-2 and 2 more",
        ),
        ([stopped(n)._replace(since=moment(0)) for n in range(2)], "00:00", [], "job-0, job-1"),
    ],
    ids=["one job", "two jobs", "many jobs", "one moment"],
)
def test_a_group_tells_its_period_its_problems_and_some_of_its_jobs(
    jobs: list[StoppedJob], period: str, complaints: list[str], named: str
) -> None:
    (one,) = group(jobs)
    said = one.period(lambda moment: f"{moment:%H:%M}"), one.complaints(1), one.named(100)
    assert said == (period, complaints, named)
