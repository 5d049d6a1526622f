"""Axes on which rates that lie near each other differ. Pure."""

import math
from collections.abc import Sequence

_STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# The least that an axis is long: a tenth of a point is no cliff.
_LEAST = 0.02


def zoom(rates: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis around these rates: round, a little beyond them, and within 0 and 1."""
    low, high = min(rates), max(rates)
    span = max(high - low, _LEAST)
    step = next((step for step in _STEPS if span / step <= 5), _STEPS[-1])
    start = math.floor((low - span / 10) / step) * step
    end = math.ceil((high + span / 10) / step) * step
    return round(max(0.0, start), 4), round(min(1.0, end), 4)
