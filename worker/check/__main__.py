"""The command `python -m worker.check`: its options, its text and its status."""

import json
import os
import shutil
import sys
from collections.abc import Sequence
from itertools import groupby

import click

from .. import NAME
from ..command import Command, count, flow, say
from ..extras import extra
from ..queue.keys import QUEUE
from ..servers.finding import Finding, Level

with extra("worker"):
    from .look import look, subject


_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
# Columns of a terminal below which a finding's words stand under its name, not beside it.
_NARROW = 80

EPILOG = f"""\
examples:
  python -m {NAME}.check                        everything, for a reader
  python -m {NAME}.check --json                 the same for a program
  python -m {NAME}.check && rq worker notiflog  start only where nothing is wrong

It reads the worker's own environment, connects as the worker does, and changes nothing.
exit status: 0 no problem (warnings alone are none), 1 a problem, 2 wrong usage or configuration
"""


@click.command("check", cls=Command, epilog=EPILOG)
@click.option("--queue", default=QUEUE, show_default=True, help="the queue to look at")
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of text")
def main(*, queue: str, as_json: bool) -> int:
    """One look at settings, Redis, PostgreSQL and the queue: what is wrong, and what to do about it."""
    findings = look(queue)
    if any(finding.level == "problem" and finding.name.startswith("settings.") for finding in findings):
        status = 2
    else:
        status = int(any(finding.level == "problem" for finding in findings))
    if as_json:
        say(json.dumps({"status": status, "findings": [finding._asdict() for finding in findings]}))
    else:
        _show(findings)
    return status


def _show(findings: Sequence[Finding]) -> None:
    terminal = sys.stdout.isatty()
    fancy = terminal and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    marks = _MARKS if fancy else {level: level for level in _MARKS}
    width = max(map(len, marks.values()))
    beside = not terminal or shutil.get_terminal_size().columns >= _NARROW
    names = max(len(_thing(finding)) for finding in findings) + 2 if beside else 0
    indent = " " * (width + names + 4)
    for about, members in groupby(findings, subject):
        say(about)
        for finding in members:
            mark = _coloured(f"{marks[finding.level]:<{width}}", finding.level)
            head = f"  {mark}  {_thing(finding):<{names}}"
            if beside:
                flow(finding.text, head)
            else:
                say(head)
                flow(finding.text, indent)
            if finding.remedy:
                flow(finding.remedy, f"{indent}-> ")
    levels = [finding.level for finding in findings]
    say(", ".join(count(levels.count(level), level) for level in ("problem", "warning")))


def _coloured(mark: str, level: Level) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return mark if plain else click.style(mark, fg=_COLOURS[level], bold=True)


def _thing(finding: Finding) -> str:
    return finding.name.partition(".")[2]


if __name__ == "__main__":
    raise SystemExit(main())
