"""The delivery rate beside that of the time before, in words. Pure."""

from .counts import Counts, Report, add, percent


def compared(report: Report) -> str:
    """Such as "2.1 points less than in the 7 days before (91.4 % of 4,012 sent)"; "": there is no before."""
    outcomes = report.outcomes
    if report.before is None or outcomes.before is None:
        return ""
    earlier, words = add(outcomes.before.values()), report.before.words
    if not earlier.sent:
        return f"{'nothing was sent' if earlier.skipped else 'nothing is recorded'} in {words}"
    rate = f"{percent(earlier)} of {earlier.sent:,} sent"
    if not outcomes.total.sent:
        return f"{rate} in {words}"
    points = round(_shown(outcomes.total) - _shown(earlier), 1)
    if not points:
        return f"as in {words} ({rate})"
    return f"{abs(points):.1f} points {'more' if points > 0 else 'less'} than in {words} ({rate})"


def _shown(counts: Counts) -> float:
    """The rate as a reader sees it, so that the difference is that of the two numbers."""
    return float(percent(counts).removesuffix(" %"))
