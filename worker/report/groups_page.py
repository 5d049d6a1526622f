"""The worst chapters and rules, as sections of the page."""

from collections.abc import Sequence
from typing import Any

from .charts import spec
from .counts import Group, percent
from .markup import chart, counts_table, in_numbers, muted, section
from .ranking import left_out, none_failed, why_this_order, worst
from .zoom import zoom

#: The worst; all that is known is in `--json`.
GROUPS_SHOWN = 15

_HINT = "Worst first by what the numbers prove; the line is the 95 % interval, long where prompts are few."


def rates(noun: str, groups: Sequence[Group]) -> dict[str, Any]:
    """A dot for each group on an axis near the rates, its interval as far as it is on the axis, and the rate.

    No bars: what does not start at 0 must not be compared by its length.
    """
    found = [(group, group.counts.rate or 0.0, *group.counts.interval) for group in groups]
    start, end = zoom([rate for _, rate, *_ in found])
    values = [
        {
            "id": str(group.id),
            "rate": rate,
            "percent": percent(group.counts),
            "low": max(low, start),
            "high": min(high, end),
            "interval": f"{100 * low:.1f} to {100 * high:.1f} %",
            "sent": group.counts.sent,
            "failed": group.counts.failed,
        }
        for group, rate, low, high in found
    ]
    axis = {"format": ".1~%", "tickCount": 4, "domain": False, "ticks": False}
    x = {
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [start, end], "zero": False},
        "axis": axis,
    }
    text = {"type": "text", "align": "left", "dx": 12, "fontSize": 12, "color": "var(--text)", "aria": False}
    return spec(
        f"Delivery rate by {noun}, the worst first",
        values,
        height=26 * len(groups),
        encoding={"y": _ids()},
        layer=[
            {
                "mark": {"type": "rule", "color": "var(--muted)", "strokeWidth": 2, "aria": False},
                "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}},
            },
            {
                "mark": {
                    "type": "point",
                    "filled": True,
                    "size": 90,
                    "opacity": 1,
                    "color": "var(--delivered)",
                },
                "encoding": {
                    "x": {"field": "rate", **x},
                    "tooltip": [
                        {"field": "id"},
                        {"field": "percent", "title": "rate"},
                        {"field": "interval"},
                        {"field": "sent"},
                        {"field": "failed"},
                    ],
                },
            },
            {"mark": text, "encoding": {"x": {"value": "width"}, "text": {"field": "percent"}}},
        ],
    )


def _ids() -> dict[str, Any]:
    """The axis of groups, in the order in which they come."""
    return {
        "field": "id",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {
            "labelExpr": "slice(datum.value, 0, 8)",
            "labelFont": "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace",
            "labelColor": "var(--text)",
            "labelPadding": 12,
            "ticks": False,
            "domain": False,
            "grid": False,
        },
    }


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
        + chart(name)
        + muted(left_out(groups, shown))
        + in_numbers(counts_table([noun], rows))
    )
    return section(name, title, content, wide=False)
