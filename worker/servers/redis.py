"""Redis: its address, as RQ reads it, and clients that give up soon."""

from collections.abc import Mapping

from redis import ConnectionPool, Redis, RedisError
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from .redis_faults import judge
from .sentinel import BadSetting, primary, settings_module

#: Seconds to wait for Redis.
PATIENCE = 5.0
# The rows wait for the brake, so it must not wait for Redis.
_BRAKE_PATIENCE = 1.0

_FORM = "expected redis://user:password@host:6379/0, with special characters of the password percent-encoded"


# What other clients take.
_FOREIGN = {
    *("connectTimeout", "enableReadyCheck", "family", "keepAlive", "keyPrefix", "lazyConnect", "tls", "ssl"),
    *("maxRetriesPerRequest", "prefix", "timeout"),
}


class BadAddress(ValueError):
    """A variable holds no address of a Redis; says which and what is expected, and nothing of its value."""


def address(environ: Mapping[str, str]) -> str:
    """The address that RQ's commands would use: RQ_REDIS_URL, or REDIS_URL. Raises BadAddress."""
    url = environ.get("RQ_REDIS_URL") or environ.get("REDIS_URL") or "redis://localhost:6379/0"
    name = "RQ_REDIS_URL" if environ.get("RQ_REDIS_URL") else "REDIS_URL"
    try:
        pool = ConnectionPool.from_url(url)
    except ValueError:  # its text quotes a part of the address, which may well be the password
        raise BadAddress(f"{name} cannot be parsed: {_FORM}") from None
    if problem := unusable(pool):
        raise BadAddress(f"{name} {problem}")
    return url


def unusable(pool: ConnectionPool) -> str | None:
    """Why an address that can be parsed is of no use; None: it is. Connects to nothing."""
    if "decode_responses" in pool.connection_kwargs:
        return "has the parameter decode_responses: take it out, RQ and its workers read bytes"
    try:
        pool.make_connection()
    except TypeError:  # a parameter that no connection takes; its name may be anything
        foreign = sorted(_FOREIGN & pool.connection_kwargs.keys())
        which = ", ".join(foreign) or "those of other clients, ssl_... without rediss:// among them"
        return f"has parameters that cannot be: take out {which}; for TLS write rediss://"
    except RedisError:
        return f"has a parameter with an impossible value: {_FORM}"
    return None


def client(environ: Mapping[str, str], *, retries: int = 0) -> Redis:
    """A client of the Redis that RQ's commands would use; gives up soon. Raises BadAddress.

    That is the one of RQ_REDIS_URL, or of RQ_CONFIG's module (its REDIS_URL, or the primary of its SENTINEL),
    or of REDIS_URL. `retries`: how often a command is tried again when the connection is lost or silent.
    """
    limits = {
        "socket_timeout": PATIENCE,
        "socket_connect_timeout": PATIENCE,
        "retry": Retry(ExponentialBackoff(), retries),
    }
    if not environ.get("RQ_REDIS_URL"):
        try:
            chosen = settings_module(environ)
            if url := chosen.get("REDIS_URL"):
                environ = {**environ, "REDIS_URL": url}
            elif sentinel := chosen.get("SENTINEL"):
                return primary(sentinel, limits)
        except BadSetting as error:
            raise BadAddress(str(error)) from None
    return Redis.from_url(address(environ), **limits)


def impatient(redis: Redis) -> Redis:
    """A client of the same server that gives up after a second and does not try again.

    Its connection is made with the first command; threads may share it. Close it in the end.
    """
    pool = redis.connection_pool
    options = pool.connection_kwargs | {
        "socket_timeout": _BRAKE_PATIENCE,
        "socket_connect_timeout": _BRAKE_PATIENCE,
        "retry": Retry(NoBackoff(), 0),
    }
    return Redis.from_pool(ConnectionPool(pool.connection_class, **options))  # closes it, too


def explain(error: RedisError | OSError) -> str:
    """A sentence on a Redis that did not do its part; redis-py's own may quote the address."""
    return f"Redis: {judge(error)}"
