"""Check the app's FCM tokens by dry runs and prune the dead ones, by hand: `python -m worker.sweep`.

The periodic form of the same is the job `worker.jobs.sweep_tokens`; they go on where the other stopped.
"""

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from redis import Redis, RedisError

from .. import logs
from ..record import brake
from ..record.tokens import Tokens
from ..servers import postgres
from ..servers.redis import impatient
from ..servers.settings import ConfigError, read_settings
from .dryrun import NoProject
from .passes import AGES, RATE, Busy, NoVerdict, State, alone, finish, load, pages, save

# The report, in the order of questions: how many of each kind, what FCM says, what became of the dead.
_COUNTS = (
    "tokens",
    "fcm",
    "apns",
    "unknown",
    "alive",
    "dead",
    "no_verdict",
    "pruned",
    "kept",
    "withheld",
    "refused",
)

# Seconds between two lines of progress.
_EVERY = 5.0

EPILOG = """\
examples:
  python -m worker.sweep --dry-run   report only: what is dead, and how old the tokens are
  python -m worker.sweep             check the whole table; interrupted, it goes on where it stopped

DATABASE_URL and REDIS_URL as for the worker; GOOGLE_APPLICATION_CREDENTIALS names the service account's file.
exit status: 0 done, 1 a problem (tokens withheld by the brake, no answers, a server is away, interrupted),
2 wrong usage or configuration
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Sweep the whole table; returns the exit status."""
    options = _parse(arguments)
    try:
        settings = read_settings(os.environ)
        redis = Redis.from_url(
            os.environ.get("RQ_REDIS_URL") or os.environ.get("REDIS_URL") or "redis://localhost:6379/0"
        )
    except (ConfigError, ValueError) as error:
        return _complain(str(error) if isinstance(error, ConfigError) else "REDIS_URL is no URL", 2)
    try:
        with (
            closing(redis),
            alone(redis) as lock,
            closing(postgres.connect(settings.database_url)) as connection,
        ):
            return _run(connection, Tokens(settings), redis, lock, options)
    except Busy:
        return _complain("another sweep is under way: try again in a while")
    except NoProject as problem:
        return _complain(str(problem), 2)
    except NoVerdict as error:
        return _complain(f"stopped: FCM says nothing of most tokens ({error}); run it again later to go on")
    except psycopg.Error as error:
        return _complain(postgres.explain(error))
    except (RedisError, OSError) as error:
        return _complain(f"{type(error).__name__}: check REDIS_URL and whether the server is up")
    except KeyboardInterrupt:
        return _complain("interrupted; run it again to go on")


def _run(
    connection: psycopg.Connection,
    tokens: Tokens,
    redis: Redis,
    lock: Any,
    options: argparse.Namespace,
) -> int:
    logs.logger.addHandler(logging.NullHandler())  # the progress bar and the summary say it all
    state = State() if options.dry_run or options.from_start else load(redis)
    if state.finished_at is not None:
        state = State()
    with (
        closing(impatient(redis)) as brakes,
        _progress(tokens.count(connection, "fcm")) as show,
    ):
        done = state
        for done in pages(
            connection,
            tokens,
            state,
            redis=None if options.without_brake else brakes,
            prune=not options.dry_run,
            rate=options.rate,
        ):
            lock.reacquire()  # the lock would expire under a long sweep
            if not options.dry_run:
                save(redis, done)
            show(done.counts["tokens"])
    if not options.dry_run:
        finish(redis, done)
    return _report(done.counts, dry_run=options.dry_run)


def _report(counts: Counter[str], *, dry_run: bool) -> int:
    for name in (*_COUNTS, *AGES, "age_unknown"):
        _say(f"{name:<24}{counts[name]:>10,}")
    for name, n in sorted(counts.items()):
        if name.startswith("no_verdict_"):
            _say(f"no verdict: {name.removeprefix('no_verdict_')} ({n:,})")
    if dry_run and brake.is_on(counts["alive"], counts["dead"]):
        return _complain("most tokens look dead: is it the right Firebase project? The brake would keep them")
    if counts["withheld"]:
        return _complain(
            "most tokens look dead, so the brake kept them: is it the right Firebase project? "
            "If you are sure, run it again with --without-brake"
        )
    return 0


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Show how many tokens of `total` are done, on standard error: a bar where rich is there, else lines."""
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ModuleNotFoundError:
        shown = time.monotonic()

        def show(done: int) -> None:
            nonlocal shown
            if time.monotonic() - shown > _EVERY:
                shown = time.monotonic()
                print(f"{done:,} of {total:,} tokens", file=sys.stderr, flush=True)  # noqa: T201

        yield show
    else:
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("tokens", total=total)
            yield lambda done: progress.update(task, completed=done)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m worker.sweep",
        description="Check the app's FCM tokens by dry runs and prune the dead ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dry-run", action="store_true", help="report only, prune nothing")
    parser.add_argument("--from-start", action="store_true", help="not where the last sweep stopped")
    parser.add_argument(
        "--without-brake", action="store_true", help="prune though most tokens look dead: you have looked"
    )
    parser.add_argument(
        "--rate", type=_rate, default=RATE, metavar="N", help="checks a second, at most (%(default)s)"
    )
    return parser.parse_args(arguments)


def _rate(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 5000:
        raise argparse.ArgumentTypeError("must be a whole number from 1 to 5000 (half of FCM's quota)")
    return int(text)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's answer


def _complain(message: str, status: int = 1) -> int:
    print(f"sweep: {message}", file=sys.stderr)  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main())
