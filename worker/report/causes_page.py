"""The jobs that stopped, as a section of the page: one cause once, however many jobs it stopped."""

from collections.abc import Iterable
from datetime import tzinfo
from html import escape

from .. import NAME
from ..command import count
from ..queue.groups import Group as Cause
from .counts import Stopped, minute
from .markup import section

#: Beyond these, causes are folded away.
CAUSES_SHOWN = 10
FOLDED_SHOWN = 90
REJECTED_SHOWN = 10
LONGEST_ID = 300  # characters


def jobs_section(stopped: Stopped | None, timezone: tzinfo) -> str:
    """The section; None: nobody knows."""
    if stopped is None:
        content = "<p>Unknown: Redis did not answer when this page was made.</p>"
    elif not stopped.total:
        content = "<p>No job has failed.</p>"
    else:
        content = (
            '<p class="muted">As they are now, the latest first. '
            f"<code>python -m {NAME}.replay</code> runs them again.</p>"
        )
        content += _table(stopped.causes[:CAUSES_SHOWN], timezone)
        if folded := stopped.causes[CAUSES_SHOWN:][:FOLDED_SHOWN]:
            summary = f"<summary>{count(len(folded), 'more cause')}</summary>"
            content += f"<details>{summary}{_table(folded, timezone)}</details>"
        if unlisted := stopped.beyond(CAUSES_SHOWN + FOLDED_SHOWN):
            content += f"<p>and {count(unlisted, 'more job')}, not listed</p>"
    return section("jobs", "Stopped jobs", content)


def _table(causes: Iterable[Cause], timezone: tzinfo) -> str:
    rows = "".join(_row(cause, timezone) for cause in causes)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("since", "jobs", "why"))
    return f'<table class="jobs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(cause: Cause, timezone: tzinfo) -> str:
    job = cause.sample
    since = escape(cause.period(lambda moment: minute(moment, timezone))).replace(" to ", " to<br>")
    state = job.state if cause.jobs == 1 else "stopped"  # some may have failed, others be set aside
    many = f"<strong>{cause.jobs:,} jobs</strong><br>" if cause.jobs > 1 else ""
    why = "" if cause.jobs > 1 and cause.problems else escape(job.why)
    lines = "".join(f"<li><code>{escape(line)}</code></li>" for line in cause.complaints(REJECTED_SHOWN))
    return (
        f"<tr><td>{since}</td>"
        f'<td><span class="state">{escape(state)}: {escape(job.reason)}</span> {many}'
        f"<code>{escape(cause.named(LONGEST_ID))}</code></td>"
        f"<td>{why}{f'<ul>{lines}</ul>' if lines else ''}</td></tr>"
    )
