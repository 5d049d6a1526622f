"""The charts of the report's page, as Vega-Lite specifications, and the script that draws them.

Vega and Vega-Lite come out of the wheel vl-convert-python and go into the page: 0.9 MB of script. Their SVG
follows the page's width and colours, dark ones too, and has labels for screen readers. (plotly.js would be
4.5 MB, without such labels; Bokeh draws on a canvas and brings NumPy; Matplotlib's pictures do not reflow.)
"""

from functools import cache
from pathlib import Path
from typing import Any

import vl_convert

from .counted import Counted
from .counts import STATUSES, Counts, Outcomes

# Up to so many hours every one has a label, or every third; else every sixth.
_FEW, _SOME = 12, 25
_DRAW = Path(__file__).with_name("draw.js")


@cache
def script() -> str:
    """JavaScript that draws every specification of the page's element `specs`, asking no network."""
    return vl_convert.javascript_bundle(_DRAW.read_text())


def channels(outcomes: Outcomes) -> dict[str, Any]:
    """One bar for each channel, stacked by status."""
    values = [
        row for channel, counts in outcomes.by_channel().items() for row in rows({"channel": channel}, counts)
    ]
    return spec(
        "Prompts by channel: delivered, failed and skipped",
        values,
        height=40 * len(outcomes.by_channel()),
        mark={"type": "bar", "tooltip": True, "cornerRadius": 2},
        encoding={
            "y": {
                "field": "channel",
                "scale": {"paddingInner": 0.25},
                "type": "nominal",
                "title": None,
                "axis": {"ticks": False, "domain": False, "labelPadding": 8, "labelColor": "var(--text)"},
            },
            "x": {
                "field": "prompts",
                "type": "quantitative",
                "title": None,
                "axis": {"format": ",d", "tickMinStep": 1, "tickCount": 4, "domain": False, "ticks": False},
            },
            "color": colours(),
            "order": {"field": "order"},
        },
    )


def whys(counted: Counted, most: int) -> dict[str, Any]:
    """A row for each of the most frequent reasons, a cell for each day: the darker the more."""
    shown = counted.whys[:most]
    return spec(
        "Why pushes failed, by day",
        [
            {"reason": f"{why.channel} {why.reason}", "day": str(day), "answers": answers}
            for why in shown
            for day, answers in why.days.items()
        ],
        height=24 * len(shown),
        mark={"type": "rect", "tooltip": True, "color": "var(--failed)", "cornerRadius": 2},
        encoding={
            "x": {
                **calendar_axis("day"),
                "scale": {"domain": [str(day) for day in counted.calendar()], "paddingInner": 0.05},
            },
            "y": {
                "field": "reason",
                "type": "nominal",
                "sort": None,
                "scale": {"paddingInner": 0.15},
                "title": None,
                "axis": {
                    "labelLimit": {"expr": "windowSize()[0] > 640 ? 260 : 120"},
                    "labelPadding": 8,
                    "labelColor": "var(--text)",
                    "ticks": False,
                    "domain": False,
                },
            },
            "opacity": {
                "field": "answers",
                "type": "quantitative",
                "scale": {"type": "sqrt", "domainMin": 0, "range": [0.15, 1]},
                "legend": None,
            },
        },
    )


def calendar_axis(field: str, slots: int = 0) -> dict[str, Any]:
    """The axis of days or hours: their labels as in `Slot`, in the order in which they come."""
    every, narrow = (1, 3) if slots <= _FEW else (3, 6) if slots <= _SOME else (6, 12)
    return {
        "field": field,
        "type": "ordinal",
        "sort": None,
        "title": None,
        "axis": {
            "labelAngle": 0,
            "labelOverlap": "greedy",
            "labelSeparation": 8,
            # Of an hour its time, and of the first of a day the date, which needs more room than an hour has.
            "labelExpr": "length(datum.value) > 10 && slice(datum.value, 11, 13) !== '00' ? "
            f"(+slice(datum.value, 11, 13) % (windowSize()[0] > 640 ? {every} : {narrow}) ? '' : "
            "slice(datum.value, 11, 16)) : utcFormat(toDate(slice(datum.value, 0, 10)), '%d %b')",
            "ticks": False,
            "labelPadding": 6,
        },
    }


def rows(names: dict[str, Any], counts: Counts) -> list[dict[str, Any]]:
    """The counts as Vega-Lite wants them, one row for each status; `order` keeps delivered first."""
    return [
        {**names, "status": status, "prompts": count, "order": order}
        for order, (status, count) in enumerate(zip(STATUSES, counts, strict=True))
    ]


def spec(description: str, values: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A specification of these values, as wide as its place and in the page's colours."""
    text = {"labelColor": "var(--muted)", "labelFontSize": 12, "labelLimit": 120}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 2, "right": 20, "top": 2, "bottom": 2},  # right: half of the last day's label
        "background": None,
        "data": {"values": values},
        "config": {
            "font": "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif",
            "view": {"stroke": None},
            "axis": {
                **text,
                "domainColor": "var(--line)",
                "tickColor": "var(--line)",
                "gridColor": "var(--line)",
            },
        },
        **more,
    }


def colours() -> dict[str, Any]:
    """Of each status its own."""
    scale = {"domain": list(STATUSES), "range": [f"var(--{status})" for status in STATUSES]}
    return {"field": "status", "type": "nominal", "scale": scale, "legend": None}
