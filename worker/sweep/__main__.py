"""Check the app's FCM tokens by dry runs and prune the dead ones, by hand: `python -m worker.sweep`.

The periodic form of the same is the job `worker.jobs.sweep_tokens`; they go on where the other stopped.
"""

import logging
import os
from collections import Counter
from contextlib import closing
from functools import partial
from types import SimpleNamespace
from typing import Any

import click

from .. import NAME, logs
from ..command import Command, complain, progress, say
from ..extras import extra

with extra("worker"):
    import psycopg

from redis import Redis, RedisError

from ..queue.notices import send_at_once
from ..record import brake
from ..record.tokens import Tokens
from ..servers import postgres
from ..servers.redis import BadAddress, client, explain, impatient
from ..servers.settings import ConfigError, read_settings
from .dryrun import NoProject, connect
from .passes import AGES, RATE, Busy, NoVerdict, State, alone, finish, load, pages, pause, save

# The report, in the order of questions: how many of each kind, what FCM says, what became of the dead.
_COUNTS = (
    *("tokens", "fcm", "fid", "apns", "unknown"),
    *("alive", "dead", "no_verdict"),
    *("pruned", "kept", "withheld", "refused"),
)

# How often a command for Redis is tried again: a pass takes long, and idles while FCM is slow.
_RETRIES = 3

EPILOG = f"""\
examples:
  python -m {NAME}.sweep --dry-run   report only: what is dead, and how old the tokens are
  python -m {NAME}.sweep             check the whole table; interrupted, it goes on where it stopped

DATABASE_URL and REDIS_URL as for the worker; GOOGLE_APPLICATION_CREDENTIALS names the service account's file.
exit status: 0 done, 1 a problem (tokens withheld by the brake, none of FCM's form, no answers, a server is
away, interrupted), 2 wrong usage or configuration
"""


@click.command("sweep", cls=Command, epilog=EPILOG, interrupted="interrupted; run it again to go on")
@click.option("--dry-run", is_flag=True, help="report only, prune nothing")
@click.option("--from-start", is_flag=True, help="not where the last sweep stopped")
@click.option("--without-brake", is_flag=True, help="prune though most tokens look dead: you have looked")
@click.option(
    "--rate",
    type=click.IntRange(1, 5000),  # half of FCM's quota
    default=RATE,
    show_default=True,
    metavar="N",
    help="checks a second, at most",
)
def main(**chosen: Any) -> int:
    """Check the app's FCM tokens by dry runs and prune the dead ones."""
    options = SimpleNamespace(**chosen)
    try:
        settings = read_settings(os.environ)
        redis = client(os.environ, retries=_RETRIES)
    except (ConfigError, BadAddress) as error:
        return complain(str(error), 2)
    try:
        with (
            closing(redis),
            alone(redis) as lock,
            closing(postgres.connect(settings.database_url)) as connection,
        ):
            return _run(connection, Tokens(settings), redis, lock, options, settings.hook)
    except Busy:
        return complain("another sweep is under way: try again in a while")
    except NoProject as problem:
        return complain(str(problem), 2)
    except NoVerdict as error:
        return complain(f"stopped: FCM says nothing of most tokens ({error}); run it again later to go on")
    except psycopg.Error as error:
        return complain(postgres.explain(error))
    except (RedisError, OSError) as error:
        return complain(explain(error))


def _run(
    connection: psycopg.Connection,
    tokens: Tokens,
    redis: Redis,
    lock: Any,
    options: SimpleNamespace,
    hook: str | None,
) -> int:
    logs.logger.addHandler(logging.NullHandler())  # the progress bar and the summary say it all
    state = State() if options.dry_run or options.from_start else load(redis)
    if state.finished_at is not None:
        state = State()
    if total := tokens.count(connection, "fcm"):
        connect()  # first of all: of a table without any token of FCM's nobody would ask it
    with closing(impatient(redis)) as brakes, progress(total, "tokens") as show:
        done = state
        try:
            for done in pages(
                connection,
                tokens,
                state,
                redis=None if options.without_brake else brakes,
                prune=not options.dry_run,
                rate=options.rate,
                tell=partial(send_at_once, brakes, hook) if hook else None,
            ):
                lock.reacquire()  # the lock would expire under a long sweep
                if not options.dry_run:
                    save(redis, done)
                show(done.counts["tokens"])
        except NoVerdict:
            if not options.dry_run:
                pause(redis, done)
            raise
    if not options.dry_run:
        finish(redis, done)
    return _report(done.counts, dry_run=options.dry_run)


def _report(counts: Counter[str], *, dry_run: bool) -> int:
    for name in (*_COUNTS, *AGES, "age_unknown"):
        say(f"{name:<24}{counts[name]:>10,}")
    for name, n in sorted(counts.items()):
        if name.startswith("no_verdict_"):
            say(f"no verdict: {name.removeprefix('no_verdict_')} ({n:,})")
    if dry_run and brake.is_on(counts["alive"], counts["dead"]):
        return complain("most tokens look dead: is it the right Firebase project? The brake would keep them")
    if counts["unknown"] and not counts["fcm"] + counts["fid"]:
        return complain(
            f"none of the {counts['tokens']:,} tokens has the form of FCM's, so nothing was checked: is it "
            "the right table and column? Tokens that are hashed or encrypted there cannot be checked"
        )
    if counts["withheld"]:
        return complain(
            "most tokens look dead, so the brake kept them: is it the right Firebase project? "
            "If you are sure, run it again with --without-brake"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
