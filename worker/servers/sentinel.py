"""A Redis that Sentinel knows: the setting SENTINEL of the module that RQ_CONFIG names, as RQ reads it."""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from redis import Redis
from redis.sentinel import Sentinel

# Holds what the environment does, which is read there.
_OWN = ("worker.rqconfig", "notiflog.rqconfig")


class BadSetting(ValueError):
    """The settings module is of no use; says what is expected, and nothing of its values."""


def settings_module(environ: Mapping[str, str]) -> Mapping[str, Any]:
    """What the module that RQ_CONFIG names sets; nothing, where there is none. Raises BadSetting."""
    name = environ.get("RQ_CONFIG", "")
    if not name or name in _OWN:
        return {}
    if "." not in sys.path:  # where RQ's commands look, too
        sys.path.append(".")
    try:
        return vars(import_module(name))
    except Exception as error:
        problem = f"RQ_CONFIG names a module that cannot be imported ({type(error).__name__})"
        raise BadSetting(f"{problem}: expected a name as in `import`, found from here") from None


def primary(sentinel: Any, limits: Mapping[str, Any]) -> Redis:
    """A client of the primary that Sentinel knows at the time of each connection. Connects to nothing.

    `sentinel`: the setting. `limits`: time limits, for the Sentinels, too. Raises BadSetting.
    """
    try:
        known = Sentinel(  # type: ignore[no-untyped-call]
            sentinel.get("INSTANCES", [("localhost", 26379)]),
            sentinel_kwargs={**limits, **sentinel.get("SENTINEL_KWARGS", {})},
            **{
                "db": sentinel.get("DB", 0),
                "username": sentinel.get("USERNAME"),
                "password": sentinel.get("PASSWORD"),
                "ssl": sentinel.get("SSL", False),
                **sentinel.get("CONNECTION_KWARGS", {}),
                **limits,
            },
        )
        redis: Redis = known.master_for(  # type: ignore[no-untyped-call]
            sentinel.get("MASTER_NAME", "mymaster")
        )
        redis.connection_pool.make_connection()
    except Exception:  # whatever somebody wrote there; the text may quote a password
        form = "{'INSTANCES': [('host', 26379)], 'MASTER_NAME': 'mymaster', 'PASSWORD': '...'}"
        raise BadSetting(f"SENTINEL in RQ_CONFIG's module cannot be used: expected {form}") from None
    return redis
