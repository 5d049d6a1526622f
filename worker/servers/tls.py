"""What an address proves about its server: could a network read along, or answer in its place?"""

import ssl
from ipaddress import ip_address
from itertools import zip_longest

from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn
from redis import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.sentinel import SentinelConnectionPool

#: What to write instead of an address that proves nothing.
VERIFY_DATABASE = (
    "add sslmode=verify-full&sslrootcert=/path/to/ca.crt to DATABASE_URL (sslrootcert=system for a public CA)"
)
VERIFY_REDIS = (
    "use rediss://host:port/0?ssl_ca_certs=/path/to/ca.crt (without the option for a public CA) "
    "and leave verification on"
)


def unverified_database(database_url: str) -> str | None:
    """Why a network between here and PostgreSQL could read along or answer itself; None: it cannot.

    A certificate that nobody checks protects from neither, so only sslmode=verify-full counts, or a server
    on this machine. `database_url` must be parseable.
    """
    # Only libpq knows what holds in the end: the URL, PG* variables, a service file and its own defaults.
    # It resolves them when a connection starts; a parameter that cannot be ends that before anything is sent.
    attempt = PGconn.connect_start(
        make_conninfo(database_url, target_session_attrs="none, only resolve").encode()
    )
    found = {option.keyword: (option.val or b"").decode() for option in attempt.info}
    attempt.finish()
    hosts, addresses = found[b"host"].split(","), found[b"hostaddr"].split(",")
    if found[b"sslmode"] == "verify-full" or all(
        _is_here(address or host) for host, address in zip_longest(hosts, addresses, fillvalue="")
    ):
        return None
    mode = found[b"sslmode"]
    return f"reaches another host with sslmode={mode}, which does not prove that it is the right one"


def unverified_redis(pool: ConnectionPool) -> str | None:
    """Why a network between here and Redis could read along or answer itself; None: it cannot."""
    options = pool.connection_kwargs
    if issubclass(pool.connection_class, UnixDomainSocketConnection):
        return None
    # Sentinels name the host later.
    somewhere = "elsewhere" if isinstance(pool, SentinelConnectionPool) else "localhost"
    if _is_here(options.get("host", somewhere)):
        return None
    if not issubclass(pool.connection_class, SSLConnection):
        return "reaches another host without TLS"
    if options.get("ssl_cert_reqs", "required") not in ("required", ssl.CERT_REQUIRED):
        return "reaches another host whose certificate is not verified (ssl_cert_reqs)"
    if not options.get("ssl_check_hostname", True):
        return "reaches another host whose name is not compared with its certificate (ssl_check_hostname)"
    return None


def _is_here(host: str) -> bool:
    """Whether a host, as libpq or redis-py takes it, is this machine: a Unix socket or a loopback address."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
