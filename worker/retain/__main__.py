"""Delete old outcomes by hand, or by the host's own clock: `python -m worker.retain`.

The periodic form of the same is the job `worker.jobs.retain_outcomes`; they go on where the other stopped.
"""

import json
import os
from contextlib import closing
from datetime import timedelta
from typing import Any

import click

from .. import NAME
from ..command import Command, complain, progress, say
from ..extras import extra

with extra("worker"):
    import psycopg

from ..servers import postgres
from ..servers.settings import LEAST_RETENTION, ConfigError, days, read_settings
from . import expiry

EPILOG = f"""\
examples:
  python -m {NAME}.retain --older-than 400d --dry-run   how many are there, and how much room do they take?
  python -m {NAME}.retain --older-than 400d --yes       delete them; interrupted, it goes on where it stopped

An outcome is older when it was both sent and recorded so long ago. What it kept from being recorded again it
keeps no more: so nothing younger than {LEAST_RETENTION.days} days goes without --force. Runs beside workers.

DATABASE_URL names the database and a role that may delete, such as the owner; a worker's need not be able to.
exit status: 0 done, 1 a problem (interrupted too), 2 wrong usage or configuration
"""


class _Days(click.ParamType):  # type: ignore[type-arg]
    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        return days(value) or self.fail("expected a number of days, like 400d", param, ctx)


@click.command("retain", cls=Command, epilog=EPILOG, interrupted="interrupted; run it again to go on")
@click.option("--older-than", type=_Days(), required=True, metavar="DAYS", help="delete what is older: 400d")
@click.option("--dry-run", is_flag=True, help="only say how many there are")
@click.option("--yes", is_flag=True, help="confirm the deletion")
@click.option("--force", is_flag=True, help=f"also what is younger than {LEAST_RETENTION.days} days")
@click.option("--json", "as_json", is_flag=True, help="one JSON object instead of text")
def main(*, older_than: timedelta, dry_run: bool, yes: bool, force: bool, as_json: bool) -> int:
    """Delete recorded outcomes that are older than they need to be kept."""
    if not (yes or dry_run):
        raise click.UsageError("it deletes data: confirm it with --yes, or look first with --dry-run")
    if older_than < LEAST_RETENTION and not force:
        raise click.UsageError(
            f"a key that is gone could be recorded anew, so {LEAST_RETENTION.days}d is the least; --force "
            "if no job that old can come again"
        )
    try:
        with closing(postgres.connect(read_settings(os.environ).database_url)) as connection:
            if problems := expiry.problems(connection):
                return complain("\n".join(problems))
            return _run(connection, older_than, dry_run=dry_run, as_json=as_json)
    except ConfigError as error:
        return complain(str(error), 2)
    except psycopg.Error as error:
        return complain(f"{postgres.explain(error)}; what is deleted stays deleted, run it again to go on")


def _run(connection: psycopg.Connection, age: timedelta, *, dry_run: bool, as_json: bool) -> int:
    before = expiry.moment(connection, age)
    row_bytes = expiry.row_bytes(connection)
    found = sum(expiry.counts(connection, before))
    rows = found if dry_run else 0
    try:
        if not dry_run:
            with progress(found, "rows") as show:
                for deleted in expiry.delete(connection, before):
                    rows += deleted
                    show(rows)
    finally:
        size = int(rows * row_bytes)
        if as_json:
            answer = {"older_than_days": age.days, "dry_run": dry_run, "rows": rows, "bytes": size}
            say(json.dumps(answer))
        else:
            _tell(age, rows, size, "would delete" if dry_run else "deleted")
    return 0


def _tell(age: timedelta, rows: int, size: int, verb: str) -> None:
    say(f"{verb} {rows:,} outcomes older than {age.days:,} days")
    if size:
        say(f"some {size / 2**20:,.1f} MiB of table and indexes: vacuum frees it for new rows, files stay")


if __name__ == "__main__":
    raise SystemExit(main())
