"""Connections that Sentinel leads, made to ask it whenever they connect again, within a command, too."""

from typing import Any

from redis import Redis
from redis.sentinel import SentinelConnectionPool


def follow_primary(redis: Redis) -> None:
    """Have a client that Sentinel leads look for the primary at each new try; of another it changes nothing.

    redis-py connects a lost connection to where it was, for as long as one command is tried: without end,
    where whoever waits is patient and the server there is gone.
    """
    pool = redis.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        pool.connection_class = _following(pool.connection_class)
        pool.disconnect()
        pool.reset()  # type: ignore[no-untyped-call]  # no connection of the other kind is used again


def _following(kind: type[Any]) -> type[Any]:
    class Following(kind):  # type: ignore[misc]
        def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
            if not self._sock and retry_socket_connect:  # not by way of `connect`, which asks
                self.connect()
            else:
                super().connect_check_health(check_health, retry_socket_connect)

    return Following
