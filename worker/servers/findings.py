"""What Redis and PostgreSQL must be like: no job can get lost, and every outcome can be recorded.

A worker does not start on a problem found here; `python -m worker.check` shows all of it.
"""

import os
from collections.abc import Iterator
from typing import Any

import psycopg
from redis import ResponseError, SSLConnection

from . import postgres, tls
from .addresses import FOREIGN
from .finding import Finding, Level
from .privileges import missing_privileges
from .settings import Settings, requires_tls
from .token_findings import token_findings
from .token_shape import find_shape

#: Redis that is fuller than this share of its maxmemory is near the day on which nothing can be enqueued.
FULL = 0.8

# The log table's own parts besides its columns and its key, by the names that the migration gives them.
_CONSTRAINTS = [
    f"follow_up_notification_log_{name}"
    for name in (
        "pkey",
        "peer_mentor_id_fkey",
        "chapter_id_fkey",
        "scenario_rule_id_fkey",
        "delivery_channel_check",
        "status_check",
    )
]
_INDEXES = [
    f"follow_up_notification_log_{name}_idx"
    for name in (
        "peer_mentor_id_chapter_id",
        "scenario_rule_id",
        "chapter_id_delivered_at",
        "peer_mentor_id_scenario_rule_id",
    )
]

# Without to_regclass, which raises where the schema is closed: `access` has a sentence about that.

# `on conflict (idempotency_key)` takes a unique index of that column alone, over all rows.
_LOG_TABLE = """
with log as (
  select oid as id from pg_class
   where relname = 'follow_up_notification_log'
     and relnamespace = (select oid from pg_namespace where nspname = 'public'))
select exists (
         select from pg_index
           join pg_attribute on attrelid = indrelid and attnum = indkey[0]
          where indrelid = log.id and attname = 'idempotency_key' and indnkeyatts = 1
            and indisunique and indisvalid and indimmediate and indpred is null),
       array(
         select name from unnest(%s::text[]) as name
         except select conname from pg_constraint where conrelid = log.id order by 1),
       array(
         select name from unnest(%s::text[]) as name
         except select relname from pg_class join pg_index on indexrelid = oid where indrelid = log.id
         order by 1)
  from log
"""


_REPLICA = "select current_setting('session_replication_role') = 'replica'"

_READ_ONLY = """
select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only') = 'on'
"""


def settings_findings(settings: Settings) -> Iterator[Finding]:
    """What of the settings says nothing, though somebody wrote it down."""
    if names := settings.passed_over:
        text = f"DATABASE_URL has parameters of other clients, which are passed over: {', '.join(names)}"
        remedy = "; ".join(dict.fromkeys(f"{name}: {FOREIGN[name]}" for name in names))
        yield Finding("settings.database_url", "warning", text, f"take them out ({remedy})")


def redis_findings(connection: Any) -> Iterator[Finding]:
    """What a connected Redis is like. Raises redis.RedisError."""
    try:
        info = connection.info()
    except ResponseError:  # as Upstash and serverless offers of others
        text = "INFO is refused: version, persistence, eviction and memory cannot be told"
        remedy = "see there that the data is kept over a restart, and that nothing is ever evicted"
        yield Finding("redis.info", "warning", text, remedy)
        yield _redis_tls(connection)
        return
    if "cluster" in (info.get("redis_mode"), info.get("server_mode")):
        remedy = "use a Redis or Valkey without cluster mode: RQ needs one"
        yield Finding("redis.mode", "problem", "it is a Redis Cluster", remedy)
    version = str(info.get("redis_version", "0"))
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version}"
    if tuple(int(part) for part in version.split(".")[:2]) < (6, 2):
        yield Finding("redis.version", "problem", f"{server} is too old", "use 6.2 or newer, or Valkey")
    else:
        yield Finding("redis.version", "ok", server)

    yield _redis_tls(connection)
    if info.get("aof_enabled"):
        yield Finding("redis.persistence", "ok", "append-only file")
    else:
        remedy = "set appendonly yes: without it a Redis restart loses the queue"
        yield Finding("redis.persistence", "warning", "no append-only file", remedy)

    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("redis.eviction", "ok", "noeviction")
    else:
        text = f"Redis may evict jobs (maxmemory-policy {policy}): queues vanish without an error"
        yield Finding("redis.eviction", "problem", text, "set maxmemory-policy noeviction")

    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if most and used > FULL * most:
        text = f"{used / most:.0%} of maxmemory is used; once it is full, nothing can be enqueued"
        yield Finding("redis.memory", "warning", text, "drain the queue, or raise maxmemory")
    else:
        limit = f", {used / most:.0%} of maxmemory" if most else ", no maxmemory"
        yield Finding("redis.memory", "ok", f"{used / 2**20:,.0f} MiB used{limit}")


