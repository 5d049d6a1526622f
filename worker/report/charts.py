"""The charts of the report's page, as Vega-Lite specifications, and the script that draws them.

Vega and Vega-Lite come out of the wheel vl-convert-python and go into the page: 0.9 MB of script. Their SVG
follows the page's width and colours, dark ones too, and has labels for screen readers. (plotly.js would be
4.5 MB, without such labels; Bokeh draws on a canvas and brings NumPy; Matplotlib's pictures do not reflow.)
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert

from .counted import Counted
from .counts import STATUSES, Counts, Group, Outcomes, Report, percent

# What the rate is about.
_SENT = STATUSES[:2]

# Of a group's rows, one for each status, the first.
_ONCE = [{"filter": "datum.order === 0"}]
_DRAW = Path(__file__).with_name("draw.js")


@cache
def script() -> str:
    """JavaScript that draws every specification of the page's element `specs`, asking no network."""
    return vl_convert.javascript_bundle(_DRAW.read_text())


def days(report: Report) -> dict[str, Any]:
    """Columns of each day, stacked by status."""
    by_day = report.outcomes.by_day()
    calendar = report.calendar()
    rows = [row for day in calendar for row in _rows({"day": str(day)}, by_day.get(day, Counts()))]
    return _spec(
        "Prompts by day: delivered, failed and skipped",
        rows,
        height=260,
        mark={"type": "bar", "tooltip": True, "cornerRadius": 2},
        encoding={
            "x": _calendar(),
            "y": {
                "field": "prompts",
                "type": "quantitative",
                "title": None,
                "axis": {"format": ",d", "tickMinStep": 1, "tickCount": 5, "domain": False, "ticks": False},
            },
            "color": _colours(),
            "order": {"field": "order"},
        },
    )


def channels(outcomes: Outcomes) -> dict[str, Any]:
    """One bar for each channel, stacked by status."""
    rows = [
        row
        for channel, counts in outcomes.by_channel().items()
        for row in _rows({"channel": channel}, counts)
    ]
    return _spec(
        "Prompts by channel: delivered, failed and skipped",
        rows,
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
            "color": _colours(),
            "order": {"field": "order"},
        },
    )


def rates(title: str, groups: Sequence[Group]) -> dict[str, Any]:
    """One bar for each group: what was delivered of what was sent, the rate, and its interval."""
    rows = []
    for group in groups:
        low, high = group.counts.interval
        names = {"id": str(group.id), "rate": percent(group.counts), "low": low, "high": high}
        rows += _rows(names, group.counts, _SENT)
    return _spec(
        f"{title}, the worst first",
        rows,
        height=26 * len(groups),
        encoding={"y": _groups()},
        layer=[_shares(), _intervals(), _numbers()],
    )


def whys(counted: Counted, most: int) -> dict[str, Any]:
    """A row for each of the most frequent reasons, a cell for each day: the darker the more."""
    shown = counted.whys[:most]
    return _spec(
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
                **_calendar(),
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


def _calendar() -> dict[str, Any]:
    """The axis of days."""
    return {
        "field": "day",
        "type": "ordinal",
        "title": None,
        "axis": {
            "labelAngle": 0,
            "labelOverlap": "greedy",
            "labelSeparation": 8,
            "labelExpr": "utcFormat(toDate(datum.value), '%d %b')",
            "ticks": False,
            "labelPadding": 6,
        },
    }


def _groups() -> dict[str, Any]:
    """The axis of `rates`: ids, in the order in which they come."""
    return {
        "field": "id",
        "scale": {"paddingInner": 0.25},
        "type": "nominal",
        "sort": None,
        "title": None,
        "axis": {
            "labelExpr": "slice(datum.value, 0, 8)",
            "labelFont": "ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace",
            "labelColor": "var(--text)",
            "labelPadding": 8,
            "ticks": False,
            "domain": False,
        },
    }


def _shares() -> dict[str, Any]:
    axis = {"format": "%", "tickCount": 3, "domain": False, "ticks": False}
    x = {"field": "prompts", "type": "quantitative", "stack": "normalize", "title": None, "axis": axis}
    return {
        "mark": "bar",
        "encoding": {
            "x": x,
            "color": _colours(_SENT),
            "order": {"field": "order"},
            "tooltip": [{"field": name} for name in ("id", "status", "prompts", "rate")],
        },
    }


def _intervals() -> dict[str, Any]:
    return {
        "transform": _ONCE,
        "mark": {"type": "rule", "color": "var(--text)", "strokeWidth": 2, "aria": False},
        "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
    }


def _numbers() -> dict[str, Any]:
    mark = {"type": "text", "align": "left", "dx": 8, "fontSize": 12, "color": "var(--text)", "aria": False}
    return {
        "transform": _ONCE,
        "mark": mark,
        "encoding": {"x": {"datum": 1, "type": "quantitative"}, "text": {"field": "rate"}},
    }


def _rows(names: dict[str, Any], counts: Counts, statuses: Sequence[str] = STATUSES) -> list[dict[str, Any]]:
    """The counts as Vega-Lite wants them, one row for each status; `order` keeps delivered first."""
    return [
        {**names, "status": status, "prompts": count, "order": order}
        for order, (status, count) in enumerate(zip(statuses, counts, strict=False))
    ]


def _spec(description: str, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    text = {"labelColor": "var(--muted)", "labelFontSize": 12, "labelLimit": 120}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 2, "right": 20, "top": 2, "bottom": 2},  # right: half of the last day's label
        "background": None,
        "data": {"values": rows},
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


def _colours(statuses: Sequence[str] = STATUSES) -> dict[str, Any]:
    scale = {"domain": list(statuses), "range": [f"var(--{status})" for status in statuses]}
    return {"field": "status", "type": "nominal", "scale": scale, "legend": None}
