"""What became of the prompts by day or hour, as a section of the page: the rate, beneath it the columns."""

from collections.abc import Sequence
from html import escape
from typing import Any

from .charts import calendar_axis, colours, rows, spec
from .counts import Counts, Report, percent
from .markup import chart, counts_table, in_numbers, legend, muted, section
from .slots import Slot, not_whole, slots
from .zoom import zoom

# What is not whole.
_LIGHTER = {"condition": {"test": "datum.part", "value": 0.45}, "value": 1}
# Pixels of a digit, and of what else there is left of an axis.
_DIGIT, _BESIDE = 7, 14


def over_time(report: Report) -> tuple[str, dict[str, dict[str, Any]]]:
    """The section, and the specifications of its charts by their places."""
    name = "day" if report.outcomes.hours is None else "hour"
    calendar = slots(report)
    extent = _extent(calendar)
    specs = {"days": columns(name, calendar, extent)}
    content = ""
    if any(slot.total.sent for slot in calendar):
        specs = {"rate": rate(name, calendar, extent), **specs}
        content = f"<h3>Delivery rate</h3>{chart('rate')}<h3>Prompts</h3>"
    table = counts_table([name, "channel"], [row for slot in calendar for row in _lines(slot)])
    content += legend() + chart("days") + muted(not_whole(calendar, "Lighter")) + in_numbers(table)
    return section("days", f"By {name}", content), specs


def _lines(slot: Slot) -> list[tuple[list[str], Counts]]:
    """Of the table: each channel, and what the charts draw of them."""
    shown = slot.channels if len(slot.channels) < 2 else {**slot.channels, "all": slot.total}
    return [([escape(slot.marked), escape(channel)], counts) for channel, counts in shown.items()]


def columns(name: str, calendar: Sequence[Slot], extent: int) -> dict[str, Any]:
    """A column of each slot, stacked by status; `extent`: pixels left of the axis."""
    values = [row for slot in calendar for row in rows(_names(slot), slot.total)]
    return spec(
        f"Prompts by {name}: delivered, failed and skipped",
        values,
        height=220,
        mark={"type": "bar", "cornerRadius": 2},
        encoding={
            "x": calendar_axis("slot", len(calendar)),
            "y": {
                "field": "prompts",
                "type": "quantitative",
                "title": None,
                "axis": {
                    "format": ",d",
                    "tickMinStep": 1,
                    "tickCount": 5,
                    "domain": False,
                    "ticks": False,
                    "minExtent": extent,
                },
            },
            "color": colours(),
            "order": {"field": "order"},
            "opacity": _LIGHTER,
            "tooltip": [{"field": "marked", "title": name}, {"field": "status"}, {"field": "prompts"}],
        },
    )


def rate(name: str, calendar: Sequence[Slot], extent: int) -> dict[str, Any]:
    """A line of the delivery rate, with gaps where nothing was sent; its axis ends near the rates."""
    totals = [(slot, slot.total) for slot in calendar]
    values = [
        {**_names(slot), "rate": total.rate, "percent": percent(total), "sent": total.sent}
        for slot, total in totals
    ]
    ends = zoom([total.rate for _, total in totals if total.rate is not None])
    y = {
        "field": "rate",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": ends, "zero": False},
        "axis": {
            "format": ".1~%",
            "tickCount": 4,
            "domain": False,
            "ticks": False,
            "minExtent": extent,
        },
    }
    mark = {"color": "var(--delivered)", "invalid": "break-paths-filter-domains"}
    dots = {"type": "point", "filled": True, "size": 40 if len(calendar) <= 62 else 12, "opacity": 1}
    return spec(
        f"Delivery rate by {name}",
        values,
        height=140,
        encoding={"x": calendar_axis("slot", len(calendar)), "y": y},
        layer=[
            {"mark": {**mark, "type": "line", "strokeWidth": 2, "aria": False}},
            {
                "mark": {**mark, **dots, "invalid": "filter"},
                "encoding": {
                    "opacity": _LIGHTER,
                    "tooltip": [
                        {"field": "marked", "title": name},
                        {"field": "percent", "title": "rate"},
                        {"field": "sent"},
                    ],
                },
            },
        ],
    )


def _names(slot: Slot) -> dict[str, str]:
    return {"slot": slot.label, "marked": slot.marked, "part": slot.part}


def _extent(calendar: Sequence[Slot]) -> int:
    """Room for the labels of both charts, so that their slots stand below each other."""
    most = max(sum(slot.total) for slot in calendar)
    return _DIGIT * max(len("99.5%"), len(f"{most:,}")) + _BESIDE
