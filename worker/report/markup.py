"""The parts that all sections of the page are made of. Texts are escaped here, HTML comes ready-made."""

from collections.abc import Iterable, Sequence
from html import escape

from .counts import STATUSES, Counts, percent


def section(name: str, title: str, content: str, *, wide: bool = True) -> str:
    """A section with a title; `content`: HTML, `wide`: as wide as the page."""
    return (
        f'<section{" class=wide" if wide else ""} aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escape(title)}</h2>{content}</section>'
    )


def muted(text: str) -> str:
    """A paragraph that explains; none for no text."""
    return f'<p class="muted">{escape(text)}</p>' if text else ""


def chart(name: str) -> str:
    """The place of a chart."""
    return f'<div class="chart" id="{name}"></div>'


def legend() -> str:
    """What the colours mean."""
    return '<ul class="legend">{}</ul>'.format(
        "".join(f'<li class="{status}">{status}</li>' for status in STATUSES)
    )


def in_numbers(table: str) -> str:
    """A table of what a chart draws, folded away."""
    return f"<details><summary>In numbers</summary>{table}</details>"


def counts_table(names: Sequence[str], rows: Iterable[tuple[Sequence[str], Counts]]) -> str:
    """A table of some texts, ready-made HTML, and the counts and rate of each row."""
    head = [f'<th scope="col" class="name">{name}</th>' for name in names]
    head += [f'<th scope="col" class="number">{name}</th>' for name in (*STATUSES, "rate")]
    lines = [
        "<tr>"
        + "".join(f'<th scope="row" class="name">{text}</th>' for text in texts)
        + "".join(
            f'<td class="number">{number}</td>'
            for number in (*(f"{count:,}" for count in counts), percent(counts))
        )
        + "</tr>"
        for texts, counts in rows
    ]
    return (
        f'<table class="counts names-{len(names)}"><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
