"""Tables of plain text."""

from collections.abc import Callable, Iterator, Sequence


def columns(
    rows: Sequence[Sequence[str]], texts: int, width: int, draw: Callable[[int], Sequence[str]]
) -> Iterator[str]:
    """Lines of `width` columns at most, where the cells leave room; the first `texts` cells are flush left.

    `draw`: what ends each row, in so many columns as are left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(0, width - sum(widths) - 2 * len(widths))
    for row, end in zip(rows, draw(room), strict=True):
        cells = [
            cell.ljust(size) if number < texts else cell.rjust(size)
            for number, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join((*cells, end)).rstrip()
