"""One look that tells what is wrong, and what to do about it: `python -m worker.check`."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from itertools import groupby
from typing import get_args

import click

from . import NAME
from .command import Command, say
from .extras import extra

with extra("worker"):
    import psycopg

from psycopg.conninfo import make_conninfo
from redis import Redis, RedisError
from rq import Queue
from rq.suspension import is_suspended

from .queue.keys import PREFIX, QUEUE, quarantine_key
from .queue.workers import age, listening
from .record import brake, reservations
from .servers import postgres, redis_faults, tls
from .servers.finding import Finding
from .servers.findings import database_findings, redis_findings, settings_findings, unwritable
from .servers.migrations import pending
from .servers.redis import BadAddress, client
from .servers.settings import ConfigError, Settings, read_settings, requires_tls
from .servers.token_findings import future_registrations
from .servers.token_shape import columns, usable_shape
from .servers.tokens import CHANNELS, TokenTable

#: Seconds for all questions to one server.
PATIENCE = 20.0
# With fewer dead tokens than this in a day it says little that the table holds none of them.
_MANY = 20
#: A job that has waited for longer while there are workers, in seconds, is worth a look.
LONG = 300.0

_GROUPS = ("settings", "redis", "postgres", "queue")
_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}

# The worker's role has no business with the ledgers, Supabase's included.
_CLOSED_LEDGERS = """
select exists (
  select from pg_class join pg_namespace as schema on schema.oid = relnamespace
   where relname = 'schema_migrations' and nspname in ('notiflog', 'supabase_migrations')
     and not (has_schema_privilege(schema.oid, 'usage') and has_table_privilege(pg_class.oid, 'select')))
