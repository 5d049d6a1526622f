"""What must hold before a worker starts: no job can get lost in Redis, and every outcome can be recorded."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg

from worker import access, db, logs
from worker.config import ConfigError, settings


def redis_problems(connection: Any) -> Iterator[str]:
    """Sentences on why jobs could be lost in this Redis. Warns where less than that is wrong."""
    info = connection.info()
    version = tuple(int(part) for part in str(info.get("redis_version", "0")).split(".")[:2])
    if version < (6, 2):
        yield f"Redis {info['redis_version']} is too old: 6.2 or newer, or Valkey, is needed."
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield (
            f"Redis may evict jobs (maxmemory-policy {policy}): queues vanish without an error. "
            "Set maxmemory-policy noeviction."
        )
    if not info.get("aof_enabled"):
        logs.warning(
            "redis_not_durable", remedy="set appendonly yes: without it a Redis restart loses the queue"
        )


def database_problems() -> Iterator[str]:
    """Sentences on why outcomes could not be recorded. A database that is away now is no such reason."""
    try:
        config = settings()
        with closing(db.connect(config.database_url)) as connection:
            yield from access.missing_privileges(connection, config)
    except ConfigError as error:
        yield str(error)
    except psycopg.Error as error:
        if not db.is_transient(error):
            yield db.explain(error)
        else:
            logs.warning("database_unavailable", problem=db.explain(error))
