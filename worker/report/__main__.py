"""What became of the prompts, at a look: `python -m worker.report`."""

import json
import os
import shutil
import sys
from contextlib import closing
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import click

from .. import NAME
from ..command import Command, complain, say
from ..extras import extra

with extra("worker"):
    import psycopg

from psycopg import errors
from redis import RedisError

from ..queue.keys import QUEUE
from ..queue.known import unknown_queue
from ..servers import postgres
from ..servers.redis import BadAddress, client, explain
from ..servers.settings import ConfigError, read_settings
from .as_json import as_json
from .counted import Counted, read_counted
from .counts import Report, Stopped
from .names import WrongNames, read_names
from .periods import period
from .reading import read_missing, read_outcomes, read_stopped
from .text import ASCII_BLOCKS, BLOCKS, as_text

# Standard output, as a file's name.
_HERE = Path("-")

WIDTHS = (40, 120)  # columns: a wider bar says no more

EPILOG = f"""\
examples:
  python -m {NAME}.report                                     today and the six days before
  python -m {NAME}.report --since 24h                         the last 24 hours, by hour
  python -m {NAME}.report --since 2026-11-01 --timezone Europe/Berlin
  python -m {NAME}.report --since 30d --html report.html      a page with charts, to open or to send
  python -m {NAME}.report --html - | mail ...                 the same to another program
  python -m {NAME}.report --names "select id, name from chapters"     names where there is one, else ids

DATABASE_URL must be of a role that may read the log: a member of notiflog_reader, or its owner. The worker's
own role may not. Without Redis the outcomes are shown, and the rest is said to be unknown. Why pushes
failed is counted by the workers in Redis, by days of UTC, for 90 days. The rate is
delivered of delivered and failed, beside that of as many days or hours before, as far into them as now is;
worst first goes by what the numbers prove: 500 failures of 1,000 before one of one. Up to 48 hours or two
days are shown by hour, as the clocks of --timezone have it. --names may only read.
exit status: 0 shown, 1 a problem (a server is away, the role may not read), 2 wrong usage or configuration
"""  # noqa: S608 - an example to read


@click.command("report", cls=Command, epilog=EPILOG)
@click.option("--since", default="7d", show_default=True, help="7d, 24h or a date like 2026-11-01")
@click.option("--timezone", default="UTC", show_default=True, metavar="NAME", help="whose days")
@click.option("--queue", default=QUEUE, show_default=True, help="whose failed jobs")
@click.option("--names", metavar="SQL", help="a query for ids and names of chapters and rules")
@click.option("--json", is_flag=True, help="all that is known, as JSON")
@click.option("--html", type=Path, metavar="FILE", help="write one self-contained page with charts; -: here")
def main(**chosen: Any) -> int:
    """What became of the prompts: outcomes by day or hour and channel, delivery rates of chapters and rules,
    and the jobs that failed; why pushes failed, and what became of dead tokens, as the workers counted it.
    """
    options = _understand(SimpleNamespace(**chosen))
    since, hourly, before = options.period
    try:
        settings = read_settings(os.environ)
        redis = client(os.environ)
    except (ConfigError, BadAddress) as error:
        return complain(str(error), 2)
    try:
        with closing(postgres.connect(settings.database_url)) as connection:
            outcomes = read_outcomes(connection, since, options.timezone, hourly=hourly, before=before)
            names = {} if options.names is None else read_names(connection, options.names, outcomes.ids)
            missing = read_missing(connection)
    except WrongNames as error:
        return complain(str(error), error.status)
    except errors.InsufficientPrivilege:
        return complain(
            "the role of DATABASE_URL may not read public.follow_up_notification_log (notiflog_worker may "
            "read keys and statuses only). Run this as a member of notiflog_reader, or as the owner: "
            f"DATABASE_URL=$OWNER_DATABASE_URL python -m {NAME}.report"
        )
    except psycopg.Error as error:
        return complain(postgres.explain(error))
    status = 0
    stopped: Stopped | None = None
    answers: Counted | None = None
    try:
        with closing(redis):
            answers = read_counted(redis, since)
            if problem := unknown_queue(redis, options.queue):
                status = complain(problem)
            else:
                stopped = read_stopped(redis, options.queue)
    except (RedisError, OSError) as error:
        status = complain(f"failed jobs, and why pushes failed, are unknown: {explain(error)}")
    report = Report(
        since, options.now, options.timezone, outcomes, stopped, missing, answers, before, names or {}
    )
    if options.html:
        page = options.page(report)
        return (_write(options.html, page) if options.html != _HERE else _show(page)) or status
    say(json.dumps(as_json(report), indent=2) if options.json else "\n".join(as_text(report, *_terminal())))
    return status


def _understand(options: SimpleNamespace) -> SimpleNamespace:
    """The options with their meaning. Raises click.UsageError."""
    if options.json and options.html:
        raise click.UsageError("--json is not allowed with --html")
    options.now = datetime.now(UTC)
    options.timezone = _timezone(options.timezone)
    try:
        options.period = period(options.since, options.now, options.timezone)
    except (ValueError, OverflowError):
        raise click.UsageError("--since must be days, hours or a date: 7d, 24h, 2026-11-01") from None
    if options.period.since > options.now:
        raise click.UsageError("--since lies ahead: nothing is recorded there yet")
    if options.html:
        if options.html != _HERE and options.html.exists() and not options.html.is_file():
            raise click.UsageError(f"--html: {options.html} is no file")
        try:
            from .page import page
        except ModuleNotFoundError as missing:
            raise click.UsageError(
                f"--html needs `{missing.name}` for its charts: pip install 'notiflog[report]'"
            ) from None
        options.page = page
    return options


def _timezone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)  # UTC needs no time zone database
    except (KeyError, ValueError, OSError):
        raise click.UsageError(f"no such time zone: {name}, expected one like Europe/Berlin") from None


def _write(path: Path, page: str) -> int:
    """Put the page in place at once: whoever opens the file meanwhile sees the old one."""
    path = path.resolve()  # a link stays one
    part = path.with_name(f".{uuid4().hex}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        return complain(f"cannot write {path}: {error.strerror}")
    say(f"wrote {path}")
    return 0


def _show(page: str) -> int:
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(encoding="utf-8")  # as the page says of itself
    say(page.removesuffix("\n"))
    return 0


def _terminal() -> tuple[int, str]:
    """The width to fill, and what to draw bars with."""
    try:
        BLOCKS.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        blocks = ASCII_BLOCKS
    else:
        blocks = BLOCKS
    narrowest, widest = WIDTHS
    return min(max(shutil.get_terminal_size().columns, narrowest), widest), blocks


if __name__ == "__main__":
    raise SystemExit(main())
