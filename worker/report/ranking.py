"""Which chapters or rules are shown as the worst, and what is said of the others and of the order."""

from collections.abc import Sequence
from itertools import pairwise

from ..command import count
from .counts import Group, percent


def worst(groups: Sequence[Group], most: int) -> list[Group]:
    """The first `most` of those with a failure: what never failed is none of the worst."""
    return [group for group in groups if group.counts.failed][:most]


def left_out(groups: Sequence[Group], shown: Sequence[Group]) -> str:
    """How many others there are to which anything was sent: "and 3 more, and 12 without a failure", or ""."""
    sent = [group for group in groups if group.counts.sent]
    failed = [group for group in sent if group.counts.failed]
    more, faultless = len(failed) - len(shown), len(sent) - len(failed)
    parts = [f"and {more:,} more"] if more else []
    if faultless:
        parts.append(f"and {faultless:,}{'' if more else ' more'} without a failure")
    return ", ".join(parts)


def none_failed(name: str, groups: Sequence[Group]) -> str:
    """Instead of the worst, where none of the groups had a failure; `name`: what each of them is."""
    sent = sum([1 for group in groups if group.counts.sent])
    return f"No {name} had a failure: everything that was sent for {count(sent, name)} was delivered."


def why_this_order(shown: Sequence[Group]) -> str:
    """Why a lower rate stands behind a higher one, with the first pair for an example; "" where none does."""
    for before, behind in pairwise(shown):
        if (before.counts.rate or 0) > (behind.counts.rate or 0) and percent(before.counts) != percent(
            behind.counts
        ):
            return (
                "The order is by the highest rate that the numbers allow (upper end of the 95 % interval): "
                f"{percent(behind.counts)} of {behind.counts.sent:,} sent prove less than "
                f"{percent(before.counts)} of {before.counts.sent:,}."
            )
    return ""
