"""PostgreSQL and Redis: settings, connections, what they must be like, and the migrations."""

#: The modules that others use.
__all__ = ["findings", "migrations", "postgres", "privileges", "redis", "settings", "tls"]
