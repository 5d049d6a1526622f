"""The worst chapters and rules, as sections of the page."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from uuid import UUID

from .charts import spec
from .counts import Group, percent
from .markup import chart, counts_table, in_numbers, muted, section
from .names import labels
from .ranking import left_out, none_failed, why_this_order, worst
from .zoom import zoom

#: The worst; all that is known is in `--json`.
GROUPS_SHOWN = 15

_HINT = (
    "Worst first by what the numbers prove; the line is the 95 % interval, long where prompts are few, and "
    "cut off at the chart's edge."
)


def rates(noun: str, groups: Sequence[Group], names: Mapping[UUID, str]) -> dict[str, Any]:
    """A dot for each group on an axis near the rates, its interval as far as it is on the axis, and the rate.

    No bars: what does not start at 0 must not be compared by its length.
    """
    called = labels([group.id for group in groups], names)
    found = [(group, group.counts.rate or 0.0, *group.counts.interval) for group in groups]
    start, end = zoom([rate for _, rate, *_ in found])
    values = [
        {
            "id": str(group.id),
            "name": called[group.id],
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
    axis = {
        "format": ".1~%",
        "tickCount": 4,
        "labelFlush": False,
        "labelOverlap": "greedy",
        "labelSeparation": 8,
        "domain": False,
        "ticks": False,
    }
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
        encoding={"y": _ids({str(id): label for id, label in called.items() if id in names})},
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
                        {"field": "name", "title": noun},
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


def _ids(named: Mapping[str, str]) -> dict[str, Any]:
    """The axis of groups, in the order in which they come: by name, or by the first digits of the id."""
    mono = {"labelFont": "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace"}
    return {
        "field": "id",
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {
            "labelExpr": f"({json.dumps(named)})[datum.value] || slice(datum.value, 0, 8)",
            "labelLimit": {"expr": "windowSize()[0] > 640 ? 200 : 110"},
            **({} if named else mono),
            "labelColor": "var(--text)",
            "labelPadding": 12,
            "ticks": False,
            "domain": False,
            "grid": False,
        },
    }


def groups_section(name: str, noun: str, groups: Sequence[Group], names: Mapping[UUID, str]) -> str:
    """The section `name` of what was sent to each `noun`; "" where nothing was."""
    if not any(group.counts.sent for group in groups):
        return ""
    title = f"Delivery rate by {noun}"
    shown = worst(groups, GROUPS_SHOWN)
    if not shown:
        return section(name, title, muted(none_failed(noun, groups)), wide=False)
    called = labels([group.id for group in shown], names)
    rows = [([escape(called[id]) if id in names else f"<code>{id}</code>"], counts) for id, counts in shown]
    content = (
        muted(" ".join(filter(None, (_HINT, why_this_order(shown)))))
        + chart(name)
        + muted(left_out(groups, shown))
        + in_numbers(counts_table([noun], rows))
    )
    return section(name, title, content, wide=False)
