"""Clients of Redis that give up soon."""

from collections.abc import Mapping

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

# Seconds. The rows wait for the brake, so it must not wait for Redis.
_PATIENCE = 1.0


def impatient(redis: Redis) -> Redis:
    """A client of the same server that gives up after a second and does not try again.

    Its connection is made with the first command; threads may share it. Close it in the end.
    """
    pool = redis.connection_pool
    options = pool.connection_kwargs | {
        "socket_timeout": _PATIENCE,
        "socket_connect_timeout": _PATIENCE,
        "retry": Retry(NoBackoff(), 0),
    }
    return Redis.from_pool(ConnectionPool(pool.connection_class, **options))  # closes it, too


#: Seconds to wait for Redis.
PATIENCE = 5.0


def client(environ: Mapping[str, str]) -> Redis:
    """A client of the Redis that RQ's command line would use; gives up soon. Raises ValueError."""
    return Redis.from_url(
        environ.get("RQ_REDIS_URL") or environ.get("REDIS_URL") or "redis://localhost:6379/0",
        socket_timeout=PATIENCE,
        socket_connect_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )
