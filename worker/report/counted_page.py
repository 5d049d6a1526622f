"""Why pushes failed, and what became of dead tokens, as sections of the page."""

from collections.abc import Iterable, Sequence
from html import escape

from ..record.prune import FATES
from .counted import Counted
from .markup import section

#: The most frequent; all that is known is in `--json`.
WHYS_SHOWN = 15

_FATES = {
    "pruned": "deleted or marked, as the settings say",
    "kept": "registered again since, or of a send from the future",
    "withheld": "by the brake, or above the limit of one turn",
    "refused": "PostgreSQL would not have it",
    "absent": "not in the token table",
}


def counted_sections(counted: Counted | None) -> str:
    """Both sections. Names come from a fixed list, and are escaped all the same."""
    if counted is None:
        return section("whys", "Why pushes failed", "<p>Unknown: Redis did not answer.</p>")
    period = f"as the workers counted them from {counted.since} to {counted.until} (days of UTC)"
    return _whys(counted, period) + _fates(counted, period)


def _whys(counted: Counted, period: str) -> str:
    shown, more = counted.whys[:WHYS_SHOWN], counted.whys[WHYS_SHOWN:]
    if not shown:
        return section("whys", "Why pushes failed", f"<p>No failed answers, {period}.</p>")
    everything = counted.accepted + counted.failed
    hint = f"{counted.failed:,} of {everything:,} answers of FCM and APNs, one for each token, {period}."
    sums = [([f"{why.channel} {why.reason}", why.evidence.replace("_", " ")], [why.answers]) for why in shown]
    days = [
        ([str(day), f"{why.channel} {why.reason}"], [why.days[day]])
        for day in counted.calendar()
        for why in shown
        if day in why.days
    ]
    content = f'<p class="muted">{hint}</p><div class="chart" id="whys"></div>'
    content += _table(["reason", "token"], ["answers"], sums)
    if more:
        answers = sum([why.answers for why in more])
        content += f"<p>and {len(more):,} more reasons with {answers:,} answers</p>"
    content += _folded(_table(["day", "reason"], ["answers"], days))
    return section("whys", "Why pushes failed", content)


def _fates(counted: Counted, period: str) -> str:
    if not counted.fates:
        return ""
    channels = counted.fates_by_channel()
    sums = [(named, tokens) for named, *tokens in zip(_FATES.items(), *channels.values(), strict=True)]
    days = [([str(each.day), each.channel], each.tokens) for each in counted.fates]
    content = f'<p class="muted">Tokens with a death notice, {period}.</p>'
    content += _table(["", ""], [*channels], sums)
    content += _folded(_table(["day", "channel"], FATES, days))
    return section("fates", "What became of dead tokens", content)


def _folded(table: str) -> str:
    return f"<details><summary>By day</summary>{table}</details>"


def _table(
    names: Sequence[str], numbers: Sequence[str], rows: Iterable[tuple[Sequence[str], Sequence[int]]]
) -> str:
    head = [f'<th scope="col">{name}</th>' for name in names]
    head += [f'<th scope="col" class="number">{name}</th>' for name in numbers]
    lines = [
        "<tr>"
        + "".join(f'<th scope="row">{_breakable(text)}</th>' for text in texts)
        + "".join(f'<td class="number">{count:,}</td>' for count in counts)
        + "</tr>"
        for texts, counts in rows
    ]
    return (
        f'<div class="wider"><table><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _breakable(text: str) -> str:
    """A name may go on in the next line behind an underscore."""
    return escape(text).replace("_", "_<wbr>")
