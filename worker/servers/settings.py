"""Settings from the environment: read once, checked whole, secrets masked."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path

from . import addresses, tls
from .addresses import own_address
from .names import misspelt
from .redis import BadAddress, client
from .tokens import CHANNELS, TokenTable, read_token_tables


class ConfigError(Exception):
    """The environment does not describe a runnable worker; every problem is in the message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a worker needs to know. `REDIS_URL` is read by RQ itself."""

    #: libpq URL or key=value string. Never shown: it holds the password.
    database_url: str = field(repr=False)
    #: The app's device-token table of each channel.
    tokens: Mapping[str, TokenTable] = field(default_factory=lambda: dict.fromkeys(CHANNELS, TokenTable()))
    #: How many connections a draining worker writes over: while one turn is judged, another's statements run
    #: and a third is committed. More gains nothing.
    connections: int = 3
    #: The share of a channel's token table that may be pruned within a minute.
    prune_limit: float = 0.1
    #: Recorded outcomes that are older are deleted by the periodic job; None: none ever is.
    retain: timedelta | None = field(default=None, repr=False)
    #: The function of the app's that notices are for, by its dotted name; None: nobody wants any.
    hook: str | None = field(default=None, repr=False)
    #: Parameters in DATABASE_URL that are other clients' and say nothing here.
    passed_over: tuple[str, ...] = field(default=(), repr=False)


_PERCENT = re.compile(r"(100|[1-9]?[0-9])%")
_DAYS = re.compile(r"(\d{1,5})d", re.ASCII)
#: Outcomes are kept so long at least: a key that is gone could be recorded anew, by a job that comes again.
LEAST_RETENTION = timedelta(days=35)
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
_CONNECTIONS = re.compile(r"[1-8]")


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read the settings out of `environ`.

    Raises ConfigError naming every variable that is missing or wrong, with the remedy, and no value of any.
    """
    problems = [*misspelt(environ)]
    if environ.get("NOTIFLOG_REQUIRE_TLS", "") not in ("", "0", "1"):
        problems.append(
            "NOTIFLOG_REQUIRE_TLS must be 1 (refuse servers that are not verified), or 0 or empty (warn)"
        )
    database_url, passed_over = _read_database_url(environ, problems)
    problems += _redis_problems(environ)
    tokens = read_token_tables(environ, problems)
    connections = environ.get("NOTIFLOG_CONNECTIONS") or "3"
    if not _CONNECTIONS.fullmatch(connections):
        problems.append("NOTIFLOG_CONNECTIONS must be a number from 1 to 8 (connections to PostgreSQL)")

    prune_limit = environ.get("NOTIFLOG_PRUNE_LIMIT") or "10%"
    if not _PERCENT.fullmatch(prune_limit):
        problems.append("NOTIFLOG_PRUNE_LIMIT must be a share of the token table from 0% to 100%")

    retain = days(environ.get("NOTIFLOG_RETAIN") or "")
    if environ.get("NOTIFLOG_RETAIN") and (not retain or retain < LEAST_RETENTION):
        problems.append(
            f"NOTIFLOG_RETAIN must be a number of days like 400d, at least {LEAST_RETENTION.days}d, or empty "
            "(delete nothing)"
        )

    hook = environ.get("NOTIFLOG_HOOK") or None
    if hook and not _FUNCTION.fullmatch(hook):
        problems.append(
            "NOTIFLOG_HOOK must be the dotted name of a function, like app.push.on_notices, or empty"
        )

    if problems:
        raise ConfigError("\n".join(problems))
    return Settings(
        database_url=database_url,
        tokens=tokens,
        connections=int(connections),
        prune_limit=int(prune_limit.rstrip("%")) / 100,
        retain=retain,
        hook=hook,
        passed_over=passed_over,
    )


def days(text: str) -> timedelta | None:
    """An age as people write it, `400d`; None: it is none."""
    found = _DAYS.fullmatch(text)
    return timedelta(days=int(found[1])) if found else None


def _read_database_url(environ: Mapping[str, str], problems: list[str]) -> tuple[str, tuple[str, ...]]:
    """The address as libpq takes it, and the parameters passed over; what is wrong goes to `problems`."""
    given = environ.get("DATABASE_URL", "").strip()
    if not given:
        problems.append(
            f"DATABASE_URL is not set: {_unread() or 'postgresql://user:password@host:5432/database'}"
        )
        return "", ()
    try:
        url, passed_over = own_address(given)
    except addresses.BadAddress as error:
        problems.append(f"DATABASE_URL {error}")
        return "", ()
    if requires_tls(environ) and (gap := tls.unverified_database(url)):
        problems.append(f"DATABASE_URL {gap}, and NOTIFLOG_REQUIRE_TLS is set: {tls.VERIFY_DATABASE}")
    return url, passed_over


def _unread() -> str | None:
    """What helps who wrote the settings down and had nothing read them."""
    if not Path(".env").is_file():
        return None
    return "the file .env is here, and nothing has read it; have your shell do so: `set -a; . ./.env; set +a`"


def _redis_problems(environ: Mapping[str, str]) -> list[str]:
    if not requires_tls(environ):
        return []
    try:
        gap = tls.unverified_redis(client(environ).connection_pool)
    except BadAddress:
        gap = "cannot be parsed"
    return [f"REDIS_URL {gap}, and NOTIFLOG_REQUIRE_TLS is set: {tls.VERIFY_REDIS}"] if gap else []


@cache
def settings() -> Settings:
    """The settings of this process."""
    return read_settings(os.environ)


def requires_tls(environ: Mapping[str, str]) -> bool:
    """Whether servers beyond this machine must prove who they are."""
    return environ.get("NOTIFLOG_REQUIRE_TLS") == "1"
