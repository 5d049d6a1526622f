"""The report as plain text: tables with bars, for a terminal or a mail.

What jobs say of themselves is printable already, see `queue.stopped`.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from uuid import UUID

from .. import NAME
from ..command import count
from ..queue.groups import Group as Cause
from .columns import columns, cut
from .comparison import compared
from .counted_text import counted_as_text
from .counts import Counts, Group, Missing, Outcomes, Report, Stopped, ago, minute, percent
from .names import labels
from .ranking import left_out, none_failed, why_this_order, worst
from .slots import slots

# The terminal shows the worst and the newest; `--json` has all that is known.
SLOTS_SHOWN = {"day": 31, "hour": 49}
GROUPS_SHOWN = 10
CAUSES_SHOWN = 10
REJECTED_SHOWN = 5
LONGEST_ID = 100  # characters
LONGEST_NAME = 36  # columns, as many as an id has
MISSING_SHOWN = 10

# Delivered, failed, skipped, in a bar.
BLOCKS = "█▒░"
ASCII_BLOCKS = "#x."

_SHORTEST = 6  # columns: a shorter bar tells nothing
_COUNTS = ("delivered", "failed", "skipped", "rate")


def as_text(report: Report, width: int, blocks: str) -> Iterator[str]:
    """The lines for a terminal of `width` columns; `blocks`: what bars are made of, see BLOCKS."""
    since, made_at, timezone, outcomes, stopped, missing, counted, _, names = report
    yield f"Prompts from {minute(since, timezone)} to {minute(made_at, timezone)} ({timezone})"
    if outcomes.partial:
        yield "Row level security applies to this role: it may not see every row."
    yield ""
    if comparison := compared(report):
        yield from _wrap(f"Delivery rate {percent(outcomes.total)}, {comparison}", width, 0)
        yield ""
    if outcomes.days:
        yield "{} delivered  {} failed  {} skipped: nothing was sent, not in the rate".format(*blocks)
        yield ""
        yield from _channels(outcomes, width, blocks)
        yield from _slots(report, width, blocks)
        yield from _groups("chapter", outcomes.chapters, names, width, blocks)
        yield from _groups("rule", outcomes.rules, names, width, blocks)
    else:
        yield "No outcome is recorded in this time: nothing was sent, or nobody records it."
        yield f"Is a worker running? python -m {NAME}.check tells."
        yield ""
    yield from counted_as_text(counted, width, blocks)
    yield from _missing(missing, made_at, timezone, width)
    yield from _stopped(stopped, timezone, width)


def _channels(outcomes: Outcomes, width: int, blocks: str) -> Iterator[str]:
    channels = outcomes.by_channel()
    rows = [_cells(name, counts) for name, counts in {**channels, "all": outcomes.total}.items()]
    most = max(sum(counts) for counts in channels.values())
    bars = [*((counts, most) for counts in channels.values()), (Counts(), most)]
    yield from _table(("channel", *_COUNTS), 1, rows, bars, width, blocks)
    yield ""


def _slots(report: Report, width: int, blocks: str) -> Iterator[str]:
    name = "day" if report.outcomes.hours is None else "hour"
    calendar = slots(report)
    rows: list[Sequence[str]] = []
    found: list[Counts] = []
    for slot in calendar[-SLOTS_SHOWN[name] :]:
        for number, (channel, counts) in enumerate(slot.channels.items() or [("-", Counts())]):
            rows.append(("" if number else slot.marked, *_cells(channel, counts)))
            found.append(counts)
    most = max(max(map(sum, found)), 1)
    bars = [(counts, most) for counts in found]
    yield from _table((name, "channel", *_COUNTS), 2, rows, bars, width, blocks)
    if (more := len(calendar) - SLOTS_SHOWN[name]) > 0:
        yield f"and {more:,} {name}s before"
    yield ""


def _groups(
    name: str, groups: Sequence[Group], names: Mapping[UUID, str], width: int, blocks: str
) -> Iterator[str]:
    if not any(group.counts.sent for group in groups):
        return
    shown = worst(groups, GROUPS_SHOWN)
    if shown:
        called = labels([group.id for group in shown], names)
        ellipsis = "…" if blocks == BLOCKS else "..."
        rows = [
            (
                cut(called[id], LONGEST_NAME, ellipsis),
                f"{counts.delivered:,}",
                f"{counts.failed:,}",
                percent(counts),
            )
            for id, counts in shown
        ]
        bars = [(counts._replace(skipped=0), counts.sent) for _, counts in shown]
        header = (f"{name}, worst first", "delivered", "failed", "rate")
        yield from _table(header, 1, rows, bars, width, blocks)
        for line in filter(None, (left_out(groups, shown), why_this_order(shown))):
            yield from _wrap(line, width, 0)
    else:
        yield from _wrap(none_failed(name, groups), width, 0)
    yield ""


def _missing(missing: Missing | None, now: datetime, timezone: tzinfo, width: int) -> Iterator[str]:
    if missing is None:
        yield from _wrap("Prompts that were never reported: unknown to this role.", width, 0)
        yield ""
    elif missing.total:
        head = f"Prompts reserved and never reported: {missing.total:,}"
        yield from _wrap(f"{head}; did their scheduler die before it enqueued?", width, 0)
        for prompt in missing.oldest[:MISSING_SHOWN]:
            again = f", reserved {prompt.holds} times" if prompt.holds > 1 else ""
            when = f"{minute(prompt.reserved_at, timezone)}  key {prompt.key}"
            yield from _wrap(f"{when}, {ago(prompt.reserved_at, now)}{again}", width, 2)
        if missing.total > MISSING_SHOWN:
            yield f"and {missing.total - MISSING_SHOWN:,} more prompts"
        yield ""


def _stopped(stopped: Stopped | None, timezone: tzinfo, width: int) -> Iterator[str]:
    if stopped is None:
        yield "Failed jobs: unknown, Redis does not answer."
        return
    if not stopped.total:
        yield "No job has failed."
        return
    yield f"Jobs: {stopped.failed:,} failed, {stopped.quarantined:,} quarantined; see python -m {NAME}.replay"
    for cause in stopped.causes[:CAUSES_SHOWN]:
        yield from _cause(cause, timezone, width)
    if more := stopped.beyond(CAUSES_SHOWN):
        yield f"and {count(more, 'more job')}"


def _cause(cause: Cause, timezone: tzinfo, width: int) -> Iterator[str]:
    job = cause.sample
    since = cause.period(lambda moment: minute(moment, timezone))
    if cause.jobs == 1:
        head = f"{job.state} ({job.reason})  {job.job_id}"
    else:
        head = f"{cause.jobs:,} jobs stopped ({job.reason})"  # some may have failed, others be set aside
    yield from _wrap(f"{since}  {head}" if since else head, width, 2)
    if cause.jobs == 1 or not cause.problems:
        yield from _wrap(job.why, width, 4)
    for line in cause.complaints(REJECTED_SHOWN):
        yield from _wrap(line, width, 4)
    if cause.jobs > 1:
        yield from _wrap(f"jobs {cause.named(LONGEST_ID)}", width, 4)


def _cells(name: str, counts: Counts) -> tuple[str, ...]:
    return (name, *(f"{count:,}" for count in counts), percent(counts))


def _table(
    header: Sequence[str],
    texts: int,
    rows: Sequence[Sequence[str]],
    bars: Sequence[tuple[Counts, int]],
    width: int,
    blocks: str,
) -> Iterator[str]:
    """Columns, the first `texts` of them flush left; then each row's bar, its counts as shares of a whole."""

    def draw(room: int) -> list[str]:
        if room < _SHORTEST:
            return [""] * (len(rows) + 1)
        return ["", *(_bar(counts, whole, room, blocks) for counts, whole in bars)]

    yield from columns((header, *rows), texts, width, draw)


def _bar(counts: Counts, whole: int, length: int, blocks: str) -> str:
    bar = ""
    done = 0
    for prompts, block in zip(counts, blocks, strict=True):
        done += prompts
        bar = bar.ljust(round(done / whole * length), block)
    return bar


def _wrap(text: str, width: int, indent: int) -> list[str]:
    first, others = " " * indent, " " * (indent + 2)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=others)
