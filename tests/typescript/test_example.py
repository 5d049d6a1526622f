"""The worked example in Deno reserves through the API, sends and enqueues; at once with itself, too."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from threading import Lock, Thread
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.scheduler.conftest import Work
from tests.typescript.conftest import Project
from worker import history
from worker.demo import sample
from worker.demo.sandbox import free_port, stop
from worker.drain import DrainWorker
from worker.servers import postgres

PROMPTS = 300


class Outside:
    """What the function finds outside: PostgREST, as far as it calls functions, and FCM."""

    def __init__(self, database: str, prompts: list[dict[str, Any]]) -> None:
        self._database = database
        self._prompts = prompts
        self._lock = Lock()
        self.pushes: Counter[str] = Counter()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        name = path.rpartition("/")[2]
        if name == "due_follow_up_prompts":
            return self._prompts
        if name == "messages:send":
            token = body["message"]["token"]
            with self._lock:
                self.pushes[token] += 1
            return {"name": f"projects/example/messages/{token}"}
        # PostgREST passes JSON by the parameters' names, and logs in anew for each transaction.
        call = sql.SQL("select * from public.{}({})").format(
            sql.Identifier(name),
            sql.SQL(", ").join(
                sql.SQL("{} => {}").format(sql.Identifier(key), sql.Placeholder(key)) for key in body
            ),
        )
        with postgres.connect(self._database) as connection, connection.transaction():
            connection.execute("set local role api_service")
            return [value for (value,) in connection.execute(call, body)]


@contextmanager
def serving(outside: Outside) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = json.dumps(outside.answer(self.path, body)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def function(project: Project, url: str, socket: str) -> Iterator[str]:
    """The Edge Function, served by Deno; yields its address."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(project.directory),
        "NO_COLOR": "1",
        "DENO_SERVE_ADDRESS": f"tcp:127.0.0.1:{port}",
        "SUPABASE_URL": url,
        "SUPABASE_SERVICE_ROLE_KEY": "key",
        "FCM_URL": url,
        "FCM_ACCESS_TOKEN": "token",
        "REDIS_URL": socket,
    }
    log = project.directory / f"{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            project.deno("index.ts"), cwd=project.directory, env=environment, stdout=output, stderr=output
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(process, port, log)
        yield address
    finally:
        stop(process, signal.SIGTERM)


def wait_for(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(log.read_text())
        with suppress(ConnectionRefusedError), create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    pytest.fail("the function does not listen")


def start(address: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=60) as answer:  # noqa: S310
        return json.load(answer)


@pytest.fixture
def outside(database: str, connection: psycopg.Connection, app: sample.App) -> Iterator[Outside]:
    """Prompts that are due, and the API's role, which may call the two functions."""
    prompts = [
        {
            "peer_mentor_id": str(app.users[n % len(app.users)]),
            "chapter_id": str(app.chapters[0]),
            "scenario_rule_id": str(app.rules[0]),
            "date_window": f"2026-W47-{n}",
            "tokens": [f"token-{n}"],
        }
        for n in range(PROMPTS)
    ]
    connection.execute(
        "create role api_service;"
        "grant execute on function public.reserve_follow_up_notifications to api_service;"
        "grant execute on function public.release_follow_up_notifications to api_service"
    )
    yield Outside(database, prompts)
    connection.execute("drop owned by api_service; drop role api_service")


def test_it_passes_the_type_check_of_deno(project: Project) -> None:
    checked = subprocess.run(
        [project.tool("deno"), "check", "--no-lock", "index.ts"],
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_three_runs_at_once_send_each_prompt_once_and_all_are_recorded(
    project: Project,
    outside: Outside,
    socket: str,
    redis: Any,
    work: Work,
    statuses: Callable[[], list[str]],
    connection: psycopg.Connection,
) -> None:
    with ExitStack() as stack:
        url = stack.enter_context(serving(outside))
        addresses = [stack.enter_context(function(project, url, socket)) for _ in range(2)]
        with ThreadPoolExecutor(3) as pool:
            runs = list(pool.map(start, [*addresses, addresses[0]]))
    assert sum(run["sent"] for run in runs) == PROMPTS
    assert outside.pushes == Counter({f"token-{n}": 1 for n in range(PROMPTS)})
    work(None, DrainWorker)
    assert statuses() == ["delivered"] * PROMPTS
    assert history.outstanding(connection, timedelta(0)) == []
