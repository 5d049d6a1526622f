"""The worst chapters and rules, as sections of the page."""

from collections.abc import Sequence

from .counts import STATUSES, Group
from .markup import chart, counts_table, in_numbers, legend, muted, section
from .ranking import left_out, none_failed, why_this_order, worst

#: The worst; all that is known is in `--json`.
GROUPS_SHOWN = 15

_HINT = "Worst first by what the numbers prove; the line is the 95 % interval, long where prompts are few."


def groups_section(name: str, noun: str, groups: Sequence[Group]) -> str:
    """The section `name` of what was sent to each `noun`; "" where nothing was."""
    if not any(group.counts.sent for group in groups):
        return ""
    title = f"Delivery rate by {noun}"
    shown = worst(groups, GROUPS_SHOWN)
    if not shown:
        return section(name, title, muted(none_failed(noun, groups)), wide=False)
    rows = [([f"<code>{group.id}</code>"], group.counts) for group in shown]
    content = (
        muted(" ".join(filter(None, (_HINT, why_this_order(shown)))))
        + legend(STATUSES[:2])
        + chart(name)
        + muted(left_out(groups, shown))
        + in_numbers(counts_table([noun], rows))
    )
    return section(name, title, content, wide=False)
