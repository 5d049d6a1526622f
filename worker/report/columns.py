"""Tables of plain text."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence


def columns(
    rows: Sequence[Sequence[str]], texts: int, width: int, draw: Callable[[int], Sequence[str]]
) -> Iterator[str]:
    """Lines of `width` columns at most, where the cells leave room; the first `texts` cells are flush left.

    `draw`: what ends each row, in so many columns as are left.
    """
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    room = max(0, width - sum(widths) - 2 * len(widths))
    for row, end in zip(rows, draw(room), strict=True):
        cells = [
            cell + blank if number < texts else blank + cell
            for number, (cell, size) in enumerate(zip(row, widths, strict=True))
            for blank in [" " * (size - columns_of(cell))]
        ]
        yield "  ".join((*cells, end)).rstrip()


def columns_of(text: str) -> int:
    """How many columns of a terminal it takes: ideographs two, accents that combine none."""
    if text.isascii():
        return len(text)
    return sum([_columns(char) for char in text])


def cut(text: str, most: int, ellipsis: str) -> str:
    """At most `most` columns of it; where something is left out, `ellipsis` is at its end."""
    if columns_of(text) <= most:
        return text
    while columns_of(text) > most - len(ellipsis):
        text = text[:-1]
    return text.rstrip() + ellipsis


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
