"""Why pushes failed, and what became of dead tokens, as plain text."""

import math
import textwrap
from collections.abc import Iterator, Sequence

from ..record.prune import FATES
from .columns import columns
from .counted import Counted

#: The terminal shows the most frequent and the newest; `--json` has all that is known.
WHYS_SHOWN = 20
DAYS_SHOWN = 14


def counted_as_text(counted: Counted | None, width: int, blocks: str) -> Iterator[str]:
    """The lines for a terminal of `width` columns; `blocks`: three characters, from dark to light."""
    if counted is None:
        yield "Why pushes failed: unknown, Redis does not answer."
        yield ""
        return
    period = f"from {counted.since} to {counted.until} (UTC)"
    if counted.whys:
        everything = counted.accepted + counted.failed
        head = f"Why pushes failed: {counted.failed:,} of {everything:,} answers"
        yield from _wrap(f"{head}, as the workers counted {period}", width)
        yield from _whys(counted, width, blocks)
    else:
        yield from _wrap(f"Why pushes failed: the workers counted no failed answer {period}.", width)
    yield ""
    if counted.fates:
        yield from _wrap(f"What became of tokens with a death notice, as counted {period}", width)
        yield from _fates(counted, width)
        yield ""


def _whys(counted: Counted, width: int, blocks: str) -> Iterator[str]:
    calendar = counted.calendar()
    shown = counted.whys[:WHYS_SHOWN]
    rows = [("channel", "reason", "token", "answers")]
    rows += [(why.channel, why.reason, why.evidence.replace("_", " "), f"{why.answers:,}") for why in shown]

    def draw(room: int) -> list[str]:
        if not room:
            return [""] * len(rows)
        each = max(1, math.ceil(len(calendar) / room))
        spans = [calendar[at : at + each] for at in range(0, len(calendar), each)]
        head = "by day" if each == 1 else f"by {each} days"
        lines = [[sum([why.days.get(day, 0) for day in span]) for span in spans] for why in shown]
        return [head if len(head) <= room else "", *(_shades(line, blocks) for line in lines)]

    yield from columns(rows, 3, width, draw)
    if more := counted.whys[WHYS_SHOWN:]:
        yield f"and {len(more)} more reasons with {sum([why.answers for why in more]):,} answers"


def _shades(numbers: Sequence[int], blocks: str) -> str:
    """A character for each number: blank for none, the darker the nearer to the greatest of them."""
    most = max(numbers)
    return "".join([f" {blocks[::-1]}"[math.ceil(len(blocks) * number / most)] for number in numbers])


def _fates(counted: Counted, width: int) -> Iterator[str]:
    days = sorted({each.day for each in counted.fates})
    shown = set(days[-DAYS_SHOWN:])
    rows: list[tuple[str, ...]] = [("day", "channel", *FATES)]
    last = None
    for day, channel, tokens in counted.fates:
        if day in shown:
            rows.append(("" if day == last else str(day), channel, *_numbers(tokens)))
            last = day
    rows += [
        ("" if at else "all", channel, *_numbers(tokens))
        for at, (channel, tokens) in enumerate(counted.fates_by_channel().items())
    ]
    yield from columns(rows, 2, width, lambda _: [""] * len(rows))
    if len(days) > len(shown):
        yield f"and {len(days) - len(shown):,} days before, in all"


def _numbers(numbers: Sequence[int]) -> list[str]:
    return [f"{number:,}" for number in numbers]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ")
