"""The report as one self-contained HTML page: readable offline, on a phone, in the dark, without its charts.

The page asks no network for anything, and its own policy forbids it to.
"""

import json
from base64 import b64encode
from datetime import datetime, tzinfo
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from .. import NAME
from . import charts
from .causes_page import jobs_section
from .comparison import compared
from .counted_page import WHYS_SHOWN, counted_sections
from .counts import Missing, Outcomes, Report, Reserved, ago, minute, percent
from .groups_page import GROUPS_SHOWN, groups_section, rates
from .markup import chart, counts_table, in_numbers, legend, section
from .over_time import over_time
from .ranking import worst

# The oldest; all that is known is in `--json`.
MISSING_SHOWN = 20

_STYLE = Path(__file__).with_name("style.css")

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>What became of the prompts</h1>
<p class="muted">{period}</p>
{notes}
</header>
<main class="grid">
{body}
</main>
<footer><p>{footer}</p></footer>
<script type="application/json" id="specs">{specs}</script>
<script>{script}</script>
</body>
</html>
"""


def page(report: Report) -> str:
    """The whole page. Everything that comes from a server is escaped."""
    since, made_at, timezone, outcomes, stopped, missing, counted, _, names = report
    period = f"{minute(since, timezone)} to {minute(made_at, timezone)} ({timezone})"
    notes = []  # HTML
    if outcomes.partial:
        notes.append("Row level security applies to the role that made this page: it may not see every row.")
    if not outcomes.days:
        notes.append(
            "No outcome is recorded in this time: nothing was sent, or nobody records it. "
            f"Is a worker running? <code>python -m {NAME}.check</code> tells."
        )
    specs: dict[str, Any] = {}
    body = [_cards(report)]
    if outcomes.days:
        by_time, specs = over_time(report)
        specs["channels"] = charts.channels(outcomes)
        body += [by_time, _channels(outcomes)]
        for name, noun, groups in (
            ("chapters", "chapter", outcomes.chapters),
            ("rules", "rule", outcomes.rules),
        ):
            if shown := worst(groups, GROUPS_SHOWN):
                specs[name] = rates(noun, shown, names)
            body.append(groups_section(name, noun, groups, names))
    if counted and counted.whys:
        specs["whys"] = charts.whys(counted, WHYS_SHOWN)
    body += [counted_sections(counted), _missing(missing, made_at, timezone), jobs_section(stopped, timezone)]
    script = charts.script()
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return _PAGE.format(
        # No script runs but ours, and nothing is loaded. Vega compiles its expressions, hence 'unsafe-eval'.
        policy=f"default-src 'none'; script-src 'sha256-{digest}' 'unsafe-eval'; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        title=escape(f"Prompts {period}"),
        style=_STYLE.read_text(),
        period=escape(period),
        notes="".join(f'<p class="note">{note}</p>' for note in notes),
        body="\n".join(body),
        footer=escape(
            f"Made by notiflog at {minute(made_at, timezone)} ({timezone}). Delivered means accepted by FCM "
            "or APNs."
        ),
        specs=json.dumps(specs).replace("<", "\\u003c"),
        script=script,
    )


def _cards(report: Report) -> str:
    total, stopped = report.outcomes.total, report.stopped
    comparison = compared(report)
    if stopped is None:
        jobs = ("unknown", "Redis does not answer")
    else:
        jobs = (f"{stopped.total:,}", f"{stopped.failed:,} failed, {stopped.quarantined:,} quarantined")
    cards = [
        ("", "Delivery rate", percent(total), f"of those sent{comparison and f'; {comparison}'}"),
        ("delivered", "Delivered", f"{total.delivered:,}", "accepted by the provider"),
        ("failed", "Failed", f"{total.failed:,}", "accepted for no device"),
        ("skipped", "Skipped", f"{total.skipped:,}", "nothing was sent"),
        ("failed" if stopped and stopped.total else "", "Stopped jobs", *jobs),
    ]
    return '<dl class="cards wide">{}</dl>'.format(
        "".join(
            f'<div class="card {tone}"><dt>{escape(name)}</dt>'
            f"<dd>{escape(figure)}<small>{escape(hint)}</small></dd></div>"
            for tone, name, figure, hint in cards
        )
    )


def _channels(outcomes: Outcomes) -> str:
    channels = {**outcomes.by_channel(), "all": outcomes.total}
    table = counts_table(["channel"], [([escape(name)], counts) for name, counts in channels.items()])
    return section("channels", "By channel", legend() + chart("channels") + in_numbers(table))


def _missing(missing: Missing | None, now: datetime, timezone: tzinfo) -> str:
    if missing is None:
        content = "<p>Unknown: the role that made this page may not see the reservations.</p>"
    elif not missing.total:
        content = "<p>Every prompt that was reserved is reported.</p>"
    else:
        content = (
            f'<p class="muted">{missing.total:,} prompts, the oldest first: did their scheduler die before '
            "it enqueued? A key is shown by the first digits of its SHA-256.</p>"
        )
        rows = "".join(
            f"<tr><td>{escape(minute(prompt.reserved_at, timezone))}</td>"
            f"<td><code>{escape(prompt.key)}</code></td>"
            f"<td>{ago(prompt.reserved_at, now)}{_again(prompt)}</td></tr>"
            for prompt in missing.oldest[:MISSING_SHOWN]
        )
        head = "".join(f'<th scope="col">{name}</th>' for name in ("reserved", "key", "age"))
        content += f'<table class="jobs"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        if (more := missing.total - MISSING_SHOWN) > 0:
            content += f"<p>and {more:,} more</p>"
    return section("missing", "Never reported", content)


def _again(prompt: Reserved) -> str:
    return f", reserved {prompt.holds} times" if prompt.holds > 1 else ""
