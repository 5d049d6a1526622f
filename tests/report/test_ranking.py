"""Which groups are the worst, and what is said of the rest and of the order."""

from uuid import UUID

import pytest

from worker.report import page as pages
from worker.report.counts import Counts, Group, Outcomes, worst_first
from worker.report.ranking import left_out, none_failed, why_this_order, worst
from worker.report.text import BLOCKS, GROUPS_SHOWN, as_text

from .test_page import made_up


def groups(*counts: Counts) -> list[Group]:
    return worst_first(Group(UUID(int=number), each) for number, each in enumerate(counts))


FAILED, FAULTLESS, SKIPPED = Counts(9, 1), Counts(9, 0), Counts(0, 0, 9)
FEW, MANY = Counts(17, 4), Counts(8_900, 1_100)  # 81 % of few stand behind 89 % of many


@pytest.mark.parametrize(
    ("counts", "most", "shown", "said"),
    [
        ([FAILED], 3, 1, ""),
        ([FAILED, FAULTLESS, FAULTLESS], 3, 1, "and 2 more without a failure"),
        ([FAILED] * 5, 3, 3, "and 2 more"),
        ([FAILED] * 5 + [FAULTLESS], 3, 3, "and 2 more, and 1 without a failure"),
        ([FAILED, SKIPPED], 3, 1, ""),
        ([FAULTLESS, SKIPPED], 3, 0, "and 1 more without a failure"),
    ],
)
def test_only_what_failed_is_among_the_worst_and_the_rest_is_told(
    counts: list[Counts], most: int, shown: int, said: str
) -> None:
    found = worst(groups(*counts), most)
    assert (len(found), left_out(groups(*counts), found)) == (shown, said)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([FEW, MANY], "81.0 % of 21 sent prove less than 89.0 % of 10,000."),
        ([Counts(80, 20), MANY], ""),
        ([FEW], ""),
        ([], ""),
        ([Counts(9, 1), Counts(9_000, 1_000)], ""),  # the same rate
        ([Counts(9_001, 999), Counts(90, 10)], ""),  # the same to a reader
    ],
)
def test_an_order_that_reads_like_a_mistake_is_explained(counts: list[Counts], told: str) -> None:
    said = why_this_order(groups(*counts))
    assert said.endswith(told)
    assert bool(said) == bool(told)


def outcomes(*counts: Counts) -> Outcomes:
    return made_up().outcomes._replace(chapters=groups(*counts), rules=[])


@pytest.mark.parametrize("counts", [[FEW, MANY], [FAULTLESS] * 12, [FAILED] * (GROUPS_SHOWN + 20)])
def test_text_and_page_say_so(counts: list[Counts]) -> None:
    found = groups(*counts)
    report = made_up()._replace(outcomes=outcomes(*counts))
    text, html = " ".join(" ".join(as_text(report, 80, BLOCKS)).split()), pages.page(report)
    for said in (why_this_order(found), "" if worst(found, 1) else none_failed("chapter", found)):
        assert said in text
        assert said in html
    assert ("chapter, worst first" in text) == bool(worst(found, 1))
    assert ('id="chapters"' in html) == bool(worst(found, 1))


def test_where_nothing_was_sent_there_is_no_word_of_groups() -> None:
    assert "chapter" not in "\n".join(as_text(made_up()._replace(outcomes=outcomes(SKIPPED)), 80, BLOCKS))
