"""PostgreSQL and Redis: settings, connections, what they must be like, and the migrations."""

#: The modules that others use.
__all__ = [
    "credentials",
    "drift",
    "finding",
    "findings",
    "locks",
    "migrations",
    "names",
    "postgres",
    "privileges",
    "redis",
    "redis_faults",
    "settings",
    "tls",
    "token_findings",
    "token_shape",
    "tokens",
]