"""

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


def look(queue: str) -> list[Finding]:
    """Everything there is to find out, in the order to read it. Takes some PATIENCE seconds at most."""
    # Side by side: neither server's silence shall hide what the other says.
    answers = {"redis": _start(lambda: _redis(queue))}
    try:
        settings = read_settings(os.environ)
    except ConfigError as error:
        problems = (line.partition(": ") for line in str(error).splitlines())
        found = [Finding("settings.environment", "problem", text, remedy) for text, _, remedy in problems]
    else:
        answers["postgres"] = _start(lambda: _postgres(settings))
        tables = ", ".join(dict.fromkeys(_words(table) for table in settings.tokens.values()))
        found = [Finding("settings.environment", "ok", f"complete; device tokens in {tables}")]
        found += settings_findings(settings)
    for group, answer in answers.items():
        found += _answer(group, answer)
    return sorted(found, key=lambda finding: _GROUPS.index(_group(finding)))


def _words(table: TokenTable) -> str:
    return f"{table} ({', '.join(columns(table))})"


def _start(ask: Callable[[], Iterator[Finding]]) -> "Future[list[Finding]]":
    answer: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            answer.set_result(list(ask()))
        except BaseException as error:
            answer.set_exception(error)

    # A daemon: a server that never answers must not keep the command from ending.
    threading.Thread(target=run, daemon=True).start()
    return answer


def _answer(group: str, answer: "Future[list[Finding]]") -> list[Finding]:
    try:
        return answer.result(PATIENCE)
    except TimeoutError:
        text, remedy = f"no answer within {PATIENCE:.0f} s", "is the server, or a pooler before it, stuck?"
        return [Finding(f"{group}.reachable", "problem", text, remedy)]


# --- Redis and the queue ----------------------------------------------------------------------------------


def _redis(queue: str) -> Iterator[Finding]:
    try:
        redis = client(os.environ)
    except BadAddress as error:
        problem, _, expected = str(error).partition(": ")
        yield Finding("settings.redis_url", "problem", problem, expected)
        return
    gap = tls.unverified_redis(redis.connection_pool)
    if gap and requires_tls(os.environ):
        return  # the settings say so; connecting would show the password
    with closing(redis):
        try:
            redis.ping()
            yield Finding("redis.reachable", "ok", "it answers")
            yield from redis_findings(redis)
            yield from _queue(redis, queue)
        except (RedisError, OSError) as error:
            fault = redis_faults.judge(error)
            yield Finding("redis.reachable", "problem", fault.text, fault.remedy)


def _queue(redis: Redis, name: str) -> Iterator[Finding]:
    queue = Queue(name, connection=redis)
    waiting = queue.count
    workers = listening(redis, name)
    ages = sorted(worker.age for worker in workers if worker.age is not None)
    if silent := [worker.name for worker in workers if not worker.fresh]:
        text = f"{len(workers)} listen, of them silent for too long: {', '.join(silent)}"
        yield Finding("queue.workers", "warning", text, "look at their logs and hosts; restart them")
    elif workers:
        heartbeats = f"; heartbeats {ages[0]:.0f} to {ages[-1]:.0f} s ago" if ages else ""
        yield Finding("queue.workers", "ok", f"{len(workers)} alive{heartbeats}")
    else:
        text = f"no worker listens on {name}"
        yield Finding("queue.workers", "problem" if waiting else "warning", text, f"run `rq worker {name}`")

    if is_suspended(redis):
        yield Finding("queue.suspended", "warning", "workers are suspended", "run `rq resume`")
    first = redis.lindex(queue.key, 0)
    waited = age(_field(redis, first, "enqueued_at")) if isinstance(first, bytes) else None
    text = f"{waiting:,} waiting" + (f", the oldest for {waited:,.0f} s" if waited is not None else "")
    if workers and waited is not None and waited > LONG:
        remedy = "look at what the workers log (PostgreSQL away?); if they are busy, start more"
        yield Finding("queue.waiting", "warning", text, remedy)
    else:
        yield Finding("queue.waiting", "ok", text)

    stopped = {
        "failed": redis.zcard(queue.failed_job_registry.key),
        "quarantined": redis.llen(quarantine_key(name)),
    }
    for state, jobs in stopped.items():
        if jobs:
            remedy = f"see why with `python -m {NAME}.replay --queue {name}`"
            yield Finding(f"queue.{state}", "warning", _count(jobs, "job"), remedy)
        else:
            yield Finding(f"queue.{state}", "ok", "none")
    yield from _brake(redis)
    yield from _absent(redis)


def _brake(redis: Redis) -> Iterator[Finding]:
    on = []
    for source in get_args(brake.Source):
        for channel, (alive, dead, *_) in brake.recent(redis, source).items():
            if brake.is_on(alive, dead):
                on.append(f"{dead:,} of {alive + dead:,} recent answers of {channel} to {source} say so")
    if on:
        text = f"on: most devices look dead ({'; '.join(on)}), so their tokens are kept"
        remedy = "is the project, the environment or an app release wrong?"
        yield Finding("queue.brake", "warning", text, remedy)
    else:
        yield Finding("queue.brake", "ok", "off")


def _absent(redis: Redis) -> Iterator[Finding]:
    names = [f"{channel}:{what}" for channel in CHANNELS for what in ("notices", "absent")]
    counts = brake.kept(redis, names, 24)
    for channel in CHANNELS:
        dead, absent = counts[f"{channel}:notices"], counts[f"{channel}:absent"]
        if dead >= _MANY and absent >= 0.9 * dead:
            text = (
                f"of {dead:,} dead tokens of {channel} in the last day the token table held {dead - absent:,}"
            )
            remedy = "is it the right table and column? Tokens that are hashed there cannot be found"
            yield Finding("queue.absent", "warning", text, remedy)


def _field(redis: Redis, job_id: bytes, name: str) -> bytes | None:
    try:
        value = redis.hget(f"{PREFIX}:job:{job_id.decode(errors='replace')}", name)
    except RedisError:  # not a job
        return None
    return value if isinstance(value, bytes) else None


# --- PostgreSQL -------------------------------------------------------------------------------------------


def _postgres(settings: Settings) -> Iterator[Finding]:
    url = make_conninfo(settings.database_url, connect_timeout=5)
    try:
        with closing(postgres.connect(url)) as connection:
            connection.execute("select 1")  # a pooler answers before it has a server
            where = connection.info
            text = f"database {where.dbname} at {where.host} as {where.user}"
            yield Finding("postgres.reachable", "ok", text)
            yield from unwritable(connection)
            yield from database_findings(connection, settings)
            yield from _future_registrations(connection, settings)
            yield from _missing(connection)
            yield _migrations(connection)
            yield _pooler(connection, url)
    except psycopg.Error as error:
        fault = postgres.judge(error)
        yield Finding("postgres.reachable", "problem", fault.text, fault.remedy)


def _missing(connection: psycopg.Connection) -> Iterator[Finding]:
    with suppress(psycopg.DatabaseError):  # the role may not look: nobody reserves as it does
        prompts, age = reservations.missing(connection)
        if prompts:
            text = (
                f"reserved and never reported: {_count(prompts, 'prompt')}, the oldest {age // 3600:,} h ago"
            )
            remedy = "did a scheduler die between sending and enqueueing? `history.outstanding` lists them"
            yield Finding("postgres.outstanding", "warning", text, remedy)


def _future_registrations(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    for table in dict.fromkeys(settings.tokens.values()):
        with suppress(psycopg.DatabaseError):  # said above: it cannot be read, or is too large to be in time
            shape = usable_shape(connection, table)
            with postgres.transaction(connection):
                connection.execute("select set_config('statement_timeout', '5s', true)")
                if finding := future_registrations(connection, shape):
                    yield finding


def _migrations(connection: psycopg.Connection) -> Finding:
    if connection.execute(_CLOSED_LEDGERS).fetchone() == (True,):
        text = f"their owner can tell, with `python -m {NAME}.migrate --check`; this role may not look"
        return Finding("postgres.migrations", "ok", text)
    if names := [migration.name for migration in pending(connection)]:
        text = f"pending: {', '.join(names)}"
        return Finding("postgres.migrations", "problem", text, f"run `python -m {NAME}.migrate`")
    return Finding("postgres.migrations", "ok", "all applied")


def _pooler(connection: psycopg.Connection, url: str) -> Finding:
    """How the connection reaches its server process; all of these are fine."""
    with closing(postgres.connect(url)) as other:
        mine, others = set(), set()
        for _ in range(3):
            mine.add(_process(connection))
            others.add(_process(other))
    # Only in transaction mode does one client see several processes, or two clients the same.
    if len(mine) > 1 or mine & others:
        text = "a pooler in transaction mode"
    elif mine != {connection.info.backend_pid}:
        text = "a pooler in session mode"
    else:
        text = "none"
    return Finding("postgres.pooler", "ok", text)


def _process(connection: psycopg.Connection) -> int:
    (process,) = connection.execute("select pg_backend_pid()").fetchone() or (0,)
    return int(process)


# --- text -------------------------------------------------------------------------------------------------


def _show(findings: Sequence[Finding]) -> None:
    fancy = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    marks = _MARKS if fancy else {level: level for level in _MARKS}
    mark_width = max(map(len, marks.values()))
    width = max(len(_thing(finding)) for finding in findings)
    for group, members in groupby(findings, _group):
        say(group)
        for finding in members:
            say(f"  {marks[finding.level]:<{mark_width}}  {_thing(finding):<{width}}  {finding.text}")
            if finding.remedy:
                say(f"  {'':<{mark_width}}  {'':<{width}}  -> {finding.remedy}")
    levels = [finding.level for finding in findings]
    say(", ".join(_count(levels.count(level), level) for level in ("problem", "warning")))


def _count(n: int, what: str) -> str:
    return f"{f'{n:,}' if n else 'no'} {what}{'' if n == 1 else 's'}"


def _group(finding: Finding) -> str:
    return finding.name.partition(".")[0]


def _thing(finding: Finding) -> str:
    return finding.name.partition(".")[2]


if __name__ == "__main__":
    raise SystemExit(main())
