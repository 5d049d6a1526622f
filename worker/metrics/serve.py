"""The HTTP server: `/metrics` for Prometheus, `/healthz` for whoever keeps the process alive."""

import socket
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from .collect import PATIENCE, Everything


class Server(ThreadingHTTPServer):
    """Serves what a collector tells; each request in a thread of its own. Raises OSError."""

    daemon_threads = True

    def __init__(self, host: str, port: int, everything: Everything) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.everything = everything
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class _Scrape(Collector):
    """What one request gets to see."""

    def __init__(self, everything: Everything, patience: float) -> None:
        self._everything, self._patience = everything, patience

    def collect(self) -> Iterator[Metric]:
        return self._everything.collect(self._patience)


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "notiflog", ""
    timeout = 90  # seconds; whoever says nothing for so long is gone

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            everything = self.server.everything  # type: ignore[attr-defined]
            self._answer(HTTPStatus.OK, kind, encode(_Scrape(everything, self._patience())))
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"see /metrics and /healthz\n")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each scrape says nothing."""

    def _patience(self) -> float:
        """Seconds that the servers may take, so that the answer is in time for whoever scrapes."""
        try:
            timeout = float(self.headers.get("X-Prometheus-Scrape-Timeout-Seconds", ""))
        except ValueError:
            return PATIENCE
        return min(PATIENCE, max(0.1, 0.8 * timeout))

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