def _redis_tls(connection: Any) -> Finding:
    if gap := tls.unverified_redis(connection.connection_pool):
        level: Level = "problem" if requires_tls(os.environ) else "warning"
        return Finding("redis.tls", level, f"REDIS_URL {gap}", tls.VERIFY_REDIS)
    encrypted = issubclass(connection.connection_pool.connection_class, SSLConnection)
    return Finding("redis.tls", "ok", "TLS" if encrypted else "on this machine")


def database_findings(connection: psycopg.Connection, settings: Settings) -> Iterator[Finding]:
    """What a connected PostgreSQL is like. Raises psycopg.Error."""
    version = connection.info.server_version // 10000
    if version < 15:
        text = f"PostgreSQL {version} is older than what is tested"
        yield Finding("postgres.version", "warning", text, "use 15 or newer")
    else:
        yield Finding("postgres.version", "ok", f"PostgreSQL {version}")

    encrypted = connection.pgconn.ssl_in_use
    if gap := tls.unverified_database(settings.database_url):
        text = f"DATABASE_URL {gap}; now {'with' if encrypted else 'without'} TLS"
        yield Finding("postgres.tls", "warning", text, tls.VERIFY_DATABASE)
    else:
        yield Finding("postgres.tls", "ok", "TLS" if encrypted else "on this machine")

    shapes = {table: find_shape(connection, table) for table in settings.tokens.values()}
    tables = [shape.table if shape else table for table, shape in shapes.items()]
    with postgres.transaction(connection, sealed=True):
        missing = missing_privileges(connection, tables)
        (replica,) = connection.execute(_REPLICA).fetchone() or (False,)
        log_table = connection.execute(_LOG_TABLE, [_CONSTRAINTS, _INDEXES]).fetchone()
        of_tokens = [
            finding for shape in shapes.values() if shape for finding in token_findings(connection, shape)
        ]

    for problem in missing:
        text, _, remedy = problem.partition(": ")
        yield Finding("postgres.privileges", "problem", text, remedy)
    if not missing:
        yield Finding("postgres.privileges", "ok", "the role may record outcomes and prune tokens")
    if log_table:
        yield _log_table(*log_table)
    yield from of_tokens
    if replica:
        text = (
            "session_replication_role keeps foreign keys and triggers from working in the worker's sessions"
        )
        yield Finding("postgres.replication_role", "problem", text, "reset it for role, database and server")


def unwritable(connection: psycopg.Connection) -> Iterator[Finding]:
    """Why no row can be written now; a worker waits until one can. Raises psycopg.Error."""
    with postgres.transaction(connection):
        standby, read_only = connection.execute(_READ_ONLY).fetchone() or (False, False)
    if standby:
        remedy = "lead DATABASE_URL to the primary; after a failover this may pass by itself"
        yield Finding("postgres.writable", "problem", "a standby answers, which takes no rows", remedy)
    elif read_only:
        remedy = (
            "reset default_transaction_read_only of server, database and role; "
            "Supabase sets it while the disk is full"
        )
        yield Finding("postgres.writable", "problem", "it is read-only and takes no rows", remedy)


def _log_table(unique: bool, constraints: list[str], indexes: list[str]) -> Finding:
    log = "follow_up_notification_log"
    if not unique:
        constraint = f"{log}_idempotency_key_key unique (idempotency_key)"
        remedy = f"run `alter table public.{log} add constraint {constraint}`"
        return Finding("postgres.log_table", "problem", f"{log}.idempotency_key is not unique", remedy)
    if missing := [*constraints, *indexes]:
        remedy = "add what the files in migrations/ say of them"
        return Finding("postgres.log_table", "warning", f"{log} lacks {', '.join(missing)}", remedy)
    return Finding("postgres.log_table", "ok", "as the migrations make it")
