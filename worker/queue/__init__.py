"""RQ's keys in Redis: what stands there is anybody's, so it is read within bounds and as plain data."""

#: The modules that others use.
__all__ = [
    "causes",
    "census",
    "contents",
    "fields",
    "groups",
    "keys",
    "known",
    "lost",
    "notices",
    "plain",
    "refused",
    "repair",
    "scripts",
    "stopped",
    "workers",
]
