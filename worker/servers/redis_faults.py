"""What Redis answers instead of doing as told: what it means, whether it passes, what to do about it."""

import re
from typing import NamedTuple

from redis import ConnectionError as RedisConnectionError
from redis import TimeoutError as RedisTimeoutError

#: The least that a Redis user of notiflog's may do; RQ's commands need no more.
LEAST = (
    "ACL SETUSER <user> on ><password> resetkeys ~rq:* resetchannels &rq:* -@all +@read +@write +@connection "
    "+@transaction +@scripting +@pubsub -@dangerous +info +time"
)


class RedisFault(NamedTuple):
    """One fault of Redis."""

    #: Trying again later may help.
    passes: bool
    #: What happened, as a phrase; no value of the address.
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.text}: {self.remedy}"


#: By what the exception is called and says; a script's quotes the answer of the command that it ran.
ANSWERS = {
    r"READONLY|ReadOnlyError|UNBLOCKED": RedisFault(  # the latter: demoted while somebody waited for a job
        True,
        "it is a replica and takes no writes",
        "after a failover that passes by itself; else lead REDIS_URL to the primary",
    ),
    r"MISCONF": RedisFault(
        True, "it cannot save its data and takes no writes", "see the log of Redis; make room on its disk"
    ),
    r"NOREPLICAS": RedisFault(
        True,
        "too few replicas follow it, and it takes no writes",
        "bring the replicas back, or lower min-replicas-to-write",
    ),
    r"\bBUSY\b": RedisFault(True, "somebody's script runs there for too long", "end it with SCRIPT KILL"),
    r"LOADING|BusyLoadingError": RedisFault(True, "it is loading its data", "wait until it has"),
    r"MASTERDOWN|MasterDownError": RedisFault(
        True, "it is a replica that has lost its primary", "lead REDIS_URL to the primary"
    ),
    r"MasterNotFoundError": RedisFault(
        True,
        "no Sentinel knows a primary of that name that is up",
        "a failover passes by itself; else check INSTANCES and MASTER_NAME in SENTINEL, and the Sentinels",
    ),
    r"max number of clients": RedisFault(
        True, "it takes no more clients", "raise maxclients, or start fewer workers"
    ),
    r"WRONGPASS|NOAUTH|AuthenticationError|AuthenticationWrongNumberOfArgsError": RedisFault(
        True, "it does not take user and password", "check REDIS_URL; after a rotation restart the workers"
    ),
    r"OutOfMemoryError|OOM command": RedisFault(False, "it is full", "raise maxmemory, or drain the queue"),
    r"MOVED|CROSSSLOT|CLUSTERDOWN|MovedError|ClusterError|ClusterDownError|ClusterCrossSlotError": RedisFault(
        False, "it is a Redis Cluster", "use a Redis or Valkey without cluster mode: RQ needs one"
    ),
    r"DENIED|protected mode": RedisFault(
        False,
        "protected mode lets in its own machine only",
        "give Redis a password, or switch protected-mode off where nobody else reaches it",
    ),
    r"CERTIFICATE_VERIFY_FAILED": RedisFault(
        False,
        "its certificate cannot be verified",
        "name its CA in REDIS_URL: rediss://host:port/0?ssl_ca_certs=/path/to/ca.crt",
    ),
}
_NO_PERMISSION = re.compile(r"run the '([\w|]+)' command|unknown command '?`?([\w|]+)")


def judge(error: Exception) -> RedisFault:
    """What a fault means; redis-py's own text may quote the address."""
    said = f"{type(error).__name__} {error}"
    if found := _NO_PERMISSION.search(said):
        command = (found[1] or found[2]).upper()
        text = f"it refuses a command: {command} is {'not allowed' if found[1] else 'switched off'}"
        return RedisFault(False, text, f"allow its user what is needed: {LEAST}")
    if "NoPermissionError" in said or "NOPERM" in said:  # of a key or a channel
        return RedisFault(
            False, "it refuses a key or channel of RQ's", f"allow the user in REDIS_URL: {LEAST}"
        )
    for pattern, fault in ANSWERS.items():
        if re.search(pattern, said):
            return fault
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
        return RedisFault(
            True,
            f"no connection ({type(error).__name__})",
            "check REDIS_URL, and whether the server is up and has memory left",
        )
    return RedisFault(False, f"it refuses a command ({type(error).__name__})", "see the log of Redis")
