"""Erase peer mentors, as an account that is deleted asks for: `python -m worker.forget`."""

import os
from collections import Counter
from contextlib import closing
from typing import Any
from uuid import UUID

import click

from .. import NAME
from ..command import Command, complain, say
from ..extras import extra

with extra("worker"):
    import psycopg

from redis import RedisError

from ..queue.keys import QUEUE
from ..servers import postgres
from ..servers.redis import BadAddress, client, explain
from ..servers.settings import ConfigError, read_settings
from . import events, rows

# How often a command for Redis is tried again.
_RETRIES = 3

EPILOG = f"""\
examples:
  python -m {NAME}.forget --dry-run ID   how much is there of this mentor?
  python -m {NAME}.forget ID ID          erase these two

Have the app send nothing more to the mentor first, and delete the user afterwards: no row keeps it from that
any longer. What is reported of an unknown user later is rejected, and its job fails: if that happens, run
this again. Jobs keep all their other events. Runs beside workers, and again if it was interrupted.

It does not touch the app's tables, device tokens among them, nor backups.

DATABASE_URL names the database and a role that may delete, such as the owner; REDIS_URL as for the worker.
exit status: 0 done, 1 a problem (a job still runs or cannot be read; a server is away), 2 wrong usage or
configuration
"""


class _Mentor(click.ParamType):  # type: ignore[type-arg]
    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        try:
            return value if isinstance(value, UUID) else UUID(value)
        except ValueError:
            self.fail("expected the mentor's peer_mentor_id, a UUID", param, ctx)


@click.command("forget", cls=Command, epilog=EPILOG, interrupted="interrupted; run it again to go on")
@click.argument("mentors", nargs=-1, required=True, type=_Mentor(), metavar="ID...")
@click.option("--dry-run", is_flag=True, help="only say how much there is")
@click.option("--queue", default=QUEUE, show_default=True, help="whose unreadable jobs to tell of")
@click.option(
    "--wait",
    type=click.IntRange(0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="for jobs that run now",
)
def main(*, mentors: tuple[UUID, ...], dry_run: bool, queue: str, wait: int) -> int:
    """Erase peer mentors: their rows, their reservations, and their events in jobs, wherever these stand."""
    try:
        settings = read_settings(os.environ)
        redis = client(os.environ, retries=_RETRIES)
    except (ConfigError, BadAddress) as error:
        return complain(str(error), 2)
    ids = frozenset(mentors)
    try:
        with closing(redis), closing(postgres.connect(settings.database_url)) as connection:
            theirs = rows.theirs(connection)  # before anything is changed: may it be done at all?
            if dry_run:
                found = events.find(redis, ids, queue)
                return _tell(found, rows.find(connection, theirs, ids, found.keys), "found")
            found = events.take_out(redis, ids, queue, wait)
            # The rows come last: what ran meanwhile has written its own.
            return _tell(found, rows.erase(connection, theirs, ids, found.keys), "erased")
    except rows.NotReady as problem:
        return complain(str(problem))
    except psycopg.Error as error:
        return complain(postgres.explain(error))
    except (RedisError, OSError) as error:
        return complain(explain(error))


def _tell(found: events.Found, erased: rows.Erased, verb: str) -> int:
    taken = Counter[str]()
    for state, number in found.jobs.values():
        taken[state] += number
    say(f"{verb} {erased.rows:,} rows of the log, {erased.reservations:,} reservations")
    say(f"{verb} {taken.total():,} events in {len(found.jobs):,} jobs")
    for state, number in sorted(taken.items()):
        say(f"  {state:<14}{number:>8,}")
    if found.running:
        complain(
            f"{found.running:,} jobs with their events still run, and were left as they are: run this again"
        )
    if found.endless:
        complain("their events keep coming: have the app send nothing more to them, and run this again")
    for job_id in sorted(found.unreadable):
        complain(f"left where it is: {job_id:.100}: it cannot be read; delete it with `replay --discard`")
    return int(bool(found.running or found.endless or found.unreadable))


if __name__ == "__main__":
    raise SystemExit(main())
